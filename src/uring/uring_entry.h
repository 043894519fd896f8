/* SPDX-License-Identifier: MIT */
/*
 * The entries of a ring's two queues: what their user_data says, and how ctxfd's own are made.
 *
 * Only the thread that submits to the ring touches the queues. Of liburing's own variables this reads sq.sqe_head and
 * sq.sqe_tail: the SQEs between them have been handed out and are not the kernel's yet.
 *
 * What liburing offers for the entries changes with its versions: before 2.6 its prep functions clear an SQE, later
 * ones leave that to io_uring_get_sqe; and 2.10 has no io_uring_cqe_index. Hence clear_sqe and cqe_at.
 */
#ifndef URING_ENTRY_H
#define URING_ENTRY_H

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "ctxfd_uring.h"

/*
 * ---- user_data: the top bit, then the pointer shifted right by one, and what it points to in the two lowest bits ----
 *
 * With PLAIN there it is a number in place of a pointer: what may arrive when nobody waits for it any more, so that
 * there is no memory that it could point to.
 *
 *     SPENT   a completion that the program has passed to ctxfd_uring_complete. It gives it back to the kernel itself.
 *     STRAY   one that nobody waits for, and the program has not passed: of a cancel that found nothing; or one that
 *             ctxfd has taken out of the middle of the queue.
 *     others  those of a ctxfd_uring_call: its number, and what the request is in bits 2 and 3.
 */

#define TAG (UINT64_C(1) << 63)
enum { PLAIN, OP, POLL, TICK, KIND = 3 };

#define SPENT (TAG | PLAIN)
#define STRAY (TAG | 4 | PLAIN)

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

static inline uint64_t call_tag(uint64_t number)
{
	return TAG | number << 4;
}

/* The same number's for another kind of request, and back. */
static inline uint64_t of_call(uint64_t call, unsigned kind)
{
	return call | kind << 2;
}

static inline unsigned call_kind(uint64_t data)
{
	return data >> 2 & KIND;
}

/* ---- The completion queue ---------------------------------------------------------------------------------------- */

static inline struct io_uring_cqe *cqe_at(struct io_uring *ring, unsigned index)
{
	return &ring->cq.cqes[(index & ring->cq.ring_mask) << !!(ring->flags & IORING_SETUP_CQE32)];
}

/* ---- The submission queue ---------------------------------------------------------------------------------------- */

static inline struct io_uring_sqe *sqe_at(struct io_uring *ring, unsigned index)
{
	return &ring->sq.sqes[(index & ring->sq.ring_mask) << !!(ring->flags & IORING_SETUP_SQE128)];
}

static inline size_t sqe_size(const struct io_uring *ring)
{
	return sizeof(struct io_uring_sqe) << !!(ring->flags & IORING_SETUP_SQE128);
}

/* Whether the SQE at this index is queued and has not been given to the kernel. */
static inline bool sqe_held(const struct io_uring *ring, unsigned index)
{
	return index - ring->sq.sqe_head < ring->sq.sqe_tail - ring->sq.sqe_head;
}

/*
 * Whether the SQE at this index is queued and the kernel has not taken it: then it can be changed, also when it has
 * been shown to a kernel that refused. Not with SQPOLL: the kernel may be at it right now.
 */
static inline bool untaken(const struct io_uring *ring, unsigned index)
{
	return !(ring->flags & IORING_SETUP_SQPOLL) && index - *ring->sq.khead < ring->sq.sqe_tail - *ring->sq.khead;
}

/* The next free SQE; submits what is queued if there is none. NULL: the kernel takes nothing now. */
static inline struct io_uring_sqe *take_sqe(struct io_uring *ring)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(ring))) {
		int ret = io_uring_submit(ring);

		if (ret >= 0 && ring->flags & IORING_SETUP_SQPOLL)
			ret = io_uring_sqring_wait(ring) < 0 ? -EAGAIN : 1;
		if (ret <= 0 && ret != -EINTR)
			return NULL;
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

/* Whether n SQEs can be taken, or as many as the queue has; submits what is queued if they are not free. */
static inline bool room_for(struct io_uring *ring, unsigned n)
{
	if (n > ring->sq.ring_entries)
		n = ring->sq.ring_entries;
	if (io_uring_sq_space_left(ring) < n)
		submit(ring);
	return ring->flags & IORING_SETUP_SQPOLL || io_uring_sq_space_left(ring) >= n;
}

/* For an SQE that has been prepared before. */
static inline void clear_sqe(struct io_uring_sqe *sqe)
{
	memset(sqe, 0, sizeof *sqe);
}

/* Makes an SQE one that does nothing and leaves no CQE. */
static inline void spend(struct io_uring_sqe *sqe)
{
	clear_sqe(sqe);
	io_uring_prep_nop(sqe);
	sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = STRAY;
}

/* A cancel that finds nothing leaves a CQE: STRAY. (With flag ALL none would, but each would walk all timeouts.) */
static inline void prep_cancel(struct io_uring_sqe *sqe, uint64_t target)
{
	clear_sqe(sqe);
	io_uring_prep_cancel64(sqe, target, 0);
	sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = STRAY;
}

#endif
