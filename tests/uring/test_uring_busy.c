/* SPDX-License-Identifier: MIT */
/*
 * A kernel that takes no submission now, for want of memory or because a signal came: what could not be queued is
 * queued later, and nothing is lost. liburing's calls are wrapped by the linker (uring.mk).
 */
#include "test_uring.h"

#include <sys/eventfd.h>

int __real_io_uring_submit(struct io_uring *r);
int __wrap_io_uring_submit(struct io_uring *r);
int __real_io_uring_submit_and_wait(struct io_uring *r, unsigned n);
int __wrap_io_uring_submit_and_wait(struct io_uring *r, unsigned n);
int __real_io_uring_get_events(struct io_uring *r);
int __wrap_io_uring_get_events(struct io_uring *r);

/* So many submissions will be refused, with this error; and whether those that wait are among them. */
static atomic_int refusals;
static int refusal;
static bool waits_too;
static int allowed;        /* submissions before that */
static bool takes_at_once; /* a thread of the kernel's is fast */

static void refuse(int times, int error, bool waits)
{
	refusal = error;
	waits_too = waits;
	refusals = times;
}

/* As the kernel does it: liburing shows it all that is queued, and it takes none. */
static int refused(struct io_uring *r)
{
	int fd = r->enter_ring_fd;

	refusals--;
	r->enter_ring_fd = -1;
	(void)__real_io_uring_submit(r);
	r->enter_ring_fd = fd;
	return refusal;
}

static bool needs_wakeup(const struct io_uring *r)
{
	return IO_URING_READ_ONCE(*r->sq.kflags) & IORING_SQ_NEED_WAKEUP;
}

int __wrap_io_uring_submit(struct io_uring *r)
{
	bool refuses = refusals > 0 && allowed-- <= 0;
	int ret = refuses ? refused(r) : __real_io_uring_submit(r);

	/* If the kernel's thread sleeps, a submission that is refused does not wake it. */
	wait_until(!takes_at_once || io_uring_sq_ready(r) == 0 || (refuses && needs_wakeup(r)));
	return ret;
}

int __wrap_io_uring_submit_and_wait(struct io_uring *r, unsigned n)
{
	return refusals > 0 && waits_too && allowed-- <= 0 ? refused(r) : __real_io_uring_submit_and_wait(r, n);
}

/* What io_uring_get_events will say, once. */
static int no_events;

int __wrap_io_uring_get_events(struct io_uring *r)
{
	int err = no_events;

	no_events = 0;
	return err ? err : __real_io_uring_get_events(r);
}

/* ---- What all tests have ----------------------------------------------------------------------------------------- */

/* A ring of four entries, an open scope on it, and a socket to receive from. */
struct small {
	struct ctxfd *ctx;
	struct ctxfd_uring_scope scope;
	struct tracked t[4];
	int fds[2];
	char buf[8];
};

static void make_small(struct small *s)
{
	memset(s, 0, sizeof *s);
	ring_kind = &ring_kinds[0];
	assert_int_equal(make_ring_of(ring_kind->flags, 4, 0), 0);
	s->ctx = ctxfd_with_cancel(ctxfd_background());
	make_socketpair(s->fds);
	open_scope(&s->scope, s->ctx);
}

static void free_small(struct small *s)
{
	assert_int_equal(refusals, 0); /* else the library never came by */
	close_scope(&s->scope);
	io_uring_queue_exit(&ring);
	close_pair(s->fds);
	ctxfd_close(s->ctx);
}

/* With requests of the program's own, but for the last entries. */
static void fill_queue(unsigned but)
{
	while (io_uring_sq_space_left(&ring) > but) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		io_uring_prep_nop(sqe);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		sqe->user_data = 1;
	}
}

static struct io_uring_sqe *prep_recv(struct small *s)
{
	struct io_uring_sqe *sqe = get_sqe();

	prep_recv_from(sqe, s->fds[0], s->buf, 1);
	return sqe;
}

static void start_recv(struct small *s, int i)
{
	start(&s->scope, &s->t[i], prep_recv(s));
	submit_and_run();
}

static void send_a_byte(struct small *s)
{
	assert_int_equal(write(s->fds[1], "x", 1), 1);
}

/* Tells the library of the next completion when the queue is full but for so many entries, and stays so a few times. */
static int complete_with_a_full_queue(unsigned but, int times)
{
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	int what;

	assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
	fill_queue(but);
	refuse(times, -EAGAIN, false);
	what = ctxfd_uring_complete(cqe, &op);
	assert_int_equal(refusals, 0);
	if (what == CTXFD_URING_LAST)
		note(what, op);
	io_uring_cqe_seen(&ring, cqe);
	return what;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

/* There is no room for both the poll and the operation. */
static void start_says_so(void **state)
{
	struct small s;

	make_small(&s);
	fill_queue(1);
	refuse(1, -EAGAIN, false);
	assert_int_equal(try_start(&s.scope, &s.t[0], prep_recv(&s)), -EBUSY);
	start_recv(&s, 0);
	send_a_byte(&s);
	assert_int_equal(finish(&s.t[0]), 1);
	free_small(&s);
}

static void a_signal_is_no_refusal(void **state)
{
	struct small s;

	make_small(&s);
	fill_queue(1);
	refuse(1, -EINTR, false);
	start_recv(&s, 0);
	assert_int_equal(refusals, 0);
	ctxfd_cancel(s.ctx);
	refuse(2, -EINTR, true);
	assert_int_equal(ctxfd_uring_wait(&s.scope, NULL), 0);
	free_small(&s);
}

static void wait_says_so(void **state)
{
	struct small s;

	make_small(&s);
	start_recv(&s, 0);
	refuse(2, -EAGAIN, true);
	assert_int_equal(ctxfd_uring_wait(&s.scope, NULL), -EAGAIN);
	send_a_byte(&s);
	assert_int_equal(ctxfd_uring_wait(&s.scope, NULL), 0);
	free_small(&s);
}

/* The last operation has ended, and the poll cannot be taken back now: the next one goes under it. */
static void a_poll_stays_until_it_can_be_removed(void **state)
{
	struct small s;

	make_small(&s);
	start_recv(&s, 0);
	send_a_byte(&s);
	assert_int_equal(complete_with_a_full_queue(0, 1), CTXFD_URING_LAST);
	submit_and_run();
	assert_int_equal(armed_polls(), 1);
	start_recv(&s, 1);
	assert_int_equal(armed_polls(), 2);
	ctxfd_cancel(s.ctx);
	assert_int_equal(finish(&s.t[1]), -ECANCELED);
	free_small(&s);
}

/*
 * The context has ended, and there is room for the timeout, but not for the cancels: they go out with its completion.
 */
static void cancels_go_out_later(void **state)
{
	struct small s;

	make_small(&s);
	for (int i = 0; i < 3; i++)
		start_recv(&s, i);
	ctxfd_cancel(s.ctx);
	assert_int_equal(complete_with_a_full_queue(1, 1), CTXFD_URING_NONE);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&s.t[i]), -ECANCELED);
	free_small(&s);
}

/* There is no room for the timeout either. The next completion of the scope is the time to try again. */
static void all_goes_out_later(void **state)
{
	struct small s;

	make_small(&s);
	for (int i = 0; i < 3; i++)
		start_recv(&s, i);
	ctxfd_cancel(s.ctx);
	assert_int_equal(complete_with_a_full_queue(0, 2), CTXFD_URING_NONE);
	submit_and_run();
	assert_int_equal(armed_polls(), 3);
	send_a_byte(&s);
	for (int i = 0; i < 3; i++)
		(void)finish(&s.t[i]);
	assert_int_equal(s.t[0].res + s.t[1].res + s.t[2].res, 1 - 2 * ECANCELED);
	free_small(&s);
}

/* A result of an operation that goes on is a completion of the scope too. It may be the only kind that comes. */
static void a_result_is_time_to_try_again(void **state)
{
	int counter = eventfd(0, EFD_CLOEXEC);
	uint64_t count = 1;
	struct io_uring_sqe *sqe;
	struct small s;

	for (int by_op = 0; by_op < 2; by_op++) {
		make_small(&s);
		sqe = get_sqe();
		io_uring_prep_poll_multishot(sqe, counter, POLLIN);
		start(&s.scope, &s.t[0], sqe);
		submit_and_run();
		if (by_op) {
			fill_queue(0);
			refuse(2, -EAGAIN, false);
			assert_int_equal(ctxfd_uring_cancel(&s.t[0].op), -EBUSY);
		} else {
			ctxfd_cancel(s.ctx);
			assert_int_equal(complete_with_a_full_queue(0, 2), CTXFD_URING_NONE);
		}
		submit_and_run();
		assert_int_equal(write(counter, &count, sizeof count), sizeof count);
		assert_int_equal(finish(&s.t[0]), -ECANCELED);
		free_small(&s);
		assert_int_equal(read(counter, &count, sizeof count), sizeof count);
	}
	close(counter);
}

/* Nothing of the scope is in the ring, and the kernel takes nothing that would tell of its end. */
static void end_says_so(void **state)
{
	struct small s;
	struct ctxfd_uring_op end;

	make_small(&s);
	fill_queue(0);
	refuse(1, -EAGAIN, false);
	assert_int_equal(ctxfd_uring_end(&s.scope, &end), -EBUSY);
	free_small(&s);
}

/*
 * Operations are in flight, and the kernel takes none of what would end them: nothing is promised, and it can be tried
 * again.
 */
static void end_can_be_tried_again(void **state)
{
	struct tracked end = { 0 };
	struct io_uring_sqe *sqe;
	struct small s;

	for (unsigned room = 0; room < 2; room++) {
		make_small(&s);
		start_recv(&s, 0);
		start_recv(&s, 1);
		for (int i = 0; i < 3; i++) {
			fill_queue(room);
			refuse(8, -EAGAIN, false);
			assert_int_equal(ctxfd_uring_end(&s.scope, &end.op), -EBUSY);
			sqe = io_uring_get_sqe(&ring);
			assert_true(room || !sqe);
			refusals = 0;
			if (sqe)
				io_uring_prep_nop(sqe);
			assert_int_equal(try_start(&s.scope, &s.t[2], sqe ? sqe : (submit_and_run(), prep_recv(&s))),
			                 -ECANCELED);
		}
		submit_and_run();
		assert_int_equal(ctxfd_uring_end(&s.scope, &end.op), 0);
		assert_int_equal(finish(&end), 0);
		assert_int_equal(s.t[0].res, -ECANCELED);
		assert_int_equal(s.t[1].res, -ECANCELED);
		end.last = 0;
		open_scope(&s.scope, s.ctx);
		free_small(&s);
	}
}

/* Opening a scope tries its requests on a ring that may have restrictions (it has none, but looks so). */
static void open_says_so(void **state)
{
	static const struct {
		int times, error, result;
	} refused[] = { { 1, -EAGAIN, -EAGAIN }, { 2, -EAGAIN, -EAGAIN }, { 2, -EPERM, -EPERM }, { 2, -EINTR, 0 } };
	struct ctxfd_uring_scope scope;
	struct small s;

	make_small(&s);
	ring.flags |= IORING_SETUP_R_DISABLED;
	for (size_t i = 0; i < COUNT(refused); i++) {
		if (i == 0)
			fill_queue(0);
		refuse(refused[i].times, refused[i].error, true);
		assert_int_equal(ctxfd_uring_open(&scope, &ring, s.ctx), refused[i].result);
		assert_int_equal(refusals, 0);
		submit_and_run();
		assert_int_equal(take_all(), 0);
	}
	close_scope(&scope);
	for (unsigned i = 0; i < ring.cq.ring_entries; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		io_uring_prep_nop(sqe);
		sqe->user_data = 1;
	}
	submit_and_run();
	assert_int_equal(ctxfd_uring_open(&scope, &ring, s.ctx), -EBUSY);
	assert_int_equal(take_all(), (int)ring.cq.ring_entries);
	submit_and_run();
	assert_int_equal(take_all(), 0);
	free_small(&s);
}

/* The repetition of a cancel fails for good: it is not tried without end, but the next cancel tries again. */
static void a_repetition_that_fails_does_not_spin(void **state)
{
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	struct io_uring_sqe *sqe;
	struct small s;

	make_small(&s);
	for (int i = 0; i < 2; i++) {
		sqe = prep_recv(&s);
		sqe->flags |= i ? 0 : IOSQE_IO_HARDLINK;
		start(&s.scope, &s.t[i], sqe);
	}
	submit_and_run();
	for (unsigned i = 0; i < 3; i++) {
		bool last = i > 0;

		if (s.scope.tick_ == 0)
			assert_int_equal(ctxfd_uring_cancel(&s.t[1].op), 0); /* not its turn yet */
		s.scope.round_ = last ? 10 : 2;
		for (bool tick = false; !tick; io_uring_cqe_seen(&ring, cqe)) {
			assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
			assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
			tick = cqe->user_data >> 63 && (cqe->user_data & 3) == 3;
			if (tick)
				cqe->res = -ENOMEM;
			assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
		}
		assert_int_equal(s.scope.tick_ == 0, last);
	}
	free_small(&s);
}

/* The cancel of one operation does not go into the queue, and nor does that of another. One alone needs one entry. */
static void cancel_says_so(void **state)
{
	struct small s;

	for (unsigned room = 0; room < 2; room++) {
		make_small(&s);
		for (int i = 0; i < 3; i++)
			start_recv(&s, i);
		fill_queue(room);
		refuse(8, -EAGAIN, false);
		assert_int_equal(ctxfd_uring_cancel(&s.t[0].op), room ? 0 : -EBUSY);
		assert_int_equal(ctxfd_uring_cancel(&s.t[1].op), -EBUSY);
		refusals = 0;
		submit_and_run();
		assert_int_equal(ctxfd_uring_cancel(&s.t[0].op), 0);
		assert_int_equal(finish(&s.t[0]), -ECANCELED);
		assert_int_equal(finish(&s.t[1]), -ECANCELED);
		assert_int_equal(s.t[2].last, 0);
		free_small(&s);
	}
	/* The answer to the first one is still out. */
	make_small(&s);
	start_recv(&s, 0);
	start_recv(&s, 1);
	assert_int_equal(ctxfd_uring_cancel(&s.t[0].op), 0);
	fill_queue(0);
	refuse(1, -EAGAIN, false);
	assert_int_equal(ctxfd_uring_cancel(&s.t[1].op), -EBUSY);
	assert_int_equal(finish(&s.t[0]), -ECANCELED);
	assert_int_equal(finish(&s.t[1]), -ECANCELED);
	free_small(&s);
}

/* It is not lost if nobody tries again: it goes out with the next completion of the scope. */
static void a_cancel_without_room_goes_out_later(void **state)
{
	int quiet = eventfd(0, EFD_CLOEXEC);
	uint64_t count = 1, seen = 0;
	struct io_uring_sqe *sqe;
	struct small s;

	make_small(&s);
	sqe = get_sqe();
	io_uring_prep_read(sqe, quiet, &seen, sizeof seen, 0);
	start(&s.scope, &s.t[0], sqe);
	submit_and_run();
	start_recv(&s, 1);
	start_recv(&s, 2);
	fill_queue(0);
	refuse(8, -EAGAIN, false);
	assert_int_equal(ctxfd_uring_cancel(&s.t[1].op), -EBUSY);
	refusals = 0;
	submit_and_run();
	assert_int_equal(write(quiet, &count, sizeof count), sizeof count);
	assert_int_equal(finish(&s.t[0]), sizeof count);
	assert_int_equal(finish(&s.t[1]), -ECANCELED);
	assert_int_equal(s.t[2].last, 0);
	free_small(&s);
	close(quiet);
}

/* The queue is full, and the kernel refuses for good: that is what wait says, and not that it may pass. */
static void wait_says_what_the_kernel_does(void **state)
{
	struct small s;

	make_small(&s);
	start_recv(&s, 0);
	ctxfd_cancel(s.ctx);
	assert_int_equal(io_uring_sq_ready(&ring), 0);
	fill_queue(0);
	refuse(100, -EPERM, true);
	assert_int_equal(ctxfd_uring_wait(&s.scope, NULL), -EPERM);
	assert_int_equal(ctxfd_uring_close(&s.scope, NULL), -EPERM);
	refusals = 0;
	assert_int_equal(ctxfd_uring_wait(&s.scope, NULL), 0);
	free_small(&s);
}

/* What the kernel has not taken is taken back when it refuses, in whichever order and with its chain. */
static void close_takes_back_what_is_not_in_flight(void **state)
{
	struct ctxfd_uring_op *op;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct small s;

	make_small(&s);
	sqe = get_sqe();
	io_uring_prep_nop(sqe);
	sqe->flags |= IOSQE_IO_LINK;
	start(&s.scope, &s.t[0], sqe);
	sqe = get_sqe();
	io_uring_prep_nop(sqe); /* the program's own, at the end of the chain */
	sqe->user_data = 7;
	refuse(100, -EPERM, true);
	assert_int_equal(ctxfd_uring_wait(&s.scope, &op), -EPERM);
	assert_int_equal(ctxfd_uring_close(&s.scope, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &s.t[0].op);
	assert_int_equal(op->res, -ECANCELED);
	memset(&s.t[0], 0xa5, sizeof s.t[0]);
	assert_int_equal(ctxfd_uring_close(&s.scope, &op), 0);
	memset(&s.scope, 0xa5, sizeof s.scope);
	refusals = 0;
	/* The chain is over: the program's own request does not run alone. */
	for (bool seen = false; !seen; io_uring_cqe_seen(&ring, cqe)) {
		assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
		assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
		seen = ctxfd_uring_complete(cqe, &op) == CTXFD_URING_OTHER;
		if (seen)
			assert_int_equal(cqe->res, -ECANCELED);
	}
	open_scope(&s.scope, s.ctx);
	free_small(&s);
}

/* Also where there was no room for its cancel. */
static void close_takes_back_what_was_not_cancelled(void **state)
{
	struct ctxfd_uring_op *op;
	struct small s;

	make_small(&s);
	start(&s.scope, &s.t[0], prep_recv(&s));
	fill_queue(0);
	refuse(100, -EPERM, true);
	assert_int_equal(ctxfd_uring_close(&s.scope, &op), CTXFD_URING_LAST);
	assert_ptr_equal(op, &s.t[0].op);
	assert_int_equal(op->res, -ECANCELED);
	assert_int_equal(ctxfd_uring_close(&s.scope, &op), 0);
	refusals = 0;
	submit_and_run();
	assert_int_equal(take_all(), 0);
	open_scope(&s.scope, s.ctx);
	free_small(&s);
}

/* A refusal that does not pass ends the call, and the operation never runs. */
static void a_call_ends_with_a_refusal(void **state)
{
	static const int errors[] = { -EPERM, -EBADFD, -EEXIST, -EOWNERDEAD, -EBADR, -ENXIO };
	struct small s;

	for (size_t i = 0; i < COUNT(errors); i++) {
		make_small(&s);
		send_a_byte(&s);
		refuse(INT_MAX, errors[i], true);
		assert_int_equal(ctxfd_uring_call(s.ctx, &ring, prep_recv(&s)), errors[i]);
		refusals = 0;
		submit_and_run();
		assert_int_equal(take_all(), 0);
		start_recv(&s, 0);
		assert_int_equal(finish(&s.t[0]), 1);
		free_small(&s);
	}
}

/* What a refused call takes back is its own: an operation of a scope that waits in the queue goes out later. */
static void a_refused_call_takes_back_its_own(void **state)
{
	struct small s;

	make_small(&s);
	start(&s.scope, &s.t[0], prep_recv(&s));
	refuse(INT_MAX, -EPERM, true);
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, prep_recv(&s)), -EPERM);
	refusals = 0;
	send_a_byte(&s);
	assert_int_equal(finish(&s.t[0]), 1);
	free_small(&s);
}

/*
 * With a thread of the kernel's an operation that is queued may be taken at any time. So a call that is refused gives
 * nothing to the queue, also when it finds there that the context of another scope has ended, and submits its cancels.
 */
static void a_refused_call_never_runs(void **state)
{
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	uint64_t seen = 0;
	struct small s;

	make_small(&s);
	close_scope(&s.scope);
	io_uring_queue_exit(&ring);
	ring_kind = &ring_kinds[4];
	if (make_ring_of(ring_kind->flags, 8, 0))
		skip_test("no rings of kind %s", ring_kind->name);
	open_scope(&s.scope, s.ctx);
	sqe = get_sqe();
	io_uring_prep_read(sqe, quiet, &seen, sizeof seen, 0);
	start(&s.scope, &s.t[0], sqe);
	submit_and_run();
	ctxfd_cancel(s.ctx);
	assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
	send_a_byte(&s);
	no_events = -EAGAIN;
	takes_at_once = true;
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, prep_recv(&s)), -EAGAIN);
	takes_at_once = false;
	assert_int_equal(finish(&s.t[0]), -ECANCELED);
	assert_int_equal(recv(s.fds[0], s.buf, 1, MSG_DONTWAIT), 1);
	free_small(&s);
	close(quiet);
}

/* And so does one that might pass, in the end. */
static void a_call_does_not_wait_for_ever(void **state)
{
	struct io_uring_sqe *sqe;
	int64_t began;
	struct small s;

	make_small(&s);
	send_a_byte(&s);
	refuse(INT_MAX, -EAGAIN, true);
	began = now();
	assert_int_equal(ctxfd_uring_call(s.ctx, &ring, prep_recv(&s)), -EAGAIN);
	assert_elapsed(began, CTXFD_SEC, 30 * CTXFD_SEC);
	ctxfd_close(s.ctx);
	s.ctx = ctxfd_with_timeout(ctxfd_background(), 500 * CTXFD_MSEC);
	refusals = 0;
	sqe = prep_recv(&s);
	refuse(INT_MAX, -EAGAIN, true);
	assert_int_equal(ctxfd_uring_call(s.ctx, &ring, sqe), -ETIMEDOUT);
	refusals = 0;
	ctxfd_close(s.ctx);
	s.ctx = ctxfd_with_cancel(ctxfd_background());
	close_scope(&s.scope);
	open_scope(&s.scope, s.ctx);
	start_recv(&s, 0);
	assert_int_equal(finish(&s.t[0]), 1);
	free_small(&s);
}

/*
 * The kernel has taken the operation, and then takes nothing any more: the one case in which a call leaves something
 * behind.
 */
static void a_call_that_cannot_be_ended(void **state)
{
	struct small s;

	make_small(&s);
	for (int taken = 1; taken < 3; taken++) {
		allowed = taken;
		refuse(INT_MAX, -EPERM, true);
		assert_int_equal(ctxfd_uring_call(s.ctx, &ring, prep_recv(&s)), -ENOTRECOVERABLE);
		allowed = 0;
		refusals = 0;
		/* It is in flight still, and what it completes with is nothing to anybody. */
		send_a_byte(&s);
		while (armed_polls() > taken - 1)
			submit_and_run();
		assert_int_equal(take_all(), 0);
	}
	ctxfd_cancel(s.ctx);
	while (armed_polls())
		submit_and_run();
	assert_int_equal(take_all(), 0);
	free_small(&s);
}

static void a_call_goes_on(void **state)
{
	static const int errors[] = { -EAGAIN, -EINTR, -ENOMEM };
	struct small s;

	make_small(&s);
	for (size_t i = 0; i < COUNT(errors); i++) {
		send_a_byte(&s);
		refuse(3, errors[i], true);
		assert_int_equal(ctxfd_uring_call(s.ctx, &ring, prep_recv(&s)), 1);
		assert_int_equal(refusals, 0);
	}
	free_small(&s);
}

struct sleeper {
	pid_t tid; /* of the thread that sleeps in the ring */
	struct small *s;
};

/* What has woken it is done, but the removal of its poll is refused. */
static void *refuse_when_it_sleeps(void *arg)
{
	struct sleeper *sleeper = arg;

	tid_wait_asleep(sleeper->tid);
	refuse(1, -EAGAIN, true);
	require(write(sleeper->s->fds[1], "x", 1) == 1);
	return NULL;
}

static void a_call_waits_for_its_poll_to_be_gone(void **state)
{
	struct small s;
	struct sleeper sleeper = { (pid_t)syscall(SYS_gettid), &s };
	struct thread *thread;

	need_threads();
	make_small(&s);
	thread = thread_start(refuse_when_it_sleeps, &sleeper);
	assert_int_equal(ctxfd_uring_call(s.ctx, &ring, prep_recv(&s)), 1);
	assert_int_equal(armed_polls(), 0);
	thread_join(thread);
	free_small(&s);
}

struct canceller {
	pid_t tid;
	struct ctxfd *ctx;
};

static void *cancel_when_it_sleeps(void *arg)
{
	struct canceller *c = arg;

	tid_wait_asleep(c->tid);
	ctxfd_cancel(c->ctx);
	return NULL;
}

/* There is room neither for the operation's poll nor for anything else when the thread is about to go to sleep. */
static void a_call_does_not_sleep_without_its_poll(void **state)
{
	struct canceller c = { .tid = (pid_t)syscall(SYS_gettid) };
	struct thread *thread;
	struct small s;

	need_threads();
	make_small(&s);
	for (int times = 2; times < 5; times++) {
		struct io_uring_sqe *sqe;

		c.ctx = ctxfd_with_cancel(ctxfd_background());
		fill_queue(1);
		sqe = prep_recv(&s);
		thread = thread_start(cancel_when_it_sleeps, &c);
		refuse(times, -EAGAIN, false);
		assert_int_equal(ctxfd_uring_call(c.ctx, &ring, sqe), -ECANCELED);
		assert_int_equal(refusals, 0);
		thread_join(thread);
		ctxfd_unref(c.ctx);
	}
	free_small(&s);
}

struct cancelled {
	struct small small;
	int result;
};

/* With a pthread_cancel pending: what waits for the kernel must not be left half done. */
static void *call_when_cancelled(void *arg)
{
	struct cancelled *c = arg;

	pthread_cancel(pthread_self());
	refuse(3, -EAGAIN, true);
	c->result = ctxfd_uring_call(c->small.ctx, &ring, prep_recv(&c->small));
	pthread_testcancel();
	return NULL;
}

static void a_call_is_no_cancellation_point(void **state)
{
	struct cancelled c = { .result = 0 };

	make_small(&c.small);
	assert_int_equal(write(c.small.fds[1], "a", 1), 1);
	assert_ptr_equal(thread_join(thread_start(call_when_cancelled, &c)), PTHREAD_CANCELED);
	assert_int_equal(c.result, 1);
	free_small(&c.small);
}

/* What the library makes of a result that the kernel gives, when the context has ended meanwhile, or has not. */
static int made_of(int result, bool ended)
{
	struct small s;
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	struct io_uring_sqe *sqe;

	make_small(&s);
	sqe = get_sqe();
	io_uring_prep_nop(sqe);
	start(&s.scope, &s.t[0], sqe);
	submit_and_run();
	assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
	cqe->res = result;
	if (ended)
		ctxfd_cancel(s.ctx);
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_LAST);
	result = op->res;
	io_uring_cqe_seen(&ring, cqe);
	free_small(&s);
	return result;
}

/* Of the errors that are the kernel's own, which some operations let out, those are meant that a signal makes. */
static void interruptions_are_known(void **state)
{
	static const int interruptions[] = { -ECANCELED, -EINTR, -512, -513, -514, -516 };
	static const int others[] = { -EIO, -511, -517, -ETIMEDOUT, 0, 512 };

	for (size_t i = 0; i < COUNT(interruptions); i++) {
		assert_int_equal(made_of(interruptions[i], false), interruptions[i]);
		assert_int_equal(made_of(interruptions[i], true), -ECANCELED);
	}
	for (size_t i = 0; i < COUNT(others); i++) {
		assert_int_equal(made_of(others[i], false), others[i]);
		assert_int_equal(made_of(others[i], true), others[i]);
	}
}

/* ---- Anything, in any order, with a kernel that refuses now and then --------------------------------------------- */

enum { STORM_SCOPES = 3, STORM_OPS = 16 };

/*
 * Receives of a byte each, on scopes and in calls, from one socket: what was sent was received or is still there, or an
 * operation that a call had to leave behind has it. A small ring, so that much has to wait for room.
 */
struct storm {
	struct ctxfd *ctx[STORM_SCOPES];
	struct ctxfd_uring_scope scope[STORM_SCOPES];
	struct tracked *op[STORM_OPS]; /* NULL: not in flight */
	int fds[2];
	char buf[8];
	long sent, received, left_behind;
};

static struct storm st;

static struct io_uring_sqe *storm_recv(void)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring))) {
		refusals = 0;
		submit_and_run();
	}
	prep_recv_from(sqe, st.fds[0], st.buf, 1);
	return sqe;
}

static void storm_open(int i)
{
	st.ctx[i] = ctxfd_with_cancel(ctxfd_background());
	open_scope(&st.scope[i], st.ctx[i]);
}

static void storm_start(void)
{
	unsigned i = dice(STORM_OPS), n = dice(STORM_SCOPES);
	struct tracked *t;
	int err;

	if (st.op[i])
		return;
	t = malloc(sizeof *t);
	err = try_start(&st.scope[n], t, storm_recv());
	if (!err) {
		st.op[i] = t;
		return;
	}
	assert_true(err == -EBUSY || err == ctxfd_err(st.ctx[n]));
	free(t);
}

static void storm_took(int what, struct ctxfd_uring_op *op)
{
	note(what, op);
	assert_int_equal(what, CTXFD_URING_LAST);
	assert_true(op->res == 1 || op->res == -ECANCELED);
	st.received += op->res == 1;
	for (int i = 0; i < STORM_OPS; i++)
		if (st.op[i] == tracked_of(op))
			st.op[i] = NULL;
	free(tracked_of(op));
}

static void storm_take(void)
{
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;

	(void)io_uring_submit(&ring);
	while (io_uring_peek_cqe(&ring, &cqe) == 0) {
		int what = ctxfd_uring_complete(cqe, &op);

		assert_int_not_equal(what, CTXFD_URING_OTHER);
		io_uring_cqe_seen(&ring, cqe);
		if (what != CTXFD_URING_NONE)
			storm_took(what, op);
	}
}

static void storm_close(int i)
{
	struct ctxfd_uring_op *op;
	int what;

	while ((what = ctxfd_uring_close(&st.scope[i], &op)) != 0)
		if (what > 0)
			storm_took(what, op);
	ctxfd_close(st.ctx[i]);
}

static void storm_call(void)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), dice(200) * CTXFD_USEC);
	struct io_uring_sqe *sqe = storm_recv();
	int res;

	if (!dice(4))
		no_events = -EAGAIN;
	res = ctxfd_uring_call(ctx, &ring, sqe);
	st.received += res == 1;
	st.left_behind += res == -ENOTRECOVERABLE;
	no_events = 0;
	ctxfd_close(ctx);
}

static void storm_step(void)
{
	static const int errors[] = { -EAGAIN, -EPERM, -EINTR };
	unsigned what = dice(16), i = dice(STORM_SCOPES);
	struct tracked *t = st.op[dice(STORM_OPS)];

	if (!dice(4))
		refuse((int)dice(20), errors[dice(COUNT(errors))], dice(2));
	if (takes_at_once && !dice(32))
		wait_until(needs_wakeup(&ring)); /* asleep, as after its idle time on a slow machine */
	if (what < 6) {
		storm_start();
	} else if (what < 9) {
		assert_int_equal(write(st.fds[1], "x", 1), 1);
		st.sent++;
	} else if (what == 9 && t) {
		int err = ctxfd_uring_cancel(&t->op);

		assert_true(err == 0 || err == -EBUSY);
	} else if (what < 12) {
		storm_call();
	} else if (what == 12) {
		ctxfd_cancel(st.ctx[i]);
	} else if (what == 13) {
		storm_close((int)i);
		storm_open((int)i);
	} else {
		storm_take();
	}
}

static int make_storm_ring(unsigned flags)
{
	struct io_uring_params p = {
		.flags = flags | IORING_SETUP_CQSIZE, .cq_entries = 64, .sq_thread_idle = 1, /* ms */
	};

	return io_uring_queue_init_params(8, &ring, &p);
}

static void anything_with_refusals(void **state)
{
	static const unsigned kinds[] = { 0, IORING_SETUP_SQPOLL };
	char sink[256];
	ssize_t n;

	seed = 1;
	for (size_t k = 0; k < COUNT(kinds); k++) {
		memset(&st, 0, sizeof st);
		ring_kind = &ring_kinds[k ? 4 : 0];
		if (make_storm_ring(kinds[k]))
			continue;
		make_socketpair(st.fds);
		for (int i = 0; i < STORM_SCOPES; i++)
			storm_open(i);
		takes_at_once = k;
		for (int step = rounds(6000); step > 0; step--)
			storm_step();
		takes_at_once = false;
		refusals = 0;
		for (int i = 0; i < STORM_SCOPES; i++)
			storm_close(i);
		for (int i = 0; i < STORM_OPS; i++)
			assert_null(st.op[i]);
		while ((n = recv(st.fds[0], sink, sizeof sink, MSG_DONTWAIT)) > 0)
			st.received += n;
		assert_true(st.received <= st.sent && st.received + st.left_behind >= st.sent);
		io_uring_queue_exit(&ring);
		close_pair(st.fds);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_says_so),
		cmocka_unit_test(a_signal_is_no_refusal),
		cmocka_unit_test(wait_says_so),
		cmocka_unit_test(a_poll_stays_until_it_can_be_removed),
		cmocka_unit_test(cancels_go_out_later),
		cmocka_unit_test(all_goes_out_later),
		cmocka_unit_test(a_result_is_time_to_try_again),
		cmocka_unit_test(end_says_so),
		cmocka_unit_test(end_can_be_tried_again),
		cmocka_unit_test(open_says_so),
		cmocka_unit_test(a_repetition_that_fails_does_not_spin),
		cmocka_unit_test(cancel_says_so),
		cmocka_unit_test(a_cancel_without_room_goes_out_later),
		cmocka_unit_test(wait_says_what_the_kernel_does),
		cmocka_unit_test(close_takes_back_what_is_not_in_flight),
		cmocka_unit_test(close_takes_back_what_was_not_cancelled),
		cmocka_unit_test(a_call_ends_with_a_refusal),
		cmocka_unit_test(a_refused_call_takes_back_its_own),
		cmocka_unit_test(a_refused_call_never_runs),
		cmocka_unit_test(a_call_does_not_wait_for_ever),
		cmocka_unit_test(a_call_that_cannot_be_ended),
		cmocka_unit_test(a_call_goes_on),
		cmocka_unit_test(a_call_waits_for_its_poll_to_be_gone),
		cmocka_unit_test(a_call_does_not_sleep_without_its_poll),
		cmocka_unit_test(a_call_is_no_cancellation_point),
		cmocka_unit_test(interruptions_are_known),
		cmocka_unit_test(anything_with_refusals),
	};
	int err = make_ring_of(0, 4, 0);

	if (err)
		return no_uring(err);
	err = no_scopes();
	io_uring_queue_exit(&ring);
	return err ? err : run_all(tests);
}
