/* SPDX-License-Identifier: MIT */
/*
 * Waiting for descriptors under a context, for the calls that have one to wait for. All return 0, err or -errno unless
 * they say otherwise.
 */
#ifndef POLL_H
#define POLL_H

#include <poll.h>

#include "core/context.h"

/* As ctxfd_poll until CLOCK_MONOTONIC `until`. all: n fds, and room for one more. */
int ctxfdi_poll_under(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until);

/* Whether fd is ready as it stands: 1, 0 or -errno. */
int ctxfdi_look_at_fd(int fd, int events);

/* Waits until a try is due: fd is ready for events, or never will be, which the try tells. */
int ctxfdi_await_fd(const struct ctxfd *ctx, int fd, int events);

/* The same for a tenth of a second at most, or for no reason. False if nothing came in all that time. */
bool ctxfdi_await_fd_briefly(const struct ctxfd *ctx, int fd, int events);

#endif
