/* SPDX-License-Identifier: MIT */
/*
 * The futex system call, and what to do where a sandbox refuses it. No locks, no state.
 *
 * EAGAIN (the word has changed), EINTR and ETIMEDOUT are passing: the caller looks again. Whatever else a sleep fails
 * with makes it a nap of a millisecond. A wake that a sandbox refuses reaches nobody, but the sandbox refuses sleeps
 * as well, so the sleepers nap. One sleeper is lost: a thread that is not under the sandbox's filter, and was asleep
 * already when the filter came. libc's locks lose it as well.
 */
#include "core/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/thread_cancel.h"

/* 32-bit systems whose time_t has 64 bits need the call that takes such a timespec; the newest have only that one. */
#ifdef SYS_futex_time64
#define FUTEX_CALL (sizeof(time_t) > sizeof(long) ? SYS_futex_time64 : SYS_futex)
#ifndef SYS_futex
#define SYS_futex SYS_futex_time64
#endif
#else
#define FUTEX_CALL SYS_futex
#endif

/* The kernel's futex is 32 bits wide: the half of the word that holds the flags. */
uint32_t *ctxfdi_futex_word(struct ctxfd *n)
{
	uint32_t *half = (uint32_t *)(void *)&n->word;
	return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? half + 1 : half;
}

int ctxfdi_futex_wait(const volatile void *at, uint32_t value, int op, int64_t until, uint32_t bits)
{
	int saved = errno, err = 0;
	struct timespec limit = timespec_of(until);

	if (syscall(FUTEX_CALL, at, op, value, until == INT64_MAX ? NULL : &limit, NULL, bits) != 0)
		err = -errno;
	errno = saved;
	return err;
}

void ctxfdi_nap(int64_t until)
{
	int64_t left = until - ctxfd_now();
	struct timespec brief = timespec_of(left < 0 ? 0 : left < CTXFD_MSEC ? left : CTXFD_MSEC);
	struct thread_cancel before = thread_cancel_off();

	nanosleep(&brief, NULL);
	thread_cancel_restore(before);
}

static void sleep_at(const volatile void *at, uint32_t value, int64_t until, uint32_t bits)
{
	int err = ctxfdi_futex_wait(at, value, FUTEX_WAIT_BITSET_PRIVATE, until, bits);

	/* Refused, for instance by a seccomp filter: the caller polls the word, and naps here between two looks. */
	if (err && err != -EAGAIN && err != -EINTR && err != -ETIMEDOUT)
		ctxfdi_nap(until);
}

static void wake_at(const void *at, uint32_t bits)
{
	int saved = errno;

	syscall(FUTEX_CALL, at, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, bits);
	errno = saved;
}

void ctxfdi_futex_sleep(struct ctxfd *n, uint64_t w, int64_t until, uint32_t bits)
{
	sleep_at(ctxfdi_futex_word(n), (uint32_t)w, until, bits);
}

void ctxfdi_futex_wake(struct ctxfd *n, uint32_t bits)
{
	wake_at(ctxfdi_futex_word(n), bits);
}

void ctxfdi_word_sleep(const uint32_t *at, uint32_t value)
{
	sleep_at(at, value, INT64_MAX, FUTEX_BITSET_MATCH_ANY);
}

void ctxfdi_word_wake(const uint32_t *at)
{
	wake_at(at, FUTEX_BITSET_MATCH_ANY);
}
