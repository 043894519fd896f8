/* SPDX-License-Identifier: MIT */
/*
 * The calls that wait, under a context of their own with a deadline, as a server with a thread for each connection has
 * one for each request. The floor is ppoll, with the same timeout, and then the call, on the same descriptor.
 *
 * Two threads take turns, on one CPU or on two. Each turn is one call that has to wait, and one that does not, which
 * gives the other thread its turn. So half of a round trip is a sample.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"
#include "ctxfd.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LIMIT   (10 * CTXFD_SEC)
#define MESSAGE 4096 /* one of them is as much as the smallest send buffer takes */

/* One thread's. */
struct side {
	int in, out;
	int wake;                /* by which another thread could end the wait of one by hand */
	struct sockaddr_un peer; /* where the other one listens */
	socklen_t peer_size;
};

struct turn {
	void (*setup)(struct side sides[2]);
	bool (*wait)(const struct side *s,
	             const struct ctxfd *ctx); /* the call that waits; by hand where ctx is NULL */
	bool (*give)(const struct side *s);    /* gives the other thread its turn */
	bool first_gives;                      /* before it waits */
};

static char message[MESSAGE];

static bool any_ready(struct pollfd *p, nfds_t n, int64_t timeout)
{
	struct timespec limit = { timeout / CTXFD_SEC, timeout % CTXFD_SEC };

	return ppoll(p, n, &limit, NULL) == 1;
}

static bool ready(int fd, short events, int64_t timeout)
{
	return any_ready(&(struct pollfd){ .fd = fd, .events = events }, 1, timeout);
}

static void socket_pair(int type, int *a, int *b)
{
	int pair[2], size = 1;

	bench_check(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) == 0);
	for (int i = 0; i < 2; i++)
		bench_check(setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
	*a = pair[0];
	*b = pair[1];
}

/* ---- recv: each waits for the other's byte ----------------------------------------------------------------------- */

static void recv_setup(struct side *s)
{
	socket_pair(SOCK_STREAM, &s[0].in, &s[1].in);
	s[0].out = s[0].in;
	s[1].out = s[1].in;
	bench_check(send(s[1].out, "", 1, 0) == 1); /* whose turn it is */
}

static bool recv_wait(const struct side *s, const struct ctxfd *ctx)
{
	char byte;

	return ctx ? ctxfd_recv(ctx, s->in, &byte, 1, 0) == 1
	           : ready(s->in, POLLIN, LIMIT) && recv(s->in, &byte, 1, MSG_DONTWAIT) == 1;
}

static bool recv_give(const struct side *s)
{
	return send(s->out, "", 1, 0) == 1;
}

static const struct turn turn_recv = { recv_setup, recv_wait, recv_give, false };

/* By hand, but so that another thread can end it. */
static bool woken_wait(const struct side *s, const struct ctxfd *ctx)
{
	struct pollfd both[] = { { .fd = s->in, .events = POLLIN }, { .fd = s->wake, .events = POLLIN } };
	char byte;

	if (ctx)
		return recv_wait(s, ctx);
	return any_ready(both, 2, LIMIT) && both[0].revents && recv(s->in, &byte, 1, MSG_DONTWAIT) == 1;
}

static const struct turn turn_recv_woken = { recv_setup, woken_wait, recv_give, false };

/* ---- send and write: each waits for the other to take out what it has put in before ------------------------------ */

static void send_setup(struct side *s)
{
	socket_pair(SOCK_SEQPACKET, &s[0].out, &s[1].in);
	socket_pair(SOCK_SEQPACKET, &s[1].out, &s[0].in);
	for (int i = 0; i < 2; i++) {
		bench_check(send(s[i].out, message, MESSAGE, 0) == MESSAGE);
		bench_check(send(s[i].out, message, MESSAGE, MSG_DONTWAIT) < 0);
	}
}

static bool send_wait(const struct side *s, const struct ctxfd *ctx)
{
	return ctx ? ctxfd_send(ctx, s->out, message, MESSAGE, 0) == MESSAGE
	           : ready(s->out, POLLOUT, LIMIT) && send(s->out, message, MESSAGE, MSG_DONTWAIT) == MESSAGE;
}

static bool write_wait(const struct side *s, const struct ctxfd *ctx)
{
	return ctx ? ctxfd_write(ctx, s->out, message, MESSAGE) == MESSAGE
	           : ready(s->out, POLLOUT, LIMIT) && write(s->out, message, MESSAGE) == MESSAGE;
}

static bool send_give(const struct side *s)
{
	char buf[MESSAGE];

	return recv(s->in, buf, MESSAGE, MSG_DONTWAIT) == MESSAGE;
}

static const struct turn turn_send = { send_setup, send_wait, send_give, true };
static const struct turn turn_write = { send_setup, write_wait, send_give, true };

/* A pipe of packets that has room for one. Its ends are in blocking mode, as pipes are. */
static void pipe_setup(struct side *s)
{
	for (int i = 0; i < 2; i++) {
		int ends[2];

		bench_check(pipe2(ends, O_CLOEXEC | O_DIRECT) == 0);
		bench_check(fcntl(ends[1], F_SETPIPE_SZ, 1) > 0);
		s[i].out = ends[1];
		s[!i].in = ends[0];
		bench_check(write(s[i].out, message, 1) == 1);
		bench_check(!ready(s[i].out, POLLOUT, 0));
	}
}

static bool pipe_wait(const struct side *s, const struct ctxfd *ctx)
{
	return ctx ? ctxfd_write(ctx, s->out, message, 1) == 1
	           : ready(s->out, POLLOUT, LIMIT) && write(s->out, message, 1) == 1;
}

static bool pipe_give(const struct side *s)
{
	char byte;

	return read(s->in, &byte, 1) == 1;
}

static const struct turn turn_pipe = { pipe_setup, pipe_wait, pipe_give, true };

/* ---- accept: each waits for the other to connect ----------------------------------------------------------------- */

static bool accept_give(const struct side *s)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool connected = connect(fd, (const struct sockaddr *)&s->peer, s->peer_size) == 0;

	return close(fd) == 0 && connected;
}

static void listen_both(struct side *s, int mode)
{
	for (int i = 0; i < 2; i++) {
		struct side *other = &s[!i];

		other->peer.sun_family = AF_UNIX;
		other->peer_size = sizeof other->peer;
		s[i].out = -1;
		s[i].in = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | mode, 0);
		/* A name of the kernel's choice. */
		bench_check(bind(s[i].in, (struct sockaddr *)&other->peer, sizeof other->peer.sun_family) == 0);
		bench_check(getsockname(s[i].in, (struct sockaddr *)&other->peer, &other->peer_size) == 0);
		bench_check(listen(s[i].in, 8) == 0);
	}
	bench_check(accept_give(&s[1]));
}

static void accept_setup(struct side *s)
{
	listen_both(s, SOCK_NONBLOCK);
}

static void blocking_setup(struct side *s)
{
	listen_both(s, 0);
}

static bool accept_wait(const struct side *s, const struct ctxfd *ctx)
{
	int fd = ctx                           ? ctxfd_accept(ctx, s->in, NULL, NULL, SOCK_CLOEXEC)
	         : ready(s->in, POLLIN, LIMIT) ? accept4(s->in, NULL, NULL, SOCK_CLOEXEC)
	                                       : -1;

	return fd >= 0 && close(fd) == 0;
}

static const struct turn turn_accept = { accept_setup, accept_wait, accept_give, false };
static const struct turn turn_accept_blocking = { blocking_setup, accept_wait, accept_give, false };

/* ---- Two threads ------------------------------------------------------------------------------------------------- */

struct player {
	const struct turn *turn;
	struct side *side;
	const struct ctxfd *root; /* NULL: by hand */
	bool gives_first;
	long cpus;
	long n; /* 0: go home */
	long slept;
	sem_t go, over;
	pthread_t thread;
};

static void wait_once(const struct player *p)
{
	struct ctxfd *ctx = NULL;

	if (p->root)
		ctx = ctxfd_with_timeout(p->root, LIMIT);
	bench_check(p->turn->wait(p->side, ctx));
	if (p->root)
		ctxfd_close(ctx);
}

static void *play(void *arg)
{
	struct player *p = arg;

	/* On one CPU: who is woken does not push out who wakes it, which so comes to wait for the answer. */
	if (p->cpus == 1)
		sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 });
	for (;;) {
		sem_wait(&p->go);
		if (!p->n)
			return NULL;
		p->slept = bench_sleeps();
		for (long i = 0; i < p->n; i++) {
			if (p->gives_first)
				bench_check(p->turn->give(p->side));
			wait_once(p);
			if (!p->gives_first)
				bench_check(p->turn->give(p->side));
		}
		p->slept = bench_sleeps() - p->slept;
		sem_post(&p->over);
	}
}

static void start(struct player *p, long n)
{
	p->n = n;
	sem_post(&p->go);
}

static void batch(struct bench *b, struct player *two)
{
	int64_t began = bench_now(), ns;

	for (int i = 0; i < 2; i++)
		start(&two[i], b->n);
	for (int i = 0; i < 2; i++)
		while (sem_wait(&two[i].over))
			;
	ns = bench_now() - began;
	/* Calls that found what they wait for are not what this is about. */
	if (!b->smoke && ns >= b->batch && two[0].slept + two[1].slept < b->n * 2 * 9 / 10)
		bench_miss(b);
	else
		bench_batch(b, ns, b->n, (double)ns / (double)(2 * b->n));
}

static void player_free(struct player *p)
{
	start(p, 0);
	pthread_join(p->thread, NULL);
	sem_destroy(&p->go);
	sem_destroy(&p->over);
}

/* The argument is the number of CPUs. The main thread sleeps. */
static void take_turns(struct bench *b, const struct turn *turn, bool library)
{
	struct ctxfd *root = library ? ctxfd_with_cancel(ctxfd_background()) : NULL;
	struct side sides[2] = { 0 };
	struct player two[2];

	turn->setup(sides);
	for (int i = 0; i < 2; i++) {
		two[i] = (struct player){ .turn = turn, .side = &sides[i], .root = root, .cpus = b->arg };
		two[i].gives_first = !i && turn->first_gives;
		sides[i].wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		bench_check(sides[i].wake >= 0);
		sem_init(&two[i].go, 0, 0);
		sem_init(&two[i].over, 0, 0);
		two[i].thread = bench_thread(i && b->arg > 1 ? 0 : -1, play, &two[i]);
	}
	b->batch = b->smoke ? b->batch : 1000000;
	while (bench_more(b))
		batch(b, two);
	for (int i = 0; i < 2; i++)
		player_free(&two[i]);
	for (int i = 0; i < 2; i++) {
		close(sides[i].wake);
		close(sides[i].in);
		if (sides[i].out >= 0 && sides[i].out != sides[i].in)
			close(sides[i].out);
	}
	ctxfd_close(root);
}

#define ROW(name, turn)                           \
	static void turn##_ctxfd(struct bench *b) \
	{                                         \
		take_turns(b, &turn, true);       \
	}                                         \
	BENCH("ctxfd", name, turn##_ctxfd)        \
	static void turn##_floor(struct bench *b) \
	{                                         \
		take_turns(b, &turn, false);      \
	}                                         \
	BENCH("floor", name, turn##_floor)

ROW("call/recv", turn_recv)
ROW("call/recv-woken", turn_recv_woken)
ROW("call/send", turn_send)
ROW("call/write", turn_write)
ROW("call/write-pipe", turn_pipe)
ROW("call/accept", turn_accept)
ROW("call/accept-blocking", turn_accept_blocking)

/* ---- What need not wait ------------------------------------------------------------------------------------------ */

static void recv_there(struct bench *b, struct ctxfd *ctx)
{
	int in, out;

	socket_pair(SOCK_STREAM, &in, &out);
	while (bench_more(b)) {
		bool wrong = false;
		char byte;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			wrong |= send(out, message, 1, 0) != 1;
			wrong |= (ctx ? ctxfd_recv(ctx, in, &byte, 1, 0) : recv(in, &byte, 1, MSG_DONTWAIT)) != 1;
		}
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	close(in);
	close(out);
	ctxfd_close(ctx);
}

static void there_ctxfd(struct bench *b)
{
	recv_there(b, ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC));
}
BENCH("ctxfd", "call/recv-there", there_ctxfd)

static void there_floor(struct bench *b)
{
	recv_there(b, NULL);
}
BENCH("floor", "call/recv-there", there_floor)
