/* SPDX-License-Identifier: MIT */
/*
 * Sleeping on the low half of a context's word or at another one, and waking those who do.
 *
 * At a context's word two kinds of sleepers share the futex and are told apart by its bitset, so that the end of a
 * walk's hold does not wake those who wait for the end of a context. Every sleep may end for no reason: the caller
 * looks at the word again.
 */
#ifndef FUTEX_H
#define FUTEX_H

#include <stdint.h>

#include "core/context.h"

#define WAKE_DONE UINT32_C(1) /* those who set WAITERS */
#define WAKE_WALK UINT32_C(2) /* those who set WALK_WAITERS; and those who nap, whom nobody need wake */

/* Sleeps while n's flags are those in w, until a wake of `bits` or CLOCK_MONOTONIC `until` (>= 0; INT64_MAX: none). */
void ctxfdi_futex_sleep(struct ctxfd *n, uint64_t w, int64_t until, uint32_t bits);

/* Wakes all. n may be freed memory: the kernel uses only its address, and a stranger who sleeps there looks again. */
void ctxfdi_futex_wake(struct ctxfd *n, uint32_t bits);

/*
 * The same at any word of the library's, with no limit of time. The waker never waits for a sleeper. (A signal of a
 * condition variable may: until threads that it woke earlier have left, which may be stopped or in a signal handler.)
 * So it may hold a lock.
 */
void ctxfdi_word_sleep(const uint32_t *at, uint32_t value);
void ctxfdi_word_wake(const uint32_t *at);

/* The half of n's word that is slept on. */
uint32_t *ctxfdi_futex_word(struct ctxfd *n);

/*
 * The system call: sleeps at any word, with op FUTEX_WAIT_BITSET and perhaps FUTEX_PRIVATE_FLAG. 0 when a wake of
 * `bits` counted it, else -errno. Keeps errno.
 */
int ctxfdi_futex_wait(const volatile void *at, uint32_t value, int op, int64_t until, uint32_t bits);

/*
 * Sleeps for a millisecond, or until CLOCK_MONOTONIC `until` if that is sooner: where sleeping on a futex is refused,
 * and where nobody would wake the sleeper.
 */
void ctxfdi_nap(int64_t until);

#endif
