/* SPDX-License-Identifier: MIT */
/* Forks: how many there were, and what is done around one. */
#ifndef FORK_H
#define FORK_H

#include <stdint.h>

/*
 * How many forks lie between the process that loaded the library and this one. Written while the child has one thread.
 */
extern uint32_t ctxfdi_forks;

/* What the layers above do around a fork; it is in kind.c, where the table of kinds is. */
struct fork_row {
	void (*before)(void);
	void (*in_parent)(void);
	void (*in_child)(void); /* ctxfdi_forks is the child's already */
};

extern const struct fork_row ctxfdi_around_fork;

#endif
