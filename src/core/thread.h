/* SPDX-License-Identifier: MIT */
/* Threads of the library's own. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>

/*
 * Starts one with a stack of the default size, and all signals blocked but those of its own faults: 0 or -errno. Keeps
 * errno.
 */
int ctxfdi_thread_create(pthread_t *thread, void *(*fn)(void *arg), void *arg);

#endif
