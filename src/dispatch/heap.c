/* SPDX-License-Identifier: MIT */
/* A pairing heap, after Fredman, Sedgewick, Sleator and Tarjan (1986); without recursion. */
#include "dispatch/heap.h"

#include <stddef.h>

/* Makes one heap of two, either of which may be empty. */
static struct heap_node *meld(struct heap_node *a, struct heap_node *b)
{
	if (!a || !b)
		return a ? a : b;
	if (b->at < a->at) {
		struct heap_node *t = a;
		a = b;
		b = t;
	}
	b->next = a->child;
	b->prev = a;
	if (b->next)
		b->next->prev = b;
	a->child = b;
	a->next = a->prev = NULL;
	return a;
}

/* Makes one heap of a list of siblings: in pairs from the left, then the pairs from the right. */
static struct heap_node *meld_all(struct heap_node *list)
{
	struct heap_node *pairs = NULL, *all = NULL;

	while (list) {
		struct heap_node *a = list, *b = a->next, *pair;

		list = b ? b->next : NULL;
		pair = meld(a, b);
		pair->next = pairs;
		pair->prev = NULL;
		pairs = pair;
	}
	while (pairs) {
		struct heap_node *next = pairs->next;

		pairs->next = NULL;
		all = meld(all, pairs);
		pairs = next;
	}
	return all;
}

void ctxfdi_heap_add(struct heap_node **heap, struct heap_node *a, int64_t at)
{
	*a = (struct heap_node){ .at = at, .set = true, .kind = a->kind };
	*heap = meld(*heap, a);
}

void ctxfdi_heap_remove(struct heap_node **heap, struct heap_node *a)
{
	if (!a->set)
		return;
	a->set = false;
	if (a == *heap) {
		*heap = meld_all(a->child);
		return;
	}
	if (a->prev->child == a)
		a->prev->child = a->next;
	else
		a->prev->next = a->next;
	if (a->next)
		a->next->prev = a->prev;
	if (a->child)
		*heap = meld(*heap, meld_all(a->child));
}
