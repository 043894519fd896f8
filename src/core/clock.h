/* SPDX-License-Identifier: MIT */
/* The clock: cheaper looks at it than ctxfd_now, and nanoseconds as libc takes them. */
#ifndef CLOCK_H
#define CLOCK_H

#include <time.h>

#include "ctxfd.h"

/* Whether a deadline has not passed for sure, for a fifth of the price of ctxfd_now. */
bool ctxfdi_is_far(int64_t deadline);

/* ns, which is not negative. A time_t of 32 bits ends after 68 years: then the latest that it can say. */
static inline struct timespec timespec_of(int64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / CTXFD_SEC), .tv_nsec = (long)(ns % CTXFD_SEC) };

	if ((int64_t)t.tv_sec != ns / CTXFD_SEC)
		t.tv_sec = INT32_MAX;
	return t;
}

/* A time that a timer is set to: zero would disarm it. */
static inline struct timespec alarm_at(int64_t at)
{
	return timespec_of(at > 0 ? at : 1);
}

#endif
