/* SPDX-License-Identifier: MIT */
/*
 * hang_up: a request's context that ends when its client hangs up, though the server is busy elsewhere and reads
 * nothing.
 *
 * Output:
 *     server: works on "page"
 *     client: hangs up
 *     server: context canceled, Connection reset by peer
 */
#define _GNU_SOURCE /* POLLRDHUP */
#include <ctxfd.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void *serve(void *arg)
{
	int client = *(int *)arg;
	struct ctxfd *request = ctxfd_with_fd(ctxfd_background(), client, POLLRDHUP, -ECONNRESET);
	char name[16] = "";

	if (!request || ctxfd_recv(request, client, name, sizeof(name) - 1, 0) < 0)
		return NULL;
	printf("server: works on \"%s\"\n", name);
	send(client, "...", 3, 0);
	ctxfd_sleep(request, 3600 * CTXFD_SEC);
	printf("server: %s, %s\n", ctxfd_strerror(ctxfd_err(request)), ctxfd_strerror(ctxfd_cause(request)));
	ctxfd_close(request);
	return NULL;
}

int main(void)
{
	pthread_t server;
	int sockets[2];
	char buf[3];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0 || pthread_create(&server, NULL, serve, &sockets[1]) != 0)
		return 1;
	if (send(sockets[0], "page", 4, 0) != 4 || recv(sockets[0], buf, sizeof(buf), 0) <= 0)
		return 1;
	puts("client: hangs up");
	close(sockets[0]);
	pthread_join(server, NULL);
	close(sockets[1]);
	return 0;
}
