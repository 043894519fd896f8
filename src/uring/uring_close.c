/* SPDX-License-Identifier: MIT */
/*
 * The end of a scope, asleep (close) or in the program's loop (end); and what becomes of operations that a kernel which
 * refuses has never taken.
 *
 * No locks: everything here runs in the thread that submits to the ring. What is still in the submission queue is the
 * program's as long as the kernel's head has not passed it (untaken).
 */
#include <errno.h>

#include "uring/uring_scope.h"

/*
 * Makes an SQE that is not the kernel's do nothing. One that links to the next fails, so that its chain is over;
 * without CQE_SKIP_SUCCESS, which would have the kernel skip the completions of the rest.
 */
static void neutralise(struct io_uring_sqe *sqe)
{
	uint8_t links = sqe->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK);

	if (!links) {
		spend(sqe);
		return;
	}
	prep_cancel(sqe, STRAY);
	sqe->flags = links;
}

/* What of the scope an SQE is: OP (stored in *op), POLL, TICK, or PLAIN if it is none. */
static unsigned whats_queued(const struct ctxfd_uring_scope *scope, uint64_t data, struct ctxfd_uring_op **op)
{
	bool of_the_call = is_of_call(scope, data);
	unsigned kind = of_the_call ? call_kind(data) : tagged(data) ? data & KIND : PLAIN;

	if (kind == OP)
		*op = of_the_call ? scope->only_ : untag(data);
	if (kind == OP ? (*op)->scope_ == scope : data == name_of_own(scope, kind))
		return kind;
	return PLAIN;
}

/*
 * Takes back what the kernel has not taken and refuses to: LAST with an operation for the caller, or all if it wants
 * none. (Not with SQPOLL: the kernel may be at it right now.)
 */
static int withdraw(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	struct io_uring *ring = scope->ring_;

	for (unsigned i = *ring->sq.khead; untaken(ring, i); i++) {
		struct io_uring_sqe *sqe = sqe_at(ring, i);
		struct ctxfd_uring_op *held = NULL;
		unsigned what = whats_queued(scope, sqe->user_data, &held);

		if (what == PLAIN)
			continue;
		neutralise(sqe);
		if (what != OP) {
			*(what == POLL ? &scope->poll_ : &scope->tick_) = IDLE;
			scope->alone_ = what == TICK ? NULL : scope->alone_;
			continue;
		}
		ctxfdi_uring_withdrawn(held);
		if (op) {
			*op = held;
			return CTXFD_URING_LAST;
		}
	}
	return CTXFD_URING_NONE;
}

int ctxfd_uring_close(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	int ret;

	if (!scope->ctx_)
		return 0;
	scope->closing_ = true;
	ctxfdi_uring_settle(scope);
	ret = ctxfd_uring_wait(scope, op);
	if (ret < 0 && withdraw(scope, op) != CTXFD_URING_NONE)
		return CTXFD_URING_LAST;
	if (ret < 0 && idle(scope))
		ret = scope->end_ && op ? ctxfdi_uring_ended(scope, op) : 0;
	if (!ret && scope->ctx_)
		ctxfdi_uring_closed(scope);
	return ret;
}

int ctxfd_uring_end(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op)
{
	scope->closing_ = true;
	scope->end_ = op;
	op->link_.next_ = NULL;
	if (ctxfdi_uring_arrange(scope))
		return 0;
	scope->end_ = NULL;
	return -EBUSY;
}
