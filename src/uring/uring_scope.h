/* SPDX-License-Identifier: MIT */
/*
 * A scope: what it has in the ring, and what the files of this folder share.
 *
 * Each operation in flight is in one of its scope's lists: live, due (a cancel is to go out for it), or asked (one
 * has); or in none, when the kernel has said that the cancel found it, so that it ends without anything more. A scope
 * has at most two requests of its own in the ring:
 *
 *     POLL    while the context is live and something is in flight: a oneshot poll of the done fd. Or, when the program
 *             waits for the end of a scope of which nothing is in the ring: a no-op that completes (NOTE).
 *     TICK    while an operation is due or asked: a cancel that answers, a fence, or a timeout, after which the cancels
 *             are sent anew (uring_cancel.c).
 *
 * Only when neither is in the ring, nor any operation, can the scope's storage be given up.
 *
 * An operation leaves the scope only by its final CQE, or with its SQE while that is not the kernel's; and each CQE
 * counts once, because its user_data is overwritten when it is taken.
 *
 * There are no locks and no atomics: a scope belongs to the thread that submits to its ring, which alone calls these
 * functions. Other threads touch the context, never the scope; what they do arrives as the poll's CQE.
 *
 * Each file calls only those below it in this list:
 *
 *     uring_call.c        one operation in one call
 *     uring_close.c       the end of a scope
 *     uring_wait.c        sleeping until a scope has a completion
 *     uring_complete.c    what a completion is
 *     uring_start.c       how an operation comes into its scope
 *     uring_settle.c      bringing the ring to what the scope's state calls for
 *     uring_cancel.c      cancels, and their repetition
 *     uring_open.c        whether a ring can be used; a new scope
 *     uring_entry.h       the entries of the two queues
 */
#ifndef URING_SCOPE_H
#define URING_SCOPE_H

#include <stddef.h>

#include "uring/uring_entry.h"

/* Where a request of the scope's own stands (poll_ or tick_). */
enum {
	IDLE,    /* it is not in the ring */
	ARMED,   /* it is, and completes when what it waits for comes */
	LEAVING, /* it is, and a cancel of it is on its way */
	NOTE,    /* poll_: the no-op that completes at the scope's end */
	QUICK,   /* tick_: a fence, or a cancel that answers. It completes soon, by itself */
};

/* ---- Lists ------------------------------------------------------------------------------------------------------- */

static inline void list_init(struct ctxfd_uring_link_ *head)
{
	head->prev_ = head->next_ = head;
}

static inline void list_remove(struct ctxfd_uring_link_ *link)
{
	link->prev_->next_ = link->next_;
	link->next_->prev_ = link->prev_;
}

static inline void list_insert(struct ctxfd_uring_link_ *next, struct ctxfd_uring_link_ *link)
{
	link->next_ = next;
	link->prev_ = next->prev_;
	next->prev_->next_ = link;
	next->prev_ = link;
}

static inline void list_append(struct ctxfd_uring_link_ *head, struct ctxfd_uring_link_ *link)
{
	list_insert(head, link);
}

static inline bool list_empty(const struct ctxfd_uring_link_ *head)
{
	return head->next_ == head;
}

/* Moves all of `from` to the end of `to`. */
static inline void list_splice(struct ctxfd_uring_link_ *to, struct ctxfd_uring_link_ *from)
{
	if (list_empty(from))
		return;
	from->next_->prev_ = to->prev_;
	from->prev_->next_ = to;
	to->prev_->next_ = from->next_;
	to->prev_ = from->prev_;
	list_init(from);
}

static inline struct ctxfd_uring_op *op_of(struct ctxfd_uring_link_ *link)
{
	return (struct ctxfd_uring_op *)((char *)link - offsetof(struct ctxfd_uring_op, link_));
}

/* ---- The user_data of its requests ------------------------------------------------------------------------------- */

/*
 * A scope of a ctxfd_uring_call has a number (call_) for the user_data of its requests: they may outlive its storage,
 * and so must not point there. Any other scope has 0, and its requests point to it and to its operations.
 */

static inline uint64_t name_of(const struct ctxfd_uring_scope *scope, const struct ctxfd_uring_op *op)
{
	return scope->call_ ? of_call(scope->call_, OP) : tag(op, OP);
}

static inline uint64_t name_of_own(const struct ctxfd_uring_scope *scope, unsigned kind)
{
	return scope->call_ ? of_call(scope->call_, kind) : tag(scope, kind);
}

static inline bool is_of_call(const struct ctxfd_uring_scope *scope, uint64_t data)
{
	return scope->call_ && data - scope->call_ <= of_call(0, KIND);
}

/* ---- Its state --------------------------------------------------------------------------------------------------- */

static inline bool idle(const struct ctxfd_uring_scope *scope)
{
	return !scope->count_ && scope->poll_ == IDLE && scope->tick_ == IDLE;
}

static inline bool ending(const struct ctxfd_uring_scope *scope)
{
	return scope->closing_ || scope->error_ || ctxfd_err(scope->ctx_);
}

static inline bool wants_tick(const struct ctxfd_uring_scope *scope)
{
	return !list_empty(&scope->due_) || !list_empty(&scope->asked_);
}

/* ---- uring_open.c ------------------------------------------------------------------------------------------------ */

/* Whether ctxfd_uring_open need not try requests on this ring first, and so submits nothing. */
bool ctxfdi_uring_tried(const struct io_uring *ring);

/* A new number for the user_data of requests that may outlive those who wait for them. */
uint64_t ctxfdi_uring_new_call(void);

/* ---- uring_cancel.c ---------------------------------------------------------------------------------------------- */

/* Queues the cancels that are due, and the tick after them. */
void ctxfdi_uring_send_cancels(struct ctxfd_uring_scope *scope);

/* The tick has completed. False: it fails for good, and another one would make the program's loop spin. */
bool ctxfdi_uring_ticked(struct ctxfd_uring_scope *scope, int res);

/* ---- uring_settle.c ---------------------------------------------------------------------------------------------- */

/* Makes *sqe the scope's poll of the done fd. */
void ctxfdi_uring_prep_poll(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, int done_fd);

/*
 * Queues what the scope's state calls for. False: the kernel takes nothing now, and no completion may come by which
 * there would be another try.
 */
bool ctxfdi_uring_arrange(struct ctxfd_uring_scope *scope);

/* The same, and submits it. */
bool ctxfdi_uring_settle(struct ctxfd_uring_scope *scope);

/* ---- uring_start.c ----------------------------------------------------------------------------------------------- */

/*
 * ctxfd_uring_start for the only operation of a scope on the stack. The requests of the scope bear a number, and the
 * poll is not armed before the scope is settled the next time.
 */
int ctxfdi_uring_bind_call(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe);

/* ---- uring_complete.c -------------------------------------------------------------------------------------------- */

/*
 * What a completion is that has just been taken (CTXFD_URING_...): of an operation (kind OP, `whose` it is), of a scope
 * (POLL, TICK), or of nobody.
 */
int ctxfdi_uring_completed(void *whose, unsigned kind, const struct io_uring_cqe *cqe, struct ctxfd_uring_op **op);

/* Ends an operation that the kernel has not taken. */
void ctxfdi_uring_withdrawn(struct ctxfd_uring_op *op);

/* Completes the operation that waits for the end of the scope. */
int ctxfdi_uring_ended(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op);

/*
 * Gives a scope up. Nothing of it may be in the ring any more, unless it is that of a call, whose requests point to no
 * memory.
 */
void ctxfdi_uring_closed(struct ctxfd_uring_scope *scope);

#endif
