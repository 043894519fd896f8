/* SPDX-License-Identifier: MIT */
/*
 * A server with a thread for each connection. See http.h for what it serves. Compiled twice: its calls wait by poll
 * with what is left of the limit, or (CONTEXTS) under a context.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "http.h"

#include <poll.h>
#include <pthread.h>

#ifdef CONTEXTS

#include <ctxfd.h>

struct connection {
	struct ctxfd *ctx, *request;
	int fd;
	struct input in;
};

static struct ctxfd *server;

static bool connection_open(struct connection *c)
{
	c->ctx = ctxfd_with_idle(server, idle_limit, 0);
	c->request = NULL;
	return c->ctx;
}

static void connection_touch(struct connection *c)
{
	ctxfd_touch(c->ctx);
}

static bool request_begin(struct connection *c)
{
	c->request = ctxfd_with_timeout(c->ctx, request_limit);
	return c->request;
}

static void request_end(struct connection *c)
{
	ctxfd_close(c->request);
	c->request = NULL;
}

static bool request_is_on(const struct connection *c)
{
	return c->request;
}

static void await_end(struct connection *c)
{
	ctxfd_wait(c->request);
}

/* More of the request that is on, or the first of the next one. */
static ssize_t receive(struct connection *c, void *buf, size_t size)
{
	return ctxfd_recv(c->request ? c->request : c->ctx, c->fd, buf, size, 0);
}

static ssize_t transmit(struct connection *c, const void *buf, size_t size)
{
	return ctxfd_send(c->request ? c->request : c->ctx, c->fd, buf, size, MSG_NOSIGNAL);
}

static void connection_close(struct connection *c)
{
	request_end(c);
	ctxfd_close(c->ctx);
}

static void setup(void)
{
	server = ctxfd_with_cancel(ctxfd_background());
	if (!server)
		die("context");
}

#else

struct connection {
	int64_t deadline; /* of the request that is on; 0: none */
	int fd;
	struct input in;
};

static bool connection_open(struct connection *c)
{
	c->deadline = 0;
	return true;
}

static void connection_touch(struct connection *c)
{
	(void)c; /* each wait is as long as the limit */
}

static bool request_begin(struct connection *c)
{
	c->deadline = read_clock() + request_limit;
	return true;
}

static void request_end(struct connection *c)
{
	c->deadline = 0;
}

static bool request_is_on(const struct connection *c)
{
	return c->deadline;
}

static bool ready(struct connection *c, int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t wait = idle_limit;

	if (c->deadline) {
		int64_t left = c->deadline - read_clock();

		wait = left < 0 ? 0 : left < wait ? left : wait;
	}
	return poll(&p, 1, (int)((wait + MSEC - 1) / MSEC)) == 1;
}

static void await_end(struct connection *c)
{
	ready(c, -1, 0);
}

static ssize_t receive(struct connection *c, void *buf, size_t size)
{
	return ready(c, c->fd, POLLIN) ? recv(c->fd, buf, size, MSG_DONTWAIT) : -1;
}

static ssize_t transmit(struct connection *c, const void *buf, size_t size)
{
	ssize_t n = send(c->fd, buf, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno == EAGAIN && ready(c, c->fd, POLLOUT))
		n = send(c->fd, buf, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n;
}

static void connection_close(struct connection *c)
{
	(void)c;
}

static void setup(void)
{
}

#endif

static bool answer(struct connection *c, const struct answer *with)
{
	size_t sent = 0;
	ssize_t n = 1;

	for (; sent < with->size && n > 0; sent += n > 0 ? (size_t)n : 0)
		n = transmit(c, with->bytes + sent, with->size - sent);
	return n > 0;
}

/* False: the connection is over. */
static bool serve(struct connection *c)
{
	enum request r = REQUEST_PARTIAL;
	ssize_t n;

	while (r == REQUEST_PARTIAL) {
		if (!c->in.have || request_is_on(c)) {
			n = receive(c, c->in.bytes + c->in.have, sizeof(c->in.bytes) - c->in.have);
			if (n <= 0)
				return false;
			c->in.have += (size_t)n;
			connection_touch(c);
		}
		r = request_is_on(c) || request_begin(c) ? take_request(&c->in) : REQUEST_BAD;
	}
	if (r == REQUEST_HELLO && answer(c, &hello)) {
		request_end(c);
		return true;
	}
	if (r == REQUEST_NEVER) {
		await_end(c);
		request_end(c); /* the answer has the connection's limit */
		answer(c, &late);
	}
	return false;
}

static void *run(void *arg)
{
	struct connection *c = arg;

	while (serve(c))
		;
	connection_close(c);
	close(c->fd);
	free(c);
	return NULL;
}

int main(int argc, char **argv)
{
	int listener = start_listening(argc, argv, 0);
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 * 1024);
	setup();
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		struct connection *c = fd < 0 ? NULL : malloc(sizeof(*c));
		pthread_t thread;

		if (!c) {
			close(fd);
			continue;
		}
		c->fd = fd;
		c->in.have = 0;
		no_delay(fd);
		if (!connection_open(c) || pthread_create(&thread, &attr, run, c)) {
			connection_close(c);
			close(fd);
			free(c);
		}
	}
}
