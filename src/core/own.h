/* SPDX-License-Identifier: MIT */
/* How contexts are owned, and how they leave the tree when they are not any more. */
#ifndef OWN_H
#define OWN_H

#include "core/context.h"

/* Whether the caller is ctx's only owner. Acquire pairs with the release of the owners who left before. */
static inline bool is_alone(const struct ctxfd *ctx)
{
	return atomic_load_explicit(&ctx->refs, memory_order_acquire) == 1;
}

/*
 * Gives up one reference on ctx. Returns what the caller must then free, by dispose or detach: ctx, if it has no other
 * owner and nothing below it, or a shard of it. NULL: nothing.
 */
struct ctxfd *ctxfdi_drop(struct ctxfd *ctx);

/* Makes the caller an owner of n, whose owners may all have gone; own.c says who may. False: n is being freed. */
bool ctxfdi_own(struct ctxfd *n);

/* Makes the caller an owner of n, whose memory it knows to be valid, if n has children. False: n has none. */
bool ctxfdi_own_parent(struct ctxfd *n);

/* Frees what drop returned, or an after-func that is DONE; and everything that nothing else keeps alive. */
void ctxfdi_dispose(struct ctxfd *dead);

/*
 * The same in two steps. detach takes it out of the tree and appends it to the list *garbage; it runs no code of the
 * program and does not call the allocator. discard frees such a list.
 */
void ctxfdi_detach(struct ctxfd *dead, struct ctxfd **garbage);
void ctxfdi_discard(struct ctxfd *garbage);

/* As ctxfd_unref, with what detach does in place of freeing. */
void ctxfdi_give_up(struct ctxfd *ctx, struct ctxfd **garbage);

/* Frees ctx, a hook's, and what only that kept alive, and returns true; if it is DONE, it stays: false. */
bool ctxfdi_dispose_live(struct ctxfd *ctx);

/* The same, with what detach does in place of freeing. */
bool ctxfdi_detach_live(struct ctxfd *ctx, struct ctxfd **garbage);

/*
 * Takes a parked n out of its list. When this returns, no walk is ringing it any more, and its memory is the caller's
 * again. Returns what only n has kept alive, for dispose, or NULL.
 */
struct ctxfd *ctxfdi_unpark(struct ctxfd *n);

#endif
