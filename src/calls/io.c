/* SPDX-License-Identifier: MIT */
/*
 * The system calls that wait, under a context. Each is the same loop: try without waiting; if that says EAGAIN, poll the
 * descriptor and this thread's waker together (waiter.h), and try again. So what a try has consumed is never lost to a
 * cancellation. A deadline needs no waker: it is the poll's own limit.
 *
 * The art is in trying without waiting on a descriptor that may be in blocking mode, whose flags are not ours to change
 * (they belong to the open file, which other threads and processes share): MSG_DONTWAIT for sockets, RWF_NOWAIT for
 * what knows it, a pipe opened anew on kernels whose pipes do not, else poll first.
 *
 * ERRORS. Two are passing. EINTR: a signal's handler has run. EAGAIN: not yet; the next try comes when poll says so,
 * after a few in vain a millisecond later. After either ctx is asked, so its end bounds them. All others end the call.
 *
 * PTHREAD_CANCEL acts where a call begins and where it waits. A try on a socket is kept from it: some libcs (glibc
 * before 2.41) let a thread be cancelled after the kernel has handed over the bytes or the connection.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "calls/waiter.h"
#include "core/clock.h"
#include "core/thread_cancel.h"
#include "core/wait.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x00000008
#endif

static void *mutable_bytes(const void *buf)
{
	return (void *)(uintptr_t)buf;
}

/* ---- Poll -------------------------------------------------------------------------------------------------------- */

/*
 * ppoll until CLOCK_MONOTONIC `until`, however often a signal interrupts it. The kernel lets a poll run over by up to
 * half a percent of its time, so it aims that much too early, and then for the rest.
 */
static int poll_until(struct pollfd *fds, nfds_t n, int64_t until)
{
	for (;;) {
		int64_t left = until == INT64_MAX ? 0 : until - ctxfd_now();
		struct timespec rest = timespec_of(left > 0 ? left - left / 200 : 0);
		int ready;

		ready = ppoll(fds, n, until == INT64_MAX ? NULL : &rest, NULL);
		if (ready > 0)
			return ready;
		if (ready < 0 && errno != EINTR)
			return -errno;
		/* The kernel looks at the fds before it looks for signals. */
		if (until != INT64_MAX && (left <= 0 || ctxfd_now() >= until))
			return 0;
	}
}

/* Whether fd is ready as it stands: 1, 0 (a signal interrupts even this) or -errno. */
static int look(int fd, int events)
{
	struct pollfd one = { .fd = fd, .events = (short)events };
	int ready = poll(&one, 1, 0);

	return ready >= 0 ? ready : errno == EINTR ? 0 : -errno;
}

/* How late a call that gets no waker, for want of fds or memory, hears of the end of its context. */
#define BLIND (2 * CTXFD_MSEC)

/*
 * One sleep, until an fd is ready, ctx ends, `until`, or for no reason: how many fds are ready, or -errno. all: the
 * caller's fds, and room for one more.
 */
static int poll_once(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until)
{
	struct waiter *w = ctxfdi_poller();
	int ready;

	if (!w) {
		int64_t next = ctxfd_now() + BLIND;

		return poll_until(all, n, next < until ? next : until);
	}
	if (!waiter_park(w, ctx, KIND_POLLING)) {
		ctxfdi_await_done(node_of(ctx), until);
		return poll_until(all, n, 0);
	}
	all[n] = (struct pollfd){ .fd = w->fd, .events = POLLIN };
	ready = poll_until(all, n + 1, until);
	if (!ctxfdi_waiter_unpark(w) && all[n].revents)
		ctxfdi_lose_waker(w);
	return ready > 0 && all[n].revents ? ready - 1 : ready;
}

/* The same, but never for no reason: 0 is `until`, and err is returned. */
static int poll_under(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until)
{
	const struct ctxfd *node = node_of(ctx);
	int64_t limit = node->deadline < until ? node->deadline : until;

	if (load_word(node) & CTX_NEVER)
		return poll_until(all, n, until);
	for (;;) {
		int ready = poll_once(ctx, all, n, limit), err = ready ? 0 : ctxfd_err(ctx);

		if (ready || err || (until != INT64_MAX && ctxfd_now() >= until))
			return ready ? ready : err;
	}
}

static bool too_many(nfds_t n)
{
	struct rlimit limit;

	return n > INT_MAX || (getrlimit(RLIMIT_NOFILE, &limit) == 0 && n >= limit.rlim_cur);
}

/* all: room for the caller's fds and one more. */
static int poll_copy(const struct ctxfd *ctx, struct pollfd *fds, struct pollfd *all, nfds_t n, int64_t until)
{
	int result;

	for (nfds_t i = 0; i < n; i++)
		all[i] = fds[i];
	all[n] = (struct pollfd){ .fd = -1 }; /* its place counts for RLIMIT_NOFILE, whether it is used or not */
	result = until ? poll_under(ctx, all, n, until) : poll_until(all, n + 1, 0);
	for (nfds_t i = 0; result >= 0 && i < n; i++)
		fds[i].revents = all[i].revents;
	return result;
}

/* With memory for all, which goes with the thread if pthread_cancel ends it here. */
static int poll_many(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t until)
{
	struct pollfd *all = malloc((n + 1) * sizeof *all);
	int result;

	if (!all)
		return -ENOMEM;
	pthread_cleanup_push(free, all);
	result = poll_copy(ctx, fds, all, n, until);
	pthread_cleanup_pop(1);
	return result;
}

int ctxfd_poll(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t timeout)
{
	struct pollfd few[8];
	int64_t now = timeout > 0 ? ctxfd_now() : 0;
	int64_t until = timeout < 0 || timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	int saved = errno, result;

	pthread_testcancel();
	result = ctxfd_err(ctx);
	if (result)
		return result;
	if (n < sizeof few / sizeof few[0])
		result = poll_copy(ctx, fds, few, n, until);
	else
		result = too_many(n) ? -EINVAL : poll_many(ctx, fds, n, until);
	errno = saved;
	return result;
}

/* Waits until fd is ready for events, or says so because it never will be: the next try tells. 0, err or -errno. */
static int await_fd(const struct ctxfd *ctx, int fd, int events)
{
	struct pollfd both[2] = { { .fd = fd, .events = (short)events } };
	int ready = poll_under(ctx, both, 1, INT64_MAX);

	return ready < 0 ? ready : 0;
}

/*
 * After a try that would have to wait: 0 when the next one is due, else err or -errno. Some descriptors poll ready and
 * still take nothing, so ctx is asked whatever poll says, and after a few tries in vain the next one is a while off.
 */
static int await_next_try(const struct ctxfd *ctx, int fd, int events, int *vain)
{
	int err = *vain < 8 ? ctxfd_err(ctx) : ctxfd_sleep(ctx, CTXFD_MSEC);

	*vain += *vain < 8;
	return err ? err : await_fd(ctx, fd, events);
}

/*
 * WHETHER TO TRY FIRST. A thread that had to wait for a descriptor, and then got what it wanted, most likely has to wait
 * for it the next time too. So it polls first then, and makes no call in vain. If that is wrong it costs a poll. One call
 * in eight tries first, and if it need not wait those that follow do the same. And the poll lasts 10 ms at most, then
 * comes a try: what has the descriptor's number by now may be something that never polls ready.
 */
static bool expects_to_wait(int fd, int events)
{
	struct waiter *w = ctxfdi_own_waiter;

	return w && w->expects_fd == fd && w->expects_events == events && ++w->expected % 8;
}

static int await_expected(const struct ctxfd *ctx, int fd, int events)
{
	struct pollfd both[2] = { { .fd = fd, .events = (short)events } };
	int ready = poll_under(ctx, both, 1, ctxfd_now() + 10 * CTXFD_MSEC);

	return ready < 0 ? ready : 0;
}

/* After a call that tried first, and succeeded. */
static void expect(int fd, int events, bool waited)
{
	struct waiter *w = ctxfdi_own_waiter;

	if (w && (waited || (w->expects_fd == fd && w->expects_events == events))) {
		w->expects_fd = waited ? fd : -1;
		w->expects_events = events;
	}
}

/* ---- Read, write, recv, send ------------------------------------------------------------------------------------- */

/* One call of the four. */
struct transfer {
	int fd;
	bool out;     /* write or send */
	bool message; /* recv or send: flags count, and only sockets will do */
	int flags;
	void *buf; /* not written to when out */
	size_t size;
};

static ssize_t plain(const struct transfer *t, size_t size)
{
	ssize_t n = t->out ? write(t->fd, t->buf, size) : read(t->fd, t->buf, size);

	return n < 0 ? -errno : n;
}

static ssize_t socket_now(const struct transfer *t)
{
	struct thread_cancel before = thread_cancel_off();
	ssize_t n = t->out ? send(t->fd, t->buf, t->size, t->flags | MSG_DONTWAIT)
	                   : recv(t->fd, t->buf, t->size, t->flags | MSG_DONTWAIT);

	if (n < 0)
		n = -errno;
	thread_cancel_restore(before);
	return n;
}

/* preadv2 or pwritev2 at the file's own position, by number: not every libc has them. */
static ssize_t file_now(const struct transfer *t)
{
	struct iovec part = { .iov_base = t->buf, .iov_len = t->size };
	long n = syscall(t->out ? SYS_pwritev2 : SYS_preadv2, t->fd, &part, 1L, -1L, -1L, RWF_NOWAIT);

	return n < 0 ? -errno : n;
}

/* What the kernel says of a file that knows no RWF_NOWAIT, or a sandbox of the call. */
static bool is_refused(ssize_t n)
{
	return n == -EOPNOTSUPP || n == -ENOSYS || n == -EPERM || n == -EACCES;
}

/*
 * A blocking pipe, opened anew for one call. The names are the thread's own, which need not share its descriptors with
 * the process; the calls are by number, since libc's are cancellation points. -EOPNOTSUPP if it cannot be opened.
 */
static ssize_t reopened_now(const struct transfer *t, int mode)
{
	char name[40];
	long fd, n;

	snprintf(name, sizeof name, "/proc/thread-self/fd/%d", t->fd);
	fd = syscall(SYS_openat, AT_FDCWD, name,
	             (t->out ? O_WRONLY : O_RDONLY) | (mode & O_DIRECT) | O_NONBLOCK | O_CLOEXEC, 0L);
	if (fd < 0)
		return -EOPNOTSUPP;
	n = syscall(t->out ? SYS_write : SYS_read, fd, t->buf, t->size);
	if (n < 0)
		n = -errno;
	syscall(SYS_close, fd);
	return n;
}

/*
 * Files that take a write at once and yet never poll writable: /dev/kmsg (1 is the major number of the kernel's own
 * devices), a fanotify group (it takes FIONREAD; an eventfd, which has no type either, does not).
 */
static bool writes_at_once(const struct transfer *t, const struct stat *st)
{
	int unread;

	if (!t->out)
		return false;
	return S_ISCHR(st->st_mode) ? major(st->st_rdev) == 1
	                            : !(st->st_mode & S_IFMT) && ioctl(t->fd, FIONREAD, &unread) == 0;
}

/* A pipe that polls writable has room for PIPE_BUF bytes and a terminal for some, and for no more. */
static bool takes_pieces(const struct transfer *t, const struct stat *st)
{
	return S_ISFIFO(st->st_mode) || (S_ISCHR(st->st_mode) && isatty(t->fd));
}

/* For what knows no call that does not wait. */
static ssize_t polled_now(const struct transfer *t, const struct stat *st)
{
	int mode = fcntl(t->fd, F_GETFL), ready;
	ssize_t n = -EOPNOTSUPP;

	/* It does not wait, or fails at once, whatever poll says. */
	if (mode & O_NONBLOCK || (mode & O_ACCMODE) == (t->out ? O_RDONLY : O_WRONLY))
		return plain(t, t->size);
	ready = look(t->fd, t->out ? POLLOUT : POLLIN);
	if (ready < 0)
		return ready;
	if (ready == 0 && !writes_at_once(t, st))
		return -EAGAIN;
	if (S_ISFIFO(st->st_mode))
		n = reopened_now(t, mode);
	if (n != -EOPNOTSUPP)
		return n;
	return plain(t, t->out && t->size > PIPE_BUF && takes_pieces(t, st) ? PIPE_BUF : t->size);
}

/*
 * A file on a disk is not asked with RWF_NOWAIT: it would be read short where the part that is in memory ends. It polls
 * ready at any time; what looks like one and does not (/proc/kmsg) waits.
 */
static ssize_t other_now(const struct transfer *t)
{
	struct stat st = { 0 };
	bool on_disk = fstat(t->fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode));
	ssize_t n = on_disk ? -EOPNOTSUPP : file_now(t);

	if (!is_refused(n))
		return n;
	return t->size || on_disk ? polled_now(t, &st) : plain(t, 0);
}

/* One try that does not wait. */
static ssize_t transfer_now(const struct transfer *t)
{
	/* A read of nothing is no recv of nothing, which takes a message or waits for one. */
	ssize_t n = t->size || t->out || t->message ? socket_now(t) : -ENOTSOCK;

	return n == -ENOTSOCK && !t->message ? other_now(t) : n;
}

static ssize_t transfer(const struct ctxfd *ctx, const struct transfer *t)
{
	int saved = errno, events = t->out ? POLLOUT : t->flags & MSG_OOB ? POLLPRI : POLLIN;
	bool may_wait = t->size && !(t->flags & (MSG_DONTWAIT | MSG_ERRQUEUE)), expected;
	int err, vain = 0;
	ssize_t n;

	pthread_testcancel();
	n = err = ctxfd_err(ctx);
	expected = !err && may_wait && expects_to_wait(t->fd, events);
	if (expected)
		n = err = await_expected(ctx, t->fd, events);
	while (!err) {
		n = transfer_now(t);
		if (n == -EINTR)
			n = err = ctxfd_err(ctx);
		else if (n != -EAGAIN || t->flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) /* recv waits for neither */
			break;
		else
			n = err = await_next_try(ctx, t->fd, events, &vain);
	}
	if (n >= 0 && !expected)
		expect(t->fd, events, vain);
	errno = saved;
	return n;
}

ssize_t ctxfd_read(const struct ctxfd *ctx, int fd, void *buf, size_t size)
{
	return transfer(ctx, &(struct transfer){ .fd = fd, .buf = buf, .size = size });
}

ssize_t ctxfd_write(const struct ctxfd *ctx, int fd, const void *buf, size_t size)
{
	return transfer(ctx, &(struct transfer){ .fd = fd, .out = true, .buf = mutable_bytes(buf), .size = size });
}

ssize_t ctxfd_recv(const struct ctxfd *ctx, int fd, void *buf, size_t size, int flags)
{
	return transfer(ctx, &(struct transfer){ .fd = fd, .message = true, .flags = flags, .buf = buf, .size = size });
}

ssize_t ctxfd_send(const struct ctxfd *ctx, int fd, const void *buf, size_t size, int flags)
{
	return transfer(ctx, &(struct transfer){ .fd = fd,
	                                         .out = true,
	                                         .message = true,
	                                         .flags = flags,
	                                         .buf = mutable_bytes(buf),
	                                         .size = size });
}

/* ---- Accept and connect ------------------------------------------------------------------------------------------ */

static int accept_plain(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	int conn = accept4(fd, addr, addrlen, flags);

	return conn < 0 ? -errno : conn;
}

/*
 * Accept has no flag that keeps it from waiting. On a blocking socket: poll, then accept, one thread of the process at
 * a time, or two that both see one connection would leave the slower one waiting where no context reaches it. Who finds
 * another thread at it tries again: that one may wait after all, for another process can be the quicker one.
 */
static int accept_alone(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	static atomic_flag taken = ATOMIC_FLAG_INIT;
	int ready;

	/* Acquire and release pair with each other: one thread's poll comes after the other's accept. */
	if (atomic_flag_test_and_set_explicit(&taken, memory_order_acquire))
		return -EAGAIN;
	ready = look(fd, POLLIN);
	if (ready > 0)
		ready = accept_plain(fd, addr, addrlen, flags);
	else if (ready == 0)
		ready = -EAGAIN;
	atomic_flag_clear_explicit(&taken, memory_order_release);
	return ready;
}

static int accept_now(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	int listening = 0, mode = fcntl(fd, F_GETFL);
	socklen_t size = sizeof listening;

	if (mode < 0)
		return -errno;
	if (mode & O_NONBLOCK || flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) /* does not wait; fails at once */
		return accept_plain(fd, addr, addrlen, flags);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0)
		return -errno;
	if (!listening) /* fails at once */
		return accept_plain(fd, addr, addrlen, flags);
	return accept_alone(fd, addr, addrlen, flags);
}

int ctxfd_accept(const struct ctxfd *ctx, int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	int saved = errno, err, conn, vain = 0;
	struct thread_cancel before;
	bool expected;

	pthread_testcancel();
	conn = err = ctxfd_err(ctx);
	expected = !err && expects_to_wait(fd, POLLIN);
	if (expected)
		conn = err = await_expected(ctx, fd, POLLIN);
	while (!err) {
		before = thread_cancel_off();
		conn = accept_now(fd, addr, addrlen, flags);
		thread_cancel_restore(before);
		if (conn == -EINTR)
			conn = err = ctxfd_err(ctx);
		else if (conn != -EAGAIN)
			break;
		else
			conn = err = await_next_try(ctx, fd, POLLIN, &vain);
	}
	if (conn >= 0 && !expected)
		expect(fd, POLLIN, vain);
	errno = saved;
	return conn;
}

/*
 * Starts the connection without waiting for it. Nobody else uses a socket that is not connected, so its mode may
 * change.
 */
static int start_connecting(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
	int mode = fcntl(fd, F_GETFL), err = 0;
	struct thread_cancel before;

	if (mode < 0)
		return -errno;
	if (!(mode & O_NONBLOCK) && fcntl(fd, F_SETFL, mode | O_NONBLOCK) != 0)
		return -errno;
	before = thread_cancel_off();
	if (connect(fd, addr, addrlen) != 0)
		err = -errno;
	thread_cancel_restore(before);
	if (!(mode & O_NONBLOCK))
		fcntl(fd, F_SETFL, mode);
	return err;
}

static int finish_connecting(const struct ctxfd *ctx, int fd)
{
	int result = 0, err = await_fd(ctx, fd, POLLOUT);
	socklen_t size = sizeof result;

	if (err)
		return err;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &size) != 0)
		return -errno;
	return -result;
}

int ctxfd_connect(const struct ctxfd *ctx, int fd, const struct sockaddr *addr, socklen_t addrlen)
{
	int64_t pause = CTXFD_MSEC / 8;
	struct pollfd room;
	int saved = errno, err;

	pthread_testcancel();
	err = ctxfd_err(ctx);
	if (!err)
		err = start_connecting(fd, addr, addrlen);
	/* A local socket whose listener has no room says so, but nothing tells when there is some. */
	while (err == -EAGAIN && addr->sa_family == AF_UNIX) {
		pause = pause < 8 * CTXFD_MSEC ? 2 * pause : pause;
		err = poll_under(ctx, &room, 0, ctxfd_now() + pause);
		if (!err)
			err = start_connecting(fd, addr, addrlen);
	}
	if (err == -EINPROGRESS || err == -EALREADY || err == -EINTR)
		err = finish_connecting(ctx, fd);
	errno = saved;
	return err;
}
