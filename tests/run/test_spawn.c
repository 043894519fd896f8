/* SPDX-License-Identifier: MIT */
/* ctxfd_spawn: the end of the context stops the process, the caller reaps it, and the library keeps nothing. */
#include "commands.h"
#include "loop.h"

#include <sys/resource.h>

/* Starts it and checks what is returned. */
static int spawn(const struct ctxfd *ctx, const struct ctxfd_command *command, pid_t *pid)
{
	int pidfd;

	errno = 4711;
	pidfd = ctxfd_spawn(ctx, command, pid);
	require(errno == 4711);
	require(pidfd >= 0 && fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
	return pidfd;
}

/* Reaps it and closes the pidfd. */
static int reap(int pidfd)
{
	siginfo_t info;

	require(ctxfd_waitid(ctxfd_background(), pidfd, &info, WEXITED) == 0);
	close(pidfd);
	return info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
}

static void the_caller_reaps_it(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	int pidfd, status;
	pid_t pid;

	NEED_PROCESSES();
	ctx = ctxfd_with_timeout(ctxfd_background(), HOUR);
	make_script(&s, "exit 42");
	for (int i = 0; i < 2; i++) {
		pidfd = spawn(i ? ctx : ctxfd_background(), &s.command, &pid);
		wait_readable(pidfd);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 42 << 8);
		close(pidfd);
		assert_int_equal(reap(spawn(i ? ctx : ctxfd_background(), &s.command, NULL)), 42 << 8);
	}
	assert_false(has_children());
	drop_script(&s);
	ctxfd_close(ctx);
}

static void the_end_stops_it(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	int pidfd;

	NEED_PROCESSES();
	for (int way = 0; way < 4; way++) {
		bool hard = way % 2, late = way / 2;

		make_script(&s, "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done");
		s.command.stop_signal = hard ? 0 : SIGTERM;
		s.command.grace = INT64_MAX;
		if (late) {
			pidfd = spawn_to_deadline(ctxfd_background(), 20 * CTXFD_MSEC, &s.command, &ctx, NULL);
		} else {
			ctx = ctxfd_with_cancel(ctxfd_background());
			pidfd = spawn(ctx, &s.command, NULL);
			hear(&s);
			ctxfd_cancel(ctx);
		}
		assert_int_equal(reap(pidfd) & (late ? 0 : -1), late ? 0 : hard ? SIGKILL : 7 << 8);
		drop_script(&s);
		ctxfd_close(ctx);
	}
}

static void after_its_grace_it_is_killed(void **state)
{
	static const int64_t graces[] = { 1, 30 * CTXFD_MSEC, 0 };
	struct ctxfd *ctx;
	struct script s;
	int64_t start;
	int pidfd;

	NEED_PROCESSES();
	for (size_t i = 0; i < COUNT(graces); i++) {
		ctx = ctxfd_with_cancel(ctxfd_background());
		make_script(&s, "trap '' TERM; echo; exec sleep 3600");
		s.command.stop_signal = SIGTERM;
		s.command.grace = graces[i];
		pidfd = spawn(ctx, &s.command, NULL);
		hear(&s);
		start = now();
		ctxfd_close(ctx); /* the registration keeps it */
		assert_int_equal(reap(pidfd), SIGKILL);
		assert_elapsed(start, graces[i] ? graces[i] : 5 * CTXFD_SEC, 10 * CTXFD_SEC);
		drop_script(&s);
	}
}

static void a_suspended_process_is_stopped(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	int pidfd;

	NEED_PROCESSES();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "trap 'exit 7' TERM; kill -STOP $$; while :; do sleep 0.01; done");
	s.command.stop_signal = SIGTERM;
	s.command.grace = INT64_MAX;
	pidfd = spawn(ctx, &s.command, NULL);
	wait_suspended();
	ctxfd_cancel(ctx);
	assert_int_equal(reap(pidfd), 7 << 8);
	drop_script(&s);
	ctxfd_close(ctx);
}

/* Also if it is reaped before the library hears of it. */
static void the_rest_of_a_group_is_killed(void **state)
{
	struct script s;
	int pidfd;

	NEED_PROCESSES();
	adopt_orphans();
	make_loop();
	for (int way = 0; way < 6; way++) {
		bool hard = way % 2, own_loop = way / 2 == 1, reaped = way / 2 == 2;
		struct ctxfd *ctx = ctxfd_with_cancel(own_loop || reaped ? home : ctxfd_background());

		make_script(&s, "(trap '' TERM; echo; exec sleep 3600) & trap 'exit 7' TERM; echo; while :; do sleep "
		                "0.01; done");
		s.command.stop_signal = hard ? 0 : SIGTERM;
		s.command.grace = INT64_MAX;
		s.command.flags = CTXFD_OWN_GROUP;
		pidfd = spawn(ctx, &s.command, NULL);
		hear(&s);
		hear(&s);
		ctxfd_cancel(ctx);
		if (own_loop || reaped)
			assert_int_equal(run_loop(), 1);
		if (own_loop)
			wait_readable(pidfd);
		else
			assert_int_equal(reap(pidfd), hard ? SIGKILL : 7 << 8);
		if (own_loop || reaped) {
			wait_readable(ctxfd_dispatcher_fd(loop));
			while (run_loop() > 0)
				continue;
		}
		if (own_loop)
			assert_int_equal(reap(pidfd), hard ? SIGKILL : 7 << 8);
		while (has_children())
			next_status();
		assert_string_equal(output(&s), "");
		drop_script(&s);
		ctxfd_close(ctx);
	}
	free_loop();
	bury_orphans();
}

static void a_leader_that_ends_by_itself_leaves_its_group(void **state)
{
	char number[16] = { 0 };
	struct ctxfd *ctx;
	struct script s;
	pid_t rest;
	int fds;

	NEED_PROCESSES();
	adopt_orphans();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "sleep 3600 & echo $!; exit 6");
	s.command.flags = CTXFD_OWN_GROUP;
	fds = count_fds();
	assert_int_equal(reap(spawn(ctx, &s.command, NULL)), 6 << 8);
	assert_true(read(s.pipe[0], number, sizeof number - 1) > 0);
	wait_until(count_fds() == fds);
	ctxfd_cancel(ctx);
	rest = (pid_t)atoi(number);
	assert_true(rest > 0);
	assert_int_equal(waitpid(rest, NULL, WNOHANG), 0);
	assert_int_equal(kill(rest, SIGTERM), 0);
	assert_int_equal(next_status(), SIGTERM);
	drop_script(&s);
	ctxfd_close(ctx);
	bury_orphans();
}

/* All is gone with the process, although the context lives on. */
static void nothing_is_kept_for_a_process_that_ended(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	long memory;
	int fds;

	NEED_PROCESSES();
	ctx = ctxfd_with_timeout(ctxfd_background(), HOUR);
	make_script(&s, "exit 0");
	s.command.flags = CTXFD_PASS_CONTEXT;
	reap(spawn(ctx, &s.command, NULL)); /* the alarm that ctx has with its first after-func stays */
	wait_until(count_fds() < 64);
	fds = count_fds();
	wait_until(count_fds() <= fds);
	memory = live_allocations();
	for (int i = 0; i < rounds(50); i++)
		assert_int_equal(reap(spawn(ctx, &s.command, NULL)), 0);
	wait_until(count_fds() <= fds && live_allocations() <= memory);
	drop_script(&s);
	ctxfd_close(ctx);
}

static void a_never_done_context_needs_nothing(void **state)
{
	const struct ctxfd *ctx;
	struct script s;
	long memory;
	int fds, pidfd;

	NEED_PROCESSES();
	ctx = ctxfd_without_cancel(ctxfd_todo());
	make_script(&s, "read x");
	s.command.in = s.pipe[0];
	fds = count_fds();
	memory = live_allocations();
	pidfd = spawn(ctx, &s.command, NULL);
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(live_allocations(), memory);
	assert_int_equal(write(s.pipe[1], "\n", 1), 1);
	assert_int_equal(reap(pidfd), 0);
	drop_script(&s);
	ctxfd_unref(ctx);
}

static void the_pidfd_may_be_closed(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	pid_t pid;
	int status;

	NEED_PROCESSES();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_script(&s, "echo; exec sleep 3600");
	close(spawn(ctx, &s.command, &pid));
	hear(&s);
	ctxfd_cancel(ctx);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, SIGKILL);
	drop_script(&s);
	ctxfd_close(ctx);
}

/* The loop hears of both ends at once, and of the process's first. */
static void the_rest_goes_with_a_leader_that_ended_after_its_context(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	pid_t pid;
	int pidfd;

	NEED_PROCESSES();
	adopt_orphans();
	make_loop();
	make_script(&s, "(echo; exec sleep 3600) & echo; while :; do sleep 0.01; done");
	s.command.flags = CTXFD_OWN_GROUP;
	pidfd = spawn_to_deadline(home, CTXFD_MSEC, &s.command, &ctx, &pid);
	hear(&s);
	hear(&s);
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_int_equal(kill(pid, SIGTERM), 0);
	wait_readable(pidfd);
	run_loop();
	assert_string_equal(output(&s), ""); /* which waits for the rest */
	assert_int_equal(reap(pidfd), SIGTERM);
	wait_until(run_loop() == 0 && !readable(ctxfd_dispatcher_fd(loop)));
	while (has_children())
		next_status();
	drop_script(&s);
	ctxfd_close(ctx);
	free_loop();
	bury_orphans();
}

/* The program's own loop stops it, and nobody else. */
static void its_dispatcher_serves_it(void **state)
{
	struct ctxfd *ctx;
	struct script s;
	int pidfd;

	NEED_PROCESSES();
	make_loop();
	ctx = ctxfd_with_cancel(home);
	make_script(&s, "trap 'echo heard' TERM; echo; while :; do sleep 0.01; done");
	s.command.stop_signal = SIGTERM;
	s.command.grace = 20 * CTXFD_MSEC;
	pidfd = spawn(ctx, &s.command, NULL);
	hear(&s);
	ctxfd_cancel(ctx);
	assert_int_equal(run_loop(), 1); /* stop_signal */
	hear(&s);
	wait_readable(ctxfd_dispatcher_fd(loop));
	while (!readable(pidfd)) { /* by SIGKILL after the grace */
		wait_readable(ctxfd_dispatcher_fd(loop));
		run_loop();
	}
	wait_until(run_loop() == 0 && !readable(ctxfd_dispatcher_fd(loop)));
	assert_int_equal(reap(pidfd), SIGKILL);
	drop_script(&s);
	ctxfd_close(ctx);
	free_loop();
}

static void spawn_in_fn(void *arg)
{
	struct script *s = arg;
	struct ctxfd *ctx = ctxfd_with_timeout(home, HOUR);

	assert_int_equal(reap(spawn(ctx, &s->command, NULL)), 3 << 8);
	ctxfd_close(ctx);
}

static void an_after_func_may_spawn(void **state)
{
	struct ctxfd *ctx;
	struct script s;

	NEED_PROCESSES();
	make_loop();
	make_script(&s, "exit 3");
	ctx = ctxfd_with_cancel(home);
	assert_int_equal(ctxfd_after_func(ctx, spawn_in_fn, &s, NULL), 0);
	ctxfd_close(ctx);
	while (run_loop() > 0 || readable(ctxfd_dispatcher_fd(loop)))
		continue;
	drop_script(&s);
	free_loop();
}

/* At each place: it is said, and nothing is left; or the process runs, and is stopped. */
static void without_memory_nothing_is_left(void **state)
{
	struct script s;
	int err = -1;

	NEED_PROCESSES();
	make_script(&s, "exec sleep 3600");
	s.command.flags = CTXFD_PASS_CONTEXT | CTXFD_OWN_GROUP;
	s.command.stop_signal = SIGTERM;
	for (int n = 1; err < 0; n++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), HOUR);
		pid_t pid = 4711;

		fail_allocation(n);
		err = ctxfd_spawn(ctx, &s.command, &pid);
		fail_allocation(0);
		assert_true(err >= 0 || err == -ENOMEM);
		assert_int_equal(pid == 4711, err < 0);
		assert_int_equal(has_children(), err >= 0);
		ctxfd_cancel(ctx);
		if (err >= 0)
			assert_int_equal(reap(err), SIGTERM);
		ctxfd_close(ctx);
	}
	assert_false(has_children());
	drop_script(&s);
}

/* What the end needs is there from the beginning. */
static void the_end_takes_no_memory(void **state)
{
	struct script s;

	NEED_PROCESSES();
	make_loop();
	for (int deaf = 0; deaf < 2; deaf++) {
		struct ctxfd *ctx = ctxfd_with_cancel(home);
		long memory = live_allocations();
		int pidfd;

		make_script(&s, deaf ? "trap '' TERM; echo; exec sleep 3600"
		                     : "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done");
		s.command.stop_signal = SIGTERM;
		s.command.grace = deaf ? 20 * CTXFD_MSEC : INT64_MAX;
		pidfd = spawn(ctx, &s.command, NULL);
		hear(&s);
		fail_allocation(1);
		ctxfd_cancel(ctx);
		while (!readable(pidfd)) {
			wait_readable(ctxfd_dispatcher_fd(loop));
			run_loop();
		}
		assert_false(allocation_failed());
		fail_allocation(0);
		assert_int_equal(reap(pidfd), deaf ? SIGKILL : 7 << 8);
		wait_until(run_loop() >= 0 && live_allocations() <= memory);
		drop_script(&s);
		ctxfd_close(ctx);
	}
	free_loop();
}

/* With no fd free, one, and so on until it succeeds. */
static int spawn_without_fds(void *arg)
{
	struct ctxfd_command c = { .argv = (char *[]){ "/bin/true", NULL }, .flags = CTXFD_PASS_CONTEXT };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct rlimit limit;
	int pidfd, fds[64], n, needs = 0;

	(void)arg;
	start_dispatcher();
	require(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = 64;
	require(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	do {
		for (n = 0; (fds[n] = fcntl(2, F_DUPFD_CLOEXEC, 0)) >= 0;)
			n++;
		for (int i = 0; i < needs; i++)
			close(fds[--n]);
		pidfd = ctxfd_spawn(ctx, &c, NULL);
		while (n > 0)
			close(fds[--n]);
		require(pidfd >= 0 || pidfd == -EMFILE);
		require(has_children() == (pidfd >= 0));
		needs += pidfd < 0;
	} while (pidfd < 0);
	require(needs == 5); /* the pidfd, another one, a pipe, and an epoll set */
	reap(pidfd);
	ctxfd_close(ctx);
	return 0;
}

static void without_fds_nothing_is_left(void **state)
{
	NEED_PROCESSES();
	if (!tells_exec_errors())
		skip_test("here a child does not share memory, or fds are not ours alone to count");
	assert_int_equal(in_child(spawn_without_fds, NULL), 0);
}

struct copies {
	struct ctxfd *ctx;
	int go[2], gone[2];
};

/*
 * In a forked child: the copies of the contexts end as theirs do, and call the same functions. The process is none of
 * its business, nor are the fds that it has inherited.
 */
static int end_copies(void *arg)
{
	struct copies *c = arg;
	long memory = live_allocations();
	int fds = count_fds();
	char byte;

	ctxfd_cancel(c->ctx);
	require(write(c->go[1], "x", 1) == 1);
	require(read(c->gone[0], &byte, 1) == 1);
	/* The process has ended, as this process's dispatcher will see, too: then the watch is freed. */
	wait_until(ctxfd_err(c->ctx) && live_allocations() < memory);
	require(count_fds() <= fds + 4); /* the dispatcher's own */
	return 0;
}

static void *fork_and_end_copies(void *arg)
{
	require(harness_in_child(end_copies, arg, __FILE__, __LINE__) == 0);
	return NULL;
}

static void a_forked_child_leaves_it_alone(void **state)
{
	struct copies c;
	struct thread *forking;
	struct script s;
	pid_t pid;
	char byte;
	int pidfd, fds;

	NEED_PROCESSES();
	for (int stopping = 0; stopping < 2; stopping++) {
		c.ctx = ctxfd_with_cancel(ctxfd_background());
		make_pipe(c.go);
		make_pipe(c.gone);
		fds = count_fds();
		make_script(&s, "trap 'echo' TERM; echo; while :; do sleep 0.01; done");
		s.command.flags = CTXFD_PASS_CONTEXT | CTXFD_OWN_GROUP;
		s.command.stop_signal = SIGTERM;
		s.command.grace = INT64_MAX;
		pidfd = spawn(c.ctx, &s.command, &pid);
		hear(&s);
		if (stopping) {
			ctxfd_cancel(c.ctx);
			hear(&s);
		}
		forking = thread_start(fork_and_end_copies, &c);
		assert_int_equal(read(c.go[0], &byte, 1), 1);
		assert_not_readable(pidfd);
		assert_not_readable(s.pipe[0]); /* no SIGTERM */
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(reap(pidfd), SIGKILL);
		assert_int_equal(write(c.gone[1], "x", 1), 1);
		thread_join(forking);
		drop_script(&s);
		wait_until(count_fds() == fds);
		close_pair(c.go);
		close_pair(c.gone);
		ctxfd_close(c.ctx);
	}
}

#define THREADS 16

static void *spawn_many(void *arg)
{
	static char *const argv[] = { "/bin/sh", "-c", "exec sleep 0.002", NULL };
	unsigned seed = (unsigned)(intptr_t)arg;

	for (int i = rounds(20); i > 0; i--) {
		struct ctxfd_command c = { .argv = argv, .flags = (unsigned)rand_r(&seed) % 4 };
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), HOUR);
		int pidfd, status;

		c.stop_signal = seed % 2 ? SIGTERM : 0;
		pidfd = ctxfd_spawn(ctx, &c, NULL);
		require(pidfd >= 0);
		pass_time(rand_r(&seed) % (4 * CTXFD_MSEC));
		if (seed % 3)
			ctxfd_close(ctx);
		status = reap(pidfd);
		require(status == 0 || (seed % 3 && (status == SIGKILL || status == SIGTERM)));
		if (!(seed % 3))
			ctxfd_close(ctx);
	}
	return NULL;
}

static void many_threads_spawn(void **state)
{
	struct thread *threads[THREADS];

	NEED_PROCESSES();
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(spawn_many, (void *)(intptr_t)(i + 1));
	for (int i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	assert_false(has_children());
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_caller_reaps_it),
		cmocka_unit_test(the_end_stops_it),
		cmocka_unit_test(after_its_grace_it_is_killed),
		cmocka_unit_test(a_suspended_process_is_stopped),
		cmocka_unit_test(the_rest_of_a_group_is_killed),
		cmocka_unit_test(a_leader_that_ends_by_itself_leaves_its_group),
		cmocka_unit_test(nothing_is_kept_for_a_process_that_ended),
		cmocka_unit_test(a_never_done_context_needs_nothing),
		cmocka_unit_test(the_pidfd_may_be_closed),
		cmocka_unit_test(the_rest_goes_with_a_leader_that_ended_after_its_context),
		cmocka_unit_test(its_dispatcher_serves_it),
		cmocka_unit_test(an_after_func_may_spawn),
		cmocka_unit_test(without_memory_nothing_is_left),
		cmocka_unit_test(the_end_takes_no_memory),
		cmocka_unit_test(without_fds_nothing_is_left),
		cmocka_unit_test(a_forked_child_leaves_it_alone),
		cmocka_unit_test(many_threads_spawn),
	};

	start_dispatcher();
	return run_all(tests);
}
