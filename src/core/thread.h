/* SPDX-License-Identifier: MIT */
/* Threads of the library's own. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "ctxfd.h"

/* The signals by which the kernel reports a fault to the thread that has caused it. */
#define FAULT_SIGNALS SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS

/*
 * Starts one with a stack of the default size, and all signals blocked except FAULT_SIGNALS and SIGABRT: 0 or -errno.
 * Keeps errno.
 */
int ctxfdi_thread_create(pthread_t *thread, void *(*fn)(void *arg), void *arg);

/* What the library returns where pthread_create has returned err: 0 or -errno. */
int ctxfdi_thread_result(int err);

/*
 * EXIT ends idle threads, so that no leak checker finds them (valgrind calls the memory of an idle one possibly lost).
 * The destructors of what the program's functions left there run then: data of a key, a thread_local of C++.
 *
 * So it is done early, by a function that is given to atexit before the first thread is made: what the program has
 * constructed by then is still there, as it would not be for a destructor of the library's. And exit does not wait
 * long, since a destructor may want a lock that the exiting thread has.
 */

/* Has exit call fn, once. *known: whether exit has been told; fn resets it, if it is to be told again. */
void ctxfdi_at_exit(_Atomic bool *known, void (*fn)(void));

#define EXIT_WAITS (100 * CTXFD_MSEC) /* for all threads together */

/* Joins one. False: it has not ended at the limit, which is by CLOCK_REALTIME, all that some libcs know. */
bool ctxfdi_thread_join(pthread_t thread, const struct timespec *limit);
struct timespec ctxfdi_join_limit(int64_t ns); /* the limit for a wait of ns from now */

#endif
