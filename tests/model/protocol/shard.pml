/* SPDX-License-Identifier: MIT */
/* shard.h and shard.c. A block of shards is the contexts block to block + SHARDS - 1. */

/* In a d_step. to: the node in whose list n is, or was born to be. */
inline list_owner(n, to) {
	if
	:: ctx[n].shard != 0 -> touch(ctx[n].parent); to = shards_of(ctx[n].parent) + ctx[n].shard - 1
	:: else -> to = ctx[n].parent
	fi
}

inline make_block(p, block) {
	for (i : 0 .. SHARDS - 1) {
		make(block + i, p);
		ctx[block + i].word = SHARD;
		ctx[block + i].linked = true;
		ctx[block + i].next = (i + 1 < SHARDS -> block + i + 1 : 0);
		ctx[block + i].prev = (i > 0 -> next_of(block + i - 1) : children_of(p))
	}
	i = 0;
	ctx[block].left = SHARDS
}

inline free_block(block) {
	d_step {
		free_one(block);
		free_one(block + 1)
	}
}

inline split_children(p, block) {
	d_step { make_block(p, block) };
	lock_live(p, seen);
	if
	:: ok && !(seen & SHARDED) ->
		change = SHARDED + (ctx[p].children != 0 -> 0 : CHILDREN);
		d_step { mine(p); after = ctx[p].children; ctx[block + SHARDS - 1].next = after };
		if
		:: after != 0 -> d_step { touch(after); ctx[after].prev = next_of(block + SHARDS - 1) }
		:: else
		fi;
		d_step { mine(p); ctx[p].children = block };
		unlock(p)
	:: ok && (seen & SHARDED) -> unlock(p); free_block(block)
	:: else -> free_block(block)
	fi;
	d_step { forget() }
}

/* As if split_children had been there before the threads started. */
inline plant_shards(p, block) {
	make_block(p, block);
	ctx[block + SHARDS - 1].next = ctx[p].children;
	if
	:: ctx[p].children != 0 -> ctx[ctx[p].children].prev = next_of(block + SHARDS - 1)
	:: else
	fi;
	ctx[p].children = block;
	ctx[p].word = ctx[p].word | SHARDED | CHILDREN
}

/* The same of a child in a shard of p. */
inline plant_in_shard(n, p, shard_of_p) {
	plant(n, shard_of_p, FOREVER);
	ctx[n].parent = p;
	ctx[n].shard = 1 + shard_of_p - shards_of(p);
	goes_below(n, p)
}

/* ok: whether up, one of p's shards, was locked; seen: p's word. */
inline lock_shard(p) {
	if /* which shard is this thread's: any */
	:: up = shards_of(p)
	:: up = last_in(p)
	fi;
#if SHARD_LOCKED_AFTER_LOOK
	load_word(p, seen);
	lock_live(up, w);
	if
	:: ok && (seen & (PENDING | DONE)) -> unlock(up); ok = false
	:: else
	fi
#else
	lock_live(up, w);
	last = ok;
	load_word(p, seen);
	if
	:: last && (seen & (PENDING | DONE)) -> unlock(up); ok = false
	:: else -> ok = last
	fi;
	last = false
#endif
}

/* last: shard was the last of p's that had an owner or a child. */
inline last_shard(p) {
#if BLOCK_GOES_WITH_ANY_SHARD
	last = true
#else
	d_step { touch(p); touch(shards_of(p)); ctx[shards_of(p)].left--; last = (ctx[shards_of(p)].left == 0) }
#endif
}

/* last: p is the caller's to free. */
inline leave_shards(p) {
	lock(p);
	d_step { mine(p); touch(last_in(p)); after = ctx[last_in(p)].next; ctx[p].children = after };
	if
	:: after != 0 -> d_step { touch(after); ctx[after].prev = children_of(p) }
	:: else
	fi;
#if BLOCK_LEAVES_NO_CHILDREN
	change = -SHARDED - CHILDREN;
#else
	change = -SHARDED - (after != 0 -> 0 : CHILDREN);
#endif
	unlock(p);
	d_step { after = 0; last = ((new & (CHILDREN | ORPHAN)) == ORPHAN) }
}

/* In a d_step, under p's lock, when its last owner leaves. claimed: for the first time, and p has shards. */
inline claim_shards(p) {
	if
	:: (ctx[p].word & SHARDED) ->
		touch(shards_of(p));
#if SHARDS_ORPHANED_TWICE
		claimed = true;
#else
		claimed = !ctx[shards_of(p)].orphaned;
#endif
		ctx[shards_of(p)].orphaned = true
	:: else
	fi
}

/* drop of a shard, which has one owner, and never another. last: nobody is left. */
inline drop_shard(s) {
	load_word(s, w);
	do
	:: (w & CHILDREN) ->
		swap_word(s, w, w | LOCK);
		if
		:: ok -> d_step { touch(s); ctx[s].refs--; change = ORPHAN }; unlock(s); last = false; break
		:: else
		fi
	:: else -> last = true; break
	od;
	skip
}

/* last: p is the caller's to free. In C the caller gives the last count up, when it frees what else it has to. */
inline orphan_shards(p) {
	d_step { touch(p); head = shards_of(p); touch(head) };
#if !ORPHANING_COUNTS_NOTHING
	d_step { touch(head); ctx[head].left++ };
#endif
	child = head;
	do
	:: child < head + SHARDS ->
		drop_shard(child);
		if
		:: last -> last_shard(p)
		:: else
		fi;
		child++
	:: else -> break
	od;
	child = 0;
#if !ORPHANING_COUNTS_NOTHING
	d_step { touch(head); ctx[head].left--; last = (ctx[head].left == 0) };
#else
	d_step { touch(head); last = (ctx[head].left == 0) };
#endif
	if
	:: last -> leave_shards(p); free_block(head)
	:: else
	fi;
	head = 0
}
