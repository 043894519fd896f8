/* SPDX-License-Identifier: MIT */
/*
 * Dispatchers: where after-funcs run, and where fds, signals and alarms turn into cancels. A dispatcher is an epoll set,
 * queues of what is due, and ctxfd_dispatcher_run, which does it. The program has one for each of its loops; the
 * library has one of its own (ctxfdi_library.c), which its thread runs.
 *
 * A DISPATCHER'S LOCK is a mutex. It guards all of struct ctxfd_dispatcher, and of what is registered with it, that is
 * not called fixed. It comes before a node's LOCK, after which it is never taken; nobody has two of them, but fork. It is
 * not held while a walk is waited for, memory is allocated or freed, or a function of the program runs. System calls
 * under it do not wait, but for a done fd where SET_TICKS is refused (done.c).
 *
 * ONE THREAD RUNS a dispatcher at a time. Others that come meanwhile fetch what the epoll set reports, so that its fd
 * does not stay readable, and leave it in the queues. The one that runs looks at the queues once more when it ends its
 * round, and if something has come makes the fd ready anew. So no edge is lost, and nobody spins.
 */
#ifndef DISPATCHER_H
#define DISPATCHER_H

#include <pthread.h>
#include <sys/epoll.h>

#include "core/context.h"
#include "dispatch/heap.h"
#include "core/list.h"

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
	enum { WAITING, STOPPED, RUNNING, RAN } state;
	bool owned; /* somebody has the handle and will stop it; else the dispatcher frees it */
	unsigned
	        forks; /* while RUNNING: ctxfdi_dispatcher_forks; with fewer than now, it is not running in this process */
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
	struct expiry *more; /* of the same context, for other ctxfdi_dispatchers; under the context's LOCK */
	struct alarm alarm;
};

struct ctxfd_dispatcher {
	_Atomic unsigned refs;  /* of the program, contexts, expiries, and who runs it */
	_Atomic bool signalled; /* a signal has been noted for one of its contexts (signals.c) */
	_Atomic int wake;       /* an eventfd in epoll; read by signal handlers without the lock */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* an after-func has ended, or `inside` has become false */
	struct link all;     /* all ctxfdi_dispatchers; under ctxfdi_dispatchers_lock */

	int epoll; /* has wake, timer, signals.c's fd, and each source's epoll; -1: none made, as in the child of a fork */
	int timer;
	bool woken;     /* wake is readable, or will be */
	int64_t armed;  /* what the timer is set to; INT64_MAX: to nothing */
	bool listening; /* the epoll set has the signalfd: */
	int64_t look;   /* when to see whether a signal is still there; INT64_MAX: none has come */

	struct alarm *alarms;
	struct link *sources;        /* that are watched */
	struct link *ready;          /* sources that are no longer watched, and to be cancelled */
	struct queue due;            /* after-funcs */
	struct queue batch;          /* taken from due, to run in this round */
	struct ctxfd_after *running; /* whose fn the round is in */
	bool serving;                /* a thread is at a round: */
	pthread_t thread;
	bool closed; /* no round begins any more: the program exits */
	bool inside; /* it is in the tree, without the lock: a fork waits for its end */
};

/* How many forks lie between this process and the first. Written while a child has one thread. */
extern unsigned ctxfdi_dispatcher_forks;

/* The library's own (ctxfdi_library.c). */
extern struct ctxfd_dispatcher ctxfdi_library;
int ctxfdi_library_start(void);   /* makes sure that its thread runs: 0 or -errno. Not under a lock */
void ctxfdi_library_resume(void); /* the same, where there is nobody to tell of an error: the next look tries again */
extern _Atomic bool ctxfdi_library_runs;
static inline int library_ensure(void)
{
	/* Acquire pairs with the release in library_start: the fds are there. */
	return atomic_load_explicit(&ctxfdi_library_runs, memory_order_acquire) ? 0 : ctxfdi_library_start();
}

/* The dispatcher that a context above ctx names, or NULL. */
struct ctxfd_dispatcher *ctxfdi_dispatcher_above(const struct ctxfd *ctx);

/* Who serves what is registered on ctx, which keeps it alive. If it is the library's own, that runs: 0 or -errno. */
static inline int dispatcher_of(const struct ctxfd *ctx, struct ctxfd_dispatcher **d)
{
	*d = nearest_value(ctx) ? ctxfdi_dispatcher_above(ctx) : NULL;
	if (*d)
		return 0;
	*d = &ctxfdi_library;
	return library_ensure();
}

void ctxfdi_dispatcher_ref(struct ctxfd_dispatcher *d);

/* Not under the lock: makes sure that d's fds are this process's. The epoll set's, or -errno. */
int ctxfdi_dispatcher_open(struct ctxfd_dispatcher *d);

/* Under the lock. */
void ctxfdi_dispatcher_wake(struct ctxfd_dispatcher *d); /* makes the fd ready */
void ctxfdi_dispatcher_arm(struct ctxfd_dispatcher *d);  /* sets the timer for the earliest alarm */

/* Under the lock, by who runs d: steps out of the lock for work in the tree, and back into it. */
void ctxfdi_dispatcher_step_out(struct ctxfd_dispatcher *d);
void ctxfdi_dispatcher_step_in(struct ctxfd_dispatcher *d);

/* Under all locks, in the child of a fork. */
void ctxfdi_dispatcher_forked(struct ctxfd_dispatcher *d);
void ctxfdi_dispatcher_close_fds(struct ctxfd_dispatcher *d);
extern pthread_mutex_t ctxfdi_dispatchers_lock;
extern struct link *ctxfdi_dispatchers; /* the program's */

/* after.c */
struct hook *ctxfdi_after_funcs_ended(struct hook *list);
void ctxfdi_forget_expiry(struct ctxfd *expiry);
void ctxfdi_discard_expiry(struct ctxfd *expiry);
void ctxfdi_expire(struct ctxfd_dispatcher *d, struct expiry *e);        /* under the lock, by who runs d */
int ctxfdi_run_after(struct ctxfd_dispatcher *d, struct ctxfd_after *h); /* the same */
void ctxfdi_abandon_after(struct ctxfd_dispatcher *d,
                          struct ctxfd_after *h); /* in a child, whose parent was running it */

/* The after-func whose fn this thread is in. */
extern _Thread_local struct ctxfd_after *ctxfdi_running_here;

#endif
