/* SPDX-License-Identifier: MIT */
/* ctxfd_connect: what connect does, until the context ends. */
#include "sockets.h"
#include "ticks.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>

static struct ctxfd *make(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	assert_non_null(ctx);
	return ctx;
}

static int result(struct thread *thread)
{
	return (int)(intptr_t)thread_join(thread);
}

static int connect_to(const struct ctxfd *ctx, int fd, const struct sockaddr_in *addr)
{
	return ctxfd_connect(ctx, fd, (const struct sockaddr *)addr, sizeof *addr);
}

static void connect_connects(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++) {
		struct ctxfd *ctx = make();
		struct sockaddr_in addr;
		int listener = make_listener(&addr), fd = make_socket(AF_INET, SOCK_STREAM), mode, conn;
		char byte = 0;

		if (!blocking)
			set_nonblocking(fd);
		mode = fcntl(fd, F_GETFL);
		assert_int_equal(connect_to(ctx, fd, &addr), 0);
		assert_int_equal(fcntl(fd, F_GETFL), mode);
		conn = accept(listener, NULL, NULL);
		assert_int_equal(write(fd, "x", 1), 1);
		assert_int_equal(read(conn, &byte, 1), 1);
		assert_int_equal(byte, 'x');
		/* The kernel lets the first call after a connection in progress be told of its success. */
		if (connect_to(ctx, fd, &addr) == 0)
			assert_int_equal(connect_to(ctx, fd, &addr), -EISCONN);
		assert_int_equal(fcntl(fd, F_GETFL), mode);
		close(conn);
		close(fd);
		close(listener);
		ctxfd_close(ctx);
	}
}

/* As with connect, which waits: the same socket can try until somebody listens. */
static void a_refused_socket_can_try_again(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++) {
		struct ctxfd *ctx = make();
		struct sockaddr_in addr;
		int refuser = make_refuser(&addr), fd = make_socket(AF_INET, SOCK_STREAM), mode;

		if (!blocking)
			set_nonblocking(fd);
		mode = fcntl(fd, F_GETFL);
		assert_int_equal(connect_to(ctx, fd, &addr), -ECONNREFUSED);
		assert_int_equal(connect_to(ctx, fd, &addr), -ECONNREFUSED);
		assert_int_equal(listen(refuser, 1), 0);
		assert_int_equal(connect_to(ctx, fd, &addr), 0);
		assert_int_equal(fcntl(fd, F_GETFL), mode);
		close(fd);
		close(refuser);
		ctxfd_close(ctx);
	}
}

/* The kernel goes on calling a vsock that was refused a connection one that is being connected. */
static void a_refused_vsock_is_not_connected(void **state)
{
	const struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 65535 };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), err;
	struct ctxfd *ctx;

	if (fd < 0)
		skip_test("there are no vsocks here");
	ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC);
	err = ctxfd_connect(ctx, fd, (const struct sockaddr *)&host, sizeof host);
	if (err == -ECONNRESET)
		err = ctxfd_connect(ctx, fd, (const struct sockaddr *)&host, sizeof host);
	close(fd);
	ctxfd_close(ctx);
	if (err == -ENODEV || err == -ETIMEDOUT)
		skip_test("there is no host that could refuse");
	assert_true(err < 0);
}

struct connecting {
	const struct ctxfd *ctx;
	int fd;
	const struct sockaddr *addr;
	socklen_t size;
};

static void *connect_one(void *arg)
{
	struct connecting *c = arg;

	return (void *)(intptr_t)ctxfd_connect(c->ctx, c->fd, c->addr, c->size);
}

static void a_connection_in_progress_ends_with_the_context(void **state)
{
	struct stuck s;

	make_stuck(&s);
	for (int blocking = 0; blocking < 2; blocking++) {
		struct ctxfd *ctx = make(), *timed;
		struct connecting c = { ctx, -1, (struct sockaddr *)&s.addr, sizeof s.addr };
		struct thread *thread;
		int64_t at;
		int mode;

		c.fd = make_socket(AF_INET, SOCK_STREAM);
		if (!blocking)
			set_nonblocking(c.fd);
		mode = fcntl(c.fd, F_GETFL);
		at = now() + 10 * CTXFD_MSEC;
		timed = ctxfd_with_deadline(ctx, at);
		assert_int_equal(connect_to(timed, c.fd, &s.addr), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		assert_int_equal(fcntl(c.fd, F_GETFL), mode);
		close(c.fd);

		c.fd = make_socket(AF_INET, SOCK_STREAM);
		if (!blocking)
			set_nonblocking(c.fd);
		thread = thread_start(connect_one, &c);
		thread_wait_asleep(thread);
		assert_int_equal(fcntl(c.fd, F_GETFL), mode);
		ctxfd_cancel(ctx);
		assert_int_equal(result(thread), -ECANCELED);
		assert_int_equal(fcntl(c.fd, F_GETFL), mode);
		close(c.fd);
		ctxfd_unref(timed);
		ctxfd_unref(ctx);
	}
	close_stuck(&s);
}

/* Somebody puts another file under the number meanwhile: what became of the connection cannot be asked any more. */
static void a_reused_number_is_told(void **state)
{
	struct ctxfd *ctx = make();
	struct stuck s;
	struct connecting c = { ctx, -1, (struct sockaddr *)&s.addr, sizeof s.addr };
	struct thread *thread;
	int pipe[2], sock;

	make_stuck(&s);
	make_pipe(pipe);
	c.fd = make_socket(AF_INET, SOCK_STREAM);
	thread = thread_start(connect_one, &c);
	thread_wait_asleep(thread);
	sock = fcntl(c.fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(dup3(pipe[1], c.fd, O_CLOEXEC), c.fd);
	assert_int_equal(shutdown(sock, SHUT_RDWR), 0);
	assert_int_equal(result(thread), -ENOTSOCK);
	close(sock);
	close(c.fd);
	close_pair(pipe);
	close_stuck(&s);
	ctxfd_unref(ctx);
}

/* One that was begun without waiting is waited for. */
static void a_connection_begun_before_is_taken_up(void **state)
{
	struct ctxfd *ctx;
	struct stuck s;
	int fd = make_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);

	make_stuck(&s);
	assert_int_equal(connect(fd, (struct sockaddr *)&s.addr, sizeof s.addr), -1);
	assert_int_equal(errno, EINPROGRESS);
	ctx = ctxfd_with_timeout(ctxfd_background(), 10 * CTXFD_MSEC);
	assert_int_equal(connect_to(ctx, fd, &s.addr), -ETIMEDOUT);
	close(fd);
	close_stuck(&s);
	ctxfd_unref(ctx);
}

static atomic_bool held, let_go;

static void hold(int sig)
{
	held = true;
	while (!let_go)
		sched_yield();
}

/* Another thread hears first that the attempt has failed. To the one that waits the socket is still not connected. */
static void a_failure_that_somebody_else_takes_is_told(void **state)
{
	struct sigaction act = { .sa_handler = hold }, was;
	struct ctxfd *ctx = make();
	struct stuck s;
	struct connecting c = { ctx, -1, (struct sockaddr *)&s.addr, sizeof s.addr };

	assert_int_equal(sigaction(SIGUSR1, &act, &was), 0);
	make_stuck(&s);
	for (int blocking = 0; blocking < 2; blocking++) {
		struct thread *thread;
		int error = 0;
		socklen_t size = sizeof error;

		c.fd = make_socket(AF_INET, SOCK_STREAM);
		if (!blocking)
			set_nonblocking(c.fd);
		held = let_go = false;
		thread = thread_start(connect_one, &c);
		thread_wait_asleep(thread);
		assert_int_equal(pthread_kill(thread_pthread(thread), SIGUSR1), 0);
		wait_until(held);
		assert_int_equal(shutdown(c.fd, SHUT_RDWR), 0);
		assert_int_equal(getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
		assert_int_equal(error, ECONNRESET);
		let_go = true;
		assert_int_equal(result(thread), -ECONNABORTED);
		close(c.fd);
	}
	close_stuck(&s);
	assert_int_equal(sigaction(SIGUSR1, &was, NULL), 0);
	ctxfd_close(ctx);
}

static void a_done_context_connects_nothing(void **state)
{
	struct ctxfd *cancelled = make(), *late = ctxfd_with_timeout(ctxfd_background(), 0);
	struct sockaddr_in addr, peer;
	socklen_t size = sizeof peer;
	int listener = make_listener(&addr), fd = make_socket(AF_INET, SOCK_STREAM);

	ctxfd_cancel(cancelled);
	assert_int_equal(connect_to(cancelled, fd, &addr), -ECANCELED);
	assert_int_equal(connect_to(late, fd, &addr), -ETIMEDOUT);
	assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &size), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_not_readable(listener);
	close(fd);
	close(listener);
	ctxfd_unref(late);
	ctxfd_unref(cancelled);
}

static void connect_tells_the_plain_calls_errors(void **state)
{
	struct ctxfd *ctx = make();
	struct sockaddr_in addr;
	struct sockaddr_un nobody;
	socklen_t size = local_address(&nobody);
	int refuser = make_refuser(&addr), local = make_socket(AF_UNIX, SOCK_STREAM), pipe[2];

	make_pipe(pipe);
	assert_int_equal(connect_to(ctx, -1, &addr), -EBADF);
	assert_int_equal(connect_to(ctx, pipe[0], &addr), -ENOTSOCK);
	assert_int_equal(ctxfd_connect(ctx, refuser, (struct sockaddr *)&addr, 1), -EINVAL);
	assert_int_equal(ctxfd_connect(ctx, local, (struct sockaddr *)&nobody, size), -ECONNREFUSED);
	close_pair(pipe);
	close(local);
	close(refuser);
	ctxfd_close(ctx);
}

static void datagram_sockets_connect_at_once(void **state)
{
	struct ctxfd *ctx = make();
	struct sockaddr_in addr = { .sin_family = AF_INET,
		                    .sin_port = htons(9),
		                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = make_socket(AF_INET, SOCK_DGRAM);

	assert_int_equal(connect_to(ctx, fd, &addr), 0);
	close(fd);
	ctxfd_close(ctx);
}

/*
 * A local listener with a full queue: no event tells of room in it, and yet the context ends the wait, or a place in
 * it.
 */
static void a_full_local_listener_is_waited_for(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++) {
		struct ctxfd *ctx = make(), *timed;
		struct sockaddr_un addr;
		socklen_t size = local_address(&addr);
		struct connecting c = { ctx, -1, (struct sockaddr *)&addr, size };
		struct thread *thread;
		int listener = make_socket(AF_UNIX, SOCK_STREAM), queued[4], n = 0, conn, mode;
		int64_t at;

		assert_int_equal(bind(listener, c.addr, size), 0);
		assert_int_equal(listen(listener, 0), 0);
		do
			queued[n] = make_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK);
		while (connect(queued[n++], c.addr, size) == 0 && n < 4);
		assert_int_equal(errno, EAGAIN);

		c.fd = make_socket(AF_UNIX, SOCK_STREAM);
		if (!blocking)
			set_nonblocking(c.fd);
		mode = fcntl(c.fd, F_GETFL);
		at = now() + 40 * CTXFD_MSEC;
		timed = ctxfd_with_deadline(ctx, at);
		assert_int_equal(ctxfd_connect(timed, c.fd, c.addr, size), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		assert_int_equal(fcntl(c.fd, F_GETFL), mode);

		/* By then it will have found the queue full, most of the time. */
		thread = thread_start(connect_one, &c);
		pass_time(5 * CTXFD_MSEC);
		conn = accept(listener, NULL, NULL);
		assert_true(conn >= 0);
		assert_int_equal(result(thread), 0);
		assert_int_equal(fcntl(c.fd, F_GETFL), mode);
		close(c.fd);

		c.fd = make_socket(AF_UNIX, SOCK_STREAM);
		thread = thread_start(connect_one, &c);
		pass_time(5 * CTXFD_MSEC);
		ctxfd_cancel(ctx);
		assert_int_equal(result(thread), -ECANCELED);
		close(c.fd);
		close(conn);
		while (n > 0)
			close(queued[--n]);
		close(listener);
		ctxfd_unref(timed);
		ctxfd_unref(ctx);
	}
}

static void connect_under_signals(void **state)
{
	struct stuck s;

	make_stuck(&s);
	for (int blocking = 0; blocking < 2; blocking++) {
		int64_t at;
		int fd = make_socket(AF_INET, SOCK_STREAM);
		struct ctxfd *ctx;

		if (!blocking)
			set_nonblocking(fd);
		start_ticks(30 * CTXFD_USEC, 0);
		at = now() + 30 * CTXFD_MSEC;
		ctx = ctxfd_with_deadline(ctxfd_background(), at);
		assert_int_equal(connect_to(ctx, fd, &s.addr), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		stop_ticks();
		close(fd);
		ctxfd_close(ctx);
	}
	close_stuck(&s);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(connect_connects),
		cmocka_unit_test(a_refused_socket_can_try_again),
		cmocka_unit_test(a_refused_vsock_is_not_connected),
		cmocka_unit_test(a_connection_in_progress_ends_with_the_context),
		cmocka_unit_test(a_reused_number_is_told),
		cmocka_unit_test(a_connection_begun_before_is_taken_up),
		cmocka_unit_test(a_failure_that_somebody_else_takes_is_told),
		cmocka_unit_test(a_done_context_connects_nothing),
		cmocka_unit_test(connect_tells_the_plain_calls_errors),
		cmocka_unit_test(datagram_sockets_connect_at_once),
		cmocka_unit_test(a_full_local_listener_is_waited_for),
		cmocka_unit_test(connect_under_signals),
	};
	return run_all(tests);
}
