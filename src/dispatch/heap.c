/* SPDX-License-Identifier: MIT */
/* A pairing heap, after Fredman, Sedgewick, Sleator and Tarjan (1986); without recursion. */
#include "dispatch/heap.h"

#include <stddef.h>

/* Makes one heap of two, either of which may be empty. */
static struct alarm *meld(struct alarm *a, struct alarm *b)
{
	if (!a || !b)
		return a ? a : b;
	if (b->at < a->at) {
		struct alarm *t = a;
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
static struct alarm *meld_all(struct alarm *list)
{
	struct alarm *pairs = NULL, *all = NULL;

	while (list) {
		struct alarm *a = list, *b = a->next, *pair;

		list = b ? b->next : NULL;
		pair = meld(a, b);
		pair->next = pairs;
		pair->prev = NULL;
		pairs = pair;
	}
	while (pairs) {
		struct alarm *next = pairs->next;

		pairs->next = NULL;
		all = meld(all, pairs);
		pairs = next;
	}
	return all;
}

void ctxfdi_alarm_set(struct alarm **heap, struct alarm *a, int64_t at)
{
	*a = (struct alarm){ .at = at, .set = true };
	*heap = meld(*heap, a);
}

void ctxfdi_alarm_clear(struct alarm **heap, struct alarm *a)
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
