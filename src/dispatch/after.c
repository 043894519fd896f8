/* SPDX-License-Identifier: MIT */
/*
 * After-funcs: functions that run once their context is done. round.h says what one is, dispatcher.h what guards it.
 *
 * WHO WINS, stop or run? stop takes the after-func out of its parent's list, if it is still LIVE: once it is out,
 * nothing can end it. If it is DONE it is on its way to its dispatcher's queue, and `state` decides, under the
 * dispatcher's lock: if it has not started, stop takes it out of the queue. If it is not in the queue yet, stop leaves
 * AFTER_STOPPED, and the cancel that has ended it frees it in place of queueing it.
 *
 * EXPIRY. A deadline ends a context by the clock, with no cancel to end the after-funcs on it. So a dispatcher that has
 * after-funcs on a context with a deadline has an alarm for it. When that rings, all after-funcs on the context are
 * ended, those of other dispatchers too.
 */
#include "dispatch/after.h"

#include "core/cancel.h"
#include "core/fork.h"
#include "core/lock.h"
#include "core/own.h"
#include "core/shard.h"
#include "core/tree.h"
#include "core/wait.h"
#include "dispatch/library.h"
#include "dispatch/round.h"

/* ---- Coming due -------------------------------------------------------------------------------------------------- */

struct hook *ctxfdi_after_funcs_ended(struct hook *list, struct ctxfd **garbage)
{
	struct ctxfd_dispatcher *d = after_of(list)->dispatcher;
	struct hook *stopped = NULL;
	int saved = errno;

	dispatcher_lock(d);
	do {
		struct ctxfd_after *h = after_of(list);

		list = list->next;
		if (h->state == AFTER_STOPPED) {
			h->hook.next = stopped;
			stopped = &h->hook;
		} else {
			queue_append(&d->due, &h->link);
		}
	} while (list && list->ctx.kind == KIND_AFTER_FUNC && after_of(list)->dispatcher == d);
	/* Once the lock is given back, what is queued may be freed; and then d too, unless we own it. */
	if (d->serving) { /* the thread that runs d looks at the queue again when its round ends */
		dispatcher_unlock(d);
	} else {
		dispatcher_ref(d);
		ctxfdi_dispatcher_unlock_and_wake(d);
		ctxfd_dispatcher_free(d);
	}
	while (stopped) {
		struct ctxfd *dead = &stopped->ctx;

		stopped = stopped->next;
		ctxfdi_detach(dead, garbage);
	}
	if (d == &ctxfdi_library)
		ctxfdi_library_resume(); /* it may not run, as in the child of a fork */
	errno = saved;
	return list;
}

/* ---- Expiry ------------------------------------------------------------------------------------------------------ */

/* Under n's LOCK, which saw its word: the first of n's expiries, or NULL. */
static struct expiry *first_expiry(struct ctxfd *n, uint64_t seen)
{
	return seen & CTX_ALARMED ? container_of(*expiry_place(n, seen), struct expiry, node) : NULL;
}

static bool has_expiry(struct ctxfd *n, uint64_t seen, const struct ctxfd_dispatcher *d)
{
	for (const struct expiry *e = first_expiry(n, seen); e; e = e->more)
		if (e->dispatcher == d)
			return true;
	return false;
}

/* Puts e into n's list, or behind the expiry there. False: n is not LIVE, or e's dispatcher has an expiry there. */
static bool add_expiry(struct ctxfd *n, struct expiry *e)
{
	uint64_t seen, change = e->dispatcher == &ctxfdi_library ? CTX_LIBRARY : 0;
	struct expiry *first;
	bool added;

	if (!lock_live(n, &seen))
		return false;
	first = first_expiry(n, seen);
	added = !has_expiry(n, seen, e->dispatcher);
	if (added && first) {
		e->more = first->more;
		first->more = e;
	} else if (added) {
		struct ctxfd **place = expiry_place(n, seen);

		e->node.linked = true;
		list_insert(place, &e->node);
		change += CTX_ALARMED;
	}
	unlock(n, added ? change : 0);
	return added;
}

/* Gives d an alarm for n's deadline, unless it has one or n has ended. 0 or -ENOMEM. */
static int set_expiry(struct ctxfd *n, struct ctxfd_dispatcher *d)
{
	uint64_t w = load_word(n);
	struct expiry *e;
	bool known;

	if (w & (CTX_PENDING | CTX_DONE) || (d == &ctxfdi_library && w & CTX_LIBRARY))
		return 0;
	if (d != &ctxfdi_library && w & CTX_ALARMED) {
		if (!lock_live(n, &w))
			return 0;
		known = has_expiry(n, w, d);
		unlock(n, 0);
		if (known)
			return 0;
	}
	e = malloc_quietly(sizeof *e);
	if (!e)
		return -ENOMEM;
	init_node(&e->node, n, KIND_EXPIRY);
	atomic_init(&e->node.word, flags_of(KIND_EXPIRY) | CTX_DONE);
	e->dispatcher = d;
	e->more = NULL;
	e->alarm = (struct heap_node){ .kind = KIND_EXPIRY };
	dispatcher_ref(d);
	if (!add_expiry(n, e)) {
		ctxfd_dispatcher_free(d);
		free(e);
		return 0;
	}
	dispatcher_lock(d);
	ctxfdi_heap_add(&d->alarms, &e->alarm, n->deadline);
	ctxfdi_dispatcher_arm(d);
	dispatcher_unlock(d);
	return 0;
}

/* Before the context is freed: takes the alarms away, that of its first expiry and those behind it. */
void ctxfdi_forget_expiry(struct ctxfd *expiry)
{
	for (struct expiry *e = container_of(expiry, struct expiry, node); e; e = e->more) {
		dispatcher_lock(e->dispatcher);
		ctxfdi_heap_remove(&e->dispatcher->alarms, &e->alarm);
		dispatcher_unlock(e->dispatcher);
	}
	expiry->linked = false;
}

/* After that: gives the dispatchers up, and frees all but the first expiry, whose memory is the caller's. */
void ctxfdi_discard_expiry(struct ctxfd *expiry)
{
	struct expiry *e = container_of(expiry, struct expiry, node), *more = e->more;

	ctxfd_dispatcher_free(e->dispatcher);
	while ((e = more)) {
		more = e->more;
		ctxfd_dispatcher_free(e->dispatcher);
		free(e);
	}
}

/* ---- Registering and stopping ------------------------------------------------------------------------------------ */

int ctxfd_after_func(const struct ctxfd *ctx, void (*fn)(void *arg), void *arg, struct ctxfd_after **handle)
{
	struct ctxfd_dispatcher *d;
	struct ctxfd_after *h;
	struct ctxfd *n;
	int err;

	if (!ctx || !fn)
		return -EINVAL;
	n = node_of(ctx);
	err = dispatcher_of(ctx, &d);
	if (!err && n->deadline != INT64_MAX)
		err = set_expiry(n, d);
	if (err)
		return err;
	h = malloc_quietly(sizeof *h);
	if (!h)
		return -ENOMEM;
	h->dispatcher = d;
	h->fn = fn;
	h->arg = arg;
	h->owns = NULL;
	h->hook.next = NULL;
	h->link.prev = NULL;
	h->state = AFTER_WAITING;
	h->owned = handle;
	if (handle)
		*handle = h;
	/* Once it is linked it may run and be freed at any moment. */
	if (!ctxfdi_adopt(&h->hook.ctx, ctx, KIND_AFTER_FUNC, INT64_MAX, 0)) {
		/* The context may only be marked: fn must find it done. */
		ctxfdi_await_done(n, INT64_MAX);
		ctxfdi_discard(ctxfdi_tell_hooks(&h->hook));
	}
	return 0;
}

static bool is_running(const struct ctxfd_after *h)
{
	return h->state == AFTER_RUNNING && h->forks == ctxfdi_forks;
}

/*
 * Under the lock: h has ended. If its fn has not started, keeps it from starting, and returns true. *ours: the caller
 * has it now, and is to free it.
 */
static bool leave_queue(struct ctxfd_after *h, bool *ours)
{
	struct ctxfd_dispatcher *d = h->dispatcher;

	claim(dispatcher_is_locked(d));
	*ours = true;
	if (h->state != AFTER_WAITING)
		return false;
	*ours = h->link.prev;
	if (*ours)
		queue_remove(d->batch.end == &h->link.next ? &d->batch : &d->due, &h->link);
	else
		h->state = AFTER_STOPPED; /* for the cancel that has ended it, which is about to come to it */
	return true;
}

/*
 * The slow side of stop: h has ended. If its fn has not started, keeps it from starting: true. Else waits until it has
 * returned, unless the caller is that fn: false. Frees h, or leaves that to whoever has it.
 */
static bool stop_ended(struct ctxfd_after *h)
{
	struct ctxfd_dispatcher *d = h->dispatcher;
	bool never_ran, ours;

	dispatcher_lock(d);
	never_ran = leave_queue(h, &ours);
	if (!never_ran && is_running(h) && pthread_equal(h->thread, pthread_self())) {
		h->owned = false;
		ours = false;
	}
	while (ours && is_running(h))
		dispatcher_wait(d);
	dispatcher_unlock(d);
	if (ours) {
		const struct ctxfd *owns = h->owns;

		ctxfdi_dispose(&h->hook.ctx);
		ctxfd_unref(owns);
	}
	return never_ran;
}

void ctxfdi_after_take_back(struct ctxfd_after *h, struct ctxfd **garbage)
{
	bool ours;

	if (!h || ctxfdi_detach_live(&h->hook.ctx, garbage))
		return;
	dispatcher_lock(h->dispatcher);
	leave_queue(h, &ours);
	dispatcher_unlock(h->dispatcher);
	if (ours)
		ctxfdi_after_detach(h, garbage);
}

bool ctxfd_after_stop(struct ctxfd_after *h)
{
	return h && (ctxfdi_dispose_live(&h->hook.ctx) || stop_ended(h));
}
