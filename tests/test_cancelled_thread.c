/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel takes no thread away with a lock, a hold, an fd or memory of the library in hand: with a cancellation
 * pending, every call does its work to the end, but for those that wait on the caller's fds, which have nothing in
 * hand.
 */
#include "harness.h"

static void nothing(void *arg)
{
	(void)arg;
}

static void *use_everything(void *arg)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *timed = ctxfd_with_timeout(parent, 20 * CTXFD_MSEC), *watching;
	struct ctxfd_after *after;
	int *pipes = arg;

	pthread_cancel(pthread_self());
	require(ctxfd_done_fd(parent) >= 0 && ctxfd_done_fd(timed) >= 0);
	require(ctxfd_after_func(timed, nothing, NULL, &after) == 0);
	watching = ctxfd_with_fd(parent, pipes[0], POLLIN, -1);
	require(watching);
	require(ctxfd_wait(timed) == -ETIMEDOUT);
	require(ctxfd_sleep(parent, CTXFD_MSEC) == 0);
	ctxfd_cancel(parent);
	require(ctxfd_wait(watching) == -ECANCELED);
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

struct reading {
	struct ctxfd *ctx;
	int fd;
};

static void *read_for_ever(void *arg)
{
	struct reading *r = arg;
	char byte;

	ctxfd_read(r->ctx, r->fd, &byte, 1);
	return NULL;
}

static void a_waiting_thread_can_be_cancelled(void **state)
{
	struct reading r = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	struct thread *thread;
	int pipes[2];

	(void)state;
	make_pipe(pipes);
	r.fd = pipes[0];
	thread = thread_start(read_for_ever, &r);
	thread_wait_asleep(thread);
	assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
	assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	ctxfd_close(r.ctx);
	close_pair(pipes);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cancelled_thread_leaves_nothing_behind),
		cmocka_unit_test(a_waiting_thread_can_be_cancelled),
	};

	start_dispatcher();
	return run_all(tests);
}
