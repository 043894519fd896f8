/* SPDX-License-Identifier: MIT */
/*
 * A dispatcher of the test's own: what is registered below `home` is done when the test says so. For one file of a
 * program.
 */
#ifndef LOOP_H
#define LOOP_H

#include "harness.h"

static struct ctxfd_dispatcher *loop;
static const struct ctxfd *home;

/* Returns the dispatcher's fd. */
static inline int make_loop(void)
{
	loop = ctxfd_dispatcher_new();
	require(loop);
	home = ctxfd_with_dispatcher(ctxfd_background(), loop);
	require(home);
	return ctxfd_dispatcher_fd(loop);
}

static inline int run_loop(void)
{
	return ctxfd_dispatcher_run(loop);
}

/* For thread_start: gives what the run returned. */
static inline void *run_loop_once(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)run_loop();
}

static inline void free_loop(void)
{
	ctxfd_unref(home);
	ctxfd_dispatcher_free(loop);
	home = NULL;
	loop = NULL;
}

#endif
