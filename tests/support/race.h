/* SPDX-License-Identifier: MIT */
/* For tests of races: threads that set off together. */
#ifndef RACE_H
#define RACE_H

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A place where n threads wait for one another, any number of times. Zeroed is ready. */
struct meeting {
	atomic_uint arrived;
};

/*
 * All of the n threads leave it together, as nearly as can be: they spin for a while, and sleep when it takes longer,
 * for the one that is missing may be waiting for a processor.
 */
static inline void meet(struct meeting *m, unsigned n)
{
	unsigned before = atomic_fetch_add(&m->arrived, 1), round = before / n, seen;

	if (before % n == n - 1) {
		syscall(SYS_futex, &m->arrived, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
		return;
	}
	for (int spins = 0; (seen = atomic_load(&m->arrived)) / n <= round; spins++)
		if (spins > 3000)
			syscall(SYS_futex, &m->arrived, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

/* Some loops that do nothing: what comes after falls into another moment of the race than the last time. */
static inline void dither(unsigned loops)
{
	for (volatile unsigned i = 0; i < loops; i++)
		continue;
}

#endif
