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

struct alarm {
	int64_t at;
	bool set;
	struct alarm *child; /* the first of those that are later */
	struct alarm *next;  /* the next child of the same parent */
	struct alarm *prev;  /* the previous one, or the parent */
};

/* The heap is its earliest alarm, NULL when it is empty. */
void ctxfdi_alarm_set(struct alarm **heap, struct alarm *a, int64_t at);
void ctxfdi_alarm_clear(struct alarm **heap, struct alarm *a); /* nothing if it is not set */

#endif
