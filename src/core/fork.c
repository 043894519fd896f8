/* SPDX-License-Identifier: MIT */
/* The one place where the library hears of a fork. */
#include "core/fork.h"

#include <pthread.h>

uint32_t ctxfdi_forks;

static void in_child(void)
{
	ctxfdi_forks++;
	ctxfdi_around_fork.in_child();
}

/*
 * Registered before main: fork calls what was registered last first, so the handlers of a program, or of a library that
 * uses this one, come before ours. They may wait for a lock whose holder is on its way into a dispatcher. And before
 * the program's own constructors, which may use the library and fork: where it is static, they would otherwise run
 * first. (101 is the first priority that is not reserved.) This can fail for want of memory at program start; then a
 * forked child takes its parent's fds for its own.
 */
__attribute__((constructor(101))) static void watch_forks(void)
{
	pthread_atfork(ctxfdi_around_fork.before, ctxfdi_around_fork.in_parent, in_child);
}
