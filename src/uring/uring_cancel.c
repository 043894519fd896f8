/* SPDX-License-Identifier: MIT */
/*
 * Cancels, and their repetition: what is due is cancelled until it has ended.
 *
 * One cancel for each operation, by its user_data, is the only way that hits no strangers. It costs as much as the
 * operation: the kernel finds what waits for a file by its hash. (For a timeout, and for what it does not find by hash,
 * it walks its list of timeouts. So cancelling a timeout costs more; and flag ALL would walk the list each time.)
 *
 * Why the cancels are repeated: the kernel does not find a request that is neither waiting nor running at that instant,
 * such as the next one of a chain, or one that a worker thread is about to park. Most often there is none.
 *
 * So a cancel that goes out alone leaves a CQE, which says whether the operation was found: 0 means that it was, and
 * will end. The cancels of many operations leave no CQE when they succeed, since that would be one for each. They are
 * followed by a fence: a request that completes after the operations that were cancelled before it, or, in kernels that
 * work on the latest first, together with them. So only what is in flight after the second fence is cancelled again,
 * and only what is left then is worth a timeout.
 *
 * No cancel hits a later operation: a record can be started anew while a cancel of its former operation still sits in
 * the submission queue, but the kernel takes the queue in order, so that cancel finds nothing when it runs.
 *
 * No locks: everything here runs in the thread that submits to the ring.
 */
#include <errno.h>

#include "uring/uring_scope.h"

/* How many cancels go out in one submission: larger ones gain nothing, and tie up the kernel for longer. */
#define BATCH 128

/*
 * What goes before each repetition of the cancels: first fences, then timeouts, each twice as long as the one before
 * (`ticks`). With many operations in flight the first one is longer: TICK_OP_NS for each.
 */
#define FENCES     2
#define TICK_NS    (10 * CTXFD_MSEC)
#define TICK_OP_NS (20 * CTXFD_USEC)
#define TICK_LAST  (FENCES + 8) /* the round that repeats itself */

#define MS(ms)                                                             \
	{                                                                  \
		.tv_sec = (ms) / 1000, .tv_nsec = (ms) % 1000 * CTXFD_MSEC \
	}
static const struct __kernel_timespec ticks[] = {
	MS(10),   MS(20),   MS(40),   MS(80),    MS(160),   MS(320),   MS(640),
	MS(1280), MS(2560), MS(5120), MS(10240), MS(20480), MS(40960),
};

enum { TICKS = sizeof ticks / sizeof *ticks };

static void prep_timeout(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe)
{
	unsigned n = scope->round_ < FENCES ? 0 : scope->round_ - FENCES;

	while (n < TICKS - 1 && (TICK_NS << n) < scope->count_ * TICK_OP_NS)
		n++;
	clear_sqe(sqe);
	io_uring_prep_timeout(sqe, (struct __kernel_timespec *)(uintptr_t)&ticks[n], 0, 0);
	sqe->user_data = name_of_own(scope, TICK);
	scope->tick_ = ARMED;
}

/*
 * A fence is a poll for nothing, and a cancel of that right behind: like the operations that were cancelled before, it
 * completes when the kernel gets to its work for this thread.
 */
static void prep_tick(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe)
{
	int fd = ctxfd_done_fd(scope->ctx_);
	unsigned at = scope->ring_->sq.sqe_tail - 1;
	struct io_uring_sqe *cancel;

	prep_timeout(scope, sqe);
	if (scope->round_ >= FENCES)
		return;
	clear_sqe(sqe);
	io_uring_prep_poll_add(sqe, fd, 0);
	sqe->user_data = name_of_own(scope, TICK);
	cancel = take_sqe(scope->ring_);
	if (cancel) {
		prep_cancel(cancel, name_of_own(scope, TICK));
		scope->tick_ = QUICK;
	} else if (untaken(scope->ring_, at)) {
		prep_timeout(scope, sqe);
	}
}

/* Prepares the cancel of an operation, which is repeated from now on until it has ended. */
static void prep_cancel_of(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, struct ctxfd_uring_op *op)
{
	prep_cancel(sqe, name_of(scope, op));
	op->canceled_ = true;
	list_remove(&op->link_);
	list_append(&scope->asked_, &op->link_);
}

/* Cancels what is due, as far as there is room, and leaves some for the timeout. */
static void send_due(struct ctxfd_uring_scope *scope)
{
	struct ctxfd_uring_link_ *link;
	struct io_uring_sqe *sqe;

	for (unsigned n = 1; (link = scope->due_.next_) != &scope->due_; n++) {
		if (!room_for(scope->ring_, scope->tick_ == IDLE ? 3 : 1) || !(sqe = take_sqe(scope->ring_)))
			return;
		prep_cancel_of(scope, sqe, op_of(link));
		if (n % BATCH == 0)
			submit(scope->ring_);
	}
}

/* Whether there is one operation to cancel, for the first time, and no tick or other cancel to wait for. */
static bool lone(const struct ctxfd_uring_scope *scope)
{
	return !list_empty(&scope->due_) && scope->due_.next_ == scope->due_.prev_ && list_empty(&scope->asked_) &&
	       scope->tick_ == IDLE && scope->round_ == 0;
}

static void send_lone(struct ctxfd_uring_scope *scope)
{
	struct ctxfd_uring_op *op = op_of(scope->due_.next_);
	struct io_uring_sqe *sqe = take_sqe(scope->ring_);

	if (!sqe)
		return;
	prep_cancel_of(scope, sqe, op);
	sqe->flags = 0;
	sqe->user_data = name_of_own(scope, TICK);
	scope->alone_ = op;
	scope->tick_ = QUICK;
}

void ctxfdi_uring_send_cancels(struct ctxfd_uring_scope *scope)
{
	struct io_uring_sqe *sqe;

	if (lone(scope))
		send_lone(scope);
	else
		send_due(scope);
	if (!wants_tick(scope))
		scope->round_ = 0;
	else if (scope->tick_ == IDLE && (sqe = take_sqe(scope->ring_)))
		prep_tick(scope, sqe);
}

/* The kernel has found the operation that was cancelled alone: it ends, and nothing more is to be done for that. */
static void found(struct ctxfd_uring_scope *scope)
{
	list_remove(&scope->alone_->link_);
	list_init(&scope->alone_->link_);
	scope->alone_ = NULL;
	scope->tick_ = IDLE;
}

bool ctxfdi_uring_ticked(struct ctxfd_uring_scope *scope, int res)
{
	bool failed;

	if (scope->alone_ && res == 0) {
		found(scope);
		return true;
	}
	scope->alone_ = NULL;
	failed = res != -ETIME && res != -ECANCELED && scope->round_ == TICK_LAST;

	if (scope->tick_ != LEAVING && scope->round_ + 1 >= FENCES)
		list_splice(&scope->due_, &scope->asked_);
	scope->tick_ = IDLE;
	scope->round_ += scope->round_ < TICK_LAST;
	return !failed;
}

int ctxfd_uring_cancel(struct ctxfd_uring_op *op)
{
	struct ctxfd_uring_scope *scope = op->scope_;

	if (!op->link_.next_)
		return -ENOENT;
	if (!op->canceled_) {
		op->canceled_ = true;
		list_remove(&op->link_);
		list_append(&scope->due_, &op->link_);
		scope->round_ = 0;
	}
	ctxfdi_uring_send_cancels(scope);
	return (wants_tick(scope) && scope->tick_ == IDLE) || !list_empty(&scope->due_) ? -EBUSY : 0;
}
