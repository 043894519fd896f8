/* SPDX-License-Identifier: MIT */
/* Sleeping until a context is done. */
#ifndef WAIT_H
#define WAIT_H

#include "core/context.h"

/* Sleeps until n is DONE, signalled as well, or CLOCK_MONOTONIC `until` (INT64_MAX: no limit). Returns its word. */
uint64_t ctxfdi_await_done(struct ctxfd *n, int64_t until);

#endif
