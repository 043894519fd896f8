/* SPDX-License-Identifier: MIT */
/* What a round serves: after-funcs, and the alarms that make them due at a deadline. (Sources have source.h.) */
#ifndef ROUND_H
#define ROUND_H

#include "dispatch/dispatcher.h"

/*
 * An after-func is a child of its context that never has children. It becomes due when it ends, by a cancel's walk or
 * by its context's expiry. To stop it is to take it out of its context's list. While it is in there it keeps its
 * context alive, and so all contexts above, and so its dispatcher. Guarded by the dispatcher's lock, where not fixed;
 * but `hook` is the tree's.
 */
struct ctxfd_after {
	struct hook hook;
	struct link link;                    /* in its dispatcher's `due` or `batch` */
	struct ctxfd_dispatcher *dispatcher; /* fixed */
	void (*fn)(void *arg);               /* fixed */
	void *arg;                           /* fixed */
	struct ctxfd *owns;                  /* its context, from the call of fn on, until it is freed; else NULL */
	enum { AFTER_WAITING, AFTER_STOPPED, AFTER_RUNNING, AFTER_RAN } state;
	bool owned; /* somebody has the handle and will stop it; else the dispatcher frees it */
	/* While AFTER_RUNNING: */
	unsigned forks;            /* ctxfdi_forks of the process in which fn runs: if that is another, not here */
	pthread_t thread;          /* which runs fn */
	struct ctxfd_after *outer; /* in whose fn that thread was already, or NULL */
};

/*
 * A dispatcher's alarm for all after-funcs on one context with a deadline. It is made with the first of them and freed
 * with the context. The context's first expiry stands in its list, as a child that is DONE from birth; those of other
 * dispatchers hang on that one.
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

/*
 * Takes h, which has ended, out of the tree, and gives up the reference that it may own: as ctxfdi_detach, which puts
 * what is to be freed on *garbage. Not under the lock.
 */
void ctxfdi_after_detach(struct ctxfd_after *h, struct ctxfd **garbage);

/* Kinds: the alarm of an expiry. */
int ctxfdi_expire(struct heap_node *alarm, int64_t now);

/* In the child of a fork, under all locks. */
void ctxfdi_running_forked(void); /* this thread goes on with the functions that it is in */
void ctxfdi_dispatcher_forked(struct ctxfd_dispatcher *d);

#endif
