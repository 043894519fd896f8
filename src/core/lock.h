/* SPDX-License-Identifier: MIT */
/*
 * Changing a word, and the lock on a node's children: bit LOCK of the word (context.h says what it guards and how HELD
 * differs).
 *
 * A word is changed by compare-and-swap while it has no LOCK, and by nobody but the lock's owner while it has. So the
 * owner gives the lock back by a plain store, which also sets the flags that it has to change (there is a first child,
 * or no child left). That makes a context a fifth cheaper than a second locked instruction would.
 *
 * WAITING FOR LOCK. A thread spins briefly. If the owner does not come, since it was preempted, the thread takes naps,
 * most of them longer than the one before. Nobody wakes it: a store cannot ask whether somebody sleeps, and after the
 * store the node may be freed.
 *
 * WAITING FOR HELD. A thread sets WALK_WAITERS, and sleeps until the walk that gives HELD back sees the flag.
 */
#ifndef LOCK_H
#define LOCK_H

#include "core/context.h"

/* Waits until LOCK is gone from n's word, which is returned. */
uint64_t ctxfdi_await_unlock(struct ctxfd *n);

/* One step of waiting for HELD to be gone from n's word, which was seen as w. Returns the word anew. */
uint64_t ctxfdi_await_walk(struct ctxfd *n, uint64_t w);

/*
 * Every change of a word but the lock owner's is one of these. Acquire: we see what was written before the word became
 * what it is. Release: whoever sees the new word sees what we wrote before. On failure *w is the word as it is now; if
 * it had LOCK, this has waited until that was gone.
 */
static inline bool swap_word(struct ctxfd *n, uint64_t *w, uint64_t new)
{
	if (*w & CTX_LOCK) {
		*w = ctxfdi_await_unlock(n);
		return false;
	}
	return atomic_compare_exchange_weak_explicit(&n->word, w, new, memory_order_acq_rel, memory_order_acquire);
}

/* Changes flags alone, and returns the word as it is then. */
static inline uint64_t change_flags(struct ctxfd *n, uint64_t clear, uint64_t set)
{
	uint64_t w = load_word(n), new;

	do
		new = (w & ~clear) | set;
	while (!swap_word(n, &w, new));
	return new;
}

/* Under the lock, which the caller did not get at the first try. */
static inline void count_meeting(struct ctxfd *n)
{
	claim(has_flag(n, CTX_LOCK));
	if (n->meetings < UINT8_MAX)
		n->meetings++;
}

/* Takes n's lock, waiting for a walk that holds n too. Returns its word before. */
static inline uint64_t lock(struct ctxfd *n)
{
	uint64_t w = load_word(n);
	bool met = false;

	for (;; met = true) {
		if (w & CTX_HELD)
			w = ctxfdi_await_walk(n, w);
		else if (swap_word(n, &w, w | CTX_LOCK))
			break;
	}
	if (met)
		count_meeting(n);
	return w;
}

/* Takes n's lock unless n has been marked or is done: then returns false, at once. *seen is n's word before. */
static inline bool lock_live(struct ctxfd *n, uint64_t *seen)
{
	uint64_t w = load_word(n);
	bool met = false;

	for (;; met = true) {
		*seen = w;
		if (w & (CTX_PENDING | CTX_DONE))
			return false;
		if (swap_word(n, &w, w | CTX_LOCK))
			break;
	}
	if (met)
		count_meeting(n);
	return true;
}

/*
 * Gives n's lock back, and returns the word as it is then. `change` is the sum of the flags to set, less those to
 * clear, of those that belong to the lock: CHILDREN, ORPHAN, SHARDED, ALARMED, LIBRARY. Nobody else changes these, so
 * no carry can reach another bit. Release pairs with every acquiring look at the word. From here on others may free n.
 */
static inline uint64_t unlock(struct ctxfd *n, uint64_t change)
{
	uint64_t w = atomic_load_explicit(&n->word, memory_order_relaxed) - CTX_LOCK + change;

	claim(has_flag(n, CTX_LOCK));
	atomic_store_explicit(&n->word, w, memory_order_release);
	return w;
}

#endif
