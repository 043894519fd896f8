/* SPDX-License-Identifier: MIT */
/* After-funcs, as the table of kinds knows them. */
#ifndef AFTER_H
#define AFTER_H

#include "core/context.h"

/* Kinds. */
struct hook *ctxfdi_after_funcs_ended(struct hook *list, struct ctxfd **garbage);
void ctxfdi_forget_expiry(struct ctxfd *expiry);
void ctxfdi_discard_expiry(struct ctxfd *expiry);

#endif
