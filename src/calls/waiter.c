/* SPDX-License-Identifier: MIT */
/*
 * Waiters and their wakers; waiter.h says who may touch what.
 *
 * THE WAKER is a timerfd without an alarm. TFD_IOC_SET_TICKS makes it readable, for what a write to an eventfd costs;
 * where that is refused an alarm in the past does, some microseconds later. Setting it to never makes it unreadable.
 * All three fail on any other file: if the program closes fds that it does not know, whatever gets the waker's number
 * is safe.
 */
#include "calls/waiter.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/fork.h"
#include "core/kernel.h"
#include "core/own.h"
#include "core/thread_cancel.h"

_Thread_local struct waiter *ctxfdi_own_waiter;

/* ---- Wakers ------------------------------------------------------------------------------------------------------ */

static bool ring_waker(int fd)
{
	static const struct itimerspec past = { .it_value = { .tv_nsec = 1 } };
	uint64_t one = 1;

	return ioctl(fd, TFD_IOC_SET_TICKS, &one) == 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, NULL) == 0;
}

static void silence_waker(int fd)
{
	static const struct itimerspec never;

	timerfd_settime(fd, 0, &never, NULL);
}

static bool open_waker(struct waiter *w)
{
	w->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	w->forks = ctxfdi_forks;
	return w->fd >= 0;
}

void ctxfdi_lose_waker(struct waiter *w)
{
	w->fd = -1;
}

/* In the child of a fork the number is the parent's, which is not to be woken from here. */
void ctxfdi_ring_poller(struct ctxfd *n)
{
	struct waiter *w = container_of(n, struct waiter, node);
	int saved = errno;

	if (w->forks == ctxfdi_forks)
		w->rung = ring_waker(w->fd);
	errno = saved;
}

/* ---- Waiters ----------------------------------------------------------------------------------------------------- */

static pthread_key_t key; /* for its destructor: it frees a thread's waiter */

/* Whether it has run in this thread. Destructors that run later may wait, too, and get no new waiter: none frees it. */
static _Thread_local bool ends;

static bool has_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A thread that returns with a cancellation pending would be cancelled here, by close. */
static void free_waiter(void *arg)
{
	struct thread_cancel before = thread_cancel_off();
	struct waiter *w = arg;

	ctxfdi_own_waiter = NULL;
	ends = true;
	if (w->parked)
		ctxfdi_waiter_unpark(w);
	if (w->fd >= 0 && w->forks == ctxfdi_forks)
		close(w->fd);
	free(w);
	thread_cancel_restore(before);
}

static void make_key(void)
{
	has_key = pthread_key_create(&key, free_waiter) == 0;
}

static struct waiter *make_waiter(void)
{
	struct waiter *w;

	pthread_once(&once, make_key);
	w = has_key && !ends ? malloc(sizeof *w) : NULL;
	if (!w)
		return NULL;
	*w = (struct waiter){ .fd = -1, .expected.fd = -1 };
	if (pthread_setspecific(key, w) != 0) {
		free(w);
		return NULL;
	}
	ctxfdi_own_waiter = w;
	return w;
}

struct waiter *ctxfdi_waiter(void)
{
	struct waiter *w = ctxfdi_own_waiter;

	if (!w)
		return make_waiter();
	if (w->parked)
		ctxfdi_waiter_unpark(w);
	return w;
}

struct waiter *ctxfdi_poller(void)
{
	struct waiter *w = ctxfdi_waiter();

	if (w && (w->fd < 0 || w->forks != ctxfdi_forks) && !open_waker(w))
		w = NULL;
	return w;
}

bool ctxfdi_waiter_unpark(struct waiter *w)
{
	struct ctxfd *dead = ctxfdi_unpark(&w->node);
	bool rung = w->rung;

	w->parked = false;
	if (rung && w->forks == ctxfdi_forks)
		silence_waker(w->fd);
	if (dead) /* last: what a value's destroy does may be another wait */
		ctxfdi_dispose(dead);
	return rung;
}
