/* SPDX-License-Identifier: MIT */
/*
 * Every kind of operation: cancelled in flight, ended by a deadline, refused when the context is done already, and left
 * alone when it completes. And the results that beat the end of the context.
 */
#include "test_uring.h"

#include <dirent.h>
#include <linux/futex.h>
#include <sys/stat.h>

/* What the operations are done on. */
struct world {
	int fds[2], other[2]; /* done on fds[0]; -1 when there is none */
	struct sockaddr_in addr;
	struct stuck stuck;
	struct __kernel_timespec ts;
	struct io_uring_buf_ring *buffers;
	uint32_t futex;
	char path[64];
	char buf[64];
	char big[65536];
};

static struct world w;

enum { BUFFERS = 16, BUFFER_SIZE = 64 };

/*
 * ---- The operations -----------------------------------------------------------------------------------------------
 */

struct opcase {
	const char *name;
	int opcode;
	void (*make)(void);
	void (*prep)(struct io_uring_sqe *sqe);
	void (*complete)(void); /* makes it complete by itself; NULL: not in a short time */
	int res;                /* that it then gives; ANY when it is not negative */
	bool multishot;
};

enum { ANY = INT_MAX };

static void make_sockets(void)
{
	make_socketpair(w.fds);
}

static void make_pipes(void)
{
	make_pipe(w.fds);
}

static void make_two_pipes(void)
{
	make_pipe(w.fds);
	make_pipe(w.other);
}

static void make_full_pipe(void)
{
	int fds[2];

	make_pipe(fds);
	fill(fds[1]);
	w.fds[0] = fds[1];
	w.fds[1] = fds[0];
}

static void make_full_socket(void)
{
	make_socketpair(w.fds);
	fill(w.fds[0]);
}

/*
 * Full, and it stays so until the peer reads. Filling it is not enough: the peer acknowledges what is on its way some
 * 40 ms later, and that makes room. So the buffer then shrinks to the least that there is, and what it holds is many
 * times that, and more than the peer's buffer can take, which no longer grows.
 */
static void make_full_connection(void)
{
	int size = 65536, least = 1;

	make_connection(w.fds);
	assert_int_equal(setsockopt(w.fds[1], SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
	fill(w.fds[0]);
	assert_int_equal(setsockopt(w.fds[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least), 0);
}

static void make_listening(void)
{
	w.fds[0] = make_listener(&w.addr);
}

static void make_stuck_listener(void)
{
	make_stuck(&w.stuck);
	w.fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(w.fds[0] >= 0);
}

static void make_fifo(void)
{
	snprintf(w.path, sizeof w.path, "/tmp/ctxfd_test_uring.%d", (int)getpid());
	unlink(w.path);
	assert_int_equal(mkfifo(w.path, 0600), 0);
}

static void make_nothing(void)
{
}

/* A ring of provided buffers, for multishot receives. */
static void make_buffers(void)
{
	size_t size = BUFFERS * sizeof(struct io_uring_buf);
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS };

	make_sockets();
	w.buffers = aligned_alloc(4096, 4096);
	assert_non_null(w.buffers);
	memset(w.buffers, 0, size);
	memset(w.big, 0, sizeof w.big);
	reg.ring_addr = (uintptr_t)w.buffers;
	assert_int_equal(io_uring_register_buf_ring(&ring, &reg, 0), 0);
	io_uring_buf_ring_init(w.buffers);
	for (unsigned short i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(w.buffers, w.big + i * BUFFER_SIZE, BUFFER_SIZE, i,
		                      io_uring_buf_ring_mask(BUFFERS), i);
	io_uring_buf_ring_advance(w.buffers, BUFFERS);
}

static void unmake(void)
{
	for (int i = 0; i < 2; i++) {
		if (w.fds[i] >= 0)
			close(w.fds[i]);
		if (w.other[i] >= 0)
			close(w.other[i]);
	}
	if (w.stuck.listener)
		close_stuck(&w.stuck);
	if (w.path[0])
		unlink(w.path);
	if (w.buffers)
		assert_int_equal(io_uring_unregister_buf_ring(&ring, 0), 0);
	free(w.buffers);
}

static void prep_recv(struct io_uring_sqe *sqe)
{
	prep_recv_from(sqe, w.fds[0], w.buf, sizeof w.buf);
}

static void prep_recv_buffers(struct io_uring_sqe *sqe)
{
	io_uring_prep_recv_multishot(sqe, w.fds[0], NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = 0;
}

static void prep_accept(struct io_uring_sqe *sqe)
{
	io_uring_prep_accept(sqe, w.fds[0], NULL, NULL, SOCK_CLOEXEC);
}

static void prep_accept_many(struct io_uring_sqe *sqe)
{
	io_uring_prep_multishot_accept(sqe, w.fds[0], NULL, NULL, SOCK_CLOEXEC);
}

static void prep_connect(struct io_uring_sqe *sqe)
{
	io_uring_prep_connect(sqe, w.fds[0], (struct sockaddr *)&w.stuck.addr, sizeof w.stuck.addr);
}

static void prep_poll(struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_add(sqe, w.fds[0], POLLIN);
}

static void prep_poll_many(struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_multishot(sqe, w.fds[0], POLLIN);
}

static void prep_hour(struct io_uring_sqe *sqe)
{
	w.ts = (struct __kernel_timespec){ .tv_sec = 3600 };
	io_uring_prep_timeout(sqe, &w.ts, 0, 0);
}

static void prep_read(struct io_uring_sqe *sqe)
{
	memset(w.buf, 0, sizeof w.buf);
	io_uring_prep_read(sqe, w.fds[0], w.buf, sizeof w.buf, (uint64_t)-1);
}

/* On a worker thread from the start. */
static void prep_read_async(struct io_uring_sqe *sqe)
{
	prep_read(sqe);
	sqe->flags |= IOSQE_ASYNC;
}

static void prep_accept_async(struct io_uring_sqe *sqe)
{
	prep_accept(sqe);
	sqe->flags |= IOSQE_ASYNC;
}

/* On a worker thread, and sleeping there in a way that io_uring cannot poll: cancelled, they give -ERESTARTSYS. */
static void prep_tee(struct io_uring_sqe *sqe)
{
	io_uring_prep_tee(sqe, w.fds[0], w.other[1], 64, 0);
}

static void prep_open_fifo(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, w.path, O_RDONLY | O_CLOEXEC, 0);
	sqe->flags |= IOSQE_ASYNC;
}

static void prep_write(struct io_uring_sqe *sqe)
{
	memset(w.buf, 1, sizeof w.buf);
	io_uring_prep_write(sqe, w.fds[0], w.buf, sizeof w.buf, (uint64_t)-1);
}

static void prep_send(struct io_uring_sqe *sqe)
{
	memset(w.big, 1, sizeof w.big);
	io_uring_prep_send(sqe, w.fds[0], w.big, sizeof w.big, MSG_NOSIGNAL);
}

static void prep_send_zc(struct io_uring_sqe *sqe)
{
	memset(w.big, 1, sizeof w.big);
	io_uring_prep_send_zc(sqe, w.fds[0], w.big, sizeof w.big, MSG_NOSIGNAL, 0);
}

static void prep_futex(struct io_uring_sqe *sqe)
{
	enum { FUTEX2_U32_PRIVATE = 2 | 128 };

	w.futex = 7;
	io_uring_prep_rw(OP_FUTEX_WAIT, sqe, FUTEX2_U32_PRIVATE, &w.futex, 0, 7);
	sqe->addr3 = FUTEX_BITSET_MATCH_ANY;
}

static void write_peer(void)
{
	assert_int_equal(write(w.fds[1], "abc", 3), 3);
}

static void drain_peer(void)
{
	int flags = fcntl(w.fds[1], F_GETFL);
	static char sink[65536];

	assert_int_equal(fcntl(w.fds[1], F_SETFL, flags | O_NONBLOCK), 0);
	while (read(w.fds[1], sink, sizeof sink) > 0)
		;
	assert_int_equal(fcntl(w.fds[1], F_SETFL, flags), 0);
}

static void connect_peer(void)
{
	if (w.fds[1] >= 0)
		close(w.fds[1]);
	w.fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(w.fds[1], (struct sockaddr *)&w.addr, sizeof w.addr), 0);
}

static void open_peer(void)
{
	w.fds[1] = open(w.path, O_WRONLY | O_CLOEXEC);
	assert_true(w.fds[1] >= 0);
}

/* It may still be on its way to sleep, on a kernel thread. */
static void wake_futex(void)
{
	wait_until(syscall(SYS_futex, &w.futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 1);
}

static const struct opcase opcases[] = {
	{ "recv", IORING_OP_RECV, make_sockets, prep_recv, write_peer, 3, false },
	{ "multishot recv", IORING_OP_SEND_ZC, make_buffers, prep_recv_buffers, write_peer, 3, true },
	{ "accept", IORING_OP_ACCEPT, make_listening, prep_accept, connect_peer, ANY, false },
	{ "multishot accept", IORING_OP_SOCKET, make_listening, prep_accept_many, connect_peer, ANY, true },
	{ "accept on a worker", IORING_OP_ACCEPT, make_listening, prep_accept_async, connect_peer, ANY, false },
	{ "connect", IORING_OP_CONNECT, make_stuck_listener, prep_connect, NULL, 0, false },
	{ "poll", IORING_OP_POLL_ADD, make_sockets, prep_poll, write_peer, POLLIN, false },
	{ "multishot poll", IORING_OP_POLL_ADD, make_sockets, prep_poll_many, write_peer, POLLIN, true },
	{ "timeout", IORING_OP_TIMEOUT, make_nothing, prep_hour, NULL, 0, false },
	{ "read of a pipe", IORING_OP_READ, make_pipes, prep_read, write_peer, 3, false },
	{ "read of a pipe on a worker", IORING_OP_READ, make_pipes, prep_read_async, write_peer, 3, false },
	{ "tee of an empty pipe", IORING_OP_TEE, make_two_pipes, prep_tee, write_peer, 3, false },
	{ "open of a fifo", IORING_OP_OPENAT, make_fifo, prep_open_fifo, open_peer, ANY, false },
	{ "write to a full pipe", IORING_OP_WRITE, make_full_pipe, prep_write, drain_peer, sizeof w.buf, false },
	{ "send to a full socket", IORING_OP_SEND, make_full_socket, prep_send, drain_peer, ANY, false },
	{ "zero-copy send", IORING_OP_SEND_ZC, make_full_connection, prep_send_zc, drain_peer, ANY, false },
	{ "futex wait", OP_FUTEX_WAIT, make_nothing, prep_futex, wake_futex, 0, false },
};

/* Makes the world for the next case that this kernel knows; NULL when there is none left. */
static const struct opcase *next_case(const struct opcase *c)
{
	for (c = c ? c + 1 : opcases; c < opcases + COUNT(opcases); c++) {
		if (!ring_supports(c->opcode)) {
			printf("# this kernel has no %s\n", c->name);
			continue;
		}
		/*
		 * Should the test be killed while the kernel's SQ thread holds bytes that nobody reads, the thread
		 * spins for good (seen on 6.18).
		 */
		if (c->prep == prep_send_zc && ring_kind->flags & IORING_SETUP_SQPOLL)
			continue;
		printf("# %s\n", c->name);
		memset(&w, 0, sizeof w);
		w.fds[0] = w.fds[1] = w.other[0] = w.other[1] = -1;
		c->make();
		return c;
	}
	return NULL;
}

#define for_each_case(c) for (const struct opcase *c = NULL; (c = next_case(c)); unmake())

/* The kernel holds what a zero-copy send has sent until the peer has read it, over loopback. */
static void finish_case(const struct opcase *c, struct tracked *t)
{
	while (!t->last) {
		if (c->complete == drain_peer)
			drain_peer();
		submit_and_run();
		take_all();
	}
}

static struct io_uring_sqe *prepared(const struct opcase *c)
{
	struct io_uring_sqe *sqe = get_sqe();

	c->prep(sqe);
	return sqe;
}

/* Checks what it gave by itself. An accepted connection or an opened file is ours to close. */
static void assert_result(const struct opcase *c, int res)
{
	if (c->res != ANY)
		assert_int_equal(res, c->res);
	assert_true(res >= 0);
	if (c->complete == connect_peer || c->complete == open_peer)
		close(res);
}

/*
 * ---- The end of the context ---------------------------------------------------------------------------------------
 */

static void is_canceled_in_flight(void **state)
{
	for_each_case(c)
	{
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_uring_scope scope;
		struct tracked t;

		open_scope(&scope, ctx);
		start(&scope, &t, prepared(c));
		submit_and_run();
		assert_int_equal(io_uring_cq_ready(&ring), 0);
		ctxfd_cancel(ctx);
		finish(&t);
		assert_int_equal(t.first, -ECANCELED);
		close_scope(&scope);
		assert_int_equal(t.last, 1);
		ctxfd_unref(ctx);
	}
}

static void ends_at_the_deadline(void **state)
{
	for_each_case(c)
	{
		int64_t timeout = 10 * CTXFD_MSEC, began;
		struct ctxfd_uring_scope scope;
		struct ctxfd *ctx;
		struct tracked t;

		/* On a slow machine it may pass before the operation has started: then that gets twice the time. */
		for (;; timeout *= 2) {
			began = now();
			ctx = ctxfd_with_timeout(ctxfd_background(), timeout);
			open_scope(&scope, ctx);
			if (try_start(&scope, &t, prepared(c)) == 0)
				break;
			assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
			close_scope(&scope);
			ctxfd_unref(ctx);
		}
		finish(&t);
		assert_int_equal(t.first, -ETIMEDOUT);
		assert_elapsed(began, timeout, 5 * CTXFD_SEC);
		close_scope(&scope);
		assert_int_equal(t.last, 1);
		ctxfd_unref(ctx);
	}
}

/* Done before it starts: nothing of it reaches the kernel. */
static void is_refused_when_done(void **state)
{
	for_each_case(c)
	{
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd *late = ctxfd_with_timeout(ctxfd_background(), -1);
		struct ctxfd_uring_scope scope, late_scope;
		struct tracked t;

		open_scope(&scope, ctx);
		open_scope(&late_scope, late);
		ctxfd_cancel(ctx);
		assert_int_equal(try_start(&scope, &t, prepared(c)), -ECANCELED);
		assert_int_equal(try_start(&late_scope, &t, prepared(c)), -ETIMEDOUT);
		submit_and_run();
		if (c->complete && c->complete != wake_futex && c->complete != open_peer)
			c->complete();
		submit_and_run();
		assert_int_equal(io_uring_cq_ready(&ring), 0);
		close_scope(&scope);
		close_scope(&late_scope);
		ctxfd_unref(ctx);
		ctxfd_unref(late);
	}
}

/*
 * ---- Results ------------------------------------------------------------------------------------------------------
 */

static void completes_as_without_a_context(void **state)
{
	for_each_case(c)
	{
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
		struct ctxfd_uring_scope scope;
		struct tracked t;

		if (!c->complete) {
			ctxfd_close(ctx);
			continue;
		}
		open_scope(&scope, ctx);
		start(&scope, &t, prepared(c));
		submit_and_run();
		assert_int_equal(io_uring_cq_ready(&ring), 0);
		for (int i = 1; i <= (c->multishot ? 3 : 1); i++) {
			c->complete();
			if (!c->multishot)
				finish_case(c, &t);
			while (t.more + t.last < i)
				turn();
			assert_result(c, i == 1 ? t.first : t.res);
		}
		if (c->multishot) {
			ctxfd_cancel(ctx);
			assert_int_equal(finish(&t), -ECANCELED);
		}
		close_scope(&scope);
		assert_int_equal(t.last, 1);
		ctxfd_close(ctx);
	}
}

/* What the kernel has delivered before the cancels go out stays a result, although the context is done. */
static void a_result_beats_the_end(void **state)
{
	for_each_case(c)
	{
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_uring_scope scope;
		struct tracked t;

		if (!c->complete || c->multishot) {
			ctxfd_close(ctx);
			continue;
		}
		open_scope(&scope, ctx);
		start(&scope, &t, prepared(c));
		submit_and_run();
		c->complete();
		while (!io_uring_cq_ready(&ring)) {
			if (c->complete == drain_peer)
				drain_peer();
			submit_and_run();
		}
		ctxfd_cancel(ctx);
		finish_case(c, &t);
		assert_result(c, t.first);
		close_scope(&scope);
		ctxfd_close(ctx);
	}
}

/* Bytes that had arrived for an operation that waits for more are its result. */
static void a_partial_result_is_kept(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe = get_sqe();
	struct tracked t;
	char buf[10];
	int fds[2];

	make_socketpair(fds);
	open_scope(&scope, ctx);
	prep_recv_from(sqe, fds[0], buf, sizeof buf);
	sqe->msg_flags = MSG_WAITALL;
	start(&scope, &t, sqe);
	assert_int_equal(write(fds[1], "abc", 3), 3);
	submit_and_run();
	assert_int_equal(io_uring_cq_ready(&ring), 0);
	ctxfd_cancel(ctx);
	assert_int_equal(finish(&t), 3);
	assert_memory_equal(buf, "abc", 3);
	close_scope(&scope);
	close_pair(fds);
	ctxfd_unref(ctx);
}

/* Whether one of the kernel's threads that work for this process sleeps in a read of a pipe. */
static bool worker_reads_a_pipe(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	bool found = false;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		char path[64], where[64] = "";
		FILE *f;

		snprintf(path, sizeof path, "/proc/self/task/%.20s/wchan", e->d_name);
		f = fopen(path, "re");
		found |= f && fgets(where, sizeof where, f) && strstr(where, "pipe_read");
		if (f)
			fclose(f);
	}
	closedir(dir);
	return found;
}

/*
 * A read that others have robbed of its data for more than a hundred times goes to sleep on a worker thread. The end of
 * its context, or of its scope, interrupts it there: it gives -EINTR.
 */
static void interrupt_on_worker(bool close_it)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct io_uring_sqe *sqe;
	struct tracked t;
	char buf[8] = "";
	int fds[2];

	make_pipe(fds);
	open_scope(&scope, ctx);
	sqe = get_sqe();
	io_uring_prep_read(sqe, fds[0], buf, sizeof buf, 0);
	start(&scope, &t, sqe);
	submit_and_run();
	/* Only where completions are run when we say so can we be faster than the read. */
	while (ring_kind->flags & IORING_SETUP_DEFER_TASKRUN && armed_polls() == 2) {
		char stolen;

		assert_int_equal(write(fds[1], "x", 1), 1);
		assert_int_equal(read(fds[0], &stolen, 1), 1);
		submit_and_run();
	}
	/* Not all kernels tell; then it is cancelled wherever it is. */
	for (int i = 0; i < 1000 && ring_kind->flags & IORING_SETUP_DEFER_TASKRUN && !worker_reads_a_pipe(); i++)
		pass_time(CTXFD_MSEC);
	if (close_it) {
		assert_int_equal(ctxfd_uring_close(&scope, &op), CTXFD_URING_LAST);
		note(CTXFD_URING_LAST, op);
	} else {
		ctxfd_cancel(ctx);
	}
	assert_int_equal(finish(&t), -ECANCELED);
	close_scope(&scope);
	close_pair(fds);
	ctxfd_close(ctx);
}

static void an_interrupted_worker_is_no_error(void **state)
{
	interrupt_on_worker(false);
	interrupt_on_worker(true);
}

/*
 * Connections that a multishot accept took, and that are still in the queue when the context ends, are all delivered.
 */
static void no_accepted_connection_is_dropped(void **state)
{
	enum { CONNECTIONS = 8 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct ctxfd_uring_op *op;
	struct tracked t;
	struct sockaddr_in addr;
	int listener = make_listener(&addr), clients[CONNECTIONS], accepted = 0;
	struct io_uring_sqe *sqe = get_sqe();

	open_scope(&scope, ctx);
	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
	start(&scope, &t, sqe);
	submit_and_run();
	for (int i = 0; i < CONNECTIONS; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(clients[i], (struct sockaddr *)&addr, sizeof addr), 0);
	}
	while (io_uring_cq_ready(&ring) < CONNECTIONS)
		submit_and_run();
	ctxfd_cancel(ctx);
	for (int what; (what = ctxfd_uring_wait(&scope, &op)) != 0;) {
		assert_true(what > 0);
		note(what, op);
		accepted += t.res >= 0 && !close(t.res);
	}
	assert_int_equal(accepted, CONNECTIONS);
	assert_int_equal(t.res, -ECANCELED);
	assert_int_equal(t.more, CONNECTIONS);
	assert_int_equal(t.last, 1);
	close_scope(&scope);
	for (int i = 0; i < CONNECTIONS; i++)
		close(clients[i]);
	close(listener);
	ctxfd_unref(ctx);
}

/* Reads of a regular file run to their end, context or not. */
static void regular_files_run_to_their_end(void **state)
{
	enum { READS = 16, SIZE = 4096 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_uring_scope scope;
	struct tracked t[READS];
	static char data[SIZE], bufs[READS][SIZE];
	FILE *file = tmpfile();

	assert_non_null(file);
	memset(data, 'x', sizeof data);
	for (int i = 0; i < READS; i++)
		assert_int_equal(write(fileno(file), data, SIZE), SIZE);
	open_scope(&scope, ctx);
	for (int i = 0; i < READS; i++) {
		struct io_uring_sqe *sqe = get_sqe();

		memset(bufs[i], 0, SIZE);
		io_uring_prep_read(sqe, fileno(file), bufs[i], SIZE, (uint64_t)i * SIZE);
		sqe->flags |= i % 2 ? IOSQE_ASYNC : 0;
		start(&scope, &t[i], sqe);
	}
	assert_true(io_uring_submit(&ring) >= 0);
	ctxfd_cancel(ctx);
	for (int i = 0; i < READS; i++)
		if (finish(&t[i]) != -ECANCELED) {
			assert_int_equal(t[i].res, SIZE);
			assert_memory_equal(bufs[i], data, SIZE);
		}
	close_scope(&scope);
	fclose(file);
	ctxfd_unref(ctx);
}

/* Errors of the operation's own are not taken for the context's. */
static void errors_are_the_operations_own(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct __kernel_timespec ts = { .tv_nsec = 1 };
	struct sockaddr_in addr;
	struct ctxfd_uring_scope scope;
	struct io_uring_sqe *sqe;
	struct tracked t[3];
	int refuser = make_refuser(&addr), sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	open_scope(&scope, ctx);
	sqe = get_sqe();
	io_uring_prep_connect(sqe, sock, (struct sockaddr *)&addr, sizeof addr);
	start(&scope, &t[0], sqe);
	sqe = get_sqe();
	io_uring_prep_timeout(sqe, &ts, 0, 0);
	start(&scope, &t[1], sqe);
	sqe = get_sqe();
	io_uring_prep_read(sqe, -1, NULL, 0, 0);
	start(&scope, &t[2], sqe);
	submit_and_run();
	while (io_uring_cq_ready(&ring) < 3)
		submit_and_run();
	ctxfd_cancel(ctx);
	assert_int_equal(finish(&t[0]), -ECONNREFUSED);
	assert_int_equal(finish(&t[1]), -ETIME);
	assert_int_equal(finish(&t[2]), -EBADF);
	close_scope(&scope);
	close(sock);
	close(refuser);
	ctxfd_unref(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_canceled_in_flight),
		cmocka_unit_test(ends_at_the_deadline),
		cmocka_unit_test(is_refused_when_done),
		cmocka_unit_test(completes_as_without_a_context),
		cmocka_unit_test(a_result_beats_the_end),
		cmocka_unit_test(a_partial_result_is_kept),
		cmocka_unit_test(an_interrupted_worker_is_no_error),
		cmocka_unit_test(no_accepted_connection_is_dropped),
		cmocka_unit_test(regular_files_run_to_their_end),
		cmocka_unit_test(errors_are_the_operations_own),
	};
	return run_ring_tests(tests);
}
