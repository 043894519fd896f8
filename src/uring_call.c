/* SPDX-License-Identifier: MIT */
/*
 * One operation of an io_uring under a context, in one call: a scope that lives as long as the operation.
 *
 * The operation is submitted alone. Most often it completes at once, and has cost no more than without a context; else
 * the scope arms its poll before the thread goes to sleep. The thread sleeps in the ring, so it can send the cancel
 * itself: a cancel that is linked to the poll inside the kernel would only be one more request in every call.
 */

#include "uring_entry.h"

/* Sleeps a little: the kernel, or the completion queue, may have room again. */
static void pause_for_room(void)
{
	ctxfd_sleep(ctxfd_background(), CTXFD_MSEC);
}

/* The result of the scope's only operation: the first. A zero-copy send has a second: its buffer is free. */
static int await(struct ctxfd_uring_scope *scope)
{
	struct ctxfd_uring_op *op;
	bool have = false;
	int res = 0, what;

	while ((what = ctxfd_uring_wait(scope, &op)) != CTXFD_URING_NONE) {
		if (what < 0)
			pause_for_room();
		else if (!have)
			res = op->res;
		have |= what > 0;
	}
	return res;
}

int ctxfd_uring_call(const struct ctxfd *ctx, struct io_uring *ring, struct io_uring_sqe *sqe)
{
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op op;
	int res = io_uring_cq_ready(ring) < ring->cq.ring_entries ? ctxfd_done_fd(ctx) : -EBUSY;

	if (res >= 0)
		res = ctxfd_uring_open(&scope, ring, ctx);
	if (res) {
		spend(sqe);
		return res;
	}
	res = uring_bind(&scope, &op, sqe, false);
	if (!res) {
		submit(ring);
		res = await(&scope);
	}
	while (ctxfd_uring_close(&scope, NULL))
		pause_for_room();
	return res;
}
