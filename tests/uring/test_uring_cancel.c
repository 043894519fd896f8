/* SPDX-License-Identifier: MIT */
/*
 * One operation that is cancelled alone: it ends as always, once, and nothing else does. And what cancels leave behind
 * and cost, whatever else is in the ring.
 */
#include "test_uring.h"

#include <sys/eventfd.h>

/* A scope of a live context, and a pair of sockets to receive from. */
struct world {
	struct ctxfd *ctx;
	struct ctxfd_uring_scope scope;
	int fds[2];
	char buf[8];
};

static void make_world(struct world *w)
{
	w->ctx = ctxfd_with_cancel(ctxfd_background());
	make_socketpair(w->fds);
	open_scope(&w->scope, w->ctx);
}

static void free_world(struct world *w)
{
	close_scope(&w->scope);
	close_pair(w->fds);
	ctxfd_close(w->ctx);
}

static struct io_uring_sqe *recv_of(struct world *w)
{
	struct io_uring_sqe *sqe = get_sqe();

	prep_recv_from(sqe, w->fds[0], w->buf, 1);
	return sqe;
}

static struct io_uring_sqe *nop(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_nop(sqe);
	return sqe;
}

static void start_recv(struct world *w, struct tracked *t)
{
	start(&w->scope, t, recv_of(w));
	submit_and_run();
}

/* ---- ctxfd_uring_cancel ------------------------------------------------------------------------------------------ */

static void one_ends_and_others_do_not(void **state)
{
	struct tracked t[3];
	struct world w;
	int mark;

	make_world(&w);
	for (int i = 0; i < 3; i++) {
		start_recv(&w, &t[i]);
		t[i].op.data = &mark;
	}
	assert_int_equal(ctxfd_uring_cancel(&t[1].op), 0);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	assert_ptr_equal(t[1].op.data, &mark);
	assert_int_equal(ctxfd_err(w.ctx), 0);
	assert_int_equal(write(w.fds[1], "xy", 2), 2);
	assert_int_equal(finish(&t[0]), 1);
	assert_int_equal(finish(&t[2]), 1);
	free_world(&w);
}

static void cancelling_twice_is_fine(void **state)
{
	struct tracked t;
	struct world w;

	make_world(&w);
	for (int i = 0; i < 50; i++) {
		start_recv(&w, &t);
		for (int n = 0; n <= i % 3; n++) {
			assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
			if (i % 2)
				submit_and_run();
		}
		assert_int_equal(finish(&t), -ECANCELED);
		assert_int_equal(ctxfd_uring_cancel(&t.op), -ENOENT);
	}
	free_world(&w);
}

static void what_is_not_in_flight_is_told(void **state)
{
	struct ctxfd_uring_op never = { 0 };
	struct tracked t, end;
	struct io_uring_sqe *sqe;
	struct world w;

	make_world(&w);
	assert_int_equal(ctxfd_uring_cancel(&never), -ENOENT);
	sqe = nop();
	sqe->flags |= IOSQE_IO_DRAIN;
	assert_int_equal(try_start(&w.scope, &t, sqe), -EINVAL);
	assert_int_equal(ctxfd_uring_cancel(&t.op), -ENOENT);
	start(&w.scope, &t, nop());
	assert_int_equal(finish(&t), 0);
	assert_int_equal(ctxfd_uring_cancel(&t.op), -ENOENT);
	memset(&end, 0xa5, sizeof end);
	end.more = end.last = 0;
	assert_int_equal(ctxfd_uring_end(&w.scope, &end.op), 0);
	assert_int_equal(ctxfd_uring_cancel(&end.op), -ENOENT);
	assert_int_equal(finish(&end), 0);
	assert_int_equal(ctxfd_uring_cancel(&end.op), -ENOENT);
	open_scope(&w.scope, w.ctx);
	free_world(&w);
}

/* Whether a completion with this result is in the queue. */
static bool queued(int res)
{
	struct io_uring_cqe *cqe;
	bool found = false;
	unsigned head;

	io_uring_for_each_cqe(&ring, head, cqe)
	{
		found |= cqe->res == res;
	}
	return found;
}

/* Its completion is in the queue already: that is what it gives. */
static void a_result_beats_the_cancel(void **state)
{
	struct tracked t;
	struct world w;

	make_world(&w);
	for (int i = 0; i < 200; i++) {
		start_recv(&w, &t);
		assert_int_equal(write(w.fds[1], "x", 1), 1);
		while (!queued(1))
			submit_and_run();
		assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
		if (i % 2)
			submit_and_run();
		assert_int_equal(finish(&t), 1);
		assert_int_equal(t.more, 0);
	}
	free_world(&w);
}

/* Not the kernel's yet. */
static void it_is_cancelled_before_it_is_submitted(void **state)
{
	struct tracked t;
	struct world w;

	make_world(&w);
	for (int i = 0; i < 20; i++) {
		start(&w.scope, &t, recv_of(&w));
		assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
		assert_int_equal(finish(&t), -ECANCELED);
	}
	free_world(&w);
}

static void a_multishot_operation_ends(void **state)
{
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd;
	struct io_uring_sqe *sqe;
	struct tracked t;
	struct world w;

	make_world(&w);
	sqe = get_sqe();
	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
	start(&w.scope, &t, sqe);
	submit_and_run();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	while (!t.more)
		turn();
	close(t.first);
	close(fd);
	assert_int_equal(t.last, 0);
	assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
	assert_int_equal(finish(&t), -ECANCELED);
	assert_int_equal(t.more, 1);
	close(listener);
	free_world(&w);
}

/* The running member of a chain ends, and with it the chain; one further on when its turn comes. */
static void members_of_a_chain(void **state)
{
	struct io_uring_sqe *sqe;
	struct tracked t[3];
	struct world w;

	make_world(&w);
	for (int which = 0; which < 3; which++) {
		for (int i = 0; i < 3; i++) {
			sqe = i == 1 || which == 2 ? recv_of(&w) : nop();
			sqe->flags |= i == 2 ? 0 : which == 2 ? IOSQE_IO_HARDLINK : IOSQE_IO_LINK;
			start(&w.scope, &t[i], sqe);
		}
		submit_and_run();
		if (which < 2) {
			assert_int_equal(finish(&t[0]), 0);
			assert_int_equal(ctxfd_uring_cancel(&t[1 + which].op), 0);
			if (which == 1)
				assert_int_equal(write(w.fds[1], "x", 1), 1);
			finish(&t[1]);
			assert_int_equal(which ? t[1].res : -ECANCELED, which ? 1 : t[1].res);
			finish(&t[2]);
			/* The last one is a no-op: it may run before it is found. */
			assert_true(t[2].res == -ECANCELED || (which && t[2].res == 0));
			continue;
		}
		/* The second one is not found until the first has ended: the cancel is repeated. */
		assert_int_equal(ctxfd_uring_cancel(&t[1].op), 0);
		submit_and_run();
		assert_int_equal(write(w.fds[1], "x", 1), 1);
		assert_int_equal(finish(&t[0]), 1);
		assert_int_equal(finish(&t[1]), -ECANCELED);
		assert_int_equal(t[2].last, 0);
		assert_int_equal(write(w.fds[1], "y", 1), 1);
		assert_int_equal(finish(&t[2]), 1);
	}
	free_world(&w);
}

/* After the context's end it has been cancelled already; and the other way round, it is not lost. */
static void it_meets_the_end_of_the_context(void **state)
{
	for (int order = 0; order < 3; order++) {
		struct tracked t[2];
		struct world w;

		make_world(&w);
		start_recv(&w, &t[0]);
		start_recv(&w, &t[1]);
		if (order)
			assert_int_equal(ctxfd_uring_cancel(&t[0].op), 0);
		if (order == 2)
			submit_and_run();
		ctxfd_cancel(w.ctx);
		assert_int_equal(ctxfd_uring_cancel(&t[0].op), 0);
		assert_int_equal(finish(&t[0]), -ECANCELED);
		assert_int_equal(finish(&t[1]), -ECANCELED);
		free_world(&w);
	}
}

/* The record is started anew at once: the cancel was for its former life. */
static void a_record_is_reused_at_once(void **state)
{
	struct tracked t;
	struct world w;

	make_world(&w);
	for (int i = 0; i < 50; i++) {
		start_recv(&w, &t);
		assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
		assert_int_equal(finish(&t), -ECANCELED);
		start_recv(&w, &t);
		assert_int_equal(write(w.fds[1], "x", 1), 1);
		assert_int_equal(finish(&t), 1);
	}
	free_world(&w);
}

/* Each way to end a scope, while the repetition of a cancel may be in the ring. */
static void a_scope_ends_right_after(void **state)
{
	for (int how = 0; how < 6; how++) {
		struct ctxfd_uring_scope *scope = malloc(sizeof *scope);
		struct tracked *t = malloc(sizeof *t), end = { 0 };
		struct world w;

		make_world(&w);
		open_scope(scope, w.ctx);
		start(scope, t, recv_of(&w));
		submit_and_run();
		assert_int_equal(ctxfd_uring_cancel(&t->op), 0);
		if (how % 3)
			submit_and_run();
		if (how % 3 == 2)
			finish(t);
		if (how < 3) {
			assert_int_equal(ctxfd_uring_close(scope, NULL), 0);
		} else {
			assert_int_equal(ctxfd_uring_end(scope, &end.op), 0);
			finish(&end);
			assert_int_equal(t->last, 1);
		}
		free(scope);
		free(t);
		submit_and_run();
		assert_int_equal(take_all(), 0);
		free_world(&w);
	}
}

/* ---- A context for each operation -------------------------------------------------------------------------------- */

/* As the man page shows it: one scope, and each operation's context cancels it by an after-func on the loop. */
struct request {
	struct tracked t;
	struct ctxfd *ctx;
	struct ctxfd_after *after;
};

static void cancel_op(void *op)
{
	ctxfd_uring_cancel(op);
}

static void watch(struct ctxfd_dispatcher *d)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_poll_add(sqe, ctxfd_dispatcher_fd(d), POLLIN);
	sqe->user_data = 1;
}

static int finish_request(struct request *r, struct ctxfd_dispatcher *d)
{
	while (!r->t.last) {
		if (!turn())
			continue;
		assert_true(ctxfd_dispatcher_run(d) >= 0);
		watch(d);
	}
	ctxfd_after_stop(r->after);
	return r->t.res;
}

static void a_context_for_each_operation(void **state)
{
	struct ctxfd_dispatcher *d = ctxfd_dispatcher_new();
	const struct ctxfd *requests;
	struct request r[4];
	struct world w;

	make_world(&w);
	requests = ctxfd_with_dispatcher(w.ctx, d);
	watch(d);
	for (int i = 0; i < 4; i++) {
		r[i].ctx = i == 2 ? ctxfd_with_timeout(requests, CTXFD_MSEC) : ctxfd_with_cancel(requests);
		if (i == 3)
			ctxfd_cancel(r[i].ctx);
		start(&w.scope, &r[i].t, recv_of(&w));
		assert_int_equal(ctxfd_after_func(r[i].ctx, cancel_op, &r[i].t.op, &r[i].after), 0);
	}
	submit_and_run();
	ctxfd_cancel(r[1].ctx);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(finish_request(&r[i], d), -ECANCELED);
		assert_int_equal(ctxfd_err(r[i].ctx), i == 2 ? -ETIMEDOUT : -ECANCELED);
	}
	assert_int_equal(r[0].t.last, 0);
	submit_and_run();
	assert_true(armed_polls() <= 3); /* the first one's, the scope's and the dispatcher's: none for a context */
	assert_int_equal(write(w.fds[1], "x", 1), 1);
	assert_int_equal(finish_request(&r[0], d), 1);
	for (int i = 0; i < 4; i++)
		ctxfd_close(r[i].ctx);
	ctxfd_unref(requests);
	free_world(&w);
	ctxfd_dispatcher_free(d);
}

/* ---- What cancels leave behind ----------------------------------------------------------------------------------- */

/* Of a program without a loop: completions of cancels that found nothing are given back by whoever waits next. */
static void misses_do_not_fill_the_queue(void **state)
{
	struct ctxfd_uring_op *op;
	struct tracked t;
	struct world w;

	make_world(&w);
	for (unsigned i = 0; i < 3 * ring.cq.ring_entries; i++) {
		start(&w.scope, &t, nop());
		submit_and_run();
		assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
		submit_and_run();
		assert_int_equal(ctxfd_uring_wait(&w.scope, &op), CTXFD_URING_LAST);
		assert_ptr_equal(op, &t.op);
		assert_int_equal(op->res, 0);
	}
	assert_int_equal(ctxfd_uring_wait(&w.scope, &op), 0);
	assert_true(io_uring_cq_ready(&ring) < 4);
	assert_int_equal(ctxfd_uring_call(w.ctx, &ring, nop()), 0);
	free_world(&w);
}

/* A program that has a loop sees them as ctxfd's own, whichever pass over the queue it makes. */
static void misses_are_nothing_to_the_program(void **state)
{
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	unsigned head, passed = 0, last = 0;
	struct tracked t[2];
	struct world w;

	make_world(&w);
	for (int i = 0; i < 2; i++)
		start(&w.scope, &t[i], nop());
	submit_and_run();
	for (int i = 0; i < 2; i++)
		assert_int_equal(ctxfd_uring_cancel(&t[i].op), 0);
	nop()->user_data = 7;
	submit_and_run();
	while (io_uring_cq_ready(&ring) < 5) /* the no-ops and the cancels */
		submit_and_run();
	io_uring_for_each_cqe(&ring, head, cqe)
	{
		int what = ctxfd_uring_complete(cqe, &op);

		assert_true(what != CTXFD_URING_OTHER || cqe->user_data == 7);
		last += what == CTXFD_URING_LAST;
		passed++;
	}
	io_uring_cq_advance(&ring, passed);
	assert_int_equal(last, 2);
	free_world(&w);
}

/*
 * A cancel that goes out alone says what it did, and there is nothing to repeat: one request, one completion. From then
 * on the operation is the kernel's to end, and whoever cancels it again, or sleeps until it has ended, is right to.
 */
static void one_that_is_found_is_asked_once(void **state)
{
	for (int then = 0; then < 4; then++) {
		struct ctxfd_uring_op *op;
		struct io_uring_cqe *cqe;
		struct tracked t;
		struct world w;
		int ret = 0;

		make_world(&w);
		start_recv(&w, &t);
		assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
		if (!(ring_kind->flags & IORING_SETUP_SQPOLL))
			assert_int_equal(io_uring_sq_ready(&ring), 1);
		assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
		assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
		assert_int_equal(ctxfd_uring_complete(cqe, &op),
		                 CTXFD_URING_NONE); /* the cancel's, which comes first */
		io_uring_cqe_seen(&ring, cqe);
		assert_int_equal(w.scope.tick_, 0);
		if (then == 1)
			assert_int_equal(ctxfd_uring_cancel(&t.op), 0);
		if (then == 2)
			ctxfd_cancel(w.ctx);
		if (then == 3)
			ret = ctxfd_uring_close(&w.scope, &op);
		else
			ret = ctxfd_uring_wait(&w.scope, &op);
		assert_int_equal(ret, CTXFD_URING_LAST);
		assert_ptr_equal(op, &t.op);
		assert_int_equal(op->res, -ECANCELED);
		assert_int_equal(w.scope.tick_, 0);
		free_world(&w);
	}
}

/* The same at the end of a context: once the kernel has found the operation, a wait sleeps until it has ended. */
static void a_wait_goes_on_until_it_has_ended(void **state)
{
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	struct tracked t;
	struct world w;

	make_world(&w);
	start_recv(&w, &t);
	ctxfd_cancel(w.ctx);
	assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
	assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
	io_uring_cqe_seen(&ring, cqe);
	assert_int_equal(ctxfd_uring_wait(&w.scope, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &t.op);
	free_world(&w);
}

/* While the answer of a cancel is out, which found nothing, the cancel of another operation has none of its own. */
static void one_answer_is_out_at_a_time(void **state)
{
	struct io_uring_cqe *cqes[4];
	struct ctxfd_uring_op *op;
	unsigned n, answers = 0;
	struct tracked t[2];
	struct world w;

	make_world(&w);
	start(&w.scope, &t[0], nop());
	submit_and_run();
	assert_int_equal(ctxfd_uring_cancel(&t[0].op), 0);
	assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
	assert_int_equal(io_uring_peek_cqe(&ring, &cqes[0]), 0);
	assert_int_equal(ctxfd_uring_complete(cqes[0], &op), CTXFD_URING_LAST);
	io_uring_cqe_seen(&ring, cqes[0]);
	start_recv(&w, &t[1]);
	assert_int_equal(ctxfd_uring_cancel(&t[1].op), 0);
	submit_and_run();
	wait_until(io_uring_cq_ready(&ring) > 1);
	n = io_uring_peek_batch_cqe(&ring, cqes, COUNT(cqes));
	for (unsigned i = 0; i < n; i++)
		answers += cqes[i]->user_data >> 63 && (cqes[i]->user_data & 3) == 3;
	assert_int_equal(answers, 1);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	free_world(&w);
}

/* A program may look at its completions in an order of its own: the operation's, and then that of its cancel. */
static void its_end_is_seen_before_the_cancel(void **state)
{
	struct tracked *t = malloc(sizeof *t);
	struct io_uring_cqe *cqes[2];
	struct ctxfd_uring_op *op;
	struct world w;

	make_world(&w);
	start_recv(&w, t);
	assert_int_equal(ctxfd_uring_cancel(&t->op), 0);
	submit_and_run();
	while (io_uring_peek_batch_cqe(&ring, cqes, 2) < 2)
		submit_and_run();
	assert_int_equal(ctxfd_uring_complete(cqes[1], &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &t->op);
	memset(t, 0xa5, sizeof *t);
	free(t);
	assert_int_equal(ctxfd_uring_complete(cqes[0], &op), CTXFD_URING_NONE);
	io_uring_cq_advance(&ring, 2);
	free_world(&w);
}

/* Which of these operations the SQE cancels, or -1. */
static int cancels_which(const struct io_uring_sqe *sqe, const struct tracked *t, int n)
{
	for (int i = 0; i < n; i++)
		if (sqe->opcode == IORING_OP_ASYNC_CANCEL &&
		    sqe->addr == (UINT64_C(1) << 63 | (uintptr_t)&t[i].op >> 1 | 1))
			return i;
	return -1;
}

/*
 * The kernel looks for what waits in a poll from the latest on, and for all else from the oldest on. In another order
 * the cancels of 100,000 receives take seconds.
 */
static void cancels_go_out_in_the_order_of_the_search(void **state)
{
	static struct __kernel_timespec hour = { .tv_sec = 3600 };
	static const char kinds[] = "rtartr"; /* receives; one by a worker thread; timeouts */
	static const int order[] = { 5, 3, 0, 1, 2, 4 };
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	struct tracked t[COUNT(order)];
	struct world w;
	unsigned from, n = 0;

	make_world(&w);
	for (unsigned i = 0; i < COUNT(t); i++) {
		struct io_uring_sqe *sqe = kinds[i] == 't' ? get_sqe() : recv_of(&w);

		if (kinds[i] == 't')
			io_uring_prep_timeout(sqe, &hour, 0, 0);
		else if (kinds[i] == 'a')
			sqe->flags |= IOSQE_ASYNC;
		start(&w.scope, &t[i], sqe);
	}
	submit_and_run();
	ctxfd_cancel(w.ctx);
	assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
	from = ring.sq.sqe_tail;
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
	io_uring_cqe_seen(&ring, cqe);
	for (unsigned i = from; i != ring.sq.sqe_tail; i++) {
		int which = cancels_which(&ring.sq.sqes[i & ring.sq.ring_mask], t, COUNT(t));

		if (which >= 0)
			assert_int_equal(which, order[n++]);
	}
	assert_int_equal(n, COUNT(order));
	for (unsigned i = 0; i < COUNT(t); i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	free_world(&w);
}

/* After the end of their context operations are being cancelled already: an after-func of each adds nothing. */
static void what_is_being_cancelled_is_left_alone(void **state)
{
	for (int n = 1; n < 4; n++) {
		struct io_uring_cqe *cqe;
		struct ctxfd_uring_op *op;
		struct tracked t[3];
		struct world w;
		unsigned tail;

		make_world(&w);
		for (int i = 0; i < n; i++)
			start_recv(&w, &t[i]);
		ctxfd_cancel(w.ctx);
		assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
		assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
		io_uring_cqe_seen(&ring, cqe);
		tail = ring.sq.sqe_tail;
		for (int i = 0; i < n; i++)
			assert_int_equal(ctxfd_uring_cancel(&t[i].op), 0);
		assert_int_equal(ring.sq.sqe_tail, tail);
		for (int i = 0; i < n; i++)
			assert_int_equal(finish(&t[i]), -ECANCELED);
		free_world(&w);
	}
}

/* ---- What cancels cost ------------------------------------------------------------------------------------------- */

enum { TIMERS = 20000, OPS = 2000 };

/* CPU time of this thread: what other processes do is not counted, and in this ring the kernel's work is done in it. */
static int64_t cpu_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * CTXFD_SEC + ts.tv_nsec;
}

/* A ring with many timeouts of the program's own. */
static void make_crowded(void)
{
	static struct __kernel_timespec hour = { .tv_sec = 3600 };

	remake_ring(0, 4096, 0);
	for (int i = 0; i < TIMERS; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		io_uring_prep_timeout(sqe, &hour, 0, 0);
		sqe->user_data = 1;
	}
	submit_and_run();
}

/* What it takes by hand, with a cancel for each. */
static int64_t by_hand(struct world *w)
{
	int64_t began;
	int ended = 0;

	for (unsigned i = 0; i < OPS; i++)
		recv_of(w)->user_data = 16 + i;
	submit_and_run();
	began = cpu_time();
	for (unsigned i = 0; i < OPS; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		io_uring_prep_cancel64(sqe, 16 + i, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		sqe->user_data = 2;
	}
	while (ended < OPS)
		ended += turn();
	return cpu_time() - began;
}

static void only_in_the_default_ring(void)
{
	if (ring_kind != &ring_kinds[0])
		skip_test("asked on the default ring");
}

#define assert_linear(took, hand) assert_true(took < 20 * (hand) + 100 * CTXFD_MSEC * slow())

static void timeouts_of_the_program_do_not_count(void **state)
{
	static struct tracked t[OPS];
	int64_t hand, began;
	struct world w;

	only_in_the_default_ring();
	make_crowded();
	make_world(&w);
	hand = by_hand(&w);
	for (int i = 0; i < OPS; i++)
		start(&w.scope, &t[i], recv_of(&w));
	submit_and_run();
	began = cpu_time();
	ctxfd_cancel(w.ctx);
	for (int i = 0; i < OPS; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	assert_linear(cpu_time() - began, hand);
	free_world(&w);
}

/* A scope for each operation, all of which end: nothing is looked for in the ring's list of timeouts. */
static void nor_for_scopes_of_one_operation(void **state)
{
	static struct ctxfd_uring_scope scopes[OPS];
	static struct tracked t[OPS], ends[OPS];
	int64_t hand, began;
	struct world w;

	only_in_the_default_ring();
	make_crowded();
	make_world(&w);
	hand = by_hand(&w);
	for (int i = 0; i < OPS; i++) {
		open_scope(&scopes[i], w.ctx);
		start(&scopes[i], &t[i], recv_of(&w));
	}
	submit_and_run();
	began = cpu_time();
	ctxfd_cancel(w.ctx);
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(finish(&t[i]), -ECANCELED);
		ends[i].last = 0;
		assert_int_equal(ctxfd_uring_end(&scopes[i], &ends[i].op), 0);
	}
	for (int i = 0; i < OPS; i++)
		assert_int_equal(finish(&ends[i]), 0);
	assert_linear(cpu_time() - began, hand);
	free_world(&w);
}

/* The scope's own timeouts, in the order in which they were started. */
static void timeouts_of_the_scope_are_cancelled_in_their_order(void **state)
{
	static struct __kernel_timespec hour = { .tv_sec = 3600 };
	static struct tracked t[TIMERS];
	int64_t began;
	struct world w;

	only_in_the_default_ring();
	remake_ring(0, 4096, 0);
	make_world(&w);
	for (int i = 0; i < TIMERS; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		io_uring_prep_timeout(sqe, &hour, 0, 0);
		start(&w.scope, &t[i], sqe);
	}
	submit_and_run();
	began = cpu_time();
	ctxfd_cancel(w.ctx);
	for (int i = 0; i < TIMERS; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	assert_true(cpu_time() - began < 500 * CTXFD_MSEC * slow());
	free_world(&w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_ends_and_others_do_not),
		cmocka_unit_test(cancelling_twice_is_fine),
		cmocka_unit_test(what_is_not_in_flight_is_told),
		cmocka_unit_test(a_result_beats_the_cancel),
		cmocka_unit_test(it_is_cancelled_before_it_is_submitted),
		cmocka_unit_test(a_multishot_operation_ends),
		cmocka_unit_test(members_of_a_chain),
		cmocka_unit_test(it_meets_the_end_of_the_context),
		cmocka_unit_test(a_record_is_reused_at_once),
		cmocka_unit_test(a_scope_ends_right_after),
		cmocka_unit_test(a_context_for_each_operation),
		cmocka_unit_test(misses_do_not_fill_the_queue),
		cmocka_unit_test(misses_are_nothing_to_the_program),
		cmocka_unit_test(one_that_is_found_is_asked_once),
		cmocka_unit_test(a_wait_goes_on_until_it_has_ended),
		cmocka_unit_test(one_answer_is_out_at_a_time),
		cmocka_unit_test(its_end_is_seen_before_the_cancel),
		cmocka_unit_test(cancels_go_out_in_the_order_of_the_search),
		cmocka_unit_test(what_is_being_cancelled_is_left_alone),
		cmocka_unit_test(timeouts_of_the_program_do_not_count),
		cmocka_unit_test(nor_for_scopes_of_one_operation),
		cmocka_unit_test(timeouts_of_the_scope_are_cancelled_in_their_order),
	};
	return run_ring_tests(tests);
}
