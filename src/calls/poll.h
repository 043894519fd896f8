/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a descriptor under a context, for the calls that have one to wait for. Each is the same loop: try without
 * waiting; if that says EAGAIN, await_next_try; and try again. So what a try has consumed is never lost to a
 * cancellation. All return 0, err or -errno unless they say otherwise.
 *
 * ERRORS. Two are passing. EINTR: a signal's handler has run. EAGAIN: not yet; the next try comes when poll says so, and
 * after a few that got nothing a millisecond later. After either ctx is asked, so its end bounds them. All others end the
 * call.
 */
#ifndef POLL_H
#define POLL_H

#include <poll.h>

#include "core/context.h"

/* As ctxfd_poll until CLOCK_MONOTONIC `until`. all: n fds, and room for one more. */
int ctxfdi_poll_under(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until);

/* Whether fd is ready as it stands: 1, 0 or -errno. */
int ctxfdi_look_at_fd(int fd, int events);

/* Waits until fd is ready for events, or says so because it never will be: the next try tells. */
int ctxfdi_await_fd(const struct ctxfd *ctx, int fd, int events);

/* After a try that would have to wait: returns when the next one is due. *vain counts them, from 0. */
int ctxfdi_await_next_try(const struct ctxfd *ctx, int fd, int events, int *vain);

/*
 * WHETHER TO TRY FIRST. A thread that had to wait for a descriptor, and then got what it wanted, most likely has to wait
 * for it the next time too. So it polls first then, which saves a call that would get nothing. If that is wrong it costs
 * a poll. One call in eight tries first, and if it need not wait those that follow do the same. The poll lasts 100 ms at
 * most, and then comes a try, whether ctx is done or not: what has the descriptor's number by now may be something that
 * never polls ready. Only for what comes in: most descriptors take bytes long before they poll writable.
 */
bool ctxfdi_expects_to_wait(int fd, int events);
void ctxfdi_await_expected(const struct ctxfd *ctx, int fd, int events);
void ctxfdi_expect(int fd, int events, bool waited); /* after a call that tried first, and succeeded */

#endif
