/* SPDX-License-Identifier: MIT */
/*
 * Operations of an io_uring that end when a context does.
 *
 * Each operation in flight is in one of its scope's lists: live, due (a cancel is to go out for it), or asked (one
 * has). A scope has at most two requests of its own in the ring:
 *
 *     POLL    while the context is live and something is in flight: a oneshot poll of the done fd. Or, when the program
 *             waits for the end of a scope of which nothing is in the ring: a no-op that completes (NOTE).
 *     TICK    while an operation is due or asked: a fence or a timeout, after which all cancels are sent anew.
 *
 * Only when neither is in the ring, nor any operation, can the scope's storage be given up.
 *
 * All progress is made by settle(), which compares these with what the scope's state calls for. It may run at any time,
 * and runs whenever the state has changed: one of them completed, the last operation ended, the scope is being closed.
 *
 * One cancel for each operation, by its user_data, is the only way that hits no strangers, and costs what the operation
 * does: the kernel finds one that waits for a file by its hash. (Timeouts it looks for along its list of them, and also
 * what it does not find. So a timeout of a scope is the exception; and flag ALL would walk the list for each cancel.)
 *
 * Why the cancels are repeated: the kernel does not find a request that is neither waiting nor running at that instant,
 * such as the next one of a chain, or one that a worker thread is about to park. Most often there is none. So a fence
 * comes first: a request that completes when those do that have been cancelled before it, or, in kernels that work on
 * the latest first, with them. So only what the second fence still finds in flight is asked again, and only what is
 * left then is worth a timeout.
 *
 * Nothing is sent twice to the wrong one: a record can be started anew while a cancel of its former operation still
 * sits in the submission queue, but the kernel takes the queue in order, so that cancel finds nothing when it runs.
 *
 * The kernel's answers are read in one thread, so there are no locks. An operation leaves its list only by its final
 * CQE, or with its SQE while that is not the kernel's; and each CQE counts once, because its user_data is overwritten
 * when it is taken.
 */
#include <errno.h>
#include <poll.h>
#include <stddef.h>

#include "uring/uring_entry.h"

/* How many cancels go out in one submission: larger ones gain nothing, and tie up the kernel for longer. */
#define BATCH 128

/*
 * Before cancels are repeated: fences first; then timeouts of these lengths, the first that suits so many operations.
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

/* Where a request of the scope's own stands. QUICK: a fence, which comes by itself. */
enum { IDLE, ARMED, LEAVING, NOTE, QUICK };

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

static bool list_empty(const struct ctxfd_uring_link_ *head)
{
	return head->next_ == head;
}

/* Moves all of `from` to the end of `to`. */
static void list_splice(struct ctxfd_uring_link_ *to, struct ctxfd_uring_link_ *from)
{
	if (list_empty(from))
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

/* ---- What the scope has in the ring ------------------------------------------------------------------------------ */

static uint64_t name_of(const struct ctxfd_uring_scope *scope, const struct ctxfd_uring_op *op)
{
	return scope->call_ ? of_call(scope->call_, OP) : tag(op, OP);
}

static uint64_t name_of_own(const struct ctxfd_uring_scope *scope, unsigned kind)
{
	return scope->call_ ? of_call(scope->call_, kind) : tag(scope, kind);
}

static bool idle(const struct ctxfd_uring_scope *scope)
{
	return !scope->count_ && scope->poll_ == IDLE && scope->tick_ == IDLE;
}

static bool ending(const struct ctxfd_uring_scope *scope)
{
	return scope->closing_ || scope->error_ || ctxfd_err(scope->ctx_);
}

static bool wants_tick(const struct ctxfd_uring_scope *scope)
{
	return !list_empty(&scope->due_) || !list_empty(&scope->asked_);
}

static void prep_poll(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, int done_fd)
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

/* An operation starts after the last one ended: if the kernel has not seen yet that the poll should go, it stays. */
static void keep_poll(struct ctxfd_uring_scope *scope)
{
	if (scope->poll_ != LEAVING || !sqe_held(scope->ring_, scope->unpoll_at_))
		return;
	spend(sqe_at(scope->ring_, scope->unpoll_at_));
	scope->poll_ = ARMED;
}

/* Cancels what is due, as far as there is room, and leaves some for the timeout. */
static void send_cancels(struct ctxfd_uring_scope *scope)
{
	struct ctxfd_uring_link_ *link;
	struct io_uring_sqe *sqe;

	for (unsigned n = 1; (link = scope->due_.next_) != &scope->due_; n++) {
		if (!room_for(scope->ring_, scope->tick_ == IDLE ? 3 : 1) || !(sqe = take_sqe(scope->ring_)))
			return;
		prep_cancel(sqe, name_of(scope, op_of(link)));
		list_remove(link);
		list_append(&scope->asked_, link);
		if (n % BATCH == 0)
			submit(scope->ring_);
	}
}

static void arrange_cancels(struct ctxfd_uring_scope *scope)
{
	struct io_uring_sqe *sqe;

	send_cancels(scope);
	if (!wants_tick(scope))
		scope->round_ = 0;
	else if (scope->tick_ == IDLE && (sqe = take_sqe(scope->ring_)))
		prep_tick(scope, sqe);
}

/*
 * Queues what the scope's state calls for. False: the kernel takes nothing now, and no completion may come by which
 * there would be another try.
 */
static bool arrange(struct ctxfd_uring_scope *scope)
{
	int err = ctxfd_err(scope->ctx_);
	bool ends = err || ending(scope), leaves = !err && (ends || !scope->count_);
	struct io_uring_sqe *sqe;

	if (ends)
		list_splice(&scope->due_, &scope->live_);
	else if (scope->count_ && scope->poll_ == IDLE && (sqe = take_sqe(scope->ring_)))
		prep_poll(scope, sqe, ctxfd_done_fd(scope->ctx_));
	arrange_cancels(scope);
	if (leaves)
		take_back(scope, POLL, &scope->poll_);
	if (!scope->count_)
		take_back(scope, TICK, &scope->tick_);
	if (idle(scope) && scope->end_ && (sqe = take_sqe(scope->ring_)))
		prep_note(scope, sqe);
	if (scope->tick_ == IDLE && wants_tick(scope))
		return false;
	if (scope->poll_ == IDLE)
		return scope->tick_ != IDLE || !(scope->count_ || scope->end_);
	return scope->poll_ != ARMED || !leaves;
}

/*
 * Brings the ring to what the scope's state calls for. That is submitted, since the program may be about to wait
 * without a submission; but for the removal of a poll that nobody waits for, which can go out with the program's next
 * one. Returns what arrange does.
 */
static bool settle(struct ctxfd_uring_scope *scope)
{
	bool arranged = arrange(scope);

	if (scope->count_ || scope->end_)
		submit(scope->ring_);
	return arranged;
}

/* Nothing of the scope is in the ring any more. */
static void closed(struct ctxfd_uring_scope *scope)
{
	ctxfd_unref(scope->ctx_);
	scope->ctx_ = NULL;
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

static void enlist(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe)
{
	op->scope_ = scope;
	op->canceled_ = false;
	sqe->user_data = name_of(scope, op);
	scope->started_at_ = scope->ring_->sq.sqe_tail - 1;
	list_append(&scope->live_, &op->link_);
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
	keep_poll(scope);
	enlist(scope, op, sqe);
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
	arrange_cancels(scope);
	return scope->tick_ == IDLE || !list_empty(&scope->due_) ? -EBUSY : 0;
}

/* ---- Completing -------------------------------------------------------------------------------------------------- */

/* -ECANCELED, -EINTR, and the kernel's own -ERESTART..., which some operations let out. */
static bool interrupted(int res)
{
	return res == -ECANCELED || res == -EINTR || (res >= -516 && res <= -512);
}

/*
 * Why an operation was interrupted: the context's err, -ECANCELED when it or the scope alone is ending, 0 for another
 * reason.
 */
static int reason(const struct ctxfd_uring_op *op)
{
	int err = ctxfd_err(op->scope_->ctx_);

	return err ? err : op->canceled_ || ending(op->scope_) ? -ECANCELED : 0;
}

/* The operation's memory is the program's again. */
static void leave(struct ctxfd_uring_op *op)
{
	list_remove(&op->link_);
	op->link_.next_ = NULL;
	op->scope_->count_--;
}

static int op_completed(struct ctxfd_uring_op *op, const struct io_uring_cqe *cqe)
{
	struct ctxfd_uring_scope *scope = op->scope_;
	int err = interrupted(cqe->res) ? reason(op) : 0;

	op->res = err ? err : cqe->res;
	op->flags = cqe->flags;
	if (cqe->flags & IORING_CQE_F_MORE)
		return CTXFD_URING_MORE;
	leave(op);
	if (!scope->count_ || (scope->poll_ == IDLE && scope->tick_ == IDLE))
		settle(scope);
	return CTXFD_URING_LAST;
}

/* Completes the operation that waits for the end of the scope. */
static int end_completed(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op)
{
	*op = scope->end_;
	(*op)->res = 0;
	(*op)->flags = 0;
	closed(scope);
	return CTXFD_URING_LAST;
}

static int poll_completed(struct ctxfd_uring_scope *scope, int res, struct ctxfd_uring_op **op)
{
	if (scope->poll_ != NOTE && res < 0 && res != -ECANCELED)
		scope->error_ = res;
	scope->poll_ = IDLE;
	if (idle(scope) && scope->end_)
		return end_completed(scope, op);
	settle(scope);
	return CTXFD_URING_NONE;
}

/* A timeout that fails for good must not make the program's loop spin. */
static int tick_completed(struct ctxfd_uring_scope *scope, int res, struct ctxfd_uring_op **op)
{
	bool failed = res != -ETIME && res != -ECANCELED;

	if (scope->tick_ != LEAVING && scope->round_ + 1 >= FENCES)
		list_splice(&scope->due_, &scope->asked_);
	scope->tick_ = IDLE;
	if (idle(scope) && scope->end_)
		return end_completed(scope, op);
	if (failed && scope->round_ == TICK_LAST)
		return CTXFD_URING_NONE;
	scope->round_ += scope->round_ < TICK_LAST;
	settle(scope);
	return CTXFD_URING_NONE;
}

/* What a completion is that has just been taken, by its user_data. */
static int completed(uint64_t data, const struct io_uring_cqe *cqe, struct ctxfd_uring_op **op)
{
	switch (data & KIND) {
	case OP:
		*op = untag(data);
		return op_completed(*op, cqe);
	case POLL:
		return poll_completed(untag(data), cqe->res, op);
	case TICK:
		return tick_completed(untag(data), cqe->res, op);
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
	return completed(data, cqe, op);
}

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

static bool is_of_call(const struct ctxfd_uring_scope *scope, uint64_t data)
{
	return scope->call_ && data - scope->call_ <= of_call(0, KIND);
}

/* Whether a completion is the scope's, or nothing for the program: another scope's poll, one that nobody waits for. */
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

/* Takes a completion for the scope; what it is of a call, the scope alone knows. */
static int take(struct ctxfd_uring_scope *scope, struct io_uring_cqe *cqe, struct ctxfd_uring_op **op)
{
	uint64_t data = cqe->user_data;

	cqe->user_data = STRAY;
	if (!is_of_call(scope, data))
		return completed(data, cqe, op);
	switch (call_kind(data)) {
	case OP:
		*op = scope->only_;
		return op_completed(*op, cqe);
	case POLL:
		return poll_completed(scope, cqe->res, op);
	default:
		return tick_completed(scope, cqe->res, op);
	}
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

/* What the kernel says of a submission when there was no room for what must go out; 0: there is now. */
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
		if (!settle(scope) && (ret = why_no_room(ring)) == 0)
			continue;
		if (ret == 0)
			ret = io_uring_submit_and_wait(ring, left + 1);
		if (ret < 0 && ret != -EINTR)
			return ret;
	}
}

/* ---- Opening and closing ----------------------------------------------------------------------------------------- */

int ctxfd_uring_open(struct ctxfd_uring_scope *scope, struct io_uring *ring, const struct ctxfd *ctx)
{
	int err = ctxfdi_uring_usable(ring);

	if (err)
		return err;
	memset(scope, 0, sizeof *scope);
	scope->ring_ = ring;
	scope->ctx_ = ctxfd_ref(ctx);
	list_init(&scope->live_);
	list_init(&scope->due_);
	list_init(&scope->asked_);
	scope->started_at_ = ring->sq.sqe_head - 1; /* none */
	return 0;
}

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
	unsigned kind = is_of_call(scope, data) ? call_kind(data) : tagged(data) ? data & KIND : PLAIN;

	if (kind == OP)
		*op = scope->call_ ? scope->only_ : untag(data);
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
			continue;
		}
		held->res = reason(held);
		held->flags = 0;
		leave(held);
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
	settle(scope);
	ret = ctxfd_uring_wait(scope, op);
	if (ret < 0 && withdraw(scope, op) != CTXFD_URING_NONE)
		return CTXFD_URING_LAST;
	if (ret < 0 && idle(scope))
		ret = scope->end_ && op ? end_completed(scope, op) : 0;
	if (!ret && scope->ctx_)
		closed(scope);
	return ret;
}

int ctxfd_uring_end(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op)
{
	scope->closing_ = true;
	scope->end_ = op;
	op->link_.next_ = NULL;
	if (arrange(scope))
		return 0;
	scope->end_ = NULL;
	return -EBUSY;
}

void ctxfdi_uring_abandon(struct ctxfd_uring_scope *scope)
{
	closed(scope);
}
