/* SPDX-License-Identifier: MIT */
/* The slow side of the lock on a node's children: what a thread does while it cannot have it. */
#include "lock.h"

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

uint64_t lock_pause(struct ctxfd *n, uint64_t w, unsigned *step)
{
	if (*step < BURSTS) {
		++*step;
		for (int i = 0; i < PAUSES; i++)
			cpu_pause();
	} else if (w & CONTENDED || swap_word(n, &w, w | CONTENDED)) {
		futex_sleep(n, w | CONTENDED, INT64_MAX, WAKE_LOCK);
	}
	return load_word(n);
}
