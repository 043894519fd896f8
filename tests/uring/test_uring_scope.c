/* SPDX-License-Identifier: MIT */
/*
 * Scopes: what they arm in the ring and when they take it back, what they must not touch, what they refuse, how they
 * are waited for and closed.
 */
#include "test_uring.h"

#include <sys/eventfd.h>

/* An eventfd that never gets readable: reads of it stay in flight. */
static int make_quiet(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static struct io_uring_sqe *read_of(int fd)
{
	static uint64_t sink;
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_read(sqe, fd, &sink, sizeof sink, 0);
	return sqe;
}

static struct io_uring_sqe *nop(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_nop(sqe);
	return sqe;
}

/* A request of the program's own, with this user_data. */
static void own_nop(uint64_t data)
{
	nop()->user_data = data;
}

/*
 * ---- What a scope costs the ring ----------------------------------------------------------------------------------
 */

static void an_idle_scope_costs_nothing(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	int fds = count_fds();

	open_scope(&scope, ctx);
	assert_int_equal(count_fds(), fds);
	submit_and_run();
	ctxfd_cancel(ctx);
	submit_and_run();
	assert_int_equal(io_uring_cq_ready(&ring), 0);
	close_scope(&scope);
	assert_int_equal(io_uring_sq_ready(&ring), 0);
	assert_int_equal(count_fds(), fds);
	ctxfd_unref(ctx);
}

static void one_poll_serves_all_operations(void **state)
{
	enum { OPS = 10 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t[OPS];
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	for (int i = 0; i < OPS; i++)
		start(&scope, &t[i], read_of(quiet));
	submit_and_run();
	assert_int_equal(armed_polls(), OPS + 1);
	ctxfd_cancel(ctx);
	for (int i = 0; i < OPS; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	submit_and_run();
	assert_int_equal(armed_polls(), 0);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

static void the_poll_goes_with_the_last_operation(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t;

	open_scope(&scope, ctx);
	for (int i = 0; i < 3; i++) {
		start(&scope, &t, nop());
		assert_int_equal(finish(&t), 0);
		submit_and_run();
		wait_until(armed_polls() == 0);
	}
	close_scope(&scope);
	ctxfd_close(ctx);
}

/* One operation after the other: the removal of the poll is taken back each time, so only the first one arms it. */
static void the_poll_stays_for_the_next_operation(void **state)
{
	enum { OPS = 200 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t;
	unsigned cqes = *ring.cq.ktail;
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	for (int i = 0; i < OPS; i++) {
		start(&scope, &t, nop());
		/* The removal's SQE is the operation's. (A thread of the kernel's says late that it has taken one.) */
		wait_until(io_uring_sq_ready(&ring) == (i ? 1 : 2));
		assert_int_equal(finish(&t), 0);
	}
	assert_int_equal(*ring.cq.ktail - cqes, OPS);
	start(&scope, &t, read_of(quiet));
	submit_and_run();
	assert_int_equal(armed_polls(), 2);
	ctxfd_cancel(ctx);
	assert_int_equal(finish(&t), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/* It also stays where the operation cannot have the removal's place: behind a request of the program's own. */
static void the_poll_stays_beside_others(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t;

	for (int before = 0; before < 2; before++) {
		struct io_uring_sqe *own = NULL;

		open_scope(&scope, ctx);
		start(&scope, &t, nop());
		submit_and_run();
		assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
		/* One that would have the operation continue its chain. */
		if (before)
			own = nop();
		assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_LAST);
		io_uring_cqe_seen(&ring, cqe);
		if (!before)
			own = nop();
		own->flags |= before ? IOSQE_IO_LINK : 0;
		own->user_data = 1;
		start(&scope, &t, nop());
		assert_int_equal(io_uring_sq_ready(&ring), 3);
		turn_until(1);
		assert_int_equal(finish(&t), 0);
		close_scope(&scope);
	}
	ctxfd_close(ctx);
}

/* The removal is under way when the next operation starts: it must be watched all the same. */
static void an_operation_starts_while_the_poll_goes(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t;
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	start(&scope, &t, nop());
	assert_int_equal(finish(&t), 0);
	submit_and_run(); /* the removal; its CQE stays in the queue */
	start(&scope, &t, read_of(quiet));
	submit_and_run();
	ctxfd_cancel(ctx);
	assert_int_equal(finish(&t), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/* The program cancels all requests of the ring, the poll too: while operations are in flight, it is armed anew. */
static void the_poll_is_restored(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t;
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	start(&scope, &t, read_of(quiet));
	submit_and_run();
	sqe = get_sqe();
	io_uring_prep_cancel64(sqe, 0x8000000000000000u | (uintptr_t)&scope >> 1 | 2, 0);
	sqe->user_data = 8;
	turn_until(1);
	/* That the poll is cancelled may be told after that. */
	while (armed_polls() < 2) {
		assert_int_equal(take_all(), 0);
		submit_and_run();
	}
	assert_int_equal(t.last, 0);
	ctxfd_cancel(ctx);
	assert_int_equal(finish(&t), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

static void no_fd_for_the_poll(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t;

	open_scope(&scope, ctx);
	exhaust_fds();
	assert_int_equal(try_start(&scope, &t, nop()), -EMFILE);
	assert_int_equal(ctxfd_uring_call(ctx, &ring, nop()), -EMFILE);
	free_fds();
	submit_and_run();
	assert_int_equal(io_uring_cq_ready(&ring), 0);
	start(&scope, &t, nop());
	assert_int_equal(finish(&t), 0);
	close_scope(&scope);
	ctxfd_close(ctx);
}

/*
 * ---- What it must not touch ---------------------------------------------------------------------------------------
 */

/* Three scopes and the program itself wait on one fd; only those of the ended context are cancelled. */
static void strangers_on_the_same_fd_are_left_alone(void **state)
{
	enum { DATA = 0x1234 };
	struct ctxfd *ends = ctxfd_with_cancel(ctxfd_background()), *lives = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope first, second, other;
	struct tracked t[4];
	int fds[2];

	make_socketpair(fds);
	open_scope(&first, ends);
	open_scope(&second, ends);
	open_scope(&other, lives);
	for (int i = 0; i < 4; i++) {
		static char buf[4][1];
		struct io_uring_sqe *sqe = get_sqe();

		prep_recv_from(sqe, fds[0], buf[i], sizeof buf[i]);
		if (i < 3)
			start(i == 0 ? &first : i == 1 ? &second : &other, &t[i], sqe);
		else
			sqe->user_data = DATA;
	}
	submit_and_run();
	ctxfd_cancel(ends);
	assert_int_equal(finish(&t[0]), -ECANCELED);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	while (armed_polls() > 3) /* two receives and a poll */
		submit_and_run();
	assert_int_equal(write(fds[1], "xx", 2), 2);
	for (int own = 0; !t[2].last || !own;)
		own += turn();
	assert_int_equal(t[2].res, 1);
	close_scope(&first);
	close_scope(&second);
	close_scope(&other);
	close_pair(fds);
	ctxfd_unref(ends);
	ctxfd_unref(lives);
}

/* One scope closes while another one of the same context goes on. */
static void closing_leaves_other_scopes_alone(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope closes, stays;
	struct tracked t[2];
	int fds[2];
	char buf[2][8];
	struct io_uring_sqe *sqe;

	make_socketpair(fds);
	open_scope(&closes, ctx);
	open_scope(&stays, ctx);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf[0], sizeof buf[0]);
	start(&closes, &t[0], sqe);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf[1], sizeof buf[1]);
	start(&stays, &t[1], sqe);
	submit_and_run();
	close_scope(&closes);
	memset(&t[0], 0xa5, sizeof t[0]);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(finish(&t[1]), 1);
	close_scope(&stays);
	close_pair(fds);
	ctxfd_close(ctx);
}

static void user_data_of_the_program_is_not_ours(void **state)
{
	static const uint64_t values[] = {
		0, 1, 7, (uint64_t)INT64_MAX, UINT64_MAX, 0x7fffffff, 0x80000000, 1ull << 62
	};
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op = NULL;

	for (size_t i = 0; i < COUNT(values); i++) {
		own_nop(values[i]);
		assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
		assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
		assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_OTHER);
		assert_int_equal(cqe->user_data, values[i]);
		io_uring_cq_advance(&ring, 1);
	}
	assert_null(op);
}

static void a_completion_counts_once(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t;

	open_scope(&scope, ctx);
	start(&scope, &t, nop());
	assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
	assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &t.op);
	memset(&t, 0xa5, sizeof t);
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
	io_uring_cqe_seen(&ring, cqe);
	close_scope(&scope);
	ctxfd_close(ctx);
}

/*
 * ---- Starting -----------------------------------------------------------------------------------------------------
 */

static void assert_refused(struct ctxfd_uring_scope *scope, struct io_uring_sqe *sqe, int err)
{
	struct tracked t;

	assert_int_equal(try_start(scope, &t, sqe), err);
	submit_and_run();
	assert_int_equal(io_uring_cq_ready(&ring), 0);
	assert_int_equal(armed_polls(), 0);
}

static void what_cannot_be_cancelled_is_refused(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe, *later;

	open_scope(&scope, ctx);
	sqe = nop();
	sqe->flags |= IOSQE_IO_DRAIN;
	assert_refused(&scope, sqe, -EINVAL);
	sqe = nop();
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	assert_refused(&scope, sqe, -EINVAL);
	/* Not the latest one. */
	sqe = nop();
	later = nop();
	later->flags |= IOSQE_CQE_SKIP_SUCCESS;
	later->user_data = 8;
	assert_refused(&scope, sqe, -EINVAL);
	close_scope(&scope);
	/* A chain that began outside; also with the very first SQE of a ring. */
	remake_ring(0, 8, 0);
	open_scope(&scope, ctx);
	for (int i = 0; i < 2; i++) {
		sqe = nop();
		sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
		sqe->user_data = 8;
		assert_refused(&scope, nop(), -EINVAL);
	}
	close_scope(&scope);
	ctxfd_close(ctx);
}

/* Started by the program as the cancels go out and their completions come in: refused, and all that were before end. */
static void an_operation_starts_while_the_cancels_go_out(void **state)
{
	enum { OPS = 40 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct tracked t[OPS], late;
	int quiet = make_quiet(), ended = 0;

	open_scope(&scope, ctx);
	for (int i = 0; i < OPS / 2; i++)
		start(&scope, &t[i], read_of(quiet));
	submit_and_run();
	ctxfd_cancel(ctx);
	assert_int_equal(try_start(&scope, &late, read_of(quiet)), -ECANCELED);
	for (int what; (what = ctxfd_uring_wait(&scope, &op)) != 0; ended++) {
		assert_int_equal(what, CTXFD_URING_LAST);
		note(what, op);
		assert_int_equal(op->res, -ECANCELED);
		assert_int_equal(try_start(&scope, &late, read_of(quiet)), -ECANCELED);
	}
	assert_int_equal(ended, OPS / 2);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/* Started before the context ends, and still in the submission queue when the poll's completion is taken. */
static void an_operation_is_not_yet_submitted_at_the_end(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t[2];
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	start(&scope, &t[0], read_of(quiet));
	submit_and_run();
	start(&scope, &t[1], read_of(quiet));
	ctxfd_cancel(ctx);
	assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
	io_uring_cqe_seen(&ring, cqe);
	assert_int_equal(finish(&t[0]), -ECANCELED);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/* A record that has ended is started at once on another scope: no cancel of its former life may reach it. */
static void a_record_is_reused_at_once(void **state)
{
	struct ctxfd *ends = ctxfd_with_cancel(ctxfd_background()), *lives = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope ending, living;
	struct tracked t;
	int fds[2];
	char buf[8];
	struct io_uring_sqe *sqe;

	make_socketpair(fds);
	open_scope(&ending, ends);
	open_scope(&living, lives);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	start(&ending, &t, sqe);
	submit_and_run();
	ctxfd_cancel(ends);
	assert_int_equal(finish(&t), -ECANCELED);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	start(&living, &t, sqe);
	close_scope(&ending);
	pass_time(30 * CTXFD_MSEC); /* as long as a repeated cancel would take */
	submit_and_run();
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(finish(&t), 1);
	close_scope(&living);
	close_pair(fds);
	ctxfd_unref(ends);
	ctxfd_unref(lives);
}

/* A refused SQE of the program's own stops a submission before the cancels behind it, and the program only waits. */
static void a_refused_request_does_not_hold_up_the_cancels(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct tracked t;
	int quiet = make_quiet(), what;

	open_scope(&scope, ctx);
	start(&scope, &t, read_of(quiet));
	submit_and_run();
	ctxfd_cancel(ctx);
	sqe = nop();
	sqe->opcode = 255;
	sqe->user_data = 8;
	do {
		assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
		what = ctxfd_uring_complete(cqe, &op);
		io_uring_cqe_seen(&ring, cqe);
	} while (what != CTXFD_URING_LAST);
	assert_int_equal(op->res, -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/*
 * ---- Chains -------------------------------------------------------------------------------------------------------
 */

/* The poll that the first member brings along must not become a member, nor break the chain. */
static void a_chain_runs_to_its_end(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t[3];
	int fds[2];
	char buf[8];

	make_socketpair(fds);
	open_scope(&scope, ctx);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	for (int i = 0; i < 3; i++) {
		sqe = i ? nop() : sqe;
		sqe->flags |= i < 2 ? IOSQE_IO_LINK : 0;
		start(&scope, &t[i], sqe);
	}
	submit_and_run();
	assert_int_equal(io_uring_cq_ready(&ring), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&t[i]), i == 0);
	close_scope(&scope);
	close_pair(fds);
	ctxfd_close(ctx);
}

static void a_chain_ends_with_its_running_member(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t[3];
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	for (int i = 0; i < 3; i++) {
		sqe = i == 1 ? read_of(quiet) : nop();
		sqe->flags |= i < 2 ? IOSQE_IO_LINK : 0;
		start(&scope, &t[i], sqe);
	}
	assert_int_equal(finish(&t[0]), 0);
	ctxfd_cancel(ctx);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	assert_int_equal(finish(&t[2]), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/* Each member of a hard chain runs when the one before was cancelled, and its first cancel came too early. */
static void every_member_of_a_hard_chain_is_canceled(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t[3];
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	for (int i = 0; i < 3; i++) {
		sqe = read_of(quiet);
		sqe->flags |= i < 2 ? IOSQE_IO_HARDLINK : 0;
		start(&scope, &t[i], sqe);
	}
	submit_and_run();
	ctxfd_cancel(ctx);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/* A member succeeds as the context ends, so that the chain goes on. */
static void a_chain_goes_on_as_the_context_ends(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t[2];
	int quiet = make_quiet(), fds[2];
	char buf[8];

	make_socketpair(fds);
	open_scope(&scope, ctx);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	sqe->flags |= IOSQE_IO_LINK;
	start(&scope, &t[0], sqe);
	start(&scope, &t[1], read_of(quiet));
	submit_and_run();
	assert_int_equal(write(fds[1], "x", 1), 1);
	ctxfd_cancel(ctx);
	finish(&t[0]);
	finish(&t[1]);
	assert_true(t[0].res == 1 || t[0].res == -ECANCELED);
	assert_int_equal(t[1].res, -ECANCELED);
	close_scope(&scope);
	close(quiet);
	close_pair(fds);
	ctxfd_unref(ctx);
}

static void a_chain_may_have_a_timeout(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct __kernel_timespec ts = { .tv_nsec = CTXFD_MSEC };
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t[2];
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	for (int i = 0; i < 2; i++) {
		sqe = read_of(quiet);
		sqe->flags |= IOSQE_IO_LINK;
		start(&scope, &t[0], sqe);
		sqe = get_sqe();
		io_uring_prep_link_timeout(sqe, &ts, 0);
		start(&scope, &t[1], sqe);
		submit_and_run();
		if (i)
			ctxfd_cancel(ctx);
		assert_int_equal(finish(&t[0]), -ECANCELED);
		assert_int_equal(finish(&t[1]), i ? -ECANCELED : -ETIME);
		ts.tv_sec = 3600;
	}
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(ctx);
}

/*
 * ---- Waiting and closing ------------------------------------------------------------------------------------------
 */

static void waiting_leaves_others_in_their_order(void **state)
{
	enum { OTHERS = 5 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t[OTHERS];
	unsigned head, n = 0;

	open_scope(&scope, ctx);
	for (unsigned i = 0; i < OTHERS; i++) {
		own_nop(i);
		start(&scope, &t[i], nop());
	}
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_int_equal(ctxfd_uring_wait(&scope, &op), CTXFD_URING_LAST);
		assert_ptr_equal(op, &t[i].op);
		note(CTXFD_URING_LAST, op);
	}
	assert_int_equal(ctxfd_uring_wait(&scope, &op), 0);
	io_uring_for_each_cqe(&ring, head, cqe)
	{
		if (ctxfd_uring_complete(cqe, &op) != CTXFD_URING_OTHER)
			continue;
		assert_int_equal(cqe->user_data, n++);
	}
	assert_int_equal(n, OTHERS);
	io_uring_cq_advance(&ring, io_uring_cq_ready(&ring));
	close_scope(&scope);
	ctxfd_close(ctx);
}

/* Scopes are closed in the middle of a pass over the queue, whose CQEs are given back only at its end. */
static void scopes_close_within_a_pass(void **state)
{
	enum { SCOPES = 8 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scopes[SCOPES];
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t[2 * SCOPES];
	unsigned head, passed = 0, others = 0;

	for (unsigned i = 0; i < SCOPES; i++) {
		open_scope(&scopes[i], ctx);
		start(&scopes[i], &t[2 * i], nop());
		own_nop(i);
	}
	for (unsigned i = 0; i < SCOPES; i++)
		start(&scopes[i], &t[2 * i + 1], nop());
	own_nop(SCOPES);
	assert_true(io_uring_submit_and_wait(&ring, 3 * SCOPES + 1) >= 0);
	while (io_uring_cq_ready(&ring) < 3 * SCOPES + 1)
		submit_and_run();
	io_uring_for_each_cqe(&ring, head, cqe)
	{
		switch (ctxfd_uring_complete(cqe, &op)) {
		case CTXFD_URING_LAST:
			note(CTXFD_URING_LAST, op);
			/* The second operation's completion is still ahead of this pass. */
			if ((tracked_of(op) - t) % 2 == 0)
				while (ctxfd_uring_close(op->scope_, &op) > 0)
					note(CTXFD_URING_LAST, op);
			break;
		case CTXFD_URING_OTHER:
			assert_int_equal(cqe->user_data, others++);
			break;
		}
		passed++;
	}
	io_uring_cq_advance(&ring, passed);
	for (unsigned i = 0; i < 2 * SCOPES; i++)
		assert_int_equal(t[i].last, 1);
	assert_int_equal(others, SCOPES + 1);
	memset(scopes, 0xa5, sizeof scopes);
	own_nop(77);
	turn_until(1);
	ctxfd_close(ctx);
}

/* Each takes its own result with wait, the one that completed last first: what is taken fills no queue. */
static void results_are_taken_in_any_order(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scopes[2];
	struct ctxfd_uring_op *op;
	struct tracked t[2];

	remake_ring(0, 8, 8);
	open_scope(&scopes[0], ctx);
	open_scope(&scopes[1], ctx);
	for (int i = 0; i < 100; i++) {
		start(&scopes[0], &t[0], nop());
		start(&scopes[1], &t[1], nop());
		for (int n = 1; n >= 0; n--) {
			assert_int_equal(ctxfd_uring_wait(&scopes[n], &op), CTXFD_URING_LAST);
			assert_ptr_equal(op, &t[n].op);
		}
	}
	close_scope(&scopes[0]);
	close_scope(&scopes[1]);
	assert_int_equal(ctxfd_uring_call(ctx, &ring, nop()), 0);
	ctxfd_close(ctx);
}

/* The same by a program that holds a CQE of its own at the head of the queue meanwhile, in a pass over it. */
static void results_are_taken_behind_a_held_one(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scopes[2];
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t[2];
	unsigned head, passed = 0, own = 0;

	open_scope(&scopes[0], ctx);
	open_scope(&scopes[1], ctx);
	own_nop(0);
	start(&scopes[0], &t[0], nop());
	own_nop(1);
	start(&scopes[1], &t[1], nop());
	own_nop(2);
	while (io_uring_cq_ready(&ring) < 5)
		submit_and_run();
	io_uring_for_each_cqe(&ring, head, cqe)
	{
		if (ctxfd_uring_complete(cqe, &op) == CTXFD_URING_OTHER)
			assert_int_equal(cqe->user_data, own++);
		if (passed++ == 0)
			for (int n = 1; n >= 0; n--) {
				assert_int_equal(ctxfd_uring_wait(&scopes[n], &op), CTXFD_URING_LAST);
				assert_ptr_equal(op, &t[n].op);
				close_scope(&scopes[n]);
			}
	}
	io_uring_cq_advance(&ring, passed);
	assert_int_equal(own, 3);
	own_nop(3);
	turn_until(1);
	ctxfd_close(ctx);
}

struct sleeper {
	struct ctxfd *ctx;
	pid_t tid;
};

static void *cancel_when_asleep(void *arg)
{
	struct sleeper *who = arg;

	tid_wait_asleep(who->tid);
	ctxfd_cancel(who->ctx);
	return NULL;
}

/* The end of a context is one completion, whatever is in flight: a wait for more than that needs a timeout. */
static void a_wait_for_one_is_woken(void **state)
{
	struct __kernel_timespec ts = { .tv_nsec = 20 * CTXFD_MSEC };
	struct io_uring_cqe *cqe;
	int quiet = make_quiet();

	need_threads();
	for (unsigned wanted = 1; wanted < 3; wanted++) {
		struct sleeper who = { ctxfd_with_cancel(ctxfd_background()), (pid_t)syscall(SYS_gettid) };
		struct ctxfd_uring_scope scope;
		struct thread *canceller;
		struct tracked t[2];

		open_scope(&scope, who.ctx);
		for (int i = 0; i < 2; i++)
			start(&scope, &t[i], read_of(quiet));
		submit_and_run();
		canceller = thread_start(cancel_when_asleep, &who);
		if (wanted == 1)
			assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
		while (!t[0].last || !t[1].last) {
			if (wanted > 1)
				(void)io_uring_submit_and_wait_timeout(&ring, &cqe, wanted, &ts, NULL);
			take_all();
			submit_and_run();
		}
		assert_int_equal(t[0].res, -ECANCELED);
		assert_int_equal(t[1].res, -ECANCELED);
		thread_join(canceller);
		close_scope(&scope);
		ctxfd_unref(who.ctx);
	}
	close(quiet);
}

/* The queue is full of others' completions: wait and close say so, and go on when there is room. */
static void a_full_queue_is_told(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct tracked t;
	unsigned head, n = 0, room;
	int quiet = make_quiet(), what;

	remake_ring(0, 8, 8);
	room = ring.cq.ring_entries;
	open_scope(&scope, ctx);
	start(&scope, &t, read_of(quiet));
	for (unsigned i = 0; i < room + 3; i++)
		own_nop(i);
	submit_and_run();
	assert_int_equal(ctxfd_uring_wait(&scope, &op), -EBUSY);
	assert_int_equal(ctxfd_uring_close(&scope, &op), -EBUSY);
	while ((what = ctxfd_uring_close(&scope, &op)) != 0) {
		if (what == -EBUSY) {
			io_uring_for_each_cqe(&ring, head, cqe)
			{
				if (ctxfd_uring_complete(cqe, &op) == CTXFD_URING_OTHER)
					assert_int_equal(cqe->user_data, n++);
				else if (cqe->res == -ECANCELED)
					note(CTXFD_URING_LAST, &t.op);
			}
			io_uring_cq_advance(&ring, io_uring_cq_ready(&ring));
			continue;
		}
		assert_int_equal(what, CTXFD_URING_LAST);
		note(what, op);
	}
	assert_int_equal(t.last, 1);
	assert_int_equal(t.res, -ECANCELED);
	while (n < room + 3)
		n += (unsigned)turn();
	close(quiet);
	ctxfd_close(ctx);
}

static void closing_gives_every_result(void **state)
{
	enum { OPS = 20 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct tracked t[OPS], late;
	int quiet = make_quiet(), what;

	open_scope(&scope, ctx);
	for (int i = 0; i < OPS; i++)
		start(&scope, &t[i], i % 2 ? nop() : read_of(quiet));
	while ((what = ctxfd_uring_close(&scope, &op)) != 0) {
		assert_int_equal(what, CTXFD_URING_LAST);
		note(what, op);
		assert_int_equal(try_start(&scope, &late, nop()), -ECANCELED);
	}
	assert_int_equal(ctxfd_uring_close(&scope, &op), 0);
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(t[i].last, 1);
		assert_int_equal(t[i].res, i % 2 ? 0 : -ECANCELED);
	}
	submit_and_run();
	assert_int_equal(armed_polls(), 0);
	assert_int_equal(ctxfd_err(ctx), 0);
	close(quiet);
	ctxfd_close(ctx);
}

/*
 * Storage is the caller's after close: whatever it held before, nothing of it comes back, poll and repetitions
 * included.
 */
static void nothing_comes_back_after_close(void **state)
{
	struct __kernel_timespec ts = { .tv_nsec = 50 * CTXFD_MSEC };
	struct io_uring_cqe *cqe;
	int quiet = make_quiet();

	for (int i = 0; i < 6; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_uring_scope *scope = malloc(sizeof *scope);
		struct tracked *t = malloc(sizeof *t);

		open_scope(scope, ctx);
		start(scope, t, i % 2 ? read_of(quiet) : nop());
		if (i > 1)
			submit_and_run();
		if (i > 3)
			ctxfd_cancel(ctx);
		close_scope(scope);
		free(scope);
		free(t);
		ctxfd_close(ctx);
	}
	assert_int_equal(io_uring_wait_cqe_timeout(&ring, &cqe, &ts), -ETIME);
	close(quiet);
}

/* What a scope may have in the ring when it is to end. */
enum state { UNUSED, USED, GONE, BUSY, DONE, STATES };

static void bring_to(enum state state, struct ctxfd_uring_scope *scope, struct tracked *t, int quiet, struct ctxfd *ctx)
{
	if (state == UNUSED)
		return;
	start(scope, t, state < BUSY ? nop() : read_of(quiet));
	if (state < BUSY)
		finish(t);
	if (state != USED)
		submit_and_run();
	if (state == GONE)
		while (armed_polls())
			submit_and_run();
	if (state == DONE)
		ctxfd_cancel(ctx);
}

/* Its memory is freed as soon as the operation has completed that was to end it; all others have completed before. */
static void a_scope_ends_by_an_operation(void **state)
{
	int quiet = make_quiet();

	for (enum state s = UNUSED; s < STATES; s++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_uring_scope *scope = malloc(sizeof *scope);
		struct tracked *t = malloc(sizeof *t), end = { 0 }, late;

		t->last = -1;
		open_scope(scope, ctx);
		bring_to(s, scope, t, quiet, ctx);
		assert_int_equal(ctxfd_uring_end(scope, &end.op), 0);
		assert_int_equal(try_start(scope, &late, nop()), ctxfd_err(ctx) ? ctxfd_err(ctx) : -ECANCELED);
		assert_int_equal(finish(&end), 0);
		assert_int_equal(end.more, 0);
		assert_int_equal(t->last, s == UNUSED ? -1 : 1);
		if (s >= BUSY)
			assert_int_equal(t->res, -ECANCELED);
		free(scope);
		free(t);
		submit_and_run();
		assert_int_equal(armed_polls(), 0);
		ctxfd_close(ctx);
	}
	own_nop(1);
	turn_until(1);
	close(quiet);
}

/* Who begins to end a scope may still wait for it. */
static void an_ending_scope_is_waited_for(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct tracked t, end = { 0 };
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	start(&scope, &t, read_of(quiet));
	assert_int_equal(ctxfd_uring_end(&scope, &end.op), 0);
	assert_int_equal(ctxfd_uring_wait(&scope, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &t.op);
	assert_int_equal(ctxfd_uring_close(&scope, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &end.op);
	assert_int_equal(ctxfd_uring_close(&scope, &op), 0);
	open_scope(&scope, ctx);
	start(&scope, &t, read_of(quiet));
	assert_int_equal(ctxfd_uring_end(&scope, &end.op), 0);
	close_scope(&scope);
	close(quiet);
	ctxfd_close(ctx);
}

/* One scope is closed while the end of another waits in the queue: that is for the program to hear. */
static void the_end_of_a_scope_is_not_taken_by_another(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct tracked end = { 0 };
	struct ctxfd_uring_scope ends, closes;
	struct tracked t;
	struct ctxfd_uring_op *op;

	open_scope(&ends, ctx);
	open_scope(&closes, ctx);
	start(&closes, &t, nop());
	assert_int_equal(ctxfd_uring_end(&ends, &end.op), 0);
	submit_and_run();
	assert_int_equal(ctxfd_uring_close(&closes, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &t.op);
	assert_int_equal(ctxfd_uring_close(&closes, &op), 0);
	assert_int_equal(finish(&end), 0);
	ctxfd_close(ctx);
}

/* A scope keeps its context, and with it the done fd that is polled. */
static void a_scope_keeps_its_context(void **state)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background()), *ctx = ctxfd_with_cancel(parent);
	struct ctxfd_uring_scope scope;
	struct tracked t;
	int quiet = make_quiet();

	open_scope(&scope, ctx);
	ctxfd_unref(ctx);
	start(&scope, &t, read_of(quiet));
	submit_and_run();
	ctxfd_cancel(parent);
	assert_int_equal(finish(&t), -ECANCELED);
	close_scope(&scope);
	close(quiet);
	ctxfd_unref(parent);
}

/*
 * ---- One call -----------------------------------------------------------------------------------------------------
 */

static void a_call_is_canceled_from_another_thread(void **state)
{
	struct sleeper who;
	struct thread *canceller;
	int quiet;

	need_threads();
	who.ctx = ctxfd_with_cancel(ctxfd_background());
	who.tid = (pid_t)syscall(SYS_gettid);
	quiet = make_quiet();
	canceller = thread_start(cancel_when_asleep, &who);
	assert_int_equal(ctxfd_uring_call(who.ctx, &ring, read_of(quiet)), -ECANCELED);
	thread_join(canceller);
	assert_int_equal(ctxfd_uring_call(who.ctx, &ring, read_of(quiet)), -ECANCELED);
	submit_and_run();
	assert_int_equal(io_uring_cq_ready(&ring), 0);
	close(quiet);
	ctxfd_unref(who.ctx);
}

static void a_call_gives_the_result(void **state)
{
	int64_t began = now();
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	int fds[2], quiet = make_quiet();
	struct io_uring_sqe *sqe;
	char buf[8];

	make_connection(fds);
	own_nop(1);
	assert_int_equal(ctxfd_uring_call(ctx, &ring, read_of(quiet)), -ETIMEDOUT);
	assert_elapsed(began, 20 * CTXFD_MSEC, 5 * CTXFD_SEC);
	own_nop(2);
	assert_int_equal(write(fds[1], "abc", 3), 3);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, sqe), 3);
	assert_memory_equal(buf, "abc", 3);
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, read_of(-1)), -EBADF);
	sqe = nop();
	sqe->flags |= IOSQE_IO_DRAIN;
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, sqe), -EINVAL);
	if (ring_supports(IORING_OP_SEND_ZC) && !(ring_kind->flags & IORING_SETUP_SQPOLL)) {
		sqe = get_sqe();
		io_uring_prep_send_zc(sqe, fds[0], "abcd", 4, 0, 0);
		assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, sqe), 4);
	}
	turn_until(2);
	close(quiet);
	close_pair(fds);
	ctxfd_unref(ctx);
}

/* Its own completions must find room beside those of others that stay; else it does not begin. */
static void a_call_needs_room_beside_others(void **state)
{
	int quiet = make_quiet();

	for (unsigned others = 1; others <= 8; others++) {
		struct ctxfd *late = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);

		remake_ring(0, 8, 8);
		for (unsigned i = 0; i < others; i++)
			own_nop(i);
		while (io_uring_cq_ready(&ring) < others)
			submit_and_run();
		assert_int_equal(ctxfd_uring_call(late, &ring, read_of(quiet)), others <= 4 ? -ETIMEDOUT : -EBUSY);
		turn_until((int)others);
		assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, nop()), 0);
		ctxfd_unref(late);
	}
	close(quiet);
}

/* More have completed than the queue has room for: the kernel holds them back, and fills what is reaped. */
static void a_call_counts_what_is_held_back(void **state)
{
	struct io_uring_cqe *cqe;

	remake_ring(0, 8, 8);
	for (unsigned i = 0; i < 12; i++)
		own_nop(i);
	while (!io_uring_cq_has_overflow(&ring))
		submit_and_run();
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, nop()), -EBUSY);
		assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
		assert_int_equal(cqe->user_data, i);
		io_uring_cqe_seen(&ring, cqe);
	}
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, nop()), 0);
	turn_until(4);
}

struct filler {
	pid_t tid;
	int fd;
};

static void *fill_when_asleep(void *arg)
{
	struct filler *f = arg;

	tid_wait_asleep(f->tid);
	require(write(f->fd, "0123456789", 10) == 10);
	return NULL;
}

/* Others fill the queue while the call sleeps, and nobody can make room: it ends what it can, and says so. */
static void a_call_whose_queue_is_filled(void **state)
{
	struct filler f = { .tid = (pid_t)syscall(SYS_gettid) };
	int quiet = make_quiet(), fds[2];
	struct thread *filler;
	static char buf[10];

	need_threads();
	make_socketpair(fds);
	f.fd = fds[1];
	remake_ring(0, 8, 8);
	for (unsigned i = 0; i < 10; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		prep_recv_from(sqe, fds[0], &buf[i], 1);
		sqe->user_data = i;
	}
	submit_and_run();
	filler = thread_start(fill_when_asleep, &f);
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, read_of(quiet)), -ENOTRECOVERABLE);
	thread_join(filler);
	/* What is left of it is nothing to anybody, and it has been cancelled. */
	turn_until(10);
	while (armed_polls())
		submit_and_run();
	take_all();
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, nop()), 0);
	close(quiet);
	close_pair(fds);
}

static void a_call_needs_room_for_its_completion(void **state)
{
	remake_ring(0, 4, 4);
	for (unsigned i = 0; i < ring.cq.ring_entries; i++)
		own_nop(i);
	submit_and_run();
	while (io_uring_cq_ready(&ring) < ring.cq.ring_entries)
		submit_and_run();
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, nop()), -EBUSY);
	turn_until(4);
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, nop()), 0);
}

/*
 * ---- Rings --------------------------------------------------------------------------------------------------------
 */

/* The smallest ring there is, and one with entries of twice the size. */
static void rings_of_other_sizes(void **state)
{
	static const struct {
		unsigned flags, entries;
	} sizes[] = { { 0, 1 }, { IORING_SETUP_SQE128 | IORING_SETUP_CQE32, 4 } };
	int quiet = make_quiet();

	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_uring_scope scope;
		struct tracked t[5];

		remake_ring(sizes[i].flags, sizes[i].entries, 0);
		open_scope(&scope, ctx);
		for (int n = 0; n < 5; n++) {
			start(&scope, &t[n], nop());
			assert_int_equal(finish(&t[n]), 0);
		}
		for (int n = 0; n < 5; n++)
			start(&scope, &t[n], read_of(quiet));
		submit_and_run();
		ctxfd_cancel(ctx);
		for (int n = 0; n < 5; n++)
			assert_int_equal(finish(&t[n]), -ECANCELED);
		close_scope(&scope);
		ctxfd_unref(ctx);
	}
	close(quiet);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_scope_costs_nothing),
		cmocka_unit_test(one_poll_serves_all_operations),
		cmocka_unit_test(the_poll_goes_with_the_last_operation),
		cmocka_unit_test(the_poll_stays_for_the_next_operation),
		cmocka_unit_test(the_poll_stays_beside_others),
		cmocka_unit_test(an_operation_starts_while_the_poll_goes),
		cmocka_unit_test(the_poll_is_restored),
		cmocka_unit_test(no_fd_for_the_poll),
		cmocka_unit_test(strangers_on_the_same_fd_are_left_alone),
		cmocka_unit_test(closing_leaves_other_scopes_alone),
		cmocka_unit_test(user_data_of_the_program_is_not_ours),
		cmocka_unit_test(a_completion_counts_once),
		cmocka_unit_test(what_cannot_be_cancelled_is_refused),
		cmocka_unit_test(an_operation_starts_while_the_cancels_go_out),
		cmocka_unit_test(an_operation_is_not_yet_submitted_at_the_end),
		cmocka_unit_test(a_record_is_reused_at_once),
		cmocka_unit_test(a_refused_request_does_not_hold_up_the_cancels),
		cmocka_unit_test(a_chain_runs_to_its_end),
		cmocka_unit_test(a_chain_ends_with_its_running_member),
		cmocka_unit_test(every_member_of_a_hard_chain_is_canceled),
		cmocka_unit_test(a_chain_goes_on_as_the_context_ends),
		cmocka_unit_test(a_chain_may_have_a_timeout),
		cmocka_unit_test(waiting_leaves_others_in_their_order),
		cmocka_unit_test(scopes_close_within_a_pass),
		cmocka_unit_test(results_are_taken_in_any_order),
		cmocka_unit_test(results_are_taken_behind_a_held_one),
		cmocka_unit_test(a_wait_for_one_is_woken),
		cmocka_unit_test(a_full_queue_is_told),
		cmocka_unit_test(closing_gives_every_result),
		cmocka_unit_test(nothing_comes_back_after_close),
		cmocka_unit_test(a_scope_ends_by_an_operation),
		cmocka_unit_test(an_ending_scope_is_waited_for),
		cmocka_unit_test(the_end_of_a_scope_is_not_taken_by_another),
		cmocka_unit_test(a_scope_keeps_its_context),
		cmocka_unit_test(a_call_is_canceled_from_another_thread),
		cmocka_unit_test(a_call_gives_the_result),
		cmocka_unit_test(a_call_needs_room_for_its_completion),
		cmocka_unit_test(a_call_needs_room_beside_others),
		cmocka_unit_test(a_call_counts_what_is_held_back),
		cmocka_unit_test(a_call_whose_queue_is_filled),
		cmocka_unit_test(rings_of_other_sizes),
	};
	return run_ring_tests(tests);
}
