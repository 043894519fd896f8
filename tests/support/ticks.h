/* SPDX-License-Identifier: MIT */
/* For tests of EINTR: a timer that keeps interrupting the thread that started it. */
#ifndef TICKS_H
#define TICKS_H

#include <signal.h>

#include "harness.h"

#ifndef sigev_notify_thread_id /* glibc before 2.35 */
#define sigev_notify_thread_id _sigev_un._tid
#endif

static atomic_int ticks;
static timer_t ticker;

static void tick(int sig)
{
	ticks++;
}

/* SIGUSR1 for the calling thread every `ns`; with SA_RESTART in flags the kernel restarts some calls by itself. */
static void start_ticks(int64_t ns, int flags)
{
	struct sigaction act = { .sa_handler = tick, .sa_flags = flags };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	struct timespec gap = { .tv_nsec = (long)(ns * slow()) };
	struct itimerspec every = { gap, gap };

	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	ticks = 0;
	assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &ticker), 0);
	assert_int_equal(timer_settime(ticker, 0, &every, NULL), 0);
}

/* Fails if none came. */
static void stop_ticks(void)
{
	struct sigaction act = { .sa_handler = SIG_IGN };

	assert_int_equal(timer_delete(ticker), 0);
	assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
	assert_true(ticks > 0);
}

#endif
