/* SPDX-License-Identifier: MIT */
/*
 * The system calls that wait, under a context. Each is the same loop: try without waiting; if that says EAGAIN, poll
 * the descriptor and the done fd together, and try again. So what a try has consumed is never lost to a cancellation.
 *
 * The art is in trying without waiting on a descriptor that may be in blocking mode, whose flags are not ours to change
 * (they belong to the open file, which other threads and processes share): MSG_DONTWAIT for sockets, RWF_NOWAIT for
 * what knows it, else poll first.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "context.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x00000008
#endif

static void *mutable_bytes(const void *buf)
{
	return (void *)(uintptr_t)buf;
}

/* ---- Poll -------------------------------------------------------------------------------------------------------- */

/* ppoll until CLOCK_MONOTONIC `until`, however often a signal interrupts it. */
static int poll_until(struct pollfd *fds, nfds_t n, int64_t until)
{
	for (;;) {
		struct timespec rest = { 0, 0 };
		int64_t left = until == INT64_MAX ? 0 : until - ctxfd_now();
		int ready;

		if (left > 0) {
			rest.tv_sec = left / CTXFD_SEC > INT32_MAX ? INT32_MAX : (time_t)(left / CTXFD_SEC);
			rest.tv_nsec = (long)(left % CTXFD_SEC);
		}
		ready = ppoll(fds, n, until == INT64_MAX ? NULL : &rest, NULL);
		if (ready >= 0)
			return ready;
		if (errno != EINTR)
			return -errno;
		if (left <= 0 && until != INT64_MAX) /* the kernel looks at the fds before it looks for signals */
			return 0;
	}
}

/* The caller's fds alone, for a done fd that polls ready while ctx is live: somebody wrote to it, or closed it. */
static int poll_apart(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t until)
{
	for (;;) {
		int64_t now = ctxfd_now(), next = now + 2 * CTXFD_MSEC;
		int ready = poll_until(fds, n, next < until ? next : until), err = ctxfd_err(ctx);

		if (ready || err || now >= until)
			return ready ? ready : err;
	}
}

/* all: the caller's fds, and room for the done fd behind them. */
static int poll_beside(const struct ctxfd *ctx, struct pollfd *all, nfds_t n, int64_t until)
{
	int fd = ctxfd_done_fd(ctx), ready, err;

	if (fd < 0)
		return fd;
	all[n] = (struct pollfd){ .fd = fd, .events = POLLIN };
	ready = poll_until(all, n + 1, until);
	if (ready <= 0 || !all[n].revents)
		return ready;
	if (ready > 1)
		return ready - 1;
	err = ctxfd_err(ctx);
	return err ? err : poll_apart(ctx, all, n, until);
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

	memcpy(all, fds, n * sizeof *all);
	result = poll_until(all, n, 0); /* what need not wait needs no done fd */
	if (result == 0 && until != 0)
		result = poll_beside(ctx, all, n, until);
	for (nfds_t i = 0; result >= 0 && i < n; i++)
		fds[i].revents = all[i].revents;
	return result;
}

/* With memory for all: no cancellation point. */
static int poll_many(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t until)
{
	struct entry entry = enter();
	struct pollfd *all = malloc((n + 1) * sizeof *all);
	int result = all ? poll_copy(ctx, fds, all, n, until) : -ENOMEM;

	free(all);
	leave(entry);
	return result;
}

int ctxfd_poll(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t timeout)
{
	struct pollfd few[8];
	int64_t now = timeout > 0 ? ctxfd_now() : 0;
	int64_t until = timeout < 0 || timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	int saved = errno, result = ctxfd_err(ctx);

	if (result)
		return result;
	if (n == 0)
		return ctxfd_sleep(ctx, timeout < 0 ? INT64_MAX : timeout);
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
	int ready = poll_beside(ctx, both, 1, INT64_MAX);

	return ready < 0 ? ready : 0;
}

/*
 * After a try that would have to wait: 0 when the next one is due, else err or -errno. Some descriptors poll ready and
 * still take nothing, so ctx is asked whatever poll says, and after a few tries in vain the next one is a while off.
 */
static int await_next_try(const struct ctxfd *ctx, int fd, int events, int *vain)
{
	int err = ++*vain > 8 ? ctxfd_sleep(ctx, CTXFD_MSEC) : ctxfd_err(ctx);

	return err ? err : await_fd(ctx, fd, events);
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
	ssize_t n = t->out ? send(t->fd, t->buf, t->size, t->flags | MSG_DONTWAIT)
	                   : recv(t->fd, t->buf, t->size, t->flags | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

/* preadv2 or pwritev2 at the file's own position, by number: not every libc has them. */
static ssize_t file_now(const struct transfer *t)
{
	struct iovec part = { .iov_base = t->buf, .iov_len = t->size };
	long n = syscall(t->out ? SYS_pwritev2 : SYS_preadv2, t->fd, &part, 1L, -1L, -1L, RWF_NOWAIT);

	return n < 0 ? -errno : n;
}

static bool is_on_disk(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode));
}

/*
 * For what knows no call that does not wait. A pipe that polls writable has room for PIPE_BUF bytes, and for no more.
 */
static ssize_t polled_now(const struct transfer *t)
{
	struct pollfd one = { .fd = t->fd, .events = t->out ? POLLOUT : POLLIN };
	int mode = fcntl(t->fd, F_GETFL);

	if ((mode & O_ACCMODE) == (t->out ? O_RDONLY : O_WRONLY)) /* never polls ready, and fails at once */
		return plain(t, t->size);
	if (poll(&one, 1, 0) <= 0) /* a signal interrupts even this */
		return -EAGAIN;
	return plain(t, t->out && t->size > PIPE_BUF ? PIPE_BUF : t->size);
}

/* One try that does not wait. */
static ssize_t transfer_now(const struct transfer *t)
{
	ssize_t n;

	if (t->message)
		return socket_now(t);
	if (t->size == 0 && !t->out) /* never waits, and on a socket is not what recv does with it */
		return plain(t, 0);
	n = socket_now(t);
	if (n != -ENOTSOCK)
		return n;
	n = file_now(t);
	if (n == -EAGAIN && is_on_disk(t->fd)) /* not in memory; the disk will not keep us long */
		return plain(t, t->size);
	if (n == -EOPNOTSUPP || n == -ENOSYS || n == -EPERM)
		return is_on_disk(t->fd) ? plain(t, t->size) : polled_now(t);
	return n;
}

static ssize_t transfer(const struct ctxfd *ctx, const struct transfer *t)
{
	int saved = errno, events = t->out ? POLLOUT : t->flags & MSG_OOB ? POLLPRI : POLLIN;
	int err = ctxfd_err(ctx), vain = 0;
	ssize_t n = err;

	while (!err) {
		n = transfer_now(t);
		if (n == -EINTR)
			continue;
		if (n != -EAGAIN || t->flags & MSG_ERRQUEUE) /* what is not in the error queue is not waited for */
			break;
		n = err = await_next_try(ctx, t->fd, events, &vain);
	}
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
 * a time, or two that both see one connection would leave the slower one waiting where no context reaches it.
 */
static int accept_now(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd one = { .fd = fd, .events = POLLIN };
	int listening = 0, mode = fcntl(fd, F_GETFL), conn = -EAGAIN;
	socklen_t size = sizeof listening;
	struct entry entry;

	/* What does not listen fails at once, and a non-blocking socket does not wait. */
	if (mode < 0 || mode & O_NONBLOCK || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) || !listening)
		return accept_plain(fd, addr, addrlen, flags);
	entry = enter();
	pthread_mutex_lock(&one_at_a_time);
	if (poll(&one, 1, 0) > 0)
		conn = accept_plain(fd, addr, addrlen, flags);
	pthread_mutex_unlock(&one_at_a_time);
	leave(entry);
	return conn;
}

int ctxfd_accept(const struct ctxfd *ctx, int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	int saved = errno, err = ctxfd_err(ctx), conn = err, vain = 0;

	while (!err) {
		conn = accept_now(fd, addr, addrlen, flags);
		if (conn == -EINTR)
			continue;
		if (conn != -EAGAIN)
			break;
		conn = err = await_next_try(ctx, fd, POLLIN, &vain);
	}
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
	struct entry entry;

	if (mode < 0)
		return -errno;
	if (!(mode & O_NONBLOCK) && fcntl(fd, F_SETFL, mode | O_NONBLOCK) != 0)
		return -errno;
	entry = enter();
	if (connect(fd, addr, addrlen) != 0)
		err = -errno;
	leave(entry);
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
	int saved = errno, err = ctxfd_err(ctx);
	int64_t pause = CTXFD_MSEC / 8;

	if (!err)
		err = start_connecting(fd, addr, addrlen);
	/* A local socket whose listener has no room says so, but nothing tells when there is some. */
	while (err == -EAGAIN && addr->sa_family == AF_UNIX) {
		pause = pause < 8 * CTXFD_MSEC ? 2 * pause : pause;
		err = ctxfd_sleep(ctx, pause);
		if (!err)
			err = start_connecting(fd, addr, addrlen);
	}
	if (err == -EINPROGRESS || err == -EALREADY || err == -EINTR)
		err = finish_connecting(ctx, fd);
	errno = saved;
	return err;
}
