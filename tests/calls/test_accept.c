/* SPDX-License-Identifier: MIT */
/* ctxfd_accept: what accept4 does, until the context ends. */
#include "race.h"
#include "sockets.h"
#include "ticks.h"

#include <semaphore.h>

/* One thread can be stopped as it accepts. */
static pthread_t held_thread;
static atomic_bool hold;
static sem_t held, let_go;

int __real_accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags);

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags)
{
	if (hold && pthread_equal(pthread_self(), held_thread)) {
		hold = false;
		require(sem_post(&held) == 0);
		while (sem_wait(&let_go) != 0)
			continue;
	}
	return __real_accept4(fd, addr, size, flags);
}

static struct ctxfd *make(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	assert_non_null(ctx);
	return ctx;
}

static int dial(const struct sockaddr_in *addr)
{
	int fd = make_socket(AF_INET, SOCK_STREAM);

	assert_int_equal(connect(fd, (const struct sockaddr *)addr, sizeof *addr), 0);
	return fd;
}

struct accepting {
	const struct ctxfd *ctx;
	int fd;
};

static void *accept_one(void *arg)
{
	struct accepting *a = arg;

	return (void *)(intptr_t)ctxfd_accept(a->ctx, a->fd, NULL, NULL, SOCK_CLOEXEC);
}

static int result(struct thread *thread)
{
	return (int)(intptr_t)thread_join(thread);
}

static void a_connection_that_is_there_is_accepted(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++)
		for (int flags = 0; flags < 2; flags++) {
			struct ctxfd *ctx = make();
			struct sockaddr_in addr, from, local;
			socklen_t size = sizeof from, local_size = sizeof local;
			int listener = make_listener(&addr), client = dial(&addr), conn, mode, before;
			char byte = 0;

			wait_readable(listener); /* connect can return a moment earlier */
			if (!blocking)
				set_nonblocking(listener);
			mode = fcntl(listener, F_GETFL);
			before = count_fds();
			conn = ctxfd_accept(ctx, listener, (struct sockaddr *)&from, &size,
			                    flags ? SOCK_CLOEXEC | SOCK_NONBLOCK : 0);
			assert_true(conn >= 0);
			assert_int_equal(count_fds(), before + 1);
			assert_int_equal(fcntl(listener, F_GETFL), mode);
			assert_int_equal(fcntl(conn, F_GETFD), flags ? FD_CLOEXEC : 0);
			assert_int_equal(fcntl(conn, F_GETFL) & O_NONBLOCK, flags ? O_NONBLOCK : 0);
			assert_int_equal(size, sizeof from);
			assert_int_equal(getsockname(client, (struct sockaddr *)&local, &local_size), 0);
			assert_int_equal(from.sin_port, local.sin_port);
			assert_int_equal(write(client, "x", 1), 1);
			assert_int_equal(ctxfd_read(ctx, conn, &byte, 1), 1);
			assert_int_equal(byte, 'x');
			close(conn);
			close(client);
			close(listener);
			ctxfd_close(ctx);
		}
}

static void accept_waits_and_ends_with_the_context(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++) {
		struct ctxfd *ctx = make(), *timed;
		struct sockaddr_in addr, from = { .sin_port = 99 };
		socklen_t size = sizeof from;
		struct accepting a = { ctx, make_listener(&addr) };
		struct thread *thread;
		int client, conn, mode;
		int64_t at;

		if (!blocking)
			set_nonblocking(a.fd);
		mode = fcntl(a.fd, F_GETFL);
		thread = thread_start(accept_one, &a);
		thread_wait_asleep(thread);
		assert_int_equal(fcntl(a.fd, F_GETFL), mode);
		client = dial(&addr);
		conn = result(thread);
		assert_true(conn >= 0);
		close(conn);
		close(client);

		at = now() + 5 * CTXFD_MSEC;
		timed = ctxfd_with_deadline(ctx, at);
		assert_int_equal(ctxfd_accept(timed, a.fd, (struct sockaddr *)&from, &size, 0), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		assert_int_equal(from.sin_port, 99);
		assert_int_equal(size, sizeof from);

		thread = thread_start(accept_one, &a);
		thread_wait_asleep(thread);
		ctxfd_cancel(ctx);
		assert_int_equal(result(thread), -ECANCELED);
		assert_int_equal(fcntl(a.fd, F_GETFL), mode);

		/* Done already: what is there stays there. */
		client = dial(&addr);
		assert_int_equal(ctxfd_accept(ctx, a.fd, NULL, NULL, 0), -ECANCELED);
		assert_int_equal(ctxfd_accept(timed, a.fd, NULL, NULL, 0), -ETIMEDOUT);
		conn = accept(a.fd, NULL, NULL);
		assert_true(conn >= 0);
		close(conn);
		close(client);
		close(a.fd);
		ctxfd_unref(timed);
		ctxfd_unref(ctx);
	}
}

static void accept_tells_the_plain_calls_errors(void **state)
{
	struct ctxfd *ctx = make();
	struct sockaddr_in addr;
	int plain = make_socket(AF_INET, SOCK_STREAM), datagram = make_socket(AF_INET, SOCK_DGRAM), pipe[2];
	int listener = make_listener(&addr), client;

	make_pipe(pipe);
	assert_int_equal(ctxfd_accept(ctx, -1, NULL, NULL, 0), -EBADF);
	assert_int_equal(ctxfd_accept(ctx, pipe[0], NULL, NULL, 0), -ENOTSOCK);
	assert_int_equal(ctxfd_accept(ctx, plain, NULL, NULL, 0), -EINVAL);
	assert_int_equal(ctxfd_accept(ctx, datagram, NULL, NULL, 0), -EOPNOTSUPP);
	assert_int_equal(ctxfd_accept(ctx, listener, NULL, NULL, 1), -EINVAL);
	assert_int_equal(ctxfd_accept(ctx, listener, NULL, NULL, SOCK_CLOEXEC | O_APPEND), -EINVAL);
	assert_int_equal(ctxfd_accept(ctx, -1, NULL, NULL, 1), -EBADF);

	client = dial(&addr);
	exhaust_fds();
	assert_int_equal(ctxfd_accept(ctx, listener, NULL, NULL, 0), -EMFILE); /* no number for the connection */
	free_fds();
	close(client);
	close_pair(pipe);
	close(datagram);
	close(plain);
	close(listener);
	ctxfd_close(ctx);
}

/* One connection for many threads on a listener in blocking mode: one takes it, the context reaches the rest. */
static void threads_share_a_listener(void **state)
{
	for (int r = 0; r < 100; r++) {
		struct ctxfd *ctx = make();
		struct sockaddr_in addr;
		struct accepting a = { ctx, make_listener(&addr) };
		struct thread *threads[5];
		int client, accepted = 0;

		if (r % 2)
			set_nonblocking(a.fd);
		for (size_t i = 0; i < COUNT(threads); i++)
			threads[i] = thread_start(accept_one, &a);
		if (r % 20 == 0)
			for (size_t i = 0; i < COUNT(threads); i++)
				thread_wait_asleep(threads[i]);
		client = dial(&addr);
		wait_until(!readable(a.fd));
		ctxfd_cancel(ctx);
		for (size_t i = 0; i < COUNT(threads); i++) {
			int conn = result(threads[i]);

			assert_true(conn >= 0 || conn == -ECANCELED);
			if (conn >= 0) {
				accepted++;
				close(conn);
			}
		}
		assert_int_equal(accepted, 1);
		close(client);
		close(a.fd);
		ctxfd_unref(ctx);
	}
}

/* Another process takes the connection that one thread has seen: that one waits on, but no other does. */
static void *accept_late(void *arg)
{
	held_thread = pthread_self();
	hold = true;
	return accept_one(arg);
}

static void who_waits_on_holds_up_nobody(void **state)
{
	struct sockaddr_in addr;
	struct accepting a = { make(), make_listener(&addr) };
	struct ctxfd *brief;
	struct thread *thread;
	int client = dial(&addr);

	assert_int_equal(sem_init(&held, 0, 0) | sem_init(&let_go, 0, 0), 0);
	wait_readable(a.fd);
	thread = thread_start(accept_late, &a);
	while (sem_wait(&held) != 0)
		continue;
	brief = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);
	assert_int_equal(ctxfd_accept(brief, a.fd, NULL, NULL, 0), -ETIMEDOUT);
	assert_int_equal(sem_post(&let_go), 0);
	close(result(thread));
	close(client);
	close(a.fd);
	ctxfd_close(brief);
	ctxfd_close((struct ctxfd *)(uintptr_t)a.ctx);
}

struct accepting_on {
	struct meeting start, end;
	struct ctxfd *ctx;
	int fd, rounds, result;
};

static int accept_in_child(void *arg)
{
	struct accepting a = { .fd = *(int *)arg };
	struct ctxfd *timed = ctxfd_with_timeout(ctxfd_background(), 10 * slow() * CTXFD_SEC);
	int conn = ctxfd_accept(timed, a.fd, NULL, NULL, SOCK_CLOEXEC);

	require(conn >= 0);
	close(conn);
	ctxfd_close(timed);
	return 0;
}

/* The thread that is accepting at the fork is its parent's. */
static void a_child_does_not_wait_for_its_parents_thread(void **state)
{
	struct sockaddr_in addr;
	struct accepting a = { make(), make_listener(&addr) };
	int clients[] = { dial(&addr), dial(&addr) }, conn;
	struct thread *thread;

	assert_int_equal(sem_init(&held, 0, 0), 0);
	assert_int_equal(sem_init(&let_go, 0, 0), 0);
	wait_readable(a.fd);
	thread = thread_start(accept_late, &a);
	while (sem_wait(&held) != 0)
		continue;
	assert_int_equal(in_child(accept_in_child, &a.fd), 0);
	assert_int_equal(sem_post(&let_go), 0);
	conn = result(thread);
	assert_true(conn >= 0);
	close(conn);
	for (size_t i = 0; i < COUNT(clients); i++)
		close(clients[i]);
	close(a.fd);
	ctxfd_unref(a.ctx);
}

static void *keep_accepting(void *arg)
{
	struct accepting_on *a = arg;

	for (int r = 0; r < a->rounds; r++) {
		meet(&a->start, 2);
		a->result = ctxfd_accept(a->ctx, a->fd, NULL, NULL, SOCK_CLOEXEC);
		meet(&a->end, 2);
	}
	return NULL;
}

/* A connection and the end come at once: it is accepted or still there to be accepted. */
static void no_connection_is_lost(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++) {
		struct accepting_on a = { .rounds = rounds(1000) };
		struct sockaddr_in addr;
		struct thread *thread;
		int client, conn;

		a.fd = make_listener(&addr);
		if (!blocking)
			set_nonblocking(a.fd);
		thread = thread_start(keep_accepting, &a);
		for (int r = 0; r < a.rounds; r++) {
			a.ctx = make();
			meet(&a.start, 2);
			dither((unsigned)(r * 61) % 5000);
			if (r % 2)
				ctxfd_cancel(a.ctx);
			client = dial(&addr);
			if (r % 2 == 0)
				ctxfd_cancel(a.ctx);
			meet(&a.end, 2);
			if (a.result < 0) {
				assert_int_equal(a.result, -ECANCELED);
				wait_readable(a.fd); /* connect can return a moment earlier */
				conn = accept4(a.fd, NULL, NULL, SOCK_CLOEXEC);
				assert_true(conn >= 0);
			} else {
				conn = a.result;
				assert_not_readable(a.fd);
			}
			close(conn);
			close(client);
			ctxfd_unref(a.ctx);
		}
		thread_join(thread);
		close(a.fd);
	}
}

static void accept_under_signals(void **state)
{
	static const int flags[] = { 0, SA_RESTART };
	struct sockaddr_in addr;

	for (size_t i = 0; i < 2 * COUNT(flags); i++) {
		int64_t until = now() + 150 * CTXFD_MSEC;
		int listener = make_listener(&addr);

		if (i / 2)
			set_nonblocking(listener);
		start_ticks(30 * CTXFD_USEC, flags[i % 2]);
		do {
			int64_t at = now() + 100 * CTXFD_USEC;
			struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);

			assert_int_equal(ctxfd_accept(ctx, listener, NULL, NULL, 0), -ETIMEDOUT);
			assert_elapsed(at, 0, CTXFD_SEC);
			ctxfd_close(ctx);
		} while (now() < until);
		stop_ticks();
		close(listener);
	}
}

static void local_sockets_are_accepted_too(void **state)
{
	struct ctxfd *ctx = make();
	struct sockaddr_un addr;
	socklen_t size = local_address(&addr);
	struct accepting a = { ctx, make_socket(AF_UNIX, SOCK_STREAM) };
	int client = make_socket(AF_UNIX, SOCK_STREAM), conn;
	struct thread *thread;

	assert_int_equal(bind(a.fd, (struct sockaddr *)&addr, size), 0);
	assert_int_equal(listen(a.fd, 1), 0);
	thread = thread_start(accept_one, &a);
	thread_wait_asleep(thread);
	assert_int_equal(ctxfd_connect(ctx, client, (struct sockaddr *)&addr, size), 0);
	conn = result(thread);
	assert_true(conn >= 0);
	close(conn);
	close(client);
	close(a.fd);
	ctxfd_close(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connection_that_is_there_is_accepted),
		cmocka_unit_test(accept_waits_and_ends_with_the_context),
		cmocka_unit_test(accept_tells_the_plain_calls_errors),
		cmocka_unit_test(threads_share_a_listener),
		cmocka_unit_test(who_waits_on_holds_up_nobody),
		cmocka_unit_test(a_child_does_not_wait_for_its_parents_thread),
		cmocka_unit_test(no_connection_is_lost),
		cmocka_unit_test(accept_under_signals),
		cmocka_unit_test(local_sockets_are_accepted_too),
	};
	return run_all(tests);
}
