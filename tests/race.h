/* SPDX-License-Identifier: MIT */
/* For tests of races: threads that set off together. */
#ifndef RACE_H
#define RACE_H

#include <sched.h>
#include <stdatomic.h>

/* A place where n threads wait for one another, any number of times. Zeroed is ready. */
struct meeting {
	atomic_uint arrived;
};

/* All of the n threads leave it together, as nearly as can be: they spin, and on a machine with too few cores they yield. */
static inline void meet(struct meeting *m, unsigned n)
{
	unsigned round = atomic_fetch_add(&m->arrived, 1) / n;

	for (unsigned spins = 1; atomic_load(&m->arrived) / n <= round; spins++)
		if (spins % 1000 == 0)
			sched_yield();
}

/* Some loops that do nothing: what comes after falls into another moment of the race than the last time. */
static inline void dither(unsigned loops)
{
	for (volatile unsigned i = 0; i < loops; i++)
		continue;
}

#endif
