/* SPDX-License-Identifier: MIT */
/*
 * A server with one thread and io_uring. A connection has one operation in flight: it receives or it sends. See http.h
 * for what it serves, and limits.h for what is compiled twice. So is what cancels an operation, below.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "limits.h"

#include <liburing.h>
#include <poll.h>

#ifdef CONTEXTS
#include <ctxfd_uring.h>
#endif

struct connection {
	struct limits limits; /* the first: a pointer to it is one to the connection */
#ifdef CONTEXTS
	struct ctxfd_uring_op op;
#endif
	int fd;
	bool flying, closing,
	        last; /* an operation is in flight; to be closed after it; to be closed after the answer */
	const char *out;
	size_t left; /* of out */
	struct input in;
};

static struct io_uring ring;
static int listener;

static struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring)))
		io_uring_submit(&ring);
	return sqe;
}

/* ---- Operations that can be cancelled ---------------------------------------------------------------------------- */

#ifdef CONTEXTS

static struct ctxfd_uring_scope scope; /* of the server's context: for all connections */

static bool op_start(struct connection *c, struct io_uring_sqe *sqe)
{
	c->op.data = c;
	return ctxfd_uring_start(&scope, &c->op, sqe) == 0;
}

static void op_cancel(struct connection *c)
{
	ctxfd_uring_cancel(&c->op);
}

/* The connection whose operation has completed; else NULL, with what has completed in *other. */
static struct connection *completed(struct io_uring_cqe *cqe, int *res, uint64_t *other)
{
	struct ctxfd_uring_op *op;
	int what = ctxfd_uring_complete(cqe, &op);

	*other = what == CTXFD_URING_OTHER ? cqe->user_data : 0;
	*res = what == CTXFD_URING_LAST ? op->res : cqe->res;
	return what == CTXFD_URING_LAST ? op->data : NULL;
}

#else

static bool op_start(struct connection *c, struct io_uring_sqe *sqe)
{
	io_uring_sqe_set_data(sqe, c);
	return true;
}

static void op_cancel(struct connection *c)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_cancel(sqe, c, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 0;
}

static struct connection *completed(struct io_uring_cqe *cqe, int *res, uint64_t *other)
{
	struct connection *c = io_uring_cqe_get_data(cqe);

	*res = cqe->res;
	*other = cqe->user_data <= 2 ? cqe->user_data : 0;
	return cqe->user_data <= 2 ? NULL : c;
}

#endif

enum { NOBODY, ACCEPTS, LIMITS }; /* user_data of what is no connection's */

/* ---- Connections ------------------------------------------------------------------------------------------------- */

/* The kernel has the buffers until the operation in flight has ended. */
static void connection_close(struct connection *c)
{
	c->closing = true;
	if (c->flying) {
		op_cancel(c);
		return;
	}
	limits_close(&c->limits);
	close(c->fd);
	free(c);
}

static void start(struct connection *c, struct io_uring_sqe *sqe)
{
	c->flying = op_start(c, sqe);
	if (!c->flying)
		connection_close(c);
}

static void start_receiving(struct connection *c)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_recv(sqe, c->fd, c->in.bytes + c->in.have, sizeof(c->in.bytes) - c->in.have, 0);
	start(c, sqe);
}

static void start_sending(struct connection *c)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_send(sqe, c->fd, c->out, c->left, MSG_NOSIGNAL);
	start(c, sqe);
}

static void answer(struct connection *c, const struct answer *with, bool last)
{
	c->out = with->bytes;
	c->left = with->size;
	c->last = last;
	start_sending(c);
}

/* Answers the next request if it is there, or waits for more of it. */
static void serve(struct connection *c)
{
	enum request r = REQUEST_PARTIAL;

	if (c->in.have)
		r = request_is_on(&c->limits) || request_begin(&c->limits) ? take_request(&c->in) : REQUEST_BAD;
	if (r == REQUEST_PARTIAL)
		start_receiving(c);
	else if (r != REQUEST_NEVER)
		answer(c, r == REQUEST_BAD ? &late : &hello, r == REQUEST_BAD);
}

static void connection_completed(struct connection *c, int res)
{
	c->flying = false;
	if (c->closing || res <= 0) {
		connection_close(c);
		return;
	}
	if (!c->left) {
		limits_touch(&c->limits);
		c->in.have += (size_t)res;
		serve(c);
		return;
	}
	c->out += res;
	c->left -= (size_t)res;
	if (c->left) {
		start_sending(c);
	} else if (c->last) {
		connection_close(c);
	} else {
		request_end(&c->limits);
		serve(c);
	}
}

static void connection_idle(struct limits *l)
{
	connection_close((struct connection *)l);
}

/* A request whose rest is still awaited is not answered. */
static void request_late(struct limits *l)
{
	struct connection *c = (struct connection *)l;

	if (c->flying)
		connection_close(c);
	else
		answer(c, &late, true);
}

/* ---- The loop ---------------------------------------------------------------------------------------------------- */

static void start_accepting(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
	sqe->user_data = ACCEPTS;
}

static void accepted(int fd)
{
	struct connection *c = malloc(sizeof(*c));

	if (!c || !limits_open(&c->limits)) {
		if (c)
			limits_close(&c->limits);
		free(c);
		close(fd);
		return;
	}
	c->fd = fd;
	c->flying = c->closing = c->last = false;
	c->left = 0;
	c->in.have = 0;
	no_delay(fd);
	start_receiving(c);
}

static void watch_limits(void)
{
#ifdef CONTEXTS
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_poll_add(sqe, limits_fd(), POLLIN);
	sqe->user_data = LIMITS;
#endif
}

static void wait_for_events(void)
{
#ifdef CONTEXTS
	io_uring_submit_and_wait(&ring, 1);
#else
	int64_t wait = limits_wait();
	struct __kernel_timespec t = { wait / (1000 * MSEC), wait % (1000 * MSEC) };
	struct io_uring_cqe *cqe;

	io_uring_submit_and_wait_timeout(&ring, &cqe, 1, wait < 0 ? NULL : &t, NULL);
	now = read_clock();
#endif
}

/* A ring that only one thread uses is the fastest. Kernels before 6.1 do not have it. */
static void make_ring(void)
{
	int err = io_uring_queue_init(1024, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	if (err == -EINVAL)
		err = io_uring_queue_init(1024, &ring, 0);
	errno = -err;
	if (err)
		die("io_uring_queue_init");
}

int main(int argc, char **argv)
{
	struct io_uring_cqe *cqe;

	listener = start_listening(argc, argv, 0);
	make_ring();
	limits_setup();
#ifdef CONTEXTS
	errno = -ctxfd_uring_open(&scope, &ring, server);
	if (errno)
		die("ctxfd_uring_open");
#endif
	start_accepting();
	watch_limits();
	for (;;) {
		bool due = LIMITS_ASK;

		wait_for_events();
		while (io_uring_peek_cqe(&ring, &cqe) == 0) {
			bool more = cqe->flags & IORING_CQE_F_MORE;
			uint64_t other;
			int res;
			struct connection *c = completed(cqe, &res, &other);

			io_uring_cqe_seen(&ring, cqe);
			if (c)
				connection_completed(c, res);
			else if (other == LIMITS)
				due = true;
			else if (other == ACCEPTS && res >= 0)
				accepted(res);
			if (other == ACCEPTS && !more)
				start_accepting();
		}
		if (due) {
			limits_run();
			watch_limits();
		}
	}
}
