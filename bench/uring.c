/* SPDX-License-Identifier: MIT */
/*
 * io_uring: cancelling N operations in flight, against cancels by user_data that a program writes itself; what a bound
 * operation costs that nobody cancels; and what a context for each operation costs.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ctxfd_uring.h"
#include "floor.h"

#define BATCH 128 /* cancels in a submission: the hand-written ones go out as the library's do */

static struct io_uring ring;

static void make_ring(unsigned entries)
{
	bench_check(io_uring_queue_init(entries, &ring, 0) == 0);
}

static struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring)))
		bench_check(io_uring_submit(&ring) >= 0);
	return sqe;
}

/* ---- Cancelling N reads that wait -------------------------------------------------------------------------------- */

static uint64_t sink;

static struct io_uring_sqe *read_of(int fd)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_read(sqe, fd, &sink, sizeof(sink), 0);
	return sqe;
}

/* Takes what has completed until n operations have ended. */
static void end_bound(long n)
{
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;

	for (long ended = 0; ended < n; io_uring_cqe_seen(&ring, cqe)) {
		bench_check(io_uring_wait_cqe(&ring, &cqe) == 0);
		if (ctxfd_uring_complete(cqe, &op) == CTXFD_URING_LAST) {
			bench_check(op->res == -ECANCELED);
			ended++;
		}
	}
}

static void cancel_context(struct ctxfd *ctx, struct ctxfd_uring_op *ops, long n)
{
	(void)ops;
	(void)n;
	ctxfd_cancel(ctx);
}

static void cancel_ops(struct ctxfd *ctx, struct ctxfd_uring_op *ops, long n)
{
	(void)ctx;
	for (long i = 0; i < n; i++)
		bench_check(ctxfd_uring_cancel(&ops[i]) == 0);
	bench_check(io_uring_submit(&ring) >= 0);
}

static void cancel_bound(struct bench *b, void (*cancel)(struct ctxfd *ctx, struct ctxfd_uring_op *ops, long n))
{
	struct ctxfd_uring_op *ops = calloc((size_t)b->arg, sizeof(*ops));
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct ctxfd_uring_scope scope;

	bench_check(ops);
	make_ring(4096);
	while (bench_more(b)) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

		bench_check(ctxfd_uring_open(&scope, &ring, ctx) == 0);
		for (long i = 0; i < b->arg; i++)
			bench_check(ctxfd_uring_start(&scope, &ops[i], read_of(quiet)) == 0);
		bench_check(io_uring_submit(&ring) >= 0);
		bench_start(b);
		cancel(ctx, ops, b->arg);
		end_bound(b->arg);
		bench_stop(b, b->arg);
		bench_check(ctxfd_uring_close(&scope, NULL) == 0);
		ctxfd_close(ctx);
	}
	io_uring_queue_exit(&ring);
	close(quiet);
	free(ops);
}

static void cancel_by_context(struct bench *b)
{
	cancel_bound(b, cancel_context);
}
BENCH("ctxfd", "uring/cancel", cancel_by_context)

static void cancel_by_op(struct bench *b)
{
	cancel_bound(b, cancel_ops);
}
BENCH("ctxfd", "uring/cancel-op", cancel_by_op)

static void cancel_by_user_data(long n)
{
	for (long i = 1; i <= n; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		io_uring_prep_cancel64(sqe, (uint64_t)i, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		sqe->user_data = 0;
		if (i % BATCH == 0)
			bench_check(io_uring_submit(&ring) >= 0);
	}
	bench_check(io_uring_submit(&ring) >= 0);
}

static void await(int res)
{
	struct io_uring_cqe *cqe;

	bench_check(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == res);
	io_uring_cqe_seen(&ring, cqe);
}

/*
 * By hand. What any thread may cancel needs a way into the thread that owns the ring: an eventfd that the ring polls,
 * as a ring with SINGLE_ISSUER takes no call from others.
 */
static void cancel_by_hand(struct bench *b, bool any_thread)
{
	int quiet = eventfd(0, EFD_CLOEXEC), waker = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1;

	make_ring(4096);
	while (bench_more(b)) {
		if (any_thread) {
			struct io_uring_sqe *sqe = get_sqe();

			io_uring_prep_poll_add(sqe, waker, POLLIN);
			sqe->user_data = 0;
		}
		for (long i = 1; i <= b->arg; i++)
			read_of(quiet)->user_data = (uint64_t)i;
		bench_check(io_uring_submit(&ring) >= 0);
		bench_start(b);
		if (any_thread) {
			bench_check(write(waker, &one, sizeof(one)) == sizeof(one));
			await(POLLIN);
		}
		cancel_by_user_data(b->arg);
		for (long ended = 0; ended < b->arg; ended++)
			await(-ECANCELED);
		bench_stop(b, b->arg);
		bench_check(!any_thread || read(waker, &one, sizeof(one)) == sizeof(one));
	}
	io_uring_queue_exit(&ring);
	close(quiet);
	close(waker);
}

static void cancel_from_anywhere(struct bench *b)
{
	cancel_by_hand(b, true);
}
BENCH("floor", "uring/cancel", cancel_from_anywhere)

static void cancel_own(struct bench *b)
{
	cancel_by_hand(b, false);
}
BENCH("floor", "uring/cancel-op", cancel_own)

/* ---- Receiving a byte that is there ------------------------------------------------------------------------------ */

static struct ctxfd_uring_scope recv_scope;
static const struct ctxfd *call_ctx;
static int sockets[2];
static char byte;

static struct io_uring_sqe *recv_byte(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_recv(sqe, sockets[0], &byte, 1, 0);
	return sqe;
}

static void finish(struct ctxfd_uring_op *op)
{
	struct ctxfd_uring_op *ended = NULL;
	struct io_uring_cqe *cqe;

	while (!ended) {
		bench_check(io_uring_submit_and_wait(&ring, 1) >= 0);
		while (io_uring_peek_cqe(&ring, &cqe) == 0) {
			ctxfd_uring_complete(cqe, &ended);
			io_uring_cqe_seen(&ring, cqe);
		}
	}
	bench_check(ended == op && op->res == 1);
}

static void recv_bound(void)
{
	struct ctxfd_uring_op op;

	bench_check(ctxfd_uring_start(&recv_scope, &op, recv_byte()) == 0);
	finish(&op);
}

static void recv_plain(void)
{
	struct io_uring_cqe *cqe;

	recv_byte()->user_data = 0;
	bench_check(io_uring_submit_and_wait(&ring, 1) >= 0);
	bench_check(io_uring_peek_cqe(&ring, &cqe) == 0 && cqe->res == 1);
	io_uring_cqe_seen(&ring, cqe);
}

static void recv_call(void)
{
	bench_check(ctxfd_uring_call(call_ctx, &ring, recv_byte()) == 1);
}

/* ---- The same, with a context of its own for each ---------------------------------------------------------------- */

static const struct ctxfd *dispatched;

static void cancel_op(void *op)
{
	bench_check(ctxfd_uring_cancel(op) == 0);
}

/* One scope for all, and an after-func that cancels the operation when its context ends. */
static void recv_after(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(dispatched);
	struct ctxfd_uring_op op;
	struct ctxfd_after *after;

	bench_check(ctxfd_uring_start(&recv_scope, &op, recv_byte()) == 0);
	bench_check(ctxfd_after_func(ctx, cancel_op, &op, &after) == 0);
	finish(&op);
	bench_check(ctxfd_after_stop(after));
	ctxfd_close(ctx);
}

/* By hand: a request that other threads find in a list, under its lock. */
static void recv_listed(void)
{
	static struct floor_list requests;
	struct floor_item *item = floor_make(&requests, sizeof(*item));

	recv_plain();
	floor_free(&requests, item);
}

/* A scope for each. */
static void recv_scoped(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(call_ctx);
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op op;

	bench_check(ctxfd_uring_open(&scope, &ring, ctx) == 0);
	bench_check(ctxfd_uring_start(&scope, &op, recv_byte()) == 0);
	finish(&op);
	bench_check(ctxfd_uring_close(&scope, NULL) == 0);
	ctxfd_close(ctx);
}

/* By hand: an eventfd for each, a poll of it, and the removal of the poll. */
static void recv_polled(void)
{
	int waker = eventfd(0, EFD_CLOEXEC);
	struct io_uring_sqe *sqe = get_sqe();
	struct io_uring_cqe *cqe;

	io_uring_prep_poll_add(sqe, waker, POLLIN);
	sqe->user_data = 1;
	recv_plain();
	sqe = get_sqe();
	io_uring_prep_cancel64(sqe, 1, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 0;
	bench_check(io_uring_submit_and_wait(&ring, 1) >= 0);
	bench_check(io_uring_peek_cqe(&ring, &cqe) == 0 && cqe->res == -ECANCELED);
	io_uring_cqe_seen(&ring, cqe);
	close(waker);
}

/* ---- The rows ---------------------------------------------------------------------------------------------------- */

static void receive(struct bench *b, void (*one)(void))
{
	char *bytes;

	while (bench_more(b)) {
		bytes = calloc(1, (size_t)b->n);
		bench_check(bytes && write(sockets[1], bytes, (size_t)b->n) == b->n);
		bench_start(b);
		for (long i = 0; i < b->n; i++)
			one();
		bench_stop(b, b->n);
		free(bytes);
	}
}

static void receiving(struct bench *b, void (*one)(void), bool other_in_flight)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_dispatcher *d = ctxfd_dispatcher_new();
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct ctxfd_uring_op other;

	make_ring(64);
	bench_check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
	call_ctx = ctx;
	dispatched = ctxfd_with_dispatcher(ctx, d);
	bench_check(ctxfd_uring_open(&recv_scope, &ring, ctx) == 0);
	if (other_in_flight)
		bench_check(ctxfd_uring_start(&recv_scope, &other, read_of(quiet)) == 0);
	receive(b, one);
	bench_check(ctxfd_uring_close(&recv_scope, NULL) == 0);
	ctxfd_unref(dispatched);
	ctxfd_dispatcher_free(d);
	ctxfd_close(ctx);
	io_uring_queue_exit(&ring);
	close(sockets[0]);
	close(sockets[1]);
	close(quiet);
}

static void recv_one(struct bench *b)
{
	receiving(b, recv_bound, false);
}
BENCH("ctxfd", "uring/recv", recv_one)

static void recv_among_others(struct bench *b)
{
	receiving(b, recv_bound, true);
}
BENCH("ctxfd", "uring/recv-among", recv_among_others)

static void recv_in_a_call(struct bench *b)
{
	receiving(b, recv_call, false);
}
BENCH("ctxfd", "uring/call", recv_in_a_call)

static void recv_after_each(struct bench *b)
{
	receiving(b, recv_after, true);
}
BENCH("ctxfd", "uring/after-each", recv_after_each)

static void recv_listed_each(struct bench *b)
{
	receiving(b, recv_listed, false);
}
BENCH("floor", "uring/after-each", recv_listed_each)

static void recv_scope_each(struct bench *b)
{
	receiving(b, recv_scoped, false);
}
BENCH("ctxfd", "uring/scope-each", recv_scope_each)

static void recv_polled_each(struct bench *b)
{
	receiving(b, recv_polled, false);
}
BENCH("floor", "uring/scope-each", recv_polled_each)

static void recv_unbound(struct bench *b)
{
	receiving(b, recv_plain, false);
}
BENCH("floor", "uring/recv", recv_unbound)
BENCH("floor", "uring/recv-among", recv_unbound)
BENCH("floor", "uring/call", recv_unbound)
