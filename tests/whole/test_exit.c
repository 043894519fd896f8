/* SPDX-License-Identifier: MIT */
/*
 * exit ends the library's idle threads, and with them what the program's functions have left there: while what the
 * program made before is there still, and without waiting for long; and the library goes on for whoever needs it after
 * that. Each in a child, which is the first to make a thread.
 */
#include "harness.h"

enum where { IN_CALL, IN_AFTER_FUNC, WHERES };

static pthread_key_t left;
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static bool gone, found_gone;
static _Atomic bool ran, ended;
static pid_t tid;

static void leave_data(void *arg)
{
	(void)arg;
	require(pthread_setspecific(left, &left) == 0);
	tid = (pid_t)syscall(SYS_gettid);
	ran = true;
}

static int leave_data_in_call(void *arg)
{
	leave_data(arg);
	return 0;
}

/* On a thread of the library's, with a destructor that ends with it. */
static void leave_it(enum where where, void (*destroy)(void *data))
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_after *after = NULL;

	ran = ended = gone = found_gone = false;
	require(pthread_key_create(&left, destroy) == 0);
	if (where == IN_CALL) {
		require(ctxfd_call(ctx, leave_data_in_call, NULL, NULL, NULL) == 0);
	} else {
		require(ctxfd_after_func(ctx, leave_data, NULL, &after) == 0);
		ctxfd_cancel(ctx);
		wait_until(ran);
		require(!ctxfd_after_stop(after));
		tid_wait_asleep(tid);
	}
	ctxfd_close(ctx);
}

static void take_lock(void *data)
{
	(void)data;
	pthread_mutex_lock(&held);
	pthread_mutex_unlock(&held);
}

static int exit_with_lock(void *arg)
{
	leave_it(*(enum where *)arg, take_lock);
	pthread_mutex_lock(&held);
	exit(7);
}

/* What ends there waits for a lock that the exiting thread has. That thread does not wait for it. */
static void exit_does_not_hang(void **state)
{
	(void)state;
	for (enum where w = 0; w < WHERES; w++)
		assert_int_equal(in_child(exit_with_lock, &w), 7);
}

static void look_at_what_is_there(void *data)
{
	(void)data;
	found_gone = gone;
	ended = true;
}

/* As the destructor of a global of C++, which is registered before main. */
static void take_down(void)
{
	gone = true;
	save_counts();
	_exit(ended && !found_gone ? 7 : 1);
}

static int exit_with_globals(void *arg)
{
	require(atexit(take_down) == 0);
	leave_it(*(enum where *)arg, look_at_what_is_there);
	exit(1);
}

static void what_was_made_before_is_there(void **state)
{
	(void)state;
	for (enum where w = 0; w < WHERES; w++)
		assert_int_equal(in_child(exit_with_globals, &w), 7);
}

static enum where again;

static void leave_it_again(void)
{
	leave_it(again, look_at_what_is_there);
}

/* What exits may use the library once more: that thread ends, too. */
static int exit_and_call(void *arg)
{
	again = *(enum where *)arg;
	require(atexit(take_down) == 0 && atexit(leave_it_again) == 0);
	leave_it(again, look_at_what_is_there);
	exit(1);
}

static void a_thread_made_by_exit_ends_too(void **state)
{
	(void)state;
	for (enum where w = 0; w < WHERES; w++)
		assert_int_equal(in_child(exit_and_call, &w), 7);
}

static struct ctxfd *watching, *cleanup;
static int to_watch[2];

/* It comes after the end of the library's first thread, or while that is stuck, and nobody else can end these. */
static void wait_for_contexts(void)
{
	require(write(to_watch[1], "x", 1) == 1);
	require(ctxfd_wait(watching) == -ECANCELED);
	require(ctxfd_wait(cleanup) == -ETIMEDOUT);
	ended = true;
}

static void see_how_it_went(void)
{
	save_counts();
	_exit(ended ? 7 : 1);
}

static int exit_and_wait(void *arg)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
	bool *stuck = arg;

	require(atexit(see_how_it_went) == 0 && atexit(wait_for_contexts) == 0);
	make_pipe(to_watch);
	watching = ctxfd_with_fd(parent, to_watch[0], POLLIN, 0);
	cleanup = ctxfd_with_grace(watching, CTXFD_MSEC, 0);
	require(watching && cleanup);
	if (*stuck) {
		leave_it(IN_AFTER_FUNC, take_lock);
		pthread_mutex_lock(&held);
	}
	exit(1);
}

static void what_exits_may_wait_for_contexts(void **state)
{
	(void)state;
	for (int stuck = 0; stuck < 2; stuck++)
		assert_int_equal(in_child(exit_and_wait, &(bool){ stuck }), 7);
}

static struct thread *sleeper;

static void *sleep_under_it(void *ctx)
{
	ended = ctxfd_wait(ctx) == -ECANCELED;
	return NULL;
}

static void join_sleeper(void)
{
	require(ctxfd_err(ctxfd_background()) == 0);
	require(write(to_watch[1], "x", 1) == 1);
	thread_join(sleeper);
}

static int exit_and_join(void *arg)
{
	(void)arg;
	require(atexit(see_how_it_went) == 0 && atexit(join_sleeper) == 0);
	make_pipe(to_watch);
	watching = ctxfd_with_fd(ctxfd_background(), to_watch[0], POLLIN, 0);
	require(watching);
	sleeper = thread_start(sleep_under_it, watching);
	thread_wait_asleep(sleeper);
	exit(1);
}

/* What sleeps already does not make a thread start: the handler's look does. */
static void what_exits_may_join_who_sleeps(void **state)
{
	(void)state;
	assert_int_equal(in_child(exit_and_join, NULL), 7);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(exit_does_not_hang),
		cmocka_unit_test(what_was_made_before_is_there),
		cmocka_unit_test(a_thread_made_by_exit_ends_too),
		cmocka_unit_test(what_exits_may_wait_for_contexts),
		cmocka_unit_test(what_exits_may_join_who_sleeps),
	};
	return run_all_cold(tests);
}
