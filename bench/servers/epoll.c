/* SPDX-License-Identifier: MIT */
/* A server with one thread and epoll. See http.h for what it serves, and limits.h for what is compiled twice. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "limits.h"

#include <sys/epoll.h>

#define EVENTS 64

struct connection {
	struct limits limits; /* the first: a pointer to it is one to the connection */
	int fd;
	bool full, last; /* the socket takes no more now; it is closed after this answer */
	const char *out;
	size_t left; /* of out */
	struct input in;
};

static int epoll, listener;

static void watch(int op, int fd, uint32_t events, void *who)
{
	struct epoll_event event = { .events = events, .data.ptr = who };

	if (epoll_ctl(epoll, op, fd, &event) < 0)
		die("epoll_ctl");
}

static void connection_close(struct connection *c)
{
	limits_close(&c->limits);
	close(c->fd);
	free(c);
}

/* Sends what is left of the answer. False: the connection is closed. */
static bool go_on(struct connection *c)
{
	ssize_t n = send(c->fd, c->out, c->left, MSG_DONTWAIT | MSG_NOSIGNAL);
	bool full = n < (ssize_t)c->left;

	if ((n < 0 && errno != EAGAIN) || (!full && c->last)) {
		connection_close(c);
		return false;
	}
	if (n > 0) {
		c->out += n;
		c->left -= (size_t)n;
	}
	if (full != c->full)
		watch(EPOLL_CTL_MOD, c->fd, full ? EPOLLOUT : EPOLLIN, c);
	c->full = full;
	if (!full)
		request_end(&c->limits);
	return true;
}

static bool answer(struct connection *c, const struct answer *with, bool last)
{
	c->out = with->bytes;
	c->left = with->size;
	c->last = last;
	return go_on(c);
}

static void serve(struct connection *c)
{
	while (!c->left && c->in.have) {
		enum request r;

		if (!request_is_on(&c->limits) && !request_begin(&c->limits))
			r = REQUEST_BAD;
		else
			r = take_request(&c->in);
		if (r == REQUEST_PARTIAL)
			return;
		if (r == REQUEST_NEVER) {
			watch(EPOLL_CTL_MOD, c->fd, 0, c);
			return;
		}
		if (!answer(c, r == REQUEST_BAD ? &late : &hello, r == REQUEST_BAD))
			return;
	}
}

static void connection_ready(struct connection *c, uint32_t events)
{
	ssize_t n;

	if (events & EPOLLOUT) {
		if (go_on(c))
			serve(c);
		return;
	}
	n = recv(c->fd, c->in.bytes + c->in.have, sizeof(c->in.bytes) - c->in.have, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		connection_close(c);
		return;
	}
	c->in.have += (size_t)n;
	limits_touch(&c->limits);
	serve(c);
}

static void connection_idle(struct limits *l)
{
	connection_close((struct connection *)l);
}

static void request_late(struct limits *l)
{
	struct connection *c = (struct connection *)l;

	if (c->left)
		connection_close(c);
	else
		answer(c, &late, true);
}

static void accept_one(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *c = fd < 0 ? NULL : malloc(sizeof(*c));

	if (!c || !limits_open(&c->limits)) {
		if (c)
			limits_close(&c->limits);
		free(c);
		if (fd >= 0)
			close(fd);
		return;
	}
	c->fd = fd;
	c->full = c->last = false;
	c->left = 0;
	c->in.have = 0;
	no_delay(fd);
	watch(EPOLL_CTL_ADD, fd, EPOLLIN, c);
}

/* Returns how many events there are. */
static int wait_for_events(struct epoll_event *events)
{
#ifdef CONTEXTS
	return epoll_wait(epoll, events, EVENTS, -1);
#else
	int64_t wait = limits_wait();
	int n = epoll_wait(epoll, events, EVENTS, wait < 0 ? -1 : (int)((wait + MSEC - 1) / MSEC));

	now = read_clock();
	return n;
#endif
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];

	listener = start_listening(argc, argv, SOCK_NONBLOCK);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		die("epoll_create1");
	limits_setup();
	watch(EPOLL_CTL_ADD, listener, EPOLLIN, &listener);
#ifdef CONTEXTS
	watch(EPOLL_CTL_ADD, limits_fd(), EPOLLIN, NULL);
#endif
	for (;;) {
		bool due = LIMITS_ASK;
		int n = wait_for_events(events);

		for (int i = 0; i < n; i++) {
			if (!events[i].data.ptr)
				due = true;
			else if (events[i].data.ptr == &listener)
				accept_one();
			else
				connection_ready(events[i].data.ptr, events[i].events);
		}
		if (due)
			limits_run();
	}
}
