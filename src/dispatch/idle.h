/* SPDX-License-Identifier: MIT */
/* A context that ends once nobody has touched it for some time. */
#ifndef IDLE_H
#define IDLE_H

#include "dispatch/dispatcher.h"

/* Guarded by its dispatcher's lock, where not fixed or atomic. It is LISTED, by its alarm, which need not be set. */
struct idle {
	struct ctxfd ctx;
	_Atomic int64_t touched; /* when it was touched last, or IDLE_OVER. Behind ctx.kind: a touch reads both */
	int64_t timeout;         /* fixed */
	struct ctxfd_dispatcher *dispatcher; /* fixed; ctx keeps it alive; NULL: born done, with no alarm */
	struct heap_node alarm;
	int cause; /* fixed */
};

/* Makes one, and sets its alarm; with no d, one whose time is up already. NULL with errno set. */
struct ctxfd *ctxfdi_idle_new(const struct ctxfd *parent, struct ctxfd_dispatcher *d, int64_t now, int64_t timeout,
                              int cause);

/* Kinds. */
int ctxfdi_idle_rings(struct heap_node *alarm, int64_t now);
void ctxfdi_forget_idle(struct ctxfd *n);

#endif
