/* SPDX-License-Identifier: MIT */
/* The clock. No state. */
#include "core/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * The time by the kernel's older call, where libc cannot tell it. Some sandboxes refuse 32-bit programs the newer one
 * of the kernel's two calls, and some machines have no coarse clock. Without any clock a deadline would never pass, and
 * a wait with one would never end.
 */
__attribute__((noinline, cold)) static int64_t ask_kernel(int saved_errno)
{
	struct {
		long sec, nsec;
	} now = { 0, 0 };

#ifdef SYS_clock_gettime
	if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) != 0)
#endif
		abort();
	errno = saved_errno;
	return (int64_t)now.sec * CTXFD_SEC + now.nsec;
}

static int64_t read_clock(clockid_t clock)
{
	int saved = errno;
	struct timespec now;

	if (clock_gettime(clock, &now) != 0)
		return ask_kernel(saved);
	return (int64_t)now.tv_sec * CTXFD_SEC + now.tv_nsec;
}

int64_t ctxfd_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

/* The coarse clock lags by a tick at most (1 to 10 ms), and the second is more than that. */
bool ctxfdi_is_far(int64_t deadline)
{
	return deadline > read_clock(CLOCK_MONOTONIC_COARSE) + CTXFD_SEC;
}
