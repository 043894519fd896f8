/* SPDX-License-Identifier: MIT */
/*
 * accept and connect under a context. attempt.h has the loop of accept. Threads that accept on a blocking socket take
 * turns.
 *
 * PTHREAD_CANCEL acts where a call begins and where it waits. A try is kept from it: some libcs (glibc before 2.41) let
 * a thread be cancelled after the kernel has handed over the connection.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "calls/attempt.h"
#include "calls/poll.h"
#include "core/fork.h"
#include "core/thread_cancel.h"

/* One call of accept. */
struct acceptance {
	int fd;
	struct sockaddr *addr;
	socklen_t *addrlen;
	int flags;
};

static int accept_plain(const struct acceptance *a)
{
	int conn = accept4(a->fd, a->addr, a->addrlen, a->flags);

	return conn < 0 ? -errno : conn;
}

/*
 * Accept has no flag that keeps it from waiting. So on a blocking socket this polls, then accepts; and one thread of
 * the process at a time does so. If two saw the same connection, the slower one would wait in accept, where no context
 * reaches it. A thread that finds another at it does not wait for that one (it may be waiting in accept after all, if
 * another process was quicker), but has nothing for now: EAGAIN. `taken` says of which process the thread is, since the
 * child of a fork inherits `taken`, but not the thread.
 */
static int accept_alone(const struct acceptance *a)
{
	static _Atomic uint32_t taken; /* ctxfdi_forks + 1 of the process that has a thread at it; 0: none */
	uint32_t ours = ctxfdi_forks + 1, seen = atomic_load_explicit(&taken, memory_order_relaxed);
	int ready;

	/* Acquire and release pair with each other: one thread's poll comes after the other's accept. */
	if (seen == ours ||
	    !atomic_compare_exchange_strong_explicit(&taken, &seen, ours, memory_order_acquire, memory_order_relaxed))
		return -EAGAIN;
	ready = ctxfdi_look_at_fd(a->fd, POLLIN);
	if (ready > 0)
		ready = accept_plain(a);
	else if (ready == 0)
		ready = -EAGAIN;
	/* Not a child's, if a signal's handler has forked here. */
	atomic_compare_exchange_strong_explicit(&taken, &ours, 0, memory_order_release, memory_order_relaxed);
	return ready;
}

static int accept_without_waiting(const struct acceptance *a)
{
	int listening = 0, mode = fcntl(a->fd, F_GETFL);
	socklen_t size = sizeof listening;

	if (mode < 0)
		return -errno;
	/* As the kernel does; musl would try again without flags, and wait. */
	if (a->flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	if (mode & O_NONBLOCK)
		return accept_plain(a);
	if (getsockopt(a->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0)
		return -errno;
	if (!listening) /* fails at once */
		return accept_plain(a);
	return accept_alone(a);
}

static ssize_t accept_now(void *call)
{
	struct thread_cancel before = thread_cancel_off();
	int conn = accept_without_waiting(call);

	thread_cancel_restore(before);
	return conn;
}

int ctxfd_accept(const struct ctxfd *ctx, int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	struct acceptance call = { .fd = fd, .addr = addr, .addrlen = addrlen, .flags = flags };
	struct attempt a = { .now = accept_now, .call = &call, .fd = fd, .events = POLLIN, .polls_first = true };

	return (int)ctxfdi_attempt(ctx, &a);
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

static bool has_peer(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof peer;

	return getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
}

/*
 * Takes back an attempt that has failed, as the kernel does after a connect that waits. Otherwise the next connect
 * would only tell of this one, by ECONNABORTED. Only for IP: on a vsock, to which the attempt is still under way, this
 * would wait.
 */
static void take_back(int fd, const struct sockaddr *addr)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct thread_cancel before = thread_cancel_off();

	if (addr->sa_family == AF_INET || addr->sa_family == AF_INET6)
		(void)connect(fd, &none, sizeof none);
	thread_cancel_restore(before);
}

/* Other protocols' sockets have no such option. */
static bool is_tcp(int fd)
{
	int nodelay;
	socklen_t size = sizeof nodelay;

	return getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size) == 0;
}

/*
 * Waits until the connection stands or has failed: 0, err or -errno. started is what connect returned: -EALREADY if the
 * attempt was begun before this call. SO_ERROR is not enough. Somebody may have taken the error of a failed attempt
 * already: another thread that reads or connects, or the child of a fork. Then the socket has no peer, and polls
 * writable like any that is not connected (a vsock after a refusal, for good). But a connected one of SCTP may have no
 * peer, either.
 */
static int finish_connecting(const struct ctxfd *ctx, int fd, const struct sockaddr *addr, int started)
{
	int result = 0, err = ctxfdi_await_fd(ctx, fd, POLLOUT);
	socklen_t size = sizeof result;
	bool connected;

	if (err)
		return err;
	connected = has_peer(fd); /* first, or a connection that is reset in between would be an error that was taken */
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &size) != 0)
		return -errno;
	if (!result && !connected && (started == -EALREADY || is_tcp(fd)))
		result = ECONNABORTED;
	if (result)
		take_back(fd, addr);
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
		err = ctxfdi_poll_under(ctx, &room, 0, ctxfd_now() + pause);
		if (!err)
			err = start_connecting(fd, addr, addrlen);
	}
	if (err == -EINPROGRESS || err == -EALREADY || err == -EINTR)
		err = finish_connecting(ctx, fd, addr, err);
	errno = saved;
	return err;
}
