/* SPDX-License-Identifier: MIT */
/* Threads of the library's own. No locks, no state. */
#include "core/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "core/clock.h"

/*
 * EINVAL comes from clone, in a process whose next children are to have a pid namespace of their own (unshare). It
 * would blame our caller's arguments.
 */
int ctxfdi_thread_result(int err)
{
	return err == EINVAL ? -EAGAIN : -err;
}

/*
 * Signals are for the program's threads, so this one inherits a mask that has all of them, except those by which the
 * kernel answers what the thread does itself: a crash handler is to see a crash in a function of the program.
 */
int ctxfdi_thread_create(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	static const int own[] = { FAULT_SIGNALS, SIGABRT };
	sigset_t set, before;
	int saved = errno, err;

	sigfillset(&set);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(&set, own[i]);
	pthread_sigmask(SIG_SETMASK, &set, &before);
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved; /* a pthread_create that fails leaves its mmap's errno there */
	return ctxfdi_thread_result(err);
}

void ctxfdi_at_exit(_Atomic bool *known, void (*fn)(void))
{
	/* Relaxed: it only keeps a second caller from telling exit again. */
	if (!atomic_exchange_explicit(known, true, memory_order_relaxed))
		atexit(fn);
}

struct timespec ctxfdi_join_limit(int64_t ns)
{
	struct timespec now = { 0 };

	clock_gettime(CLOCK_REALTIME, &now);
	return timespec_of((int64_t)now.tv_sec * CTXFD_SEC + now.tv_nsec + ns);
}

bool ctxfdi_thread_join(pthread_t thread, const struct timespec *limit)
{
	return pthread_timedjoin_np(thread, NULL, limit) == 0;
}
