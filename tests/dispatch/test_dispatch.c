/* SPDX-License-Identifier: MIT */
/* Dispatchers: what the library's thread is like, and the program's own loops. Each test in a child of its own. */
#include <sys/epoll.h>
#include <sys/stat.h>

#include "loop.h"

struct note {
	_Atomic int runs;
	_Atomic bool inside, go;
	int result;
	pthread_t where;
};

static void run(void *arg)
{
	struct note *note = arg;

	note->where = pthread_self();
	note->runs++;
}

static void run_slowly(void *arg)
{
	struct note *note = arg;

	note->inside = true;
	wait_until(note->go);
	note->runs++;
}

/* How many threads there are beside those that were there before the library was used: TSan has one of its own. */
static int more_threads(void)
{
	static int before;

	if (!before)
		before = count_threads();
	return count_threads() - before;
}

/* ---- The library's thread ---------------------------------------------------------------------------------------- */

static int thread_appears_with_first_use(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC);
	int fds;
	struct note note = { .runs = 0 };
	pid_t tid;

	(void)arg;
	require(ctxfd_done_fd(ctx) >= 0);
	fds = count_fds();
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	require(more_threads() == 1);
	require(count_fds() == fds + 3);
	wait_until((tid = find_library_thread()) != 0);
	tid_wait_asleep(tid);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

/* By which the kernel answers what a thread does itself: a crash handler is to see a crash in fn. */
static bool is_own(int signal)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };

	for (size_t i = 0; i < COUNT(own); i++)
		if (own[i] == signal)
			return true;
	return false;
}

/* A signal for the process reaches a thread of the program, never the library's. */
static int thread_blocks_signals(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	char path[64], line[128];
	unsigned long long blocked = 0;
	pid_t tid;
	FILE *f;

	(void)arg;
	require(ctxfd_after_func(ctx, run, NULL, NULL) == 0);
	wait_until((tid = find_library_thread()) != 0);
	tid_wait_asleep(tid); /* while it runs, valgrind keeps all signals from it */
	snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
	f = fopen(path, "re");
	require(f);
	while (fgets(line, sizeof line, f))
		sscanf(line, "SigBlk: %llx", &blocked);
	fclose(f);
	for (int s = 1; s < 32; s++)
		require(s == SIGKILL || s == SIGSTOP || is_own(s) == !(blocked >> (s - 1) & 1));
	return 0; /* and a process ends well with an after-func waiting, and its thread asleep */
}

static int no_fds_is_an_error(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0 };
	int fds = count_fds();

	(void)arg;
	exhaust_fds();
	require(ctxfd_after_func(ctx, run, &note, NULL) == -EMFILE);
	errno = 0;
	require(!ctxfd_dispatcher_new() && errno == EMFILE);
	free_fds();
	require(count_fds() == fds);
	require(more_threads() == 0);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

static jmp_buf crashed;

static void on_crash(int signal)
{
	siglongjmp(crashed, signal);
}

static void crash(void *arg)
{
	if (sigsetjmp(crashed, 1) == 0)
		raise(SIGSEGV);
	((struct note *)arg)->runs++;
}

static int thread_lets_a_crash_handler_run(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0 };

	require(signal(SIGSEGV, on_crash) != SIG_ERR);
	require(ctxfd_after_func(ctx, crash, &note, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

static void use_stack(void *arg)
{
#ifdef __GLIBC__
	volatile char big[512 * 1024];
#else
	volatile char big[96 * 1024]; /* of musl's 128 KiB */
#endif

	big[0] = big[sizeof big - 1] = 1;
	((struct note *)arg)->runs += big[0];
}

static int thread_has_a_stack_of_the_default_size(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0 };

	require(ctxfd_after_func(ctx, use_stack, &note, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

static void end_thread(void *arg)
{
	pthread_exit(arg);
}

/* Another thread takes over, and who stops the function does not wait for ever. */
static int a_function_may_end_the_thread(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note before = { .runs = 0 }, after = { .runs = 0 };
	struct ctxfd_after *handle;

	require(ctxfd_after_func(ctx, run, &before, NULL) == 0);
	require(ctxfd_after_func(ctx, end_thread, NULL, &handle) == 0);
	require(ctxfd_after_func(ctx, run, &after, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(after.runs == 1);
	require(before.runs == 1);
	require(!ctxfd_after_stop(handle));
	wait_until(more_threads() == 1);
	return 0;
}

/* ---- The program's own loop -------------------------------------------------------------------------------------- */

static int nothing_runs_but_in_run(void *arg)
{
	struct ctxfd *ctx, *timed;
	struct note note = { .runs = 0 };
	int fd = make_loop();

	(void)arg;
	require(fd >= 0 && ctxfd_dispatcher_fd(loop) == fd);
	require(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	require(run_loop() == 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	require(!readable(fd));
	ctxfd_cancel(ctx);
	require(readable(fd));
	require(note.runs == 0);
	require(run_loop() == 1);
	require(note.runs == 1 && pthread_equal(note.where, pthread_self()));
	require(!readable(fd));
	timed = ctxfd_with_timeout(home, 20 * CTXFD_MSEC);
	require(ctxfd_after_func(timed, run, &note, NULL) == 0);
	wait_readable(fd); /* the deadline */
	require(run_loop() == 1);
	require(note.runs == 2 && ctxfd_err(timed) == -ETIMEDOUT);
	require(more_threads() == 0);
	ctxfd_unref(ctx);
	ctxfd_unref(timed);
	free_loop();
	return 0;
}

/* Loops do not take each other's callbacks, nor the library's thread theirs. */
static int each_loop_has_its_own(void *arg)
{
	struct ctxfd_dispatcher *other = ctxfd_dispatcher_new();
	const struct ctxfd *below, *there, *nowhere;
	struct note here = { .runs = 0 }, elsewhere = { .runs = 0 }, library = { .runs = 0 };
	struct ctxfd *ctx;

	require(other && make_loop() >= 0);
	ctx = ctxfd_with_timeout(home, 3600 * CTXFD_SEC);
	there = ctxfd_with_dispatcher(ctx, other);
	below = ctxfd_without_cancel(there);
	nowhere = ctxfd_with_dispatcher(there, NULL);
	require(ctxfd_after_func(ctx, run, &here, NULL) == 0);
	require(ctxfd_after_func(there, run, &elsewhere, NULL) == 0);
	require(ctxfd_after_func(nowhere, run, &library, NULL) == 0);
	ctxfd_cancel(ctx);
	wait_until(library.runs == 1);
	require(here.runs == 0 && elsewhere.runs == 0);
	require(run_loop() == 1 && here.runs == 1);
	require(ctxfd_dispatcher_run(other) == 1 && elsewhere.runs == 1);
	require(ctxfd_err(below) == 0);
	ctxfd_unref(below);
	ctxfd_unref(nowhere);
	ctxfd_unref(there);
	ctxfd_unref(ctx);
	ctxfd_dispatcher_free(other);
	free_loop();
	return 0;
}

/* A deadline is noticed by each dispatcher that has after-funcs on it, and ends those of all. */
static int each_loop_hears_the_deadline(void *arg)
{
	struct ctxfd_dispatcher *other = ctxfd_dispatcher_new();
	struct note here = { .runs = 0 }, elsewhere = { .runs = 0 };
	const struct ctxfd *there;
	struct ctxfd *ctx;

	require(other && make_loop() >= 0);
	ctx = ctxfd_with_timeout(home, 20 * CTXFD_MSEC);
	there = ctxfd_with_dispatcher(ctx, other);
	require(ctxfd_after_func(ctx, run, &here, NULL) == 0);
	require(ctxfd_after_func(there, run, &elsewhere, NULL) == 0);
	require(ctxfd_after_func(there, run, &elsewhere, NULL) == 0);
	wait_readable(ctxfd_dispatcher_fd(other));
	require(ctxfd_dispatcher_run(other) == 2 && elsewhere.runs == 2);
	require(readable(ctxfd_dispatcher_fd(loop)));
	require(run_loop() == 1 && here.runs == 1);
	ctxfd_unref(there);
	ctxfd_unref(ctx);
	ctxfd_dispatcher_free(other);
	free_loop();
	return 0;
}

/* The merge's dispatcher is the first parent's, as its values are. */
static int a_merge_takes_that_of_the_first(void *arg)
{
	struct ctxfd_dispatcher *other = ctxfd_dispatcher_new();
	const struct ctxfd *there;
	struct note note = { .runs = 0 };
	struct ctxfd *ctx;

	require(other && make_loop() >= 0);
	there = ctxfd_with_dispatcher(ctxfd_background(), other);
	ctx = ctxfd_merge(home, there);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	ctxfd_close(ctx);
	require(ctxfd_dispatcher_run(other) == 0);
	require(run_loop() == 1 && note.runs == 1);
	ctxfd_unref(there);
	ctxfd_dispatcher_free(other);
	free_loop();
	return 0;
}

static void give_all_up(void *arg)
{
	struct note *note = arg;

	free_loop();
	note->runs++;
}

/* Also inside a function that it runs itself. */
static int works_until_its_last_holder_goes(void *arg)
{
	struct note note = { .runs = 0 };
	struct ctxfd_dispatcher *d;
	struct ctxfd *ctx;
	int fds = count_fds(), fd;

	fd = make_loop();
	d = loop;
	ctx = ctxfd_with_cancel(home);
	ctxfd_unref(home);
	home = NULL;
	require(ctxfd_after_func(ctx, give_all_up, &note, NULL) == 0);
	ctxfd_close(ctx);
	require(readable(fd) && count_fds() == fds + 3);
	require(ctxfd_dispatcher_run(d) == 1);
	require(note.runs == 1);
	require(count_fds() == fds && live_allocations() == 0);
	return 0;
}

/* So is what was due, and stopped. */
static int is_freed_with_what_was_stopped(void *arg)
{
	struct note note = { .runs = 0 };
	struct ctxfd_after *handle;
	int fds = count_fds();
	struct ctxfd *ctx;

	require(make_loop() >= 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, run, &note, &handle) == 0);
	ctxfd_cancel(ctx);
	free_loop();
	require(ctxfd_after_stop(handle));
	ctxfd_unref(ctx);
	require(live_allocations() == 0 && count_fds() == fds && note.runs == 0);
	return 0;
}

/* What nobody runs any more is freed with its contexts. */
static int is_freed_with_what_nobody_runs(void *arg)
{
	struct note note = { .runs = 0 };
	int fds = count_fds();
	struct ctxfd *ctx;

	require(make_loop() >= 0);
	ctx = ctxfd_with_timeout(home, 3600 * CTXFD_SEC);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	free_loop();
	require(live_allocations() == 5); /* dispatcher, its context, ctx, its expiry, the after-func */
	ctxfd_unref(ctx);
	require(live_allocations() == 5);
	require(note.runs == 0 && count_fds() == fds + 3);
	return 0;
}

static void run_again_here(void *arg)
{
	struct note *note = arg;

	note->result = run_loop();
	note->runs++;
}

static int not_from_inside_its_own(void *arg)
{
	struct note note = { .runs = 0 };
	struct ctxfd *ctx;

	(void)arg;
	require(make_loop() >= 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, run_again_here, &note, NULL) == 0);
	ctxfd_cancel(ctx);
	require(run_loop() == 1);
	require(note.result == -EBUSY);
	ctxfd_unref(ctx);
	free_loop();
	return 0;
}

/* But one runs another inside a function. */
static int from_inside_another(void *arg)
{
	struct note outer = { .runs = 0 }, inner = { .runs = 0 };
	struct ctxfd_dispatcher *other = ctxfd_dispatcher_new();
	const struct ctxfd *there = ctxfd_with_dispatcher(ctxfd_background(), other);
	struct ctxfd *ctx, *below = ctxfd_with_cancel(there);

	require(make_loop() >= 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(below, run_again_here, &outer, NULL) == 0);
	require(ctxfd_after_func(ctx, run, &inner, NULL) == 0);
	ctxfd_close(ctx);
	ctxfd_close(below);
	require(ctxfd_dispatcher_run(other) == 1);
	require(outer.runs == 1 && outer.result == 1 && inner.runs == 1);
	ctxfd_unref(there);
	ctxfd_dispatcher_free(other);
	free_loop();
	return 0;
}

struct again {
	struct ctxfd *ctx;
	int runs;
};

static void run_again(void *arg)
{
	struct again *again = arg;

	again->runs++;
	require(ctxfd_after_func(again->ctx, run_again, again, NULL) == 0);
}

/* One that is always due again does not keep the loop: each run does it once. */
static int a_run_returns(void *arg)
{
	struct again again = { .runs = 0 };
	int fd = make_loop();

	(void)arg;
	again.ctx = ctxfd_with_cancel(home);
	ctxfd_cancel(again.ctx);
	require(ctxfd_after_func(again.ctx, run_again, &again, NULL) == 0);
	for (int i = 1; i <= 5; i++) {
		require(readable(fd));
		require(run_loop() == 1);
		require(again.runs == i);
	}
	return 0;
}

/* An epoll loop with a socket beside it: the shape of a server. */
static int in_an_epoll_loop(void *arg)
{
	struct note note = { .runs = 0 };
	int pair[2], fd = make_loop(), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	struct ctxfd *ctx = ctxfd_with_timeout(home, 20 * CTXFD_MSEC);

	(void)arg;
	make_socketpair(pair);
	require(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	event.data.fd = pair[0];
	require(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	while (note.runs == 0) {
		require(epoll_wait(set, &event, 1, -1) == 1);
		require(event.data.fd == fd);
		require(run_loop() >= 0);
	}
	require(write(pair[1], "x", 1) == 1);
	require(epoll_wait(set, &event, 1, -1) == 1 && event.data.fd == pair[0]);
	ctxfd_unref(ctx);
	return 0;
}

/* ---- Two threads, one dispatcher --------------------------------------------------------------------------------- */

static void make_due(void (*fn)(void *), void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(home);

	require(ctxfd_after_func(ctx, fn, arg, NULL) == 0);
	ctxfd_close(ctx);
}

/* While one runs a slow function the other is told of what comes due once, and not again and again. */
static int level_triggered(void *arg)
{
	struct note slow_one = { .runs = 0 }, quick = { .runs = 0 };
	struct thread *runner;
	int fd = make_loop(), pipe[2];
	struct ctxfd *watching;

	make_pipe(pipe);
	watching = ctxfd_with_fd(home, pipe[0], POLLIN, -5);
	make_due(run_slowly, &slow_one);
	runner = thread_start(run_loop_once, NULL);
	wait_until(slow_one.inside);
	make_due(run, &quick);
	require(write(pipe[1], "x", 1) == 1);
	require(run_loop() == -EBUSY);
	require(!readable(fd));
	slow_one.go = true;
	require((intptr_t)thread_join(runner) == 1);
	require(readable(fd));
	require(run_loop() == 2);
	require(quick.runs == 1 && ctxfd_cause(watching) == -5);
	require(!readable(fd));
	ctxfd_unref(watching);
	return 0;
}

/* The edge that -EBUSY has taken comes once more. */
static int edge_triggered(void *arg)
{
	struct note slow_one = { .runs = 0 }, quick = { .runs = 0 };
	int fd = make_loop(), set = epoll_create1(EPOLL_CLOEXEC), pipe[2];
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	struct thread *runner;
	struct ctxfd *watching;

	require(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	make_pipe(pipe);
	watching = ctxfd_with_fd(home, pipe[0], POLLIN, -5);
	make_due(run_slowly, &slow_one);
	require(epoll_wait(set, &event, 1, -1) == 1);
	runner = thread_start(run_loop_once, NULL);
	wait_until(slow_one.inside);
	make_due(run, &quick);
	require(write(pipe[1], "x", 1) == 1);
	require(epoll_wait(set, &event, 1, -1) == 1);
	require(run_loop() == -EBUSY);
	require(epoll_wait(set, &event, 1, 0) == 0);
	slow_one.go = true;
	require((intptr_t)thread_join(runner) == 1);
	require(epoll_wait(set, &event, 1, -1) == 1);
	require(run_loop() == 2);
	require(quick.runs == 1 && ctxfd_cause(watching) == -5);
	for (int i = 0; i < 3; i++) {
		make_due(run, &quick);
		require(epoll_wait(set, &event, 1, -1) == 1);
		require(run_loop() == 1);
	}
	ctxfd_unref(watching);
	return 0;
}

static void *run_and_end(void *arg)
{
	run_loop();
	*(bool *)arg = true;
	return NULL;
}

/* What is behind a function that ends its thread is left to the next run. */
static int a_function_may_end_the_running_thread(void *arg)
{
	struct note note = { .runs = 0 };
	bool returned = false;
	pthread_t thread;
	int fd = make_loop();

	make_due(end_thread, NULL);
	make_due(run, &note);
	require(pthread_create(&thread, NULL, run_and_end, &returned) == 0);
	require(pthread_join(thread, NULL) == 0);
	require(!returned && note.runs == 0);
	require(readable(fd) && run_loop() == 1 && note.runs == 1);
	return 0;
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

/*
 * The library's thread is at rest: a fork finds it in no lock of a sanitizer's allocator, which do not all survive one.
 */
static void wait_for_rest(void)
{
	pid_t tid;

	wait_until((tid = find_library_thread()) != 0);
	tid_wait_asleep(tid);
}

static int use_in_child(void *arg)
{
	struct note *note = arg, own = { .runs = 0 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

#ifdef __SANITIZE_THREAD__ /* cannot start threads here: the program's own loop will do */
	require(make_loop() >= 0);
	ctxfd_unref(ctx);
	ctx = ctxfd_with_cancel(home);
#endif
	require(ctxfd_after_func(ctx, run, &own, NULL) == 0);
	ctxfd_close(ctx);
#ifdef __SANITIZE_THREAD__
	require(run_loop() == 1);
#endif
	wait_until(own.runs == 1);
	require(note->runs == 0);
	return 0;
}

static int a_forked_child_starts_its_own(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0 };

	(void)arg;
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	wait_for_rest();
	require(in_child(use_in_child, &note) == 0);
	require(note.runs == 0);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

struct inherited {
	struct ctxfd *ctx;
	struct note note;
};

static int cancel_in_child(void *arg)
{
	struct inherited *inherited = arg;
	int fd;

	ctxfd_close(inherited->ctx);
	fd = ctxfd_dispatcher_fd(loop);
	require(fd >= 0 && readable(fd));
	require(run_loop() == 1);
	require(inherited->note.runs == 1);
	return 0;
}

/* What the child inherited runs in the child once it runs its dispatcher, and the parent hears nothing of it. */
static int a_forked_child_keeps_after_funcs(void *arg)
{
	struct inherited inherited = { .ctx = NULL };
	int fd = make_loop();

	(void)arg;
	inherited.ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(inherited.ctx, run, &inherited.note, NULL) == 0);
	require(in_child(cancel_in_child, &inherited) == 0);
	require(inherited.note.runs == 0 && ctxfd_err(inherited.ctx) == 0 && !readable(fd));
	ctxfd_close(inherited.ctx);
	require(run_loop() == 1 && inherited.note.runs == 1);
	return 0;
}

/* Counts first, and then runs a test. */
static int count_and_run(void *arg)
{
	int (**test)(void *) = arg;

	more_threads();
	return (*test)(NULL);
}

#define IN_CHILD(name)                                               \
	static void name##_(void **state)                            \
	{                                                            \
		(void)state;                                         \
		int (*test)(void *) = name;                          \
		assert_int_equal(in_child(count_and_run, &test), 0); \
	}

IN_CHILD(thread_appears_with_first_use)
IN_CHILD(thread_blocks_signals)
IN_CHILD(thread_lets_a_crash_handler_run)
IN_CHILD(thread_has_a_stack_of_the_default_size)
IN_CHILD(a_function_may_end_the_thread)
IN_CHILD(no_fds_is_an_error)
IN_CHILD(nothing_runs_but_in_run)
IN_CHILD(each_loop_has_its_own)
IN_CHILD(each_loop_hears_the_deadline)
IN_CHILD(a_merge_takes_that_of_the_first)
IN_CHILD(works_until_its_last_holder_goes)
IN_CHILD(is_freed_with_what_nobody_runs)
IN_CHILD(is_freed_with_what_was_stopped)
IN_CHILD(not_from_inside_its_own)
IN_CHILD(from_inside_another)
IN_CHILD(a_run_returns)
IN_CHILD(in_an_epoll_loop)
IN_CHILD(level_triggered)
IN_CHILD(edge_triggered)
IN_CHILD(a_function_may_end_the_running_thread)
IN_CHILD(a_forked_child_starts_its_own)
IN_CHILD(a_forked_child_keeps_after_funcs)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(thread_appears_with_first_use_),
		cmocka_unit_test(thread_blocks_signals_),
		cmocka_unit_test(thread_lets_a_crash_handler_run_),
		cmocka_unit_test(thread_has_a_stack_of_the_default_size_),
		cmocka_unit_test(a_function_may_end_the_thread_),
		cmocka_unit_test(no_fds_is_an_error_),
		cmocka_unit_test(nothing_runs_but_in_run_),
		cmocka_unit_test(each_loop_has_its_own_),
		cmocka_unit_test(each_loop_hears_the_deadline_),
		cmocka_unit_test(a_merge_takes_that_of_the_first_),
		cmocka_unit_test(works_until_its_last_holder_goes_),
		cmocka_unit_test(is_freed_with_what_nobody_runs_),
		cmocka_unit_test(is_freed_with_what_was_stopped_),
		cmocka_unit_test(not_from_inside_its_own_),
		cmocka_unit_test(from_inside_another_),
		cmocka_unit_test(a_run_returns_),
		cmocka_unit_test(in_an_epoll_loop_),
		cmocka_unit_test(level_triggered_),
		cmocka_unit_test(edge_triggered_),
		cmocka_unit_test(a_function_may_end_the_running_thread_),
		cmocka_unit_test(a_forked_child_starts_its_own_),
		cmocka_unit_test(a_forked_child_keeps_after_funcs_),
	};

	return run_all_cold(tests);
}
