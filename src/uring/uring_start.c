/* SPDX-License-Identifier: MIT */
/*
 * How an operation comes into its scope.
 *
 * The poll goes into the queue before the first operation, so that nothing is in flight whose end nobody would hear of.
 * A context that ends after it was looked at here has the poll complete at once.
 *
 * No locks: everything here runs in the thread that submits to the ring.
 */
#include <errno.h>

#include "uring/uring_scope.h"

/* Whether the SQE at this index links to the next one and is not an operation of the scope. */
static bool links_from_outside(const struct ctxfd_uring_scope *scope, unsigned index)
{
	return sqe_held(scope->ring_, index) && index != scope->started_at_ &&
	       sqe_at(scope->ring_, index)->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK);
}

static int admit(const struct ctxfd_uring_scope *scope, const struct io_uring_sqe *sqe)
{
	unsigned last = scope->ring_->sq.sqe_tail - 1;

	if (scope->closing_)
		return -ECANCELED;
	if (scope->error_)
		return scope->error_;
	if (sqe != sqe_at(scope->ring_, last) || sqe->flags & (IOSQE_IO_DRAIN | IOSQE_CQE_SKIP_SUCCESS) ||
	    links_from_outside(scope, last - 1))
		return -EINVAL;
	return ctxfd_err(scope->ctx_);
}

/*
 * Puts the poll before the operation, which may be the head of a chain: the poll takes its SQE, and it moves to the
 * next one. Returns where, or NULL: then the poll is queued, and the operation is not.
 */
static struct io_uring_sqe *poll_before(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, int done_fd)
{
	size_t size = sqe_size(scope->ring_);
	unsigned char held[2 * sizeof *sqe];

	memcpy(held, sqe, size);
	ctxfdi_uring_prep_poll(scope, sqe, done_fd);
	sqe = take_sqe(scope->ring_);
	if (sqe)
		memcpy(sqe, held, size);
	return sqe;
}

/*
 * An operation starts after the last one has ended: if the poll's removal is still in the submission queue, the poll
 * stays. If the operation comes right behind that removal, it moves into its place. Returns where the operation is.
 */
static struct io_uring_sqe *keep_poll(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe)
{
	struct io_uring *ring = scope->ring_;
	unsigned at = scope->unpoll_at_;
	struct io_uring_sqe *unpoll = sqe_at(ring, at);

	if (scope->poll_ != LEAVING || !sqe_held(ring, at))
		return sqe;
	scope->poll_ = ARMED;
	if (at + 2 != ring->sq.sqe_tail || links_from_outside(scope, at - 1)) {
		spend(unpoll);
		return sqe;
	}
	memcpy(unpoll, sqe, sqe_size(ring));
	ring->sq.sqe_tail--;
	return unpoll;
}

/*
 * Whether the kernel, when it looks for this operation, begins with the latest, as it does for what waits in a poll.
 * Among timeouts, and what waits for a worker thread, it begins with the oldest. (A read of a file may be done by a
 * worker; but where thousands of reads wait, they wait for pipes or sockets. With writes it is the other way round.)
 */
static bool found_latest_first(const struct io_uring_sqe *sqe)
{
	switch (sqe->flags & IOSQE_ASYNC ? IORING_OP_NOP : sqe->opcode) {
	case IORING_OP_POLL_ADD:
	case IORING_OP_ACCEPT:
	case IORING_OP_CONNECT:
	case IORING_OP_RECV:
	case IORING_OP_RECVMSG:
	case IORING_OP_READ:
	case IORING_OP_READV:
	case IORING_OP_SEND:
	case IORING_OP_SENDMSG:
		return true;
	default:
		return false;
	}
}

/* Puts op into the list, in whose order cancels go out: where the kernel finds each at once. */
static void enlist(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe)
{
	op->scope_ = scope;
	op->canceled_ = false;
	sqe->user_data = name_of(scope, op);
	scope->started_at_ = scope->ring_->sq.sqe_tail - 1;
	list_insert(found_latest_first(sqe) ? scope->live_.next_ : &scope->live_, &op->link_);
	scope->count_++;
}

int ctxfd_uring_start(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe)
{
	int err = admit(scope, sqe);

	op->link_.next_ = NULL;
	if (!err && !scope->count_ && scope->poll_ == IDLE) {
		int done_fd = ctxfd_done_fd(scope->ctx_);

		if (done_fd < 0)
			err = done_fd;
		else if (!(sqe = poll_before(scope, sqe, done_fd)))
			return -EBUSY;
	}
	if (err) {
		spend(sqe);
		return err;
	}
	enlist(scope, op, keep_poll(scope, sqe));
	return 0;
}

int ctxfdi_uring_bind_call(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe)
{
	int err = admit(scope, sqe);

	if (err) {
		spend(sqe);
		return err;
	}
	scope->call_ = ctxfdi_uring_new_call();
	scope->only_ = op;
	enlist(scope, op, sqe);
	return 0;
}
