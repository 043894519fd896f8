/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel takes no thread away with a lock, a hold, an fd or memory of the library in hand: with a cancellation
 * pending, every call does its work to the end, except those that wait on the caller's fds: they are cancellation
 * points where they begin and while they wait, and leave nothing behind, be it memory, a mode, a byte or a connection.
 */
#include <sys/stat.h>

#include "race.h"
#include "sockets.h"

static void nothing(void *arg)
{
	(void)arg;
}

static void *use_everything(void *arg)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *timed = ctxfd_with_timeout(parent, 20 * CTXFD_MSEC), *watching;
	struct ctxfd_after *after;
	int *pipes = arg;

	pthread_cancel(pthread_self());
	require(ctxfd_done_fd(parent) >= 0 && ctxfd_done_fd(timed) >= 0);
	require(ctxfd_after_func(timed, nothing, NULL, &after) == 0);
	watching = ctxfd_with_fd(parent, pipes[0], POLLIN, -1);
	require(watching);
	require(ctxfd_wait(timed) == -ETIMEDOUT);
	require(ctxfd_sleep(parent, CTXFD_MSEC) == 0);
	ctxfd_cancel(parent);
	require(ctxfd_wait(watching) == -ECANCELED);
	ctxfd_after_stop(after);
	ctxfd_close(watching);
	ctxfd_close(timed);
	ctxfd_close(parent);
	pthread_testcancel();
	return NULL;
}

static void a_cancelled_thread_leaves_nothing_behind(void **state)
{
	struct thread *thread;
	int pipes[2];

	(void)state;
	make_pipe(pipes);
	thread = thread_start(use_everything, pipes);
	assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	close_pair(pipes);
}

static void *wait_and_return(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC);

	require(ctxfd_poll(ctx, NULL, 0, -1) == -ETIMEDOUT);
	ctxfd_close(ctx);
	pthread_cancel(pthread_self());
	return arg;
}

/* What the thread has of the library goes, and the cancellation does not act there: it returns what it returns. */
static void a_thread_may_return_with_a_cancellation_pending(void **state)
{
	int fds = count_fds(), result;

	(void)state;
	assert_ptr_equal(thread_join(thread_start(wait_and_return, &result)), &result);
	assert_int_equal(count_fds(), fds);
}

static void count_at_a_cancellation_point(void *value)
{
	pthread_testcancel();
	++*(int *)value;
}

static void *free_values(void *arg)
{
	static const char key;
	const struct ctxfd *outer = ctxfd_with_value(ctxfd_background(), &key, arg, count_at_a_cancellation_point);
	const struct ctxfd *inner = ctxfd_with_value(outer, &key, arg, count_at_a_cancellation_point);

	require(outer && inner);
	ctxfd_unref(outer);
	pthread_cancel(pthread_self());
	ctxfd_unref(inner);
	pthread_testcancel();
	return NULL;
}

static void destroy_runs_to_its_end(void **state)
{
	int destroyed = 0;

	(void)state;
	assert_ptr_equal(thread_join(thread_start(free_values, &destroyed)), PTHREAD_CANCELED);
	assert_int_equal(destroyed, 2);
}

/* ---- The calls that wait ----------------------------------------------------------------------------------------- */

enum call { POLL_0, POLL_1, POLL_7, POLL_8, POLL_99, READ, WRITE, RECV, SEND, ACCEPT, CONNECT, CONNECT_LOCAL, CALLS };

/* What each of them waits for, and does not get. */
struct world {
	struct ctxfd *ctx;
	int full[2], empty[2], full_sock[2], empty_sock[2], listener, sock, local_listener, local, queued[4];
	struct stuck stuck;
	struct sockaddr_un addr;
	socklen_t size;
	enum call call;
	bool pending; /* the thread is cancelled before the call */
};

static void make_world(struct world *w)
{
	struct sockaddr_in addr;
	int n = 0;

	w->ctx = ctxfd_with_cancel(ctxfd_background());
	make_pipe(w->full);
	make_pipe(w->empty);
	make_socketpair(w->full_sock);
	make_socketpair(w->empty_sock);
	fill(w->full[1]);
	fill(w->full_sock[1]);
	w->listener = make_listener(&addr);
	make_stuck(&w->stuck);
	w->sock = make_socket(AF_INET, SOCK_STREAM);
	w->size = local_address(&w->addr);
	w->local_listener = make_socket(AF_UNIX, SOCK_STREAM);
	w->local = make_socket(AF_UNIX, SOCK_STREAM);
	assert_int_equal(bind(w->local_listener, (struct sockaddr *)&w->addr, w->size), 0);
	assert_int_equal(listen(w->local_listener, 0), 0);
	for (n = 0; n < (int)COUNT(w->queued); n++) {
		w->queued[n] = make_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK);
		(void)!connect(w->queued[n], (struct sockaddr *)&w->addr, w->size);
	}
}

static void close_world(const struct world *w)
{
	close_pair(w->full);
	close_pair(w->empty);
	close_pair(w->full_sock);
	close_pair(w->empty_sock);
	close(w->listener);
	close(w->sock);
	close(w->local_listener);
	close(w->local);
	for (int n = 0; n < (int)COUNT(w->queued); n++)
		close(w->queued[n]);
	close_stuck(&w->stuck);
	ctxfd_close(w->ctx);
}

static void poll_in_vain(const struct world *w, nfds_t n)
{
	struct pollfd fds[99];

	for (nfds_t i = 0; i < n; i++)
		fds[i] = (struct pollfd){ .fd = w->empty[0], .events = POLLIN };
	ctxfd_poll(w->ctx, fds, n, -1);
}

static void *wait_in_vain(void *arg)
{
	static const nfds_t polls[] = { 0, 1, 7, 8, 99 };
	struct world *w = arg;
	char byte = 0;

	if (w->pending)
		pthread_cancel(pthread_self());
	switch (w->call) {
	case READ:
		ctxfd_read(w->ctx, w->empty[0], &byte, 1);
		break;
	case WRITE:
		ctxfd_write(w->ctx, w->full[1], &byte, 1);
		break;
	case RECV:
		ctxfd_recv(w->ctx, w->empty_sock[0], &byte, 1, 0);
		break;
	case SEND:
		ctxfd_send(w->ctx, w->full_sock[1], &byte, 1, 0);
		break;
	case ACCEPT:
		ctxfd_accept(w->ctx, w->listener, NULL, NULL, SOCK_CLOEXEC);
		break;
	case CONNECT:
		ctxfd_connect(w->ctx, w->sock, (struct sockaddr *)&w->stuck.addr, sizeof w->stuck.addr);
		break;
	case CONNECT_LOCAL:
		ctxfd_connect(w->ctx, w->local, (struct sockaddr *)&w->addr, w->size);
		break;
	default:
		poll_in_vain(w, polls[w->call]);
	}
	return NULL;
}

static void a_waiting_thread_can_be_cancelled(void **state)
{
	struct world w = { 0 };

	(void)state;
	make_world(&w);
	for (w.call = POLL_0; w.call < CALLS; w.call++) {
		struct thread *thread = thread_start(wait_in_vain, &w);

		printf("# call %d\n", w.call);
		thread_wait_asleep(thread);
		assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	}
	assert_int_equal(fcntl(w.sock, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(w.local, F_GETFL) & O_NONBLOCK, 0);
	close_world(&w);
}

/* A poll of none needs no fd, and is a cancellation point without one as well. */
static void a_sleeping_thread_can_be_cancelled_without_fds(void **state)
{
	struct world w = { .ctx = ctxfd_with_cancel(ctxfd_background()), .call = POLL_0 };
	struct thread *thread;

	(void)state;
	exhaust_fds();
	thread = thread_start(wait_in_vain, &w);
	assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
	assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	free_fds();
	ctxfd_close(w.ctx);
}

/* It is acted on before anything is done, whether there is something to do or not, and whether ctx is done or not. */
static void a_pending_cancellation_comes_first(void **state)
{
	struct sockaddr_in addr;
	socklen_t size = sizeof addr;
	struct world w = { .pending = true };
	int client = make_socket(AF_INET, SOCK_STREAM);

	(void)state;
	make_world(&w);
	assert_int_equal(write(w.empty[1], "x", 1), 1);
	assert_int_equal(write(w.empty_sock[1], "x", 1), 1);
	assert_int_equal(getsockname(w.listener, (struct sockaddr *)&addr, &size), 0);
	assert_int_equal(connect(client, (struct sockaddr *)&addr, size), 0);
	wait_readable(w.listener);
	for (int done = 0; done < 2; done++) {
		for (w.call = POLL_0; w.call < CALLS; w.call++) {
			printf("# call %d\n", w.call);
			assert_ptr_equal(thread_join(thread_start(wait_in_vain, &w)), PTHREAD_CANCELED);
		}
		ctxfd_cancel(w.ctx);
	}
	assert_readable(w.empty[0]);
	assert_readable(w.empty_sock[0]);
	assert_readable(w.listener);
	close(client);
	close_world(&w);
}

/* ---- What was consumed ------------------------------------------------------------------------------------------- */

struct taking {
	struct meeting start;
	struct ctxfd *ctx;
	int fd;
	int taken;
};

static void *take_bytes(void *arg)
{
	struct taking *t = arg;
	char byte;

	meet(&t->start, 2);
	while (ctxfd_read(t->ctx, t->fd, &byte, 1) == 1)
		t->taken++;
	return NULL;
}

/* A FIFO, unlike a pipe, knows no RWF_NOWAIT. */
static void make_fifo(int ends[2])
{
	char path[] = "/tmp/ctxfd-XXXXXX", name[40];

	require(mkdtemp(path));
	snprintf(name, sizeof name, "%s/fifo", path);
	require(mkfifo(name, 0600) == 0);
	ends[0] = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ends[1] = open(name, O_WRONLY | O_CLOEXEC);
	require(ends[0] >= 0 && ends[1] >= 0);
	require(unlink(name) == 0 && rmdir(path) == 0);
}

/* Every byte was told to the thread before it ended, or is still there. */
static void no_byte_goes_from(void (*make)(int ends[2]))
{
	enum { BYTES = 2000 };
	static const char bytes[BYTES];

	for (int r = 0; r < rounds(1000); r++) {
		struct taking t = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
		struct thread *thread;
		char rest[BYTES];
		int pair[2];

		make(pair);
		t.fd = pair[0];
		assert_int_equal(write(pair[1], bytes, BYTES), BYTES);
		thread = thread_start(take_bytes, &t);
		meet(&t.start, 2);
		dither((unsigned)(r * 61) % 50000);
		assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
		if (t.taken < BYTES)
			assert_int_equal(read(pair[0], rest, BYTES), BYTES - t.taken);
		close_pair(pair);
		ctxfd_close(t.ctx);
	}
}

static void no_byte_goes_with_a_cancelled_thread(void **state)
{
	(void)state;
	no_byte_goes_from(make_socketpair);
	no_byte_goes_from(make_fifo);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cancelled_thread_leaves_nothing_behind),
		cmocka_unit_test(a_thread_may_return_with_a_cancellation_pending),
		cmocka_unit_test(destroy_runs_to_its_end),
		cmocka_unit_test(a_waiting_thread_can_be_cancelled),
		cmocka_unit_test(a_sleeping_thread_can_be_cancelled_without_fds),
		cmocka_unit_test(a_pending_cancellation_comes_first),
		cmocka_unit_test(no_byte_goes_with_a_cancelled_thread),
	};

	start_dispatcher();
	return run_all(tests);
}
