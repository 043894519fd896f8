/* SPDX-License-Identifier: MIT */
/*
 * What the dispatcher and those who need it say to each other: cancel.c hands it after-funcs that are due, after.c
 * and source.c put things in its care.
 *
 * THE DISPATCHER'S LOCK is a mutex, `dispatcher.lock`. It guards every field of struct dispatcher, struct ctxfd_after
 * and struct source that is not called fixed, and all alarms. It comes before LOCK, after which it is never taken, and
 * it is not held while a walk is waited for or a function of the program runs. System calls under it do not wait, but
 * for a done fd where SET_TICKS is refused (done.c), and for LOCK.
 */
#ifndef DISPATCH_H
#define DISPATCH_H

#include <pthread.h>
#include <sys/epoll.h>

#include "context.h"
#include "heap.h"

/*
 * An after-func is a child of its context that never has children. Its end, by a cancel's walk or by its context's
 * expiry, is what makes it due; stopping it is a child leaving its parent. While it is linked it keeps its context
 * alive.
 */
struct ctxfd_after {
	struct ctxfd ctx;
	void (*fn)(void *arg);    /* fixed */
	void *arg;                /* fixed */
	struct ctxfd_after *next; /* in the list of the cancel that ended it, then in the dispatcher's */
	enum { WAITING, STOPPED, RUNNING, RAN } state;
	pthread_t thread; /* that runs fn, while state is RUNNING */
	unsigned forks;   /* the same: how many there had been; with fewer than now, thread is not in this process */
	struct ctxfd_after *outer; /* the same: in whose fn that thread was already, in a child of a fork there */
	bool owned;                /* somebody has the handle and will stop it; else the dispatcher frees it */
};

static inline struct ctxfd_after *after_of(struct ctxfd *n)
{
	return (struct ctxfd_after *)((char *)n - offsetof(struct ctxfd_after, ctx));
}

/*
 * The dispatcher's alarm for all after-funcs on one context with a deadline. It is made with the first of them, goes
 * with the context, and stands in its list, behind the shards and before all others, as a child that is DONE from
 * birth.
 */
struct expiry {
	struct ctxfd node;
	struct alarm alarm;
};

/* A context that ends by an fd or a signal. */
struct source {
	struct ctxfd ctx;
	struct source *next, **prev; /* all there are */
	int epoll;                   /* holds the caller's fd, and nothing else; -1: signals; fixed */
	bool watched;                /* epoll is in the dispatcher's, or signals in its mask */
	bool ready;                  /* one of signals has come, and cause is its number */
	int cause;                   /* fixed, but for signals */
	sigset_t signals;            /* fixed */
};

enum mode { NOBODY, THREAD, PROGRAM }; /* dispatches */

#define EVENTS 32 /* that one look at the epoll set takes */

struct dispatcher {
	_Atomic int mode;                  /* enum mode; changed under a lock of its own, see mode.c; read by anyone */
	_Alignas(64) pthread_mutex_t lock; /* not beside what everybody reads */
	pthread_cond_t idle;               /* an after-func has ended, or `inside` has become false */

	int epoll; /* what the dispatcher waits for: wake, timer, signals, and each source's epoll */
	int wake;
	int timer;
	int signals;   /* -1: no context has wanted any yet */
	bool woken;    /* wake is readable */
	int64_t armed; /* what the timer is set to; INT64_MAX: to nothing */

	struct alarm *alarms;
	struct ctxfd_after *due, **due_end;
	struct ctxfd_after *batch; /* taken from due, to run in this round */
	struct source *sources;

	unsigned forks; /* that lie between this process and the first */

	bool stopping;    /* the library's thread is to end: it starts no more functions */
	bool dispatching; /* a thread is at it: */
	pthread_t thread;
	bool inside;                 /* it is in the library without the lock: freeing, ending after-funcs, or */
	struct source *cancelling;   /* cancelling this, which must not be freed meanwhile */
	struct ctxfd_after *running; /* or in this one's fn */
	struct epoll_event events[EVENTS];
	int events_left;
};

extern struct dispatcher dispatcher;

/* Makes sure that there is somebody to dispatch: 0 or -errno. Not under the lock. */
int dispatcher_start(void); /* the slow side */
static inline int ensure_dispatcher(void)
{
	/* Acquire pairs with the release in dispatcher_start: the fds are there. */
	return atomic_load_explicit(&dispatcher.mode, memory_order_acquire) == NOBODY ? dispatcher_start() : 0;
}

/* A list of after-funcs, whose contexts are done, is due. Not under the lock. */
void dispatch(struct ctxfd_after *list);
void add_due(struct ctxfd_after *list); /* the same, under it, on the dispatching thread */

/* Under the lock: makes the epoll set readable. */
void dispatcher_wake(void);

/*
 * Does what is due, and returns how much that was, or -EBUSY when another thread is at it, or a function that it runs.
 */
int dispatcher_serve(void);

/* In the child of a fork, under the lock: the parent's round is not going on here, and what was due is due here too. */
void dispatcher_forked(void);

/* Under the lock: sets the timer for the earliest alarm, if it is not set for it yet. */
void dispatcher_arm(void);

/* Under the lock, on the dispatching thread: steps out of the lock, and back into it, for work inside the library. */
void dispatcher_step_out(void);
void dispatcher_step_in(void);

/* The after-func whose fn this thread is in. */
extern _Thread_local struct ctxfd_after *running_here;

/*
 * Under the lock: whether this thread is the one that dispatches; a fork in a function of the program may have ended
 * that.
 */
bool still_dispatching(void);

/* Runs a value's destroy, which is the program's code: fork need not wait for it. Not under the lock. */
void run_destroy(void (*destroy)(void *value), void *value);

/* after.c, under the lock, on the dispatching thread. */
void expire_alarms(void);
int run_after(struct ctxfd_after *h);

/* after.c: called before ctx, which is ALARMED, is freed; not under the lock. */
void forget_expiry(struct ctxfd *ctx);

/* cancel.c, under the lock, on the dispatching thread; steps out of it meanwhile. */
struct ctxfd_after *expire_after_funcs(struct ctxfd *n, int64_t now);

/* source.c */
void forget_source(struct ctxfd *ctx); /* called before ctx is freed; not under the lock */
int source_event(void *data);          /* under the lock, on the dispatching thread */
int watch_sources(void);               /* under the lock: puts all into a new epoll; 0 or -errno */

#endif
