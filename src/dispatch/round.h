/* SPDX-License-Identifier: MIT */
/* After-funcs and expiries, which a round serves besides sources and the alarms of other kinds. */
#ifndef ROUND_H
#define ROUND_H

#include "dispatch/dispatcher.h"

/*
 * An after-func is a child of its context that never has children. Its end, by a cancel's walk or by its context's
 * expiry, is what makes it due; stopping it is a child leaving its parent. While it is linked it keeps its context
 * alive, and so all contexts above, and so its dispatcher.
 */
struct ctxfd_after {
	struct hook hook;
	struct link link;                    /* in its dispatcher's `due` or `batch` */
	struct ctxfd_dispatcher *dispatcher; /* fixed */
	void (*fn)(void *arg);               /* fixed */
	void *arg;                           /* fixed */
	struct ctxfd *owns;                  /* its context, from the call of fn on, until it is freed; else NULL */
	enum { AFTER_WAITING, AFTER_STOPPED, AFTER_RUNNING, AFTER_RAN } state;
	bool owned;     /* somebody has the handle and will stop it; else the dispatcher frees it */
	unsigned forks; /* while AFTER_RUNNING: ctxfdi_forks; with fewer than now, it is not running in this process */
	pthread_t thread;          /* the same: that runs fn */
	struct ctxfd_after *outer; /* the same: in whose fn that thread was already */
};

/*
 * A dispatcher's alarm for all after-funcs on one context with a deadline. It is made with the first of them and goes
 * with the context. The first one stands in the context's list, as a child that is DONE from birth.
 */
struct expiry {
	struct ctxfd node;
	struct ctxfd_dispatcher *dispatcher; /* fixed; an expiry owns it */
	struct expiry *more;                 /* of the same context, for other dispatchers; under the context's LOCK */
	struct heap_node alarm;
};

static inline struct ctxfd_after *after_of(struct hook *h)
{
	return container_of(h, struct ctxfd_after, hook);
}

/* Kinds: the alarm of an expiry. */
int ctxfdi_expire(struct heap_node *alarm, int64_t now);

/* In the child of a fork, under all locks. */
void ctxfdi_running_forked(void); /* this thread goes on with the functions that it is in */
void ctxfdi_dispatcher_forked(struct ctxfd_dispatcher *d);

#endif
