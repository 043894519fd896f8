/* SPDX-License-Identifier: MIT */
/* How contexts come into the tree. */
#ifndef TREE_H
#define TREE_H

#include "core/context.h"

/*
 * Makes n, whose memory the caller gives, a child of parent. The deadline must be earlier than the parent's, or
 * INT64_MAX: then the parent's is in effect. False: n is born done.
 */
bool ctxfdi_adopt(struct ctxfd *n, const struct ctxfd *parent, enum kind kind, int64_t deadline, int cause);

/* Makes n a context that is no child of parent, so that nothing above ends it. It has parent's values, and keeps it. */
void ctxfdi_adopt_beside(struct ctxfd *n, const struct ctxfd *parent, enum kind kind);

/*
 * Parks n, whose memory is the caller's, in the child list of ctx, so that a cancel of ctx rings it (kind.h). This is
 * for a call that waits under ctx, or the like. A deadline does not ring it: the caller watches the clock itself.
 * False: ctx has ended, or is about to. ctx must not be one that never ends.
 */
bool ctxfdi_park(struct ctxfd *n, const struct ctxfd *ctx, enum kind kind);

#endif
