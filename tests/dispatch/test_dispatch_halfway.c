/* SPDX-License-Identifier: MIT */
/*
 * What others do while the dispatcher is in the middle of its work: free or stop what it is about to come to, exit,
 * close what it waits for. Each test in a child of its own.
 */
#include "stop.h"

/* ---- Freed before its event is come to --------------------------------------------------------------------------- */

/* Both are reported in one round. While one is fired the other is freed, and must not be fired. */
static int an_event_is_withdrawn(void *arg)
{
	struct ctxfd *ctx[2];
	struct thread *dispatcher;
	int pipes[2][2], fds, first;

	require(make_loop() >= 0);
	fds = count_fds();
	for (int i = 0; i < 2; i++) {
		make_pipe(pipes[i]);
		ctx[i] = watching(home, pipes[i][0], -1 - i);
		stop_at[i] = ctxfd_done_fd(ctx[i]);
	}
	for (int i = 0; i < 2; i++)
		require(write(pipes[i][1], "x", 1) == 1);
	dispatcher = thread_start(run_loop_once, NULL);
	wait_for(&there);
	first = ctxfd_err(ctx[0]) ? 0 : 1;
	require(ctxfd_err(ctx[!first]) == 0);
	ctxfd_unref(ctx[!first]);
	require(sem_post(&go) == 0);
	require((intptr_t)thread_join(dispatcher) == 1);
	require(ctxfd_cause(ctx[first]) == -1 - first);
	ctxfd_unref(ctx[first]);
	close_pair(pipes[0]);
	close_pair(pipes[1]);
	require(count_fds() == fds);
	return 0;
}

static void *give_up(void *ctx)
{
	ctxfd_unref(ctx);
	return NULL;
}

/* What is being fired is freed only after that, and its owner does not have to wait. */
static int a_source_is_not_freed_while_it_fires(void *arg)
{
	struct thread *dispatcher;
	struct ctxfd *ctx;
	int pipe[2];

	dispatcher = stop_as_it_fires(&ctx, pipe);
	thread_join(thread_start(give_up, ctx));
	require(live_allocations() == 3);
	require(sem_post(&go) == 0);
	require((intptr_t)thread_join(dispatcher) == 1);
	require(live_allocations() == 2); /* the loop, and the context that names it */
	free_loop();
	require(live_allocations() == 0);
	close_pair(pipe);
	return 0;
}

static void *cancel(void *ctx)
{
	ctxfd_cancel(ctx);
	return NULL;
}

static void *stop(void *handle)
{
	return ctxfd_after_stop(handle) ? handle : NULL;
}

/*
 * It was live when stop looked, and a cancel is about to come to it: stop waits for that, and then it is due, and
 * stopped.
 */
static int stop_meets_a_cancel(void *arg)
{
	struct thread *canceller, *stopper;
	struct ctxfd_after *handle;
	struct ctxfd *ctx, *child;
	struct note note = { 0 };

	require(make_loop() >= 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, count, &note, &handle) == 0);
	child = ctxfd_with_cancel(ctx);
	stop_at[0] = ctxfd_done_fd(child); /* a cancel comes to it first */
	canceller = thread_start(cancel, ctx);
	wait_for(&there);
	stopper = thread_start(stop, handle);
	thread_wait_asleep(stopper);
	require(sem_post(&go) == 0);
	require(thread_join(stopper) == handle);
	thread_join(canceller);
	require(run_loop() == 0 && note.runs == 0);
	ctxfd_unref(child);
	ctxfd_unref(ctx);
	free_loop();
	require(live_allocations() == 0);
	return 0;
}

/* ---- The library's thread and the end of things ------------------------------------------------------------------ */

static void end_the_program(void *arg)
{
	exit(7);
}

static int exits(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctxfd_after_func(ctx, end_the_program, NULL, NULL) == 0);
	ctxfd_close(ctx);
	for (;;)
		pause();
}

static int a_function_may_exit(void *arg)
{
	return in_child(exits, NULL) == 7 ? 0 : 1;
}

static int exits_meanwhile(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { 0 };

	require(ctxfd_after_func(ctx, stay, &note, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(note.runs == 1);
	exit(7);
}

/* A function that never returns keeps no program from its end. */
static int a_program_may_exit_while_one_runs(void *arg)
{
	return in_child(exits_meanwhile, NULL) == 7 ? 0 : 1;
}

static pthread_mutex_t held_at_exit = PTHREAD_MUTEX_INITIALIZER;

static void take_mutex(void *arg)
{
	pthread_mutex_lock(&held_at_exit);
	pthread_mutex_unlock(&held_at_exit);
}

static int exits_with_a_lock(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctxfd_after_func(ctx, take_mutex, NULL, NULL) == 0);
	pthread_mutex_lock(&held_at_exit);
	ctxfd_cancel(ctx);
	exit(7);
}

/* What came due at the last moment waits for the thread that exits, which must not wait for it. */
static int exit_does_not_wait_for_what_is_due(void *arg)
{
	for (int i = 0; i < rounds(30); i++)
		require(in_child(exits_with_a_lock, NULL) == 7);
	return 0;
}

static void close_everything(void *arg)
{
	for (int fd = STDERR_FILENO + 1; fd < 100; fd++)
		close(fd);
	((struct note *)arg)->runs++;
}

/* As daemons do. The thread has nothing to wait for any more, and ends; it must not run in circles. */
static int ends_without_its_descriptors(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note closed = { 0 };
	int threads = count_threads();

	require(ctxfd_after_func(ctx, close_everything, &closed, NULL) == 0);
	require(count_threads() == threads + 1);
	ctxfd_close(ctx);
	wait_until(closed.runs); /* before any is opened again */
	wait_until(count_threads() == threads);
	return 0;
}

IN_CHILD(an_event_is_withdrawn)
IN_CHILD(a_source_is_not_freed_while_it_fires)
IN_CHILD(stop_meets_a_cancel)
IN_CHILD(a_function_may_exit)
IN_CHILD(a_program_may_exit_while_one_runs)
IN_CHILD(exit_does_not_wait_for_what_is_due)
IN_CHILD_IF(need_no_sanitizer(), ends_without_its_descriptors)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_is_withdrawn_),
		cmocka_unit_test(a_source_is_not_freed_while_it_fires_),
		cmocka_unit_test(stop_meets_a_cancel_),
		cmocka_unit_test(a_function_may_exit_),
		cmocka_unit_test(a_program_may_exit_while_one_runs_),
		cmocka_unit_test(exit_does_not_wait_for_what_is_due_),
		cmocka_unit_test(ends_without_its_descriptors_),
	};

	make_stop();
	return run_all_cold(tests);
}
