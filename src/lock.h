/* SPDX-License-Identifier: MIT */
/*
 * The lock on a node's children: bit LOCK of its word (context.h says what it guards and how HELD differs).
 *
 * It spins briefly and then sleeps in the kernel, so that a holder who was preempted costs nobody a time slice.
 * Unlocking is the same step that says what the holder changed (a first child, no child left).
 *
 * WHO WAKES WHOM. Who has to wait sets CONTENDED before it sleeps. Whoever gives LOCK or HELD back and saw the flag
 * wakes all sleepers; who is woken and finds the lock taken again sets the flag again. A walk that gives HELD back
 * clears the flag. An unlock leaves it, since that would be a second step on a node that may be freed by then: the next
 * to take the lock clears it, and thereby only what its predecessor has seen.
 */
#ifndef LOCK_H
#define LOCK_H

#include "context.h"
#include "futex.h"

/* One step of waiting for LOCK and HELD to be gone from n's word, which was seen as w. Returns the word anew. */
uint64_t lock_pause(struct ctxfd *n, uint64_t w, unsigned *step);

/* Under the lock, which was had after so many steps of waiting. */
static inline void count_contention(struct ctxfd *n, unsigned steps)
{
	if (steps && n->contended < UINT8_MAX)
		n->contended++;
}

/* Takes n's lock, waiting for a walk that holds n too. Returns its word before. */
static inline uint64_t lock(struct ctxfd *n)
{
	uint64_t w = load_word(n);
	unsigned step = 0;

	for (;;) {
		if (w & (LOCK | HELD))
			w = lock_pause(n, w, &step);
		else if (swap_word(n, &w, (w & ~CONTENDED) | LOCK))
			break;
	}
	count_contention(n, step);
	return w;
}

/* Takes n's lock unless n has been marked or is done: then returns false, at once. *seen is n's word before. */
static inline bool lock_live(struct ctxfd *n, uint64_t *seen)
{
	uint64_t w = load_word(n);
	unsigned step = 0;

	for (;;) {
		*seen = w;
		if (w & (PENDING | DONE))
			return false;
		if (w & LOCK)
			w = lock_pause(n, w, &step);
		else if (swap_word(n, &w, (w & ~CONTENDED) | LOCK))
			break;
	}
	count_contention(n, step);
	return true;
}

/*
 * Gives n's lock back, and returns the word as it is then. What the holder changed goes along in the same step:
 * CHILDREN and SHARDED belong to the lock, so adding or subtracting the flag sets or clears it. n may be freed by
 * others from here on.
 */
static inline uint64_t unlock(struct ctxfd *n, uint64_t change)
{
	uint64_t w;

	change -= LOCK;
	w = atomic_fetch_add_explicit(&n->word, change, memory_order_acq_rel);
	if (w & CONTENDED)
		futex_wake(n, WAKE_LOCK);
	return w + change;
}

#endif
