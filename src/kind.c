/* SPDX-License-Identifier: MIT */
/* What core tells the layers above, of each kind of context and of forks: the one file that knows them all. */
#include "core/kind.h"
#include "core/fork.h"

#include "core/value.h"
#include "calls/waiter.h"
#include "dispatch/after.h"
#include "dispatch/library.h"
#include "dispatch/signals.h"
#include "dispatch/source.h"

const struct kind_row ctxfdi_kinds[KINDS] = {
	[BACKGROUND] = { .name = "background" },
	[TODO] = { .name = "todo" },
	[CANCEL] = { .name = "with_cancel" },
	[DEADLINE] = { .name = "with_deadline" },
	[WITH_VALUE] = { .name = "with_value", .discard = ctxfdi_discard_value },
	[WITHOUT_CANCEL] = { .name = "without_cancel" },
	[WITH_DISPATCHER] = { .name = "with_dispatcher", .discard = ctxfdi_discard_value },
	[MERGED] = { .name = "merge" },
	[AFTER_FUNC] = { .name = "after_func", .ended = ctxfdi_after_funcs_ended },
	[WITH_FD] = { .name = "with_fd", .before_free = ctxfdi_forget_fd },
	[WITH_SIGNALS] = { .name = "with_signals", .before_free = ctxfdi_forget_signals },
	[WITH_PROCESS] = { .name = "with_process", .before_free = ctxfdi_forget_fd },
	[SHARD_OF_CHILDREN] = { .name = "shard" },
	[POLLING] = { .name = "polling", .ring = ctxfdi_ring_poller },
	[EXPIRY] = { .name = "expiry", .before_free = ctxfdi_forget_expiry, .discard = ctxfdi_discard_expiry },
};

const struct fork_row ctxfdi_around_fork = {
	.before = ctxfdi_dispatch_before_fork,
	.in_parent = ctxfdi_dispatch_after_fork,
	.in_child = ctxfdi_dispatch_after_fork_in_child,
};
