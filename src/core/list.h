/* SPDX-License-Identifier: MIT */
/* Intrusive lists: an item can leave its list without knowing which one that is. No lock: the list's owner has one. */
#ifndef LIST_H
#define LIST_H

#include <stddef.h>

#define container_of(member_at, type, member) ((type *)(void *)((char *)(member_at)-offsetof(type, member)))

/*
 * For whatever has a `next` and a `prev`, the address of the pointer that points to it: a link, or a context in its
 * parent's list. Puts item in where `at` points, and takes it out. Arguments are evaluated more than once.
 */
#define list_insert(at, item)                               \
	do {                                                \
		(item)->next = *(at);                       \
		(item)->prev = (at);                        \
		if ((item)->next)                           \
			(item)->next->prev = &(item)->next; \
		*(at) = (item);                             \
	} while (0)

#define list_take_out(item)                                \
	do {                                               \
		*(item)->prev = (item)->next;              \
		if ((item)->next)                          \
			(item)->next->prev = (item)->prev; \
	} while (0)

struct link {
	struct link *next, **prev; /* prev: what points here; NULL: in no list */
};

static inline void list_push(struct link **list, struct link *l)
{
	list_insert(list, l);
}

static inline void list_remove(struct link *l)
{
	if (!l->prev)
		return;
	list_take_out(l);
	l->prev = NULL;
}

/* First in, first out. */
struct queue {
	struct link *first, **end; /* end: where the next one goes */
};

static inline void queue_init(struct queue *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static inline void queue_append(struct queue *q, struct link *l)
{
	l->next = NULL;
	l->prev = q->end;
	*q->end = l;
	q->end = &l->next;
}

static inline void queue_remove(struct queue *q, struct link *l)
{
	if (q->end == &l->next)
		q->end = l->prev;
	list_remove(l);
}

/* Puts all of `from` behind what is in `to`. */
static inline void queue_move(struct queue *to, struct queue *from)
{
	if (!from->first)
		return;
	*to->end = from->first;
	from->first->prev = to->end;
	to->end = from->end;
	queue_init(from);
}

#endif
