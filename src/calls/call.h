/* SPDX-License-Identifier: MIT */
/* What the table of kinds and the tests need to know of call.c. */
#ifndef CALL_H
#define CALL_H

#include <stdatomic.h>
#include <stdint.h>

struct ctxfd;

/* A cancel has ended the context of a call, which waits. */
void ctxfdi_ring_call(struct ctxfd *n);

/* See core/fork.h. */
void ctxfdi_calls_before_fork(void);
void ctxfdi_calls_after_fork(void);
void ctxfdi_calls_after_fork_in_child(void);

/* How long a thread with nothing to do stays, in ns. Only tests change it. */
extern _Atomic int64_t ctxfdi_call_idle;

#endif
