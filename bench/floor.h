/* SPDX-License-Identifier: MIT */
/*
 * The least that a child of a tree shared by threads can be: memory that goes into its parent's list under a lock, and
 * out of it under the lock again. Malloc, free and two locked instructions are most of what it takes; the lock is given
 * back by a plain store.
 */
#ifndef FLOOR_H
#define FLOOR_H

#include "bench.h"

#include <stdatomic.h>

struct floor_list {
	_Atomic uint64_t state;
	struct floor_item *first;
};

struct floor_item {
	struct floor_item *next, **prev;
	_Atomic uint64_t state;
};

static inline void floor_lock(struct floor_list *l)
{
	uint64_t w = atomic_load_explicit(&l->state, memory_order_acquire);

	do
		w &= ~UINT64_C(1);
	while (!atomic_compare_exchange_weak_explicit(&l->state, &w, w | 1, memory_order_acq_rel,
	                                              memory_order_acquire));
}

static inline void floor_unlock(struct floor_list *l)
{
	atomic_store_explicit(&l->state, 0, memory_order_release);
}

static inline struct floor_item *floor_make(struct floor_list *l, size_t size)
{
	struct floor_item *item = malloc(size);

	atomic_init(&item->state, 0);
	floor_lock(l);
	item->next = l->first;
	item->prev = &l->first;
	if (item->next)
		item->next->prev = &item->next;
	l->first = item;
	floor_unlock(l);
	return item;
}

static inline void floor_free(struct floor_list *l, struct floor_item *item)
{
	floor_lock(l);
	*item->prev = item->next;
	if (item->next)
		item->next->prev = item->prev;
	floor_unlock(l);
	free(item);
}

#endif
