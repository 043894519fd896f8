/* SPDX-License-Identifier: MIT */
/* Threads of the library's own. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "ctxfd.h"

/* By which the kernel reports a fault to the thread that has made it. */
#define FAULT_SIGNALS SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS

/*
 * Starts one with a stack of the default size, and all signals blocked but those of its own faults: 0 or -errno. Keeps
 * errno.
 */
int ctxfdi_thread_create(pthread_t *thread, void *(*fn)(void *arg), void *arg);

/* What pthread_create has returned, as our callers are told it: 0 or -errno. */
int ctxfdi_thread_result(int err);

/*
 * EXIT ends idle threads, so that no leak checker finds them (valgrind calls the memory of a parked one possibly lost),
 * and so that none is left where a dlclose unmaps a program's copy of this library. Then the destructors of what the
 * program's functions left there run: data of a key, a thread_local of C++.
 *
 * So it is done early, by a function that is given to atexit before the first thread is made: what the program has
 * constructed by then is still there, as it would not be for a destructor of the library's. And exit does not wait
 * long, since a destructor may want a lock that the exiting thread has.
 */

/* Has exit call fn. *known: whether it knows of that. */
void ctxfdi_at_exit(_Atomic bool *known, void (*fn)(void));

#define EXIT_WAITS (100 * CTXFD_MSEC) /* for all threads together */

/* Joins one. False: it has not ended at the limit, which is by CLOCK_REALTIME, all that some libcs know. */
bool ctxfdi_thread_join(pthread_t thread, const struct timespec *limit);
struct timespec ctxfdi_join_limit(int64_t ns); /* that long from now */

#endif
