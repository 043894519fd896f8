/* SPDX-License-Identifier: MIT */
/* Contexts beside the tree. */
#ifndef VALUE_H
#define VALUE_H

#include "core/context.h"

struct ctxfd *ctxfdi_with_value(const struct ctxfd *parent, enum kind kind, const void *key, void *value,
                                void (*destroy)(void *value));

/* Kinds: before it is freed. */
void ctxfdi_discard_value(struct ctxfd *v);

#endif
