/* SPDX-License-Identifier: MIT */
/*
 * poll: a socket and a context in one poll. The done fd is a descriptor like any other, in select, epoll and io_uring
 * too.
 *
 * Output:
 *     socket: hello
 *     context: context deadline exceeded
 */
#include <ctxfd.h>

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC / 2);
	int sockets[2];
	struct pollfd fds[2];

	if (!ctx || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		return 1;
	fds[0] = (struct pollfd){ .fd = sockets[0], .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = ctxfd_done_fd(ctx), .events = POLLIN };
	if (fds[1].fd < 0 || send(sockets[1], "hello", 5, 0) != 5)
		return 1;

	while (poll(fds, 2, -1) > 0) {
		char buf[16];

		if (fds[0].revents)
			printf("socket: %.*s\n", (int)recv(sockets[0], buf, sizeof(buf), 0), buf);
		if (fds[1].revents) { /* never read; ask the context */
			printf("context: %s\n", ctxfd_strerror(ctxfd_err(ctx)));
			break;
		}
	}
	close(sockets[0]);
	close(sockets[1]);
	return 0;
}
