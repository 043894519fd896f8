/* SPDX-License-Identifier: MIT */
/*
 * The tree: how contexts come into it and leave it. context.h says what guards what; how they end is in cancel.c.
 */
#include <stdlib.h>

#include "core/context.h"
#include "core/lock.h"
#include "core/shard.h"

/* ---- Making ------------------------------------------------------------------------------------------------------ */

static struct ctxfd background = { .word = NEVER, .fd = -1, .deadline = INT64_MAX, .kind = BACKGROUND };
static struct ctxfd todo = { .word = NEVER, .fd = -1, .deadline = INT64_MAX, .kind = TODO };

const struct ctxfd *ctxfd_background(void)
{
	return &background;
}

const struct ctxfd *ctxfd_todo(void)
{
	return &todo;
}

const struct ctxfd *ctxfd_ref(const struct ctxfd *ctx)
{
	/* Relaxed: whoever calls has a reference already, or is promised one. */
	if (ctx && !(load_word(ctx) & NEVER))
		atomic_fetch_add_explicit(&mutable(ctx)->refs, 1, memory_order_relaxed);
	return ctx;
}

/* Under p's lock. p's word is seen, but for LOCK. Returns what changes in it. */
static uint64_t link_child(struct ctxfd *p, uint64_t seen, struct ctxfd *child)
{
	struct ctxfd **head = list_head(p, seen);
	uint64_t change = has_children(p, seen) ? 0 : CHILDREN;

	child->linked = true;
	child->next = *head;
	child->prev = head;
	if (child->next)
		child->next->prev = &child->next;
	*head = child;
	return change;
}

/*
 * A new node's fields but for its place in the tree, its word and its deadline. Not calloc: see the benchmark of make.
 */
void ctxfdi_init_node(struct ctxfd *n, const struct ctxfd *parent, enum kind kind)
{
	atomic_init(&n->refs, 1);
	atomic_init(&n->fd, -1);
	atomic_init(&n->fork_generation, 0);
	n->children = NULL;
	n->parent = mutable(parent);
	n->values = nearest_value(parent);
	n->kind = (uint8_t)kind;
	n->linked = n->counted = false;
	n->shard = n->contended = 0;
}

/* Keeps parent alive by counting as one of its owners, where a place in its list does not do. */
static void count_on(struct ctxfd *n, const struct ctxfd *parent)
{
	n->counted = true;
	ctxfd_ref(parent);
}

/* How often threads must have met at a parent's lock before it gets shards. */
#define CROWDED 16

/* Locks the list that a child of p goes into. NULL: p is not LIVE. *seen: p's word, known to be so under the lock. */
static struct ctxfd *lock_list(struct ctxfd *p, uint64_t flags, uint64_t *seen)
{
	/* The shards of what has ended may be gone. */
	if ((*seen & (SHARDED | PENDING | DONE)) == SHARDED && !(flags & HOOK))
		return ctxfdi_lock_shard(p, seen);
	return lock_live(p, seen) ? p : NULL;
}

/*
 * Makes n, whose memory the caller gives, a child of parent. Its deadline must be earlier than the parent's, or
 * INT64_MAX: then the parent's is in effect. `flags` are fixed ones. False: n is born done.
 */
bool ctxfdi_adopt(struct ctxfd *n, const struct ctxfd *parent, enum kind kind, uint64_t flags, int64_t deadline,
                  int cause)
{
	struct ctxfd *p = node_of(parent), *list;
	uint64_t seen, word = flags | (deadline == INT64_MAX ? 0 : TIMED | cause_bits(cause));

	ctxfdi_init_node(n, parent, kind);
	n->deadline = deadline < p->deadline ? deadline : p->deadline;
	seen = load_word(p);
	if (seen & NEVER) {
		atomic_init(&n->word, word);
		count_on(n, parent);
	} else if ((list = lock_list(p, flags, &seen))) {
		bool crowded = list == p && p->contended >= CROWDED && !(seen & SHARDED);

		if (deadline == INT64_MAX)
			word |= (seen & TIMED) | cause_of(seen);
		atomic_init(&n->word, word);
		/*
		 * A value context above is kept by its count, since the list is not its own. Count before others can
		 * know n.
		 */
		if (parent != p)
			count_on(n, parent);
		if (list != p)
			n->shard = shard_number(list);
		unlock(list, link_child(list, list == p ? seen : 0, n));
		if (crowded)
			ctxfdi_split_children(p);
	} else {
		/* Born done, with the parent's verdict, and in no list. */
		atomic_init(&n->word, flags | DONE | (seen & EXPIRED) | cause_of(seen));
		count_on(n, parent);
		return false;
	}
	return true;
}

static struct ctxfd *derive(const struct ctxfd *parent, enum kind kind, int64_t deadline, int cause)
{
	struct ctxfd *n = malloc(sizeof *n);

	if (n)
		ctxfdi_adopt(n, parent, kind, 0, deadline, cause);
	return n;
}

static bool parent_is_null(const void *parent)
{
	if (!parent)
		errno = EINVAL;
	return !parent;
}

struct ctxfd *ctxfd_with_cancel(const struct ctxfd *parent)
{
	if (parent_is_null(parent))
		return NULL;
	return derive(parent, CANCEL, INT64_MAX, 0);
}

struct ctxfd *ctxfd_with_deadline(const struct ctxfd *parent, int64_t deadline)
{
	return ctxfd_with_deadline_cause(parent, deadline, 0);
}

struct ctxfd *ctxfd_with_timeout(const struct ctxfd *parent, int64_t timeout)
{
	return ctxfd_with_timeout_cause(parent, timeout, 0);
}

static struct ctxfd *with_deadline(const struct ctxfd *parent, int64_t deadline, int cause, bool passed)
{
	struct ctxfd *p = node_of(parent), *n;

	if (deadline >= p->deadline)
		return derive(parent, CANCEL, INT64_MAX, 0);
	/* The parent's end goes first, so if the clock is to decide, it decides about the parent first. */
	if (passed)
		ctxfdi_settle(p);
	n = derive(parent, DEADLINE, deadline, cause);
	if (n && passed)
		ctxfdi_settle(n);
	return n;
}

struct ctxfd *ctxfd_with_deadline_cause(const struct ctxfd *parent, int64_t deadline, int cause)
{
	if (parent_is_null(parent))
		return NULL;
	return with_deadline(parent, deadline, cause, !ctxfdi_is_far(deadline) && deadline <= ctxfd_now());
}

struct ctxfd *ctxfd_with_timeout_cause(const struct ctxfd *parent, int64_t timeout, int cause)
{
	int64_t now;

	if (parent_is_null(parent))
		return NULL;
	now = ctxfd_now();
	return with_deadline(parent, timeout > INT64_MAX - now ? INT64_MAX : now + timeout, cause, timeout <= 0);
}

/* Ends n, which nobody but b's walk can know yet, by the verdict of its first parent; unless that walk was faster. */
static void inherit_end(struct ctxfd *n, uint64_t verdict)
{
	uint64_t w = load_word(n);

	while (!(w & DONE) && !swap_word(n, &w, MERGE | DONE | (verdict & EXPIRED) | cause_of(verdict)))
		continue;
}

struct ctxfd *ctxfd_merge(const struct ctxfd *a, const struct ctxfd *b)
{
	struct ctxfd *first, *second, *n;
	struct merge *m;
	uint64_t seen, other, word;

	if (parent_is_null(a) || parent_is_null(b))
		return NULL;
	m = malloc(sizeof *m);
	if (!m)
		return NULL;
	n = &m->ctx;
	first = node_of(a);
	second = node_of(b);
	ctxfdi_init_node(n, a, MERGED);
	ctxfdi_init_node(&m->link, second, MERGED);
	atomic_init(&m->link.word, LINK);
	n->deadline = first->deadline <= second->deadline ? first->deadline : second->deadline;
	seen = ctxfdi_settle(first);
	other = ctxfdi_settle(second);
	word = MERGE | (first->deadline <= second->deadline ? (seen & TIMED) | cause_of(seen)
	                                                    : (other & TIMED) | cause_of(other));
	atomic_init(&n->word, word);

	/* The second parent first: its walk may end n from here on, before n is in the first one's list. */
	if (seen & (PENDING | DONE)) {
		inherit_end(n, seen);
	} else if (!(other & NEVER)) {
		if (lock_live(second, &other)) {
			unlock(second, link_child(second, other, &m->link));
		} else {
			inherit_end(n, other);
		}
	}
	if (seen & NEVER || !lock_live(first, &seen)) {
		if (!(seen & NEVER))
			inherit_end(n, seen);
		count_on(n, a);
		return n;
	}
	if (a != first)
		count_on(n, a);
	unlock(first, link_child(first, seen, n));
	return n;
}

/* ---- Owning ------------------------------------------------------------------------------------------------------ */

/* Whether the caller is ctx's only owner. Acquire pairs with the release of the owners who left before. */
static bool is_alone(const struct ctxfd *ctx)
{
	return atomic_load_explicit(&ctx->refs, memory_order_acquire) == 1;
}

/*
 * Gives up the reference of ctx's only owner, who may become two meanwhile, through what is in ctx's list or by a list
 * that ctx is in. Returns what drop does.
 */
static struct ctxfd *drop_last(struct ctxfd *ctx)
{
	uint64_t w = load_word(ctx), change = 0;
	bool sharded = false;
	uint32_t one = 1;

	while (w & CHILDREN) {
		if (!swap_word(ctx, &w, w | LOCK))
			continue;
		if (atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) == 1) {
			change = ORPHAN;
			sharded = w & SHARDED && claim_shards(ctx);
		}
		unlock(ctx, change);
		return sharded ? ctxfdi_orphan_shards(ctx) : NULL;
	}
	/* Who came meanwhile through the list, which is empty now, may have left owners behind. */
	if (w & LISTED ? !atomic_compare_exchange_strong_explicit(&ctx->refs, &one, 0, memory_order_acq_rel,
	                                                          memory_order_acquire)
	               : !is_alone(ctx))
		return ctxfdi_drop(ctx);
	return ctx;
}

/*
 * Gives up one owner of ctx. Returns what the caller is the one to free, for reap or detach: ctx if there is no other
 * owner and nothing below it, or a shard of it; else NULL.
 */
struct ctxfd *ctxfdi_drop(struct ctxfd *ctx)
{
	uint32_t refs;

	if (load_word(ctx) & NEVER)
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
 * Makes the caller an owner of n, whose owners may all have gone. Either n has ended, and the caller has a node in n's
 * list that stays there; so an owner who finds the list empty, and then nobody but itself, is alone for good. Or the
 * caller has found n, LISTED, in a list that n leaves before it is freed. False, for the latter only: n is being freed.
 */
bool ctxfdi_own(struct ctxfd *n)
{
	uint32_t refs = atomic_load_explicit(&n->refs, memory_order_relaxed);
	bool alive;
	uint64_t w;

	while (refs > 0)
		if (atomic_compare_exchange_weak_explicit(&n->refs, &refs, refs + 1, memory_order_relaxed,
		                                          memory_order_relaxed))
			return true;
	w = load_word(n);
	while (!swap_word(n, &w, w | LOCK))
		continue;
	alive = w & CHILDREN;
	if (alive) /* added: others may have done the same */
		atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	unlock(n, alive && w & ORPHAN ? -ORPHAN : 0);
	return alive;
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
 * Takes n out of p's list. If it was the last child of a p without owners, p is ours to free. With if_live, a DONE n
 * stays where it is and this is false: under p's lock no walk can end it, so if it was LIVE it never will be DONE.
 */
static bool leave_list(struct ctxfd *n, struct ctxfd *p, bool if_live, struct ctxfd **list)
{
	uint64_t w = lock(p);

	if (if_live && load_word(n) & DONE) {
		unlock(p, 0);
		return false;
	}
	*n->prev = n->next;
	if (n->next)
		n->next->prev = n->prev;
	w = unlock(p, has_children(p, w) ? 0 : -CHILDREN);
	if ((w & (CHILDREN | ORPHAN)) == ORPHAN)
		push(list, p);
	return true;
}

/* From what is outside of the tree. */
static void detach_outside(struct ctxfd *ctx, uint64_t w, struct ctxfd **list)
{
	if (w & LISTED)
		ctxfdi_kinds[ctx->kind].before_free(ctx);
	if (w & ALARMED) { /* it is all that there is in the list */
		struct ctxfd *expiry = ctx->children;

		ctxfdi_kinds[EXPIRY].before_free(expiry);
		push(list, expiry);
	}
}

/* Takes ctx, which has no owner and no child, out of everything, and puts on the list what only it kept. */
static void detach_node(struct ctxfd *ctx, struct ctxfd **list)
{
	uint64_t w = load_word(ctx);

	if (w & (LISTED | ALARMED))
		detach_outside(ctx, w, list);
	if (ctx->linked)
		leave_list(ctx, list_owner(ctx), false, list);
	if (w & MERGE && merge_of(ctx)->link.linked)
		leave_list(&merge_of(ctx)->link, merge_of(ctx)->link.parent, false, list);
	if (w & HAS_FD)
		ctxfdi_close_done_fd(ctx);
	if (ctx->counted)
		push(list, ctxfdi_drop(ctx->parent));
}

/*
 * The same for a shard. Returns the block's memory, which begins with its first shard, if this was the last one.
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
	if (load_word(ctx) & DISCARD)
		ctxfdi_kinds[ctx->kind].discard(ctx);
	free(ctx);
}

/*
 * Frees all on the list, and everything above that only they kept: a loop, however deep they hang. With garbage, what
 * is to be freed is only taken out of everything, and put there.
 */
static void reap_list(struct ctxfd *list, struct ctxfd **garbage)
{
	struct ctxfd *ctx;

	while ((ctx = list)) {
		list = ctx->values;
		if (load_word(ctx) & SHARD)
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

/* Frees what drop returned, or an after-func that is DONE; and what only that kept. */
void ctxfdi_reap(struct ctxfd *dead)
{
	dead->values = NULL;
	reap_list(dead, NULL);
}

/*
 * The same in two steps. detach takes all out of the tree, and runs neither code of the program nor the allocator's, so
 * that a fork can wait for its end. Returns what is left, for discard.
 */
struct ctxfd *ctxfdi_detach(struct ctxfd *dead)
{
	struct ctxfd *garbage = NULL;

	dead->values = NULL;
	reap_list(dead, &garbage);
	return garbage;
}

void ctxfdi_discard(struct ctxfd *garbage)
{
	while (garbage) {
		struct ctxfd *next = garbage->values;

		discard_one(garbage);
		garbage = next;
	}
}

/* Frees a hook's ctx and what only that kept, unless it is DONE: then it stays, and this is false. */
bool ctxfdi_reap_live(struct ctxfd *ctx)
{
	struct ctxfd *list = NULL;

	if (load_word(ctx) & DONE || (ctx->linked && !leave_list(ctx, list_owner(ctx), true, &list)))
		return false;
	if (ctx->counted)
		push(&list, ctxfdi_drop(ctx->parent));
	free(ctx);
	reap_list(list, NULL);
	return true;
}

void ctxfd_unref(const struct ctxfd *ctx)
{
	struct ctxfd *dead = ctx ? ctxfdi_drop(mutable(ctx)) : NULL;

	if (dead)
		ctxfdi_reap(dead);
}

void ctxfd_close(struct ctxfd *ctx)
{
	if (!ctx)
		return;
	/* In this order: once we are the only owner nobody else can give it children. See own for the third look. */
	if (!is_alone(ctx) || load_word(ctx) & (CHILDREN | VALUE | NEVER | LISTED) || !is_alone(ctx)) {
		ctxfd_cancel(ctx);
		ctxfd_unref(ctx);
		return;
	}
	/*
	 * A bare leaf: who waits on its fd still hears of it, and nobody is left who could ask whether it was
	 * cancelled.
	 */
	if (load_word(ctx) & UNSIGNALLED)
		ctxfdi_signal_done(ctx);
	ctxfdi_reap(ctx);
}
