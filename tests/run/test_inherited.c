/* SPDX-License-Identifier: MIT */
/*
 * Contexts that are passed on to another process: this program, started once more with the name of what it is to do. It
 * writes letters to its stdout, which the test reads, and exits with a code.
 */
#include "commands.h"

#include <inttypes.h>
#include <sys/stat.h>

/* ---- The program that gets a context ----------------------------------------------------------------------------- */

static void tell(char letter)
{
	require(write(1, &letter, 1) == 1);
}

static struct ctxfd_command self(const char *what, int out)
{
	static char path[4096], *argv[] = { path, NULL, NULL };

	require(readlink("/proc/self/exe", path, sizeof path - 1) > 0); /* which valgrind does not let us execute */
	argv[1] = (char *)(uintptr_t)what;
	return (struct ctxfd_command){ .argv = argv,
		                       .in = -1,
		                       .out = out,
		                       .stop_signal = SIGCONT,
		                       .grace = INT64_MAX,
		                       .flags = CTXFD_PASS_CONTEXT };
}

/* Says r when it has the context, c or t when that has ended. */
static int wait_for_end(void)
{
	struct ctxfd *ctx = ctxfd_inherited(), *other = ctxfd_inherited();

	require(ctx && other && ctxfd_err(ctx) == 0 && ctxfd_cause(ctx) == 0);
	tell('r');
	tell(ctxfd_wait(ctx) == -ECANCELED ? 'c' : 't');
	require(ctxfd_wait(other) == ctxfd_err(ctx) && ctxfd_cause(ctx) == ctxfd_err(ctx));
	ctxfd_unref(other);
	ctxfd_unref(ctx);
	other = ctxfd_inherited();
	require(other && ctxfd_err(other) != 0);
	ctxfd_unref(other);
	return 0;
}

/* Says what its deadline is. */
static int tell_deadline(void)
{
	struct ctxfd *ctx = ctxfd_inherited();
	int64_t deadline = 0;

	require(ctx);
	require(printf("%d %" PRId64, ctxfd_deadline(ctx, &deadline), deadline) > 0 && fflush(stdout) == 0);
	ctxfd_unref(ctx);
	return 0;
}

/* Is one process between; says p when it has ended. */
static int pass_on(const char *what)
{
	struct ctxfd *ctx = ctxfd_inherited();
	struct ctxfd_command c = self(what, 1);
	int status = -1;

	require(ctx && ctxfd_run(ctx, &c, &status) == 0 && status == 0);
	tell('p');
	ctxfd_unref(ctx);
	return 0;
}

/* Starts another one, and dies when there is something to read. */
static int start_and_die(void)
{
	struct ctxfd *ctx = ctxfd_inherited();
	struct ctxfd_command c = self("wait", 1);
	char byte;

	require(ctx && ctxfd_spawn(ctx, &c, NULL) >= 0);
	require(read(0, &byte, 1) == 1);
	_exit(0);
}

/* What the variable says, when the fd that it means is another by now. */
static int use_a_stale_variable(void)
{
	int fd = atoi(getenv("CTXFD_CONTEXT")), fds[2];

	close(fd);
	require(!ctxfd_inherited() && errno == EBADF);
	make_pipe(fds);
	require(dup2(fds[0], fd) == fd);
	require(!ctxfd_inherited() && errno == EBADF);
	return 0;
}

static int be_the_other(const char *what)
{
	if (strcmp(what, "wait") == 0)
		return wait_for_end();
	if (strcmp(what, "deadline") == 0)
		return tell_deadline();
	if (strcmp(what, "between") == 0)
		return pass_on("wait");
	if (strcmp(what, "between two") == 0)
		return pass_on("between");
	if (strcmp(what, "die") == 0)
		return start_and_die();
	return use_a_stale_variable();
}

/* ---- The tests --------------------------------------------------------------------------------------------------- */

static void the_end_is_passed_on(void **state)
{
	static const char *const whats[] = { "wait", "between", "between two" };
	static const char *const words[] = { "rc", "rcp", "rcpp" };

	NEED_PROCESSES();
	for (size_t i = 0; i < COUNT(whats); i++)
		for (int spawn = 0; spawn < 2; spawn++) {
			struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
			struct ctxfd_command c;
			int fds[2], pidfd;
			struct running r;
			struct script s = { .pipe = { -1, -1 } };
			siginfo_t info;

			make_pipe(fds);
			c = self(whats[i], fds[1]);
			if (spawn)
				assert_true((pidfd = ctxfd_spawn(ctx, &c, NULL)) >= 0);
			else
				start_running(&r, ctx, &c);
			s.pipe[0] = fds[0];
			s.pipe[1] = fds[1];
			assert_int_equal(hear(&s), words[i][0]);
			ctxfd_cancel_cause(ctx, -4711);
			if (spawn) {
				assert_int_equal(ctxfd_waitid(ctxfd_background(), pidfd, &info, WEXITED), 0);
				assert_int_equal(info.si_code, CLD_EXITED);
				assert_int_equal(info.si_status, 0);
				close(pidfd);
			} else {
				assert_int_equal(end_of_running(&r), 0);
			}
			assert_string_equal(output(&s), words[i] + 1);
			drop_script(&s);
			ctxfd_close(ctx);
		}
}

static void a_deadline_is_passed_on(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	char expected[64];
	int64_t deadline;

	NEED_PROCESSES();
	for (int timed = 0; timed < 2; timed++) {
		ctx = timed ? ctxfd_with_timeout(ctxfd_background(), HOUR) : ctxfd_with_cancel(ctxfd_background());
		make_script(&s, "");
		s.command = self("deadline", s.pipe[1]);
		assert_int_equal(exit_code(ctx, &s.command), 0);
		deadline = 0;
		snprintf(expected, sizeof expected, "%d %" PRId64, ctxfd_deadline(ctx, &deadline), deadline);
		assert_string_equal(output(&s), expected);
		drop_script(&s);
		ctxfd_close(ctx);
	}
	/* It ends there by its own clock. */
	ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC * slow());
	make_script(&s, "");
	s.command = self("wait", s.pipe[1]);
	assert_int_equal(exit_code(ctx, &s.command), 0);
	assert_string_equal(output(&s), "rt");
	drop_script(&s);
	ctxfd_close(ctx);
}

static void a_never_done_context_is_passed_on(void **state)
{
	struct script s;
	siginfo_t info;
	int pidfd, fds;

	NEED_PROCESSES();
	make_script(&s, "");
	fds = count_fds();
	s.command = self("deadline", s.pipe[1]);
	pidfd = ctxfd_spawn(ctxfd_background(), &s.command, NULL);
	assert_true(pidfd >= 0);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), pidfd, &info, WEXITED), 0);
	assert_int_equal(info.si_status, 0);
	close(pidfd);
	wait_until(count_fds() == fds);
	assert_string_equal(output(&s), "0 0");
	drop_script(&s);
}

/* A fork of ours that has not called exec has all that we have. */
static void a_fork_does_not_hold_up_the_end(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	struct running r;
	int go[2];
	pid_t fork_of_ours;

	NEED_PROCESSES();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "");
	make_pipe(go);
	s.command = self("wait", s.pipe[1]);
	start_running(&r, ctx, &s.command);
	assert_int_equal(hear(&s), 'r');
	fork_of_ours = fork();
	if (fork_of_ours == 0) {
		char byte;

		while (read(go[0], &byte, 1) < 0)
			continue;
		_exit(0);
	}
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_running(&r), 0);
	assert_int_equal(hear(&s), 'c');
	assert_int_equal(write(go[1], "x", 1), 1);
	assert_int_equal(waitpid(fork_of_ours, NULL, 0), fork_of_ours);
	close_pair(go);
	drop_script(&s);
	ctxfd_close(ctx);
}

static void the_end_of_the_process_is_passed_on(void **state)
{
	struct running r;
	struct script s;
	int in[2];

	NEED_PROCESSES();
	adopt_orphans();
	make_script(&s, "");
	make_pipe(in);
	s.command = self("die", s.pipe[1]);
	s.command.in = in[0];
	start_running(&r, ctxfd_background(), &s.command);
	assert_int_equal(hear(&s), 'r');
	assert_int_equal(write(in[1], "x", 1), 1);
	assert_int_equal(end_of_running(&r), 0);
	assert_int_equal(hear(&s), 'c');
	bury_orphans();
	close_pair(in);
	drop_script(&s);
}

static void programs_between_need_not_know(void **state)
{
	char *argv[] = { "/bin/sh", "-c", "\"$0\" wait; exit $?", NULL, NULL };
	struct ctxfd *ctx;
	struct script s;
	struct running r;

	NEED_PROCESSES();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "");
	s.command = self("wait", s.pipe[1]);
	argv[3] = s.command.argv[0];
	s.command.argv = argv;
	start_running(&r, ctx, &s.command);
	assert_int_equal(hear(&s), 'r');
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_running(&r), 0);
	assert_string_equal(output(&s), "c");
	drop_script(&s);
	ctxfd_close(ctx);
}

static void other_languages_can_poll_it(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	struct running r;

	NEED_PROCESSES();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "IFS=,; set -- $CTXFD_CONTEXT; echo; read -r x </proc/self/fd/$1; "
	                "test \"$(stat -L -c %i /proc/$$/fd/$1)\" = $3 && test $1 -gt 2");
	s.command.stop_signal = SIGCONT;
	s.command.grace = INT64_MAX;
	s.command.flags = CTXFD_PASS_CONTEXT;
	start_running(&r, ctx, &s.command);
	hear(&s);
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_running(&r), 0);
	drop_script(&s);
	ctxfd_close(ctx);
}

static void what_is_not_one_is_told(void **state)
{
	static const char *const wrong[] = { "",
		                             ",",
		                             ",,",
		                             "1",
		                             "1,2",
		                             "1,2,",
		                             "1,,3",
		                             ",2,3",
		                             "1,2,3,",
		                             "1,2,3,4",
		                             "1,2,3 ",
		                             " 1,2,3",
		                             "1, 2,3",
		                             "+1,2,3",
		                             "-1,2,3",
		                             "1,-2,3",
		                             "1,2,-3",
		                             "a,2,3",
		                             "1,b,3",
		                             "1,2,c",
		                             "0x1,2,3",
		                             "2147483648,2,3",
		                             "99999999999999999999,2,3",
		                             "1,9223372036854775808,3",
		                             "1,2,18446744073709551616" };
	char text[64];
	int fds[2];

	assert_int_equal(unsetenv("CTXFD_CONTEXT"), 0);
	assert_null(ctxfd_inherited());
	assert_int_equal(errno, ENOENT);
	for (size_t i = 0; i < COUNT(wrong); i++) {
		assert_int_equal(setenv("CTXFD_CONTEXT", wrong[i], 1), 0);
		errno = 0;
		assert_null(ctxfd_inherited());
		assert_int_equal(errno, EINVAL);
	}
	make_pipe(fds);
	snprintf(text, sizeof text, "%d,9223372036854775807,18446744073709551615", fds[0]);
	assert_int_equal(setenv("CTXFD_CONTEXT", text, 1), 0);
	assert_null(ctxfd_inherited());
	assert_int_equal(errno, EBADF);
	close_pair(fds);
	assert_null(ctxfd_inherited());
	assert_int_equal(errno, EBADF);
	assert_int_equal(unsetenv("CTXFD_CONTEXT"), 0);
}

static void an_fd_that_is_another_is_told(void **state)
{
	struct script s;

	NEED_PROCESSES();
	make_script(&s, "");
	s.command = self("stale", s.pipe[1]);
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 0);
	drop_script(&s);
}

/* Inodes are numbered by file system: a file may have the pipe's number. */
static void a_file_of_that_inode_is_none(void **state)
{
	FILE *file = tmpfile();
	char variable[100];
	struct stat st;

	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &st), 0);
	snprintf(variable, sizeof variable, "%d,%" PRId64 ",%ju", fileno(file), INT64_MAX, (uintmax_t)st.st_ino);
	assert_int_equal(setenv("CTXFD_CONTEXT", variable, 1), 0);
	errno = 0;
	assert_null(ctxfd_inherited());
	assert_int_equal(errno, EBADF);
	assert_int_equal(unsetenv("CTXFD_CONTEXT"), 0);
	fclose(file);
}

/*
 * Its end for reading can be opened for writing. That keeps nobody from stopping it, or from going on when it has
 * ended.
 */
static void a_child_may_fill_the_pipe(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct script s;

	NEED_PROCESSES();
	make_script(&s, "head -c 65536 /dev/zero > /proc/self/fd/${CTXFD_CONTEXT%%,*}; exit 7");
	s.command.flags = CTXFD_PASS_CONTEXT;
	assert_int_equal(exit_code(ctx, &s.command), 7);
	drop_script(&s);
	ctxfd_close(ctx);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_child_may_fill_the_pipe),
		cmocka_unit_test(a_file_of_that_inode_is_none),
		cmocka_unit_test(the_end_is_passed_on),
		cmocka_unit_test(a_deadline_is_passed_on),
		cmocka_unit_test(a_never_done_context_is_passed_on),
		cmocka_unit_test(a_fork_does_not_hold_up_the_end),
		cmocka_unit_test(the_end_of_the_process_is_passed_on),
		cmocka_unit_test(programs_between_need_not_know),
		cmocka_unit_test(other_languages_can_poll_it),
		cmocka_unit_test(what_is_not_one_is_told),
		cmocka_unit_test(an_fd_that_is_another_is_told),
	};

	if (argc > 1)
		return be_the_other(argv[1]);
	start_dispatcher();
	return run_all(tests);
}
