/* SPDX-License-Identifier: MIT */
/* How a context ends. */
#ifndef CANCEL_H
#define CANCEL_H

#include "core/context.h"

/*
 * n's deadline has passed, and n is not being freed: takes the hold of n, so that it is not, if there is something in
 * its list. False: there is not, or a walk has n, which ends the hooks on it.
 */
bool ctxfdi_hold_expired(struct ctxfd *n);

/* Ends the hooks on n, and then the hold. Returns them in the order in which they were made, for tell_hooks. */
struct hook *ctxfdi_end_hooks(struct ctxfd *n);

/* Tells the kinds of what has ended. Returns what is left to discard. */
struct ctxfd *ctxfdi_tell_hooks(struct hook *list);

/*
 * Ends ctx and all below it. The verdict: a cause's bits, and EXPIRED if time was up. Runs no code of the program, nor
 * the allocator's. Returns what is left to discard.
 */
struct ctxfd *ctxfdi_cancel(struct ctxfd *ctx, uint64_t verdict);

#endif
