/* SPDX-License-Identifier: MIT */
/* How a context ends. */
#ifndef CANCEL_H
#define CANCEL_H

#include "core/context.h"

/*
 * For n whose deadline has passed, and which is not being freed yet: takes the hold of its list, which keeps n from
 * being freed. False: the list is empty, or a walk holds it already and ends the hooks in it.
 */
bool ctxfdi_hold_expired(struct ctxfd *n);

/* Ends the hooks on n, and then the hold. Returns them in the order in which they were made, for ctxfdi_tell_hooks. */
struct hook *ctxfdi_end_hooks(struct ctxfd *n);

/* Tells each hook's kind that it has ended. Returns what is left to discard (own.h). */
struct ctxfd *ctxfdi_tell_hooks(struct hook *list);

/*
 * Ends ctx and all below it. The verdict: a cause's bits, and EXPIRED if time was up. Runs no code of the program, and
 * does not allocate or free; but in the child of a fork it may have to start the library's thread. Returns what is left
 * to discard.
 */
struct ctxfd *ctxfdi_cancel(struct ctxfd *ctx, uint64_t verdict);

#endif
