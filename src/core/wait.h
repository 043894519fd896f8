/* SPDX-License-Identifier: MIT */
/* Sleeping until a context is done. */
#ifndef WAIT_H
#define WAIT_H

#include "core/context.h"

/* How to sleep until a context ends. */
struct sleep {
	uint64_t word; /* while its flags are these */
	int64_t limit; /* CLOCK_MONOTONIC; INT64_MAX: none */
};

/*
 * Before a sleep that n's end is to cut short. True: sleep as *s says, then call this again. False: n is DONE, and its
 * fd signalled, or CLOCK_MONOTONIC `until` has come. In either case s->word is n's word, with WAITERS.
 */
bool ctxfdi_prepare_sleep(struct ctxfd *n, int64_t until, struct sleep *s);

/* Sleeps until n is DONE and its fd signalled, or CLOCK_MONOTONIC `until` (INT64_MAX: no limit). Returns its word. */
uint64_t ctxfdi_await_done(struct ctxfd *n, int64_t until);

#endif
