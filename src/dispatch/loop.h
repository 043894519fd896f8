/* SPDX-License-Identifier: MIT */
/* A dispatcher's fds, and contexts that name it. */
#ifndef LOOP_H
#define LOOP_H

#include "dispatch/dispatcher.h"

/* The dispatcher that a context above ctx names, or NULL. */
struct ctxfd_dispatcher *ctxfdi_dispatcher_above(const struct ctxfd *ctx);

/* Not under the lock: makes sure that d's fds are this process's. The epoll set's, or -errno. */
int ctxfdi_dispatcher_open(struct ctxfd_dispatcher *d);

/* Under the lock. */
int ctxfdi_dispatcher_open_fds(struct ctxfd_dispatcher *d);   /* it has none so far: 0 or -errno */
void ctxfdi_dispatcher_close_fds(struct ctxfd_dispatcher *d); /* its last owner may do so without the lock */

#endif
