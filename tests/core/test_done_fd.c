/* SPDX-License-Identifier: MIT */
/* The done fd: what it is, when it is readable, and that it and err say the same at all times. */
#include "harness.h"
#include "race.h"

#include <sys/epoll.h>
#include <sys/select.h>

#define FAR (3600 * CTXFD_SEC)

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

/* Without a deadline, with one far away: the two kinds of done fd. */
static struct ctxfd *make(bool timed)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), timed ? FAR : INT64_MAX);

	assert_non_null(ctx);
	return ctx;
}

static int fd_of(const struct ctxfd *ctx)
{
	int fd = ctxfd_done_fd(ctx);

	assert_true(fd >= 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* ---- What it is -------------------------------------------------------------------------------------------------- */

static void none_exists_until_somebody_asks(void **state)
{
	int before = count_fds();
	struct ctxfd *ctx = make(false), *timed = ctxfd_with_timeout(ctx, FAR), *merged = ctxfd_merge(ctx, timed);

	assert_int_equal(ctxfd_err(timed), 0);
	assert_int_equal(count_fds(), before);
	fd_of(ctx);
	assert_int_equal(count_fds(), before + 1);
	fd_of(timed);
	assert_int_equal(count_fds(), before + 2);
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_wait(merged), -ECANCELED);
	assert_int_equal(count_fds(), before + 2);
	ctxfd_unref(merged);
	ctxfd_unref(timed);
	ctxfd_unref(ctx);
}

static void every_call_gives_the_same(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = make(timed);
		int fd = fd_of(ctx);

		assert_int_equal(ctxfd_done_fd(ctx), fd);
		ctxfd_cancel(ctx);
		assert_int_equal(ctxfd_done_fd(ctx), fd);
		ctxfd_unref(ctx);
	}
}

static void fd_has_the_promised_flags_and_kind(void **state)
{
	struct ctxfd *plain = make(false), *timed = make(true), *past = ctxfd_with_timeout(ctxfd_background(), 0);
	const struct ctxfd *const contexts[] = {
		plain, timed, child_of(timed), past, ctxfd_background(), ctxfd_todo()
	};
	static const char *const kinds[] = { "eventfd", "timerfd", "timerfd", "timerfd", NULL, NULL };

	for (size_t i = 0; i < COUNT(contexts); i++) {
		int fd = fd_of(contexts[i]);
		char path[40], target[60] = "";

		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		assert_true(readlink(path, target, sizeof target - 1) > 0);
		if (kinds[i])
			assert_non_null(strstr(target, kinds[i]));
		ctxfd_unref(contexts[i]);
	}
}

static void fd_is_closed_with_the_context(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = make(timed), *child = child_of(ctx);
		int fd = fd_of(ctx);

		ctxfd_ref(ctx);
		ctxfd_unref(ctx);
		assert_true(is_open(fd));
		ctxfd_unref(ctx);
		assert_true(is_open(fd)); /* child keeps it */
		ctxfd_unref(child);
		assert_false(is_open(fd));
	}
}

static void those_that_never_end_share_one(void **state)
{
	const struct ctxfd *loose = ctxfd_without_cancel(ctxfd_background());
	const struct ctxfd *value = ctxfd_with_value(ctxfd_todo(), &loose, NULL, NULL);
	int fd = fd_of(ctxfd_background());

	assert_int_equal(fd_of(ctxfd_todo()), fd);
	assert_int_equal(fd_of(loose), fd);
	assert_int_equal(fd_of(value), fd);
	assert_not_readable(fd);
	ctxfd_unref(value);
	ctxfd_unref(loose);
	assert_true(is_open(fd));
	assert_int_equal(fd_of(ctxfd_background()), fd);
}

/* ---- When it is readable ----------------------------------------------------------------------------------------- */

static void readable_from_the_end_on(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = make(timed), *child = child_of(ctx), *asked_later = child_of(ctx), *born;
		int fd = fd_of(ctx), child_fd = fd_of(child), born_fd;

		assert_not_readable(fd);
		assert_not_readable(child_fd);
		ctxfd_cancel(ctx);
		born = child_of(ctx);
		born_fd = fd_of(born);
		for (int i = 0; i < 10; i++) {
			assert_readable(fd);
			assert_readable(child_fd);
			assert_readable(fd_of(asked_later));
			assert_readable(born_fd);
		}
		ctxfd_unref(born);
		ctxfd_unref(asked_later);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

/* No thread does anything but poll: the kernel alone makes them readable, each of them, and not before the time. */
static void a_deadline_needs_nobody(void **state)
{
	int64_t at = now() + 20 * CTXFD_MSEC;
	struct ctxfd *root = ctxfd_with_deadline(ctxfd_background(), at), *nodes[50];
	int fds[COUNT(nodes)];

	for (size_t i = 0; i < COUNT(nodes); i++) {
		nodes[i] = child_of(i ? nodes[i / 2] : root);
		fds[i] = fd_of(nodes[i]);
	}
	wait_readable(fds[COUNT(fds) - 1]);
	assert_true(now() >= at);
	for (size_t i = 0; i < COUNT(nodes); i++)
		wait_readable(fds[i]);
	assert_elapsed(at, 0, CTXFD_SEC);
	for (size_t i = 0; i < COUNT(nodes); i++) {
		assert_int_equal(ctxfd_err(nodes[i]), -ETIMEDOUT);
		assert_readable(fds[i]);
		ctxfd_unref(nodes[i]);
	}
	ctxfd_unref(root);
}

/* Readable and not a moment too soon: whoever has seen it finds err set, and the clock there. */
static void fd_turns_at_the_deadline_and_not_before(void **state)
{
	for (int r = 0; r < rounds(200); r++) {
		int64_t at = now() + 300 * CTXFD_USEC, before;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = child_of(ctx);
		int fd = fd_of(r % 2 ? child : ctx);

		if (r % 3)
			wait_readable(fd);
		else
			while (!readable(fd))
				continue;
		before = now();
		assert_true(before >= at);
		assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
		assert_int_equal(ctxfd_err(child), -ETIMEDOUT);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

static void err_turns_and_the_fd_with_it(void **state)
{
	for (int r = 0; r < rounds(500); r++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 200 * CTXFD_USEC);
		struct ctxfd *child = child_of(ctx);
		int fd = fd_of(r % 2 ? child : ctx);

		while (!ctxfd_err(r % 2 ? child : ctx))
			continue;
		assert_readable(fd);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

/* ---- Ways to wait for it ----------------------------------------------------------------------------------------- */

static void *cancel_it(void *arg)
{
	ctxfd_cancel(arg);
	return NULL;
}

static void select_hears_it(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = make(timed);
		int fd = fd_of(ctx);
		struct timeval none = { 0, 0 };
		struct thread *thread;
		fd_set set;

		FD_ZERO(&set);
		FD_SET(fd, &set);
		assert_int_equal(select(fd + 1, &set, NULL, NULL, &none), 0);
		FD_SET(fd, &set);
		thread = thread_start(cancel_it, ctx);
		assert_int_equal(select(fd + 1, &set, NULL, NULL, NULL), 1);
		assert_true(FD_ISSET(fd, &set));
		thread_join(thread);
		ctxfd_unref(ctx);
	}
}

static void epoll_hears_it_in_every_mode(void **state)
{
	static const uint32_t modes[] = { 0, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE, EPOLLET | EPOLLONESHOT };

	for (int timed = 0; timed < 2; timed++)
		for (size_t i = 0; i < COUNT(modes); i++) {
			struct ctxfd *ctx = make(timed);
			int early = epoll_create1(EPOLL_CLOEXEC), late = epoll_create1(EPOLL_CLOEXEC);
			struct epoll_event event = { .events = EPOLLIN | modes[i], .data.ptr = ctx }, got;
			struct thread *thread;

			assert_int_equal(epoll_ctl(early, EPOLL_CTL_ADD, fd_of(ctx), &event), 0);
			assert_int_equal(epoll_wait(early, &got, 1, 0), 0);
			thread = thread_start(cancel_it, ctx);
			assert_int_equal(epoll_wait(early, &got, 1, -1), 1);
			thread_join(thread);
			assert_true(got.data.ptr == ctx && got.events & EPOLLIN);
			/* Level-triggered: again and again. Others: once. */
			if (modes[i] & (EPOLLET | EPOLLONESHOT))
				epoll_wait(early, &got, 1, 0);
			assert_int_equal(epoll_wait(early, &got, 1, 0), modes[i] & (EPOLLET | EPOLLONESHOT) ? 0 : 1);
			/* A thread that comes after the end is told at once. */
			assert_int_equal(epoll_ctl(late, EPOLL_CTL_ADD, fd_of(ctx), &event), 0);
			assert_int_equal(epoll_wait(late, &got, 1, 0), 1);
			close(early);
			close(late);
			ctxfd_unref(ctx);
		}
}

static void a_deadline_wakes_epoll(void **state)
{
	int64_t at = now() + 5 * CTXFD_MSEC;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET }, got;
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fd_of(ctx), &event), 0);
	assert_int_equal(epoll_wait(epoll, &got, 1, -1), 1);
	assert_true(now() >= at);
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	close(epoll);
	ctxfd_unref(ctx);
}

static void who_was_sent_it_can_poll_it(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = make(timed);
		int pair[2], fd = fd_of(ctx), received;
		char byte = 'x', room[CMSG_SPACE(sizeof fd)] = { 0 };
		struct iovec iov = { &byte, 1 };
		struct msghdr msg = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
		};
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		make_socketpair(pair);
		*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
			               .cmsg_type = SCM_RIGHTS,
			               .cmsg_len = CMSG_LEN(sizeof fd) };
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
		assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
		assert_int_equal(recvmsg(pair[1], &msg, MSG_CMSG_CLOEXEC), 1);
		memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof received);
		assert_not_readable(received);
		ctxfd_close(ctx);
		assert_readable(received);
		close(received);
		close_pair(pair);
	}
}

/* ---- Without ----------------------------------------------------------------------------------------------------- */

static void without_a_free_number_all_else_works(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = make(timed), *child = child_of(ctx);

		exhaust_fds();
		errno = 12345;
		assert_int_equal(ctxfd_done_fd(ctx), -EMFILE);
		assert_int_equal(ctxfd_done_fd(child), -EMFILE);
		assert_int_equal(errno, 12345);
		assert_int_equal(ctxfd_sleep(ctx, CTXFD_MSEC), 0);
		ctxfd_cancel(ctx);
		assert_int_equal(ctxfd_wait(child), -ECANCELED);
		assert_int_equal(ctxfd_done_fd(child), -EMFILE);
		free_fds();
		assert_readable(fd_of(child));
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

enum { ASKERS = 3 };

struct asking {
	struct meeting start, end;
	struct ctxfd *ctx;
	int fds[ASKERS], rounds;
	atomic_int next_number;
	bool cancels[ASKERS];
};

/* Whoever has an fd in hand, and then sees the end or makes it, finds it readable. */
static void *asker(void *arg)
{
	struct asking *a = arg;
	int me = atomic_fetch_add(&a->next_number, 1);

	for (int r = 0; r < a->rounds; r++) {
		meet(&a->start, ASKERS + 1);
		dither((unsigned)(r * 13 * me) % 97);
		a->fds[me] = ctxfd_done_fd(a->ctx);
		require(a->fds[me] >= 0);
		if (a->cancels[me] && r % 2)
			ctxfd_cancel(a->ctx);
		if (ctxfd_err(a->ctx))
			require(readable(a->fds[me]));
		meet(&a->end, ASKERS + 1);
	}
	return NULL;
}

static void first_askers_get_one_fd(void **state)
{
	static struct asking a;
	struct thread *threads[ASKERS];
	int before = count_fds();

	a = (struct asking){ .rounds = rounds(10000), .cancels = { false, true, true } };
	for (int i = 0; i < ASKERS; i++)
		threads[i] = thread_start(asker, &a);
	for (int r = 0; r < a.rounds; r++) {
		a.ctx = make(r / 2 % 2);
		meet(&a.start, ASKERS + 1);
		if (r % 2 == 0) {
			dither((unsigned)r % 301);
			ctxfd_cancel(a.ctx);
		}
		meet(&a.end, ASKERS + 1);
		for (int i = 0; i < ASKERS; i++)
			assert_int_equal(a.fds[i], a.fds[0]);
		assert_readable(a.fds[0]);
		ctxfd_unref(a.ctx);
	}
	for (int i = 0; i < ASKERS; i++)
		thread_join(threads[i]);
	assert_int_equal(count_fds(), before);
}

struct watching {
	struct meeting start, end;
	struct ctxfd *root, *ctx;
	int fd, rounds;
};

/* By turns it believes the fd and looks at err, and believes err and looks at the fd. */
static void *watcher(void *arg)
{
	struct watching *w = arg;

	for (int r = 0; r < w->rounds; r++) {
		meet(&w->start, 2);
		if (r % 2) {
			while (!readable(w->fd))
				continue;
			require(ctxfd_err(w->ctx) != 0);
		} else {
			while (!ctxfd_err(w->ctx))
				continue;
			require(readable(w->fd));
		}
		meet(&w->end, 2);
	}
	return NULL;
}

static void err_if_and_only_if_readable(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct watching w = { .rounds = rounds(10000) };
		struct thread *thread = thread_start(watcher, &w);

		for (int r = 0; r < w.rounds; r++) {
			w.root = make(timed);
			w.ctx = r / 2 % 2 ? child_of(w.root) : w.root;
			w.fd = fd_of(w.ctx);
			meet(&w.start, 2);
			dither((unsigned)r % 701);
			ctxfd_cancel(w.root);
			meet(&w.end, 2);
			if (w.ctx != w.root)
				ctxfd_unref(w.ctx);
			ctxfd_unref(w.root);
		}
		thread_join(thread);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(none_exists_until_somebody_asks),
		cmocka_unit_test(every_call_gives_the_same),
		cmocka_unit_test(fd_has_the_promised_flags_and_kind),
		cmocka_unit_test(fd_is_closed_with_the_context),
		cmocka_unit_test(those_that_never_end_share_one),
		cmocka_unit_test(readable_from_the_end_on),
		cmocka_unit_test(a_deadline_needs_nobody),
		cmocka_unit_test(fd_turns_at_the_deadline_and_not_before),
		cmocka_unit_test(err_turns_and_the_fd_with_it),
		cmocka_unit_test(select_hears_it),
		cmocka_unit_test(epoll_hears_it_in_every_mode),
		cmocka_unit_test(a_deadline_wakes_epoll),
		cmocka_unit_test(who_was_sent_it_can_poll_it),
		cmocka_unit_test(without_a_free_number_all_else_works),
		cmocka_unit_test(first_askers_get_one_fd),
		cmocka_unit_test(err_if_and_only_if_readable),
	};
	return run_all(tests);
}
