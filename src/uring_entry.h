/* SPDX-License-Identifier: MIT */
/*
 * The entries of a ring's two queues: what their user_data says, and how ctxfd's own are made.
 *
 * Only the thread that submits to the ring touches the queues. Of liburing's own variables this reads sq.sqe_head and
 * sq.sqe_tail: the SQEs between them have been handed out and are not the kernel's yet.
 */
#ifndef URING_ENTRY_H
#define URING_ENTRY_H

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "ctxfd_uring.h"

/*
 * ---- user_data: the top bit, then the pointer shifted right by one, and what it points to in the two lowest bits ----
 */

#define TAG (UINT64_C(1) << 63)
enum { SPENT, OP, WATCH, KIND = 3 };

static inline uint64_t tag(const void *p, unsigned kind)
{
	return TAG | (uint64_t)(uintptr_t)p >> 1 | kind;
}

static inline bool tagged(uint64_t data)
{
	return data & TAG && data != LIBURING_UDATA_TIMEOUT;
}

static inline void *untag(uint64_t data)
{
	return (void *)(uintptr_t)((data & ~(TAG | KIND)) << 1);
}

/* ---- The submission queue ---------------------------------------------------------------------------------------- */

static inline struct io_uring_sqe *sqe_at(struct io_uring *ring, unsigned index)
{
	return &ring->sq.sqes[(index & ring->sq.ring_mask) << !!(ring->flags & IORING_SETUP_SQE128)];
}

/* Whether the SQE at this index is queued and has not been given to the kernel. */
static inline bool sqe_held(const struct io_uring *ring, unsigned index)
{
	return index - ring->sq.sqe_head < ring->sq.sqe_tail - ring->sq.sqe_head;
}

/* The next free SQE; submits what is queued if there is none. NULL: the kernel takes nothing now. */
static inline struct io_uring_sqe *take_sqe(struct io_uring *ring)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(ring))) {
		int err = io_uring_submit(ring);

		if (err < 0 && err != -EINTR)
			return NULL;
		io_uring_sqring_wait(ring);
	}
	return sqe;
}

/*
 * Submits what is queued. An SQE that the kernel refuses ends a submission, and those behind it stay queued: hence the
 * loop.
 */
static inline void submit(struct io_uring *ring)
{
	while (io_uring_submit(ring) > 0 && !(ring->flags & IORING_SETUP_SQPOLL) && io_uring_sq_ready(ring))
		;
}

/* Makes an SQE one that does nothing and leaves no CQE. */
static inline void spend(struct io_uring_sqe *sqe)
{
	io_uring_prep_nop(sqe);
	sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = tag(NULL, SPENT);
}

static inline void prep_cancel(struct io_uring_sqe *sqe, uint64_t target)
{
	io_uring_prep_cancel64(sqe, target, IORING_ASYNC_CANCEL_ALL);
	sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = tag(NULL, SPENT);
}

/* ctxfd_uring_start; without `watch`, the poll is not armed before the scope is settled the next time (uring.c). */
int uring_bind(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe, bool watch);

#endif
