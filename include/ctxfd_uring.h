/* SPDX-License-Identifier: MIT */
/*
 * ctxfd for io_uring: operations of a ring that end when a context does.
 *
 * Prepare an SQE as always, hand it over together with a small record that you own, and get back from the CQE that
 * record and a result, which is -ECANCELED or -ETIMEDOUT when the context is why it ended. Library libctxfd-uring;
 * compile with liburing's header, link -lctxfd-uring -luring -lctxfd.
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
 * A program without a loop makes one call of it: `n = ctxfd_uring_call(ctx, &ring, sqe);`
 *
 * RULES THAT HOLD THROUGHOUT
 *
 *   user_data. Values with the top bit set are ctxfd's, all others are yours. Pointers and plain numbers do not have
 *   it. (All ones, LIBURING_UDATA_TIMEOUT, is nobody's. Where pointers can have it, as under HWASan on arm64, shift
 *   yours right by one.) Set user_data in every SQE of your own, since what an earlier request left there may be
 *   ctxfd's; and pass every CQE that has the bit to ctxfd_uring_complete.
 *
 *   Threads. Everything here is called by the thread that submits to the ring. The context is not bound to it: any
 *   thread may cancel it at any time, and that wakes a thread that sleeps in io_uring_enter. No function is a
 *   cancellation point of pthread_cancel.
 *
 *   Waiting. Wait for one completion (io_uring_submit_and_wait(&ring, 1)), or with a timeout
 *   (io_uring_submit_and_wait_timeout). The end of a context is one completion, however many operations it has in
 *   flight: theirs come after ctxfd_uring_complete has seen it. So a wait for two or more, without a timeout, may
 *   sleep on.
 *
 *   Memory. A scope and a record are storage of yours, and nothing here allocates. A record needs no initialisation. It
 *   and the operation's buffers are the kernel's from ctxfd_uring_start to CTXFD_URING_LAST; then it can be started
 *   again, at once and on any scope. A scope is in use, and may not be moved, from ctxfd_uring_open until
 *   ctxfd_uring_close has returned 0 or the operation of ctxfd_uring_end has completed. Close the scopes before
 *   io_uring_queue_exit. A forked child leaves the ring and its scopes alone. While it has the ring's fd, until it ends
 *   or execs, io_uring_queue_exit does not end what is in flight.
 *
 *   The submission queue. What start, cancel and end prepare goes out with your next submission (io_uring_submit and
 *   its kin), or at once when the queue is full. complete, wait and close submit when they have something to tell the
 *   kernel, and so does open on a ring that was made with IORING_SETUP_R_DISABLED; what you have queued goes out with
 *   it. So hold no SQE that is not fully prepared when you call them, and between the members of a linked chain call
 *   nothing but start. If the kernel refuses a submission for want of memory, the SQEs stay queued, and your next
 *   submission takes them along.
 *
 *   What it costs. A scope with operations in flight has one request of its own in the ring: a poll of the context's
 *   done fd, armed with the first operation and removed after the last one has ended. The removal goes out with your
 *   next submission, unless an operation starts before that: then the poll stays. When the context ends, a cancel goes
 *   out for each operation, in batches and through queues of any size. They are repeated for operations that the kernel
 *   did not find: at first at once, then after 10 ms, and later after up to some seconds. No operation of another
 *   scope or of yours is touched. A cancel costs the same whatever else is in the ring, with two exceptions. The
 *   kernel looks for a timeout (IORING_OP_TIMEOUT) along all older ones of the ring. And it looks for what waits for a
 *   file in a table that grows with the completion queue: if tens of thousands wait, and not the latest are cancelled,
 *   give that queue 8192 entries (IORING_SETUP_CQSIZE), with which the table is largest.
 *
 *   Scopes are for loops: open one for a context, and keep it as long as you start operations under that context. On
 *   one machine a receive of a byte that is there takes 0.9 us by itself. A scope that lasts adds 0.1 us to that; a
 *   scope of its own adds 1.7 us, for the poll and its removal; a scope and a context of its own add 4.7 us, of which 3
 *   are the done fd. An eventfd and a poll written by hand cost nearly as much.
 *
 *   Each operation can have a context of its own without a scope or an fd for it. Keep one scope, on a context above
 *   them, and have an after-func cancel the operation when its own context ends; that adds 0.2 us. It must run in the
 *   thread of the ring, so derive those contexts below a dispatcher of yours, poll its fd in the ring, and run it when
 *   that completes (arm a new poll afterwards):
 *
 *     static void cancel_op(void *op) { ctxfd_uring_cancel(op); }
 *
 *     requests = ctxfd_with_dispatcher(ctx, dispatcher);        // ctx is the scope's
 *     ...
 *     request->ctx = ctxfd_with_timeout(requests, 5 * CTXFD_SEC);
 *     request->after = NULL;
 *     err = ctxfd_uring_start(&scope, &request->op, sqe);
 *     if (!err && ctxfd_after_func(request->ctx, cancel_op, &request->op, &request->after))
 *             ctxfd_uring_cancel(&request->op);                 // no memory: it ends at once
 *     ...
 *     ctxfd_after_stop(request->after);                         // CTXFD_URING_LAST has come: ctxfd_err(request->ctx)
 *     ctxfd_close(request->ctx);                                // says why it ended, if res is -ECANCELED
 *
 *   What is promised. Every operation that start has accepted gives CTXFD_URING_LAST, exactly once. A result is never
 *   lost to the end of a context: bytes that were received and connections that were accepted in that moment are
 *   delivered as a result. The end of a context reaches every operation of its scopes, also one that was started while
 *   the cancels went out. How soon it is obeyed is the operation's matter: what waits for a socket, a pipe, a time or a
 *   futex ends at once; what reads a regular file or a disk runs to its end. A zero-copy send holds its buffer until
 *   the network has let go of it, and nothing ends that: a peer that does not read keeps LAST back, and with it the end
 *   of the scope, until it reads or the connection is gone (shut it down, or set TCP_USER_TIMEOUT).
 *
 *   Kernels and rings. Linux 5.19 or later (6.1 is recommended), liburing 2.3 or later. Rings of every kind except
 *   IORING_SETUP_IOPOLL, IORING_SETUP_SQ_REWIND, IORING_SETUP_CQE_MIXED and IORING_SETUP_SQE_MIXED. A ring
 *   with restrictions must allow POLL_ADD, ASYNC_CANCEL, TIMEOUT and NOP, with no flags and with
 *   IOSQE_CQE_SKIP_SUCCESS, and, for the first scope of a process, registering a probe: open finds out. A filter that
 *   forbids them later on leaves what is in flight without its end. An epoll set that holds the fd of a ring with
 *   IORING_SETUP_DEFER_TASKRUN is not woken by it: register an eventfd (io_uring_register_eventfd).
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
	CTXFD_URING_LAST,     /* the last result of an operation, which is yours again */
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
	void *data;     /* yours: nothing here reads or sets it */
	struct ctxfd_uring_link_ link_;
	struct ctxfd_uring_scope *scope_;
	bool canceled_;
} __attribute__((aligned(8)));

/* Ties a ring and a context. All of it is ctxfd's. */
struct ctxfd_uring_scope {
	struct io_uring *ring_;
	const struct ctxfd *ctx_;
	struct ctxfd_uring_link_ live_, due_, asked_;
	struct ctxfd_uring_op *end_, *only_, *alone_;
	uint64_t call_;
	unsigned count_, round_, started_at_, unpoll_at_;
	int error_;
	uint8_t poll_, tick_;
	bool closing_;
} __attribute__((aligned(8)));

/*
 * Makes *scope tie the operations that will be started on it to ctx. Takes a reference on ctx, which is given up with
 * the scope. No fd and no request exist before the first operation. A ring may have any number of scopes, of one
 * context or of many, and a context may have scopes on any number of rings.
 *
 * Errors, after which *scope is not open, and closing it does nothing:
 *
 *     -EINVAL                  a kind of ring that cannot be used, see above
 *     -EOPNOTSUPP              the kernel is older than 5.19
 *     -ENOSYS, -EPERM, -EACCES io_uring is missing or forbidden here: kernel.io_uring_disabled, a seccomp filter, a
 *                              restriction of the ring; io_uring_queue_init says so first, if it was forbidden from the
 *                              start
 *     -EBADFD                  the ring is not enabled yet (IORING_SETUP_R_DISABLED)
 *     -EEXIST                  the ring does not take this thread
 *     -EAGAIN, -EBUSY          no memory now; the completion queue is full: call again
 *     others                   of io_uring_register(2) and io_uring_enter(2)
 *
 * The kernel is asked, and the requests that scopes make are tried, when a process opens its first scope with nothing
 * queued in the ring; and for each scope on a ring that was made with IORING_SETUP_R_DISABLED, since that may have
 * restrictions. It costs some microseconds.
 */
int ctxfd_uring_open(struct ctxfd_uring_scope *scope, struct io_uring *ring, const struct ctxfd *ctx);

/*
 * Binds the operation that *sqe describes to *scope; your next submission takes it along. sqe must be the one that
 * io_uring_get_sqe gave last, fully prepared; its user_data is set here. It is not yours any more when this returns: it
 * may have moved.
 *
 * 0: the operation is in flight, and *op with it. Anything else: it is not and never will be, *op is yours, and the SQE
 * has become a no-op without a CQE.
 *
 *     -ECANCELED, -ETIMEDOUT    the context is done; -ECANCELED also when the scope is being closed
 *     -EINVAL                   not the latest SQE; or IOSQE_IO_DRAIN or IOSQE_CQE_SKIP_SUCCESS is set; or it would
 *                               continue a chain that began outside of the scope
 *     -EMFILE, -ENFILE, -ENOMEM the context's done fd cannot be had
 *     -EBUSY                    the queue is full, and the kernel takes nothing now
 *     others                    why the done fd cannot be polled in this ring: what was in flight has been cancelled
 *
 * Any opcode will do. A multishot operation gives CTXFD_URING_MORE for each result with IORING_CQE_F_MORE, and
 * CTXFD_URING_LAST for the one without. A zero-copy send gives its result with MORE and, when its buffer is free, LAST
 * with IORING_CQE_F_NOTIF; or a single LAST.
 *
 * Linked chains (IOSQE_IO_LINK, IOSQE_IO_HARDLINK) work as far as the kernel can cancel them:
 *
 *   - The first member is started on the scope, and so are those after it, one right after the other; the last ones
 *     may be requests of your own. All go out in one submission: leave room for one SQE more than the chain has.
 *     IORING_OP_LINK_TIMEOUT may be a member.
 *   - If a member is refused, the chain ends before it: what was started runs, and what is prepared next is a request
 *     by itself.
 *   - The kernel finds only the member that runs. When that is cancelled, a chain of IOSQE_IO_LINK is over. Where it
 *     goes on, after IOSQE_IO_HARDLINK or after a member that has just succeeded, the next one runs until the cancels
 *     are repeated, 10 ms later and more.
 *
 * IOSQE_IO_DRAIN holds up all later requests of its ring, the cancels too: with scopes on a ring, do not use it in your
 * own requests either.
 */
int ctxfd_uring_start(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op, struct io_uring_sqe *sqe);

/*
 * Tells what a CQE is (CTXFD_URING_...), and does the scope's work as it goes. For MORE and LAST the operation is
 * stored in *op, its res and flags filled in; otherwise *op is untouched.
 *
 * A CQE counts once: its user_data is overwritten, and asked again it is NONE. Pass the CQE in the completion queue,
 * before io_uring_cqe_seen or io_uring_cq_advance; or a copy after them. (While you hold copies that you have not
 * passed, do not call wait or close: they would sleep until what only the copy tells.) One of yours (OTHER) is left as
 * it is.
 *
 * The result is res as the kernel gave it. But if that says that the operation was cancelled or interrupted
 * (-ECANCELED, -EINTR, -ERESTARTSYS and its kin), it is the context's err when the context is done, and -ECANCELED when
 * the scope is being closed. -ETIMEDOUT can be the operation's own, and -ECANCELED also comes when a chain breaks:
 * ctxfd_err tells them apart.
 *
 * If the submission queue is full of your own requests just when the context has ended, and the kernel takes nothing
 * for want of memory, the cancels go out with the scope's next completion, or with ctxfd_uring_wait.
 */
int ctxfd_uring_complete(struct io_uring_cqe *cqe, struct ctxfd_uring_op **op);

/*
 * Cancels one operation, and leaves its scope and the others alone; your next submission takes the cancel along. The
 * operation gives CTXFD_URING_LAST as always, with res -ECANCELED, or with its result if that beats the cancel. A
 * multishot operation ends. In a linked chain, a member that runs ends, and with it what follows (see start); a member
 * whose turn has not come yet ends when it comes. As with the end of a context, the cancel is repeated until the
 * operation obeys, and not every operation does. To cancel one twice does no harm.
 *
 * 0; -ENOENT: not in flight (*op is zeroed, was refused by start, or has given LAST; so zero a record that may not have
 * been started yet); -EBUSY: the queue is full, and the kernel takes nothing now: the cancel goes out with the scope's
 * next completion, or with another call of this.
 */
int ctxfd_uring_cancel(struct ctxfd_uring_op *op);

/*
 * Begins to end *scope, for programs with a loop: nothing more is accepted, and what is in flight is cancelled. When
 * nothing of the scope is left in the ring, *op completes like an operation, with LAST and res 0, as the scope's last:
 * then the scope's memory and the reference on its context are given up. op may be one that has just ended. The context
 * is left as it is. Once this has returned 0, do not call it again: the first op would not complete.
 *
 * 0; or -EBUSY: the queue is full, and the kernel takes nothing now. Then *op is yours and will not complete, nothing
 * more is accepted all the same, and you try again: end after your next submission, or ctxfd_uring_close, which sleeps.
 * If the kernel comes to refuse later, with a queue full of your own requests, *op waits as cancels do (see complete),
 * and close takes over.
 */
int ctxfd_uring_end(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op *op);

/*
 * The same for programs without one: sleeps until nothing of *scope is left in the ring. Gives what is still completed
 * one at a time, MORE or LAST, as ctxfd_uring_wait does and with its errors. 0: the scope is closed, and all memory and
 * buffers are yours; closing it again does nothing.
 *
 *     while ((n = ctxfd_uring_close(&scope, &op)) > 0)
 *             if (op == &accept_op && op->res >= 0)
 *                     close(op->res);
 *
 * With op NULL results are dropped, connections accepted in the last moment too. Costs a system call if the scope's
 * poll is armed, none otherwise.
 *
 * If the kernel refuses a submission, operations that it has not taken are taken back, and give LAST with the context's
 * err or -ECANCELED (not with IORING_SETUP_SQPOLL). So in a sandbox that forbids io_uring_enter a scope without
 * operations in flight closes. One that has some does not: it is free when the ring is gone (io_uring_queue_exit),
 * except its reference on the context, which is lost.
 */
int ctxfd_uring_close(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op);

/*
 * Submits what is queued and sleeps until *scope has a completion: MORE or LAST, as ctxfd_uring_complete gives them, or
 * 0 when it has no operation in flight. With op NULL it goes on until then, and drops the results.
 *
 * Completions of others stay in the queue, in their order, for you to reap. Those of the scope are taken where they
 * are, and given back to the kernel if they are at the head. You may be in the middle of a pass over the queue
 * (io_uring_for_each_cqe), if every CQE from its head to the one that you hold has gone through ctxfd_uring_complete.
 * (Else yours may be given back here, and io_uring_cqe_seen drops another one.) The same holds for close and call.
 *
 * -EBUSY: the completion queue is full, with one of others at its head; reap some and call again. -EAGAIN: the kernel
 * has no memory for a request; call again. Others of io_uring_enter(2) do not pass, as -EEXIST on a thread that the
 * ring does not take, or -EPERM in a sandbox.
 */
int ctxfd_uring_wait(struct ctxfd_uring_scope *scope, struct ctxfd_uring_op **op);

/*
 * One operation under a context, from its start to its end: submits *sqe (see ctxfd_uring_start), sleeps until it is
 * over, and returns its result as ctxfd_uring_complete gives it. Not for multishot operations, nor for chains, nor for
 * provided buffers, whose number it does not tell; a zero-copy send returns when its buffer is free. *sqe is not yours
 * any more in any case.
 *
 * Or it returns an error, and the operation never was in flight, or has been cancelled: what open or start failed with;
 * what io_uring_enter(2) refuses the submission with (-EAGAIN after a second of trying); or -EBUSY, when the completion
 * queue is not empty and has room for fewer than four. Then, and with every result, memory and buffers are yours when
 * it returns.
 *
 * Completions of others stay in the queue. What a call takes behind them stays taken up until they are reaped.
 *
 * -ENOTRECOVERABLE is the exception: the operation is in flight, and its end cannot be waited for. The completion queue
 * has filled up behind completions of others, where nobody can make room: more of them have come meanwhile, or the
 * answers to the repeated cancels of an operation that is slow to obey (it has been cancelled then: reap before a call,
 * and use a ring with room for all that may complete). Or the kernel has come to refuse io_uring_enter, as a sandbox
 * does that another thread has put up. Its buffers are the kernel's until the ring is gone (io_uring_queue_exit).
 * Nothing points to memory of the call: what completes later is CTXFD_URING_NONE.
 */
int ctxfd_uring_call(const struct ctxfd *ctx, struct io_uring *ring, struct io_uring_sqe *sqe);

#ifdef __cplusplus
}
#endif

#endif
