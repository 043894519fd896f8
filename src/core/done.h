/* SPDX-License-Identifier: MIT */
/* The done fd itself; look.c has the question for it. */
#ifndef DONE_H
#define DONE_H

#include "core/context.h"

/* n's fd as it stands, made if there is none: or -errno. */
int ctxfdi_published_fd(struct ctxfd *n);

/* Makes the fd of a DONE node readable. Any thread, any number of times. */
void ctxfdi_signal_done(struct ctxfd *n);

/* Before n, which HAS_FD, is freed. */
void ctxfdi_close_done_fd(struct ctxfd *n);

#endif
