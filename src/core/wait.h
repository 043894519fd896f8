/* SPDX-License-Identifier: MIT */
/* Sleeping until a context is done. */
#ifndef WAIT_H
#define WAIT_H

#include "core/context.h"

struct sleep {
	uint64_t word;
	int64_t limit;
};

/*
 * Before a sleep that n's end is to cut short. True: sleep while n's flags are those of s->word, until s->limit at most
 * (INT64_MAX: no limit), then come again. False: n is DONE, signalled as well, or CLOCK_MONOTONIC `until` has come.
 * s->word is n's word in either case.
 */
bool ctxfdi_prepare_sleep(struct ctxfd *n, int64_t until, struct sleep *s);

/* Sleeps until n is DONE, signalled as well, or CLOCK_MONOTONIC `until` (INT64_MAX: no limit). Returns its word. */
uint64_t ctxfdi_await_done(struct ctxfd *n, int64_t until);

#endif
