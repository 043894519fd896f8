/* SPDX-License-Identifier: MIT */
/* What a thread does while it cannot change a word or have the lock on a node's children. */
#include "core/lock.h"

#include "core/futex.h"

/* Bursts of pauses before sleeping: enough for a holder that runs, on another core, to finish linking a child. */
#define BURSTS 16
#define PAUSES 16

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
	__asm__ volatile("yield");
#endif
}

/*
 * How long a waiter naps before it looks again: this long at first, then each time twice as long, up to 64 times that.
 * If all naps were short, hundreds of waiters would keep the owner from running.
 */
#define NAP       (50 * CTXFD_USEC)
#define DOUBLINGS 6

uint64_t ctxfdi_await_unlock(struct ctxfd *n)
{
	uint64_t w = load_word(n);

	for (int burst = 0; w & CTX_LOCK; burst++) {
		int nap = burst - BURSTS;

		if (nap >= 0)
			ctxfdi_futex_sleep(n, w, ctxfd_now() + (NAP << (nap < DOUBLINGS ? nap : DOUBLINGS)), WAKE_WALK);
		else
			for (int i = 0; i < PAUSES; i++)
				cpu_pause();
		w = load_word(n);
	}
	return w;
}

uint64_t ctxfdi_await_walk(struct ctxfd *n, uint64_t w)
{
	if (w & CTX_WALK_WAITERS || swap_word(n, &w, w | CTX_WALK_WAITERS))
		ctxfdi_futex_sleep(n, w | CTX_WALK_WAITERS, INT64_MAX, WAKE_WALK);
	return load_word(n);
}
