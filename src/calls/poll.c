/* SPDX-License-Identifier: MIT */
/*
 * Waiting for descriptors under a context: the caller's, and beside them this thread's waker (waiter.h), which a cancel
 * makes readable. A deadline needs no waker: it is the poll's own limit. No locks, no state but the thread's waiter.
 *
 * PTHREAD_CANCEL acts in ppoll. The waiter is taken out then, before the program's own cleanup handlers run: what they
 * give up is freed there, not at the thread's end.
 */
#include "calls/poll.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "calls/waiter.h"
#include "core/clock.h"
#include "core/fork.h"
#include "core/wait.h"

#define BRIEF (100 * CTXFD_MSEC)

static void leave_cancelled(void *parked)
{
	ctxfdi_waiter_unpark(parked);
}

/*
 * In a function of its own, since without -fexceptions this is a setjmp; and the innermost of ours, since
 * AddressSanitizer goes on watching the variables of frames that were unwound, and would blame the functions that are
 * called next.
 */
static int ppoll_parked(struct pollfd *fds, nfds_t n, const struct timespec *limit, struct waiter *parked)
{
	int ready;

	pthread_cleanup_push(leave_cancelled, parked);
	ready = ppoll(fds, n, limit, NULL);
	pthread_cleanup_pop(false);
	return ready;
}

/*
 * ppoll until CLOCK_MONOTONIC `until`, however often a signal interrupts it. The kernel lets a poll run over by up to
 * half a percent of its time, so it aims that much too early, and then for the rest. Returns 0 early in the child of a
 * handler's fork, whose waker no cancel reaches. parked: this thread's waiter, or NULL.
 */
static int poll_until(struct pollfd *fds, nfds_t n, int64_t until, struct waiter *parked)
{
	uint32_t forks = ctxfdi_forks;

	for (;;) {
		int64_t left = until == INT64_MAX ? 0 : until - ctxfd_now();
		struct timespec rest = timespec_of(left > 0 ? left - left / 200 : 0);
		const struct timespec *limit = until == INT64_MAX ? NULL : &rest;
		int ready = parked ? ppoll_parked(fds, n, limit, parked) : ppoll(fds, n, limit, NULL);

		if (ready > 0)
			return ready;
		if (ready < 0 && errno != EINTR)
			return -errno;
		/* The kernel looks at the fds before it looks for signals. */
		if (forks != ctxfdi_forks || (until != INT64_MAX && (left <= 0 || ctxfd_now() >= until)))
			return 0;
	}
}

int ctxfdi_look_at_fd(int fd, int events)
{
	struct pollfd one = { .fd = fd, .events = (short)events };
	int ready = poll(&one, 1, 0);

	return ready >= 0 ? ready : errno == EINTR ? 0 : -errno; /* a signal interrupts even this */
}

/*
 * One sleep, until an fd is ready, ctx ends, `until`, or for no reason: how many fds are ready, or -errno. all: the
 * caller's fds, and room for one more.
 */
static int poll_once(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until)
{
	struct waiter *w = ctxfdi_poller();
	int ready;

	if (!w) {
		int64_t next = ctxfd_now() + BLIND;

		return poll_until(all, n, next < until ? next : until, NULL);
	}
	if (!waiter_park(w, ctx, KIND_POLLING)) {
		ctxfdi_await_done(node_of(ctx), until);
		return poll_until(all, n, 0, NULL);
	}
	all[n] = (struct pollfd){ .fd = w->fd, .events = POLLIN };
	ready = poll_until(all, n + 1, until, w);
	if (!ctxfdi_waiter_unpark(w) && all[n].revents)
		ctxfdi_lose_waker(w);
	return ready > 0 && all[n].revents ? ready - 1 : ready;
}

int ctxfdi_poll_under(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until)
{
	const struct ctxfd *node = node_of(ctx);
	int64_t limit = node->deadline < until ? node->deadline : until;
	bool never = load_word(node) & CTX_NEVER;

	for (;;) {
		int ready = never ? poll_until(all, n, until, NULL) : poll_once(ctx, all, n, limit);
		int err = ready ? 0 : ctxfd_err(ctx);

		if (ready || err || (until != INT64_MAX && ctxfd_now() >= until))
			return ready ? ready : err;
	}
}

static bool too_many(nfds_t n)
{
	struct rlimit limit;

	return n > INT_MAX || (getrlimit(RLIMIT_NOFILE, &limit) == 0 && n >= limit.rlim_cur);
}

/* all: room for the caller's fds and one more. */
static int poll_copy(const struct ctxfd *ctx, struct pollfd *fds, struct pollfd *all, nfds_t n, int64_t until)
{
	int result;

	for (nfds_t i = 0; i < n; i++)
		all[i] = fds[i];
	all[n] = (struct pollfd){ .fd = -1 }; /* its place counts for RLIMIT_NOFILE, whether it is used or not */
	result = until ? ctxfdi_poll_under(ctx, all, n, until) : poll_until(all, n + 1, 0, NULL);
	for (nfds_t i = 0; result >= 0 && i < n; i++)
		fds[i].revents = all[i].revents;
	return result;
}

/* With memory for all, which goes with the thread if pthread_cancel ends it here. */
static int poll_many(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t until)
{
	struct pollfd *all = malloc((n + 1) * sizeof *all);
	int result;

	if (!all)
		return -ENOMEM;
	pthread_cleanup_push(free, all);
	result = poll_copy(ctx, fds, all, n, until);
	pthread_cleanup_pop(1);
	return result;
}

int ctxfd_poll(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t timeout)
{
	struct pollfd few[8];
	int64_t now = timeout > 0 ? ctxfd_now() : 0;
	int64_t until = timeout < 0 || timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	int saved = errno, result;

	pthread_testcancel();
	result = ctxfd_err(ctx);
	if (result)
		return result;
	if (n < sizeof few / sizeof few[0])
		result = poll_copy(ctx, fds, few, n, until);
	else
		result = too_many(n) ? -EINVAL : poll_many(ctx, fds, n, until);
	errno = saved;
	return result;
}

int ctxfdi_await_fd(const struct ctxfd *ctx, int fd, int events)
{
	struct pollfd both[2] = { { .fd = fd, .events = (short)events } };
	int ready = ctxfdi_poll_under(ctx, both, 1, INT64_MAX);

	return ready < 0 ? ready : 0;
}

/* Reads only the cheaper clock, unless the deadline is near. */
bool ctxfdi_await_fd_briefly(const struct ctxfd *ctx, int fd, int events)
{
	struct pollfd both[2] = { { .fd = fd, .events = (short)events } };
	int64_t left = ctxfdi_is_far(node_of(ctx)->deadline) ? BRIEF : ctxfd_remaining(ctx);
	struct timespec limit = timespec_of(left < BRIEF ? left : BRIEF);
	struct waiter *w = has_flag(node_of(ctx), CTX_NEVER) ? NULL : ctxfdi_poller();
	int ready;

	if (!w || !waiter_park(w, ctx, KIND_POLLING))
		return true;
	both[1] = (struct pollfd){ .fd = w->fd, .events = POLLIN };
	ready = ppoll_parked(both, 2, &limit, w);
	if (!ctxfdi_waiter_unpark(w) && both[1].revents)
		ctxfdi_lose_waker(w);
	return ready != 0 || left < BRIEF;
}
