/* SPDX-License-Identifier: MIT */
/*
 * How a context ends. context.h says what guards what, and look.c what others see of an end.
 *
 * HOW A CANCEL REACHES EVERYONE. ctxfd_cancel goes through the subtree once, depth first, on the tree's own pointers:
 *
 *   mark    on the way down: LIVE becomes PENDING and HELD in one compare-and-swap. From here on nothing can be derived
 *           live below this node, and its child list stands still. A node without children has nothing to hold back: it
 *           becomes DONE at once, is signalled, and is never touched again.
 *   commit  on the way back up, when everything below is DONE: PENDING becomes DONE, the hold ends, the fd is made
 *           readable, sleepers are woken.
 *
 * So whoever sees a node DONE sees all below it DONE, and one that another cancel has PENDING is waited for (it lies
 * below us: waits only ever go downward). An expired node needs no walk: nothing below it has a later deadline, and
 * each sees by the clock that it is done. Its hooks are ended by whoever has an alarm for them, whose hold ends as a
 * walk's does.
 *
 * Between commit and signal anyone may see DONE and UNSIGNALLED: a thread that does makes the fd readable before it
 * answers (ctxfdi_look).
 */
#include "core/cancel.h"

#include "core/done.h"
#include "core/futex.h"
#include "core/lock.h"
#include "core/look.h"
#include "core/own.h"
#include "core/shard.h"
#include "core/wait.h"

/* ---- Ending ------------------------------------------------------------------------------------------------------ */

/* One call of cancel. */
struct cancel {
	uint64_t verdict;   /* cause and, perhaps, EXPIRED */
	int64_t now;        /* when it first met a deadline; 0 before */
	struct hook *ended; /* the hooks that it has ended; those of one context in the order in which they were made */
};

/* Whether n's deadline went by before the cancel came to it. One look at the clock serves the whole walk. */
static bool too_late(struct cancel *c, const struct ctxfd *n)
{
	if (!c->now)
		c->now = ctxfd_now();
	return n->deadline <= c->now;
}

/* Does what announce finds to do. Out of line: most nodes need nothing, and so the walk keeps its registers. */
__attribute__((noinline)) static void announce_to(struct ctxfd *n, uint64_t w, struct cancel *c)
{
	if (w & CTX_HOOK) {
		struct hook *h = container_of(n, struct hook, ctx);

		/* The list is last in, first out, and the walk meets the youngest first. */
		h->next = c->ended;
		c->ended = h;
	}
	if (w & CTX_RINGS)
		ctxfdi_kinds[n->kind].ring(n);
	if (w & CTX_UNSIGNALLED)
		ctxfdi_signal_done(n);
	if (w & CTX_WAITERS)
		ctxfdi_futex_wake(n, WAKE_DONE);
}

/* What remains to do about a node that this thread made DONE, with the word w. */
static inline void announce(struct ctxfd *n, uint64_t w, struct cancel *c)
{
	if (w & (CTX_HOOK | CTX_RINGS | CTX_UNSIGNALLED | CTX_WAITERS))
		announce_to(n, w, c);
}

/*
 * The way down. True: n is PENDING and HELD by us, and there is something below it. False: n is DONE, with all below
 * it, and its fd shows it.
 */
static bool mark(struct ctxfd *n, struct cancel *c)
{
	uint64_t w = load_word(n), next;

	for (;;) {
		if (w & CTX_DONE) {
			if (w & CTX_UNSIGNALLED) /* by a cancel that has not come to it yet, or an expiry */
				ctxfdi_signal_done(n);
			return false;
		}
		if (w & CTX_PENDING) {
			w = ctxfdi_await_done(n, INT64_MAX);
			continue;
		}
		if (w & CTX_TIMED && too_late(c, n))
			next = (w & ~CTX_TIMED) | CTX_DONE | CTX_EXPIRED;
		else if (w & CTX_CHILDREN)
			next = (w & FLAGS_MASK) | CTX_PENDING | CTX_HELD | c->verdict;
		else
			next = (w & FLAGS_MASK & ~CTX_TIMED) | CTX_DONE | c->verdict;
		if (swap_word(n, &w, next))
			break;
	}
	if (!(next & CTX_HELD))
		announce(n, next, c);
	return next & CTX_HELD;
}

/*
 * The way back: everything below n is done, and n's hold ends. Returns n's word. In a walk n stays valid until the
 * parent through which the walk came is committed; its root, as long as the canceller owns it. ctxfdi_end_hooks has
 * neither, and must not touch n afterwards.
 */
static inline uint64_t commit(struct ctxfd *n)
{
	uint64_t w = load_word(n), new;

	claim(w & CTX_HELD);
	do
		new = (w & ~(CTX_PENDING | CTX_HELD | CTX_WALK_WAITERS | CTX_TIMED)) | CTX_DONE;
	while (!swap_word(n, &w, new));
	if (w & CTX_WALK_WAITERS)
		ctxfdi_futex_wake(n, WAKE_WALK);
	return new;
}

/* Goes through everything below root, which mark has left to us. */
static void walk(struct ctxfd *root, struct cancel *c)
{
	struct ctxfd *n = root, *child = n->children, *below;

	for (;;) {
		claim(has_flag(n, CTX_HELD)); /* so its list stands still */
		if (child) {
			uint64_t fixed = atomic_load_explicit(&child->word, memory_order_relaxed);

			__builtin_prefetch(child->next, 1);
			below = fixed & CTX_LINK ? &container_of(child, struct merge, link)->ctx : child;
			if (!mark(below, c)) {
				child = child->next;
				continue;
			}
			if (fixed & (CTX_LINK | CTX_MERGE))
				merge_of(below)->entered_by = child;
			n = below;
			child = n->children;
			continue;
		}
		announce(n, commit(n), c);
		if (n == root)
			return;
		child = load_word(n) & CTX_MERGE ? merge_of(n)->entered_by : n;
		n = list_owner(child);
		child = child->next;
	}
}

bool ctxfdi_hold_expired(struct ctxfd *n)
{
	uint64_t w = ctxfdi_look(n);

	do
		if (w & CTX_HELD || !(w & CTX_CHILDREN))
			return false;
	while (!swap_word(n, &w, w | CTX_HELD));
	return true;
}

/*
 * Does not announce n, which others may free once the hold is over. Nor need it: n was DONE before. The thread that
 * made it so has woken the sleepers, and a thread that has asked for the fd since then makes that readable.
 */
struct hook *ctxfdi_end_hooks(struct ctxfd *n)
{
	struct cancel c = { .now = n->deadline };

	claim(has_flag(n, CTX_HELD));
	for (struct ctxfd *child = n->children; child; child = child->next)
		if (load_word(child) & CTX_HOOK)
			mark(child, &c);
	commit(n);
	return c.ended;
}

struct ctxfd *ctxfdi_tell_hooks(struct hook *list)
{
	struct ctxfd *garbage = NULL;

	while (list)
		list = ctxfdi_kinds[list->ctx.kind].ended(list, &garbage);
	return garbage;
}

struct ctxfd *ctxfdi_cancel(struct ctxfd *ctx, uint64_t verdict)
{
	struct cancel c = { .verdict = verdict };

	/* A value context is const from its birth, and background too; somebody cast that away. */
	if (!ctx || load_word(ctx) & (CTX_VALUE | CTX_NEVER))
		return NULL;
	if (mark(ctx, &c))
		walk(ctx, &c);
	look_first(); /* what was rung may need the library's thread, which the child of a fork has yet to start */
	return ctxfdi_tell_hooks(c.ended);
}

void ctxfd_cancel_cause(struct ctxfd *ctx, int cause)
{
	struct ctxfd *garbage = ctxfdi_cancel(ctx, cause_bits(cause));

	if (garbage)
		ctxfdi_discard(garbage);
}

void ctxfd_cancel(struct ctxfd *ctx)
{
	ctxfd_cancel_cause(ctx, 0);
}

void ctxfd_close(struct ctxfd *ctx)
{
	if (!ctx)
		return;
	/*
	 * In this order: once we are the only owner, nobody else can give it children. And once more: until the list
	 * was empty, a thread with a node in it could become an owner (ctxfdi_own).
	 */
	if (!is_alone(ctx) || load_word(ctx) & (CTX_CHILDREN | CTX_VALUE | CTX_NEVER | CTX_LISTED) || !is_alone(ctx)) {
		ctxfd_cancel(ctx);
		ctxfd_unref(ctx);
		return;
	}
	/*
	 * A leaf that nobody else owns: its fd still tells those that poll it, and nobody can ask for its err any more.
	 */
	if (load_word(ctx) & CTX_UNSIGNALLED)
		ctxfdi_signal_done(ctx);
	ctxfdi_dispose(ctx);
}
