/* SPDX-License-Identifier: MIT */
/*
 * From a cancel, or a deadline, to the waiter's running again: waiters in poll, epoll_wait, io_uring and ctxfd_wait.
 * The floor is the same waiter on a bare eventfd, timerfd or futex. Every event has a new context or descriptor.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"
#include "ctxfd.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

struct event {
	struct ctxfd *ctx; /* the library's; NULL on the floor */
	int fd;
	atomic_uint word; /* the floor's futex */
	int64_t deadline; /* 0: none */
};

struct kind {
	void (*setup)(void);
	void (*wait)(void *event);
	void (*teardown)(void);
	bool no_fd;
};

static int set; /* of the one process that a row is: its epoll set, or its ring */

static struct timespec timespec(int64_t ns)
{
	return (struct timespec){ ns / CTXFD_SEC, ns % CTXFD_SEC };
}

/* ---- Waiters ----------------------------------------------------------------------------------------------------- */

static void nothing(void)
{
}

static void wait_poll(void *arg)
{
	struct pollfd p = { .fd = ((struct event *)arg)->fd, .events = POLLIN };

	bench_check(poll(&p, 1, -1) == 1 && p.revents == POLLIN);
}

static void epoll_setup(void)
{
	set = epoll_create1(EPOLL_CLOEXEC);
	bench_check(set >= 0);
}

static void wait_epoll(void *arg)
{
	struct event *e = arg;
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = e };

	bench_check(epoll_ctl(set, EPOLL_CTL_ADD, e->fd, &ev) == 0);
	bench_check(epoll_wait(set, &ev, 1, -1) == 1 && ev.data.ptr == e);
}

static void epoll_teardown(void)
{
	close(set);
}

static void wait_futex(void *arg)
{
	struct event *e = arg;

	if (e->ctx) {
		bench_check(ctxfd_wait(e->ctx) != 0);
		return;
	}
	struct timespec until = timespec(e->deadline);

	while (!atomic_load(&e->word))
		if (syscall(SYS_futex, &e->word, FUTEX_WAIT_BITSET_PRIVATE, 0, e->deadline ? &until : NULL, NULL,
		            FUTEX_BITSET_MATCH_ANY) &&
		    errno == ETIMEDOUT)
			return;
}

/* For lateness only: waits no descriptor has a part in. */
static void wait_sleep(void *arg)
{
	struct event *e = arg;
	int64_t left = e->deadline - bench_now();

	if (e->ctx) {
		bench_check(ctxfd_sleep(e->ctx, left) == 0);
		return;
	}
	struct timespec t = timespec(left > 0 ? left : 0);

	bench_check(ppoll(NULL, 0, &t, NULL) == 0);
}

static const struct kind in_poll = { nothing, wait_poll, nothing, false };
static const struct kind in_epoll = { epoll_setup, wait_epoll, epoll_teardown, false };
static const struct kind in_futex = { nothing, wait_futex, nothing, true };
static const struct kind in_sleep = { nothing, wait_sleep, nothing, true };

#ifdef HAVE_LIBURING
static struct io_uring ring;

static void uring_setup(void)
{
	bench_check(io_uring_queue_init(8, &ring, 0) == 0);
}

static void wait_uring(void *arg)
{
	struct event *e = arg;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	io_uring_prep_poll_add(sqe, e->fd, POLLIN);
	io_uring_sqe_set_data(sqe, e);
	bench_check(io_uring_submit_and_wait(&ring, 1) == 1);
	bench_check(io_uring_wait_cqe(&ring, &cqe) == 0);
	bench_check(io_uring_cqe_get_data(cqe) == e && cqe->res == POLLIN);
	io_uring_cqe_seen(&ring, cqe);
}

static void uring_teardown(void)
{
	io_uring_queue_exit(&ring);
}

static const struct kind in_uring = { uring_setup, wait_uring, uring_teardown, false };
#endif

/* ---- What they wait for ------------------------------------------------------------------------------------------ */

static void event_new(struct event *e, const struct kind *kind, bool library, int64_t deadline)
{
	*e = (struct event){ .fd = -1, .deadline = deadline };
	if (library) {
		/* A sleep ends by itself, under a context that does not. */
		bool own = deadline && kind->wait != wait_sleep;

		e->ctx =
		        own ? ctxfd_with_deadline(ctxfd_background(), deadline) : ctxfd_with_cancel(ctxfd_background());
		bench_check(e->ctx);
		if (!kind->no_fd)
			e->fd = ctxfd_done_fd(e->ctx);
	} else if (deadline && !kind->no_fd) {
		struct itimerspec at = { .it_value = timespec(deadline), .it_interval = { 0, 1 } };

		e->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
		bench_check(timerfd_settime(e->fd, TFD_TIMER_ABSTIME, &at, NULL) == 0);
	} else if (!kind->no_fd) {
		e->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
	}
	bench_check(kind->no_fd || e->fd >= 0);
}

static inline void event_signal(struct event *e)
{
	static const uint64_t done = UINT64_MAX - 1;

	if (e->ctx) {
		ctxfd_cancel(e->ctx);
	} else if (e->fd >= 0) {
		bench_check(write(e->fd, &done, sizeof(done)) == sizeof(done));
	} else {
		atomic_store(&e->word, 1);
		syscall(SYS_futex, &e->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	}
}

static void event_free(struct event *e)
{
	if (e->ctx)
		ctxfd_close(e->ctx);
	else if (e->fd >= 0)
		close(e->fd);
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

/* The waiter sleeps in another thread. */
static void wake(struct bench *b, const struct kind *kind, bool library)
{
	struct bench_partner *p = bench_partner_new(kind->wait);

	kind->setup();
	while (bench_more(b)) {
		struct event e;

		event_new(&e, kind, library, 0);
		bench_partner_arm(p, &e);
		int64_t signalled = bench_now();

		event_signal(&e);
		int64_t woken = bench_partner_woken(p);

		if (woken >= 0)
			bench_sample(b, (double)(woken - signalled));
		else
			bench_miss(b);
		bench_check(!e.ctx || ctxfd_err(e.ctx) == -ECANCELED);
		event_free(&e);
	}
	kind->teardown();
	bench_partner_free(p);
}

/* The same thread signals and then waits, for what is there already. */
#define AT_ONCE 64

static void at_once(struct bench *b, const struct kind *kind, bool library)
{
	kind->setup();
	while (bench_more(b)) {
		struct event e[AT_ONCE];

		for (int i = 0; i < AT_ONCE; i++)
			event_new(&e[i], kind, library, 0);
		bench_start(b);
		for (int i = 0; i < AT_ONCE; i++) {
			event_signal(&e[i]);
			kind->wait(&e[i]);
			if (kind->wait == wait_epoll) /* it stays readable: out, before the next one */
				epoll_ctl(set, EPOLL_CTL_DEL, e[i].fd, NULL);
		}
		bench_stop(b, AT_ONCE);
		for (int i = 0; i < AT_ONCE; i++)
			event_free(&e[i]);
	}
	kind->teardown();
}

/* How long after its deadline a waiter runs again. */
static void late(struct bench *b, const struct kind *kind, bool library)
{
	unsigned seed = 1;

	kind->setup();
	while (bench_more(b)) {
		struct event e;
		long before = bench_sleeps();

		event_new(&e, kind, library,
		          bench_now() + 150 * CTXFD_USEC + (int64_t)(rand_r(&seed) % 64) * CTXFD_USEC);
		kind->wait(&e);
		double lateness = (double)(bench_now() - e.deadline);

		bench_check(lateness >= 0);
		if (e.ctx && kind->wait != wait_sleep)
			bench_check(ctxfd_err(e.ctx) == -ETIMEDOUT);
		if (bench_sleeps() > before)
			bench_sample(b, lateness);
		else
			bench_miss(b);
		event_free(&e);
	}
	kind->teardown();
}

#define ROW(row, how, kind)                               \
	static void how##_##kind##_ctxfd(struct bench *b) \
	{                                                 \
		how(b, &kind, true);                      \
	}                                                 \
	BENCH("ctxfd", row, how##_##kind##_ctxfd)         \
	static void how##_##kind##_floor(struct bench *b) \
	{                                                 \
		how(b, &kind, false);                     \
	}                                                 \
	BENCH("floor", row, how##_##kind##_floor)

/* Whether idle CPUs halt is for bench/run to say. */
#define WAKE(name, kind)                                        \
	ROW("wake/" name, wake, kind)                           \
	BENCH("ctxfd", "wake-awake/" name, wake_##kind##_ctxfd) \
	BENCH("floor", "wake-awake/" name, wake_##kind##_floor)

WAKE("poll", in_poll)
WAKE("epoll", in_epoll)
WAKE("wait", in_futex)
ROW("wake-same-thread/poll", at_once, in_poll)
ROW("wake-same-thread/epoll", at_once, in_epoll)
ROW("wake-same-thread/wait", at_once, in_futex)
ROW("late/poll", late, in_poll)
ROW("late/epoll", late, in_epoll)
ROW("late/wait", late, in_futex)
ROW("late/sleep", late, in_sleep)
#ifdef HAVE_LIBURING
WAKE("uring", in_uring)
ROW("wake-same-thread/uring", at_once, in_uring)
ROW("late/uring", late, in_uring)
#endif
