/* SPDX-License-Identifier: MIT */
/* Shards of a child list; shard.h says what they are and why they are safe. */
#include "core/shard.h"

#include <stdlib.h>

void ctxfdi_split_children(struct ctxfd *p)
{
	struct shards *block = malloc_quietly(sizeof *block);
	struct ctxfd *last;
	uint64_t seen;

	if (!block)
		return;
	for (int i = 0; i < SHARDS; i++) {
		struct ctxfd *s = &block->shard[i].node;

		init_node(s, p, KIND_SHARD_OF_CHILDREN);
		atomic_init(&s->word, flags_of(KIND_SHARD_OF_CHILDREN));
		s->deadline = INT64_MAX;
		s->linked = true;
		s->next = i + 1 < SHARDS ? &block->shard[i + 1].node : NULL;
		s->prev = i ? &block->shard[i - 1].node.next : &p->children;
	}
	init_node(&block->owner, p, KIND_SHARD_OF_CHILDREN);
	atomic_init(&block->owner.word, flags_of(KIND_SHARD_OF_CHILDREN));
	atomic_init(&block->left, SHARDS);
	block->orphaned = false;
	last = &block->shard[SHARDS - 1].node;
	if (lock_live(p, &seen)) {
		uint64_t change = 0;

		if (!(seen & CTX_SHARDED)) {
			change = CTX_SHARDED + (has_children(p, seen) ? 0 : CTX_CHILDREN);
			last->next = p->children;
			if (last->next)
				last->next->prev = &last->next;
			p->children = &block->shard[0].node;
			block = NULL;
		}
		unlock(p, change);
	}
	free(block);
}

struct ctxfd *ctxfdi_lock_shard(struct ctxfd *p, uint64_t *seen)
{
	static _Atomic unsigned threads;
	static _Thread_local unsigned mine; /* one more than the number of this thread's shard */
	struct ctxfd *s;
	uint64_t own;
	bool locked;

	if (!mine)
		mine = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % SHARDS;
	s = &shards_of(p)->shard[mine - 1].node;
	locked = lock_live(s, &own);
	*seen = load_word(p);
	if (locked && *seen & (CTX_PENDING | CTX_DONE)) {
		unlock(s, 0);
		locked = false;
	}
	return locked ? s : NULL;
}

bool ctxfdi_last_shard(struct ctxfd *shard)
{
	struct shards *block = shards_of(shard->parent);

	/* Acquire and release: whoever frees the block is behind all who have used a shard. */
	return atomic_fetch_sub_explicit(&block->left, 1, memory_order_acq_rel) == 1;
}

bool ctxfdi_leave_shards(struct ctxfd *p)
{
	struct ctxfd *last = &shards_of(p)->shard[SHARDS - 1].node;
	uint64_t w = lock(p) & ~CTX_SHARDED;

	p->children = last->next;
	if (last->next)
		last->next->prev = &p->children;
	w = unlock(p, -CTX_SHARDED - (has_children(p, w) ? 0 : CTX_CHILDREN));
	return (w & (CTX_CHILDREN | CTX_ORPHAN)) == CTX_ORPHAN;
}
