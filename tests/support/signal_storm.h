/* SPDX-License-Identifier: MIT */
/* A thread that sends SIGUSR1 to the caller again and again, so that whatever the caller waits in is interrupted. */
#ifndef SIGNAL_STORM_H
#define SIGNAL_STORM_H

#include <signal.h>

#include "harness.h"

struct signal_storm {
	pthread_t target;
	_Atomic bool over;
	struct thread *sender;
	struct sigaction before;
};

static _Atomic int storm_signals; /* that were handled */

static inline void count_storm_signal(int sig)
{
	(void)sig;
	storm_signals++;
}

static inline void *send_signals(void *arg)
{
	struct signal_storm *s = arg;

	while (!s->over) {
		require(pthread_kill(s->target, SIGUSR1) == 0);
		pass_time(200 * CTXFD_USEC);
	}
	return NULL;
}

/* The first one has come when this returns. */
static inline void start_signals(struct signal_storm *s)
{
	struct sigaction act = { .sa_handler = count_storm_signal };
	int before = storm_signals;

	*s = (struct signal_storm){ .target = pthread_self() };
	assert_int_equal(sigaction(SIGUSR1, &act, &s->before), 0);
	s->sender = thread_start(send_signals, s);
	wait_until(storm_signals != before);
}

/* None is on its way any more when this returns: a signal to the own thread comes before sigaction returns. */
static inline void stop_signals(struct signal_storm *s)
{
	s->over = true;
	thread_join(s->sender);
	assert_int_equal(sigaction(SIGUSR1, &s->before, NULL), 0);
}

#endif
