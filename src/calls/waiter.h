/* SPDX-License-Identifier: MIT */
/*
 * What a waiting call parks in the child list of the context it waits under, so that a cancel wakes it. A thread has
 * one waiter, made with its first wait and freed as it ends, since it waits in one call at a time.
 *
 * The thread alone touches its waiter, except for the walk that rings it: that reads, sets `rung` and, of a wait at a
 * condition, `limit`. It holds the list meanwhile, and unpark waits for it. The memory is not on the stack of the call.
 * So a call that is left by siglongjmp, or that a fork has copied from another thread, leaves a valid node in the list;
 * the thread takes it out with its next wait, or as it ends.
 */
#ifndef WAITER_H
#define WAITER_H

#include <time.h>

#include "core/tree.h"

struct waiter {
	struct ctxfd node; /* in the list while parked */
	bool parked;
	bool rung;      /* by a walk, which held the list; reset when it is parked */
	int fd;         /* the waker, or -1: readable once rung. See waiter.c */
	uint32_t forks; /* ctxfdi_forks of the process that made it */

	/* What the thread had to wait for last, and most likely must the next time: see attempt.c. */
	struct expected {
		int fd, events; /* -1: nothing */
		unsigned calls; /* since */
		bool long_waits;
	} expected;

	/* Of one that is parked by ctxfd_cond_wait. See cond.c. */
	pthread_cond_t *cond;
	struct timespec limit;
	uint32_t wait_forks; /* ctxfdi_forks of the process that it waits in */
};

/* How late a call hears of the end of its context if there is no fd or no memory for its waiter. */
#define BLIND (2 * CTXFD_MSEC)

/* This thread's, out of every list. NULL: no memory. */
struct waiter *ctxfdi_waiter(void);

/* The same, if it has one already. */
extern _Thread_local struct waiter *ctxfdi_own_waiter;

/* This thread's, with a waker. NULL: no memory, or no fd. */
struct waiter *ctxfdi_poller(void);

/* w polled ready, and was not rung: its number is no longer ours. */
void ctxfdi_lose_waker(struct waiter *w);

/* False: ctx has ended, or is about to. */
static inline bool waiter_park(struct waiter *w, const struct ctxfd *ctx, enum kind kind)
{
	w->rung = false;
	w->parked = ctxfdi_park(&w->node, ctx, kind);
	return w->parked;
}

/* Returns whether it was rung. */
bool ctxfdi_waiter_unpark(struct waiter *w);

/* Kinds: rings a POLLING one. */
void ctxfdi_ring_poller(struct ctxfd *n);

/* Kinds, cond.c: rings a COND_WAIT one. */
void ctxfdi_ring_cond(struct ctxfd *n);

#endif
