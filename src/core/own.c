/* SPDX-License-Identifier: MIT */
/* How contexts are owned, and how they leave the tree when they are not any more. context.h says what guards what. */
#include <stdlib.h>

#include "core/done.h"
#include "core/lock.h"
#include "core/own.h"
#include "core/shard.h"

/* ---- Owning ------------------------------------------------------------------------------------------------------ */

/*
 * Under the lock of p, which is SHARDED and has lost its last owner. True: for the first time, so the caller must call
 * orphan_shards.
 */
static bool claim_shards(struct ctxfd *p)
{
	struct shards *block = shards_of(p);
	bool first = !block->orphaned;

	claim(has_flag(p, CTX_LOCK));
	block->orphaned = true;
	return first;
}

/*
 * p has lost its last owner, and with it its shards lose theirs. Returns what the caller must dispose of, as if it were
 * an empty shard.
 */
static struct ctxfd *orphan_shards(struct ctxfd *p)
{
	struct shards *block = shards_of(p);

	/* One count for `owner`, which keeps the block until the caller has disposed of that. */
	atomic_fetch_add_explicit(&block->left, 1, memory_order_relaxed);
	for (int i = 0; i < SHARDS; i++)
		if (ctxfdi_drop(&block->shard[i].node))
			ctxfdi_last_shard(&block->shard[i].node);
	return &block->owner;
}

/*
 * The caller is ctx's only owner and gives its reference up. Others may become owners meanwhile, through what is in
 * ctx's list or by a list that ctx is in. Returns what drop does.
 */
static struct ctxfd *drop_last(struct ctxfd *ctx)
{
	uint64_t w = load_word(ctx), change = 0;
	bool sharded = false;
	uint32_t one = 1;

	while (w & CTX_CHILDREN) {
		if (!swap_word(ctx, &w, w | CTX_LOCK))
			continue;
		if (atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) == 1) {
			change = CTX_ORPHAN;
			sharded = w & CTX_SHARDED && claim_shards(ctx);
		}
		unlock(ctx, change);
		return sharded ? orphan_shards(ctx) : NULL;
	}
	/* The list is empty now, but a thread that came through it meanwhile may have become an owner. */
	if (w & CTX_LISTED ? !atomic_compare_exchange_strong_explicit(&ctx->refs, &one, 0, memory_order_acq_rel,
	                                                              memory_order_acquire)
	                   : !is_alone(ctx))
		return ctxfdi_drop(ctx);
	return ctx;
}

struct ctxfd *ctxfdi_drop(struct ctxfd *ctx)
{
	uint32_t refs;

	if (load_word(ctx) & CTX_NEVER)
		return NULL;
	/* Acquire pairs with the release of the owners who left before. */
	refs = atomic_load_explicit(&ctx->refs, memory_order_acquire);
	while (refs > 1)
		if (atomic_compare_exchange_weak_explicit(&ctx->refs, &refs, refs - 1, memory_order_acq_rel,
		                                          memory_order_acquire))
			return NULL;
	return drop_last(ctx);
}

/*
 * Who may call it. Either n has ended, and the caller has a node in n's list that stays there; so an owner who finds
 * the list empty, and then nobody but itself, is alone for good. Or the caller has found n, LISTED, in a list that n
 * leaves before it is freed. Only in the latter case the result can be false.
 */
bool ctxfdi_own(struct ctxfd *n)
{
	uint32_t refs = atomic_load_explicit(&n->refs, memory_order_relaxed);

	while (refs > 0)
		if (atomic_compare_exchange_weak_explicit(&n->refs, &refs, refs + 1, memory_order_relaxed,
		                                          memory_order_relaxed))
			return true;
	return ctxfdi_own_parent(n);
}

/* If n has children it is not being freed, as no owner frees what has some. */
bool ctxfdi_own_parent(struct ctxfd *n)
{
	uint64_t w = load_word(n);
	bool alive;

	while (!swap_word(n, &w, w | CTX_LOCK))
		continue;
	alive = w & CTX_CHILDREN;
	if (alive) /* adds, and does not store 1: others may have done the same */
		atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	unlock(n, alive && w & CTX_ORPHAN ? -CTX_ORPHAN : 0);
	return alive;
}

const struct ctxfd *ctxfd_ref(const struct ctxfd *ctx)
{
	/* Relaxed: whoever calls has a reference already, or is promised one. */
	if (ctx && !(load_word(ctx) & CTX_NEVER))
		atomic_fetch_add_explicit(&mutable(ctx)->refs, 1, memory_order_relaxed);
	return ctx;
}

/* ---- Freeing ----------------------------------------------------------------------------------------------------- */

/* Puts n, unless it is NULL, on the list of what is to be freed, which goes through `values`: nobody looks there. */
static void push(struct ctxfd **list, struct ctxfd *n)
{
	if (n) {
		n->values = *list;
		*list = n;
	}
}

/*
 * Takes n out of p's list: true. If it was the last child of a p without owners, puts p on *list, which is ours to free
 * then. With if_live, an n that is DONE stays in p's list: false. (Under p's lock no walk can end n, so one that is
 * LIVE here will never be DONE.)
 */
static bool leave_list(struct ctxfd *n, struct ctxfd *p, bool if_live, struct ctxfd **list)
{
	uint64_t w = lock(p);

	if (if_live && load_word(n) & CTX_DONE) {
		unlock(p, 0);
		return false;
	}
	list_take_out(n);
	w = unlock(p, has_children(p, w) ? 0 : -CTX_CHILDREN);
	if ((w & (CTX_CHILDREN | CTX_ORPHAN)) == CTX_ORPHAN)
		push(list, p);
	return true;
}

/* Takes ctx, and its expiry if it has one, out of the lists that are outside of the tree. */
static void detach_outside(struct ctxfd *ctx, uint64_t w, struct ctxfd **list)
{
	if (w & CTX_LISTED)
		ctxfdi_kinds[ctx->kind].before_free(ctx);
	if (w & CTX_ALARMED) { /* the expiry is all that is left in the list */
		struct ctxfd *expiry = ctx->children;

		ctxfdi_kinds[KIND_EXPIRY].before_free(expiry);
		push(list, expiry);
	}
}

/* Takes ctx, which has no owner and no child, out of everything, and puts on the list what only it kept. */
static void detach_node(struct ctxfd *ctx, struct ctxfd **list)
{
	uint64_t w = load_word(ctx);

	if (w & (CTX_LISTED | CTX_ALARMED))
		detach_outside(ctx, w, list);
	if (ctx->linked)
		leave_list(ctx, list_owner(ctx), false, list);
	if (w & CTX_MERGE && merge_of(ctx)->link.linked)
		leave_list(&merge_of(ctx)->link, merge_of(ctx)->link.parent, false, list);
	if (w & CTX_HAS_FD)
		ctxfdi_close_done_fd(ctx);
	if (ctx->counted)
		push(list, ctxfdi_drop(ctx->parent));
}

/*
 * The same for a shard. If this was the last one, returns the block's memory, which begins with its first shard; else
 * NULL.
 */
static struct ctxfd *detach_shard(struct ctxfd *shard, struct ctxfd **list)
{
	struct ctxfd *p = shard->parent, *block = p->children;

	if (!ctxfdi_last_shard(shard))
		return NULL;
	if (ctxfdi_leave_shards(p))
		push(list, p);
	return block;
}

static void discard_one(struct ctxfd *ctx)
{
	if (load_word(ctx) & CTX_DISCARD)
		ctxfdi_kinds[ctx->kind].discard(ctx);
	free(ctx);
}

/*
 * Frees all on the list, and everything above that only they kept alive: in a loop, however deep the tree is. If
 * garbage is not NULL, nothing is freed: what would be is put on that list instead, out of everything else.
 */
static void dispose_all(struct ctxfd *list, struct ctxfd **garbage)
{
	struct ctxfd *ctx;

	while ((ctx = list)) {
		list = ctx->values;
		if (load_word(ctx) & CTX_SHARD)
			ctx = detach_shard(ctx, &list);
		else
			detach_node(ctx, &list);
		if (!ctx)
			continue;
		if (garbage) {
			*garbage = ctx;
			garbage = &ctx->values;
			*garbage = NULL;
		} else {
			discard_one(ctx);
		}
	}
}

void ctxfdi_dispose(struct ctxfd *dead)
{
	dead->values = NULL;
	dispose_all(dead, NULL);
}

static struct ctxfd **end_of_list(struct ctxfd **list)
{
	while (*list)
		list = &(*list)->values;
	return list;
}

/* A fork may wait for the end of this. So it frees nothing and runs no code of the program: both could wait for it. */
void ctxfdi_detach(struct ctxfd *dead, struct ctxfd **garbage)
{
	dead->values = NULL;
	dispose_all(dead, end_of_list(garbage));
}

void ctxfdi_give_up(struct ctxfd *ctx, struct ctxfd **garbage)
{
	struct ctxfd *dead = ctx ? ctxfdi_drop(ctx) : NULL;

	if (dead)
		ctxfdi_detach(dead, garbage);
}

void ctxfdi_discard(struct ctxfd *garbage)
{
	while (garbage) {
		struct ctxfd *next = garbage->values;

		discard_one(garbage);
		garbage = next;
	}
}

/* Takes ctx out of the tree, and puts on the list what only it kept. If it is DONE, it stays: false. */
static bool leave_live(struct ctxfd *ctx, struct ctxfd **list)
{
	if (load_word(ctx) & CTX_DONE || (ctx->linked && !leave_list(ctx, list_owner(ctx), true, list)))
		return false;
	if (ctx->counted)
		push(list, ctxfdi_drop(ctx->parent));
	return true;
}

bool ctxfdi_dispose_live(struct ctxfd *ctx)
{
	struct ctxfd *list = NULL;

	if (!leave_live(ctx, &list))
		return false;
	free(ctx);
	dispose_all(list, NULL);
	return true;
}

bool ctxfdi_detach_live(struct ctxfd *ctx, struct ctxfd **garbage)
{
	struct ctxfd *list = NULL;

	if (!leave_live(ctx, &list))
		return false;
	push(garbage, ctx);
	dispose_all(list, end_of_list(garbage));
	return true;
}

struct ctxfd *ctxfdi_unpark(struct ctxfd *n)
{
	struct ctxfd *dead = NULL;

	leave_list(n, list_owner(n), false, &dead);
	return dead;
}

void ctxfd_unref(const struct ctxfd *ctx)
{
	struct ctxfd *dead = ctx ? ctxfdi_drop(mutable(ctx)) : NULL;

	if (dead)
		ctxfdi_dispose(dead);
}
