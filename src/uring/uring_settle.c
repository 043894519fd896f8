/* SPDX-License-Identifier: MIT */
/*
 * Bringing the ring to what a scope's state calls for: its poll of the done fd, its cancels, the note of its end.
 *
 * All progress is made by settle, which compares what is in the ring with that state. It may run at any time, and runs
 * whenever the state has changed: a request of the scope's own completed, the last operation ended, the scope is being
 * closed.
 *
 * No locks: everything here runs in the thread that submits to the ring.
 */
#include <poll.h>

#include "uring/uring_scope.h"

void ctxfdi_uring_prep_poll(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, int done_fd)
{
	clear_sqe(sqe);
	io_uring_prep_poll_add(sqe, done_fd, POLLIN);
	sqe->user_data = name_of_own(scope, POLL);
	scope->poll_ = ARMED;
}

static void prep_note(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe)
{
	clear_sqe(sqe);
	io_uring_prep_nop(sqe);
	sqe->user_data = name_of_own(scope, POLL);
	scope->poll_ = NOTE;
}

/* Asks the kernel to take a request of the scope's own back. Its CQE is still to come. */
static void take_back(struct ctxfd_uring_scope *scope, unsigned kind, uint8_t *state)
{
	struct io_uring_sqe *sqe;

	if (*state != ARMED || !(sqe = take_sqe(scope->ring_)))
		return;
	prep_cancel(sqe, name_of_own(scope, kind));
	if (kind == POLL)
		scope->unpoll_at_ = scope->ring_->sq.sqe_tail - 1;
	*state = LEAVING;
}

bool ctxfdi_uring_arrange(struct ctxfd_uring_scope *scope)
{
	int err = ctxfd_err(scope->ctx_);
	bool ends = err || ending(scope), leaves = !err && (ends || !scope->count_);
	struct io_uring_sqe *sqe;

	if (ends)
		list_splice(&scope->due_, &scope->live_);
	else if (scope->count_ && scope->poll_ == IDLE && (sqe = take_sqe(scope->ring_)))
		ctxfdi_uring_prep_poll(scope, sqe, ctxfd_done_fd(scope->ctx_));
	ctxfdi_uring_send_cancels(scope);
	if (leaves)
		take_back(scope, POLL, &scope->poll_);
	if (!scope->count_)
		take_back(scope, TICK, &scope->tick_);
	if (idle(scope) && scope->end_ && (sqe = take_sqe(scope->ring_)))
		prep_note(scope, sqe);
	if (scope->tick_ == IDLE && wants_tick(scope))
		return false;
	if (scope->poll_ == IDLE)
		return scope->tick_ != IDLE || (scope->count_ ? ends : !scope->end_);
	return scope->poll_ != ARMED || !leaves;
}

/*
 * Submitted, since the program may be about to wait without a submission; but not when all there is is the removal of a
 * poll that nobody waits for: that can go out with the program's next one.
 */
bool ctxfdi_uring_settle(struct ctxfd_uring_scope *scope)
{
	bool arranged = ctxfdi_uring_arrange(scope);

	if (scope->count_ || scope->end_)
		submit(scope->ring_);
	return arranged;
}
