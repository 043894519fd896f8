/* SPDX-License-Identifier: MIT */
/*
 * Waiting at a word of the program's until it changes, under a context. No locks.
 *
 * The kernel's futex_waitv (Linux 5.16) sleeps at the program's word and the context's at once. The context's is
 * prepared as for ctxfd_wait: WAITERS is set in it, so whoever ends the context wakes it. Where there is no futex_waitv
 * the wait is at the program's word alone, and a few milliseconds at a time.
 *
 * NO WAKE-UP IS TAKEN IN VAIN. When both words are woken the kernel names the one that is last in the list: that is the
 * program's. So whatever FUTEX_WAKE counted this waiter sees it return 0.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/futex.h"
#include "core/look.h"
#include "core/wait.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* As the kernel has them; its headers only since 5.16. */
struct waitv {
	uint64_t value, address;
	uint32_t flags, reserved;
};
struct waitv_limit {
	int64_t seconds, nanoseconds;
};
#define WAITV_32_BITS 2

enum { CONTEXT, PROGRAM, WORDS }; /* the places of the two words in futex_waitv's list, whose result is such a place */

/* The first slice where there is no futex_waitv, and the longest: each is twice as long as the one before. */
#define FIRST_SLICE   CTXFD_MSEC
#define LONGEST_SLICE (16 * CTXFD_MSEC)

/* Whether the kernel has refused futex_waitv. Relaxed: only a hint. */
static _Atomic bool waitv_refused;

/* What the program waits at. */
struct futex {
	const volatile void *word;
	uint32_t expected;
	bool shared;
};

/* Sleeps at both words. Returns which was woken, CONTEXT or PROGRAM, or -errno. */
static int sleep_at_both(struct ctxfd *n, const struct sleep *s, const struct futex *f)
{
	const struct waitv words[WORDS] = {
		[CONTEXT] = { .value = (uint32_t)s->word,
		              .address = (uintptr_t)ctxfdi_futex_word(n),
		              .flags = WAITV_32_BITS | FUTEX_PRIVATE_FLAG },
		[PROGRAM] = { .value = f->expected,
		              .address = (uintptr_t)f->word,
		              .flags = WAITV_32_BITS | (f->shared ? 0 : FUTEX_PRIVATE_FLAG) },
	};
	const struct waitv_limit limit = { s->limit / CTXFD_SEC, s->limit % CTXFD_SEC };
	long woken;

	if (atomic_load_explicit(&waitv_refused, memory_order_relaxed))
		return -ENOSYS;
	woken = syscall(SYS_futex_waitv, words, WORDS, 0, s->limit == INT64_MAX ? NULL : &limit, CLOCK_MONOTONIC);
	if (woken >= 0)
		return (int)woken;
	if (errno == ENOSYS || errno == EPERM)
		atomic_store_explicit(&waitv_refused, true, memory_order_relaxed);
	return -errno;
}

/*
 * Sleeps at the program's word until `until` at most. Returns 0 when the wait is over, for a reason or for none;
 * -EINTR or -ETIMEDOUT when it is to go on; or -EFAULT. Where the kernel refuses any futex, this naps and returns 0.
 */
static int sleep_at_one(const struct futex *f, int64_t until)
{
	int err = ctxfdi_futex_wait(f->word, f->expected, FUTEX_WAIT_BITSET | (f->shared ? 0 : FUTEX_PRIVATE_FLAG),
	                            until, FUTEX_BITSET_MATCH_ANY);

	if (!err || err == -EAGAIN)
		return 0;
	if (err != -EINTR && err != -ETIMEDOUT && err != -EFAULT) {
		ctxfdi_nap(until);
		return 0;
	}
	return err;
}

static int sleep_a_slice(const struct sleep *s, const struct futex *f, int64_t *slice)
{
	int64_t next = ctxfd_now() + *slice;

	if (*slice < LONGEST_SLICE)
		*slice *= 2;
	return sleep_at_one(f, next < s->limit ? next : s->limit);
}

static int wait_under(struct ctxfd *n, const struct futex *f)
{
	int64_t slice = FIRST_SLICE;
	struct sleep s;

	while (ctxfdi_prepare_sleep(n, INT64_MAX, &s)) {
		int result = sleep_at_both(n, &s, f);

		switch (result) {
		case PROGRAM:
			return 0;
		case CONTEXT: /* look again: the wake may be for others here, or for what had this memory before */
		case -EINTR:
		case -ETIMEDOUT:
			continue;
		case -EAGAIN: /* one of the two words is not what it was to be */
			if ((uint32_t)load_word(n) == (uint32_t)s.word)
				return 0;
			continue;
		case -EFAULT:
			return result;
		}
		result = sleep_a_slice(&s, f, &slice);
		if (!result || result == -EFAULT)
			return result;
	}
	return err_of(s.word);
}

static int wait_for_ever(const struct futex *f)
{
	int result;

	do
		result = sleep_at_one(f, INT64_MAX);
	while (result && result != -EFAULT);
	return result;
}

int ctxfd_futex_wait(const struct ctxfd *ctx, const volatile void *word, uint32_t expected, unsigned flags)
{
	struct futex f = { word, expected, flags & CTXFD_FUTEX_SHARED };
	struct ctxfd *n = node_of(ctx);
	int saved = errno, result;

	if ((uintptr_t)word % sizeof(uint32_t) || flags & ~CTXFD_FUTEX_SHARED)
		return -EINVAL;
	look_first();
	result = load_word(n) & CTX_NEVER ? wait_for_ever(&f) : wait_under(n, &f);
	errno = saved;
	return result;
}
