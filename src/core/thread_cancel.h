/* SPDX-License-Identifier: MIT */
/* Keeping pthread_cancel off. */
#ifndef THREAD_CANCEL_H
#define THREAD_CANCEL_H

#include <errno.h>
#include <pthread.h>

/*
 * Put these around calls of libc's cancellation points where pthread_cancel must not act, because the thread has a
 * lock, a hold or memory. The pair is not cheap (some 30 ns). It restores errno, too.
 */
struct thread_cancel {
	int saved_errno;
	int cancel_state;
};

static inline struct thread_cancel thread_cancel_off(void)
{
	struct thread_cancel e = { .saved_errno = errno };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &e.cancel_state);
	return e;
}

static inline void thread_cancel_restore(struct thread_cancel e)
{
	pthread_setcancelstate(e.cancel_state, NULL);
	errno = e.saved_errno;
}

#endif
