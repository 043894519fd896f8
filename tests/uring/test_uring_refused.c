/* SPDX-License-Identifier: MIT */
/*
 * Where io_uring is missing, forbidden, too old or of the wrong kind: a scope says so with a clear error, and the rest
 * of the library does not care. Each case has a child process of its own, which keeps what was learnt of the kernel.
 */
#include "test_uring.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

/* From here on this process cannot make system call nr: it fails with err. */
static void forbid(unsigned nr, unsigned err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = COUNT(filter), .filter = filter };

	require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	require(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
}

static void need_uring(void **state)
{
	int err = make_ring_of(0, 8, 0);
	bool too_old;

	if (err)
		skip_test("io_uring: %s", strerror(-err));
	too_old = too_old_for_scopes();
	io_uring_queue_exit(&ring);
	if (too_old)
		skip_test("io_uring is too old: Linux 5.19 is needed");
}

/* What ctxfd_uring_open says of the ring. */
static int opened(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	int err;

	memset(&scope, 0xa5, sizeof scope);
	err = ctxfd_uring_open(&scope, &ring, ctx);
	require(ctxfd_uring_close(&scope, NULL) == 0);
	ctxfd_close(ctx);
	return err;
}

/* The library without io_uring. */
static void require_core_works(void)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC), *child = ctxfd_with_cancel(ctx);

	require(ctxfd_done_fd(child) >= 0);
	require(ctxfd_wait(child) == -ETIMEDOUT);
	require(readable(ctxfd_done_fd(child)));
	ctxfd_close(child);
	ctxfd_close(ctx);
}

static int forbidden_later(void *arg)
{
	unsigned err = *(unsigned *)arg;

	require(make_ring_of(0, 8, 0) == 0);
	forbid(SYS_io_uring_register, err);
	require(opened() == -(int)err);
	require_core_works();
	return 0;
}

static void forbidden_after_the_ring_was_made(void **state)
{
	unsigned errors[] = { EPERM, ENOSYS };

	need_uring(state);
	for (size_t i = 0; i < COUNT(errors); i++)
		assert_int_equal(in_child(forbidden_later, &errors[i]), 0);
}

/* As these tests see it where no ring can be made: they are skipped. */
static int forbidden_wholly(void *arg)
{
	static const struct CMUnitTest skipped[] = { cmocka_unit_test(need_uring) };

	forbid(SYS_io_uring_setup, *(unsigned *)arg);
	require_core_works();
	return run_ring_tests(skipped);
}

static void forbidden_from_the_start(void **state)
{
	unsigned errors[] = { EPERM, ENOSYS };

	for (size_t i = 0; i < COUNT(errors); i++)
		assert_int_equal(in_child(forbidden_wholly, &errors[i]), 77);
}

/* Whether the kernel is one of before 5.19, which brought opcode SOCKET. The linker routes the call here (uring.mk). */
static bool without_socket;

int __real_io_uring_register_probe(struct io_uring *r, struct io_uring_probe *p, unsigned n);
int __wrap_io_uring_register_probe(struct io_uring *r, struct io_uring_probe *p, unsigned n);

int __wrap_io_uring_register_probe(struct io_uring *r, struct io_uring_probe *p, unsigned n)
{
	int err = __real_io_uring_register_probe(r, p, n);

	if (without_socket)
		p->ops[IORING_OP_SOCKET].flags &= (uint16_t)~IO_URING_OP_SUPPORTED;
	return err;
}

static int too_old(void *arg)
{
	require(make_ring_of(0, 8, 0) == 0);
	without_socket = true;
	require(opened() == -EOPNOTSUPP);
	without_socket = false;
	ring.features &= ~IORING_FEAT_CQE_SKIP;
	require(opened() == -EOPNOTSUPP);
	ring.features |= IORING_FEAT_CQE_SKIP;
	require(opened() == 0);
	/* Asked once: now it is known. */
	without_socket = true;
	require(opened() == 0);
	return 0;
}

static void an_old_kernel_is_told(void **state)
{
	need_uring(state);
	assert_int_equal(in_child(too_old, NULL), 0);
}

/* What a ring without room for a completion that is skipped makes of a call that is refused: nothing is left of it. */
static int refused_call(void *arg)
{
	struct io_uring_sqe *sqe;

	require(make_ring_of(0, 8, 0) == 0);
	ring.features &= ~IORING_FEAT_CQE_SKIP;
	for (uint64_t i = 1; i < 3; i++) {
		sqe = get_sqe();
		io_uring_prep_nop(sqe);
		require(ctxfd_uring_call(ctxfd_background(), &ring, sqe) == -EOPNOTSUPP);
		sqe = get_sqe();
		io_uring_prep_nop(sqe);
		sqe->user_data = i;
	}
	require(io_uring_submit(&ring) == 2);
	require(io_uring_cq_ready(&ring) == 2);
	require(take_all() == 2);
	return 0;
}

static void an_old_kernel_is_given_nothing(void **state)
{
	int err = make_ring_of(0, 8, 0);

	if (err)
		skip_test("io_uring: %s", strerror(-err));
	io_uring_queue_exit(&ring);
	assert_int_equal(in_child(refused_call, NULL), 0);
}

/* ---- Restrictions ------------------------------------------------------------------------------------------------ */

enum { PROBE_TOO = 1 << 10, NO_SKIP = 1 << 11 };

static void allow(struct io_uring_restriction *list, unsigned *n, unsigned short what, unsigned char op)
{
	list[*n] = (struct io_uring_restriction){ .opcode = what };
	list[(*n)++].sqe_op = op;
}

static void make_restricted(const unsigned char *ops, size_t count, unsigned how)
{
	struct io_uring_restriction list[16];
	unsigned n = 0;

	require(make_ring_of(IORING_SETUP_R_DISABLED, 8, 0) == 0);
	if (how & PROBE_TOO)
		allow(list, &n, IORING_RESTRICTION_REGISTER_OP, IORING_REGISTER_PROBE);
	if (!(how & NO_SKIP))
		allow(list, &n, IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IOSQE_CQE_SKIP_SUCCESS);
	for (size_t i = 0; i < count; i++)
		allow(list, &n, IORING_RESTRICTION_SQE_OP, ops[i]);
	require(syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_RESTRICTIONS, list, n) == 0);
	require(opened() == (how & PROBE_TOO ? -EBADFD : opened()));
	require(syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0);
}

/* All that a scope needs, and one more. */
static const unsigned char needed[] = { IORING_OP_NOP, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_TIMEOUT,
	                                IORING_OP_READ };

/* Each of the opcodes, and the flag, is missing in turn; whether the process knows the kernel already or not. */
static int restricted(void *arg)
{
	unsigned how = *(unsigned *)arg;

	for (size_t missing = 0; missing < COUNT(needed); missing++) {
		unsigned char ops[COUNT(needed)];

		memcpy(ops, needed, sizeof ops);
		ops[missing] = ops[(missing + 1) % 4];
		make_restricted(ops, COUNT(ops), how | (missing == 4 ? NO_SKIP : 0));
		require(opened() == -EACCES);
		require(io_uring_cq_ready(&ring) == 0);
		require(io_uring_sq_ready(&ring) == 0);
		io_uring_queue_exit(&ring);
	}
	return 0;
}

static int restricted_later(void *arg)
{
	require(make_ring_of(0, 8, 0) == 0);
	require(opened() == 0);
	io_uring_queue_exit(&ring);
	return restricted(arg);
}

static void a_restricted_ring_is_told(void **state)
{
	unsigned how[] = { 0, PROBE_TOO };

	need_uring(state);
	for (size_t i = 0; i < COUNT(how); i++) {
		assert_int_equal(in_child(restricted, &how[i]), 0);
		assert_int_equal(in_child(restricted_later, &how[i]), 0);
	}
}

/* With all that is needed: the operation ends with its context, in a scope and in a call. */
static int restricted_but_enough(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *late = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t;
	int fds[2];
	char buf[8];

	require(pipe(fds) == 0);
	make_restricted(needed, COUNT(needed), PROBE_TOO);
	sqe = get_sqe();
	io_uring_prep_read(sqe, fds[0], buf, sizeof buf, 0);
	require(ctxfd_uring_call(late, &ring, sqe) == -ETIMEDOUT);
	require(ctxfd_uring_open(&scope, &ring, ctx) == 0);
	sqe = get_sqe();
	io_uring_prep_read(sqe, fds[0], buf, sizeof buf, 0);
	require(try_start(&scope, &t, sqe) == 0);
	ctxfd_cancel(ctx);
	require(finish(&t) == -ECANCELED);
	require(ctxfd_uring_close(&scope, NULL) == 0);
	return 0;
}

static void a_ring_with_enough_will_do(void **state)
{
	need_uring(state);
	assert_int_equal(in_child(restricted_but_enough, NULL), 0);
}

/*
 * The done fd cannot be polled, for whatever reason: what was started is cancelled, as nobody could hear the context.
 */
static void a_poll_that_fails_ends_the_operations(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct tracked t;
	int fds[2];
	char buf[8];

	need_uring(state);
	assert_int_equal(make_ring_of(0, 8, 0), 0);
	make_socketpair(fds);
	open_scope(&scope, ctx);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	start(&scope, &t, sqe);
	assert_true(io_uring_submit(&ring) >= 0);
	sqe = get_sqe();
	io_uring_prep_cancel64(sqe, UINT64_C(1) << 63 | (uintptr_t)&scope >> 1 | 2, 0); /* the poll */
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	assert_true(io_uring_submit_and_wait(&ring, 1) >= 0);
	assert_int_equal(io_uring_peek_cqe(&ring, &cqe), 0);
	cqe->res = -ENOMEM;
	assert_int_equal(ctxfd_uring_complete(cqe, &op), CTXFD_URING_NONE);
	io_uring_cqe_seen(&ring, cqe);
	assert_int_equal(finish(&t), -ECANCELED);
	sqe = get_sqe();
	io_uring_prep_nop(sqe);
	assert_int_equal(ctxfd_uring_start(&scope, &t.op, sqe), -ENOMEM);
	close_scope(&scope);
	io_uring_queue_exit(&ring);
	close_pair(fds);
	ctxfd_close(ctx);
}

/* Polled ones, in which nothing could be cancelled, and those whose queues are of a kind that is not known here. */
static void rings_of_the_wrong_kind(void **state)
{
	static const unsigned flags[] = { IORING_SETUP_IOPOLL, 1U << 18, 1U << 19, 1U << 20 };

	need_uring(state);
	for (size_t i = 0; i < COUNT(flags); i++) {
		assert_int_equal(make_ring_of(0, 8, 0), 0);
		ring.flags |= flags[i];
		assert_int_equal(opened(), -EINVAL);
		ring.flags &= ~flags[i];
		io_uring_queue_exit(&ring);
	}
}

static void *wait_elsewhere(void *scope)
{
	struct ctxfd_uring_op *op;

	require(ctxfd_uring_wait(scope, &op) == -EEXIST);
	return NULL;
}

/* A ring with a single issuer takes no other thread: it is told, and the right one goes on. */
static void another_thread_is_refused(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t;
	int fds[2];
	char buf[8];
	struct io_uring_sqe *sqe;

	need_uring(state);
	if (make_ring_of(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 8, 0))
		skip_test("no rings of kind SINGLE_ISSUER|DEFER_TASKRUN");
	make_socketpair(fds);
	open_scope(&scope, ctx);
	sqe = get_sqe();
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	start(&scope, &t, sqe);
	thread_join(thread_start(wait_elsewhere, &scope));
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(finish(&t), 1);
	close_scope(&scope);
	io_uring_queue_exit(&ring);
	close_pair(fds);
	ctxfd_close(ctx);
}

/* ---- Rings that take nothing ------------------------------------------------------------------------------------- */

static struct io_uring_sqe *read_of(int fd)
{
	static char sink[8];
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_read(sqe, fd, sink, sizeof sink, 0);
	return sqe;
}

static int disabled(void *arg)
{
	unsigned flags = *(unsigned *)arg;
	int fds[2];

	require(pipe(fds) == 0);
	for (int known = 0; known < 2; known++) {
		require(make_ring_of(flags | IORING_SETUP_R_DISABLED, 2, 0) == 0);
		require(opened() == -EBADFD);
		for (int i = 0; i < 5; i++)
			require(ctxfd_uring_call(ctxfd_background(), &ring, read_of(fds[0])) == -EBADFD);
		require(syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0);
		require(opened() == 0);
		require(take_all() == 0);
		io_uring_queue_exit(&ring);
	}
	return 0;
}

static void a_disabled_ring_is_told(void **state)
{
	unsigned flags[] = { 0, IORING_SETUP_SQPOLL };

	need_uring(state);
	for (size_t i = 0; i < COUNT(flags); i++)
		assert_int_equal(in_child(disabled, &flags[i]), 0);
}

static void *call_elsewhere(void *arg)
{
	int *fds = arg;

	require(ctxfd_uring_call(ctxfd_background(), &ring, read_of(fds[0])) == -EEXIST);
	return NULL;
}

static void a_call_from_another_thread_is_refused(void **state)
{
	static const unsigned flags[] = { IORING_SETUP_SINGLE_ISSUER,
		                          IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	int fds[2];

	need_uring(state);
	make_pipe(fds);
	for (size_t i = 0; i < COUNT(flags); i++) {
		if (make_ring_of(flags[i], 8, 0))
			skip_test("no rings with a single issuer");
		for (int known = 0; known < 2; known++) {
			thread_join(thread_start(call_elsewhere, fds));
			assert_int_equal(opened(), 0);
		}
		assert_int_equal(take_all(), 0);
		io_uring_queue_exit(&ring);
	}
	close_pair(fds);
}

/* A program that has used scopes goes into a sandbox without io_uring_enter: what is not in flight by then never is. */
static int sandboxed(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope, with_end;
	struct ctxfd_uring_op *op, end;
	struct tracked t[2];
	int fds[2];

	require(pipe(fds) == 0);
	require(make_ring_of(0, 32, 0) == 0);
	require(opened() == 0);
	forbid(SYS_io_uring_enter, EPERM);
	require(ctxfd_uring_call(ctx, &ring, read_of(fds[0])) == -EPERM);
	require(ctxfd_uring_open(&scope, &ring, ctx) == 0);
	require(ctxfd_uring_open(&with_end, &ring, ctx) == 0);
	for (int i = 0; i < 2; i++)
		require(try_start(&scope, &t[i], read_of(fds[0])) == 0);
	require(ctxfd_uring_wait(&scope, &op) == -EPERM);
	for (int i = 0; i < 2; i++) {
		require(ctxfd_uring_close(&scope, &op) == CTXFD_URING_LAST);
		require(op == &t[i].op && op->res == -ECANCELED);
	}
	require(ctxfd_uring_close(&scope, &op) == 0);
	require(ctxfd_uring_end(&with_end, &end) == 0);
	require(ctxfd_uring_close(&with_end, &op) == CTXFD_URING_LAST && op == &end);
	require(ctxfd_uring_open(&scope, &ring, ctx) == 0);
	require(try_start(&scope, &t[0], read_of(fds[0])) == 0);
	require(ctxfd_uring_end(&scope, &end) == 0);
	require(ctxfd_uring_close(&scope, NULL) == 0);
	io_uring_queue_exit(&ring);
	return 0;
}

/* What is queued for the kernel's own thread cannot be taken back: so a call looks before. */
static int sandboxed_with_a_kernel_thread(void *arg)
{
	int fds[2];

	require(pipe(fds) == 0);
	require(make_ring_of(IORING_SETUP_SQPOLL, 32, 0) == 0);
	require(opened() == 0);
	forbid(SYS_io_uring_enter, EPERM);
	require(ctxfd_uring_call(ctxfd_background(), &ring, read_of(fds[0])) == -EPERM);
	io_uring_queue_exit(&ring);
	return 0;
}

/* The first scope or call of a process meets what the program has in its queues. */
static int first_call(void *arg)
{
	unsigned flags = *(unsigned *)arg;
	struct io_uring_sqe *sqe, *later;

	require(make_ring_of(flags, 8, 0) == 0);
	sqe = get_sqe();
	later = get_sqe();
	io_uring_prep_nop(sqe);
	io_uring_prep_nop(later);
	later->user_data = 1;
	require(ctxfd_uring_call(ctxfd_background(), &ring, sqe) == -EINVAL);
	require(opened() == 0);
	require(io_uring_sq_ready(&ring) == 2);
	require(io_uring_submit_and_wait(&ring, 1) == 2);
	sqe = get_sqe();
	io_uring_prep_read(sqe, -1, NULL, 0, 0);
	require(ctxfd_uring_call(ctxfd_background(), &ring, sqe) == -EBADF);
	require(take_all() == 1);
	return 0;
}

/* The trial of the ring's requests leaves completions behind those of others, where the call's would have had room. */
static int first_call_without_room(void *arg)
{
	struct io_uring_sqe *sqe;

	(void)arg;
	require(make_ring_of(0, 8, 8) == 0);
	for (uint64_t i = 0; i < 4; i++) {
		sqe = get_sqe();
		io_uring_prep_nop(sqe);
		sqe->user_data = i;
	}
	require(io_uring_submit(&ring) == 4);
	for (int i = 0; i < 2; i++) {
		sqe = get_sqe();
		io_uring_prep_nop(sqe);
		require(ctxfd_uring_call(ctxfd_background(), &ring, sqe) == (i ? 0 : -EBUSY));
		if (i == 0)
			require(take_all() == 4);
	}
	return 0;
}

static void a_late_sandbox_is_told(void **state)
{
	need_uring(state);
	assert_int_equal(in_child(sandboxed, NULL), 0);
	assert_int_equal(in_child(sandboxed_with_a_kernel_thread, NULL), 0);
}

static void a_first_call_leaves_the_queues_alone(void **state)
{
	unsigned flags[] = { 0, IORING_SETUP_SQE128 | IORING_SETUP_CQE32 };

	need_uring(state);
	for (size_t i = 0; i < COUNT(flags); i++)
		assert_int_equal(in_child(first_call, &flags[i]), 0);
	assert_int_equal(in_child(first_call_without_room, NULL), 0);
}

/* A call that is refused does not run its operation, also not while a ring that may have restrictions is tried. */
static void a_refused_call_does_not_run(void **state)
{
	struct io_uring_sqe *sqe, *later;
	int fds[2];
	char byte;

	need_uring(state);
	assert_int_equal(make_ring_of(IORING_SETUP_R_DISABLED, 8, 0), 0);
	assert_int_equal(syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0), 0);
	make_pipe(fds);
	assert_int_equal(write(fds[1], "x", 1), 1);
	sqe = read_of(fds[0]);
	later = get_sqe();
	io_uring_prep_nop(later);
	later->user_data = 1;
	assert_int_equal(ctxfd_uring_call(ctxfd_background(), &ring, sqe), -EINVAL);
	turn_until(1);
	assert_true(readable(fds[0]));
	assert_int_equal(read(fds[0], &byte, 1), 1);
	io_uring_queue_exit(&ring);
	close_pair(fds);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(forbidden_after_the_ring_was_made),
		cmocka_unit_test(forbidden_from_the_start),
		cmocka_unit_test(an_old_kernel_is_told),
		cmocka_unit_test(an_old_kernel_is_given_nothing),
		cmocka_unit_test(a_restricted_ring_is_told),
		cmocka_unit_test(a_ring_with_enough_will_do),
		cmocka_unit_test(a_disabled_ring_is_told),
		cmocka_unit_test(a_late_sandbox_is_told),
		cmocka_unit_test(a_first_call_leaves_the_queues_alone),
		cmocka_unit_test(a_refused_call_does_not_run),
		cmocka_unit_test(a_call_from_another_thread_is_refused),
		cmocka_unit_test(another_thread_is_refused),
		cmocka_unit_test(a_poll_that_fails_ends_the_operations),
		cmocka_unit_test(rings_of_the_wrong_kind),
	};
	return run_all(tests);
}
