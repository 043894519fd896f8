/* SPDX-License-Identifier: MIT */
/*
 * The loop of the calls that move something through a descriptor: try without waiting; if that says EAGAIN, poll; and
 * try again. So what a try has consumed is never lost to a cancellation.
 *
 * ERRORS. Two are passing. EINTR: a signal's handler has run. EAGAIN: not yet; the next try comes when poll says so,
 * and after a few that got nothing a millisecond later. After either ctx is asked, so its end bounds them. All others
 * end the call.
 *
 * PTHREAD_CANCEL acts where a call begins and where it waits.
 */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#include "core/context.h"

/* What is tried. */
struct attempt {
	ssize_t (*now)(void *call); /* one try that does not wait: its result, or -errno */
	void *call;
	int fd;
	int events;       /* of poll, when the next try is due */
	bool only_once;   /* EAGAIN ends the call, too */
	bool polls_first; /* if it expects to wait: see attempt.c. Only for what comes in */
};

/* What the try that got something returned, err, or -errno. Keeps errno. */
ssize_t ctxfdi_attempt(const struct ctxfd *ctx, const struct attempt *a);

#endif
