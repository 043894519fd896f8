/* SPDX-License-Identifier: MIT */
/*
 * Dispatchers: where after-funcs run, and where fds, signals and alarms turn into cancels. A dispatcher is an epoll
 * set, queues of what is due, and ctxfd_dispatcher_run, which does it. The program has one for each of its loops; the
 * library has one of its own (library.c), which its thread runs.
 *
 * A DISPATCHER'S LOCK is a mutex. It guards struct ctxfd_dispatcher, and what is registered with it, except what is
 * fixed or atomic. A thread holds one of them at a time, except in a fork. Locks are taken in this order:
 * ctxfdi_dispatchers_lock, a dispatcher's lock, then the signals' lock (signals.c) or a node's LOCK.
 *
 * Nobody who holds it waits for a walk, allocates or frees memory, or runs a function of the program. A thread that
 * holds it waits only for a done fd where SET_TICKS is refused (done.c), for signal handlers that are at work
 * (signals.c), and, before the dispatcher's fds are closed, for threads that are about to write to one (loop.c). A
 * thread that makes an after-func due gives the lock back before it wakes the thread that is to run it, which needs the
 * lock at once.
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
#include "core/futex.h"
#include "dispatch/heap.h"

struct ctxfd_dispatcher {
	_Atomic unsigned refs;  /* of the program, contexts, expiries, and threads that run it or will wake it */
	_Atomic bool signalled; /* a signal has been noted for one of its contexts (signals.c) */
	_Atomic int wake;       /* an eventfd in epoll; read by signal handlers without the lock */
	pthread_mutex_t lock;
	uint32_t told;   /* a futex: changes when there is something to tell those who sleep at it (dispatcher_wait) */
	bool awaited;    /* a thread sleeps at `told`, or is about to */
	struct link all; /* in the list of all dispatchers; under ctxfdi_dispatchers_lock */

	int epoll; /* has wake, timer, signals.c's fd, and each source's epoll; -1: none, as in the child of a fork */
	int timer;
	_Atomic bool woken;      /* the epoll set reports wake, or will once `waking` is 0 */
	_Atomic unsigned waking; /* threads about to write to wake without the lock; each owns a reference meanwhile */
	int64_t armed;           /* what the timer is set to; INT64_MAX: to nothing */
	bool listening;          /* the epoll set has the signalfd */
	int64_t look;            /* when to see whether the signal that it told of is still there; INT64_MAX: never */

	struct heap_node *alarms;
	struct link *sources;        /* that are watched */
	struct link *ready;          /* sources that are no longer watched, and to be cancelled */
	struct queue due;            /* after-funcs */
	struct queue batch;          /* taken from due, to run in this round */
	struct ctxfd_after *running; /* whose fn the round is in */
	bool serving;                /* a thread is at a round */
	pthread_t thread;            /* which one */
	bool inside;                 /* it is in the tree, without the lock: a fork waits until it has come back */
	bool closed;                 /* no round may begin: exit waits for the library's thread to end */
#ifdef CTXFD_DEBUG
	bool locked; /* for claims (context.h): by `locker` */
	pthread_t locker;
#endif
};

static inline void dispatcher_note_lock(struct ctxfd_dispatcher *d, bool locked)
{
#ifdef CTXFD_DEBUG
	d->locked = locked;
	d->locker = pthread_self();
#else
	(void)d;
	(void)locked;
#endif
}

static inline void dispatcher_lock(struct ctxfd_dispatcher *d)
{
	pthread_mutex_lock(&d->lock);
	dispatcher_note_lock(d, true);
}

static inline void dispatcher_unlock(struct ctxfd_dispatcher *d)
{
	dispatcher_note_lock(d, false);
	pthread_mutex_unlock(&d->lock);
}

/*
 * Under the lock, which it gives back meanwhile: sleeps until dispatcher_tell, or for no reason. So the caller looks
 * again at what it waits for: an after-func that ends, `inside`, or the start of the library's thread. Not a
 * cancellation point; keeps errno. It uses no condition variable, since dispatcher_tell runs with the lock, which
 * cancels and forks want, and must not wait for a sleeper that was woken earlier (futex.h).
 */
static inline void dispatcher_wait(struct ctxfd_dispatcher *d)
{
	uint32_t told = d->told;

	d->awaited = true;
	dispatcher_unlock(d);
	ctxfdi_word_sleep(&d->told, told);
	dispatcher_lock(d);
}

/* Under the lock: wakes all who sleep there. */
static inline void dispatcher_tell(struct ctxfd_dispatcher *d)
{
	if (!d->awaited)
		return;
	d->awaited = false;
	d->told++;
	ctxfdi_word_wake(&d->told);
}

/* For claims: whether this thread has the lock. */
#define dispatcher_is_locked(d) ((d)->locked && pthread_equal((d)->locker, pthread_self()))

static inline void dispatcher_ref(struct ctxfd_dispatcher *d)
{
	/* Relaxed: whoever calls has a reference already, or is promised one. */
	atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
}

/* Under the lock. */
void ctxfdi_dispatcher_wake(struct ctxfd_dispatcher *d); /* makes the fd ready */
/*
 * The same, but gives the lock back first: the thread that wakes up needs it, and may get this very CPU. The caller
 * must own d.
 */
void ctxfdi_dispatcher_unlock_and_wake(struct ctxfd_dispatcher *d);
void ctxfdi_dispatcher_arm(struct ctxfd_dispatcher *d); /* sets the timer for the earliest alarm */

/* Under the lock, by the thread that runs d: steps out of the lock for work in the tree, and back into it. */
void ctxfdi_dispatcher_step_out(struct ctxfd_dispatcher *d);
void ctxfdi_dispatcher_step_in(struct ctxfd_dispatcher *d);

/* The same: discards what is left of that work. Gives the lock back meanwhile, since a value's destroy may run. */
void ctxfdi_dispatcher_discard(struct ctxfd_dispatcher *d, struct ctxfd *garbage);

/*
 * Under the lock, by the thread that runs d: ends n, which is LISTED. The caller has found it in a list of d's, which n
 * leaves before it is freed, and has taken it out of that. Gives the lock back meanwhile. Returns 1; 0 if n is being
 * freed.
 */
int ctxfdi_dispatcher_end(struct ctxfd_dispatcher *d, struct ctxfd *n, uint64_t verdict);

/* The same, but first waits until `first` is done, which n keeps alive and a walk is about to end. */
int ctxfdi_dispatcher_end_after(struct ctxfd_dispatcher *d, struct ctxfd *first, struct ctxfd *n, uint64_t verdict);

/* All dispatchers of the program, and the lock that guards this list. */
extern pthread_mutex_t ctxfdi_dispatchers_lock;
extern struct link *ctxfdi_dispatchers;

#endif
