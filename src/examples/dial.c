/* SPDX-License-Identifier: MIT */
/*
 * dial: a connection to a name, and the first line that comes, all of it within two seconds: the resolver, the
 * connecting and the reading have one deadline.
 *
 * Without arguments it talks to itself: to a listener on this machine, which has an IPv4 address only, so that a first
 * attempt by IPv6 fails. `dial HOST PORT` talks to somebody else: try `dial localhost 22`.
 *
 * Output:
 *     dial: hello
 */
#define _GNU_SOURCE
#include <ctxfd_net.h>

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A listener on this machine, whose port is stored as text; or -errno. */
static int serve(char *port, size_t size)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *any = (struct sockaddr *)&addr;
	socklen_t addrlen = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	if (bind(fd, any, addrlen) < 0 || listen(fd, 1) < 0 || getsockname(fd, any, &addrlen) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	snprintf(port, size, "%d", ntohs(addr.sin_port));
	return fd;
}

/* The listener's side, if there is one: 0 or a negative error. */
static int greet(const struct ctxfd *ctx, int listener)
{
	int peer;
	ssize_t n;

	if (listener < 0)
		return 0;
	peer = ctxfd_accept(ctx, listener, NULL, NULL, SOCK_CLOEXEC);
	if (peer < 0)
		return peer;
	n = ctxfd_send(ctx, peer, "hello\n", 6, MSG_NOSIGNAL);
	close(peer);
	return n < 0 ? (int)n : 0;
}

/* Dials, and reads a line of at most size - 1 bytes: 0 or a negative error. */
static int fetch(const struct ctxfd *ctx, const char *host, const char *port, int listener, char *line, size_t size)
{
	int sock = ctxfd_dial(ctx, host, port, SOCK_CLOEXEC), err;
	size_t got = 0;
	ssize_t n = 0;

	if (sock < 0)
		return sock;
	err = greet(ctx, listener);
	while (!err && got < size - 1 && !memchr(line, '\n', got)) {
		n = ctxfd_recv(ctx, sock, line + got, size - 1 - got, 0);
		if (n <= 0)
			err = n < 0 ? (int)n : -EPIPE;
		else
			got += (size_t)n;
	}
	line[got] = '\0';
	close(sock);
	return err;
}

int main(int argc, char **argv)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 2 * CTXFD_SEC);
	const char *host = argc == 3 ? argv[1] : NULL, *port = argc == 3 ? argv[2] : NULL;
	int listener = -1, err = ctx ? 0 : -errno;
	char line[256], own_port[16];

	if (!err && !port) {
		err = listener = serve(own_port, sizeof(own_port));
		port = own_port;
	}
	if (err >= 0)
		err = fetch(ctx, host, port, listener, line, sizeof(line));
	if (listener >= 0)
		close(listener);
	if (err < 0) {
		fprintf(stderr, "dial: %s\n", ctxfd_strerror(err));
		return 1;
	}
	printf("dial: %.*s\n", (int)strcspn(line, "\r\n"), line);
	return 0;
}
