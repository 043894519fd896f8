/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_read, write, recv and send in particular: flags, sizes, errors, files, signals. test_io.c has what is common to
 * all kinds.
 */
#include "kinds.h"
#include "ticks.h"

#include <netinet/tcp.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#define FAR (3600 * CTXFD_SEC)

static struct ctxfd *make(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	assert_non_null(ctx);
	return ctx;
}

/* A context that ends soon, for waits for what does not come. */
static struct ctxfd *make_brief(void)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3 * CTXFD_MSEC);

	assert_non_null(ctx);
	return ctx;
}

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

static void errors_are_those_of_the_plain_calls(void **state)
{
	struct ctxfd *ctx = make();
	char buf[10] = "";
	int pipe[2], pair[2], tcp, dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	                           full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	make_pipe(pipe);
	make_socketpair(pair);
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	signal(SIGPIPE, SIG_IGN);

	assert_int_equal(ctxfd_read(ctx, -1, buf, 1), -EBADF);
	assert_int_equal(ctxfd_read(ctx, 9999, buf, 1), -EBADF);
	assert_int_equal(ctxfd_write(ctx, -1, buf, 1), -EBADF);
	assert_int_equal(ctxfd_recv(ctx, -1, buf, 1, 0), -EBADF);
	assert_int_equal(ctxfd_send(ctx, 9999, buf, 1, 0), -EBADF);
	assert_int_equal(ctxfd_read(ctx, pipe[1], buf, 1), -EBADF);
	assert_int_equal(ctxfd_write(ctx, pipe[0], buf, 1), -EBADF);
	assert_int_equal(ctxfd_recv(ctx, pipe[0], buf, 1, 0), -ENOTSOCK);
	assert_int_equal(ctxfd_send(ctx, pipe[1], buf, 1, 0), -ENOTSOCK);
	assert_int_equal(ctxfd_read(ctx, dir, buf, 1), -EISDIR);
	assert_int_equal(ctxfd_write(ctx, full, buf, 1), -ENOSPC);
	assert_int_equal(ctxfd_recv(ctx, tcp, buf, 1, 0), -ENOTCONN);

	close(pipe[0]);
	close(pair[0]);
	assert_int_equal(ctxfd_write(ctx, pipe[1], buf, 1), -EPIPE);
	assert_int_equal(ctxfd_write(ctx, pair[1], buf, 1), -EPIPE);
	assert_int_equal(ctxfd_send(ctx, pair[1], buf, 1, MSG_NOSIGNAL), -EPIPE);
	assert_int_equal(ctxfd_read(ctx, pair[1], buf, 1), 0);
	signal(SIGPIPE, SIG_DFL);
	close(pipe[1]);
	close(pair[1]);
	close(tcp);
	close(dir);
	close(full);
	ctxfd_close(ctx);
}

static void a_reset_connection_says_so(void **state)
{
	struct ctxfd *ctx = make();
	struct linger abort = { .l_onoff = 1 };
	char buf[10];
	int pair[2];

	make_connection(pair);
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &abort, sizeof abort), 0);
	close(pair[1]);
	assert_int_equal(ctxfd_read(ctx, pair[0], buf, sizeof buf), -ECONNRESET);
	close(pair[0]);
	ctxfd_close(ctx);
}

static void *close_it(void *arg)
{
	close(*(int *)arg);
	return NULL;
}

struct reading {
	const struct ctxfd *ctx;
	int fd;
};

static void *read_one(void *arg)
{
	struct reading *r = arg;
	char byte;

	return (void *)ctxfd_read(r->ctx, r->fd, &byte, 1);
}

static void the_end_of_a_stream_ends_the_wait(void **state)
{
	static void (*const makers[])(int[2]) = { make_pipe, make_socketpair, make_connection };

	for (size_t i = 0; i < COUNT(makers); i++) {
		struct ctxfd *ctx = make();
		int fds[2];
		struct reading r = { ctx, -1 };
		struct thread *thread;

		makers[i](fds);
		r.fd = fds[0];
		thread = thread_start(read_one, &r);
		thread_wait_asleep(thread);
		close_it(&fds[1]);
		assert_int_equal((ssize_t)thread_join(thread), 0);
		close(fds[0]);
		ctxfd_close(ctx);
	}
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

/* A read of nothing is done at once; a write of nothing as well, but as an empty message where there are messages. */
static void nothing(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx, *brief;
	char buf[10];
	int fds[2];

	if (kind->one_fd)
		return; /* an eventfd takes eight bytes or an error */
	ctx = make();
	make_kind(kind, fds, blocking);
	assert_int_equal(ctxfd_read(ctx, fds[0], buf, 0), 0);
	assert_int_equal(ctxfd_write(ctx, fds[1], "", 0), 0);
	if (kind->messages) {
		assert_int_equal(ctxfd_read(ctx, fds[0], buf, sizeof buf), 0);
		assert_int_equal(ctxfd_send(ctx, fds[1], "", 0, 0), 0);
		assert_int_equal(ctxfd_recv(ctx, fds[0], buf, sizeof buf, 0), 0);
		fill_up(kind, fds);
		brief = make_brief();
		assert_int_equal(ctxfd_write(brief, fds[1], "", 0), -ETIMEDOUT);
		ctxfd_close(brief);
		brief = make_brief();
		assert_int_equal(ctxfd_send(brief, fds[1], "", 0, 0), -ETIMEDOUT);
		ctxfd_close(brief);
	}
	close_kind(kind, fds);
	ctxfd_close(ctx);
}

static void nothing_is_read_and_written(void **state)
{
	with_all_kinds(nothing);
}

static void messages_keep_their_bounds(void **state)
{
	struct ctxfd *ctx = make();
	char buf[10];
	int pair[2];

	make_datagram(pair);
	assert_int_equal(ctxfd_write(ctx, pair[1], "one", 3), 3);
	assert_int_equal(ctxfd_send(ctx, pair[1], "second", 6, 0), 6);
	assert_int_equal(ctxfd_read(ctx, pair[0], buf, sizeof buf), 3);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, 2, MSG_TRUNC), 6);
	assert_memory_equal(buf, "se", 2);
	/* A recv of nothing takes a message, or waits for one. */
	assert_int_equal(ctxfd_send(ctx, pair[1], "third", 5, 0), 5);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, 0, 0), 0);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, 1, MSG_DONTWAIT), -EAGAIN);
	close_pair(pair);
	ctxfd_close(ctx);
}

/* ---- Flags ------------------------------------------------------------------------------------------------------- */

static void flags_are_passed_on(void **state)
{
	struct ctxfd *ctx = make();
	char buf[10] = "";
	int pair[2];

	make_connection(pair);
	assert_int_equal(ctxfd_send(ctx, pair[1], "abc", 3, MSG_NOSIGNAL), 3);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, sizeof buf, MSG_PEEK), 3);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, 2, MSG_PEEK), 2);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, sizeof buf, 0), 3);
	assert_memory_equal(buf, "abc", 3);

	assert_int_equal(ctxfd_send(ctx, pair[1], "!", 1, MSG_OOB), 1);
	wait_poll(pair[0], POLLPRI);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, sizeof buf, MSG_OOB), 1);
	assert_int_equal(buf[0], '!');

	/* It returns what is there although it was told to wait for all. */
	assert_int_equal(ctxfd_send(ctx, pair[1], "abc", 3, 0), 3);
	wait_readable(pair[0]);
	assert_int_equal(ctxfd_recv(ctx, pair[0], buf, sizeof buf, MSG_WAITALL), 3);
	close_pair(pair);
	ctxfd_close(ctx);
}

/* One try, and no done fd for it. */
static void try_once(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx;
	char buf[10] = "";
	int fds[2], before;
	ssize_t n;

	if (!kind->socket)
		return;
	ctx = make();
	make_kind(kind, fds, blocking);
	before = count_fds();
	assert_int_equal(ctxfd_recv(ctx, fds[0], buf, sizeof buf, MSG_DONTWAIT), -EAGAIN);
	fill_up(kind, fds);
	while ((n = ctxfd_send(ctx, fds[1], buf, sizeof buf, MSG_DONTWAIT)) > 0)
		continue;
	assert_int_equal(n, -EAGAIN);
	assert_true(ctxfd_recv(ctx, fds[0], buf, sizeof buf, MSG_DONTWAIT) > 0);
	assert_int_equal(count_fds(), before);
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_recv(ctx, fds[0], buf, sizeof buf, MSG_DONTWAIT), -ECANCELED);
	close_kind(kind, fds);
	ctxfd_unref(ctx);
}

static void msg_dontwait_is_one_try(void **state)
{
	with_all_kinds(try_once);
}

/* The context takes the place of the socket's own timeouts, which would end a plain call much earlier. */
static void a_sockets_own_timeout_does_not_count(void **state)
{
	struct timeval soon = { 0, 1000 };
	int pair[2];
	char byte = 0;

	make_socketpair(pair);
	fill(pair[1]);
	for (int i = 0; i < 2; i++)
		assert_int_equal(setsockopt(pair[i], SOL_SOCKET, i ? SO_SNDTIMEO : SO_RCVTIMEO, &soon, sizeof soon), 0);
	for (int out = 0; out < 2; out++) {
		int64_t at = now() + 20 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);

		assert_int_equal(out ? ctxfd_send(ctx, pair[1], &byte, 1, 0) : ctxfd_read(ctx, pair[1], &byte, 1),
		                 -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_close(ctx);
	}
	close_pair(pair);
}

/* With TCP_FASTOPEN_CONNECT a send opens the connection, and waits until it can send. */
static void a_send_that_opens_the_connection_waits_for_it(void **state)
{
	for (int blocking = 0; blocking < 2; blocking++) {
		for (int refused = 0; refused < 2; refused++) {
			struct ctxfd *ctx = make();
			struct sockaddr_in addr;
			int other = refused ? make_refuser(&addr) : make_listener(&addr), one = 1, conn;
			int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
			char byte;

			if (setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one) != 0 ||
			    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &one, sizeof one) != 0) {
				close(fd);
				close(other);
				ctxfd_close(ctx);
				skip_test("the kernel opens no connection by a send");
			}
			assert_int_equal(ctxfd_connect(ctx, fd, (struct sockaddr *)&addr, sizeof addr), 0);
			/* Nothing travels with the first packet, as where the kernel has no cookie any more. */
			assert_int_equal(ctxfd_send(ctx, fd, "", 0, MSG_NOSIGNAL), refused ? -ECONNREFUSED : 0);
			if (!refused) {
				assert_int_equal(ctxfd_write(ctx, fd, "x", 1), 1);
				conn = accept(other, NULL, NULL);
				assert_int_equal(read(conn, &byte, 1), 1);
				close(conn);
			}
			close(fd);
			close(other);
			ctxfd_close(ctx);
		}
	}
}

static void recv_and_send_wait_and_end(const struct kind *kind, bool blocking)
{
	struct ctxfd *brief;
	char buf[10] = "";
	int fds[2], modes[2];
	ssize_t n;

	if (!kind->socket)
		return;
	make_kind(kind, fds, blocking);
	modes[0] = fcntl(fds[0], F_GETFL);
	modes[1] = fcntl(fds[1], F_GETFL);
	brief = make_brief();
	assert_int_equal(ctxfd_recv(brief, fds[0], buf, sizeof buf, 0), -ETIMEDOUT);
	ctxfd_close(brief);
	fill_up(kind, fds);
	brief = make_brief();
	while ((n = ctxfd_send(brief, fds[1], buf, sizeof buf, 0)) > 0)
		continue;
	assert_int_equal(n, -ETIMEDOUT);
	ctxfd_close(brief);
	assert_int_equal(fcntl(fds[0], F_GETFL), modes[0]);
	assert_int_equal(fcntl(fds[1], F_GETFL), modes[1]);
	close_kind(kind, fds);
}

static void recv_and_send_end_with_the_context(void **state)
{
	with_all_kinds(recv_and_send_wait_and_end);
}

/* ---- Ready, but not for this ------------------------------------------------------------------------------------- */

/* poll finds room in it, only not for so much: the context ends the call all the same. */
static void an_eventfd_with_too_little_room(void **state)
{
	struct ctxfd *brief;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t much = UINT64_MAX - 5, more = 10;

	assert_int_equal(write(fd, &much, sizeof much), sizeof much);
	wait_poll(fd, POLLOUT);
	brief = make_brief();
	assert_int_equal(ctxfd_write(brief, fd, &more, sizeof more), -ETIMEDOUT);
	close(fd);
	ctxfd_close(brief);
}

/* There is data, but what was asked for is an error message, and there is none. */
static void data_is_no_error_message(void **state)
{
	struct ctxfd *brief;
	char buf[10];
	ssize_t n;
	int pair[2];

	make_connection(pair);
	assert_int_equal(write(pair[1], "x", 1), 1);
	wait_readable(pair[0]);
	brief = make_brief();
	n = ctxfd_recv(brief, pair[0], buf, sizeof buf, MSG_ERRQUEUE);
	assert_int_equal(n, -EAGAIN); /* recv itself never waits for one */
	close_pair(pair);
	ctxfd_close(brief);
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

static void files_are_read_and_written_in_order(void **state)
{
	char name[] = "/tmp/ctxfd-test-XXXXXX", buf[20];
	int files[] = { mkostemp(name, O_CLOEXEC), memfd_create("test", MFD_CLOEXEC) };
	struct ctxfd *ctx = make(), *done = make();
	int before;

	unlink(name);
	ctxfd_cancel(done);
	before = count_fds();
	for (size_t i = 0; i < COUNT(files); i++) {
		int fd = files[i];

		assert_true(fd >= 0);
		assert_int_equal(ctxfd_write(ctx, fd, "hello ", 6), 6);
		assert_int_equal(ctxfd_write(ctx, fd, "world", 5), 5);
		assert_int_equal(ctxfd_write(done, fd, "!", 1), -ECANCELED);
		assert_int_equal(lseek(fd, 0, SEEK_CUR), 11);
		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		assert_int_equal(ctxfd_read(done, fd, buf, 1), -ECANCELED);
		assert_int_equal(ctxfd_read(ctx, fd, buf, 4), 4);
		assert_int_equal(ctxfd_read(ctx, fd, buf + 4, sizeof buf - 4), 7);
		assert_memory_equal(buf, "hello world", 11);
		assert_int_equal(ctxfd_read(ctx, fd, buf, sizeof buf), 0);
		close(fd);
	}
	assert_int_equal(count_fds(), before - (int)COUNT(files));
	ctxfd_unref(done);
	ctxfd_close(ctx);
}

/* Larger than a pipe's worth: what is on a disk is not given in small pieces. */
static void a_file_takes_all_at_once(void **state)
{
	enum { SIZE = 1 << 20 };
	char name[] = "/tmp/ctxfd-test-XXXXXX", *buf = malloc(SIZE);
	int fd = mkostemp(name, O_CLOEXEC);
	struct ctxfd *ctx = make();

	unlink(name);
	memset(buf, 'x', SIZE);
	assert_int_equal(ctxfd_write(ctx, fd, buf, SIZE), SIZE);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_true(ctxfd_read(ctx, fd, buf, SIZE) > 0);
	close(fd);
	free(buf);
	ctxfd_close(ctx);
}

static void devices_without_waiting(void **state)
{
	struct ctxfd *ctx = make();
	char buf[10] = "xxxxxxxxx";
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), zero = open("/dev/zero", O_RDWR | O_CLOEXEC);

	assert_int_equal(ctxfd_write(ctx, null, buf, sizeof buf), sizeof buf);
	assert_int_equal(ctxfd_read(ctx, null, buf, sizeof buf), 0);
	assert_int_equal(ctxfd_read(ctx, zero, buf, sizeof buf), sizeof buf);
	assert_int_equal(buf[5], 0);
	close(null);
	close(zero);
	ctxfd_close(ctx);
}

static void a_timer_is_waited_for(void **state)
{
	struct ctxfd *ctx = make(), *brief = make_brief();
	struct itimerspec soon = { .it_value.tv_nsec = 5 * CTXFD_MSEC };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t count = 0;

	assert_int_equal(ctxfd_read(brief, timer, &count, sizeof count), -ETIMEDOUT);
	assert_int_equal(timerfd_settime(timer, 0, &soon, NULL), 0);
	assert_int_equal(ctxfd_read(ctx, timer, &count, sizeof count), sizeof count);
	assert_true(count == 1);
	close(timer);
	ctxfd_close(brief);
	ctxfd_close(ctx);
}

/* A read of nothing from an inotify descriptor would wait for an event, and then not know where to put it. */
static void a_read_of_nothing_never_waits(void **state)
{
	struct ctxfd *ctx = make();
	int watch = inotify_init1(IN_CLOEXEC);
	char byte;

	assert_int_equal(ctxfd_read(ctx, watch, &byte, 0), 0);
	assert_int_equal(ctxfd_read(ctx, -1, &byte, 0), -EBADF);
	close(watch);
	ctxfd_close(ctx);
}

/* The kernel's log looks like a file and takes no write that poll foresees. */
static void the_kernels_log_ends_with_the_context(void **state)
{
	static char buf[8192];
	int log = open("/proc/kmsg", O_RDONLY | O_CLOEXEC);
	struct ctxfd *brief;
	ssize_t n;

	if (log < 0)
		skip_test("/proc/kmsg is not ours to read");
	brief = ctxfd_with_timeout(ctxfd_background(), 50 * CTXFD_MSEC);
	while ((n = ctxfd_read(brief, log, buf, sizeof buf)) > 0)
		continue;
	assert_int_equal(n, -ETIMEDOUT);
	close(log);
	ctxfd_close(brief);
}

static void the_kernels_log_is_written(void **state)
{
	int log = open("/dev/kmsg", O_RDWR | O_CLOEXEC);
	struct ctxfd *brief;

	if (log < 0)
		skip_test("/dev/kmsg is not ours to write");
	brief = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC * slow());
	assert_int_equal(ctxfd_write(brief, log, "<7>ctxfd's test\n", 17), 17);
	close(log);
	ctxfd_close(brief);
}

struct question {
	int group;
	const char *name;
};

/* Opens the file, and may go on once that is answered, or once nobody is left who could. */
static int open_it(void *arg)
{
	struct question *q = arg;

	close(q->group);
	return open(q->name, O_RDONLY | O_CLOEXEC) < 0;
}

static void *answer_one(void *arg)
{
	struct reading *r = arg;
	struct fanotify_event_metadata event;
	struct fanotify_response answer = { .response = FAN_ALLOW };

	require(ctxfd_read(r->ctx, r->fd, &event, sizeof event) == sizeof event);
	answer.fd = event.fd;
	require(ctxfd_write(r->ctx, r->fd, &answer, sizeof answer) == sizeof answer);
	close(event.fd);
	return NULL;
}

static void fanotify_is_answered(void **state)
{
	char name[] = "/tmp/ctxfd-test-XXXXXX";
	struct reading r = { .fd = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC) };
	struct question question = { r.fd, name };
	struct ctxfd *brief;
	struct thread *thread;
	int file;

	if (r.fd < 0)
		skip_test("fanotify is not there, or not for us");
	file = mkostemp(name, O_CLOEXEC);
	if (fanotify_mark(r.fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, name) != 0) {
		close(file);
		close(r.fd);
		unlink(name);
		skip_test("fanotify knows no permissions here");
	}
	r.ctx = brief = ctxfd_with_timeout(ctxfd_background(), 10 * CTXFD_SEC * slow());
	thread = thread_start(answer_one, &r);
	assert_int_equal(in_child(open_it, &question), 0);
	thread_join(thread);
	unlink(name);
	close(file);
	close(r.fd);
	ctxfd_close(brief);
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

static int sigaction_flags;

/* Many short waits, since a signal does most harm when it comes just before one. */
static void wait_under_signals(const struct kind *kind, int fd, bool out)
{
	int64_t until = now() + 10 * CTXFD_MSEC;
	uint64_t data[2] = { 1, 1 };

	start_ticks(30 * CTXFD_USEC, sigaction_flags);
	do {
		int64_t at = now() + 100 * CTXFD_USEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);

		if (out)
			assert_int_equal(write_on(ctx, fd, data, kind->one_fd ? sizeof *data : 1), -ETIMEDOUT);
		else
			assert_int_equal(ctxfd_read(ctx, fd, data, sizeof data), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_close(ctx);
	} while (now() < until || ticks == 0);
	stop_ticks();
}

static void read_and_write_under_signals(const struct kind *kind, bool blocking)
{
	int fds[2];

	make_kind(kind, fds, blocking);
	wait_under_signals(kind, fds[0], false);
	fill_up(kind, fds);
	wait_under_signals(kind, fds[1], true);
	close_kind(kind, fds);
}

static void signals_change_nothing(void **state)
{
	sigaction_flags = 0;
	with_all_kinds(read_and_write_under_signals);
}

/* With these the kernel goes back into a read that blocks by itself. */
static void restarting_signals_change_nothing(void **state)
{
	sigaction_flags = SA_RESTART;
	for (int i = 0; i < 3; i++)
		with_all_kinds(read_and_write_under_signals);
}

/* ---- Descriptors ------------------------------------------------------------------------------------------------- */

static void without_a_free_number(const struct kind *kind, bool blocking)
{
	struct ctxfd *ctx = make(), *timed = ctxfd_with_timeout(ctx, CTXFD_MSEC);
	char buf[10];
	int fds[2];

	make_kind(kind, fds, blocking);
	exhaust_fds();
	assert_int_equal(ctxfd_read(timed, fds[0], buf, sizeof buf), -ETIMEDOUT);
	assert_int_equal(ctxfd_write(ctx, fds[1], &eight, sizeof eight), sizeof eight);
	wait_readable(fds[0]);
	assert_int_equal(ctxfd_read(ctx, fds[0], buf, sizeof buf), sizeof eight);
	free_fds();
	close_kind(kind, fds);
	ctxfd_close(timed);
	ctxfd_close(ctx);
}

static void waiting_needs_no_fd(void **state)
{
	with_all_kinds(without_a_free_number);
}

/* As poll itself says, whose limit it is. */
static void a_limit_too_low_for_poll_is_told(void **state)
{
	struct ctxfd *ctx;
	struct rlimit before, low;
	char byte;
	int pipe[2];

	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind keeps the limit to itself, and the kernel knows another");
	ctx = make();
	make_pipe(pipe);
	assert_true(ctxfd_done_fd(ctx) >= 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	low.rlim_cur = 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(ctxfd_read(ctx, pipe[0], &byte, 1), -EINVAL);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	close_pair(pipe);
	ctxfd_close(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_are_those_of_the_plain_calls),
		cmocka_unit_test(a_reset_connection_says_so),
		cmocka_unit_test(the_end_of_a_stream_ends_the_wait),
		cmocka_unit_test(nothing_is_read_and_written),
		cmocka_unit_test(messages_keep_their_bounds),
		cmocka_unit_test(flags_are_passed_on),
		cmocka_unit_test(msg_dontwait_is_one_try),
		cmocka_unit_test(a_sockets_own_timeout_does_not_count),
		cmocka_unit_test(a_send_that_opens_the_connection_waits_for_it),
		cmocka_unit_test(recv_and_send_end_with_the_context),
		cmocka_unit_test(an_eventfd_with_too_little_room),
		cmocka_unit_test(data_is_no_error_message),
		cmocka_unit_test(files_are_read_and_written_in_order),
		cmocka_unit_test(a_file_takes_all_at_once),
		cmocka_unit_test(devices_without_waiting),
		cmocka_unit_test(a_timer_is_waited_for),
		cmocka_unit_test(a_read_of_nothing_never_waits),
		cmocka_unit_test(the_kernels_log_ends_with_the_context),
		cmocka_unit_test(the_kernels_log_is_written),
		cmocka_unit_test(fanotify_is_answered),
		cmocka_unit_test(signals_change_nothing),
		cmocka_unit_test(restarting_signals_change_nothing),
		cmocka_unit_test(waiting_needs_no_fd),
		cmocka_unit_test(a_limit_too_low_for_poll_is_told),
	};
	return run_all(tests);
}
