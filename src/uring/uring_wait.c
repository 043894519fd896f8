/* SPDX-License-Identifier: MIT */
/*
 * Sleeping until a scope has a completion, in a ring that others use as well: theirs stay in the queue.
 *
 * No locks: everything here runs in the thread that submits to the ring. The kernel alone writes the queue's tail, and
 * it is read here with the acquire that pairs with the kernel's release.
 */
#include <errno.h>

#include "uring/uring_scope.h"

/*
 * Whether to take a completion out of the queue: it is the scope's, or nothing for the program (one that nobody waits
 * for; or the poll or tick of another scope, unless that is to complete an operation of ctxfd_uring_end).
 */
static bool concerns(const struct ctxfd_uring_scope *scope, uint64_t data)
{
	const struct ctxfd_uring_scope *whose;

	if (!tagged(data) || data == SPENT)
		return false;
	if ((data & KIND) == PLAIN)
		return true;
	if ((data & KIND) == OP)
		return ((struct ctxfd_uring_op *)untag(data))->scope_ == scope;
	whose = untag(data);
	return whose == scope || !whose->end_;
}

/* Takes a completion for the scope. A call's has a number for user_data: the scope alone knows what that stands for. */
static int take(struct ctxfd_uring_scope *scope, struct io_uring_cqe *cqe, struct ctxfd_uring_op **op)
{
	uint64_t data = cqe->user_data;
	unsigned kind = data & KIND;
	void *whose = untag(data);

	cqe->user_data = STRAY;
	if (is_of_call(scope, data)) {
		kind = call_kind(data);
		whose = kind == OP ? (void *)scope->only_ : (void *)scope;
	}
	return ctxfdi_uring_completed(whose, kind, cqe, op);
}

/*
 * Takes completions of the scope out of the queue, wherever they are in it: one for the caller, or all that there are
 * if it wants none (op is NULL). On the way it takes those that are nothing for the program but would take up room. All
 * others stay, and so does everything behind them; the head moves only past a CQE that is taken here, or was and became
 * STRAY because it was not the head then. So CQEs that the program holds are safe: the head is one of them, and so it
 * is not ctxfd's, or is SPENT. *left is how many stay of those looked at; more may have come since.
 */
static int reap(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op, unsigned *left)
{
	struct io_uring *ring = scope->ring_;
	unsigned tail = io_uring_smp_load_acquire(ring->cq.ktail);
	struct ctxfd_uring_op *dropped;

	for (unsigned i = *ring->cq.khead; i != tail; i++) {
		struct io_uring_cqe *cqe = cqe_at(ring, i);
		int what;

		if (!concerns(scope, cqe->user_data))
			continue;
		what = take(scope, cqe, op ? op : &dropped);
		if (i == *ring->cq.khead)
			io_uring_cq_advance(ring, 1);
		if (what != CTXFD_URING_NONE && op)
			return what;
	}
	*left = tail - *ring->cq.khead;
	return CTXFD_URING_NONE;
}

/* There was no room for what must go out: submits. 0: there is room now; else why the kernel takes nothing. */
static int why_no_room(struct io_uring *ring)
{
	int ret = io_uring_submit(ring);

	return ret > 0 ? 0 : ret ? ret : -EAGAIN;
}

int ctxfd_uring_wait(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	struct io_uring *ring = scope->ring_;

	for (;;) {
		unsigned left;
		int ret = reap(scope, op, &left);

		if (ret != CTXFD_URING_NONE)
			return ret;
		if (!scope->count_ && (!scope->closing_ || idle(scope)))
			return 0;
		if (left >= ring->cq.ring_entries)
			return -EBUSY;
		if (!ctxfdi_uring_settle(scope) && (ret = why_no_room(ring)) == 0)
			continue;
		if (ret == 0)
			ret = io_uring_submit_and_wait(ring, left + 1);
		if (ret < 0 && ret != -EINTR)
			return ret;
	}
}
