/* SPDX-License-Identifier: MIT */
/*
 * What a waiting call leaves in its context's child list, and the fd by which a cancel wakes it: one for each thread,
 * whatever contexts it waits under, and none when there is none to be had.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "harness.h"

/* Waits itself: the waiter is free by then. */
static void count_freed(void *value)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctxfd_poll(ctx, NULL, 0, 1) == 0);
	ctxfd_close(ctx);
	*(int *)value += 1;
}

/* A context that counts in *freed when it is freed. */
static struct ctxfd *counted(int *freed)
{
	static const char key;
	const struct ctxfd *value = ctxfd_with_value(ctxfd_background(), &key, freed, count_freed);
	struct ctxfd *ctx = ctxfd_with_cancel(value);

	require(value && ctx);
	ctxfd_unref(value);
	return ctx;
}

/* ---- One for each thread ----------------------------------------------------------------------------------------- */

static void *wait_under_many(void *arg)
{
	int pipe[2], before;
	char byte;

	(void)arg;
	make_pipe(pipe);
	before = count_fds();
	for (int i = 0; i < 100; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd *timed = ctxfd_with_timeout(ctx, 100 * CTXFD_USEC);

		require(ctxfd_read(timed, pipe[0], &byte, 1) == -ETIMEDOUT);
		require(ctxfd_poll(ctx, NULL, 0, 1) == 0); /* timed may have been done before it waited */
		ctxfd_close(timed);
		ctxfd_close(ctx);
	}
	require(count_fds() == before + 1);
	close_pair(pipe);
	return NULL;
}

static void a_thread_has_one_waker(void **state)
{
	int before = count_fds();

	(void)state;
	thread_join(thread_start(wait_under_many, NULL));
	assert_int_equal(count_fds(), before);
}

struct wait {
	const struct ctxfd *ctx;
	int fd;
	ssize_t result;
	_Atomic bool begins;
};

static void *read_and_take_urgent(void *arg)
{
	struct wait *w = arg;
	struct pollfd p = { .fd = w->fd, .events = POLLPRI };
	char byte;

	require(ctxfd_read(w->ctx, w->fd, &byte, 1) == 1);
	require(poll(&p, 1, -1) == 1);
	require(ctxfd_recv(w->ctx, w->fd, &byte, 1, MSG_OOB) == 1 && byte == '!');
	return NULL;
}

/* That a read of a socket waited says nothing about its urgent data. */
static void urgent_data_is_not_waited_for(void **state)
{
	struct wait w = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	struct thread *thread;
	int pair[2];

	(void)state;
	make_connection(pair);
	w.fd = pair[0];
	thread = thread_start(read_and_take_urgent, &w);
	thread_wait_asleep(thread);
	assert_int_equal(send(pair[1], "x", 1, 0), 1);
	assert_int_equal(send(pair[1], "!", 1, MSG_OOB), 1);
	thread_join(thread);
	close_pair(pair);
	ctxfd_unref(w.ctx);
}

static void *read_one(void *arg)
{
	struct wait *w = arg;
	char byte;

	w->begins = true;
	w->result = ctxfd_read(w->ctx, w->fd, &byte, 1);
	return NULL;
}

/* Is woken, and waits once more with the same waker. */
static void *read_twice(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct pollfd p = { .fd = ((struct wait *)arg)->fd, .events = POLLIN };
	int before;
	int64_t start;

	make_waiter();
	before = count_fds();
	read_one(arg);
	start = now();
	require(ctxfd_poll(ctx, &p, 1, CTXFD_MSEC) == 0);
	require(now() - start >= CTXFD_MSEC);
	require(count_fds() == before);
	ctxfd_close(ctx);
	return NULL;
}

/* Each wait is woken by its own context's end, and what woke one does not wake the next. */
static void a_wake_is_for_one_wait(void **state)
{
	int pipe[2];

	(void)state;
	make_pipe(pipe);
	for (int i = 0; i < rounds(100); i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct wait w = { .ctx = ctx, .fd = pipe[0] };
		struct thread *thread = thread_start(read_twice, &w);

		if (i % 2) {
			wait_until(w.begins); /* it has counted: to look whether it sleeps takes fds */
			thread_wait_asleep(thread);
		}
		ctxfd_cancel(ctx);
		thread_join(thread);
		assert_int_equal(w.result, -ECANCELED);
		ctxfd_close(ctx);
	}
	close_pair(pipe);
}

static void *cancel_others(void *arg)
{
	struct ctxfd *(*slot)[2] = arg;

	for (int i = 0; i < 2; i++)
		ctxfd_cancel((*slot)[i]);
	return NULL;
}

/* A cancel that meets the call where it begins, sleeps or ends: nothing is lost, and nothing is left for the next. */
static void cancels_meet_waits_anywhere(void **state)
{
	int ready[2], empty[2];
	char byte;

	(void)state;
	make_pipe(ready);
	make_pipe(empty);
	for (int i = 0; i < rounds(2000); i++) {
		struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd *slot[] = { ctxfd_with_cancel(root), root };
		struct thread *thread = thread_start(cancel_others, &slot);
		struct pollfd p[] = { { .fd = empty[0], .events = POLLIN }, { .fd = ready[0], .events = POLLIN } };
		int n;

		assert_int_equal(write(ready[1], "x", 1), 1);
		n = ctxfd_poll(slot[0], p, 2, -1);
		assert_true(n == 1 || n == -ECANCELED);
		assert_int_equal(ctxfd_read(root, empty[0], &byte, 1), -ECANCELED);
		assert_int_equal(read(ready[0], &byte, 1), 1);
		thread_join(thread);
		ctxfd_close(slot[0]);
		ctxfd_close(root);
	}
	close_pair(ready);
	close_pair(empty);
}

/* ---- Polling first ----------------------------------------------------------------------------------------------- */

static void *answer(void *arg)
{
	int *fds = arg;
	char byte;

	for (int i = 0; i < 20; i++)
		require(read(fds[0], &byte, 1) == 1 && write(fds[1], "x", 1) == 1);
	return NULL;
}

/* The thread comes to expect that it must wait for fd. */
static void wait_often(const struct ctxfd *ctx, int fd, int others[2], int ask)
{
	struct thread *thread = thread_start(answer, others);
	char byte;

	for (int i = 0; i < 20; i++) {
		assert_int_equal(ctxfd_write(ctx, ask, "x", 1), 1);
		assert_int_equal(ctxfd_read(ctx, fd, &byte, 1), 1);
	}
	thread_join(thread);
}

/* It need not wait any more; and what has the number then never polls ready, but fails at once when it is asked. */
static void what_was_expected_of_a_number_does_not_last(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct sockaddr_in addr;
	int ask[2], reply[2], listener;
	char byte;

	(void)state;
	make_socketpair(ask);
	make_socketpair(reply);
	for (int round = 0; round < 8; round++) {
		wait_often(ctx, reply[0], (int[]){ ask[1], reply[1] }, ask[0]);
		assert_int_equal(write(reply[1], "abc", 3), 3);
		for (int i = 0; i < 3; i++)
			assert_int_equal(ctxfd_read(ctx, reply[0], &byte, 1), 1);
	}
	close(reply[0]);
	listener = make_listener(&addr);
	assert_int_equal(listener, reply[0]);
	for (int i = 0; i < 9; i++)
		assert_int_equal(ctxfd_recv(ctx, listener, &byte, 1, 0), -ENOTCONN);
	close(listener);
	close(reply[1]);
	close_pair(ask);
	ctxfd_close(ctx);
}

/* A call that need not wait gives its result, even if its context ends while it is expected to wait. */
static void what_was_expected_hides_no_result(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct sockaddr_in addr;
	int ask[2], reply[2], listener;

	(void)state;
	make_socketpair(ask);
	make_socketpair(reply);
	wait_often(ctx, reply[0], (int[]){ ask[1], reply[1] }, ask[0]);
	close(reply[0]);
	listener = make_listener(&addr); /* it never polls ready, and fails at once */
	assert_int_equal(listener, reply[0]);
	for (int in_a_row = 0; in_a_row < 7; in_a_row++) {
		struct ctxfd *timed = ctxfd_with_timeout(ctx, 2 * CTXFD_MSEC);
		char byte;
		ssize_t n = ctxfd_recv(timed, listener, &byte, 1, 0);

		if (n == -ETIMEDOUT) /* it was done before the call: this thread did not run */
			in_a_row = -1;
		else
			assert_int_equal(n, -ENOTCONN);
		ctxfd_close(timed);
	}
	close(listener);
	close(reply[1]);
	close_pair(ask);
	ctxfd_close(ctx);
}

static void *answer_the_sleeper(void *fd)
{
	tid_wait_asleep(getpid());
	require(write(*(int *)fd, "x", 1) == 1);
	return NULL;
}

/*
 * A call that is expected to wait is no later at its deadline for that. Most of many are not: a busy machine may delay
 * one, and one in eight tries first.
 */
static void what_was_expected_outlasts_no_deadline(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	int pair[2], late = 0;

	(void)state;
	make_socketpair(pair);
	for (int round = 0; round < 20; round++) {
		struct thread *thread = thread_start(answer_the_sleeper, &pair[1]);
		struct ctxfd *timed;
		int64_t at;
		char byte;

		assert_int_equal(ctxfd_recv(ctx, pair[0], &byte, 1, 0), 1);
		thread_join(thread);
		at = ctxfd_now() + CTXFD_MSEC;
		timed = ctxfd_with_deadline(ctx, at);
		assert_int_equal(ctxfd_recv(timed, pair[0], &byte, 1, 0), -ETIMEDOUT);
		late += ctxfd_now() - at > 90 * CTXFD_MSEC;
		ctxfd_close(timed);
	}
	assert_true(late < 10);
	close_pair(pair);
	ctxfd_close(ctx);
}

/* After a long wait the next calls try first: they are not held up by what never polls ready, but for one in eight. */
static void a_long_wait_is_not_expected_to_be_brief(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *timed;
	int pair[2], listener, late = 0;
	struct sockaddr_in addr;
	struct thread *thread;
	char byte;

	(void)state;
	make_socketpair(pair);
	thread = thread_start(answer_the_sleeper, &pair[1]);
	assert_int_equal(ctxfd_recv(ctx, pair[0], &byte, 1, 0), 1);
	thread_join(thread);
	timed = ctxfd_with_timeout(ctx, CTXFD_SEC / 4 * slow());
	assert_int_equal(ctxfd_recv(timed, pair[0], &byte, 1, 0), -ETIMEDOUT);
	close(pair[0]);
	listener = make_listener(&addr); /* it never polls ready, and fails at once */
	assert_int_equal(listener, pair[0]);
	for (int i = 0; i < 7; i++) {
		int64_t start = now();

		assert_int_equal(ctxfd_recv(ctx, listener, &byte, 1, 0), -ENOTCONN);
		late += now() - start > 90 * CTXFD_MSEC;
	}
	assert_true(late < 4);
	close(listener);
	close(pair[1]);
	ctxfd_close(timed);
	ctxfd_close(ctx);
}

/* Once the main thread waits. */
static void *read_all(void *arg)
{
	int fd = *(int *)arg;
	char bytes[4096];

	tid_wait_asleep(getpid());
	while (readable(fd))
		require(read(fd, bytes, sizeof bytes) > 0);
	return NULL;
}

/*
 * A thread that had to wait to write does not wait where there is room, though the socket does not poll writable before
 * it is three quarters empty. A thread that sleeps gives up its CPU of its own accord, which the kernel counts.
 */
static void who_waited_to_write_need_not_wait_again(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct rusage before, after;
	struct thread *reader;
	char bytes[4096];
	size_t size;
	int pair[2];

	(void)state;
	make_socketpair(pair);
	for (int i = 0; i < 3; i++) {
		fill(pair[1]);
		reader = thread_start(read_all, &pair[0]);
		assert_int_equal(ctxfd_write(ctx, pair[1], "x", 1), 1);
		thread_join(reader);
	}
	for (size = fill(pair[1]) / 3; size > sizeof bytes; size -= sizeof bytes)
		assert_true(read(pair[0], bytes, sizeof bytes) > 0);
	assert_int_equal(getrusage(RUSAGE_THREAD, &before), 0);
	for (int i = 0; i < 7; i++)
		assert_int_equal(ctxfd_write(ctx, pair[1], "x", 1), 1);
	assert_int_equal(getrusage(RUSAGE_THREAD, &after), 0);
	assert_true(after.ru_nvcsw - before.ru_nvcsw < 5);
	close_pair(pair);
	ctxfd_close(ctx);
}

/* ---- Without an fd ----------------------------------------------------------------------------------------------- */

static void *wait_without(void *arg)
{
	struct wait *w = arg;
	int64_t start = now();
	struct ctxfd *timed = ctxfd_with_timeout(w->ctx, 5 * CTXFD_MSEC);
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	char byte;

	require(ctxfd_read(timed, w->fd, &byte, 1) == -ETIMEDOUT);
	require(now() - start >= 5 * CTXFD_MSEC);
	ctxfd_close(timed);
	start = now();
	require(ctxfd_poll(w->ctx, &p, 1, 3 * CTXFD_MSEC) == 0);
	require(ctxfd_poll(w->ctx, NULL, 0, 3 * CTXFD_MSEC) == 0);
	require(now() - start >= 6 * CTXFD_MSEC);
	return read_one(arg);
}

static void wait_without_fds(void *(*fn)(void *arg), int n)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct thread *threads[3];
	struct wait w[3];
	int pipe[2];

	make_pipe(pipe);
	exhaust_fds();
	for (int i = 0; i < n; i++) {
		w[i] = (struct wait){ .ctx = ctx, .fd = pipe[0] };
		threads[i] = thread_start(fn, &w[i]);
	}
	for (int i = 0; i < n; i++)
		wait_until(w[i].begins);
	ctxfd_cancel(ctx);
	for (int i = 0; i < n; i++) {
		thread_join(threads[i]);
		assert_int_equal(w[i].result, -ECANCELED);
	}
	free_fds();
	close_pair(pipe);
	ctxfd_close(ctx);
}

static void without_a_free_number_it_waits_all_the_same(void **state)
{
	(void)state;
	wait_without_fds(wait_without, 3);
}

/* The first allocation of a new thread is its waiter. */
static void without_memory_it_waits_all_the_same(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct wait w = { .ctx = ctx };
	struct thread *thread;
	int pipe[2];

	(void)state;
	make_pipe(pipe);
	w.fd = pipe[0];
	fail_allocation(1);
	thread = thread_start(read_one, &w);
	wait_until(allocation_failed());
	ctxfd_cancel(ctx);
	thread_join(thread);
	assert_int_equal(w.result, -ECANCELED);
	close_pair(pipe);
	ctxfd_close(ctx);
}

/* ---- Calls that do not return ------------------------------------------------------------------------------------ */

struct owner {
	struct ctxfd *ctx;
	int *freed, done, pipe[2], freed_by_handler;
	bool reads;
};

/* The program's own cleanup handler has the last reference. */
static void give_up(void *arg)
{
	struct owner *o = arg;

	ctxfd_close(o->ctx);
	o->freed_by_handler = *o->freed;
	require(fcntl(o->done, F_GETFD) < 0);
}

static void *wait_as_owner(void *arg)
{
	struct owner *o = arg;
	char byte;

	pthread_cleanup_push(give_up, o);
	if (o->reads)
		ctxfd_read(o->ctx, o->pipe[0], &byte, 1);
	else
		ctxfd_poll(o->ctx, NULL, 0, -1);
	pthread_cleanup_pop(true);
	return NULL;
}

/* Nothing of the call is left when a cleanup handler runs: what that gives up is freed there, with its done fd. */
static void a_cancelled_call_keeps_nothing(void **state)
{
	(void)state;
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer sees no order in what a thread does after it was cancelled in a call");
#endif
	for (int reads = 0; reads < 2; reads++) {
		int freed = 0;
		struct owner o = { .ctx = counted(&freed), .freed = &freed, .reads = reads };
		struct thread *thread;

		make_pipe(o.pipe);
		o.done = ctxfd_done_fd(o.ctx);
		thread = thread_start(wait_as_owner, &o);
		thread_wait_asleep_in(thread, SYS_ppoll);
		assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
		assert_int_equal(o.freed_by_handler, 1);
		assert_int_equal(freed, 1);
		close_pair(o.pipe);
	}
}

static _Thread_local sigjmp_buf out;

static void jump(int signal)
{
	(void)signal;
	siglongjmp(out, 1);
}

static int wait_in_child(void *other)
{
	struct pollfd none = { .fd = -1 };

	return ctxfd_poll(other, &none, 1, CTXFD_MSEC);
}

static void *leave_by_jump(void *arg)
{
	struct wait *w = arg;
	struct ctxfd *other = ctxfd_with_cancel(ctxfd_background());
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	char byte;

	if (!sigsetjmp(out, 1)) {
		w->begins = true;
		ctxfd_read(w->ctx, w->fd, &byte, 1);
		require(false);
	}
	w->begins = false;
	wait_until(w->begins); /* the context has been closed */
	if (w->result) {       /* with another wait, or as the thread ends */
		require(in_child(wait_in_child, (void *)(uintptr_t)other) == 0);
		require(ctxfd_poll(other, &p, 1, CTXFD_MSEC) == 0);
	}
	w->begins = false;
	wait_until(w->begins);
	ctxfd_close(other);
	return NULL;
}

static void a_call_may_be_left_by_siglongjmp(void **state)
{
	struct sigaction action = { .sa_handler = jump }, was;
	int pipe[2];

	(void)state;
	make_pipe(pipe);
	assert_int_equal(sigaction(SIGUSR1, &action, &was), 0);
	for (int waits_again = 0; waits_again < 2; waits_again++) {
		int freed = 0;
		struct ctxfd *ctx = counted(&freed);
		struct wait w = { .ctx = ctx, .fd = pipe[0], .result = waits_again };
		struct thread *thread = thread_start(leave_by_jump, &w);

		wait_until(w.begins);
		thread_wait_asleep_in(thread, SYS_ppoll);
		pthread_kill(thread_pthread(thread), SIGUSR1);
		wait_until(!w.begins);
		ctxfd_close(ctx); /* a walk meets what the call has left */
		w.begins = true;
		wait_until(!w.begins);
		assert_int_equal(freed, waits_again);
		w.begins = true;
		thread_join(thread);
		assert_int_equal(freed, 1);
	}
	assert_int_equal(sigaction(SIGUSR1, &was, NULL), 0);
	close_pair(pipe);
}

static void a_cancelled_thread_gives_its_context_up(void **state)
{
	int pipe[2];

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer sees no order in what a thread does after it was cancelled in a call");
#endif
	(void)state;
	make_pipe(pipe);
	for (int i = 0; i < rounds(50); i++) {
		int freed = 0;
		struct ctxfd *ctx = counted(&freed);
		struct wait w = { .ctx = ctx, .fd = pipe[0] };
		struct thread *thread = thread_start(read_one, &w);

		wait_until(w.begins);
		thread_wait_asleep(thread);
		pthread_cancel(thread_pthread(thread));
		if (i % 2) /* which may wake it before the cancellation acts */
			ctxfd_cancel(ctx);
		thread_join(thread);
		assert_int_equal(freed, 0);
		ctxfd_close(ctx);
		assert_int_equal(freed, 1);
	}
	close_pair(pipe);
}

static pthread_key_t waits_as_it_ends;

/* In each of the rounds that a thread's end has. */
static void wait_once_more(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC / 10);

	require(ctxfd_poll(ctx, NULL, 0, -1) == -ETIMEDOUT);
	ctxfd_close(ctx);
	require(pthread_setspecific(waits_as_it_ends, arg) == 0);
}

static void *set_destructor(void *arg)
{
	make_waiter();
	require(pthread_setspecific(waits_as_it_ends, arg) == 0);
	return NULL;
}

static void destructors_may_wait(void **state)
{
	int before = count_fds();

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer knows the thread no longer in the last round");
#endif
	(void)state;
	assert_int_equal(pthread_key_create(&waits_as_it_ends, wait_once_more), 0);
	for (int i = 0; i < 3; i++)
		thread_join(thread_start(set_destructor, &before));
	assert_int_equal(pthread_key_delete(waits_as_it_ends), 0);
	assert_int_equal(count_fds(), before);
}

/* ---- Others who touch the waker ---------------------------------------------------------------------------------- */

static int waker_of_this_thread(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	int probe = dup(0), fds = count_fds();

	/* In a thread that has not waited yet: the lowest free number. */
	require(probe >= 0 && close(probe) == 0);
	require(ctxfd_poll(ctx, NULL, 0, 1) == 0);
	require(count_fds() == fds);
	ctxfd_close(ctx);
	return probe;
}

static void *lose_the_waker(void *arg)
{
	int *kind = arg, fd = waker_of_this_thread(), before = count_fds(), pipe[2];
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	char bytes[16];

	require(close(fd) == 0);
	make_pipe(pipe); /* its end to read from has the number now */
	require(pipe[0] == fd);
	if (*kind == 1)
		require(write(pipe[1], "full", 4) == 4);
	if (*kind == 2)
		close_pair(pipe);
	/* The first one notices it, and there is another in the second one, however little time it is given. */
	require(ctxfd_poll(ctx, NULL, 0, CTXFD_MSEC) == 0);
	require(ctxfd_poll(ctx, NULL, 0, CTXFD_MSEC) == 0);
	if (*kind)
		require(count_fds() == before + (*kind == 1 ? 2 : 0));
	if (*kind == 1)
		require(read(pipe[0], bytes, sizeof bytes) == 4);
	if (*kind != 2)
		close_pair(pipe);
	ctxfd_close(ctx);
	return NULL;
}

/* Not touched: a stranger's number, whether it is closed, ready, or not. */
static void a_lost_waker_is_not_touched(void **state)
{
	(void)state;
	for (int kind = 0; kind < 3; kind++)
		thread_join(thread_start(lose_the_waker, &kind));
}

struct stranger {
	struct ctxfd *ctx;
	int fd, pair[2];
	_Atomic bool stands, looked;
};

static void *wait_with_a_stranger(void *arg)
{
	struct stranger *s = arg;
	struct ctxfd *timed = ctxfd_with_timeout(s->ctx, CTXFD_SEC / 4);

	s->fd = waker_of_this_thread();
	require(close(s->fd) == 0);
	make_socketpair(s->pair);
	require(s->pair[0] == s->fd);
	s->stands = true;
	require(ctxfd_poll(timed, NULL, 0, -1) < 0);
	ctxfd_close(timed);
	wait_until(s->looked);
	close_pair(s->pair);
	return NULL;
}

/* A cancel writes nothing into what has the waker's number now. */
static void a_stranger_gets_no_bytes(void **state)
{
	struct stranger s = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	struct thread *thread = thread_start(wait_with_a_stranger, &s);

	(void)state;
	wait_until(s.stands);
	thread_wait_asleep(thread);
	ctxfd_cancel(s.ctx);
	assert_not_readable(s.pair[1]);
	s.looked = true;
	thread_join(thread);
	ctxfd_close(s.ctx);
}

static void *expect_without_the_waker(void *arg)
{
	struct stranger *s = arg;
	int *pair = s->pair, fd = waker_of_this_thread(), pipe[2];
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	char byte;

	s->stands = true;
	require(ctxfd_recv(ctx, pair[0], &byte, 1, 0) == 1); /* waits, and so expects to wait again */
	require(close(fd) == 0);
	make_pipe(pipe); /* its end to read from has the number now, and is ready */
	require(pipe[0] == fd && write(pipe[1], "x", 1) == 1 && write(pair[1], "xyz", 3) == 3);
	require(ctxfd_recv(ctx, pair[0], &byte, 1, 0) == 1);
	exhaust_fds(); /* there is none for another waker */
	require(ctxfd_recv(ctx, pair[0], &byte, 1, 0) == 1);
	free_fds();
	require(ctxfd_recv(ctxfd_background(), pair[0], &byte, 1, 0) == 1);
	require(readable(pipe[0]));
	close_pair(pipe);
	ctxfd_close(ctx);
	return NULL;
}

static void what_was_expected_needs_no_waker(void **state)
{
	struct stranger s = { .stands = false };
	struct thread *thread;

	(void)state;
	make_socketpair(s.pair);
	thread = thread_start(expect_without_the_waker, &s);
	wait_until(s.stands); /* to look whether it sleeps takes fds, which would be among its numbers */
	thread_wait_asleep(thread);
	assert_int_equal(write(s.pair[1], "x", 1), 1);
	thread_join(thread);
	close_pair(s.pair);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

static int cancel_in_child(void *arg)
{
	struct wait *w = arg;
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC);
	char byte;

	/* The context in which the parent's other thread waits, and a wait of our own. */
	ctxfd_cancel((struct ctxfd *)(uintptr_t)w->ctx);
	require(ctxfd_read(ctx, w->fd, &byte, 1) == -ETIMEDOUT);
	ctxfd_close(ctx);
	return 0;
}

static void a_child_wakes_nobody_in_its_parent(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct wait w = { .ctx = ctx };
	struct thread *thread;
	int pipe[2];

	(void)state;
	make_pipe(pipe);
	w.fd = pipe[0];
	thread = thread_start(read_one, &w);
	wait_until(w.begins);
	thread_wait_asleep(thread);
	assert_int_equal(in_child(cancel_in_child, &w), 0);
	assert_int_equal(write(pipe[1], "x", 1), 1);
	thread_join(thread);
	assert_int_equal(w.result, 1);
	close_pair(pipe);
	ctxfd_close(ctx);
}

static struct {
	struct ctxfd *ctx;
	pid_t waits; /* a thread */
	volatile pid_t child;
	volatile bool is_child;
	int status;
} forked;

static void *cancel_once_it_sleeps(void *arg)
{
	(void)arg;
	tid_wait_asleep(forked.waits);
	ctxfd_cancel(forked.ctx);
	return NULL;
}

static void fork_and_cancel(int signal)
{
	pthread_t thread;

	(void)signal;
	forked.child = fork();
	if (forked.child != 0)
		return;
	forked.is_child = true;
	forked.waits = (pid_t)syscall(SYS_gettid);
	alarm(60);
	require(pthread_create(&thread, NULL, cancel_once_it_sleeps, NULL) == 0);
}

static void *interrupt_by_a_fork(void *arg)
{
	tid_wait_asleep(forked.waits);
	require(pthread_kill(*(pthread_t *)arg, SIGUSR1) == 0);
	wait_until(forked.child > 0);
	require(waitpid(forked.child, &forked.status, 0) == forked.child);
	ctxfd_cancel(forked.ctx);
	return NULL;
}

/* The child goes on in the wait, and its cancels reach it there. */
static void a_wait_goes_on_in_a_child_that_a_handler_forks(void **state)
{
	struct sigaction action = { .sa_handler = fork_and_cancel }, before;
	struct thread *thread;
	pthread_t self = pthread_self();
	int err;

#ifdef __SANITIZE_THREAD__
	skip_test("the sanitizer does not follow threads that a forked child starts");
#endif
	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind would report how the child ends");
	forked.ctx = ctxfd_with_cancel(ctxfd_background());
	forked.waits = (pid_t)syscall(SYS_gettid);
	assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
	thread = thread_start(interrupt_by_a_fork, &self);
	err = ctxfd_poll(forked.ctx, NULL, 0, -1);
	if (forked.is_child)
		_exit(err == -ECANCELED ? 0 : 1);
	assert_int_equal(err, -ECANCELED);
	thread_join(thread);
	assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
	ctxfd_close(forked.ctx);
	assert_true(WIFEXITED(forked.status) && WEXITSTATUS(forked.status) == 0);
}

static pthread_key_t later; /* than the library's: it has its turn after that */

static void require_open(void *arg)
{
	require(fcntl(*(int *)arg, F_GETFD) >= 0);
}

static int end_with_a_stranger(void *arg)
{
	int *waker = arg;

	require(close(*waker) == 0 && dup(0) == *waker);
	require(pthread_key_create(&later, require_open) == 0 && pthread_setspecific(later, waker) == 0);
	pthread_exit(NULL); /* the only thread: the process ends with 0 */
}

static void *fork_with_a_waker(void *arg)
{
	static int waker; /* not on a stack that pthread_exit leaves */

	waker = waker_of_this_thread();

	require(in_child(end_with_a_stranger, &waker) == 0);
	return NULL;
}

static void a_child_does_not_close_what_has_the_wakers_number(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip_test("the sanitizer would report how the child ends");
#endif
	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind would report how the child ends");
	thread_join(thread_start(fork_with_a_waker, NULL));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_has_one_waker),
		cmocka_unit_test(a_wake_is_for_one_wait),
		cmocka_unit_test(urgent_data_is_not_waited_for),
		cmocka_unit_test(cancels_meet_waits_anywhere),
		cmocka_unit_test(what_was_expected_of_a_number_does_not_last),
		cmocka_unit_test(what_was_expected_hides_no_result),
		cmocka_unit_test(what_was_expected_outlasts_no_deadline),
		cmocka_unit_test(a_long_wait_is_not_expected_to_be_brief),
		cmocka_unit_test(who_waited_to_write_need_not_wait_again),
		cmocka_unit_test(without_a_free_number_it_waits_all_the_same),
		cmocka_unit_test(without_memory_it_waits_all_the_same),
		cmocka_unit_test(a_cancelled_call_keeps_nothing),
		cmocka_unit_test(a_call_may_be_left_by_siglongjmp),
		cmocka_unit_test(a_cancelled_thread_gives_its_context_up),
		cmocka_unit_test(destructors_may_wait),
		cmocka_unit_test(a_lost_waker_is_not_touched),
		cmocka_unit_test(a_stranger_gets_no_bytes),
		cmocka_unit_test(what_was_expected_needs_no_waker),
		cmocka_unit_test(a_child_wakes_nobody_in_its_parent),
		cmocka_unit_test(a_wait_goes_on_in_a_child_that_a_handler_forks),
		cmocka_unit_test(a_child_does_not_close_what_has_the_wakers_number),
	};
	return run_all(tests);
}
