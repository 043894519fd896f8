/* SPDX-License-Identifier: MIT */
/*
 * ctxfd for io_uring: operations of a ring that end when a context does.
 *
 * Prepare an SQE as always, hand it over together with a small record that you own, and get back from the CQE that
 * record and a result, which is -ECANCELED or -ETIMEDOUT when the context is why it ended. Library libctxfd-uring.
 *
 *     struct ctxfd_uring_scope scope;
 *     struct ctxfd_uring_op op, *ended;
 *     struct io_uring_cqe *cqe;
 *
 *     ctxfd_uring_open(&scope, &ring, ctx);
 *     struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
 *     io_uring_prep_recv(sqe, sock, buf, sizeof buf, 0);
 *     int err = ctxfd_uring_start(&scope, &op, sqe);         // the context's err: it is done already
 *     ...
 *     io_uring_submit_and_wait(&ring, 1);
 *     while (!io_uring_peek_cqe(&ring, &cqe)) {
 *             switch (ctxfd_uring_complete(cqe, &ended)) {
 *             case CTXFD_URING_OTHER: handle_own(cqe); break; // a request of your own, bound to no scope
 *             case CTXFD_URING_NONE: break;                   // ctxfd's own
 *             case CTXFD_URING_MORE:                          // ended->res is a result, and more will come
 *             case CTXFD_URING_LAST: handle(ended); break;    // ended->res is the last; the record is yours again
 *             }
 *             io_uring_cqe_seen(&ring, cqe);
 *     }
 *     ctxfd_uring_close(&scope, NULL);
 *
 * RULES THAT HOLD THROUGHOUT
 *
 *   user_data. Values with the top bit set are ctxfd's, all others yours: pointers and plain numbers do not have it.
 *   (LIBURING_UDATA_TIMEOUT, all ones, is nobody's. Where a pointer can have its top bit set, as under HWASan on arm64,
 *   shift yours right by one.) Set it in every SQE of your own, since what an earlier request left there may be
 *   ctxfd's, and pass every CQE with the top bit set to ctxfd_uring_complete.
 *
 *   Threads. Everything here is called from the thread that submits to the ring. The context is not bound to it: any
 *   thread may cancel it at any time, and that wakes a ring's thread that sleeps in io_uring_enter.
 *
 *   Memory. A scope and a record are plain storage of yours that need no initialisation but ctxfd_uring_open, and
 *   nothing here allocates. A record, and the buffers of its operation, belong to the kernel from ctxfd_uring_start
 *   until CTXFD_URING_LAST; then the record can be started again, at once. A scope is in use until ctxfd_uring_close
 *   returns 0, and may not be moved. Close the scopes before io_uring_queue_exit. Neither crosses a fork.
 *
 *   The submission queue. ctxfd_uring_start may submit what is queued when the queue is full; complete, wait and close
 *   submit when they have something to tell the kernel. So hold no SQE that is not fully prepared when you call them,
 *   and call none but start between the members of a linked chain. Errors of such a submission are not lost: the SQEs
 *   stay queued, and your next submission takes them along.
 *
 *   What it costs. A scope with operations in flight has one request of its own in the ring: a poll of the context's
 *   done fd, armed with the first operation, removed when the last one has ended (the removal goes out with your next
 *   submission; an operation that is started before takes it back). When the context ends, a cancel for each operation
 *   goes out, in batches, whatever the sizes of the queues; a timeout then repeats the cancels, at growing intervals
 *   from 10 ms to some seconds, for operations that a first one missed. No operation of another scope, nor of yours, is
 *   touched.
 *
 *   What is promised. Every operation that start accepted gives CTXFD_URING_LAST exactly once. What the kernel
 *   delivered is delivered: bytes received or a connection accepted while the context ends are a result, not an error.
 *   An end of the context reaches every operation of its scopes, also one that was started while the cancels went out.
 *   What promptness the cancel has is the kernel's: a request for a regular file or a device runs to its end.
 *
 *   Kernels. 5.19 is the oldest that can do it (6.1 is recommended). Rings of every kind but IORING_SETUP_IOPOLL and
 *   those with entries of mixed sizes (IORING_SETUP_CQE_MIXED, IORING_SETUP_SQE_MIXED). With IORING_SETUP_DEFER_TASKRUN
 *   an epoll set that holds the ring's fd is not woken; register an eventfd (io_uring_register_eventfd).
 */
#ifndef CTXFD_URING_H
#define CTXFD_URING_H

#include <stdbool.h>
#include <stdint.h>

#include <ctxfd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct io_uring;
struct io_uring_sqe;
struct io_uring_cqe;

/* What a completion is. */
enum {
	CTXFD_URING_NONE = 0, /* ctxfd's own: nothing for you */
	CTXFD_URING_MORE,     /* a result of an operation that goes on (multishot, zero-copy send) */
	CTXFD_URING_LAST,     /* the last one of an operation, which is yours again */
	CTXFD_URING_OTHER     /* not ctxfd's: a request of your own */
};

/* Fields that end in an underscore are ctxfd's. */
struct ctxfd_uring_link_ {
	struct ctxfd_uring_link_ *prev_, *next_;
};

struct ctxfd_uring_scope;

/* One operation. Embed it in a struct of your own: the pointer that you get back is the one that you gave. */
struct ctxfd_uring_op {
	int res;        /* the result: the CQE's res, or the context's err */
	uint32_t flags; /* the CQE's flags: IORING_CQE_F_MORE, IORING_CQE_F_NOTIF, a buffer's number... */
	struct ctxfd_uring_link_ link_;
	struct ctxfd_uring_scope *scope_;
} __attribute__((aligned(8)));

/* Ties a ring and a context. All of it is ctxfd's. */
struct ctxfd_uring_scope {
	struct io_uring *ring_;
	const struct ctxfd *ctx_;
	struct ctxfd_uring_link_ live_, asked_;
	unsigned count_, round_, started_at_, unwatch_at_;
	int error_;
	uint8_t watch_;
	bool unwatching_, closing_;
	struct {
		int64_t tv_sec;
		long long tv_nsec;
	} tick_;
} __attribute__((aligned(8)));

/*
 * Makes *scope tie the operations that will be started on it to ctx. Takes a reference on ctx, which close gives up. No
 * fd and no request exist until the first operation. A ring may have any number of scopes, of the same or of different
 * contexts, and a context scopes on any number of rings.
 *
 * Errors: -EINVAL (a ring of a kind that cannot be used, see above); -EOPNOTSUPP (the kernel is older than 5.19);
 * -ENOSYS, -EPERM, -EACCES (io_uring is missing or forbidden here: by kernel.io_uring_disabled, a seccomp filter or a
 * restriction of the ring. io_uring_queue_init says the same, unless it was forbidden later); other errors of
 * io_uring_register(2). The kernel is asked once in the life of a process, when the first scope is opened. After an
 * error *scope is not open.
 */
int ctxfd_uring_open(struct ctxfd_uring_scope *scope, struct io_uring *ring, const struct ctxfd *ctx);

/*
 * Binds the operation that *sqe describes to *scope. It is submitted when you submit. sqe must be the one that
 * io_uring_get_sqe gave last, and prepared; ctxfd sets its user_data. When this returns, sqe is no longer yours: it may
 * have moved.
 *
 * 0: the operation is in flight, and *op with it. Anything else: it is not and never will be, and *op is yours; the SQE
 * is spent (it became a no-op without a CQE). The context's err (-ECANCELED, -ETIMEDOUT) when it is done, -ECANCELED
 * when the scope is being closed. -EINVAL: not the latest SQE; IOSQE_IO_DRAIN or IOSQE_CQE_SKIP_SUCCESS is set; or the
 * chain that it would continue was begun outside of this scope. -EMFILE, -ENFILE, -ENOMEM: no done fd. -EBUSY: the
 * submission queue is full and the kernel takes nothing now. After an error of the poll itself (it cannot be had in
 * this ring), that error.
 *
 * Any opcode. Multishot operations give CTXFD_URING_MORE for each result with IORING_CQE_F_MORE and CTXFD_URING_LAST
 * for the one without. A zero-copy send gives its result with MORE and then LAST with IORING_CQE_F_NOTIF, when the
 * buffer is free; it may also end with a single LAST.
 *
 * Linked chains (IOSQE_IO_LINK, IOSQE_IO_HARDLINK) work as far as the kernel can cancel them:
 *   - every member but trailing ones is started on the same scope, one right after the other, and all of them go out
 *     in one submission (leave room for one SQE more than the chain has); IORING_OP_LINK_TIMEOUT may be a member;
 *   - the kernel finds only the member that runs. Cancelling it ends a chain of IOSQE_IO_LINK at once. Where the
 *     chain goes on, after IOSQE_IO_HARDLINK or a member that had just succeeded, the next one may run until the
 *     cancels are repeated (10 ms, then longer), and each member in turn.
 *
 * IOSQE_IO_DRAIN holds up every later request of its ring, the cancels too. Do not use it in your own requests either,
 * on a ring with scopes.
 */
int ctxfd_uring_start(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe);

/*
 * Tells what a CQE is (CTXFD_URING_...), and for MORE and LAST which operation's: it is stored in *op, and its res and
 * flags are filled in. *op is untouched otherwise. Does the scope's work as it goes, so call it soon for each.
 *
 * A CQE is taken once: its user_data is overwritten, and asked again it gives NONE. Pass the CQE in the completion
 * queue, before io_uring_cqe_seen or io_uring_cq_advance, or a copy after them. (A CQE of yours is left as it is.)
 *
 * The result: res as the kernel gave it, but when it says that the operation was cancelled or interrupted (-ECANCELED,
 * -EINTR, -ERESTARTSYS and its kin) and the context is done, the context's err. -ETIMEDOUT can be the operation's own,
 * and -ECANCELED comes without the context's end too, after a chain broke or a close: ctxfd_err decides.
 */
int ctxfd_uring_complete(struct io_uring_cqe *cqe, struct ctxfd_uring_op **op);

/*
 * Submits what is queued and sleeps until *scope has a completion: MORE or LAST, as ctxfd_uring_complete gives them, or
 * 0 when no operation is in flight. For programs without a loop, and for the moments when a loop must wait for one
 * scope only. With op NULL it goes on until nothing is in flight, and drops the results.
 *
 * Other completions stay in the queue, in their order, for you to reap. Those of the scope are taken where they are,
 * and given back to the kernel if they are at the head. So you may call this in the middle of io_uring_for_each_cqe, as
 * long as the CQEs of ctxfd that you have passed so far went through ctxfd_uring_complete.
 *
 * -EBUSY: the completion queue is full of others' completions; reap some and call again. -EAGAIN: the kernel has no
 * memory for a request; call again. Other errors of io_uring_enter(2), as -EEXIST from a thread that the ring does not
 * take.
 */
int ctxfd_uring_wait(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op);

/*
 * Ends *scope: accepts no further operation, cancels those in flight, sleeps until they have ended and the poll is
 * gone. The context is left as it is. Gives what is still completed one at a time, as ctxfd_uring_wait does, with its
 * errors; 0: the scope is closed, all memory and buffers are yours, and the reference on the context is given up.
 * Closing it again does nothing.
 *
 *     while ((n = ctxfd_uring_close(&scope, &op)) > 0)
 *             if (op == &accept_op && op->res >= 0)
 *                     close(op->res);
 *
 * With op NULL the results are dropped, also connections that were accepted in the last moment. Not to be called again
 * from inside itself; a scope without operations costs one system call if its poll was armed, none otherwise.
 */
int ctxfd_uring_close(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op);

/*
 * One operation under a context, from start to end: submits *sqe (see ctxfd_uring_start), sleeps until it is over and
 * returns its result, mapped as ctxfd_uring_complete does, or the error of open or start. -EBUSY: the completion queue
 * is full. Buffers are yours when it returns. Not for multishot operations, nor chains; a zero-copy send returns when
 * its buffer is free.
 *
 * Other completions stay in the queue. Should they fill it meanwhile, this waits for room that nobody makes: give it a
 * ring with room for what your other requests complete.
 */
int ctxfd_uring_call(const struct ctxfd *ctx, struct io_uring *ring, struct io_uring_sqe *sqe);

#ifdef __cplusplus
}
#endif

#endif
