/* SPDX-License-Identifier: MIT */
/*
 * A new scope; and first whether its ring can do what it needs, found out before there is an operation that nobody
 * could end.
 *
 * The kernel is asked once. A ring can have restrictions, which no call tells of; so the requests that a scope makes
 * are tried: once in a process, whose rings may all have them, and on each ring that was made to get some
 * (IORING_SETUP_R_DISABLED). They do nothing, but each leaves a completion.
 *
 * `known` only says that something need not be done again, so it pairs with nothing; the number of a trial or call is
 * only to be another one each time.
 */
#include <stdatomic.h>

#include "uring/uring_scope.h"

/*
 * Setup flags that liburing 2.3 does not know: entries of mixed sizes; and a submission queue that begins anew with
 * each submission, in which an index does not say which SQE is meant.
 */
#define SETUP_CQE_MIXED (1U << 18)
#define SETUP_SQE_MIXED (1U << 19)
#define SETUP_SQ_REWIND (1U << 20)

static atomic_bool known;
static _Atomic uint64_t calls;

uint64_t ctxfdi_uring_new_call(void)
{
	return call_tag(atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1);
}

/* Opcode SOCKET came with 5.19. */
static int probe(struct io_uring *ring)
{
	_Alignas(struct io_uring_probe) unsigned char
	        room[sizeof(struct io_uring_probe) + (IORING_OP_SOCKET + 1) * sizeof(struct io_uring_probe_op)] = { 0 };
	struct io_uring_probe *p = (struct io_uring_probe *)room;
	int err = io_uring_register_probe(ring, p, IORING_OP_SOCKET + 1);

	return err < 0 ? err : io_uring_opcode_supported(p, IORING_OP_SOCKET) ? 0 : -EOPNOTSUPP;
}

/* ---- Trying ------------------------------------------------------------------------------------------------------ */

static void prep_fence(struct io_uring_sqe *sqe)
{
	io_uring_prep_nop(sqe);
}

/* A cancel that finds nothing: an error, so the flag skips nothing, but is tried too. */
static void prep_miss(struct io_uring_sqe *sqe)
{
	prep_cancel(sqe, STRAY);
}

static void prep_bad_poll(struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_add(sqe, -1, 0);
}

static void prep_timeout_now(struct io_uring_sqe *sqe)
{
	static struct __kernel_timespec now = { .tv_nsec = 1 };

	io_uring_prep_timeout(sqe, &now, 0, 0);
}

static void (*const trials[])(struct io_uring_sqe *sqe) = { prep_fence, prep_miss, prep_bad_poll, prep_timeout_now };

enum { TRIALS = sizeof trials / sizeof *trials };

/*
 * Takes the trial's completions out of the queue (see reap in uring_wait.c), and returns how many. *err becomes -EACCES
 * if one was refused, *left how many others stay.
 */
static unsigned take_answers(struct io_uring *ring, uint64_t trial, int *err, unsigned *left)
{
	unsigned tail = io_uring_smp_load_acquire(ring->cq.ktail), n = 0;

	for (unsigned i = *ring->cq.khead; i != tail; i++) {
		struct io_uring_cqe *cqe = cqe_at(ring, i);

		if (cqe->user_data == trial) {
			n++;
			if (cqe->res == -EACCES)
				*err = cqe->res;
			cqe->user_data = STRAY;
		}
		if (cqe->user_data == STRAY && i == *ring->cq.khead)
			io_uring_cq_advance(ring, 1);
	}
	*left = tail - *ring->cq.khead;
	return n;
}

static int try_requests(struct io_uring *ring)
{
	uint64_t trial = ctxfdi_uring_new_call();
	unsigned open = 0, left;
	int err = 0, ret = io_uring_get_events(ring);

	/*
	 * A ring that takes nothing now (it is still disabled, another thread's, forbidden) gets nothing queued either.
	 */
	if (ret < 0)
		return ret;
	for (; open < TRIALS; open++) {
		struct io_uring_sqe *sqe = take_sqe(ring);

		if (!sqe)
			return -EAGAIN;
		clear_sqe(sqe);
		trials[open](sqe);
		sqe->user_data = trial;
	}
	submit(ring);
	while ((open -= take_answers(ring, trial, &err, &left)) > 0) {
		if (left >= ring->cq.ring_entries)
			return -EBUSY;
		ret = io_uring_submit_and_wait(ring, left + 1);
		if (ret < 0 && ret != -EINTR)
			return ret;
	}
	return err;
}

bool ctxfdi_uring_tried(const struct io_uring *ring)
{
	return atomic_load_explicit(&known, memory_order_relaxed) && !(ring->flags & IORING_SETUP_R_DISABLED);
}

/* 0, or what ctxfd_uring_open returns. */
static int usable(struct io_uring *ring)
{
	int err = 0;

	if (ring->flags & (IORING_SETUP_IOPOLL | SETUP_CQE_MIXED | SETUP_SQE_MIXED | SETUP_SQ_REWIND))
		return -EINVAL;
	if (!(ring->features & IORING_FEAT_CQE_SKIP))
		return -EOPNOTSUPP;
	if (ctxfdi_uring_tried(ring))
		return 0;
	if (!atomic_load_explicit(&known, memory_order_relaxed))
		err = probe(ring);
	/* What the program has queued is not submitted without need: then the next scope will be the first. */
	if (err || (!(ring->flags & IORING_SETUP_R_DISABLED) && io_uring_sq_ready(ring)))
		return err;
	err = try_requests(ring);
	if (!err)
		atomic_store_explicit(&known, true, memory_order_relaxed);
	return err;
}

int ctxfd_uring_open(struct ctxfd_uring_scope *scope, struct io_uring *ring, const struct ctxfd *ctx)
{
	int err = usable(ring);

	memset(scope, 0, sizeof *scope);
	if (err)
		return err;
	scope->ring_ = ring;
	scope->ctx_ = ctxfd_ref(ctx);
	list_init(&scope->live_);
	list_init(&scope->due_);
	list_init(&scope->asked_);
	scope->started_at_ = ring->sq.sqe_head - 1; /* none */
	return 0;
}
