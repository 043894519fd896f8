/* SPDX-License-Identifier: MIT */
/* What is seen of a context's end, by looking. */
#ifndef LOOK_H
#define LOOK_H

#include "core/context.h"

/*
 * Returns n's word, after it has ended n if its deadline has passed, and made n's fd readable if n is DONE. Whoever
 * answers a question about n's end asks here first.
 */
uint64_t ctxfdi_look(struct ctxfd *n);

/* The deadline in effect, as far as it is known by now: INT64_MAX if there is none. */
int64_t ctxfdi_deadline_of(const struct ctxfd *ctx);

/*
 * What the next look at any context calls first, or NULL. Set where the library's thread is gone and may be needed: in
 * the child of a fork, once exit has ended that thread, and if it could not be replaced (library.c). What it calls
 * resets it. Relaxed: what it calls takes a lock before it looks at anything.
 */
extern void (*_Atomic ctxfdi_first_look)(void);

static inline void look_first(void)
{
	void (*call)(void) = atomic_load_explicit(&ctxfdi_first_look, memory_order_relaxed);

	if (call)
		call();
}

#endif
