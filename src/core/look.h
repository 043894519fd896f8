/* SPDX-License-Identifier: MIT */
/* What is seen of a context's end, by looking. */
#ifndef LOOK_H
#define LOOK_H

#include "core/context.h"

/*
 * Lets the clock have its say, and if n is done makes sure that its fd shows it. Returns n's word. Whoever answers a
 * question about n's end asks here first.
 */
uint64_t ctxfdi_look(struct ctxfd *n);

/* The deadline in effect, as far as it is known by now: INT64_MAX if there is none. */
int64_t ctxfdi_deadline_of(const struct ctxfd *ctx);

/*
 * In the child of a fork, and once exit has ended the library's thread: what the first look at any context calls,
 * before it looks; else NULL. Relaxed: it is set by the thread that is to see it, and reset by what it calls.
 */
extern void (*_Atomic ctxfdi_first_look)(void);

static inline void look_first(void)
{
	void (*call)(void) = atomic_load_explicit(&ctxfdi_first_look, memory_order_relaxed);

	if (call)
		call();
}

#endif
