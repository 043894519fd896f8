/* SPDX-License-Identifier: MIT */
/*
 * A dispatcher's round: collects what is ready, and serves what is due. dispatcher.h says what the lock guards, and how
 * two threads share the work.
 */
#include "dispatch/round.h"

#include "core/cancel.h"
#include "core/fork.h"
#include "core/own.h"
#include "core/thread_cancel.h"
#include "dispatch/loop.h"
#include "dispatch/signals.h"
#include "dispatch/source.h"

/* ---- What is ready ----------------------------------------------------------------------------------------------- */

static void take_event(struct ctxfd_dispatcher *d, void *data)
{
	claim(dispatcher_is_locked(d));
	if (data == &d->wake) {
		atomic_store_explicit(&d->woken, false, memory_order_relaxed);
	} else if (data == &d->timer) {
		d->armed = INT64_MAX;
	} else if (data == &ctxfdi_signals_event) {
		if (d->look == INT64_MAX) /* others that come meanwhile do not put it off */
			d->look = ctxfd_now() + SIGNALS_DELAY;
	} else {
		ctxfdi_source_is_ready(data);
	}
}

/* Under the lock, whoever runs d: puts what is ready into the queues. */
static void collect(struct ctxfd_dispatcher *d)
{
	struct epoll_event events[32];
	bool pending;
	int n;

	claim(dispatcher_is_locked(d));
	do {
		n = epoll_wait(d->epoll, events, 32, 0);
		for (int i = 0; i < n; i++)
			take_event(d, events[i].data.ptr);
	} while (n == 32); /* all of them: somebody may wait for edges only */
	pending = d->look != INT64_MAX && d->look <= ctxfd_now();
	if (pending)
		d->look = INT64_MAX;
	/* Acquire pairs with the release of the handler that made the note. */
	if (atomic_exchange_explicit(&d->signalled, false, memory_order_acquire) || pending)
		ctxfdi_signals_take(d, pending);
}

/* ---- What is due ------------------------------------------------------------------------------------------------- */

/*
 * The alarm of an expiry: ends the after-funcs on its context, which the clock has ended. The context cannot be freed
 * meanwhile. Before the hold: whoever frees it needs d's lock first, to take the alarm away. Then: no child can leave a
 * list that is held, and what has children is not freed.
 */
int ctxfdi_expire(struct heap_node *alarm, int64_t now)
{
	struct expiry *e = container_of(alarm, struct expiry, alarm);
	struct ctxfd *n = e->node.parent, *garbage;
	struct ctxfd_dispatcher *d = e->dispatcher;

	(void)now;
	claim(dispatcher_is_locked(d));
	if (!ctxfdi_hold_expired(n))
		return 0;
	ctxfdi_dispatcher_step_out(d);
	garbage = ctxfdi_tell_hooks(ctxfdi_end_hooks(n));
	ctxfdi_dispatcher_step_in(d);
	ctxfdi_dispatcher_discard(d, garbage);
	return 0;
}

/* Under the lock, by the thread that runs d: has an alarm ring. Returns how many contexts that ended. */
static int ring(struct ctxfd_dispatcher *d, struct heap_node *alarm, int64_t now)
{
	claim(dispatcher_is_locked(d));
	ctxfdi_heap_remove(&d->alarms, alarm);
	return ctxfdi_kinds[alarm->kind].alarm(alarm, now);
}

/* The after-func whose fn this thread is in. */
static _Thread_local struct ctxfd_after *running_here;

void ctxfdi_after_detach(struct ctxfd_after *h, struct ctxfd **garbage)
{
	ctxfdi_detach(&h->hook.ctx, garbage);
	ctxfdi_give_up(h->owns, garbage);
}

/* Under the lock: frees h, for which it steps out of the lock, since h may be the last thing that kept its context. */
static void free_after(struct ctxfd_dispatcher *d, struct ctxfd_after *h)
{
	struct ctxfd *garbage = NULL;

	claim(dispatcher_is_locked(d));
	ctxfdi_dispatcher_step_out(d);
	ctxfdi_after_detach(h, &garbage);
	ctxfdi_dispatcher_step_in(d);
	ctxfdi_dispatcher_discard(d, garbage);
}

/* After fn: takes d's lock again. Also called if fn ends its thread, or throws an exception of C++: on the way out. */
static void after_ran(void *arg)
{
	struct ctxfd_after *h = arg;
	struct ctxfd_dispatcher *d = h->dispatcher;

	dispatcher_lock(d);
	running_here = h->outer;
	if (d->running == h)
		d->running = NULL;
	if (!h->owned) {
		free_after(d, h);
	} else {
		h->state = AFTER_RAN;
		dispatcher_tell(d);
	}
}

/* Under the lock, by the thread that runs d: calls h's function, without the lock. Returns how many have run. */
static int run_after(struct ctxfd_dispatcher *d, struct ctxfd_after *h)
{
	claim(dispatcher_is_locked(d));
	if (h->state == AFTER_STOPPED) {
		free_after(d, h);
		return 0;
	}
	h->state = AFTER_RUNNING;
	h->thread = pthread_self();
	h->forks = ctxfdi_forks;
	h->outer = running_here;
	d->running = running_here = h;
	/*
	 * fn may do with its context whatever an owner may, so h becomes one; or is one already, if it is counted. (It
	 * is in the context's list, so ctxfdi_own cannot fail.)
	 */
	if (!h->hook.ctx.counted) {
		h->owns = h->hook.ctx.parent;
		ctxfdi_own(h->owns);
	}
	dispatcher_unlock(d);
	pthread_cleanup_push(after_ran, h);
	h->fn(h->arg);
	pthread_cleanup_pop(true);
	return 1;
}

/* ---- The round --------------------------------------------------------------------------------------------------- */

/* Puts what the round has not come to back into the queue, before what has come due since. */
static void give_back_batch(struct ctxfd_dispatcher *d)
{
	claim(dispatcher_is_locked(d));
	queue_move(&d->batch, &d->due);
	queue_move(&d->due, &d->batch);
}

/* A round of d, by this thread. */
struct round {
	struct ctxfd_dispatcher *d;
	struct thread_cancel before;
	unsigned forks; /* when it began: if a function of the program has forked, the round ends in the child */
};

/*
 * Under the lock, which it gives back. Also called when a function of the program leaves the round by pthread_exit or
 * an exception of C++: then the next round does the rest.
 */
static void end_round(void *arg)
{
	struct round *r = arg;
	struct ctxfd_dispatcher *d = r->d;

	if (r->forks == ctxfdi_forks) {
		give_back_batch(d);
		d->serving = false;
		if (d->due.first || d->ready)
			ctxfdi_dispatcher_wake(d);
		ctxfdi_dispatcher_arm(d);
	}
	dispatcher_unlock(d);
	ctxfd_dispatcher_free(d);
	thread_cancel_restore(r->before);
}

/* Under the lock: runs the after-funcs that are due, but none that comes due meanwhile. */
static int run_due(struct round *r)
{
	struct ctxfd_dispatcher *d = r->d;
	int done = 0;

	claim(dispatcher_is_locked(d));
	if (r->forks == ctxfdi_forks)
		queue_move(&d->batch, &d->due);
	while (r->forks == ctxfdi_forks && d->batch.first) {
		struct ctxfd_after *h = container_of(d->batch.first, struct ctxfd_after, link);

		queue_remove(&d->batch, &h->link);
		done += run_after(d, h);
	}
	return done;
}

/* After how many alarms others get the lock: to set a million anew takes a tenth of a second. */
#define RINGS 64

static void give_way(struct ctxfd_dispatcher *d)
{
	dispatcher_unlock(d);
	dispatcher_lock(d);
}

/* Under the lock: does what is due now. What comes due meanwhile is for the next round, or it could keep us here. */
static int serve(struct round *r)
{
	struct ctxfd_dispatcher *d = r->d;
	int64_t now = d->alarms ? ctxfd_now() : 0;
	int done = 0, rung = 0;
	struct link *l;

	claim(dispatcher_is_locked(d));
	while (r->forks == ctxfdi_forks && (l = d->ready)) {
		list_remove(l);
		done += ctxfdi_source_cancel(source_of(l));
	}
	while (r->forks == ctxfdi_forks && d->alarms && d->alarms->at <= now) {
		done += ring(d, d->alarms, now);
		if (++rung % RINGS == 0)
			give_way(d);
		done += run_due(r); /* at once, while their memory is in the caches */
	}
	return done + run_due(r);
}

int ctxfd_dispatcher_run(struct ctxfd_dispatcher *d)
{
	struct round r = { .d = d, .before = thread_cancel_off(), .forks = ctxfdi_forks };
	int result;

	dispatcher_lock(d);
	result = d->epoll < 0 ? ctxfdi_dispatcher_open_fds(d) : 0;
	if (!result) {
		collect(d);
		result = d->serving || d->closed ? -EBUSY : 0;
	}
	if (result) {
		dispatcher_unlock(d);
		thread_cancel_restore(r.before);
		return result;
	}
	d->serving = true;
	d->thread = pthread_self();
	dispatcher_ref(d); /* a function that we run may give up the last other reference */
	pthread_cleanup_push(end_round, &r);
	result = serve(&r);
	pthread_cleanup_pop(true);
	return result;
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

void ctxfdi_running_forked(void)
{
	for (struct ctxfd_after *h = running_here; h; h = h->outer)
		h->forks = ctxfdi_forks;
}

/* In the child of a fork: the parent was running h, which does not go on here. Has it freed, unless it has a handle. */
static void abandon_after(struct ctxfd_dispatcher *d, struct ctxfd_after *h)
{
	claim(dispatcher_is_locked(d));
	if (h->owned)
		return;
	h->state = AFTER_STOPPED;
	queue_append(&d->batch, &h->link);
}

void ctxfdi_dispatcher_forked(struct ctxfd_dispatcher *d)
{
	struct ctxfd_after *running = d->running;

	claim(dispatcher_is_locked(d));
	atomic_store_explicit(&d->waking, 0, memory_order_relaxed);
	ctxfdi_dispatcher_close_fds(d);
	d->closed = false;
	if (!d->serving)
		return;
	d->serving = d->inside = false;
	d->running = NULL;
	if (!pthread_equal(d->thread, pthread_self())) {
		/* The round's thread is not here. (One that has forked in a function of its round goes on with it.) */
		atomic_fetch_sub_explicit(&d->refs, 1, memory_order_relaxed);
		if (running)
			abandon_after(d, running);
	}
	give_back_batch(d);
}
