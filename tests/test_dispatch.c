/* SPDX-License-Identifier: MIT */
/* The dispatcher: what its thread is like, and a program's own loop in its place. Each test in a child of its own. */
#include <sys/epoll.h>
#include <sys/stat.h>

#include "harness.h"

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

/* The library's thread by its name, or 0. */
static pid_t find_thread(void)
{
	for (pid_t tid = getpid(); tid < getpid() + 1000; tid++) {
		char path[64], name[32] = "";
		FILE *f;

		snprintf(path, sizeof path, "/proc/self/task/%d/comm", tid);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (!fgets(name, sizeof name, f))
			name[0] = '\0';
		fclose(f);
		if (strcmp(name, "ctxfd\n") == 0)
			return tid;
	}
	return 0;
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
	wait_until((tid = find_thread()) != 0);
	tid_wait_asleep(tid);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

/* A signal for the process reaches a thread of the program, never the library's. */
static int thread_blocks_all_signals(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	char path[64], line[128];
	unsigned long long blocked = 0;
	pid_t tid;
	FILE *f;

	(void)arg;
	require(ctxfd_after_func(ctx, run, NULL, NULL) == 0);
	wait_until((tid = find_thread()) != 0);
	snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
	f = fopen(path, "re");
	require(f);
	while (fgets(line, sizeof line, f))
		sscanf(line, "SigBlk: %llx", &blocked);
	fclose(f);
	for (int s = 1; s < 32; s++)
		require(s == SIGKILL || s == SIGSTOP || blocked >> (s - 1) & 1);
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
	require(ctxfd_dispatch_fd() == -EMFILE);
	free_fds();
	require(count_fds() == fds);
	require(more_threads() == 0);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	return 0;
}

/* ---- The program's own loop -------------------------------------------------------------------------------------- */

static int nothing_runs_but_in_dispatch(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *timed;
	struct note note = { .runs = 0 };
	int fd;

	(void)arg;
	require(ctxfd_dispatch() == -EINVAL);
	fd = ctxfd_dispatch_fd();
	require(fd >= 0 && ctxfd_dispatch_fd() == fd);
	require(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	require(ctxfd_dispatch() == 0);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	require(!readable(fd));
	ctxfd_cancel(ctx);
	require(readable(fd));
	require(note.runs == 0);
	require(ctxfd_dispatch() == 1);
	require(note.runs == 1 && pthread_equal(note.where, pthread_self()));
	require(!readable(fd));
	timed = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	require(ctxfd_after_func(timed, run, &note, NULL) == 0);
	wait_readable(fd); /* the deadline */
	require(ctxfd_dispatch() == 1);
	require(note.runs == 2 && ctxfd_err(timed) == -ETIMEDOUT);
	require(more_threads() == 0);
	ctxfd_unref(ctx);
	ctxfd_unref(timed);
	return 0;
}

/* What the thread had not started is left to the program, and what it was running has ended. */
static int taking_over_stops_the_thread(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note slow_one = { .runs = 0 }, waiting[3] = { { .runs = 0 } };
	int fd;

	(void)arg;
	require(ctxfd_after_func(ctx, run_slowly, &slow_one, NULL) == 0);
	for (int i = 0; i < 3; i++)
		require(ctxfd_after_func(ctx, run, &waiting[i], NULL) == 0);
	ctxfd_cancel(ctx);
	wait_until(slow_one.inside);
	slow_one.go = true; /* it may well come to the others as well, before it is told to stop */
	fd = ctxfd_dispatch_fd();
	require(fd >= 0);
	require(more_threads() == 0);
	require(slow_one.runs == 1);
	for (int left = 3 - waiting[0].runs - waiting[1].runs - waiting[2].runs; left > 0;) {
		require(readable(fd));
		left -= ctxfd_dispatch();
	}
	for (int i = 0; i < 3; i++)
		require(waiting[i].runs == 1);
	ctxfd_unref(ctx);
	return 0;
}

struct turn {
	atomic_int *turns;
	int mine;
};

static void take_turn(void *arg)
{
	struct turn *t = arg;

	t->mine = ++*t->turns;
}

static void *call_dispatch_fd(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)ctxfd_dispatch_fd();
}

/* What was due earlier runs earlier, although the thread had taken that in hand and the other not. */
static int taking_over_keeps_the_order(void *arg)
{
	struct ctxfd *early = ctxfd_with_cancel(ctxfd_background()), *late = ctxfd_with_cancel(ctxfd_background());
	struct note slow_one = { .runs = 0 };
	atomic_int turns = 0;
	struct turn first = { .turns = &turns }, second = { .turns = &turns };
	struct thread *taker;

	(void)arg;
	require(ctxfd_after_func(early, run_slowly, &slow_one, NULL) == 0);
	require(ctxfd_after_func(early, take_turn, &first, NULL) == 0);
	require(ctxfd_after_func(late, take_turn, &second, NULL) == 0);
	ctxfd_close(early);
	wait_until(slow_one.inside);
	ctxfd_close(late);
	taker = thread_start(call_dispatch_fd, NULL);
	thread_wait_asleep(taker);
	slow_one.go = true;
	require((intptr_t)thread_join(taker) >= 0);
	require(turns == 0);
	require(ctxfd_dispatch() == 2);
	require(first.mine == 1 && second.mine == 2);
	return 0;
}

static void dispatch_again(void *arg)
{
	struct note *note = arg;

	note->result = ctxfd_dispatch();
	note->runs++;
}

static void take_over(void *arg)
{
	struct note *note = arg;

	note->result = ctxfd_dispatch_fd();
	note->runs++;
}

static int not_from_inside_a_callback(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0 };

	(void)arg;
	require(ctxfd_after_func(ctx, take_over, &note, NULL) == 0);
	ctxfd_cancel(ctx);
	wait_until(note.runs == 1);
	require(note.result == -EDEADLK);
	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_after_func(ctx, dispatch_again, &note, NULL) == 0);
	while (note.runs == 1)
		require(ctxfd_dispatch() >= 0);
	require(note.result == -EBUSY);
	ctxfd_unref(ctx);
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

/* One that is always due again does not keep the loop: each call of dispatch runs it once. */
static int dispatch_returns(void *arg)
{
	struct again again = { ctxfd_with_cancel(ctxfd_background()), 0 };

	(void)arg;
	require(ctxfd_dispatch_fd() >= 0);
	ctxfd_cancel(again.ctx);
	require(ctxfd_after_func(again.ctx, run_again, &again, NULL) == 0);
	for (int i = 1; i <= 5; i++) {
		require(ctxfd_dispatch() == 1);
		require(again.runs == i);
	}
	return 0;
}

/* An epoll loop with a socket beside it: the shape of a server. */
static int in_an_epoll_loop(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	struct note note = { .runs = 0 };
	int pair[2], fd = ctxfd_dispatch_fd(), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	(void)arg;
	make_socketpair(pair);
	require(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	event.data.fd = pair[0];
	require(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	while (note.runs == 0) {
		require(epoll_wait(set, &event, 1, -1) == 1);
		require(event.data.fd == fd);
		require(ctxfd_dispatch() >= 0);
	}
	require(write(pair[1], "x", 1) == 1);
	require(epoll_wait(set, &event, 1, -1) == 1 && event.data.fd == pair[0]);
	ctxfd_unref(ctx);
	return 0;
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

/*
 * The library's thread is at rest: a fork finds it in no lock of a sanitizer's allocator, which do not all survive one.
 */
static void wait_for_rest(void)
{
	pid_t tid;

	wait_until((tid = find_thread()) != 0);
	tid_wait_asleep(tid);
}

static int use_in_child(void *arg)
{
	struct note *note = arg, own = { .runs = 0 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

#ifdef __SANITIZE_THREAD__ /* cannot start threads here: the program's own loop will do */
	require(ctxfd_dispatch_fd() >= 0);
#endif
	require(ctxfd_after_func(ctx, run, &own, NULL) == 0);
	ctxfd_close(ctx);
#ifdef __SANITIZE_THREAD__
	require(ctxfd_dispatch() == 1);
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
	fd = ctxfd_dispatch_fd();
	require(fd >= 0 && readable(fd));
	require(ctxfd_dispatch() == 1);
	require(inherited->note.runs == 1);
	return 0;
}

/* What the child inherited runs in the child once it has a dispatcher, and the parent hears nothing of it. */
static int a_forked_child_keeps_after_funcs(void *arg)
{
	struct inherited inherited = { .ctx = ctxfd_with_cancel(ctxfd_background()) };

	(void)arg;
	require(ctxfd_after_func(inherited.ctx, run, &inherited.note, NULL) == 0);
	wait_for_rest();
	require(in_child(cancel_in_child, &inherited) == 0);
	require(inherited.note.runs == 0 && ctxfd_err(inherited.ctx) == 0);
	ctxfd_close(inherited.ctx);
	wait_until(inherited.note.runs == 1);
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
IN_CHILD(thread_blocks_all_signals)
IN_CHILD(no_fds_is_an_error)
IN_CHILD(nothing_runs_but_in_dispatch)
IN_CHILD(taking_over_stops_the_thread)
IN_CHILD(taking_over_keeps_the_order)
IN_CHILD(not_from_inside_a_callback)
IN_CHILD(dispatch_returns)
IN_CHILD(in_an_epoll_loop)
IN_CHILD(a_forked_child_starts_its_own)
IN_CHILD(a_forked_child_keeps_after_funcs)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(thread_appears_with_first_use_),
		cmocka_unit_test(thread_blocks_all_signals_),
		cmocka_unit_test(no_fds_is_an_error_),
		cmocka_unit_test(nothing_runs_but_in_dispatch_),
		cmocka_unit_test(taking_over_stops_the_thread_),
		cmocka_unit_test(taking_over_keeps_the_order_),
		cmocka_unit_test(not_from_inside_a_callback_),
		cmocka_unit_test(dispatch_returns_),
		cmocka_unit_test(in_an_epoll_loop_),
		cmocka_unit_test(a_forked_child_starts_its_own_),
		cmocka_unit_test(a_forked_child_keeps_after_funcs_),
	};

	return run_all_cold(tests);
}
