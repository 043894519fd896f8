/* SPDX-License-Identifier: MIT */
/*
 * A child list for many threads.
 *
 * When threads keep meeting at a parent's lock, the parent is given shards: hidden children, among which the threads
 * spread theirs. A shard is a node like any other: a cancel's walk, holds and commits know nothing of it, and it
 * has a lock and a list of its own. What is special is where it lives and how it goes:
 *
 *   - The shards of a parent are one block of memory and stand first in its list. So `children` points at the block as
 *     long as there is one, and may then be read without the lock.
 *   - The parent owns them. When its own last owner leaves, the shards become orphans, as any node does whose last
 *     owner leaves; the last shard to be empty takes the block out of the list. Both happen once. A parent that has
 *     ended may have owners again later (ctxfdi_own), but nothing is linked below it any more, so it needs no shards.
 *   - A shard has no deadline and no fd, so it ends only by a walk that comes through its parent. Whoever has its lock
 *     and then finds the parent LIVE may link: a walk that marks the parent now has yet to mark the shard, for which it
 *     needs the lock.
 *
 * After-funcs do not go into shards: those of one context run in the order in which they were registered.
 */
#ifndef SHARD_H
#define SHARD_H

#include "core/context.h"
#include "core/lock.h"

#define SHARDS 16

/* Two shards never share a cache line, nor a pair of lines that is fetched together. */
struct shard {
	struct ctxfd node;
	char apart[128 - sizeof(struct ctxfd)];
};

struct shards {
	struct shard shard[SHARDS];
	struct ctxfd owner;    /* no shard: stands for p's last owner on the list of what is to be freed (own.c) */
	_Atomic unsigned left; /* how many shards have an owner or a child; and one for `owner` while that is listed */
	bool orphaned;         /* p has lost its last owner once; under p's lock */
};

static inline struct shards *shards_of(const struct ctxfd *p)
{
	return container_of(p->children, struct shards, shard[0].node);
}

/* Gives p shards, unless it has them, has ended, or there is no memory: it works without. */
void ctxfdi_split_children(struct ctxfd *p);

/* Locks this thread's shard of p, which is SHARDED. NULL: p is not LIVE. Stores p's word in *seen. */
struct ctxfd *ctxfdi_lock_shard(struct ctxfd *p, uint64_t *seen);

/*
 * To be called once for each shard, and for the block's `owner`, when it has no owner and no child any more. True: it
 * was the last one, so the block must leave p's list and be freed.
 */
bool ctxfdi_last_shard(struct ctxfd *shard);

/* Takes the block out of p's list. True: p has no owner and no child left, and is the caller's to free. */
bool ctxfdi_leave_shards(struct ctxfd *p);

/* Under p's lock, which saw p's word: where p's expiry stands, if it is ALARMED. */
static inline struct ctxfd **expiry_place(struct ctxfd *p, uint64_t seen)
{
	claim(has_flag(p, CTX_LOCK));
	return seen & CTX_SHARDED ? &shards_of(p)->shard[SHARDS - 1].node.next : &p->children;
}

/* Under p's lock, which saw p's word: where in its list a new child goes, behind what is hidden. */
static inline struct ctxfd **list_head(struct ctxfd *p, uint64_t seen)
{
	struct ctxfd **place = expiry_place(p, seen);

	return seen & CTX_ALARMED ? &(*place)->next : place;
}

/* The same: whether CHILDREN is to be in p's word. */
static inline bool has_children(struct ctxfd *p, uint64_t seen)
{
	return seen & CTX_SHARDED || *list_head(p, seen);
}

static inline uint8_t shard_number(const struct ctxfd *shard)
{
	return (uint8_t)(1 + (container_of(shard, struct shard, node) - shards_of(shard->parent)->shard));
}

/* The node in whose list n is, or was born to be. */
static inline struct ctxfd *list_owner(const struct ctxfd *n)
{
	struct ctxfd *p = node_of(n->parent);

	return n->shard ? &shards_of(p)->shard[n->shard - 1].node : p;
}

#endif
