/* SPDX-License-Identifier: MIT */
/* How contexts come into the tree. */
#ifndef TREE_H
#define TREE_H

#include "core/context.h"

/*
 * Makes n, whose memory the caller gives, a child of parent. Its deadline must be earlier than the parent's, or
 * INT64_MAX: then the parent's is in effect. False: n is born done.
 */
bool ctxfdi_adopt(struct ctxfd *n, const struct ctxfd *parent, enum kind kind, int64_t deadline, int cause);

/* The same for n that is no child of parent, of which it has the values, and which it keeps alive. */
void ctxfdi_adopt_beside(struct ctxfd *n, const struct ctxfd *parent, enum kind kind);

/*
 * Makes n, whose memory is the caller's, a hidden child of ctx, for a call that waits under it or the like. A cancel of
 * ctx rings it, as its kind does. It knows nothing of the clock: the deadline is the wait's own limit. False: ctx has
 * ended, or is about to. ctx must not be one that never ends.
 */
bool ctxfdi_park(struct ctxfd *n, const struct ctxfd *ctx, enum kind kind);

#endif
