/* SPDX-License-Identifier: MIT */
/*
 * Contexts that end some time after their parent; with.c makes them.
 *
 * A grace context is no child: nothing above ends it. What is in the parent's list is its `watch`, which a cancel's
 * walk rings before the parent is seen done. That settles when the grace context ends, and sets the alarm for it. A
 * parent with a deadline may end with no walk, by the clock. So from the beginning the alarm is set for the case that
 * it does.
 *
 * `end` is settled once, by whoever first knows how the parent has ended: the walk, or who asks after the parent's
 * deadline. All answers after that are the same. It orders nothing else, so it is relaxed: who sees the parent done by
 * a cancel is behind the walk that settled it.
 */
#include "dispatch/grace.h"

#include <errno.h>
#include <stdlib.h>

#include "core/cancel.h"
#include "core/look.h"
#include "core/own.h"
#include "core/tree.h"
#include "core/wait.h"
#include "dispatch/library.h"

static struct grace *grace_of(struct ctxfd *n)
{
	return container_of(n, struct grace, beside.ctx);
}

static struct ctxfd *parent_of(const struct grace *g)
{
	return node_of(g->beside.ctx.parent);
}

/* When g ends if its parent has ended at `at`. INT64_MAX: never. */
static int64_t after(const struct grace *g, int64_t at)
{
	int64_t end;

	return g->grace == INT64_MAX || __builtin_add_overflow(at, g->grace, &end) ? INT64_MAX : end;
}

/*
 * Whether the parent is seen done. The walk that ends it may be on its way: then `end` is settled, but it is not time
 * yet.
 */
static bool has_begun(const struct grace *g)
{
	uint64_t w = load_word(parent_of(g));

	return w & CTX_DONE || (w & CTX_TIMED && parent_of(g)->deadline <= ctxfd_now());
}

/* The parent has ended, at `at` unless its deadline came before that. Returns the end, which may be settled already. */
static int64_t settle(struct grace *g, int64_t at)
{
	int64_t deadline = parent_of(g)->deadline, end = INT64_MAX, new = after(g, at < deadline ? at : deadline);

	if (atomic_compare_exchange_strong_explicit(&g->end, &end, new, memory_order_relaxed, memory_order_relaxed))
		return new;
	return end;
}

/*
 * The parent has ended, before the call that makes g or during it. If it was cancelled meanwhile, that was not later
 * than now; so to count from now is never too early. A deadline that has passed meanwhile is known exactly.
 */
static void settle_at_birth(struct grace *g)
{
	int64_t deadline = parent_of(g)->deadline, at = ctxfd_now(), end;

	if (g->called < deadline && deadline < at)
		at = deadline;
	end = after(g, at);
	/* Never. That reads as "not known yet": so whoever counts again, from a deadline long past, must get it too. */
	if (end == INT64_MAX)
		g->grace = INT64_MAX;
	atomic_store_explicit(&g->end, end, memory_order_relaxed);
}

/* When g ends, whose parent has ended. INT64_MAX: never. */
static int64_t end_of(struct grace *g)
{
	int64_t end = atomic_load_explicit(&g->end, memory_order_relaxed), deadline = parent_of(g)->deadline;

	return end == INT64_MAX && deadline <= ctxfd_now() ? settle(g, deadline) : end;
}

static void set_alarm(struct grace *g)
{
	struct ctxfd_dispatcher *d = g->dispatcher;
	int64_t at = atomic_load_explicit(&g->end, memory_order_relaxed);

	claim(dispatcher_is_locked(d));
	if (at == INT64_MAX)
		at = after(g, parent_of(g)->deadline);
	ctxfdi_heap_remove(&d->alarms, &g->alarm);
	if (at == INT64_MAX)
		return;
	ctxfdi_heap_add(&d->alarms, &g->alarm, at);
	ctxfdi_dispatcher_arm(d);
}

static uint64_t verdict_of(const struct grace *g)
{
	return cause_bits(g->cause) | CTX_EXPIRED;
}

struct ctxfd *ctxfdi_grace_new(const struct ctxfd *parent, struct ctxfd_dispatcher *d, int64_t now, int64_t grace,
                               int cause)
{
	struct grace *g = malloc(sizeof *g);

	if (!g)
		return NULL;
	g->dispatcher = d;
	g->alarm = (struct heap_node){ .kind = KIND_GRACE };
	g->called = now;
	g->grace = grace > 0 ? grace : 0;
	g->cause = cause;
	atomic_init(&g->end, INT64_MAX);
	ctxfdi_adopt_beside(&g->beside.ctx, parent, KIND_GRACE);
	g->beside.watch.linked = false;
	if (!d)
		return &g->beside.ctx;
	ctxfdi_look(node_of(parent));
	/* From here on it may be rung at any moment; or there is nothing to be rung for, and the grace has begun. */
	if (!ctxfdi_park(&g->beside.watch, parent, KIND_GRACE_WATCH)) {
		settle_at_birth(g);
		ctxfdi_await_done(parent_of(g), INT64_MAX); /* it may only be marked */
		if (!g->grace) {
			ctxfdi_cancel(&g->beside.ctx, verdict_of(g));
			return &g->beside.ctx;
		}
	}
	dispatcher_lock(d);
	set_alarm(g);
	dispatcher_unlock(d);
	return &g->beside.ctx;
}

int ctxfdi_grace_rings(struct heap_node *alarm, int64_t now)
{
	struct grace *g = container_of(alarm, struct grace, alarm);

	if (load_word(&g->beside.ctx) & (CTX_PENDING | CTX_DONE))
		return 0;
	claim(end_of(g) <= now);
	(void)now;
	/* The walk that has settled it may not be over. */
	return ctxfdi_dispatcher_end_after(g->dispatcher, parent_of(g), &g->beside.ctx, verdict_of(g));
}

/*
 * When the parent ended, which it has just done with this verdict. A parent that is a grace itself ended when its time
 * was over, not when its dispatcher came to it; but not before g was made.
 */
static int64_t parents_end(const struct grace *g, uint64_t verdict)
{
	int64_t now = ctxfd_now(), over = verdict & CTX_EXPIRED ? ctxfdi_deadline_of(parent_of(g)) : now;

	if (over < g->called)
		over = g->called;
	return over < now ? over : now;
}

/* Called in a walk. It may take the dispatcher's lock, under which nobody waits for a walk. */
void ctxfdi_begin_grace(struct ctxfd *watch)
{
	struct grace *g = container_of(watch, struct grace, beside.watch);
	int saved = errno;

	settle(g, parents_end(g, load_word(watch)));
	dispatcher_lock(g->dispatcher);
	set_alarm(g);
	dispatcher_unlock(g->dispatcher);
	if (g->dispatcher == &ctxfdi_library)
		ctxfdi_library_resume_later();
	errno = saved;
}

int64_t ctxfdi_grace_deadline(struct ctxfd *n)
{
	return has_begun(grace_of(n)) ? end_of(grace_of(n)) : INT64_MAX;
}

void ctxfdi_forget_grace(struct ctxfd *n)
{
	struct grace *g = grace_of(n);

	if (!g->dispatcher)
		return;
	/* We own the parent, so the watch has kept nothing alive that would have to be freed now. */
	if (g->beside.watch.linked && ctxfdi_unpark(&g->beside.watch))
		claim(false);
	dispatcher_lock(g->dispatcher);
	ctxfdi_heap_remove(&g->dispatcher->alarms, &g->alarm);
	dispatcher_unlock(g->dispatcher);
}
