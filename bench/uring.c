/* SPDX-License-Identifier: MIT */
/*
 * io_uring: cancelling N operations in flight, against cancels by user_data that a program writes itself; and what a
 * bound operation costs that nobody cancels.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <errno.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ctxfd_uring.h"

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

static void cancel_bound(struct bench *b)
{
	struct ctxfd_uring_op *ops = calloc((size_t)b->arg, sizeof(*ops)), *op;
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct ctxfd_uring_scope scope;
	struct io_uring_cqe *cqe;

	bench_check(ops);
	make_ring(4096);
	while (bench_more(b)) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		long ended = 0;

		bench_check(ctxfd_uring_open(&scope, &ring, ctx) == 0);
		for (long i = 0; i < b->arg; i++)
			bench_check(ctxfd_uring_start(&scope, &ops[i], read_of(quiet)) == 0);
		bench_check(io_uring_submit(&ring) >= 0);
		bench_start(b);
		ctxfd_cancel(ctx);
		while (ended < b->arg) {
			bench_check(io_uring_wait_cqe(&ring, &cqe) == 0);
			if (ctxfd_uring_complete(cqe, &op) == CTXFD_URING_LAST) {
				bench_check(op->res == -ECANCELED);
				ended++;
			}
			io_uring_cqe_seen(&ring, cqe);
		}
		bench_stop(b, b->arg);
		bench_check(ctxfd_uring_close(&scope, NULL) == 0);
		ctxfd_close(ctx);
	}
	io_uring_queue_exit(&ring);
	close(quiet);
	free(ops);
}
BENCH("ctxfd", "uring/cancel", cancel_bound)

static void cancel_by_hand(struct bench *b)
{
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct io_uring_cqe *cqe;

	make_ring(4096);
	while (bench_more(b)) {
		for (long i = 1; i <= b->arg; i++)
			read_of(quiet)->user_data = (uint64_t)i;
		bench_check(io_uring_submit(&ring) >= 0);
		bench_start(b);
		for (long i = 1; i <= b->arg; i++) {
			struct io_uring_sqe *sqe = get_sqe();

			io_uring_prep_cancel64(sqe, (uint64_t)i, 0);
			sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
			sqe->user_data = 0;
			if (i % BATCH == 0)
				bench_check(io_uring_submit(&ring) >= 0);
		}
		bench_check(io_uring_submit(&ring) >= 0);
		for (long ended = 0; ended < b->arg; ended++) {
			bench_check(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == -ECANCELED);
			io_uring_cqe_seen(&ring, cqe);
		}
		bench_stop(b, b->arg);
	}
	io_uring_queue_exit(&ring);
	close(quiet);
}
BENCH("floor", "uring/cancel", cancel_by_hand)

/* ---- Receiving a byte that is there ------------------------------------------------------------------------------ */

static struct ctxfd_uring_scope recv_scope;
static int sockets[2];
static char byte;

static struct io_uring_sqe *recv_byte(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_recv(sqe, sockets[0], &byte, 1, 0);
	return sqe;
}

static void recv_bound(void)
{
	struct ctxfd_uring_op op, *ended = NULL;
	struct io_uring_cqe *cqe;

	bench_check(ctxfd_uring_start(&recv_scope, &op, recv_byte()) == 0);
	while (!ended) {
		bench_check(io_uring_submit_and_wait(&ring, 1) >= 0);
		while (io_uring_peek_cqe(&ring, &cqe) == 0) {
			ctxfd_uring_complete(cqe, &ended);
			io_uring_cqe_seen(&ring, cqe);
		}
	}
	bench_check(ended == &op && op.res == 1);
}

static void recv_plain(void)
{
	struct io_uring_cqe *cqe;

	recv_byte()->user_data = 0;
	bench_check(io_uring_submit_and_wait(&ring, 1) >= 0);
	bench_check(io_uring_peek_cqe(&ring, &cqe) == 0 && cqe->res == 1);
	io_uring_cqe_seen(&ring, cqe);
}

static const struct ctxfd *call_ctx;

static void recv_call(void)
{
	bench_check(ctxfd_uring_call(call_ctx, &ring, recv_byte()) == 1);
}

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
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct ctxfd_uring_op other;

	make_ring(64);
	bench_check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
	call_ctx = ctx;
	bench_check(ctxfd_uring_open(&recv_scope, &ring, ctx) == 0);
	if (other_in_flight)
		bench_check(ctxfd_uring_start(&recv_scope, &other, read_of(quiet)) == 0);
	receive(b, one);
	bench_check(ctxfd_uring_close(&recv_scope, NULL) == 0);
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

static void recv_unbound(struct bench *b)
{
	receiving(b, recv_plain, false);
}
BENCH("floor", "uring/recv", recv_unbound)
BENCH("floor", "uring/recv-among", recv_unbound)
BENCH("floor", "uring/call", recv_unbound)
