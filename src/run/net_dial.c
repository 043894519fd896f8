/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_dial: "happy eyeballs" (RFC 8305). All sockets are non-blocking, and one ctxfd_poll waits for all of them, and
 * for the time when the next address has its turn. That is where pthread_cancel acts, and nowhere else. No locks, no
 * state.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/context.h"
#include "core/thread_cancel.h"
#include "ctxfd_net.h"

#define HEAD_START (250 * CTXFD_MSEC)

struct race {
	struct addrinfo *list;
	const struct addrinfo **order;
	struct pollfd *fds; /* the sockets of the attempts under way, in that order */
	unsigned n, next;   /* how many addresses there are; which of them has its turn next */
	unsigned live;      /* attempts under way */
	int64_t turn;       /* when that turn comes */
	int first_error;    /* of the first address, or 0. Until that has failed, its attempt is fds[0] */
};

/* ---- The order --------------------------------------------------------------------------------------------------- */

/* The next address at or after *at that is of the family, or is not; *at moves behind it. NULL: there is none. */
static const struct addrinfo *next_of(const struct addrinfo **at, int family, bool same)
{
	const struct addrinfo *ai = *at;

	while (ai && (ai->ai_family == family) != same)
		ai = ai->ai_next;
	*at = ai ? ai->ai_next : NULL;
	return ai;
}

/* The resolver's order, in which the family of the first address and the others take turns. */
static void set_order(struct race *r)
{
	const struct addrinfo *same = r->list, *other = r->list, *ai;
	int family = r->list->ai_family;
	bool turn = true;

	for (unsigned i = 0; i < r->n; turn = !turn) {
		ai = next_of(turn ? &same : &other, family, turn);
		if (ai)
			r->order[i++] = ai;
	}
}

/* ---- Attempts ---------------------------------------------------------------------------------------------------- */

/* An attempt has failed that was in fds[at], or would have gone there. The next address has its turn at once. */
static void note_failure(struct race *r, unsigned at, int error)
{
	if (at == 0 && !r->first_error)
		r->first_error = error;
	r->turn = 0;
}

/* No descriptor or no memory, which has nothing to do with the address. */
static bool is_local(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

/* Starts to connect to the next address. */
static void start_next(struct race *r)
{
	const struct addrinfo *ai = r->order[r->next];
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
	int error = fd < 0 ? errno : 0;

	r->turn = ctxfd_now() + HEAD_START;
	if (is_local(error) && r->live > 0)
		return; /* this address has another turn */
	r->next++;
	if (!error && connect(fd, ai->ai_addr, ai->ai_addrlen) != 0 && errno != EINPROGRESS && errno != EINTR) {
		error = errno;
		close(fd);
	}
	if (error)
		note_failure(r, r->live, error);
	else
		r->fds[r->live++] = (struct pollfd){ .fd = fd, .events = POLLOUT };
}

/* Whether fd is connected to itself: nobody listens, and the kernel has picked that very port for our end. */
static bool is_own_peer(int fd)
{
	struct sockaddr_storage own = { 0 }, peer = { 0 };
	socklen_t own_size = sizeof own, peer_size = sizeof peer;

	getsockname(fd, (struct sockaddr *)&own, &own_size);
	getpeername(fd, (struct sockaddr *)&peer, &peer_size);
	return memcmp(&own, &peer, sizeof own) == 0;
}

/* What has become of a socket that polls ready: 0 or an errno. */
static int error_of(int fd)
{
	socklen_t size = sizeof(int);
	int error = 0;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return !error && is_own_peer(fd) ? ECONNREFUSED : error;
}

/*
 * The socket of the first attempt that has connected, or -1. Those that have failed are closed, and leave no gap: poll
 * takes no more entries than there may be descriptors.
 */
static int take_winner(struct race *r)
{
	for (unsigned i = 0; i < r->live;) {
		struct pollfd *p = &r->fds[i];
		int fd = p->fd, error;

		if (!p->revents) {
			i++;
			continue;
		}
		error = error_of(fd);
		memmove(p, p + 1, (--r->live - i) * sizeof *p);
		if (!error)
			return fd;
		close(fd);
		note_failure(r, i, error);
	}
	return -1;
}

/* ---- The race ---------------------------------------------------------------------------------------------------- */

/*
 * Starts the attempts whose turn has come. Returns how long to wait for the next one: nanoseconds, or -1 for no limit.
 */
static int64_t start_due(struct race *r)
{
	int64_t left = 0;

	while (r->next < r->n && (r->live == 0 || (left = r->turn - ctxfd_now()) <= 0))
		start_next(r);
	return r->next < r->n ? left : -1;
}

/* The winner, err, or -errno. */
static int run(const struct ctxfd *ctx, struct race *r)
{
	struct thread_cancel before;
	int64_t left;
	int fd = -1, ready;

	do {
		before = thread_cancel_off();
		left = start_due(r);
		thread_cancel_restore(before);
		if (r->live == 0)
			return -r->first_error;
		ready = ctxfd_poll(ctx, r->fds, r->live, left);
		if (ready < 0)
			return ready;
		before = thread_cancel_off();
		fd = take_winner(r);
		thread_cancel_restore(before);
	} while (fd < 0);
	return fd;
}

/* Frees what the race has, also when pthread_cancel ends its wait. */
static void end_race(void *arg)
{
	struct race *r = arg;

	for (unsigned i = 0; i < r->live; i++)
		close(r->fds[i].fd);
	free(r->fds);
	free(r->order);
	freeaddrinfo(r->list);
}

static int race(const struct ctxfd *ctx, struct addrinfo *list)
{
	struct race r = { .list = list };
	struct thread_cancel before;
	int fd = -ENOMEM;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
		r.n++;
	r.order = malloc_quietly(r.n * sizeof(struct addrinfo *));
	r.fds = malloc_quietly(r.n * sizeof *r.fds);
	pthread_cleanup_push(end_race, &r);
	if (r.order && r.fds) {
		set_order(&r);
		fd = run(ctx, &r);
	}
	pthread_cleanup_pop(false);
	before = thread_cancel_off();
	end_race(&r);
	thread_cancel_restore(before);
	return fd;
}

/* Gives fd the flags that the caller wants, in place of those that the race needs. */
static int set_flags(int fd, int flags)
{
	struct thread_cancel before = thread_cancel_off();

	if (!(flags & SOCK_NONBLOCK))
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	if (!(flags & SOCK_CLOEXEC))
		fcntl(fd, F_SETFD, 0);
	thread_cancel_restore(before);
	return fd;
}

int ctxfd_dial(const struct ctxfd *ctx, const char *node, const char *service, int flags)
{
	static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP };
	struct addrinfo *list;
	int err = ctxfd_err(ctx);

	if (!err && (!service || flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)))
		err = -EINVAL;
	if (!err)
		err = ctxfd_getaddrinfo(ctx, node, service, &hints, &list, NULL);
	if (err)
		return err;
	err = race(ctx, list);
	return err < 0 ? err : set_flags(err, flags);
}
