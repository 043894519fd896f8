/* SPDX-License-Identifier: MIT */
/* Threads of the library's own. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>

/* Starts one, with the default stack and hardly a signal to take: 0 or -errno. */
int ctxfdi_thread_create(pthread_t *thread, void *(*fn)(void *arg), void *arg);

#endif
