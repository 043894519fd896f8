/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on the low half of a context's word, and waking those who do.
 *
 * Two kinds of sleepers share the futex and are told apart by its bitset, so that the end of a walk's hold does not
 * wake those who wait for the end of a context. Every sleep may end for no reason: the caller looks at the word again.
 */
#ifndef FUTEX_H
#define FUTEX_H

#include <stdint.h>

#include "core/context.h"

#define WAKE_DONE UINT32_C(1) /* those who set WAITERS */
#define WAKE_WALK UINT32_C(2) /* those who set WALK_WAITERS; and who naps, whom nobody need wake */

/* Sleeps while n's flags are those in w, until a wake of `bits` or CLOCK_MONOTONIC `until` (>= 0; INT64_MAX: none). */
void ctxfdi_futex_sleep(struct ctxfd *n, uint64_t w, int64_t until, uint32_t bits);

/* Wakes all. n may be freed memory: the kernel uses only its address, and a stranger who sleeps there looks again. */
void ctxfdi_futex_wake(struct ctxfd *n, uint32_t bits);

#endif
