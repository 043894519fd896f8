/* SPDX-License-Identifier: MIT */
/* The library's own dispatcher, which its thread runs. */
#ifndef LIBRARY_H
#define LIBRARY_H

#include "dispatch/loop.h"

extern struct ctxfd_dispatcher ctxfdi_library;
extern _Atomic bool ctxfdi_library_runs; /* its thread runs */

/* Not under a lock. Makes sure that its thread runs: 0 or -errno. */
int ctxfdi_library_start(void);

/* The same, where there is nobody to tell of an error: after one, the next look at a context tries again (look.h). */
void ctxfdi_library_resume(void);

/* Leaves that to the next look. */
void ctxfdi_library_resume_later(void);

/* As ctxfdi_library_start, but quick if the thread runs already. */
static inline int library_ensure(void)
{
	/* Acquire pairs with the release in ctxfdi_library_start: the fds are there. */
	return atomic_load_explicit(&ctxfdi_library_runs, memory_order_acquire) ? 0 : ctxfdi_library_start();
}

/*
 * Stores the dispatcher of ctx, which ctx keeps alive; if it is the library's own, makes sure that it runs. 0 or
 * -errno.
 */
static inline int dispatcher_of(const struct ctxfd *ctx, struct ctxfd_dispatcher **d)
{
	*d = nearest_value(ctx) ? ctxfdi_dispatcher_above(ctx) : NULL;
	if (*d)
		return 0;
	*d = &ctxfdi_library;
	return library_ensure();
}

/* Around a fork. Before it: waits until the library's thread is not in the tree, and takes all locks of this layer. */
void ctxfdi_dispatch_before_fork(void);
void ctxfdi_dispatch_after_fork(void);
void ctxfdi_dispatch_after_fork_in_child(void);

#endif
