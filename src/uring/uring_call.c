/* SPDX-License-Identifier: MIT */
/*
 * One operation of an io_uring under a context, in one call: a scope that lives as long as the operation.
 *
 * The operation is submitted alone. Most often it completes at once, and has cost no more than without a context; else
 * the scope arms its poll before the thread goes to sleep. The thread sleeps in the ring, so it can send the cancel
 * itself: a cancel that is linked to the poll inside the kernel would only be one more request in every call.
 *
 * The scope is on the stack, and the call may have to return while its requests are in the ring: when the kernel takes
 * no cancel any more, or there is no room for the completion. So their user_data bear a number in place of pointers,
 * and what completes later is nothing to anybody. (The buffer alone cannot be had back then: -ENOTRECOVERABLE.)
 */

#include "uring/uring_scope.h"

/*
 * Completions that a call can leave unread at a time: of the operation, two; of its poll; of a cancel that comes too
 * late.
 */
#define ROOM 4

/* How often to try again after a refusal that may pass, a millisecond later each time. */
#define PATIENCE 1000

struct call {
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op op;
	bool have;   /* `res` is the operation's */
	int res;     /* the first result: a zero-copy send has a second when its buffer is free */
	int refusal; /* what the kernel said, when that will not pass */
};

/* Drops what is nobody's from the head of the queue, and says whether a call's completions are sure to find room. */
static bool has_room(struct io_uring *ring)
{
	if (io_uring_cq_has_overflow(ring))
		io_uring_get_events(ring);
	while (io_uring_cq_ready(ring) && cqe_at(ring, *ring->cq.khead)->user_data == STRAY)
		io_uring_cq_advance(ring, 1);
	return !io_uring_cq_has_overflow(ring) &&
	       (!io_uring_cq_ready(ring) || io_uring_cq_ready(ring) + ROOM <= ring->cq.ring_entries);
}

/* Whether to try again: no memory now, but the kernel may have some in a moment. */
static bool passes(int err, int *tries)
{
	if ((err != -EAGAIN && err != -ENOMEM) || ++*tries > PATIENCE)
		return false;
	ctxfd_sleep(ctxfd_background(), CTXFD_MSEC);
	return true;
}

static void note_result(struct call *call, int res)
{
	/* It was cancelled because of the refusal, most likely. */
	if (call->refusal && res == -ECANCELED)
		res = call->refusal;
	if (!call->have)
		call->res = res;
	call->have = true;
}

/* Until nothing of the call is in the ring, or nothing can be done about that. */
static int await(struct call *call)
{
	struct ctxfd_uring_op *op;
	int tries = 0;

	for (bool over = false;;) {
		int what = over ? ctxfd_uring_close(&call->scope, &op) : ctxfd_uring_wait(&call->scope, &op);

		if (what > 0) {
			note_result(call, op->res);
			tries = 0;
		} else if (what == 0 && over) {
			return call->res;
		} else if (what == 0) {
			over = true;
		} else if (!passes(what, &tries)) {
			if (call->refusal)
				break;
			call->refusal = what;
			over = true;
			tries = 0;
		}
	}
	call->res = call->scope.count_ ? -ENOTRECOVERABLE : call->res;
	ctxfdi_uring_closed(&call->scope);
	return call->res;
}

static bool is_latest(struct io_uring *ring, const struct io_uring_sqe *sqe)
{
	return sqe == sqe_at(ring, ring->sq.sqe_tail - 1);
}

/*
 * Opens the scope. If that tries the ring's requests first, the operation stays out of the queue meanwhile. And for
 * good if it fails: kernels before 5.17 know no SQE that does nothing and leaves no CQE. The trial's completions may
 * have taken up the room for the call's.
 */
static int open_aside(struct ctxfd_uring_scope *scope, struct io_uring *ring, const struct ctxfd *ctx,
                      struct io_uring_sqe **sqe)
{
	size_t size = sqe_size(ring);
	unsigned char held[2 * sizeof **sqe];
	int err;

	if (!is_latest(ring, *sqe))
		return -EINVAL;
	if (ctxfdi_uring_tried(ring))
		return ctxfd_uring_open(scope, ring, ctx);
	memcpy(held, *sqe, size);
	ring->sq.sqe_tail--;
	err = ctxfd_uring_open(scope, ring, ctx);
	*sqe = err || !has_room(ring) ? NULL : take_sqe(ring);
	if (*sqe)
		memcpy(*sqe, held, size);
	else if (!err)
		ctxfd_uring_close(scope, NULL);
	return *sqe || err ? err : -EBUSY;
}

/*
 * Whether a call can begin. With SQPOLL what is queued cannot be taken back: so first whether the kernel would take it.
 * Nothing here submits while the operation is in the queue, or it would run though the call fails.
 */
static int prepare(const struct ctxfd *ctx, struct io_uring *ring, struct ctxfd_uring_scope *scope,
                   struct io_uring_sqe **sqe)
{
	int fd = has_room(ring) ? ctxfd_done_fd(ctx) : -EBUSY;
	int err = fd < 0 ? fd : open_aside(scope, ring, ctx, sqe);

	if (err || !(ring->flags & IORING_SETUP_SQPOLL))
		return err;
	err = io_uring_get_events(ring);
	if (err >= 0)
		return 0;
	spend(*sqe);
	*sqe = NULL;
	ctxfd_uring_close(scope, NULL);
	return err;
}

int ctxfd_uring_call(const struct ctxfd *ctx, struct io_uring *ring, struct io_uring_sqe *sqe)
{
	struct call call = { .res = 0 };
	int err = prepare(ctx, ring, &call.scope, &sqe);

	if (err) {
		if (sqe)
			spend(sqe);
		return err;
	}
	err = ctxfdi_uring_bind_call(&call.scope, &call.op, sqe);
	if (err) {
		ctxfd_uring_close(&call.scope, NULL);
		return err;
	}
	submit(ring);
	return await(&call);
}
