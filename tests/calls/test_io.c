/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_read and ctxfd_write on all kinds of descriptors, blocking or not: they do what read and write do until the
 * context ends, and leave the descriptor's mode as it is.
 */
#include "kinds.h"

#include <sys/stat.h>
#include <sys/uio.h>

#define FAR (3600 * CTXFD_SEC)

/* The kernel may lack RWF_NOWAIT for a kind of file, or refuse the call: then what is not a socket is polled first. */
static atomic_bool no_nowait;

/* Nor is there a /proc, by which to open a pipe anew. */
static atomic_bool no_proc;

/* Or it is a file of which only that much is in memory, or nothing at all. */
static atomic_size_t in_memory;
static atomic_bool not_in_memory;

/* Or signals come so fast that no call gets anywhere. */
static atomic_bool interrupted;

static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);

long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (no_nowait && (nr == SYS_preadv2 || nr == SYS_pwritev2)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (no_proc && nr == SYS_openat) {
		errno = ENOENT;
		return -1;
	}
	if (in_memory && nr == SYS_preadv2) {
		struct iovec part = *(const struct iovec *)b;

		part.iov_len = part.iov_len < in_memory ? part.iov_len : in_memory;
		return __real_syscall(nr, a, (long)&part, c, d, e, f);
	}
	if (not_in_memory && nr == SYS_preadv2 && is_file((int)a)) {
		errno = EAGAIN;
		return -1;
	}
	if (interrupted && (nr == SYS_preadv2 || nr == SYS_pwritev2)) {
		errno = EINTR;
		return -1;
	}
	return __real_syscall(nr, a, b, c, d, e, f);
}

static void in_both_ways(void (*part)(const struct kind *kind, bool blocking))
{
	with_all_kinds(part);
	printf("# without RWF_NOWAIT\n");
	no_nowait = true;
	with_all_kinds(part);
	no_nowait = false;
}

struct call {
	const struct ctxfd *ctx;
	int fd;
	size_t size;
	char buf[65536];
	atomic_size_t given;
};

static void *call_read(void *arg)
{
	struct call *c = arg;

	return (void *)ctxfd_read(c->ctx, c->fd, c->buf, c->size);
}

/* Until that fails. */
static void *call_write_on(void *arg)
{
	struct call *c = arg;
	ssize_t n;

	while ((n = ctxfd_write(c->ctx, c->fd, c->buf, c->size)) > 0)
		c->given += (size_t)n;
	return (void *)n;
}

static ssize_t result(struct thread *thread)
{
	return (ssize_t)thread_join(thread);
}

static struct ctxfd *make(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	assert_non_null(ctx);
	return ctx;
}

static void put_eight(int fd)
{
	assert_int_equal(write(fd, &eight, sizeof eight), sizeof eight);
}

/* How much to write at a time: a terminal promises room for one byte and no more. */
static size_t amount(const struct kind *kind, bool blocking)
{
	if (kind->one_fd)
		return sizeof eight;
	if (kind->no_nowait && blocking)
		return 1;
	return kind->messages ? 1000 : 50000;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* As much as there is, though more was asked for; and it needs no done fd. */
static void read_what_is_there(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx = make();
	char buf[100];
	int fds[2], mode, before;

	make_kind(kind, fds, blocking);
	mode = fcntl(fds[0], F_GETFL);
	before = count_fds();
	for (int i = 0; i < 3; i++) {
		put_eight(fds[1]);
		if (kind->no_nowait)
			wait_readable(fds[0]);
		memset(buf, '#', sizeof buf);
		assert_int_equal(ctxfd_read(ctx, fds[0], buf, sizeof buf), sizeof eight);
		assert_memory_equal(buf, &eight, sizeof eight);
		assert_int_equal(buf[8], '#');
	}
	assert_int_equal(fcntl(fds[0], F_GETFL), mode);
	if (!kind->no_nowait)
		assert_int_equal(count_fds(), before);
	close_kind(kind, fds);
	ctxfd_close(ctx);
}

static void what_is_there_is_read(void **state)
{
	in_both_ways(read_what_is_there);
}

static void wait_and_read(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx = make();
	struct call *c = calloc(1, sizeof *c);
	struct thread *thread;
	int fds[2], mode;

	make_kind(kind, fds, blocking);
	mode = fcntl(fds[0], F_GETFL);
	c->ctx = ctx;
	c->fd = fds[0];
	c->size = sizeof c->buf;
	thread = thread_start(call_read, c);
	thread_wait_asleep(thread);
	assert_int_equal(fcntl(fds[0], F_GETFL), mode); /* while it waits as well */
	put_eight(fds[1]);
	assert_int_equal(result(thread), sizeof eight);
	assert_memory_equal(c->buf, &eight, sizeof eight);
	assert_int_equal(fcntl(fds[0], F_GETFL), mode);
	close_kind(kind, fds);
	ctxfd_close(ctx);
	free(c);
}

static void read_waits_for_data(void **state)
{
	in_both_ways(wait_and_read);
}

static void end_a_read(const struct kind *kind, bool blocking)
{
	struct ctxfd *root = make(), *ctx = ctxfd_with_cancel(root), *timed;
	struct call *c = calloc(1, sizeof *c);
	struct thread *thread;
	int fds[2], mode;
	int64_t at;

	make_kind(kind, fds, blocking);
	mode = fcntl(fds[0], F_GETFL);
	c->ctx = ctx;
	c->fd = fds[0];
	c->size = sizeof c->buf;
	thread = thread_start(call_read, c);
	thread_wait_asleep(thread);
	ctxfd_cancel(root);
	assert_int_equal(result(thread), -ECANCELED);

	at = now() + 5 * CTXFD_MSEC;
	timed = ctxfd_with_deadline(ctxfd_background(), at);
	assert_int_equal(ctxfd_read(timed, fds[0], c->buf, sizeof c->buf), -ETIMEDOUT);
	assert_elapsed(at, 0, CTXFD_SEC);
	assert_int_equal(fcntl(fds[0], F_GETFL), mode);
	close_kind(kind, fds);
	ctxfd_close(timed);
	ctxfd_close(ctx);
	ctxfd_close(root);
	free(c);
}

static void read_ends_with_the_context(void **state)
{
	in_both_ways(end_a_read);
}

static void touch_nothing(const struct kind *kind, bool blocking)
{
	struct ctxfd *cancelled = make(), *late = ctxfd_with_timeout(ctxfd_background(), 0);
	char buf[100];
	int fds[2];

	make_kind(kind, fds, blocking);
	ctxfd_cancel(cancelled);
	put_eight(fds[1]);
	wait_readable(fds[0]);
	assert_int_equal(ctxfd_read(cancelled, fds[0], buf, sizeof buf), -ECANCELED);
	assert_int_equal(ctxfd_read(late, fds[0], buf, sizeof buf), -ETIMEDOUT);
	assert_int_equal(ctxfd_write(cancelled, fds[1], &eight, sizeof eight), -ECANCELED);
	assert_int_equal(ctxfd_write(late, fds[1], &eight, sizeof eight), -ETIMEDOUT);
	if (kind->socket) {
		assert_int_equal(ctxfd_recv(cancelled, fds[0], buf, sizeof buf, 0), -ECANCELED);
		assert_int_equal(ctxfd_send(late, fds[1], &eight, sizeof eight, 0), -ETIMEDOUT);
	}
	assert_int_equal(drain(fds[0]), sizeof eight);
	close_kind(kind, fds);
	ctxfd_unref(cancelled);
	ctxfd_unref(late);
}

static void a_done_context_does_nothing(void **state)
{
	with_all_kinds(touch_nothing);
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

static void write_and_read(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx = make();
	char buf[100];
	int fds[2], mode, before;

	make_kind(kind, fds, blocking);
	mode = fcntl(fds[1], F_GETFL);
	before = count_fds();
	assert_int_equal(ctxfd_write(ctx, fds[1], &eight, sizeof eight), sizeof eight);
	assert_int_equal(count_fds(), before);
	assert_int_equal(fcntl(fds[1], F_GETFL), mode);
	wait_readable(fds[0]);
	assert_int_equal(read(fds[0], buf, sizeof buf), sizeof eight);
	assert_memory_equal(buf, &eight, sizeof eight);
	close_kind(kind, fds);
	ctxfd_close(ctx);
}

static void what_is_written_arrives(void **state)
{
	in_both_ways(write_and_read);
}

static void end_a_write(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx = make(), *timed;
	struct call *c = calloc(1, sizeof *c);
	struct thread *thread;
	int fds[2], mode;
	int64_t at;

	make_kind(kind, fds, blocking);
	fill_up(kind, fds);
	mode = fcntl(fds[1], F_GETFL);
	c->ctx = ctx;
	c->fd = fds[1];
	c->size = amount(kind, blocking);
	if (kind->one_fd)
		memcpy(c->buf, &eight, sizeof eight);
	thread = thread_start(call_write_on, c);
	thread_wait_asleep(thread);
	assert_int_equal(fcntl(fds[1], F_GETFL), mode);
	ctxfd_cancel(ctx);
	assert_int_equal(result(thread), -ECANCELED);

	at = now() + 5 * CTXFD_MSEC;
	timed = ctxfd_with_deadline(ctxfd_background(), at);
	assert_int_equal(write_on(timed, fds[1], c->buf, c->size), -ETIMEDOUT);
	assert_elapsed(at, 0, CTXFD_SEC);
	assert_int_equal(fcntl(fds[1], F_GETFL), mode);
	close_kind(kind, fds);
	ctxfd_close(timed);
	ctxfd_close(ctx);
	free(c);
}

static void a_write_to_what_is_full_ends_with_the_context(void **state)
{
	in_both_ways(end_a_write);
}

static void wait_and_write(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx = make();
	struct call *c = calloc(1, sizeof *c);
	struct thread *thread;
	size_t given;
	int fds[2];

	make_kind(kind, fds, blocking);
	fill_up(kind, fds);
	c->ctx = ctx;
	c->fd = fds[1];
	c->size = amount(kind, blocking);
	if (kind->one_fd)
		memcpy(c->buf, &eight, sizeof eight);
	thread = thread_start(call_write_on, c);
	thread_wait_asleep(thread);
	given = c->given;
	wait_until((take(fds[0]), c->given > given));
	ctxfd_cancel(ctx);
	assert_int_equal(result(thread), -ECANCELED);
	close_kind(kind, fds);
	ctxfd_unref(ctx);
	free(c);
}

static void a_write_to_what_is_full_waits_for_room(void **state)
{
	in_both_ways(wait_and_write);
}

/* With room for a part it gives that part and returns, where write itself would wait on a blocking descriptor. */
static void write_too_much(const struct kind *kind, bool blocking)
{
	enum { MUCH = 16 << 20 };
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), FAR);
	char *much;
	int fds[2];
	ssize_t n;

	if (!kind->messages && !kind->one_fd && !(kind->no_nowait && blocking)) {
		much = calloc(1, MUCH);
		make_kind(kind, fds, blocking);
		n = ctxfd_write(ctx, fds[1], much, MUCH);
		assert_true(n > 0 && n < MUCH);
		while (n > 0) {
			wait_readable(fds[0]);
			n -= (ssize_t)drain(fds[0]);
		}
		assert_int_equal(n, 0);
		close_kind(kind, fds);
		free(much);
	}
	ctxfd_close(ctx);
}

static void a_write_may_be_short(void **state)
{
	in_both_ways(write_too_much);
}

/* ---- What RWF_NOWAIT does not do --------------------------------------------------------------------------------- */

/* As read would give it: a program takes a short read of a file for its end. */
static void a_file_is_read_beyond_what_is_in_memory(void **state)
{
	char name[] = "/tmp/ctxfd-test-XXXXXX", buf[1000] = "";
	int fd = mkostemp(name, O_CLOEXEC);
	struct ctxfd *ctx = make();

	unlink(name);
	assert_int_equal(write(fd, buf, sizeof buf), sizeof buf);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	in_memory = 10;
	assert_int_equal(ctxfd_read(ctx, fd, buf, sizeof buf), sizeof buf);
	in_memory = 0;
	close(fd);
	ctxfd_close(ctx);
}

/* What was found out about a pipe says nothing about what another thread puts in its place while the call waits. */
static void a_file_may_take_the_place_of_a_pipe(void **state)
{
	char name[] = "/tmp/ctxfd-test-XXXXXX";
	struct call c = { .ctx = make(), .size = 10 };
	struct thread *reader;
	int pipe[2], fd = mkostemp(name, O_CLOEXEC);

	unlink(name);
	assert_int_equal(write(fd, "a file", 6), 6);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	make_pipe(pipe);
	c.fd = pipe[0];
	reader = thread_start(call_read, &c);
	thread_wait_asleep_in(reader, SYS_ppoll);
	not_in_memory = true;
	assert_int_equal(dup3(fd, pipe[0], O_CLOEXEC), pipe[0]);
	assert_int_equal(write(pipe[1], "x", 1), 1); /* the poll still has the pipe */
	assert_int_equal(result(reader), 6);
	not_in_memory = false;
	assert_memory_equal(c.buf, "a file", 6);
	close(fd);
	close_pair(pipe);
	ctxfd_unref(c.ctx);
}

/* A device may take what is written as one message. Only a pipe and a terminal are given it in pieces. */
static void a_device_is_written_to_at_once(void **state)
{
	static const char much[3 * PIPE_BUF];
	struct ctxfd *ctx = make();
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	no_nowait = true;
	assert_int_equal(ctxfd_write(ctx, null, much, sizeof much), sizeof much);
	no_nowait = false;
	close(null);
	ctxfd_close(ctx);
}

/* A pipe that polls writable has room for so much, and who writes all would wait for the rest. */
static void without_proc_a_pipe_is_written_in_pieces(void **state)
{
	static char much[3 * PIPE_BUF];
	struct ctxfd *ctx = make();
	int pipe[2];

	make_pipe(pipe);
	no_nowait = no_proc = true;
	assert_int_equal(ctxfd_write(ctx, pipe[1], much, sizeof much), PIPE_BUF);
	assert_int_equal(ctxfd_write(ctx, pipe[1], much, 10), 10);
	assert_int_equal(ctxfd_read(ctx, pipe[0], much, sizeof much), PIPE_BUF + 10);
	no_nowait = no_proc = false;
	close_pair(pipe);
	ctxfd_close(ctx);
}

static void a_terminal_is_written_in_pieces(void **state)
{
	static const char much[3 * PIPE_BUF];
	struct ctxfd *ctx = make();
	int fds[2];

	make_terminal(fds);
	assert_between(ctxfd_write(ctx, fds[1], much, sizeof much), 1, PIPE_BUF);
	close_pair(fds);
	ctxfd_close(ctx);
}

/* A pipe that is empty or full is not waited for. */
static void nothing_waits_for_nothing(void **state)
{
	struct ctxfd *ctx = make();
	int pipe[2], disk = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char byte;

	make_pipe(pipe);
	no_nowait = true;
	assert_int_equal(ctxfd_read(ctx, pipe[0], &byte, 0), 0);
	fill(pipe[1]);
	assert_int_equal(ctxfd_write(ctx, pipe[1], "", 0), 0);
	assert_int_equal(ctxfd_read(ctx, disk, &byte, 0), 0);
	no_nowait = false;
	close(disk);
	close_pair(pipe);
	ctxfd_close(ctx);
}

static void no_number_of_signals_outlasts_the_context(void **state)
{
	struct ctxfd *brief = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);
	char byte = 0;
	int pipe[2];

	make_pipe(pipe);
	interrupted = true;
	assert_int_equal(ctxfd_read(brief, pipe[0], &byte, 1), -ETIMEDOUT);
	ctxfd_close(brief);
	brief = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);
	assert_int_equal(ctxfd_write(brief, pipe[1], &byte, 1), -ETIMEDOUT);
	interrupted = false;
	close_pair(pipe);
	ctxfd_close(brief);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_there_is_read),
		cmocka_unit_test(read_waits_for_data),
		cmocka_unit_test(read_ends_with_the_context),
		cmocka_unit_test(a_done_context_does_nothing),
		cmocka_unit_test(what_is_written_arrives),
		cmocka_unit_test(a_write_to_what_is_full_ends_with_the_context),
		cmocka_unit_test(a_write_to_what_is_full_waits_for_room),
		cmocka_unit_test(a_write_may_be_short),
		cmocka_unit_test(a_file_is_read_beyond_what_is_in_memory),
		cmocka_unit_test(a_file_may_take_the_place_of_a_pipe),
		cmocka_unit_test(a_device_is_written_to_at_once),
		cmocka_unit_test(without_proc_a_pipe_is_written_in_pieces),
		cmocka_unit_test(a_terminal_is_written_in_pieces),
		cmocka_unit_test(nothing_waits_for_nothing),
		cmocka_unit_test(no_number_of_signals_outlasts_the_context),
	};
	return run_all(tests);
}
