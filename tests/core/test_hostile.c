/* SPDX-License-Identifier: MIT */
/*
 * What a done fd's users may do to it by mistake or in malice, and what that does: never anything to the context. Its
 * err, cause and deadline stand, cancelling works, and waits in the library end. What happens to other
 * watchers of the fd is what ctxfd.h says of it; that is tested here too.
 */
#include "harness.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

enum { FAR = 3600 };

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* ---- What every abuse must leave as it was ----------------------------------------------------------------------- */

static struct ctxfd *plain(void)
{
	return ctxfd_with_cancel(ctxfd_background());
}

static struct ctxfd *timed(void)
{
	return ctxfd_with_timeout(ctxfd_background(), FAR * CTXFD_SEC);
}

static void *wait_for_end(void *arg)
{
	require(ctxfd_wait(arg) == -ECANCELED);
	return NULL;
}

static void assert_live(const struct ctxfd *ctx)
{
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(ctxfd_cause(ctx), 0);
	assert_int_equal(ctxfd_sleep(ctx, 0), 0);
}

static void assert_canceled(const struct ctxfd *ctx, int cause)
{
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), cause);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
}

/* The rest of the life of a context whose fd, number fd, was abused; frees it. */
static void assert_works_on(struct ctxfd *ctx, int fd)
{
	struct ctxfd *child = ctxfd_with_cancel(ctx);
	struct thread *waiter = thread_start(wait_for_end, ctx);

	thread_wait_asleep(waiter);
	assert_live(ctx);
	assert_live(child);
	assert_int_equal(ctxfd_done_fd(ctx), fd);
	ctxfd_cancel_cause(ctx, -77);
	thread_join(waiter);
	assert_canceled(ctx, -77);
	assert_canceled(child, -77);
	assert_readable(fd);
	assert_readable(ctxfd_done_fd(child));
	ctxfd_unref(child);
	ctxfd_unref(ctx);
}

/* ---- Reads ------------------------------------------------------------------------------------------------------- */

static int64_t read_count(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof n) == sizeof n ? (int64_t)n : -errno;
}

static void a_read_of_a_live_one_finds_nothing(void **state)
{
	struct ctxfd *a = plain(), *b = timed();

	for (int i = 0; i < 10; i++) {
		assert_int_equal(read_count(ctxfd_done_fd(a)), -EAGAIN);
		assert_int_equal(read_count(ctxfd_done_fd(b)), -EAGAIN);
	}
	assert_works_on(a, ctxfd_done_fd(a));
	assert_works_on(b, ctxfd_done_fd(b));
}

static void reads_do_not_empty_an_eventfd(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx);

	ctxfd_cancel(ctx);
	for (int i = 0; i < rounds(100000); i++)
		assert_int_equal(read_count(fd), 1);
	assert_readable(fd);
	assert_canceled(ctx, -ECANCELED);
	ctxfd_unref(ctx);
}

/* As the header warns. Those that ask the context are not deceived; those that poll the fd are, until the deadline. */
static void a_read_empties_a_cancelled_timerfd_until_its_deadline(void **state)
{
	struct ctxfd *ctx;
	struct pollfd none = { .fd = -1 };
	int fd;

	if (!has_set_ticks())
		skip_test("no SET_TICKS here");
	ctx = ctxfd_with_timeout(ctxfd_background(), 500 * CTXFD_MSEC);
	fd = ctxfd_done_fd(ctx);
	ctxfd_cancel(ctx);
	if (ctxfd_remaining(ctx) > 0) {
		assert_readable(fd);
		assert_int_equal(read_count(fd), 1);
	}
	assert_canceled(ctx, -ECANCELED);
	assert_int_equal(ctxfd_poll(ctx, &none, 1, -1), -ECANCELED);
	wait_readable(fd);
	assert_true(ctxfd_remaining(ctx) == 0);
	assert_canceled(ctx, -ECANCELED);
	ctxfd_unref(ctx);
}

static void a_read_does_not_empty_an_expired_timerfd(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 10 * CTXFD_MSEC);
	int fd = ctxfd_done_fd(ctx);

	wait_readable(fd);
	for (int i = 0; i < rounds(1000); i++) {
		assert_true(read_count(fd) > 0);
		wait_readable(fd);
	}
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	ctxfd_unref(ctx);
}

/* ---- Writes ------------------------------------------------------------------------------------------------------ */

static void write_count(int fd, uint64_t n)
{
	assert_int_equal(write(fd, &n, sizeof n), sizeof n);
}

static void a_write_wakes_pollers_but_does_not_cancel(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx);

	write_count(fd, 1);
	assert_readable(fd);
	assert_live(ctx);
	assert_works_on(ctx, fd);
}

static void a_full_eventfd_can_be_cancelled(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx);

	write_count(fd, UINT64_MAX - 1);
	assert_works_on(ctx, fd);
}

static void a_timerfd_cannot_be_written(void **state)
{
	static const uint64_t one = 1;
	struct ctxfd *ctx = timed();

	assert_int_equal(write(ctxfd_done_fd(ctx), &one, sizeof one), -1);
	assert_works_on(ctx, ctxfd_done_fd(ctx));
	assert_int_equal(write(ctxfd_done_fd(ctxfd_background()), &one, sizeof one), -1);
	assert_not_readable(ctxfd_done_fd(ctxfd_background()));
}

/* Made readable early, its pollers wake up for nothing. */
static void fire_early(int fd)
{
	static const struct itimerspec past = { .it_value.tv_nsec = 1 };
	static const uint64_t one = 1;

	if (write(fd, &one, sizeof one) < 0)
		assert_int_equal(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, NULL), 0);
	wait_readable(fd);
}

static void a_timerfd_set_to_fire_early_does_not_cancel(void **state)
{
	struct ctxfd *ctx = timed();
	int fd = ctxfd_done_fd(ctx);

	fire_early(fd);
	assert_live(ctx);
	assert_true(ctxfd_remaining(ctx) > 0);
	assert_works_on(ctx, fd);
}

/* The alarm is gone, so nothing wakes pollers at the deadline; but whoever asks the context puts it right. */
static void a_disarmed_timerfd_is_put_right_by_asking(void **state)
{
	static const struct itimerspec never;
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	int fd = ctxfd_done_fd(ctx);

	assert_int_equal(timerfd_settime(fd, 0, &never, NULL), 0);
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_readable(fd);
	ctxfd_unref(ctx);

	ctx = timed();
	assert_int_equal(timerfd_settime(ctxfd_done_fd(ctx), 0, &never, NULL), 0);
	assert_works_on(ctx, ctxfd_done_fd(ctx));
}

/* ---- What is misled by it, and what is not ----------------------------------------------------------------------- */

static int64_t thread_time(void)
{
	struct timespec ts;

	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), 0);
	return ts.tv_sec * CTXFD_SEC + ts.tv_nsec;
}

static void *cancel_later(void *arg)
{
	pass_time(50 * CTXFD_MSEC);
	ctxfd_cancel(arg);
	return NULL;
}

static void *write_later(void *arg)
{
	pass_time(50 * CTXFD_MSEC);
	require(write(*(int *)arg, "x", 1) == 1);
	return NULL;
}

/*
 * Times out when it should, sees the fd that it was called for, is still cancelled; and while the done fd is ready for
 * nothing it does not spin: a third of a second of waiting takes less than a tenth of processor time.
 */
static void assert_poll_is_not_fooled(struct ctxfd *ctx, const int pipe[2])
{
	struct pollfd p = { .fd = pipe[0], .events = POLLIN };
	int64_t start = now(), used = thread_time();
	struct thread *canceller, *writer;
	int to = pipe[1];
	char byte;

	assert_int_equal(ctxfd_poll(ctx, &p, 1, 300 * CTXFD_MSEC), 0);
	assert_elapsed(start, 300 * CTXFD_MSEC, CTXFD_SEC);
	assert_true(thread_time() - used < 100 * CTXFD_MSEC);
	writer = thread_start(write_later, &to);
	assert_int_equal(ctxfd_poll(ctx, &p, 1, -1), 1);
	assert_int_equal(p.revents, POLLIN);
	thread_join(writer);
	assert_int_equal(ctxfd_read(ctx, pipe[0], &byte, 1), 1);
	canceller = thread_start(cancel_later, ctx);
	assert_int_equal(ctxfd_read(ctx, pipe[0], &byte, 1), -ECANCELED);
	thread_join(canceller);
}

static void poll_is_not_fooled_by_a_ready_fd(void **state)
{
	struct ctxfd *all[] = { plain(), timed() };
	int pipe[2];

	make_pipe(pipe);
	for (size_t i = 0; i < COUNT(all); i++) {
		fire_early(ctxfd_done_fd(all[i]));
		assert_poll_is_not_fooled(all[i], pipe);
		ctxfd_unref(all[i]);
	}
	close_pair(pipe);
}

static void poll_is_not_fooled_by_a_closed_number(void **state)
{
	struct ctxfd *all[] = { plain(), timed() };
	int pipe[2];

	make_pipe(pipe);
	for (size_t i = 0; i < COUNT(all); i++) {
		close(ctxfd_done_fd(all[i]));
		assert_poll_is_not_fooled(all[i], pipe);
		ctxfd_unref(all[i]);
	}
	close_pair(pipe);
}

static int new_events(int epoll)
{
	struct epoll_event events[8];

	return epoll_wait(epoll, events, COUNT(events), 0);
}

static int watch(int fd, uint32_t events)
{
	struct epoll_event e = { .events = events };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	assert_true(epoll >= 0);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e), 0);
	return epoll;
}

/* Full, it takes no more, in either mode; a thread that waits for an edge is told all the same. */
static void an_edge_is_seen_of_a_full_eventfd(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx), epoll = watch(fd, EPOLLIN | EPOLLET);

	write_count(fd, UINT64_MAX - 1);
	assert_int_equal(new_events(epoll), 1);
	assert_int_equal(new_events(epoll), 0);
	ctxfd_cancel(ctx);
	assert_int_equal(new_events(epoll), 1);
	close(epoll);
	ctxfd_unref(ctx);
}

/* Where there is no SET_TICKS a timerfd that is readable already is not made so again: there is no second edge. */
static void an_edge_is_seen_after_a_stray_one(void **state)
{
	struct ctxfd *all[] = { plain(), timed() };

	for (size_t i = 0; i < COUNT(all); i++) {
		int fd, epoll;

		if (i == 1 && !has_set_ticks()) {
			ctxfd_unref(all[i]);
			break;
		}
		fd = ctxfd_done_fd(all[i]);
		epoll = watch(fd, EPOLLIN | EPOLLET);
		fire_early(fd);
		assert_int_equal(new_events(epoll), 1);
		assert_int_equal(new_events(epoll), 0);
		ctxfd_cancel(all[i]);
		assert_int_equal(new_events(epoll), 1);
		close(epoll);
		ctxfd_unref(all[i]);
	}
}

/* ---- Duplicates and mistaken closes ------------------------------------------------------------------------------ */

static void a_dup_is_as_good_and_outlives_the_context(void **state)
{
	struct ctxfd *all[] = { plain(), timed() };

	for (size_t i = 0; i < COUNT(all); i++) {
		int copy = fcntl(ctxfd_done_fd(all[i]), F_DUPFD_CLOEXEC, 0), epoll = watch(copy, EPOLLIN);

		assert_not_readable(copy);
		ctxfd_cancel(all[i]);
		assert_readable(copy);
		assert_int_equal(new_events(epoll), 1);
		ctxfd_unref(all[i]);
		assert_readable(copy);
		close(copy);
		close(epoll);
	}
}

static void a_dup_of_a_context_that_was_freed_live_stays_silent(void **state)
{
	struct ctxfd *a = plain(), *b = timed();
	int da = fcntl(ctxfd_done_fd(a), F_DUPFD_CLOEXEC, 0), db = fcntl(ctxfd_done_fd(b), F_DUPFD_CLOEXEC, 0);

	ctxfd_unref(a);
	ctxfd_unref(b);
	assert_not_readable(da);
	assert_not_readable(db);
	close(da);
	close(db);
}

static void a_dup_of_a_context_that_was_freed_live_misses_the_deadline(void **state)
{
	int64_t at = now() + 20 * CTXFD_MSEC;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = ctxfd_with_cancel(ctx), *later;
	int copies[] = { fcntl(ctxfd_done_fd(ctx), F_DUPFD_CLOEXEC, 0),
		         fcntl(ctxfd_done_fd(child), F_DUPFD_CLOEXEC, 0) };
	bool freed_live;

	ctxfd_unref(child);
	ctxfd_unref(ctx);
	freed_live = now() < at;
	later = ctxfd_with_timeout(ctxfd_background(), 40 * CTXFD_MSEC);
	wait_readable(ctxfd_done_fd(later));
	ctxfd_unref(later);
	for (size_t i = 0; i < COUNT(copies); i++) {
		if (freed_live)
			assert_not_readable(copies[i]);
		close(copies[i]);
	}
}

/* It had ended when it was freed, although nobody had asked. */
static void a_dup_of_a_context_that_expired_unseen_stays_readable(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC);
	int copy = fcntl(ctxfd_done_fd(ctx), F_DUPFD_CLOEXEC, 0);

	wait_readable(copy);
	ctxfd_unref(ctx);
	assert_readable(copy);
	close(copy);
}

static void a_closed_number_harms_nobody_else(void **state)
{
	struct ctxfd *all[] = { plain(), timed() };

	for (size_t i = 0; i < COUNT(all); i++) {
		struct ctxfd *child = ctxfd_with_cancel(all[i]);
		struct thread *waiter = thread_start(wait_for_end, all[i]);

		thread_wait_asleep(waiter);
		close(ctxfd_done_fd(all[i]));
		assert_live(all[i]);
		ctxfd_cancel(all[i]);
		thread_join(waiter);
		assert_canceled(all[i], -ECANCELED);
		assert_canceled(child, -ECANCELED);
		assert_readable(ctxfd_done_fd(child));
		ctxfd_unref(child);
		ctxfd_unref(all[i]);
	}
}

/* Nor is there anything to close when it is freed. */
static void a_closed_number_of_a_context_freed_live(void **state)
{
	struct ctxfd *all[] = { plain(), timed() };

	for (size_t i = 0; i < COUNT(all); i++) {
		close(ctxfd_done_fd(all[i]));
		assert_live(all[i]);
		errno = 12345;
		ctxfd_unref(all[i]);
		assert_int_equal(errno, 12345);
	}
}

/* What the program can have under a number that it closed by mistake, and how to see that it was left alone. */
enum stranger_kind { FILE_ON_DISK, PIPE, FULL_PIPE, SOCKET, STRANGERS };

struct stranger {
	int other; /* the other end */
	bool full;
};

static struct stranger put_stranger(int fd, enum stranger_kind kind)
{
	struct stranger s = { .full = kind == FULL_PIPE };
	char page[4096] = "";
	int ends[2];

	if (kind == FILE_ON_DISK) {
		FILE *file = tmpfile();

		assert_non_null(file);
		ends[0] = fcntl(fileno(file), F_DUPFD_CLOEXEC, 0);
		ends[1] = fcntl(fileno(file), F_DUPFD_CLOEXEC, 0);
		fclose(file);
	} else if (kind == SOCKET) {
		make_socketpair(ends);
	} else {
		make_pipe(ends);
	}
	if (s.full) {
		assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
		while (write(ends[1], page, sizeof page) > 0)
			continue;
		assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
	}
	assert_int_equal(dup3(ends[1], fd, O_CLOEXEC), fd);
	close(ends[1]);
	s.other = ends[0];
	return s;
}

static void assert_left_alone(const struct stranger *s, int fd)
{
	char got[16];

	assert_true(is_open(fd));
	assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	if (!s->full) {
		assert_int_equal(fcntl(s->other, F_SETFL, O_NONBLOCK), 0);
		lseek(s->other, 0, SEEK_SET);
		assert_true(read(s->other, got, sizeof got) <= 0);
	}
	close(fd);
	close(s->other);
}

/* A file that cannot be written to is not the eventfd that was there. */
static void what_takes_no_write_is_not_ours(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), anew;

	assert_true(timer >= 0);
	assert_int_equal(dup3(timer, fd, O_CLOEXEC), fd);
	ctxfd_cancel(ctx);
	anew = ctxfd_done_fd(ctx);
	assert_int_not_equal(anew, fd);
	assert_readable(anew);
	assert_not_readable(timer);
	ctxfd_unref(ctx);
	assert_true(is_open(fd));
	close(fd);
	close(timer);
}

/* By a context with a deadline, whose signal no stranger knows. Who asks after the end gets another fd. */
static void a_stranger_under_a_closed_number_is_left_alone(void **state)
{
	for (int kind = 0; kind < STRANGERS; kind++)
		for (int cancelled = 0; cancelled < 2; cancelled++) {
			struct ctxfd *ctx = timed();
			int fd = ctxfd_done_fd(ctx), anew = -1;
			struct stranger s = put_stranger(fd, (enum stranger_kind)kind);

			if (cancelled) {
				ctxfd_cancel(ctx);
				assert_canceled(ctx, -ECANCELED);
				anew = ctxfd_done_fd(ctx);
				assert_int_not_equal(anew, fd);
				assert_readable(anew);
			}
			ctxfd_unref(ctx);
			assert_left_alone(&s, fd);
			assert_false(is_open(anew));
		}
}

/* As the header warns: an eventfd is not looked at before it is written to. */
static void what_looks_like_ours_under_a_closed_number_is_hit(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx), pair[2];
	char got[16];

	make_socketpair(pair);
	assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(dup3(pair[1], fd, O_CLOEXEC), fd);
	ctxfd_cancel(ctx);
	assert_canceled(ctx, -ECANCELED);
	assert_int_equal(read(pair[0], got, sizeof got), 8);
	ctxfd_unref(ctx);
	assert_false(is_open(fd));
	close_pair(pair);
}

/* A stranger knows no SET_TICKS. That says nothing about the kernel. */
static void a_stranger_does_not_slow_the_others_down(void **state)
{
	struct ctxfd *ctx = timed();
	struct stranger s;
	int fd = ctxfd_done_fd(ctx);

	if (!has_set_ticks()) {
		ctxfd_unref(ctx);
		skip_test("no SET_TICKS here");
	}
	s = put_stranger(fd, PIPE);
	ctxfd_close(ctx);
	assert_left_alone(&s, fd);
	ctx = timed();
	fd = ctxfd_done_fd(ctx);
	ctxfd_cancel(ctx);
	assert_int_equal(read_count(fd), 1);
	assert_not_readable(fd); /* which an alarm would have made it again */
	ctxfd_unref(ctx);
}

/* ---- Flags ------------------------------------------------------------------------------------------------------- */

static void flags_change_nothing(void **state)
{
	static const int flags[] = { 0, O_NONBLOCK, O_APPEND, O_ASYNC, O_NONBLOCK | O_ASYNC };

	for (size_t i = 0; i < 2 * COUNT(flags); i++) {
		struct ctxfd *ctx = i % 2 ? plain() : timed();
		int fd = ctxfd_done_fd(ctx);

		assert_int_equal(fcntl(fd, F_SETFL, flags[i / 2]), 0);
		assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
		assert_works_on(ctx, fd);
	}
}

/*
 * Whoever was handed the fd can set it to blocking. No signal may wait then, the second and those after a stray write
 * neither.
 */
static void a_blocking_eventfd_does_not_block_a_cancel(void **state)
{
	struct ctxfd *ctx = plain();
	int fd = ctxfd_done_fd(ctx);

	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	write_count(fd, 1);
	assert_works_on(ctx, fd);
}

/* ---- Other processes --------------------------------------------------------------------------------------------- */

enum { SENT = 2 };

static void send_fds(int sock, const int fds[SENT])
{
	char control[CMSG_SPACE(SENT * sizeof *fds)] = { 0 };
	struct iovec byte = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(SENT * sizeof *fds);
	memcpy(CMSG_DATA(c), fds, SENT * sizeof *fds);
	assert_int_equal(sendmsg(sock, &msg, 0), 1);
}

static void receive_fds(int sock, int fds[SENT])
{
	char control[CMSG_SPACE(SENT * sizeof *fds)], data;
	struct iovec byte = { .iov_base = &data, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
	};

	require(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) == 1);
	require(CMSG_FIRSTHDR(&msg) && CMSG_FIRSTHDR(&msg)->cmsg_len == CMSG_LEN(SENT * sizeof *fds));
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), SENT * sizeof *fds);
}

/* Hears both end, and then reads and sets what it was handed. */
static int stranger(int sock)
{
	int fds[SENT];
	uint64_t n;

	receive_fds(sock, fds);
	require(!readable(fds[0]) && !readable(fds[1]));
	require(write(sock, "x", 1) == 1);
	for (int i = 0; i < SENT; i++) {
		struct pollfd p = { .fd = fds[i], .events = POLLIN };

		require(poll(&p, 1, 30000 * slow()) == 1);
		/* Any number: an emulator turns the bytes of those fds only that it has seen made. */
		require(read(fds[i], &n, sizeof n) == sizeof n && n > 0);
		require(fcntl(fds[i], F_SETFL, 0) == 0);
		close(fds[i]);
	}
	return 0;
}

static void another_process_can_poll_it(void **state)
{
	struct ctxfd *a, *b;
	int socks[2], status;
	char byte;
	pid_t pid;

	make_socketpair(socks);
	pid = fork();
	if (pid == 0)
		_exit(stranger(socks[1]));
	a = plain();
	b = timed();
	send_fds(socks[0], (int[SENT]){ ctxfd_done_fd(a), ctxfd_done_fd(b) });
	assert_int_equal(read(socks[0], &byte, 1), 1);
	ctxfd_cancel(a);
	ctxfd_cancel(b);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_canceled(a, -ECANCELED);
	assert_canceled(b, -ECANCELED);
	assert_readable(ctxfd_done_fd(a));
	ctxfd_unref(a);
	ctxfd_unref(b);
	close_pair(socks);
}

/* ---- Epoll ------------------------------------------------------------------------------------------------------- */

static void epoll_tells_in_every_mode(void **state)
{
	static const uint32_t modes[] = { 0,
		                          EPOLLET,
		                          EPOLLONESHOT,
		                          EPOLLEXCLUSIVE,
		                          EPOLLET | EPOLLONESHOT,
		                          EPOLLET | EPOLLEXCLUSIVE,
		                          EPOLLWAKEUP,
		                          EPOLLRDHUP | EPOLLPRI };

	for (size_t i = 0; i < 2 * COUNT(modes); i++) {
		struct ctxfd *ctx = i % 2 ? plain() : timed();
		int fd = ctxfd_done_fd(ctx), before = watch(fd, EPOLLIN | modes[i / 2]), after;

		assert_int_equal(new_events(before), 0);
		ctxfd_cancel(ctx);
		after = watch(fd, EPOLLIN | modes[i / 2]);
		assert_int_equal(new_events(before), 1);
		assert_int_equal(new_events(after), 1);
		if (modes[i / 2] & EPOLLONESHOT) {
			struct epoll_event again = { .events = EPOLLIN | modes[i / 2] };

			assert_int_equal(new_events(before), 0);
			assert_int_equal(epoll_ctl(before, EPOLL_CTL_MOD, fd, &again), 0);
			assert_int_equal(new_events(before), 1);
		}
		close(before);
		close(after);
		ctxfd_unref(ctx);
	}
}

static void epoll_tells_of_a_deadline_in_every_mode(void **state)
{
	static const uint32_t modes[] = { 0, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE, EPOLLET | EPOLLONESHOT };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);
		int epoll = watch(ctxfd_done_fd(ctx), EPOLLIN | modes[i]);

		wait_until(new_events(epoll) == 1);
		assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
		close(epoll);
		ctxfd_unref(ctx);
	}
}

struct sleeper {
	int epoll;
	bool told;
};

static void *sleep_in_epoll(void *arg)
{
	struct sleeper *s = arg;
	struct epoll_event e;

	require(epoll_wait(s->epoll, &e, 1, -1) == 1);
	s->told = e.data.u32 == 0;
	return NULL;
}

/* As the header warns: with EPOLLEXCLUSIVE the kernel is free to tell one set of several, and does. */
static void exclusive_watchers_may_be_told_one_by_one(void **state)
{
	struct ctxfd *ctx = plain();
	int release = eventfd(0, EFD_CLOEXEC), told = 0;
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = 1 };
	struct sleeper sleepers[3];
	struct thread *threads[COUNT(sleepers)];

	for (size_t i = 0; i < COUNT(sleepers); i++) {
		sleepers[i].epoll = watch(ctxfd_done_fd(ctx), EPOLLIN | EPOLLEXCLUSIVE);
		assert_int_equal(epoll_ctl(sleepers[i].epoll, EPOLL_CTL_ADD, release, &e), 0);
		threads[i] = thread_start(sleep_in_epoll, &sleepers[i]);
		thread_wait_asleep(threads[i]);
	}
	ctxfd_cancel(ctx);
	write_count(release, 1);
	for (size_t i = 0; i < COUNT(sleepers); i++) {
		thread_join(threads[i]);
		told += sleepers[i].told;
		close(sleepers[i].epoll);
	}
	assert_true(told >= 1);
	close(release);
	ctxfd_unref(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_of_a_live_one_finds_nothing),
		cmocka_unit_test(reads_do_not_empty_an_eventfd),
		cmocka_unit_test(a_read_empties_a_cancelled_timerfd_until_its_deadline),
		cmocka_unit_test(a_read_does_not_empty_an_expired_timerfd),
		cmocka_unit_test(a_write_wakes_pollers_but_does_not_cancel),
		cmocka_unit_test(a_full_eventfd_can_be_cancelled),
		cmocka_unit_test(a_timerfd_cannot_be_written),
		cmocka_unit_test(a_timerfd_set_to_fire_early_does_not_cancel),
		cmocka_unit_test(a_disarmed_timerfd_is_put_right_by_asking),
		cmocka_unit_test(poll_is_not_fooled_by_a_ready_fd),
		cmocka_unit_test(poll_is_not_fooled_by_a_closed_number),
		cmocka_unit_test(an_edge_is_seen_of_a_full_eventfd),
		cmocka_unit_test(an_edge_is_seen_after_a_stray_one),
		cmocka_unit_test(a_dup_is_as_good_and_outlives_the_context),
		cmocka_unit_test(a_dup_of_a_context_that_was_freed_live_stays_silent),
		cmocka_unit_test(a_dup_of_a_context_that_was_freed_live_misses_the_deadline),
		cmocka_unit_test(a_dup_of_a_context_that_expired_unseen_stays_readable),
		cmocka_unit_test(a_closed_number_harms_nobody_else),
		cmocka_unit_test(a_closed_number_of_a_context_freed_live),
		cmocka_unit_test(what_takes_no_write_is_not_ours),
		cmocka_unit_test(a_stranger_under_a_closed_number_is_left_alone),
		cmocka_unit_test(what_looks_like_ours_under_a_closed_number_is_hit),
		cmocka_unit_test(a_stranger_does_not_slow_the_others_down),
		cmocka_unit_test(flags_change_nothing),
		cmocka_unit_test(a_blocking_eventfd_does_not_block_a_cancel),
		cmocka_unit_test(another_process_can_poll_it),
		cmocka_unit_test(epoll_tells_in_every_mode),
		cmocka_unit_test(epoll_tells_of_a_deadline_in_every_mode),
		cmocka_unit_test(exclusive_watchers_may_be_told_one_by_one),
	};

	return run_all(tests);
}
