/* SPDX-License-Identifier: MIT */
/*
 * The kinds of contexts, a row each. Through this table the tree serves kinds that it does not know: a kind has a
 * name, some flags, and functions that lower layers call, for instance when a context of that kind has ended or is
 * freed. Everything here is fixed.
 */
#ifndef KIND_H
#define KIND_H

#include <stdint.h>

struct ctxfd;
struct heap_node;
struct hook;

enum kind {
	KIND_BACKGROUND,
	KIND_TODO,
	KIND_CANCEL,
	KIND_DEADLINE,
	KIND_WITH_VALUE,
	KIND_WITHOUT_CANCEL,
	KIND_WITH_DISPATCHER,
	KIND_MERGED,
	KIND_LINK, /* of a merge to its second parent */
	KIND_AFTER_FUNC,
	KIND_WITH_FD,
	KIND_WITH_SIGNALS,
	KIND_WITH_PROCESS,
	KIND_IDLE,
	KIND_GRACE,
	KIND_SHARD_OF_CHILDREN,
	KIND_EXPIRY,
	KIND_POLLING,     /* a parked waiter: see calls/waiter.h */
	KIND_COND_WAIT,   /* another */
	KIND_CALLING,     /* another: see calls/call.c */
	KIND_GRACE_WATCH, /* the watch of a struct beside */
	KIND_DUMP,        /* a cursor: see dump.c */
	KINDS
};

struct kind_row {
	const char *name; /* for describe and dump */
	uint64_t flags;   /* those of its word that are fixed: see context.h */
	/*
	 * For what has HOOK: a cancel has ended all on the list, the first of which is of this kind, and their parents.
	 * Takes the first one, and as many of those behind it as it likes, and returns the rest of the list. What it
	 * takes may be freed by others at once. What it would free itself goes into *garbage, as by ctxfdi_detach.
	 */
	struct hook *(*ended)(struct hook *list, struct ctxfd **garbage);
	/*
	 * For what has RINGS: a cancel has ended n, a parked waiter, which stays where it is until this has returned.
	 * Runs in the walk, so it takes no lock whose holder may wait for long, or for a walk.
	 */
	void (*ring)(struct ctxfd *n);
	/*
	 * For what has an alarm in a dispatcher's heap: it was due at `now` or earlier, and is not set any more. Called
	 * under the dispatcher's lock, by the thread that runs it. Returns how many contexts that ended.
	 */
	int (*alarm)(struct heap_node *alarm, int64_t now);
	/* For a kind whose deadline is not known yet when n is made: the deadline, or INT64_MAX until it is known. */
	int64_t (*deadline)(struct ctxfd *n);
	/* For what is LISTED, and for an expiry: leaves the lists outside of the tree. n is about to be freed. */
	void (*before_free)(struct ctxfd *n);
	/* For what has DISCARD: gives up all but n's own memory. May run code of the program; no lock is held. */
	void (*discard)(struct ctxfd *n);
};

extern const struct kind_row ctxfdi_kinds[KINDS];

#endif
