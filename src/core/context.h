/* SPDX-License-Identifier: MIT */
/*
 * What a context is made of and who may touch which part. Everything else in src builds on this. What begins with
 * ctxfdi_ is internal, and shared by several files; what begins with ctxfd_ is public.
 *
 * THE WORD. One atomic 64-bit word holds state, flags and cause, so that a single compare-and-swap decides who ended a
 * context, how, and what is left to do about it. Its low half is also the futex that everybody sleeps on.
 *
 *   LIVE     neither PENDING nor DONE. The cause half holds the cause that its deadline would give, so that latching an
 *            expiry changes state bits only.
 *   PENDING  a cancel has marked it and is at work below. The verdict is in the word, but err still says 0: it becomes
 *            visible once everything below is done. No child can be linked any more; a new one is born done.
 *   DONE     for good.
 *
 * THE CHILD LIST (`children`, and the children's `next` and `prev`) belongs to whoever set one of two bits in the word:
 *
 *   LOCK  a spinlock, held for a few instructions to link or unlink one child. Nobody else may change the word
 *         meanwhile (lock.h). No system call under it, and no second LOCK; only a dump, which reads a list under it,
 *         takes the LOCK of something in that list as well, so always downward (dump.c).
 *   HELD  a cancel is at work below this node, from the moment it marked it until it commits it DONE; or a
 *         dispatcher is ending the after-funcs of an expired one. The list is frozen: whoever wants to take a
 *         child out waits for the walk (nobody can want to put one in). A walk takes holds strictly from parent to
 *         child, and so does whoever waits for one; so no two can wait for each other.
 *
 * Hidden children stand first in the list: the shards of a node that many threads use (shard.h), then the expiry of a
 * node that has after-funcs and a deadline (after.c). Their flags, SHARDED, ALARMED and LIBRARY, belong to the LOCK.
 *
 * A LINKED CHILD IS VALID MEMORY: a child leaves its parent's list before it is freed, and leaving takes the LOCK.
 *
 * LIFETIME. `refs` counts the owners, all of them: whoever may be called back on a context is one until that returns.
 * What keeps a node beyond its owners is CHILDREN, "somebody is in the list" (except the expiry, which goes with its
 * node). The last owner of a node without children frees it. The last owner of one with children sets ORPHAN under the
 * LOCK, and the child that leaves last frees it. Both bits are in the word, so exactly one of the two sees that it is
 * the one to free. A thread that has a node of its own in the list may become an owner again (ctxfdi_own), which ends
 * ORPHAN. So may a thread that finds a LISTED node in a list outside of the tree, which the node leaves before it is
 * freed. Such a node's last owner, if there are no children, brings `refs` to 0 first: from then on nobody becomes an
 * owner.
 *
 * Fields marked "fixed" are written by the constructor and never change.
 */
#ifndef CONTEXT_H
#define CONTEXT_H

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "ctxfd.h"
#include "core/kind.h"
#include "core/list.h"

/*
 * Flags in the low half of the word. In comments they are called without CTX_. Those that are fixed, VALUE to LISTED,
 * SHARD, DISCARD and RINGS, are the kind's, and there from birth. The others:
 *
 *                set by                          cleared by        goes with
 *   PENDING      mark                            commit, look      HELD and CHILDREN; never DONE
 *   DONE         mark, commit, look; at birth    nobody            never PENDING, TIMED
 *   EXPIRED      mark, look; at birth            nobody            DONE, or PENDING by an idle timeout or a grace
 *   TIMED        at birth                        who sets DONE     LIVE or PENDING: look may come before the commit
 *   HAS_FD       done_fd                         nobody            any
 *   UNSIGNALLED  done_fd, publish_anew           signal_done       HAS_FD, or is about to; may be spurious
 *   WAITERS      prepare_sleep                   nobody            any; may be spurious
 *   LOCK         lock, lock_live, drop, own      unlock            HELD only in drop and own: they leave the list alone
 *   HELD         mark, hold_expired              commit            PENDING, or DONE by the clock; CHILDREN
 *   WALK_WAITERS await_walk                      commit            HELD; may be spurious
 *   CHILDREN     link_child, split_children      who leaves last   any; as it was while there is LOCK
 *   ORPHAN       drop                            own               CHILDREN, or it is being freed
 *   SHARDED      split_children                  leave_shards      CHILDREN
 *   NEAR         look                            nobody            TIMED, or DONE after that
 *   ALARMED      add_expiry, while it is LIVE    nobody            any
 *   LIBRARY      add_expiry, while it is LIVE    nobody            ALARMED
 *
 * CHILDREN, ORPHAN, SHARDED, ALARMED and LIBRARY are changed under the LOCK, as it is given back. What may be
 * spurious does no harm: an fd is made readable twice, or nobody is there to be woken.
 */
#define CTX_PENDING      (UINT64_C(1) << 0)
#define CTX_DONE         (UINT64_C(1) << 1)
#define CTX_EXPIRED      (UINT64_C(1) << 2) /* it ends because time is up: err is -ETIMEDOUT */
#define CTX_TIMED        (UINT64_C(1) << 3) /* not DONE: the clock can end it */
#define CTX_HAS_FD       (UINT64_C(1) << 4) /* somebody asked for its fd */
#define CTX_UNSIGNALLED  (UINT64_C(1) << 5) /* its fd is not readable yet; with DONE, whoever sees this makes it so */
#define CTX_WAITERS      (UINT64_C(1) << 6) /* somebody may sleep until it is DONE */
#define CTX_LOCK         (UINT64_C(1) << 7)
#define CTX_HELD         (UINT64_C(1) << 8)
#define CTX_WALK_WAITERS (UINT64_C(1) << 9) /* with HELD: somebody may sleep until it is gone */
#define CTX_CHILDREN     (UINT64_C(1) << 10)
#define CTX_ORPHAN       (UINT64_C(1) << 11)
#define CTX_VALUE        (UINT64_C(1) << 12) /* not a node: with_value or without_cancel (fixed) */
#define CTX_NEVER        (UINT64_C(1) << 13) /* background or todo (fixed) */
#define CTX_MERGE        (UINT64_C(1) << 14) /* the ctx of a struct merge (fixed) */
#define CTX_LINK         (UINT64_C(1) << 15) /* the link of a struct merge (fixed) */
#define CTX_HOOK         (UINT64_C(1) << 16) /* the ctx of a struct hook: its kind is told when it has ended (fixed) */
#define CTX_LISTED       (UINT64_C(1) << 17) /* a list outside of the tree has it: others may own it by that (fixed) */
#define CTX_SHARDED      (UINT64_C(1) << 18) /* its first children are shards; see shard.h */
#define CTX_SHARD        (UINT64_C(1) << 19) /* it is one (fixed) */
#define CTX_NEAR         (UINT64_C(1) << 20) /* its deadline was less than a second away: ask the exact clock */
#define CTX_ALARMED      (UINT64_C(1) << 21) /* behind the shards comes its expiry; see after.c */
#define CTX_LIBRARY      (UINT64_C(1) << 22) /* with ALARMED: the library's dispatcher has an alarm; see after.c */
#define CTX_DISCARD      (UINT64_C(1) << 23) /* its kind has something to give up when it is freed (fixed) */
#define CTX_RINGS        (UINT64_C(1) << 24) /* it is parked: the walk that ends it rings it, by its kind (fixed) */

#define CAUSE_SHIFT 32
#define FLAGS_MASK  UINT64_C(0xffffffff)

struct ctxfd {
	_Atomic uint64_t word;
	_Atomic uint32_t refs;
	_Atomic int fd; /* the done fd; negative: none. Set by whoever makes it first; done.c says when it changes */
	union {
		struct {                        /* a node of the tree */
			struct ctxfd *next;     /* under the parent's lock */
			struct ctxfd **prev;    /* what points here; under the parent's lock */
			struct ctxfd *children; /* under the own lock */
			int64_t deadline;       /* the one in effect; INT64_MAX: none; fixed */
		};
		struct {                    /* a value context; all fixed */
			struct ctxfd *node; /* the nearest node above; alive as long as parent is */
			const void *key;    /* NULL: without_cancel */
			void *value;
			void (*destroy)(void *value);
		};
	};
	struct ctxfd *parent;   /* as given to the constructor, perhaps a value context; fixed */
	struct ctxfd *values;   /* the nearest value above, or NULL; fixed */
	_Atomic uint32_t forks; /* of the process that made fd; see done.c */
	uint8_t kind;           /* enum kind: its row of ctxfdi_kinds; fixed */
	bool linked : 1;        /* in the list of the nearest node above; fixed */
	bool counted : 1;       /* as one of parent's owners; fixed */
	bool graced : 1;        /* its deadline may be known late: it is a grace, or below one; fixed */
	uint8_t shard;          /* which shard of the list, from 1; 0: in the list itself; fixed */
	uint8_t meetings;       /* how often threads met at its lock; under the lock */
};

/* A context with two parents: a child of the first, and by its link a child of the second. */
struct merge {
	struct ctxfd ctx;
	struct ctxfd link;
	struct ctxfd *entered_by; /* ctx or link: by which the walk that holds ctx came to it; that walk's alone */
};

/*
 * A context that nothing above ends. `watch` is parked in the list of its parent, whose values it has and which it
 * keeps alive, and tells of the parent's end.
 */
struct beside {
	struct ctxfd ctx;
	struct ctxfd watch;
};

/* A node without children whose kind is told when it has ended: see `ended` in kind.h. */
struct hook {
	struct ctxfd ctx;
	struct hook *next; /* in the list of the cancel that ended it, then its kind's */
};

static inline struct ctxfd *mutable(const struct ctxfd *ctx)
{
	return (struct ctxfd *)(uintptr_t)ctx;
}

static inline uint64_t load_word(const struct ctxfd *n)
{
	return atomic_load_explicit(&n->word, memory_order_acquire);
}

/*
 * What a comment claims of the caller, checked where CTXFD_DEBUG is defined: `make check-asan` does.
 */
#ifdef CTXFD_DEBUG
#include <assert.h>
#define claim(what) assert(what)
#else
#define claim(what) ((void)0)
#endif

/* For claims: whether n has one of the flags. */
static inline bool has_flag(const struct ctxfd *n, uint64_t flags)
{
	return atomic_load_explicit(&n->word, memory_order_relaxed) & flags;
}

/* The node whose err, fd and deadline are ctx's. */
static inline struct ctxfd *node_of(const struct ctxfd *ctx)
{
	uint64_t w = atomic_load_explicit(&ctx->word, memory_order_relaxed); /* VALUE is fixed */
	return w & CTX_VALUE ? ctx->node : mutable(ctx);
}

/* The first value context that a lookup from ctx looks at. */
static inline struct ctxfd *nearest_value(const struct ctxfd *ctx)
{
	return ctx->kind == KIND_WITH_VALUE || ctx->kind == KIND_WITH_DISPATCHER ? mutable(ctx) : ctx->values;
}

/*
 * Fills in a new node, except its place in the tree, its word and its deadline. Field by field, since calloc would be
 * slower (bench/make.c).
 */
static inline void init_node(struct ctxfd *n, const struct ctxfd *parent, enum kind kind)
{
	atomic_init(&n->refs, 1);
	atomic_init(&n->fd, -1);
	atomic_init(&n->forks, 0);
	n->children = NULL;
	n->parent = mutable(parent);
	n->values = nearest_value(parent);
	n->kind = (uint8_t)kind;
	n->linked = n->counted = false;
	n->graced = parent->graced;
	n->shard = n->meetings = 0;
}

/* What the word of a new one begins with. */
static inline uint64_t flags_of(enum kind kind)
{
	return ctxfdi_kinds[kind].flags;
}

static inline struct merge *merge_of(struct ctxfd *n)
{
	return container_of(n, struct merge, ctx);
}

static inline uint64_t cause_bits(int cause)
{
	return (uint64_t)(uint32_t)cause << CAUSE_SHIFT;
}

static inline uint64_t cause_of(uint64_t w)
{
	return w & ~FLAGS_MASK;
}

/*
 * malloc that keeps errno, for calls that return -ENOMEM or do without the memory. Clang believes that malloc does not
 * change errno; without the barrier it would leave out the line that restores it.
 */
static inline void *malloc_quietly(size_t size)
{
	int saved = errno;
	void *p = malloc(size);

	if (!p) {
		__asm__ volatile("" : : : "memory");
		errno = saved;
	}
	return p;
}

/* How a context has ended, by its word, which is no longer LIVE. */
static inline int err_of(uint64_t w)
{
	return w & CTX_EXPIRED ? -ETIMEDOUT : -ECANCELED;
}

#endif
