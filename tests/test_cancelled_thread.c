/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel takes no thread away inside the library: with a cancellation pending, every call does its work to the end,
 * and leaves no lock, hold, fd or memory behind. The thread goes at the program's own next cancellation point.
 */
#include "harness.h"

static void nothing(void *arg)
{
	(void)arg;
}

static void *use_everything(void *arg)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *timed = ctxfd_with_timeout(parent, 50 * CTXFD_MSEC), *watching;
	struct ctxfd_after *after;
	int *pipes = arg;
	char byte;

	pthread_cancel(pthread_self());
	require(ctxfd_done_fd(parent) >= 0 && ctxfd_done_fd(timed) >= 0);
	require(ctxfd_after_func(timed, nothing, NULL, &after) == 0);
	watching = ctxfd_with_fd(parent, pipes[0], POLLIN, -1);
	require(watching);
	require(ctxfd_read(timed, pipes[0], &byte, 1) == -ETIMEDOUT);
	require(ctxfd_poll(timed, NULL, 0, 0) == -ETIMEDOUT);
	require(ctxfd_write(parent, pipes[1], "x", 1) == 1);
	require(ctxfd_wait(watching) == -ECANCELED);
	ctxfd_cancel(parent);
	ctxfd_after_stop(after);
	ctxfd_close(watching);
	ctxfd_close(timed);
	ctxfd_close(parent);
	pthread_testcancel();
	return NULL;
}

static void a_cancelled_thread_leaves_nothing_behind(void **state)
{
	struct thread *thread;
	int pipes[2];

	(void)state;
	make_pipe(pipes);
	thread = thread_start(use_everything, pipes);
	assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	close_pair(pipes);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cancelled_thread_leaves_nothing_behind),
	};

	start_dispatcher();
	return run_all(tests);
}
