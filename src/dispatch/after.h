/* SPDX-License-Identifier: MIT */
/* After-funcs, as the table of kinds knows them. */
#ifndef AFTER_H
#define AFTER_H

#include "core/context.h"

/*
 * Takes an after-func back on the thread that runs its dispatcher, not in its own function: so there is nothing to wait
 * for. What is to be freed goes on *garbage, as by ctxfdi_detach. NULL is ignored.
 */
void ctxfdi_after_take_back(struct ctxfd_after *h, struct ctxfd **garbage);

/* Kinds. */
struct hook *ctxfdi_after_funcs_ended(struct hook *list, struct ctxfd **garbage);
void ctxfdi_forget_expiry(struct ctxfd *expiry);
void ctxfdi_discard_expiry(struct ctxfd *expiry);

#endif
