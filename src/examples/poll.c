/* SPDX-License-Identifier: MIT */
/*
 * poll: one poll waits for a socket and a context. The done fd works in select, epoll and io_uring too.
 *
 * Output:
 *     socket: hello
 *     context: context deadline exceeded
 */
#include <ctxfd.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC / 2);
	int sockets[2], done = ctx ? ctxfd_done_fd(ctx) : -errno;
	struct pollfd fds[2];

	if (done < 0) { /* poll would ignore it and wait forever */
		fprintf(stderr, "done fd: %s\n", ctxfd_strerror(done));
		return 1;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0 || send(sockets[1], "hello", 5, 0) != 5)
		return fail("socket");
	fds[0] = (struct pollfd){ .fd = sockets[0], .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = done, .events = POLLIN };

	do {
		if (poll(fds, 2, -1) < 0)
			return fail("poll");
		if (fds[0].revents) {
			char buf[16];
			ssize_t n = recv(sockets[0], buf, sizeof(buf), 0);

			if (n < 0)
				return fail("recv");
			printf("socket: %.*s\n", (int)n, buf);
		}
	} while (!fds[1].revents); /* do not read the done fd; ask the context */
	printf("context: %s\n", ctxfd_strerror(ctxfd_err(ctx)));
	close(sockets[0]);
	close(sockets[1]);
	return 0;
}
