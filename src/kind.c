/* SPDX-License-Identifier: MIT */
/* What core tells the layers above, of each kind of context and of forks: the one file that knows them all. */
#include "core/kind.h"
#include "core/fork.h"

#include "core/value.h"
#include "calls/call.h"
#include "calls/waiter.h"
#include "dispatch/after.h"
#include "dispatch/grace.h"
#include "dispatch/idle.h"
#include "dispatch/library.h"
#include "dispatch/round.h"
#include "dispatch/signals.h"
#include "dispatch/source.h"

const struct kind_row ctxfdi_kinds[KINDS] = {
	[KIND_BACKGROUND] = { .name = "background", .flags = CTX_NEVER },
	[KIND_TODO] = { .name = "todo", .flags = CTX_NEVER },
	[KIND_CANCEL] = { .name = "with_cancel" },
	[KIND_DEADLINE] = { .name = "with_deadline" },
	[KIND_WITH_VALUE] = { .name = "with_value", .flags = CTX_VALUE | CTX_DISCARD, .discard = ctxfdi_discard_value },
	[KIND_WITHOUT_CANCEL] = { .name = "without_cancel", .flags = CTX_VALUE },
	[KIND_WITH_DISPATCHER] = { .name = "with_dispatcher",
	                           .flags = CTX_VALUE | CTX_DISCARD,
	                           .discard = ctxfdi_discard_value },
	[KIND_MERGED] = { .name = "merge", .flags = CTX_MERGE },
	[KIND_LINK] = { .name = "merge", .flags = CTX_LINK },
	[KIND_AFTER_FUNC] = { .name = "after_func", .flags = CTX_HOOK, .ended = ctxfdi_after_funcs_ended },
	[KIND_WITH_FD] = { .name = "with_fd", .flags = CTX_LISTED, .before_free = ctxfdi_forget_fd },
	[KIND_WITH_SIGNALS] = { .name = "with_signals", .flags = CTX_LISTED, .before_free = ctxfdi_forget_signals },
	[KIND_WITH_PROCESS] = { .name = "with_process", .flags = CTX_LISTED, .before_free = ctxfdi_forget_fd },
	[KIND_IDLE] = { .name = "with_idle",
	                .flags = CTX_LISTED,
	                .alarm = ctxfdi_idle_rings,
	                .before_free = ctxfdi_forget_idle },
	[KIND_SHARD_OF_CHILDREN] = { .name = "shard", .flags = CTX_SHARD },
	[KIND_CALLING] = { .name = "calling", .flags = CTX_RINGS, .ring = ctxfdi_ring_call },
	[KIND_POLLING] = { .name = "polling", .flags = CTX_RINGS, .ring = ctxfdi_ring_poller },
	[KIND_COND_WAIT] = { .name = "cond_wait", .flags = CTX_RINGS, .ring = ctxfdi_ring_cond },
	[KIND_GRACE] = { .name = "with_grace",
	                 .flags = CTX_LISTED,
	                 .alarm = ctxfdi_grace_rings,
	                 .deadline = ctxfdi_grace_deadline,
	                 .before_free = ctxfdi_forget_grace },
	[KIND_GRACE_WATCH] = { .name = "with_grace", .flags = CTX_RINGS, .ring = ctxfdi_begin_grace },
	[KIND_DUMP] = { .name = "dump" },
	[KIND_EXPIRY] = { .name = "expiry",
	                  .flags = CTX_DISCARD,
	                  .alarm = ctxfdi_expire,
	                  .before_free = ctxfdi_forget_expiry,
	                  .discard = ctxfdi_discard_expiry },
};

/* The lock of calls is held for a few instructions, so it is the last to be taken. */
static void before_fork(void)
{
	ctxfdi_dispatch_before_fork();
	ctxfdi_calls_before_fork();
}

static void after_fork(void)
{
	ctxfdi_calls_after_fork();
	ctxfdi_dispatch_after_fork();
}

static void after_fork_in_child(void)
{
	ctxfdi_calls_after_fork_in_child();
	ctxfdi_dispatch_after_fork_in_child();
}

const struct fork_row ctxfdi_around_fork = {
	.before = before_fork,
	.in_parent = after_fork,
	.in_child = after_fork_in_child,
};
