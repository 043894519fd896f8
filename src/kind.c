/* SPDX-License-Identifier: MIT */
/* What core tells the layers above, of each kind of context and of forks: the one file that knows them all. */
#include "core/kind.h"
#include "core/fork.h"

#include "core/value.h"
#include "calls/call.h"
#include "calls/waiter.h"
#include "dispatch/after.h"
#include "dispatch/library.h"
#include "dispatch/signals.h"
#include "dispatch/source.h"

const struct kind_row ctxfdi_kinds[KINDS] = {
	[KIND_BACKGROUND] = { .name = "background" },
	[KIND_TODO] = { .name = "todo" },
	[KIND_CANCEL] = { .name = "with_cancel" },
	[KIND_DEADLINE] = { .name = "with_deadline" },
	[KIND_WITH_VALUE] = { .name = "with_value", .discard = ctxfdi_discard_value },
	[KIND_WITHOUT_CANCEL] = { .name = "without_cancel" },
	[KIND_WITH_DISPATCHER] = { .name = "with_dispatcher", .discard = ctxfdi_discard_value },
	[KIND_MERGED] = { .name = "merge" },
	[KIND_AFTER_FUNC] = { .name = "after_func", .ended = ctxfdi_after_funcs_ended },
	[KIND_WITH_FD] = { .name = "with_fd", .before_free = ctxfdi_forget_fd },
	[KIND_WITH_SIGNALS] = { .name = "with_signals", .before_free = ctxfdi_forget_signals },
	[KIND_WITH_PROCESS] = { .name = "with_process", .before_free = ctxfdi_forget_fd },
	[KIND_SHARD_OF_CHILDREN] = { .name = "shard" },
	[KIND_CALLING] = { .name = "calling", .ring = ctxfdi_ring_call },
	[KIND_POLLING] = { .name = "polling", .ring = ctxfdi_ring_poller },
	[KIND_COND_WAIT] = { .name = "cond_wait", .ring = ctxfdi_ring_cond },
	[KIND_EXPIRY] = { .name = "expiry", .before_free = ctxfdi_forget_expiry, .discard = ctxfdi_discard_expiry },
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
