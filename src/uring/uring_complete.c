/* SPDX-License-Identifier: MIT */
/*
 * What a completion is, and what follows from it: an operation's result and its end, the poll's word that the context
 * has ended, the tick after which cancels are repeated.
 *
 * No locks: everything here runs in the thread that submits to the ring, which reads the kernel's answers too.
 */
#include <errno.h>

#include "uring/uring_scope.h"

/* -ECANCELED, -EINTR, and the kernel's own -ERESTART..., which some operations let out. */
static bool interrupted(int res)
{
	return res == -ECANCELED || res == -EINTR || (res >= -516 && res <= -512);
}

/*
 * Why an operation was interrupted: the context's err; -ECANCELED if the operation alone was cancelled, or its scope
 * ends; 0 for another reason.
 */
static int reason(const struct ctxfd_uring_op *op)
{
	int err = ctxfd_err(op->scope_->ctx_);

	return err ? err : op->canceled_ || ending(op->scope_) ? -ECANCELED : 0;
}

/* The operation's memory is the program's again. */
static void leave(struct ctxfd_uring_op *op)
{
	struct ctxfd_uring_scope *scope = op->scope_;

	list_remove(&op->link_);
	op->link_.next_ = NULL;
	if (scope->alone_ == op)
		scope->alone_ = NULL;
	scope->count_--;
}

/* Whether something may not have gone out for want of room. (A call has no poll out until it sleeps: not for that.) */
static bool held_up(const struct ctxfd_uring_scope *scope)
{
	return !list_empty(&scope->due_) || (scope->poll_ == IDLE && scope->tick_ == IDLE && !scope->call_);
}

static int op_completed(struct ctxfd_uring_op *op, const struct io_uring_cqe *cqe)
{
	struct ctxfd_uring_scope *scope = op->scope_;
	int err = interrupted(cqe->res) ? reason(op) : 0;
	bool more = cqe->flags & IORING_CQE_F_MORE;

	op->res = err ? err : cqe->res;
	op->flags = cqe->flags;
	if (!more)
		leave(op);
	if (!scope->count_ || held_up(scope))
		ctxfdi_uring_settle(scope);
	return more ? CTXFD_URING_MORE : CTXFD_URING_LAST;
}

void ctxfdi_uring_withdrawn(struct ctxfd_uring_op *op)
{
	op->res = reason(op);
	op->flags = 0;
	leave(op);
}

void ctxfdi_uring_closed(struct ctxfd_uring_scope *scope)
{
	ctxfd_unref(scope->ctx_);
	scope->ctx_ = NULL;
}

int ctxfdi_uring_ended(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	*op = scope->end_;
	(*op)->res = 0;
	(*op)->flags = 0;
	ctxfdi_uring_closed(scope);
	return CTXFD_URING_LAST;
}

static int poll_completed(struct ctxfd_uring_scope *scope, int res, struct ctxfd_uring_op **op)
{
	if (scope->poll_ != NOTE && res < 0 && res != -ECANCELED)
		scope->error_ = res;
	scope->poll_ = IDLE;
	if (idle(scope) && scope->end_)
		return ctxfdi_uring_ended(scope, op);
	ctxfdi_uring_settle(scope);
	return CTXFD_URING_NONE;
}

static int tick_completed(struct ctxfd_uring_scope *scope, int res, struct ctxfd_uring_op **op)
{
	bool goes_on = ctxfdi_uring_ticked(scope, res);

	if (idle(scope) && scope->end_)
		return ctxfdi_uring_ended(scope, op);
	if (goes_on)
		ctxfdi_uring_settle(scope);
	return CTXFD_URING_NONE;
}

int ctxfdi_uring_completed(void *whose, unsigned kind, const struct io_uring_cqe *cqe, struct ctxfd_uring_op **op)
{
	switch (kind) {
	case OP:
		*op = whose;
		return op_completed(whose, cqe);
	case POLL:
		return poll_completed(whose, cqe->res, op);
	case TICK:
		return tick_completed(whose, cqe->res, op);
	default:
		return CTXFD_URING_NONE;
	}
}

int ctxfd_uring_complete(struct io_uring_cqe *cqe, struct ctxfd_uring_op **op)
{
	uint64_t data = cqe->user_data;

	if (!tagged(data))
		return CTXFD_URING_OTHER;
	cqe->user_data = SPENT;
	return ctxfdi_uring_completed(untag(data), data & KIND, cqe, op);
}
