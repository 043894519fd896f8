/* SPDX-License-Identifier: MIT */
/*
 * Many operations, small queues, and contexts that end at the very moment of a completion: nothing is lost, and every
 * operation ends exactly once.
 */
#include "test_uring.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/un.h>

/*
 * ---- Many in flight -----------------------------------------------------------------------------------------------
 */

enum { MANY = 10000 };

static void many_end(unsigned entries, unsigned cq_entries, bool close_them)
{
	int n = rounds(MANY), quiet = eventfd(0, EFD_CLOEXEC), ended = 0;
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct tracked *t = calloc((size_t)n, sizeof *t);
	struct __kernel_timespec hour = { .tv_sec = 3600 };
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	uint64_t sink;

	assert_non_null(t);
	remake_ring(0, entries, cq_entries);
	open_scope(&scope, ctx);
	for (int i = 0; i < n; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		if (i % 10 == 9)
			io_uring_prep_timeout(sqe, &hour, 0, 0);
		else if (i % 10 == 8)
			io_uring_prep_poll_add(sqe, quiet, POLLIN);
		else
			io_uring_prep_read(sqe, quiet, &sink, sizeof sink, 0);
		start(&scope, &t[i], sqe);
	}
	submit_and_run();
	if (!close_them)
		ctxfd_cancel(ctx);
	for (int what; close_them && (what = ctxfd_uring_close(&scope, &op)) != 0; ended++) {
		assert_int_equal(what, CTXFD_URING_LAST);
		note(what, op);
	}
	while (!close_them && ended < n) {
		turn();
		for (ended = 0; ended < n && t[ended].last; ended++)
			;
	}
	for (int i = 0; i < n; i++) {
		assert_int_equal(t[i].last, 1);
		assert_int_equal(t[i].res, -ECANCELED);
	}
	close_scope(&scope);
	free(t);
	close(quiet);
	ctxfd_unref(ctx);
}

static void many_operations_are_canceled(void **state)
{
	many_end(4096, 16384, false);
}

static void many_operations_and_small_queues(void **state)
{
	many_end(8, 16, false);
}

static void many_operations_are_closed(void **state)
{
	many_end(8, 16, true);
}

static void many_scopes_of_one_context(void **state)
{
	int n = rounds(1000), quiet = eventfd(0, EFD_CLOEXEC);
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope *scopes = calloc((size_t)n, sizeof *scopes);
	struct tracked *t = calloc((size_t)n, sizeof *t);
	uint64_t sink;

	assert_non_null(scopes);
	assert_non_null(t);
	for (int i = 0; i < n; i++) {
		struct io_uring_sqe *sqe;

		open_scope(&scopes[i], ctx);
		sqe = get_sqe();
		io_uring_prep_read(sqe, quiet, &sink, sizeof sink, 0);
		start(&scopes[i], &t[i], sqe);
	}
	submit_and_run();
	ctxfd_cancel(ctx);
	for (int i = 0; i < n; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	for (int i = 0; i < n; i++)
		close_scope(&scopes[i]);
	free(scopes);
	free(t);
	close(quiet);
	ctxfd_unref(ctx);
}

/*
 * ---- From another thread ------------------------------------------------------------------------------------------
 */

struct sleeper {
	struct ctxfd *ctx;
	pid_t tid;
	int64_t canceled;
};

static void *cancel_sleeper(void *arg)
{
	struct sleeper *s = arg;

	harness_wait_asleep(s->tid, SYS_io_uring_enter, __FILE__, __LINE__);
	s->canceled = now();
	ctxfd_cancel(s->ctx);
	return NULL;
}

static void a_thread_asleep_in_enter_is_woken(void **state)
{
	enum { OPS = 100 };
	struct sleeper s;
	struct ctxfd_uring_scope scope;
	struct tracked t[OPS];
	struct thread *canceller;
	uint64_t sink;
	int quiet;

	need_threads();
	s = (struct sleeper){ .ctx = ctxfd_with_cancel(ctxfd_background()), .tid = (pid_t)syscall(SYS_gettid) };
	quiet = eventfd(0, EFD_CLOEXEC);
	open_scope(&scope, s.ctx);
	for (int i = 0; i < OPS; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		io_uring_prep_read(sqe, quiet, &sink, sizeof sink, 0);
		start(&scope, &t[i], sqe);
	}
	canceller = thread_start(cancel_sleeper, &s);
	for (int i = 0; i < OPS; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	thread_join(canceller);
	assert_elapsed(s.canceled, 0, 5 * CTXFD_SEC);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(s.ctx);
}

/*
 * ---- At the moment of completion ----------------------------------------------------------------------------------
 */

/*
 * In each round one operation waits, and a partner thread both makes it complete and cancels its context, in either
 * order and with a random pause before and between; or the context has a deadline that passes about then. What the
 * partner gave must be the operation's result or still be there.
 */
struct race {
	void (*give)(struct race *r, int round);
	int fds[2];
	struct sockaddr_un addr;
	socklen_t size;
	struct ctxfd *ctx;
	bool cancel_first, cancel_at_all;
	unsigned before, between;
	atomic_int go, done; /* the round that may begin, and that the partner has ended; -1: no more */
};

static void spin(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		__asm__ volatile("" ::: "memory");
}

static void await_round(atomic_int *round, int n)
{
	for (unsigned i = 0; atomic_load(round) != n && atomic_load(round) != -1; i++)
		if (i > 1000)
			sched_yield();
}

static void *race_partner(void *arg)
{
	struct race *r = arg;

	for (int round = 1;; round++) {
		await_round(&r->go, round);
		if (atomic_load(&r->go) == -1)
			return NULL;
		spin(r->before);
		if (r->cancel_at_all && r->cancel_first)
			ctxfd_cancel(r->ctx);
		if (r->cancel_first)
			spin(r->between);
		r->give(r, round);
		if (!r->cancel_first)
			spin(r->between);
		if (r->cancel_at_all && !r->cancel_first)
			ctxfd_cancel(r->ctx);
		atomic_store(&r->done, round);
	}
}

/* One round: returns what the operation gave. */
static int race_round(struct race *r, struct tracked *t, int round, void (*prep)(struct io_uring_sqe *, struct race *))
{
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	int err;

	r->cancel_at_all = dice(4);
	r->cancel_first = dice(2);
	r->before = dice(4000);
	r->between = dice(2) ? dice(2000) : 0;
	r->ctx = r->cancel_at_all ? ctxfd_with_cancel(ctxfd_background())
	                          : ctxfd_with_timeout(ctxfd_background(), 3 * CTXFD_USEC + dice(30000));
	open_scope(&scope, r->ctx);
	sqe = get_sqe();
	prep(sqe, r);
	err = try_start(&scope, t, sqe);
	if (!err)
		assert_true(io_uring_submit(&ring) >= 0);
	atomic_store(&r->go, round);
	if (!err)
		err = finish(t);
	await_round(&r->done, round);
	close_scope(&scope);
	if (err < 0)
		assert_int_equal(err, r->cancel_at_all ? -ECANCELED : -ETIMEDOUT);
	ctxfd_close(r->ctx);
	return err;
}

static int race_run(struct race *r, int n, void (*prep)(struct io_uring_sqe *, struct race *),
                    bool (*take)(struct race *, int res, int round))
{
	int completed = 0;
	struct tracked *t = calloc(1, sizeof *t);
	struct thread *partner;

	assert_non_null(t);
	seed = 1;
	partner = thread_start(race_partner, r);
	for (int round = 1; round <= n; round++) {
		int res = race_round(r, t, round, prep);

		completed += res >= 0;
		assert_true(take(r, res, round));
	}
	atomic_store(&r->go, -1);
	thread_join(partner);
	free(t);
	/* It was a race: both ends were seen. */
	if (n > 1000) {
		assert_true(completed > n / 100);
		assert_true(completed < n - n / 100);
	}
	return completed;
}

static unsigned char race_byte;

static void give_byte(struct race *r, int round)
{
	unsigned char byte = (unsigned char)round;

	require(write(r->fds[1], &byte, 1) == 1);
}

static void prep_byte(struct io_uring_sqe *sqe, struct race *r)
{
	prep_recv_from(sqe, r->fds[0], &race_byte, 1);
}

static bool take_byte(struct race *r, int res, int round)
{
	if (res < 0)
		res = (int)recv(r->fds[0], &race_byte, 1, MSG_DONTWAIT);
	return res == 1 && race_byte == (unsigned char)round;
}

static void no_byte_is_lost(void **state)
{
	struct race r = { .give = give_byte };

	need_threads();
	make_socketpair(r.fds);
	race_run(&r, share(64000), prep_byte, take_byte);
	assert_int_equal(recv(r.fds[0], &race_byte, 1, MSG_DONTWAIT), -1);
	close_pair(r.fds);
}

/* Connects, and leaves the connection's end in fds[1]. */
static void give_connection(struct race *r, int round)
{
	r->fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	require(connect(r->fds[1], (struct sockaddr *)&r->addr, r->size) == 0);
}

static void prep_connection(struct io_uring_sqe *sqe, struct race *r)
{
	io_uring_prep_accept(sqe, r->fds[0], NULL, NULL, SOCK_CLOEXEC);
}

/* The accepted end must be the one that belongs to fds[1]. */
static bool take_connection(struct race *r, int res, int round)
{
	unsigned char sent = (unsigned char)round, got = 0;
	bool ok;

	if (res < 0)
		res = accept4(r->fds[0], NULL, NULL, SOCK_CLOEXEC);
	ok = res >= 0 && write(r->fds[1], &sent, 1) == 1 && read(res, &got, 1) == 1 && got == sent;
	close(res);
	close(r->fds[1]);
	return ok;
}

static void no_connection_is_lost(void **state)
{
	struct race r = { .give = give_connection, .addr.sun_family = AF_UNIX };

	need_threads();
	r.fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* An address without a name: the kernel picks one. */
	assert_int_equal(bind(r.fds[0], (struct sockaddr *)&r.addr, sizeof(sa_family_t)), 0);
	r.size = sizeof r.addr;
	assert_int_equal(getsockname(r.fds[0], (struct sockaddr *)&r.addr, &r.size), 0);
	assert_int_equal(listen(r.fds[0], 16), 0);
	race_run(&r, share(44000), prep_connection, take_connection);
	assert_int_equal(accept4(r.fds[0], NULL, NULL, 0), -1);
	close(r.fds[0]);
}

/*
 * ---- Anything, in any order ---------------------------------------------------------------------------------------
 */

enum { SCOPES = 6, OPS = 40, PAIRS = 5 };

/*
 * Several scopes whose operations receive from the same sockets. At random: a receive starts, a byte is sent, a context
 * ends, one operation is cancelled, a scope is closed in the middle or by an operation and opened anew with another
 * context, a call is made, completions are taken, among them the program's own.
 */
struct chaos {
	struct ctxfd *ctx[SCOPES];
	struct ctxfd_uring_scope *scope[SCOPES];
	struct tracked *op[OPS]; /* NULL: not in flight */
	unsigned char buf[OPS][4];
	int fds[PAIRS][2];
	struct tracked end[SCOPES];
	bool closing[SCOPES];
	int quiet[2];
	long sent, received, ended, started, own, own_taken;
};

static struct chaos c;

static void chaos_open(unsigned i)
{
	c.ctx[i] = dice(3) ? ctxfd_with_cancel(ctxfd_background())
	                   : ctxfd_with_timeout(ctxfd_background(), dice(2000) * CTXFD_USEC);
	c.scope[i] = malloc(sizeof *c.scope[i]);
	open_scope(c.scope[i], c.ctx[i]);
}

static void chaos_dropped(unsigned i)
{
	free(c.scope[i]);
	ctxfd_close(c.ctx[i]);
	c.scope[i] = NULL;
	c.closing[i] = false;
}

static void chaos_take(int what, struct ctxfd_uring_op *op)
{
	struct tracked *t = tracked_of(op);

	note(what, op);
	assert_int_equal(what, CTXFD_URING_LAST);
	for (unsigned i = 0; i < SCOPES; i++)
		if (t == &c.end[i]) {
			assert_int_equal(op->res, 0);
			chaos_dropped(i);
			return;
		}
	if (op->res > 0)
		c.received += op->res;
	else if (op->res != -ETIMEDOUT)
		assert_int_equal(op->res, -ECANCELED);
	c.ended++;
	for (int i = 0; i < OPS; i++)
		if (c.op[i] == t)
			c.op[i] = NULL;
	free(t);
}

/*
 * Closes a scope in the middle, taking what it still gives. Within a pass over the queue nothing can be given back, so
 * if it is full, the rest has to wait until after the pass.
 */
static void chaos_close(unsigned i, bool in_pass)
{
	struct ctxfd_uring_scope *scope = c.scope[i];
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	int what;

	c.closing[i] = true;
	while ((what = ctxfd_uring_close(scope, &op)) != 0) {
		if (what == -EBUSY && in_pass)
			return;
		if (what == -EBUSY) {
			assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
			what = ctxfd_uring_complete(cqe, &op);
			io_uring_cqe_seen(&ring, cqe);
		}
		if (what == CTXFD_URING_OTHER)
			c.own_taken++;
		else if (what != CTXFD_URING_NONE)
			chaos_take(what, op);
		if (!c.scope[i])
			return;
	}
	chaos_dropped(i);
}

/* The same as an operation: the scope is gone when that completes. */
static void chaos_end(unsigned i)
{
	if (c.closing[i])
		return;
	c.closing[i] = true;
	memset(&c.end[i], 0, sizeof c.end[i]);
	assert_int_equal(ctxfd_uring_end(c.scope[i], &c.end[i].op), 0);
}

/* Whether an operation was started. Chains are of two: the next one goes on the same scope. */
static bool chaos_start_on(unsigned s, uint8_t flags)
{
	unsigned i = dice(OPS);
	struct io_uring_sqe *sqe;
	struct tracked *t;
	int err;

	if (c.op[i] || !c.scope[s])
		return false;
	t = malloc(sizeof *t);
	sqe = get_sqe();
	prep_recv_from(sqe, c.fds[dice(PAIRS)][0], c.buf[i], 1 + dice(4));
	sqe->flags |= flags;
	if (!dice(10))
		sqe->flags |= IOSQE_ASYNC;
	err = try_start(c.scope[s], t, sqe);
	if (err) {
		assert_int_equal(err, c.closing[s] ? -ECANCELED : ctxfd_err(c.ctx[s]));
		free(t);
		return false;
	}
	c.op[i] = t;
	c.started++;
	return true;
}

static void chaos_start(void)
{
	unsigned s = dice(SCOPES);

	if (dice(5)) {
		chaos_start_on(s, 0);
		return;
	}
	while (io_uring_sq_space_left(&ring) < 4)
		submit_and_run();
	if (chaos_start_on(s, dice(2) ? IOSQE_IO_LINK : IOSQE_IO_HARDLINK))
		chaos_start_on(s, 0);
	submit_and_run(); /* so that nothing else joins the chain */
}

static void chaos_cancel(void)
{
	struct tracked *t = c.op[dice(OPS)];

	if (t)
		assert_int_equal(ctxfd_uring_cancel(&t->op), 0);
}

static void chaos_own(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_nop(sqe);
	sqe->user_data = 1;
	c.own++;
}

/* One that completes at once, or one that never does. The queue may be full, or come to be. */
static void chaos_call(void)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), dice(200) * CTXFD_USEC);
	struct io_uring_sqe *sqe = get_sqe();
	static char sink;
	int res;

	if (dice(2))
		io_uring_prep_nop(sqe);
	else
		prep_recv_from(sqe, c.quiet[0], &sink, 1);
	res = ctxfd_uring_call(ctx, &ring, sqe);
	assert_true(res == 0 || res == -ETIMEDOUT || res == -EBUSY || res == -ENOTRECOVERABLE);
	ctxfd_close(ctx);
}

/* A pass over the completions that are there; sometimes one that leaves a few, or closes scopes on its way. */
static void chaos_pass(void)
{
	unsigned head, most = dice(2) ? UINT_MAX : dice(8), seen = 0;
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;

	submit_and_run();
	io_uring_for_each_cqe(&ring, head, cqe)
	{
		int what;

		if (seen == most)
			break;
		seen++;
		what = ctxfd_uring_complete(cqe, &op);
		if (what == CTXFD_URING_OTHER)
			c.own_taken++;
		else if (what != CTXFD_URING_NONE)
			chaos_take(what, op);
		if (!dice(50))
			chaos_call();
		if (!dice(20)) {
			unsigned i = dice(SCOPES);

			if (c.scope[i] && dice(2))
				chaos_close(i, true);
			else if (c.scope[i])
				chaos_end(i);
		}
	}
	io_uring_cq_advance(&ring, seen);
	for (unsigned i = 0; i < SCOPES; i++) {
		if (c.scope[i] && !dice(100))
			chaos_close(i, false);
		if (!c.scope[i])
			chaos_open(i);
	}
}

static void chaos(void **state)
{
	char sink[64];
	ssize_t got;

	remake_ring(0, 16, 16);
	memset(&c, 0, sizeof c);
	seed = (uint64_t)(ring_kind - ring_kinds) + 1;
	for (int i = 0; i < PAIRS; i++)
		make_socketpair(c.fds[i]);
	make_socketpair(c.quiet);
	for (unsigned i = 0; i < SCOPES; i++)
		chaos_open(i);
	for (int step = share(200000); step > 0; step--) {
		switch (dice(10)) {
		default:
			chaos_start();
			break;
		case 5:
			if (dice(4))
				chaos_cancel();
			else if (dice(8))
				chaos_own();
			else
				chaos_call();
			break;
		case 0:
		case 1:
			if (c.sent - c.received > 100) /* the sockets must not fill up */
				break;
			assert_int_equal(write(c.fds[dice(PAIRS)][1], "abc", 1), 1);
			c.sent++;
			break;
		case 2:
			for (unsigned i = dice(SCOPES); c.scope[i] && !dice(4);)
				ctxfd_cancel(c.ctx[i]);
			break;
		case 3:
		case 4:
			chaos_pass();
			break;
		}
	}
	chaos_pass();
	for (unsigned i = 0; i < SCOPES; i++)
		if (c.scope[i])
			chaos_close(i, false);
	while (c.own_taken < c.own)
		c.own_taken += turn();
	assert_int_equal(c.own_taken, c.own);
	for (int i = 0; i < OPS; i++)
		assert_null(c.op[i]);
	assert_int_equal(c.ended, c.started);
	for (int i = 0; i < PAIRS; i++) {
		while ((got = recv(c.fds[i][0], sink, sizeof sink, MSG_DONTWAIT)) > 0)
			c.received += got;
		close_pair(c.fds[i]);
	}
	assert_int_equal(c.received, c.sent);
	close_pair(c.quiet);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_operations_are_canceled),
		cmocka_unit_test(many_operations_and_small_queues),
		cmocka_unit_test(many_operations_are_closed),
		cmocka_unit_test(many_scopes_of_one_context),
		cmocka_unit_test(a_thread_asleep_in_enter_is_woken),
		cmocka_unit_test(no_byte_is_lost),
		cmocka_unit_test(no_connection_is_lost),
		cmocka_unit_test(chaos),
	};
	return run_ring_tests(tests);
}
