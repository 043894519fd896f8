/* SPDX-License-Identifier: MIT */
/*
 * Values: contexts that are no nodes of the tree. A value context points at the node above it, for whatever concerns
 * its end, and every context points at the nearest value above, so that a lookup takes one step for each value. All
 * fields are fixed at birth; there is nothing to lock. A value context lives by its reference count alone, and
 * everything derived from it holds a reference.
 */
#include <stdlib.h>

#include "core/thread_cancel.h"
#include "core/value.h"

/* A value context without a value, whose end is node's. NULL with errno set. */
static struct ctxfd *new_value(const struct ctxfd *parent, enum kind kind, struct ctxfd *node)
{
	struct ctxfd *v;

	if (!parent) {
		errno = EINVAL;
		return NULL;
	}
	v = malloc(sizeof *v);
	if (!v)
		return NULL;
	atomic_init(&v->word, flags_of(kind));
	atomic_init(&v->refs, 1);
	atomic_init(&v->fd, -1);
	atomic_init(&v->forks, 0);
	v->node = node;
	v->key = NULL;
	v->value = NULL;
	v->destroy = NULL;
	v->parent = mutable(ctxfd_ref(parent));
	v->values = nearest_value(parent);
	v->kind = (uint8_t)kind;
	v->linked = false;
	v->counted = true;
	v->graced = node->graced;
	return v;
}

struct ctxfd *ctxfdi_with_value(const struct ctxfd *parent, enum kind kind, const void *key, void *value,
                                void (*destroy)(void *value))
{
	struct ctxfd *v = new_value(parent, kind, parent ? node_of(parent) : NULL);

	if (!v)
		return NULL;
	v->key = key;
	v->value = value;
	v->destroy = destroy;
	return v;
}

/* With pthread_cancel off: if destroy ended the thread, what remains to be freed would be lost. */
void ctxfdi_discard_value(struct ctxfd *v)
{
	struct thread_cancel e;

	if (!v->destroy)
		return;
	e = thread_cancel_off();
	v->destroy(v->value);
	thread_cancel_restore(e);
}

const struct ctxfd *ctxfd_with_value(const struct ctxfd *parent, const void *key, void *value,
                                     void (*destroy)(void *value))
{
	if (!key) {
		errno = EINVAL;
		return NULL;
	}
	return ctxfdi_with_value(parent, KIND_WITH_VALUE, key, value, destroy);
}

const struct ctxfd *ctxfd_without_cancel(const struct ctxfd *parent)
{
	return new_value(parent, KIND_WITHOUT_CANCEL, mutable(ctxfd_background()));
}

void *ctxfd_value(const struct ctxfd *ctx, const void *key)
{
	for (const struct ctxfd *v = nearest_value(ctx); v; v = v->values)
		if (v->key == key)
			return v->value;
	return NULL;
}
