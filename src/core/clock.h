/* SPDX-License-Identifier: MIT */
/* The clock: cheaper looks at it than ctxfd_now, and nanoseconds as libc takes them. */
#ifndef CLOCK_H
#define CLOCK_H

#include <time.h>

#include "ctxfd.h"

/* Whether deadline is sure not to have passed: it is about a second away, or more. Costs a fifth of ctxfd_now. */
bool ctxfdi_is_far(int64_t deadline);

/* ns must not be negative. What a time_t of 32 bits cannot hold (68 years) becomes the latest time that it can. */
static inline struct timespec timespec_of(int64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / CTXFD_SEC), .tv_nsec = (long)(ns % CTXFD_SEC) };

	if ((int64_t)t.tv_sec != ns / CTXFD_SEC)
		t.tv_sec = INT32_MAX;
	return t;
}

/* The time to set a timer to for an alarm at `at`: zero would disarm the timer. */
static inline struct timespec alarm_at(int64_t at)
{
	return timespec_of(at > 0 ? at : 1);
}

#endif
