/* SPDX-License-Identifier: MIT */
/* Values: contexts that are no nodes of the tree. */
#ifndef VALUE_H
#define VALUE_H

#include "core/context.h"

/* As ctxfd_with_value, for a kind that is kept as a value. key must not be NULL. */
struct ctxfd *ctxfdi_with_value(const struct ctxfd *parent, enum kind kind, const void *key, void *value,
                                void (*destroy)(void *value));

/* Kinds: before it is freed. */
void ctxfdi_discard_value(struct ctxfd *v);

#endif
