/* SPDX-License-Identifier: MIT */
/*
 * What the programs in this folder share: each is a command that gives up when its time is over, or at Ctrl-C.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <ctxfd.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* A context that ends with SIGINT. NULL and errno on failure. */
static inline struct ctxfd *command_until_interrupt(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	return ctxfd_with_signals(ctxfd_background(), &set);
}

/* A context that also ends after so many milliseconds; 0: it is done already. NULL and errno on failure. */
static inline struct ctxfd *command_context(const char *milliseconds)
{
	struct ctxfd *interrupt = command_until_interrupt(), *ctx;

	if (!interrupt)
		return NULL;
	ctx = ctxfd_with_timeout(interrupt, atoi(milliseconds) * CTXFD_MSEC);
	ctxfd_unref(interrupt); /* its child keeps it alive */
	return ctx;
}

/* Says what went wrong; err is 0, an err of a context or another -errno. Returns the exit code of the command. */
static inline int command_end(const char *name, int err)
{
	if (err)
		fprintf(stderr, "%s: %s\n", name, ctxfd_strerror(err));
	return err ? 1 : 0;
}

#endif
