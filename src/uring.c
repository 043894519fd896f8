/* SPDX-License-Identifier: MIT */
/*
 * Operations of an io_uring that end when a context does.
 *
 * A scope keeps a list of its operations in flight and at most one request of its own, the watch:
 *
 *     POLL   while the context is live and something is in flight: a oneshot poll of the done fd.
 *     TICK   while the scope is ending and something is in flight: a timeout, after which all cancels are sent anew.
 *     NOTE   when the program waits for the end of a scope of which nothing is in the ring: a no-op that completes.
 *     IDLE   otherwise. No request of the scope is in the ring, and only then can its storage be given up.
 *
 * All progress is made by settle(), which compares the watch with what the scope's state calls for. It may run at any
 * time, and runs whenever the state has changed: the watch completed, the last operation ended, the scope is being
 * closed.
 *
 * One cancel for each operation, by its user_data, is the only way that is neither quadratic nor hits strangers. Why
 * the cancels are repeated: the kernel does not find a request that is neither waiting nor running at that instant,
 * such as the next one of a chain, or one that a worker thread is about to park. Flag ALL makes a cancel that finds
 * nothing a success, so that with CQE_SKIP_SUCCESS none leaves a CQE.
 *
 * Nothing is sent twice to the wrong one: a record can be started anew while a cancel of its former operation still
 * sits in the submission queue, but the kernel takes the queue in order, so that cancel finds nothing when it runs.
 *
 * The kernel's answers are read in one thread, so there are no locks. An operation leaves the list only by its final
 * CQE, and each CQE counts once, because its user_data is overwritten when it is taken.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "uring_entry.h"

/* How many cancels go out in one submission: larger ones gain nothing, and tie up the kernel for longer. */
#define BATCH 128

/* The first wait before cancels are repeated, and how much longer it is for each operation in flight. */
#define TICK_NS     (10 * CTXFD_MSEC)
#define TICK_OP_NS  (20 * CTXFD_USEC)
#define TICK_ROUNDS 8 /* so often the former doubles */

/* Setup flags that liburing 2.3 does not know. */
#define SETUP_MIXED (1U << 18 | 1U << 19)

enum { IDLE, POLL, TICK, NOTE };

/* ---- Lists ------------------------------------------------------------------------------------------------------- */

static void list_init(struct ctxfd_uring_link_ *head)
{
	head->prev_ = head->next_ = head;
}

static void list_remove(struct ctxfd_uring_link_ *link)
{
	link->prev_->next_ = link->next_;
	link->next_->prev_ = link->prev_;
}

static void list_append(struct ctxfd_uring_link_ *head, struct ctxfd_uring_link_ *link)
{
	link->next_ = head;
	link->prev_ = head->prev_;
	head->prev_->next_ = link;
	head->prev_ = link;
}

/* Moves all of `from` to the end of `to`. */
static void list_splice(struct ctxfd_uring_link_ *to, struct ctxfd_uring_link_ *from)
{
	if (from->next_ == from)
		return;
	from->next_->prev_ = to->prev_;
	from->prev_->next_ = to;
	to->prev_->next_ = from->next_;
	to->prev_ = from->prev_;
	list_init(from);
}

static struct ctxfd_uring_op *op_of(struct ctxfd_uring_link_ *link)
{
	return (struct ctxfd_uring_op *)((char *)link - offsetof(struct ctxfd_uring_op, link_));
}

/* ---- The scope's own request ------------------------------------------------------------------------------------- */

static void prep_poll(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, int done_fd)
{
	io_uring_prep_poll_add(sqe, done_fd, POLLIN);
	sqe->user_data = tag(scope, WATCH);
	scope->watch_ = POLL;
}

static void prep_tick(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe)
{
	int64_t ns = (TICK_NS << scope->round_) + scope->count_ * TICK_OP_NS;

	scope->tick_.tv_sec = ns / CTXFD_SEC;
	scope->tick_.tv_nsec = ns % CTXFD_SEC;
	io_uring_prep_timeout(sqe, (struct __kernel_timespec *)&scope->tick_, 0, 0);
	sqe->user_data = tag(scope, WATCH);
	scope->watch_ = TICK;
}

static void prep_note(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe)
{
	io_uring_prep_nop(sqe);
	sqe->user_data = tag(scope, WATCH);
	scope->watch_ = NOTE;
}

static bool ending(const struct ctxfd_uring_scope *scope)
{
	return scope->closing_ || scope->error_ || ctxfd_err(scope->ctx_);
}

/* Asks the kernel to take the watch back. Its CQE is still to come. */
static void unwatch(struct ctxfd_uring_scope *scope)
{
	struct io_uring_sqe *sqe;

	if (scope->unwatching_ || !(sqe = take_sqe(scope->ring_)))
		return;
	prep_cancel(sqe, tag(scope, WATCH));
	scope->unwatch_at_ = scope->ring_->sq.sqe_tail - 1;
	scope->unwatching_ = true;
}

/* An operation starts after the last one ended: if the kernel has not seen yet that the poll should go, it stays. */
static void keep_watch(struct ctxfd_uring_scope *scope)
{
	if (scope->watch_ != POLL || !scope->unwatching_ || !sqe_held(scope->ring_, scope->unwatch_at_))
		return;
	spend(sqe_at(scope->ring_, scope->unwatch_at_));
	scope->unwatching_ = false;
}

static void cancel_live(struct ctxfd_uring_scope *scope)
{
	struct ctxfd_uring_link_ *link;
	struct io_uring_sqe *sqe;

	for (unsigned n = 1; (link = scope->live_.next_) != &scope->live_; n++) {
		if (!(sqe = take_sqe(scope->ring_)))
			return;
		prep_cancel(sqe, tag(op_of(link), OP));
		list_remove(link);
		list_append(&scope->asked_, link);
		if (n % BATCH == 0)
			submit(scope->ring_);
	}
}

/*
 * Queues what the scope's state calls for, and returns what the watch should be. If the kernel takes nothing now, what
 * could not be queued is left for the next time.
 */
static unsigned arrange(struct ctxfd_uring_scope *scope)
{
	unsigned want = scope->count_ ? (ending(scope) ? TICK : POLL) : scope->end_ ? NOTE : IDLE;
	struct io_uring_sqe *sqe;

	if (scope->watch_ == IDLE && want != IDLE && (sqe = take_sqe(scope->ring_))) {
		if (want == POLL)
			prep_poll(scope, sqe, ctxfd_done_fd(scope->ctx_));
		else if (want == TICK)
			prep_tick(scope, sqe);
		else
			prep_note(scope, sqe);
	} else if (scope->watch_ != IDLE && scope->watch_ != want) {
		unwatch(scope);
	}
	if (want == TICK)
		cancel_live(scope);
	return want;
}

/*
 * Brings the ring to what the scope's state calls for. That is submitted, since the program may be about to wait
 * without a submission; but for the removal of a watch that nobody waits for, which can go out with the program's next
 * one. False: the kernel takes nothing now, and no completion may come by which there would be another try.
 */
static bool settle(struct ctxfd_uring_scope *scope)
{
	unsigned want = arrange(scope);

	if (want != IDLE)
		submit(scope->ring_);
	return scope->watch_ == want || scope->unwatching_;
}

/* Nothing of the scope is in the ring any more. */
static void closed(struct ctxfd_uring_scope *scope)
{
	ctxfd_unref(scope->ctx_);
	scope->ctx_ = NULL;
}

static int watch_completed(struct ctxfd_uring_scope *scope, int res, struct ctxfd_uring_op **op)
{
	if (scope->watch_ == POLL && res < 0 && res != -ECANCELED)
		scope->error_ = res;
	if (scope->watch_ == TICK && !scope->unwatching_) {
		list_splice(&scope->live_, &scope->asked_);
		scope->round_ += scope->round_ < TICK_ROUNDS;
	}
	scope->watch_ = IDLE;
	scope->unwatching_ = false;
	if (scope->count_ || !scope->end_) {
		settle(scope);
		return CTXFD_URING_NONE;
	}
	*op = scope->end_;
	(*op)->res = 0;
	(*op)->flags = 0;
	closed(scope);
	return CTXFD_URING_LAST;
}

/* ---- Starting ---------------------------------------------------------------------------------------------------- */

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
	size_t size = sizeof *sqe << !!(scope->ring_->flags & IORING_SETUP_SQE128);
	unsigned char held[2 * sizeof *sqe];

	memcpy(held, sqe, size);
	prep_poll(scope, sqe, done_fd);
	sqe = take_sqe(scope->ring_);
	if (sqe)
		memcpy(sqe, held, size);
	return sqe;
}

int uring_bind(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe, bool watch)
{
	int err = admit(scope, sqe);

	if (!err && watch && !scope->count_ && scope->watch_ == IDLE) {
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
	keep_watch(scope);
	op->scope_ = scope;
	sqe->user_data = tag(op, OP);
	scope->started_at_ = scope->ring_->sq.sqe_tail - 1;
	list_append(&scope->live_, &op->link_);
	scope->count_++;
	return 0;
}

int ctxfd_uring_start(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe)
{
	return uring_bind(scope, op, sqe, true);
}

/* ---- Completing -------------------------------------------------------------------------------------------------- */

/* -ECANCELED, -EINTR, and the kernel's own -ERESTART..., which some operations let out. */
static bool interrupted(int res)
{
	return res == -ECANCELED || res == -EINTR || (res >= -516 && res <= -512);
}

/*
 * Why an operation was interrupted: the context's err, -ECANCELED when the scope alone is ending, 0 for another reason.
 */
static int reason(const struct ctxfd_uring_scope *scope)
{
	int err = ctxfd_err(scope->ctx_);

	return err ? err : ending(scope) ? -ECANCELED : 0;
}

static int op_completed(struct ctxfd_uring_op *op, const struct io_uring_cqe *cqe)
{
	struct ctxfd_uring_scope *scope = op->scope_;
	int err = interrupted(cqe->res) ? reason(scope) : 0;

	op->res = err ? err : cqe->res;
	op->flags = cqe->flags;
	if (cqe->flags & IORING_CQE_F_MORE)
		return CTXFD_URING_MORE;
	list_remove(&op->link_);
	scope->count_--;
	if (!scope->count_ || scope->watch_ == IDLE)
		settle(scope);
	return CTXFD_URING_LAST;
}

int ctxfd_uring_complete(struct io_uring_cqe *cqe, struct ctxfd_uring_op **op)
{
	uint64_t data = cqe->user_data;

	if (!tagged(data))
		return CTXFD_URING_OTHER;
	cqe->user_data = tag(NULL, SPENT);
	switch (data & KIND) {
	case OP:
		*op = untag(data);
		return op_completed(*op, cqe);
	case WATCH:
		return watch_completed(untag(data), cqe->res, op);
	default:
		return CTXFD_URING_NONE;
	}
}

static bool concerns(const struct ctxfd_uring_scope *scope, uint64_t data)
{
	const struct ctxfd_uring_scope *watched;

	if (!tagged(data) || (data & KIND) == SPENT)
		return false;
	if ((data & KIND) == OP)
		return ((struct ctxfd_uring_op *)untag(data))->scope_ == scope;
	watched = untag(data);
	return watched == scope || !watched->end_;
}

/*
 * Takes completions of the scope out of the queue, wherever they are in it: one for the caller, or all that there are
 * if it wants none (op is NULL). On the way it takes those of other scopes' watches that are nothing for the program
 * but would take up room. All others stay, and so does everything behind them; the head moves only past a CQE that is
 * taken right there. So CQEs that the program holds are safe: the head is one of them, and so it is not ctxfd's, or is
 * spent. *left is how many stay of those looked at; more may have come since.
 */
static int reap(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op, unsigned *left)
{
	struct io_uring *ring = scope->ring_;
	unsigned tail = io_uring_smp_load_acquire(ring->cq.ktail);
	struct ctxfd_uring_op *dropped;

	for (unsigned i = *ring->cq.khead; i != tail; i++) {
		struct io_uring_cqe *cqe = &ring->cq.cqes[io_uring_cqe_index(ring, i, ring->cq.ring_mask)];
		int what;

		if (!concerns(scope, cqe->user_data))
			continue;
		what = ctxfd_uring_complete(cqe, op ? op : &dropped);
		if (i == *ring->cq.khead)
			io_uring_cq_advance(ring, 1);
		if (what != CTXFD_URING_NONE && op)
			return what;
	}
	*left = tail - *ring->cq.khead;
	return CTXFD_URING_NONE;
}

int ctxfd_uring_wait(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	struct io_uring *ring = scope->ring_;

	for (;;) {
		unsigned left;
		int ret = reap(scope, op, &left);

		if (ret != CTXFD_URING_NONE)
			return ret;
		if (!scope->count_ && (!scope->closing_ || scope->watch_ == IDLE))
			return 0;
		if (left >= ring->cq.ring_entries)
			return -EBUSY;
		if (!settle(scope))
			return -EAGAIN;
		ret = io_uring_submit_and_wait(ring, left + 1);
		if (ret < 0 && ret != -EINTR)
			return ret;
	}
}

/* ---- Opening and closing ----------------------------------------------------------------------------------------- */

/* Whether the kernel has CQE_SKIP_SUCCESS, and flag ALL, which came with 5.19 together with the opcode SOCKET. */
static int probe(struct io_uring *ring)
{
	static atomic_bool supported;
	_Alignas(struct io_uring_probe) unsigned char
	        room[sizeof(struct io_uring_probe) + (IORING_OP_SOCKET + 1) * sizeof(struct io_uring_probe_op)] = { 0 };
	struct io_uring_probe *p = (struct io_uring_probe *)room;
	int err;

	if (atomic_load_explicit(&supported, memory_order_relaxed))
		return 0;
	err = io_uring_register_probe(ring, p, IORING_OP_SOCKET + 1);
	if (err < 0)
		return err;
	if (!(ring->features & IORING_FEAT_CQE_SKIP) || !io_uring_opcode_supported(p, IORING_OP_SOCKET))
		return -EOPNOTSUPP;
	atomic_store_explicit(&supported, true, memory_order_relaxed);
	return 0;
}

int ctxfd_uring_open(struct ctxfd_uring_scope *scope, struct io_uring *ring, const struct ctxfd *ctx)
{
	int err;

	if (ring->flags & (IORING_SETUP_IOPOLL | SETUP_MIXED))
		return -EINVAL;
	err = probe(ring);
	if (err)
		return err;
	memset(scope, 0, sizeof *scope);
	scope->ring_ = ring;
	scope->ctx_ = ctxfd_ref(ctx);
	list_init(&scope->live_);
	list_init(&scope->asked_);
	scope->started_at_ = ring->sq.sqe_head - 1; /* none */
	return 0;
}

int ctxfd_uring_close(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	int ret;

	if (!scope->ctx_)
		return 0;
	scope->closing_ = true;
	settle(scope);
	ret = ctxfd_uring_wait(scope, op);
	if (!ret && scope->ctx_)
		closed(scope);
	return ret;
}

int ctxfd_uring_end(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op)
{
	scope->closing_ = true;
	scope->end_ = op;
	arrange(scope);
	if (scope->count_ || scope->watch_ != IDLE)
		return 0;
	scope->end_ = NULL;
	return -EBUSY;
}
