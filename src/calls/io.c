/* SPDX-License-Identifier: MIT */
/*
 * read, write, recv and send under a context. attempt.h has the loop.
 *
 * The art is in trying without waiting on a descriptor that may be in blocking mode, whose flags are not ours to change
 * (they belong to the open file, which other threads and processes share): MSG_DONTWAIT for sockets, RWF_NOWAIT for
 * what knows it, a pipe opened anew on kernels whose pipes do not, else poll first.
 *
 * PTHREAD_CANCEL is kept from a try that does not wait: some libcs (glibc before 2.41) let a thread be cancelled after
 * the kernel has handed over the bytes.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "calls/attempt.h"
#include "calls/poll.h"
#include "core/thread_cancel.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x00000008
#endif

static void *mutable_bytes(const void *buf)
{
	return (void *)(uintptr_t)buf;
}

/* One call of the four. */
struct transfer {
	int fd;
	bool out;     /* write or send */
	bool message; /* recv or send: flags count, and only sockets will do */
	bool nowait;  /* the try before this one had to wait, by RWF_NOWAIT */
	int flags;
	void *buf; /* not written to when out */
	size_t size;
};

static ssize_t plain(const struct transfer *t, size_t size)
{
	ssize_t n = t->out ? write(t->fd, t->buf, size) : read(t->fd, t->buf, size);

	return n < 0 ? -errno : n;
}

/* For what does not wait. */
static ssize_t plain_now(const struct transfer *t)
{
	struct thread_cancel before = thread_cancel_off();
	ssize_t n = plain(t, t->size);

	thread_cancel_restore(before);
	return n;
}

static ssize_t socket_now(const struct transfer *t)
{
	struct thread_cancel before = thread_cancel_off();
	ssize_t n = t->out ? send(t->fd, t->buf, t->size, t->flags | MSG_DONTWAIT)
	                   : recv(t->fd, t->buf, t->size, t->flags | MSG_DONTWAIT);

	if (n < 0)
		n = -errno;
	/* A send that was to open the connection (TCP_FASTOPEN_CONNECT) has begun that, and taken nothing. */
	if (n == -EINPROGRESS && t->out && !(t->flags & MSG_DONTWAIT))
		n = -EAGAIN;
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

/* Moves no bytes, by a vector: no file waits for that, whereas a plain read of an inotify descriptor would wait. */
static ssize_t nothing_now(const struct transfer *t)
{
	struct iovec part = { .iov_base = t->buf };
	long n = syscall(t->out ? SYS_writev : SYS_readv, t->fd, &part, 1L);

	return n < 0 ? -errno : n;
}

/* What the kernel says of a file that knows no RWF_NOWAIT, or a sandbox of the call. */
static bool is_refused(ssize_t n)
{
	return n == -EOPNOTSUPP || n == -ENOSYS || n == -EPERM || n == -EACCES;
}

/*
 * Opens a blocking pipe anew for one call, by the thread's own directory: that of the process is empty once the main
 * thread has ended. The calls are made by number, since libc's functions are cancellation points. -EOPNOTSUPP if it
 * cannot be opened.
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
		return plain_now(t);
	ready = ctxfdi_look_at_fd(t->fd, t->out ? POLLOUT : POLLIN);
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
static ssize_t other_now(struct transfer *t)
{
	struct stat st = { 0 };
	bool on_disk = fstat(t->fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode));
	ssize_t n = on_disk ? -EOPNOTSUPP : file_now(t);

	t->nowait = n == -EAGAIN;
	if (!is_refused(n))
		return n;
	return t->size || on_disk ? polled_now(t, &st) : nothing_now(t);
}

/*
 * One try that does not wait. What the try before has found out spares this one two calls, but is not believed twice in
 * a row: another thread may have put something else behind the number.
 */
static ssize_t transfer_now(void *call)
{
	struct transfer *t = call;
	ssize_t n = t->nowait ? file_now(t) : -EOPNOTSUPP;

	t->nowait = false;
	if (!is_refused(n))
		return n;
	/* A read of nothing is no recv of nothing, which takes a message or waits for one. */
	n = t->size || t->out || t->message ? socket_now(t) : -ENOTSOCK;
	return n == -ENOTSOCK && !t->message ? other_now(t) : n;
}

static ssize_t transfer(const struct ctxfd *ctx, struct transfer *t)
{
	int events = t->out ? POLLOUT : t->flags & MSG_OOB ? POLLPRI : POLLIN;
	bool only_once = t->flags & (MSG_DONTWAIT | MSG_ERRQUEUE); /* recv waits for neither */
	struct attempt a = {
		.now = transfer_now,
		.call = t,
		.fd = t->fd,
		.events = events,
		.only_once = only_once,
		.polls_first = !t->out && t->size && !only_once,
	};

	return ctxfdi_attempt(ctx, &a);
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
