/* SPDX-License-Identifier: MIT */
/* Intrusive lists: what is in one can leave it without knowing which. No lock of its own. */
#ifndef LIST_H
#define LIST_H

#include <stddef.h>

#define container_of(member_at, type, member) ((type *)(void *)((char *)(member_at)-offsetof(type, member)))

struct link {
	struct link *next, **prev; /* prev: what points here; NULL: in no list */
};

static inline void list_push(struct link **list, struct link *l)
{
	l->next = *list;
	l->prev = list;
	if (l->next)
		l->next->prev = &l->next;
	*list = l;
}

static inline void list_remove(struct link *l)
{
	if (!l->prev)
		return;
	*l->prev = l->next;
	if (l->next)
		l->next->prev = l->prev;
	l->prev = NULL;
}

#endif
