/* SPDX-License-Identifier: MIT */
/* A context that ends some time after another one has ended, and has the values of that one. */
#ifndef GRACE_H
#define GRACE_H

#include "dispatch/dispatcher.h"

/* Guarded by its dispatcher's lock, where not fixed or atomic. It is LISTED, by its alarm, which need not be set. */
struct grace {
	struct beside beside;
	struct ctxfd_dispatcher *dispatcher; /* fixed; ctx keeps it alive; NULL: no alarm, and `watch` is in no list */
	struct heap_node alarm;
	int64_t called;      /* when it was made; fixed */
	int64_t grace;       /* fixed */
	_Atomic int64_t end; /* INT64_MAX: not known yet, or never; fixed once it is known */
	int cause;           /* fixed */
};

/* Makes one that begins at `now` if parent has ended. With no d, it never ends by itself. NULL with errno set. */
struct ctxfd *ctxfdi_grace_new(const struct ctxfd *parent, struct ctxfd_dispatcher *d, int64_t now, int64_t grace,
                               int cause);

/* Kinds. */
int ctxfdi_grace_rings(struct heap_node *alarm, int64_t now);
void ctxfdi_begin_grace(struct ctxfd *watch);
int64_t ctxfdi_grace_deadline(struct ctxfd *n);
void ctxfdi_forget_grace(struct ctxfd *n);

#endif
