/* SPDX-License-Identifier: MIT */
/* The table of kinds: the one file that knows all layers. */
#include "kind.h"

#include "dispatcher.h"
#include "signals.h"
#include "source.h"

const struct kind_row kinds[KINDS] = {
	[BACKGROUND] = { .name = "background" },
	[TODO] = { .name = "todo" },
	[CANCEL] = { .name = "with_cancel" },
	[DEADLINE] = { .name = "with_deadline" },
	[WITH_VALUE] = { .name = "with_value", .discard = discard_value },
	[WITHOUT_CANCEL] = { .name = "without_cancel" },
	[WITH_DISPATCHER] = { .name = "with_dispatcher", .discard = discard_value },
	[MERGED] = { .name = "merge" },
	[AFTER_FUNC] = { .name = "after_func", .ended = after_funcs_ended },
	[WITH_FD] = { .name = "with_fd", .before_free = forget_fd },
	[WITH_SIGNALS] = { .name = "with_signals", .before_free = forget_signals },
	[WITH_PROCESS] = { .name = "with_process", .before_free = forget_fd },
	[SHARD_OF_CHILDREN] = { .name = "shard" },
	[EXPIRY] = { .name = "expiry", .before_free = forget_expiry, .discard = discard_expiry },
};
