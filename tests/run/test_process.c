/* SPDX-License-Identifier: MIT */
/* ctxfd_run: how a command starts, how it is told of the end, and that nothing of it is left. */
#include "commands.h"
#include "signal_storm.h"

#include <sys/resource.h>
#include <sys/stat.h>

/* ---- Starting ---------------------------------------------------------------------------------------------------- */

static void a_status_is_as_of_waitpid(void **state)
{
	struct script s;
	int status = -1;

	NEED_PROCESSES();
	make_script(&s, "exit 42");
	errno = 4711;
	assert_int_equal(ctxfd_run(ctxfd_background(), &s.command, &status), 0);
	assert_int_equal(errno, 4711);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	assert_int_equal(ctxfd_run(ctxfd_background(), &s.command, NULL), 0);
	s.argv[2] = "kill -KILL $$";
	assert_int_equal(ctxfd_run(ctxfd_background(), &s.command, &status), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_false(has_children());
	drop_script(&s);
}

/* As waitpid tells it of a process that this test makes itself. */
static void a_core_dump_is_told(void **state)
{
	char dir[] = "/tmp/ctxfd-core-XXXXXX", clean[64];
	char *argv[] = { "/bin/sh", "-c", "ulimit -c unlimited; kill -QUIT $$", NULL };
	struct ctxfd_command c = { .argv = argv, .directory = dir, .err = -1 };
	int status = -1, expected = -2;
	pid_t pid;

	NEED_PROCESSES();
	assert_non_null(mkdtemp(dir));
	assert_int_equal(ctxfd_run(ctxfd_background(), &c, &status), 0);
	pid = fork();
	if (pid == 0) {
		require(chdir(dir) == 0 && signal(SIGQUIT, SIG_DFL) != SIG_ERR);
		execv(argv[0], argv);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &expected, 0), pid);
	assert_int_equal(status, expected);
	snprintf(clean, sizeof clean, "rm -rf %s", dir);
	assert_int_equal(system(clean), 0);
}

static void nothing_starts_under_a_done_context(void **state)
{
	struct ctxfd *done = ctxfd_with_cancel(ctxfd_background()), *late = ctxfd_with_timeout(ctxfd_background(), 0);
	int status = 4711;
	pid_t pid = 4711;
	struct script s;

	ctxfd_cancel(done);
	make_script(&s, "echo started");
	assert_int_equal(ctxfd_run(done, &s.command, &status), -ECANCELED);
	assert_int_equal(ctxfd_run(late, &s.command, &status), -ETIMEDOUT);
	assert_int_equal(ctxfd_spawn(done, &s.command, &pid), -ECANCELED);
	assert_int_equal(ctxfd_spawn(late, &s.command, &pid), -ETIMEDOUT);
	assert_int_equal(status, 4711);
	assert_int_equal(pid, 4711);
	assert_false(has_children());
	assert_string_equal(output(&s), "");
	drop_script(&s);
	ctxfd_close(done);
	ctxfd_close(late);
}

static void what_is_wrong_starts_nothing(void **state)
{
	char *none[] = { NULL }, *argv[] = { "/bin/true", NULL };
	struct ctxfd_command wrong[] = {
		{ .argv = NULL },
		{ .argv = none },
		{ .argv = argv, .flags = 4 },
		{ .argv = argv, .flags = 1U << 31 },
		{ .argv = argv, .grace = -1 },
		{ .argv = argv, .stop_signal = -1 },
		{ .argv = argv, .stop_signal = 65 },
	};

	for (size_t i = 0; i < COUNT(wrong); i++) {
		assert_int_equal(ctxfd_run(ctxfd_background(), &wrong[i], NULL), -EINVAL);
		assert_int_equal(ctxfd_spawn(ctxfd_background(), &wrong[i], NULL), -EINVAL);
	}
	assert_int_equal(ctxfd_run(ctxfd_background(), NULL, NULL), -EINVAL);
	assert_int_equal(ctxfd_run(NULL, &(struct ctxfd_command){ .argv = argv }, NULL), -EINVAL);
	assert_int_equal(ctxfd_spawn(NULL, &(struct ctxfd_command){ .argv = argv }, NULL), -EINVAL);
	assert_false(has_children());
}

static void a_closed_fd_starts_nothing(void **state)
{
	struct script s;
	int closed;

	make_script(&s, "echo started >&2");
	closed = dup(s.pipe[0]);
	close(closed);
	for (unsigned flags = 0; flags <= CTXFD_PASS_CONTEXT;
	     flags += CTXFD_PASS_CONTEXT) /* whose pipe gets the number */
		for (int i = 0; i < 3; i++)
			for (int bad = -2; bad < 0; bad++) {
				int fd = bad == -1 ? closed : bad;

				s.command.in = i == 0 ? fd : -1;
				s.command.out = i == 1 ? fd : -1;
				s.command.err = i == 2 ? fd : s.pipe[1];
				s.command.flags = flags;
				assert_int_equal(ctxfd_run(ctxfd_background(), &s.command, NULL), -EBADF);
				assert_int_equal(ctxfd_spawn(ctxfd_background(), &s.command, NULL), -EBADF);
			}
	assert_false(has_children());
	assert_string_equal(output(&s), "");
	drop_script(&s);
}

static void exec_failures_are_told(void **state)
{
	char empty[] = "/tmp/ctxfd-empty-XXXXXX", long_name[NAME_MAX + 2] = { 0 };
	struct {
		const char *path, *directory;
		int error;
	} cases[] = {
		{ "/nonexistent", NULL, ENOENT },
		{ "true", NULL, ENOENT }, /* no PATH */
		{ "/bin", NULL, EACCES },
		{ "/bin/true/x", NULL, ENOTDIR },
		{ empty, NULL, ENOEXEC },
		{ long_name, NULL, ENAMETOOLONG },
		{ "/bin/true", "/nonexistent", ENOENT },
		{ "/bin/true", "/bin/true", ENOTDIR },
	};
	int fd = mkstemp(empty);

	NEED_PROCESSES();
	assert_true(fd >= 0 && fchmod(fd, 0700) == 0);
	close(fd);
	memset(long_name, 'x', NAME_MAX + 1);
	if (!tells_exec_errors()) {
		unlink(empty);
		skip_test("here a child does not share memory");
	}
	for (size_t i = 0; i < COUNT(cases); i++)
		for (unsigned flags = 0; flags < 4; flags++) {
			struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
			char *argv[] = { (char *)(uintptr_t)cases[i].path, NULL };
			struct ctxfd_command c = { .argv = argv, .directory = cases[i].directory, .flags = flags };
			int status = 4711;
			pid_t pid = 4711;

			errno = 4711;
			assert_int_equal(ctxfd_run(ctx, &c, &status), -cases[i].error);
			assert_int_equal(ctxfd_spawn(ctx, &c, &pid), -cases[i].error);
			assert_int_equal(errno, 4711);
			assert_int_equal(status, 4711);
			assert_int_equal(pid, 4711);
			assert_false(has_children());
			ctxfd_close(ctx);
		}
	unlink(empty);
}

static void the_directory_comes_first(void **state)
{
	struct script s;

	NEED_PROCESSES();
	make_script(&s, "pwd");
	s.command.directory = "/bin";
	s.argv[0] = "./sh";
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 0);
	assert_string_equal(strrchr(output(&s), '/'), "/bin\n");
	drop_script(&s);
}

static void the_environment_is_passed_on(void **state)
{
	struct script s;

	NEED_PROCESSES();
	assert_int_equal(setenv("CTXFD_TEST", "mine", 1), 0);
	assert_int_equal(setenv("CTXFD_CONTEXT", "7,8,9", 1), 0);
	make_script(&s, "echo $CTXFD_TEST ${CTXFD_CONTEXT-none}");
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 0);
	assert_string_equal(output(&s), "mine none\n");
	drop_script(&s);
	make_script(&s, "echo $CTXFD_TEST ${CTXFD_CONTEXT-none} $CTXFD_CONTEXTS");
	s.command.envp = (char *[]){ "CTXFD_CONTEXT=7,8,9", "CTXFD_TEST=yours", "CTXFD_CONTEXT=1,2,3",
		                     "CTXFD_CONTEXTS=other", NULL };
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 0);
	assert_string_equal(output(&s), "yours none other\n");
	drop_script(&s);
	assert_int_equal(unsetenv("CTXFD_CONTEXT"), 0);
	assert_int_equal(unsetenv("CTXFD_TEST"), 0);
	make_script(&s, "exec /bin/env");
	s.command.envp = (char *[]){ NULL };
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 0);
	assert_null(strstr(output(&s), "CTXFD"));
	drop_script(&s);
}

static int run_without_environment(void *arg)
{
	struct script s;

	(void)arg;
	require(clearenv() == 0);
	make_script(&s, "exec /bin/env");
	require(exit_code(ctxfd_background(), &s.command) == 0);
	require(!strstr(output(&s), "CTXFD"));
	return 0;
}

static void there_need_be_no_environment(void **state)
{
	NEED_PROCESSES();
	assert_int_equal(in_child(run_without_environment, NULL), 0);
}

/* ---- Fds --------------------------------------------------------------------------------------------------------- */

#define DIR_OF_FDS "/tmp/ctxfd-fds-XXXXXX"

/* What the file says, which the command has written. */
static const char *read_file(const char *name)
{
	static char text[4096];
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t size = read(fd, text, sizeof text - 1);

	require(size >= 0);
	close(fd);
	text[size] = 0;
	return text;
}

/* Has fds 0, 1, 2 and 5 be the files a, b, c and d. */
static void open_files(void)
{
	int first = fcntl(open("d", O_RDWR | O_CREAT | O_CLOEXEC, 0600), F_DUPFD_CLOEXEC, 50);

	for (int i = 0; i < 3; i++) {
		int fd = open((const char[]){ (char)('a' + i), 0 }, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		require(fd >= 0 && (fd == i || dup2(fd, i) == i));
	}
	require(first >= 0 && dup3(first, 5, O_CLOEXEC) == 5);
	require(fcntl(1, F_SETFD, FD_CLOEXEC) == 0);
}

/* Each of the three can be each of these, whether it is close-on-exec or not. */
static int give_fds(void *arg)
{
	static const int choices[] = { CTXFD_INHERIT, 1, 2, 5 };
	char *argv[] = { "/bin/sh", "-c",
		         /* busybox's readlink takes one name */
		         "fds=$(for i in 0 1 2; do readlink /proc/$$/fd/$i; done); echo \"$fds\" >out; exec ls "
		         "/proc/self/fd >list",
		         NULL };
	const char *dir = arg;

	require(chdir(dir) == 0);
	open_files();
	for (int n = 0; n < 64; n++) {
		const int want[3] = { choices[n % 4], choices[n / 4 % 4], choices[n / 16] };
		struct ctxfd_command c = { .argv = argv, .in = want[0], .out = want[1], .err = want[2] };
		char expected[256];
		int length = 0;

		require(exit_code(ctxfd_background(), &c) == 0);
		for (int i = 0; i < 3; i++)
			length += snprintf(expected + length, sizeof expected - (size_t)length, "%s/%c\n", dir,
			                   want[i] == CTXFD_INHERIT ? 'a' + i
			                   : want[i] == 5           ? 'd'
			                                            : 'a' + want[i]);
		require(strcmp(read_file("out"), expected) == 0);
		require(strcmp(read_file("list"), "0\n1\n2\n3\n") == 0); /* 3 is ls's own */
	}
	return 0;
}

static void three_fds_are_given_in_any_order(void **state)
{
	static const char *const files[] = { "a", "b", "c", "d", "out", "list" };
	char dir[] = DIR_OF_FDS, path[sizeof dir + 8];

	NEED_PROCESSES();
	assert_non_null(mkdtemp(dir));
	assert_int_equal(in_child(give_fds, dir), 0);
	for (size_t i = 0; i < COUNT(files); i++) {
		snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(rmdir(dir), 0);
}

static void minus_one_is_dev_null(void **state)
{
	struct script s;

	NEED_PROCESSES();
	make_script(&s, "readlink /proc/$$/fd/0; readlink /proc/$$/fd/2; cat; echo lost >&2");
	s.command.err = -1;
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 0);
	assert_string_equal(output(&s), "/dev/null\n/dev/null\n");
	drop_script(&s);
}

/*
 * A daemon's. What is closed stays closed, and none of our own fds gets its place. ls opens its list as fd 0 if that is
 * free.
 */
static int run_without_standard_fds(void *arg)
{
	const unsigned *flags = arg;
	struct script first, second, third;
	const char *text;

	make_script(&first, "ls /proc/self/fd");
	make_script(&second, "ls /proc/self/fd");
	make_script(&third, "readlink /proc/self/fd/0");
	first.command.flags = second.command.flags = third.command.flags = *flags;
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	first.command.in = CTXFD_INHERIT;
	require(exit_code(ctxfd_background(), &first.command) == 0);
	text = output(&first);
	require(strncmp(text, "0\n1\n", 4) == 0 && strncmp(text + 4, "2\n", 2) != 0);
	second.command.in = CTXFD_INHERIT;
	second.command.err = -1;
	require(exit_code(ctxfd_background(), &second.command) == 0);
	text = output(&second);
	require(strncmp(text, "0\n1\n2\n", 6) == 0);
	require(*flags || !text[6]);
	require(exit_code(ctxfd_background(), &third.command) == 0);
	require(strcmp(output(&third), "/dev/null\n") == 0);
	return 0;
}

static void closed_standard_fds_stay_closed(void **state)
{
	NEED_PROCESSES();
	assert_int_equal(in_child(run_without_standard_fds, &(unsigned){ 0 }), 0);
	assert_int_equal(in_child(run_without_standard_fds, &(unsigned){ CTXFD_PASS_CONTEXT }), 0);
}

static int list_fds(void *arg)
{
	struct script s;
	int high;

	(void)arg;
	make_script(&s, "ls /proc/self/fd");
	for (int fd = 50; fd < 80; fd += 3)
		require(dup2(s.pipe[1], fd) == fd); /* no close-on-exec */
	high = fcntl(s.pipe[1], F_DUPFD, 500);
	require(high >= 500);
	s.command.out = high;
	require(exit_code(ctxfd_background(), &s.command) == 0);
	for (int fd = 50; fd < 80; fd += 3)
		close(fd);
	close(high);
	require(strcmp(output(&s), "0\n1\n2\n3\n") == 0);
	drop_script(&s);
	return 0;
}

static void no_other_fd_is_open(void **state)
{
	NEED_PROCESSES();
	assert_int_equal(in_child(list_fds, NULL), 0);
}

static int run_at_the_limit(void *arg)
{
	struct ctxfd_command c = { .argv = (char *[]){ "/bin/true", NULL }, .in = -1, .out = 2, .err = 1 };
	struct rlimit limit;
	int last;

	(void)arg;
	require(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = 64;
	require(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	while ((last = dup(2)) >= 0)
		continue;
	require(ctxfd_run(ctxfd_background(), &c, NULL) == -EMFILE);
	require(ctxfd_spawn(ctxfd_background(), &c, NULL) == -EMFILE);
	require(!has_children());
	close(63); /* for the pidfd; what the child needs finds room when all others are closed there */
	require(exit_code(ctxfd_background(), &c) == 0);
	c.flags = CTXFD_PASS_CONTEXT;
	require(ctxfd_run(ctxfd_background(), &c, NULL) == -EMFILE);
	close(62);
	require(ctxfd_run(ctxfd_background(), &c, NULL) == -EMFILE);
	close(61);
	require(exit_code(ctxfd_background(), &c) == 0);
	require(dup2(2, 63) == 63 && dup2(2, 62) == 62 && dup2(2, 61) == 61);
	close(0);
	close(1);
	c.err = 2; /* the pipe would have the numbers 0 and 1, of which it must have none */
	c.out = -1;
	require(ctxfd_run(ctxfd_background(), &c, NULL) == -EMFILE);
	require(fcntl(0, F_GETFD) < 0 && fcntl(1, F_GETFD) < 0);
	return 0;
}

static void it_needs_few_fds(void **state)
{
	NEED_PROCESSES();
	if (!tells_exec_errors())
		skip_test("here a child does not share memory, or fds are not ours alone to count");
	assert_int_equal(in_child(run_at_the_limit, NULL), 0);
}

/* It sinks while the command runs, which hears of SIGTERM, or not; or nobody has its status. */
enum { HEARS, IGNORES, HAS_NO_STATUS, MANNERS };

static int stop_without_fds(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct rlimit before, none;
	int how = *(int *)arg;
	struct running r;
	struct script s;

	if (how == HAS_NO_STATUS)
		require(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
	make_script(&s, how == IGNORES ? "trap '' TERM; echo; exec sleep 3600" : "echo; exec sleep 3600");
	s.command.stop_signal = SIGTERM;
	s.command.grace = how == IGNORES ? 20 * CTXFD_MSEC : INT64_MAX;
	start_running(&r, ctx, &s.command);
	hear(&s);
	thread_wait_asleep_in(r.thread, SYS_ppoll);
	require(getrlimit(RLIMIT_NOFILE, &before) == 0);
	none = (struct rlimit){ 0, before.rlim_max };
	require(setrlimit(RLIMIT_NOFILE, &none) == 0);
	ctxfd_cancel(ctx);
	thread_join(r.thread);
	require(setrlimit(RLIMIT_NOFILE, &before) == 0);
	require(r.err == (how == HAS_NO_STATUS ? -ECHILD : 0));
	require(r.status == (how == HEARS ? SIGTERM : how == IGNORES ? SIGKILL : -1));
	return 0;
}

static void it_is_stopped_without_fds(void **state)
{
	NEED_PROCESSES();
#ifdef __SANITIZE_THREAD__
	skip_test("the sanitizer does not follow threads that a forked child starts");
#endif
	for (int how = 0; how < MANNERS; how++)
		assert_int_equal(in_child(stop_without_fds, &how), 0);
}

static int run_without_processes(void *arg)
{
	struct ctxfd_command c = { .argv = (char *[]){ "/bin/true", NULL }, .flags = CTXFD_PASS_CONTEXT };
	struct rlimit none = { 0, 0 };
	int fds = count_fds();

	(void)arg;
	require(setrlimit(RLIMIT_NPROC, &none) == 0 && (getuid() != 0 || setuid(65534) == 0));
	require(ctxfd_run(ctxfd_background(), &c, NULL) == -EAGAIN);
	require(ctxfd_spawn(ctxfd_background(), &c, NULL) == -EAGAIN);
	require(count_fds() == fds);
	return 0;
}

static void no_process_is_an_error(void **state)
{
	NEED_PROCESSES();
	assert_int_equal(in_child(run_without_processes, NULL), 0);
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

static void nothing(int sig)
{
	(void)sig;
}

/* Whatever the program has made of its signals, and whatever the library has. */
static int run_with_odd_signals(void *arg)
{
	struct sigaction handle = { .sa_handler = nothing };
	struct ctxfd *listening;
	sigset_t set, after;
	struct script s;

	(void)arg;
	make_script(&s, "exec grep -E '^Sig(Pnd|Blk|Ign)' /proc/self/status");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	listening = ctxfd_with_signals(ctxfd_background(), &set);
	require(listening);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	sigaction(SIGUSR2, &handle, NULL);
	sigaction(SIGRTMAX, &handle, NULL);
	signal(SIGRTMIN, SIG_IGN);
	sigfillset(&set);
	require(pthread_sigmask(SIG_SETMASK, &set, NULL) == 0);
	require(pthread_sigmask(SIG_SETMASK, NULL, &set) == 0);
	require(exit_code(ctxfd_background(), &s.command) == 0);
	require(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
	for (int sig = 1; sig < NSIG; sig++)
		require(sigismember(&set, sig) == sigismember(&after, sig));
	require(strcmp(output(&s), "SigPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n"
	                           "SigIgn:\t0000000000000000\n") == 0);
	ctxfd_close(listening);
	drop_script(&s);
	return 0;
}

static void signals_are_as_by_default(void **state)
{
	NEED_PROCESSES();
	assert_int_equal(in_child(run_with_odd_signals, NULL), 0);
}

static void signals_do_not_disturb(void **state)
{
	struct signal_storm storm;
	struct ctxfd *ctx;
	struct script s;
	int status = 0, codes = 0, err;

	NEED_PROCESSES();
	make_script(&s, "exit 3");
	start_signals(&storm);
	for (int i = 0; i < 20; i++)
		codes += exit_code(ctxfd_background(), &s.command);
	s.argv[2] = "exec sleep 3600";
	s.command.stop_signal = SIGCONT;
	s.command.grace = 20 * CTXFD_MSEC;
	s.command.flags = CTXFD_OWN_GROUP;
	ctx = run_to_deadline(&s.command, &err, &status);
	stop_signals(&storm);
	assert_int_equal(err, 0);
	assert_int_equal(codes, 60);
	assert_int_equal(status, SIGKILL);
	drop_script(&s);
	ctxfd_close(ctx);
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

static void sigkill_ends_it(void **state)
{
	struct ctxfd *ctx;
	struct running r;
	struct script s;
	int status, err;

	NEED_PROCESSES();
	make_script(&s, "trap '' TERM; echo; exec sleep 3600");
	ctx = ctxfd_with_cancel(ctxfd_background());
	start_running(&r, ctx, &s.command);
	hear(&s);
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_running(&r), SIGKILL);
	assert_false(has_children());
	ctxfd_close(ctx);
	ctx = run_to_deadline(&s.command, &err, &status);
	assert_int_equal(err, 0);
	assert_int_equal(status, SIGKILL);
	assert_false(has_children());
	ctxfd_close(ctx);
	drop_script(&s);
}

static void a_stop_signal_can_be_handled(void **state)
{
	struct ctxfd *ctx;
	struct running r;
	struct script s;

	NEED_PROCESSES();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "trap 'exit 7' USR1; echo; while :; do sleep 0.01; done");
	s.command.stop_signal = SIGUSR1;
	s.command.grace = INT64_MAX;
	start_running(&r, ctx, &s.command);
	hear(&s);
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_running(&r), 7 << 8);
	drop_script(&s);
	ctxfd_close(ctx);
}

static void after_its_grace_it_is_killed(void **state)
{
	static const int64_t graces[] = { 1, 30 * CTXFD_MSEC, 0 };
	struct ctxfd *ctx;
	struct running r;
	struct script s;
	int64_t start;

	NEED_PROCESSES();
	for (size_t i = 0; i < COUNT(graces); i++) {
		ctx = ctxfd_with_cancel(ctxfd_background());
		make_script(&s, "trap '' TERM; echo; exec sleep 3600");
		s.command.stop_signal = SIGTERM;
		s.command.grace = graces[i];
		start_running(&r, ctx, &s.command);
		hear(&s);
		start = now();
		ctxfd_cancel(ctx);
		assert_int_equal(end_of_running(&r), SIGKILL);
		assert_elapsed(start, graces[i] ? graces[i] : 5 * CTXFD_SEC, 10 * CTXFD_SEC);
		drop_script(&s);
		ctxfd_close(ctx);
	}
}

/* Stopped by SIGSTOP, it could not hear the stop signal. */
static void a_suspended_process_is_stopped(void **state)
{
	struct ctxfd *ctx;
	struct running r;
	struct script s;

	NEED_PROCESSES();
	for (int hard = 0; hard < 2; hard++) {
		ctx = ctxfd_with_cancel(ctxfd_background());
		make_script(&s, "trap 'exit 7' TERM; kill -STOP $$; while :; do sleep 0.01; done");
		s.command.stop_signal = hard ? 0 : SIGTERM;
		s.command.grace = INT64_MAX;
		start_running(&r, ctx, &s.command);
		wait_suspended();
		ctxfd_cancel(ctx);
		assert_int_equal(end_of_running(&r), hard ? SIGKILL : 7 << 8);
		drop_script(&s);
		ctxfd_close(ctx);
	}
}

static void what_ended_by_itself_is_not_stopped(void **state)
{
	struct ctxfd *ctx;
	struct script s;

	NEED_PROCESSES();
	ctx = ctxfd_with_timeout(ctxfd_background(), HOUR);
	make_script(&s, "exit 5");
	assert_int_equal(exit_code(ctx, &s.command), 5);
	assert_int_equal(ctxfd_err(ctx), 0);
	drop_script(&s);
	ctxfd_close(ctx);
}

/* ---- Groups ------------------------------------------------------------------------------------------------------ */

/* The leader dies of the stop, its helper ignores it. */
static void the_rest_of_a_group_is_killed(void **state)
{
	struct ctxfd *ctx;
	struct running r;
	struct script s;
	bool killed;

	NEED_PROCESSES();
	adopt_orphans();
	for (int hard = 0; hard < 2; hard++) {
		ctx = ctxfd_with_cancel(ctxfd_background());
		make_script(&s, "(trap '' TERM; echo; exec sleep 3600) & trap 'exit 7' TERM; echo; while :; do sleep "
		                "0.01; done");
		s.command.stop_signal = hard ? 0 : SIGTERM;
		s.command.grace = INT64_MAX;
		s.command.flags = CTXFD_OWN_GROUP;
		start_running(&r, ctx, &s.command);
		hear(&s);
		hear(&s);
		ctxfd_cancel(ctx);
		assert_int_equal(end_of_running(&r), hard ? SIGKILL : 7 << 8);
		for (killed = false; has_children();) /* the sleep of the loop may have ended in any way */
			killed |= next_status() == SIGKILL;
		assert_true(killed);
		assert_string_equal(output(&s), ""); /* nobody has the pipe any more */
		drop_script(&s);
		ctxfd_close(ctx);
	}
	bury_orphans();
}

static void the_whole_group_gets_the_stop_signal(void **state)
{
	struct ctxfd *ctx;
	struct running r;
	struct script s;

	NEED_PROCESSES();
	adopt_orphans();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s,
	            "(trap 'echo helper; exit 0' TERM; echo; while :; do sleep 0.01; done) & trap 'wait; exit 7' TERM; "
	            "echo; wait");
	s.command.stop_signal = SIGTERM;
	s.command.grace = INT64_MAX;
	s.command.flags = CTXFD_OWN_GROUP;
	start_running(&r, ctx, &s.command);
	hear(&s);
	hear(&s);
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_running(&r), 7 << 8);
	assert_string_equal(output(&s), "helper\n");
	drop_script(&s);
	ctxfd_close(ctx);
	bury_orphans();
}

static int held_up[2]; /* a pipe */

/* Holds up its thread until the pipe has no end for writing any more. */
static void hold_up(int sig)
{
	char byte;

	(void)sig;
	while (read(held_up[0], &byte, 1) < 0)
		require(errno == EINTR);
}

/* Between two looks of the thread that waits, the context ends, and then the leader does. */
static void the_rest_goes_with_a_leader_that_ended_unseen(void **state)
{
	struct sigaction hold = { .sa_handler = hold_up }, before;
	struct ctxfd *ctx;
	struct running r;
	struct script s;
	int in[2];

	NEED_PROCESSES();
	assert_int_equal(sigaction(SIGUSR1, &hold, &before), 0);
	for (int ignored = 0; ignored < 2; ignored++) {
		assert_true(signal(SIGCHLD, ignored ? SIG_IGN : SIG_DFL) != SIG_ERR);
		ctx = ctxfd_with_cancel(ctxfd_background());
		make_pipe(in);
		make_pipe(held_up);
		make_script(&s, "sleep 3600 & echo; read x; exit 7");
		s.command.in = in[0];
		s.command.flags = CTXFD_OWN_GROUP;
		start_running(&r, ctx, &s.command);
		hear(&s);
		thread_wait_asleep_in(r.thread, SYS_ppoll);
		assert_int_equal(pthread_kill(thread_pthread(r.thread), SIGUSR1), 0);
		thread_wait_asleep_in(r.thread, SYS_read);
		ctxfd_cancel(ctx);
		assert_int_equal(write(in[1], "\n", 1), 1);
		wait_until(ignored ? !has_children() : has_zombies());
		close(held_up[1]);
		thread_join(r.thread);
		assert_int_equal(r.err, ignored ? -ECHILD : 0);
		assert_int_equal(r.status, ignored ? -1 : 7 << 8);
		assert_string_equal(output(&s), ""); /* which waits for the rest */
		close(held_up[0]);
		close_pair(in);
		drop_script(&s);
		ctxfd_close(ctx);
	}
	assert_true(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
	assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

/* Whoever holds the pipe, run returns when the leader has ended; the rest of its group lives on. */
static void a_leader_that_ends_by_itself_leaves_its_group(void **state)
{
	char number[16] = { 0 };
	struct script s;
	pid_t rest;

	NEED_PROCESSES();
	adopt_orphans();
	make_script(&s, "sleep 3600 & echo $!; exit 6");
	s.command.flags = CTXFD_OWN_GROUP;
	assert_int_equal(exit_code(ctxfd_background(), &s.command), 6);
	assert_true(read(s.pipe[0], number, sizeof number - 1) > 0);
	rest = (pid_t)atoi(number);
	assert_true(rest > 0 && getpgid(rest) > 0 && getpgid(rest) != getpgid(0));
	assert_int_equal(waitpid(rest, NULL, WNOHANG), 0);
	assert_int_equal(kill(rest, SIGTERM), 0);
	assert_int_equal(next_status(), SIGTERM);
	assert_false(has_children());
	drop_script(&s);
	bury_orphans();
}

/* ---- Who has the status ------------------------------------------------------------------------------------------ */

static void a_status_that_somebody_took_is_missing(void **state)
{
	struct running r;
	struct script s;

	NEED_PROCESSES();
	make_script(&s, "read x");
	s.command.in = s.pipe[0];
	start_running(&r, ctxfd_background(), &s.command);
	wait_until(has_children());
	for (int took = 0; !took;) { /* run may be as fast as we are */
		assert_int_equal(write(s.pipe[1], "\n", 1), 1);
		while (!r.over && waitpid(-1, NULL, 0) < 0)
			continue;
		thread_join(r.thread);
		took = r.err == -ECHILD;
		assert_true(took || r.err == 0);
		if (!took)
			start_running(&r, ctxfd_background(), &s.command);
	}
	assert_int_equal(r.status, -1);
	drop_script(&s);
}

static int run_while_sigchld_is_ignored(void *arg)
{
	struct sigaction no_wait = { .sa_handler = nothing, .sa_flags = SA_NOCLDWAIT | SA_RESTART };
	int status = 4711, fds = count_fds(), err;
	bool tells = tells_exec_errors();
	struct ctxfd *ctx;
	struct script s;

	if (*(int *)arg)
		require(sigaction(SIGCHLD, &no_wait, NULL) == 0);
	else
		require(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
	make_script(&s, "exit 0");
	require(ctxfd_run(ctxfd_background(), &s.command, &status) == -ECHILD);
	s.argv[0] = "/nonexistent";
	if (tells)
		require(ctxfd_run(ctxfd_background(), &s.command, &status) == -ENOENT);
	s.argv[0] = "/bin/sh";
	s.argv[2] = "sleep 3600 & sleep 3600";
	s.command.flags = CTXFD_OWN_GROUP;
	ctx = run_to_deadline(&s.command, &err, &status);
	require(err == -ECHILD);
	require(status == 4711);
	require(strcmp(output(&s), "") == 0); /* the other sleep is dead, too */
	drop_script(&s);
	ctxfd_close(ctx);
	require(count_fds() <= fds + 1); /* the thread's waiter */
	return 0;
}

static void an_ignored_sigchld_leaves_no_status(void **state)
{
	NEED_PROCESSES();
	assert_int_equal(in_child(run_while_sigchld_is_ignored, &(int){ 0 }), 0);
	assert_int_equal(in_child(run_while_sigchld_is_ignored, &(int){ 1 }), 0);
}

/* ---- pthread_cancel ---------------------------------------------------------------------------------------------- */

static void *run_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	return run_command(arg);
}

static void pthread_cancel_stops_it(void **state)
{
	struct running r;
	struct script s;

	NEED_PROCESSES();
#ifdef __SANITIZE_ADDRESS__
	skip_test("the sanitizer takes the frames that pthread_cancel has left for ones still there");
#endif
	adopt_orphans();
	make_script(&s, "echo; sleep 3600 & sleep 3600");
	s.command.stop_signal = SIGTERM;
	s.command.flags = CTXFD_OWN_GROUP | CTXFD_PASS_CONTEXT;
	start_running(&r, ctxfd_background(), &s.command);
	hear(&s);
	thread_wait_asleep(r.thread);
	assert_int_equal(pthread_cancel(thread_pthread(r.thread)), 0);
	assert_ptr_equal(thread_join(r.thread), PTHREAD_CANCELED);
	while (has_children()) /* the rest of its group */
		assert_int_not_equal(WTERMSIG(next_status()), 0);
	assert_string_equal(output(&s), "");
	drop_script(&s);
	bury_orphans();
}

static void pthread_cancel_starts_nothing(void **state)
{
	struct running r;
	struct script s;

	make_script(&s, "echo started");
	r = (struct running){ .ctx = ctxfd_background(), .command = &s.command };
	r.thread = thread_start(run_cancelled, &r);
	assert_ptr_equal(thread_join(r.thread), PTHREAD_CANCELED);
	assert_false(has_children());
	assert_string_equal(output(&s), "");
	drop_script(&s);
}

static volatile sig_atomic_t is_child;
static _Atomic pid_t forked;

/* In the child the context ends, by a signal. */
static void fork_and_signal(int sig)
{
	pid_t pid = fork();

	(void)sig;
	if (pid == 0) {
		alarm(60);
		is_child = 1;
		kill(getpid(), SIGUSR2);
	}
	forked = pid;
}

static void *run_beside_a_child(void *arg)
{
	struct running *r = arg;

	r->err = ctxfd_run(r->ctx, r->command, &r->status);
	if (is_child)
		_exit(r->err == -ECHILD && ctxfd_cause(r->ctx) == SIGUSR2 ? 0 : 1);
	return NULL;
}

static int run_while_a_handler_forks(void *arg)
{
	struct sigaction action = { .sa_handler = fork_and_signal };
	struct running r = { .status = -1 };
	struct script s;
	sigset_t set;
	int in[2], status;

	make_pipe(in);
	make_script(&s, "echo; read line; exit 5");
	s.command.in = in[0];
	s.command.flags = *(unsigned *)arg;
	require(sigaction(SIGUSR1, &action, NULL) == 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	r.ctx = ctxfd_with_signals(ctxfd_background(), &set);
	r.command = &s.command;
	r.thread = thread_start(run_beside_a_child, &r);
	hear(&s);
	thread_wait_asleep(r.thread);
	require(pthread_kill(thread_pthread(r.thread), SIGUSR1) == 0);
	wait_until(forked > 0);
	require(waitpid(forked, &status, 0) == forked && status == 0);
	require(write(in[1], "\n", 1) == 1);
	require(end_of_running(&r) == 5 << 8);
	return 0;
}

static void a_child_that_a_handler_forks_leaves_it_alone(void **state)
{
	NEED_PROCESSES();
#ifdef __SANITIZE_THREAD__
	skip_test("the sanitizer does not follow threads that a forked child starts");
#endif
	for (unsigned flags = 0; flags <= (CTXFD_OWN_GROUP | CTXFD_PASS_CONTEXT); flags++)
		assert_int_equal(in_child(run_while_a_handler_forks, &flags), 0);
}

/* ---- Many -------------------------------------------------------------------------------------------------------- */

#define THREADS 16

static void *run_many(void *arg)
{
	static char *const argv[] = { "/bin/sh", "-c", "exec sleep 0.002", NULL };
	unsigned seed = (unsigned)(intptr_t)arg;

	for (int i = rounds(20); i > 0; i--) {
		struct ctxfd_command c = { .argv = argv, .flags = (unsigned)rand_r(&seed) % 4 };
		int64_t timeout = rand_r(&seed) % (8 * CTXFD_MSEC);
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), timeout);
		int status = -1, err;

		c.stop_signal = seed % 2 ? SIGTERM : 0;
		err = ctxfd_run(ctx, &c, &status);
		require(err == 0 ? status == 0 || status == SIGKILL || status == SIGTERM : err == -ETIMEDOUT);
		require(status == 0 || err || ctxfd_err(ctx));
		ctxfd_close(ctx);
	}
	return NULL;
}

static void many_threads_run_commands(void **state)
{
	struct thread *threads[THREADS];

	NEED_PROCESSES();
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(run_many, (void *)(intptr_t)(i + 1));
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	assert_false(has_children());
}

/* Out of memory: said, and nothing is started; or it is run. */
static void without_memory_nothing_is_left(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	int err = -1;

	NEED_PROCESSES();
	make_script(&s, "exit 3");
	s.command.flags = CTXFD_PASS_CONTEXT;
	ctx = ctxfd_with_cancel(ctxfd_background());
	for (int n = 1; err; n++) {
		int status = 4711;

		fail_allocation(n);
		err = ctxfd_run(ctx, &s.command, &status);
		assert_true(err == 0 || err == -ENOMEM);
		assert_int_equal(status, err ? 4711 : 3 << 8);
		assert_false(has_children());
	}
	fail_allocation(0);
	drop_script(&s);
	ctxfd_close(ctx);
}

/* ---- Groups that change ------------------------------------------------------------------------------------------ */

static _Atomic bool all_have_run;

static void *signal_own_group(void *arg)
{
	const bool *harmful = arg;

	while (!all_have_run) {
		require(kill(0, SIGTSTP) == 0 && (!*harmful || kill(0, SIGINT) == 0));
		pass_time(20 * CTXFD_USEC);
	}
	return arg;
}

/* The caller's group is told to stop, and to end, at every moment, and the caller does not mind. */
static int run_among_signals(void *arg)
{
	bool *own_group = arg;
	char *argv[] = { "/bin/true", NULL };
	struct ctxfd_command command = { .argv = argv, .flags = *own_group ? CTXFD_OWN_GROUP : 0 };
	struct thread *thread;

	require(setpgid(0, 0) == 0);
	require(signal(SIGTSTP, SIG_IGN) != SIG_ERR && signal(SIGINT, SIG_IGN) != SIG_ERR);
	thread = thread_start(signal_own_group, own_group);
	for (int i = 0; i < rounds(*own_group ? 300 : 100); i++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), *own_group ? HOUR : 10 * CTXFD_MSEC);
		int status = 0, err = ctxfd_run(ctx, &command, &status);

		/* In its parent's group it can be suspended as soon as it runs, until ctx ends. */
		require(*own_group ? err == 0 && status == 0 : err == 0 || err == -ETIMEDOUT);
		ctxfd_close(ctx);
	}
	all_have_run = true;
	thread_join(thread);
	return 0;
}

static void signals_to_the_callers_group_hold_up_nothing(void **state)
{
	NEED_PROCESSES();
#ifdef __SANITIZE_THREAD__
	skip_test("the sanitizer does not follow threads that a forked child starts");
#endif
	for (int own_group = 0; own_group < 2; own_group++)
		assert_int_equal(in_child(run_among_signals, &(bool){ own_group }), 0);
}

/* It has left its group to another member, and goes on in its parent's. */
static void a_leader_that_moves_hears_of_the_end(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct running r = { .ctx = ctx };
	struct script s;

	NEED_PROCESSES();
	if (access("/usr/bin/perl", X_OK) != 0)
		skip_test("no perl, which can move to another group");
	make_script(&s, "");
	s.argv[0] = "/usr/bin/perl";
	s.argv[1] = "-e";
	s.argv[2] = "if (!fork) { sleep 3600; exit } setpgrp(0, getpgrp(getppid)); $| = 1; print 1; sleep 3600";
	s.command.flags = CTXFD_OWN_GROUP;
	s.command.stop_signal = SIGTERM;
	s.command.grace = INT64_MAX;
	r.command = &s.command;
	r.thread = thread_start(run_command, &r);
	hear(&s);
	ctxfd_cancel(ctx);
	thread_join(r.thread);
	assert_int_equal(r.err, 0);
	assert_true(WIFSIGNALED(r.status) && WTERMSIG(r.status) == SIGTERM);
	assert_string_equal(output(&s), "");
	drop_script(&s);
	ctxfd_unref(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_to_the_callers_group_hold_up_nothing),
		cmocka_unit_test(a_leader_that_moves_hears_of_the_end),
		cmocka_unit_test(a_status_is_as_of_waitpid),
		cmocka_unit_test(a_core_dump_is_told),
		cmocka_unit_test(nothing_starts_under_a_done_context),
		cmocka_unit_test(what_is_wrong_starts_nothing),
		cmocka_unit_test(a_closed_fd_starts_nothing),
		cmocka_unit_test(exec_failures_are_told),
		cmocka_unit_test(the_directory_comes_first),
		cmocka_unit_test(the_environment_is_passed_on),
		cmocka_unit_test(there_need_be_no_environment),
		cmocka_unit_test(three_fds_are_given_in_any_order),
		cmocka_unit_test(minus_one_is_dev_null),
		cmocka_unit_test(closed_standard_fds_stay_closed),
		cmocka_unit_test(no_other_fd_is_open),
		cmocka_unit_test(it_needs_few_fds),
		cmocka_unit_test(it_is_stopped_without_fds),
		cmocka_unit_test(no_process_is_an_error),
		cmocka_unit_test(signals_are_as_by_default),
		cmocka_unit_test(signals_do_not_disturb),
		cmocka_unit_test(sigkill_ends_it),
		cmocka_unit_test(a_stop_signal_can_be_handled),
		cmocka_unit_test(after_its_grace_it_is_killed),
		cmocka_unit_test(a_suspended_process_is_stopped),
		cmocka_unit_test(what_ended_by_itself_is_not_stopped),
		cmocka_unit_test(the_rest_of_a_group_is_killed),
		cmocka_unit_test(the_whole_group_gets_the_stop_signal),
		cmocka_unit_test(the_rest_goes_with_a_leader_that_ended_unseen),
		cmocka_unit_test(a_leader_that_ends_by_itself_leaves_its_group),
		cmocka_unit_test(a_status_that_somebody_took_is_missing),
		cmocka_unit_test(an_ignored_sigchld_leaves_no_status),
		cmocka_unit_test(pthread_cancel_stops_it),
		cmocka_unit_test(pthread_cancel_starts_nothing),
		cmocka_unit_test(a_child_that_a_handler_forks_leaves_it_alone),
		cmocka_unit_test(many_threads_run_commands),
		cmocka_unit_test(without_memory_nothing_is_left),
	};

	return run_all(tests);
}
