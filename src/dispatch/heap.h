/* SPDX-License-Identifier: MIT */
/*
 * Alarms by time: an intrusive pairing heap. Setting one costs a comparison, and clearing one that is not the earliest
 * costs a few pointers, which is what happens to nearly every alarm. No lock of its own: whoever owns the heap guards
 * it.
 */
#ifndef HEAP_H
#define HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct heap_node {
	int64_t at;
	bool set;
	uint8_t kind;            /* whose it is: an enum kind; fixed */
	struct heap_node *child; /* the first of those that are later */
	struct heap_node *next;  /* the next child of the same parent */
	struct heap_node *prev;  /* the previous one, or the parent */
};

/* The heap is its earliest alarm, NULL when it is empty. */
void ctxfdi_heap_add(struct heap_node **heap, struct heap_node *a, int64_t at);
void ctxfdi_heap_remove(struct heap_node **heap, struct heap_node *a); /* nothing if it is not set */

#endif
