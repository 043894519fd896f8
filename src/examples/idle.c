/* SPDX-License-Identifier: MIT */
/*
 * idle: a connection ends when nobody has used it for half a second. Each message that comes starts that time anew.
 *
 * Output:
 *     server: "one"
 *     server: "two"
 *     server: "three"
 *     server: nobody uses the connection any more
 *     client: the server has hung up
 */
#include <ctxfd.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Serves one connection. Returns 0 or -errno. */
static int serve(int client)
{
	CTXFD_SCOPED struct ctxfd *connection = ctxfd_with_idle(ctxfd_background(), CTXFD_SEC / 2, 0);
	char message[16];
	ssize_t n;

	if (!connection)
		return -errno;
	while ((n = ctxfd_recv(connection, client, message, sizeof(message), 0)) > 0) {
		ctxfd_touch(connection);
		printf("server: \"%.*s\"\n", (int)n, message);
	}
	if (!ctxfd_err(connection)) /* the client has hung up, or it is an error of the socket */
		return n < 0 ? (int)n : -ECONNRESET;
	puts("server: nobody uses the connection any more");
	return 0;
}

static void *server(void *arg)
{
	int client = *(int *)arg, err = serve(client);

	if (err)
		fprintf(stderr, "server: %s\n", ctxfd_strerror(err));
	close(client);
	return err ? arg : NULL;
}

/* Says something every fifth of a second, then nothing more. Returns 0 or -errno. */
static int talk(int server)
{
	static const char *const words[] = { "one", "two", "three" };
	char byte;

	for (int i = 0; i < 3; i++) {
		if (send(server, words[i], strlen(words[i]), MSG_NOSIGNAL) < 0)
			return -errno;
		ctxfd_sleep(ctxfd_background(), CTXFD_SEC / 5);
	}
	return recv(server, &byte, 1, 0) < 0 ? -errno : 0;
}

int main(void)
{
	pthread_t thread;
	void *failed;
	int sockets[2], err;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) < 0) {
		perror("socketpair");
		return 1;
	}
	err = -pthread_create(&thread, NULL, server, &sockets[1]);
	if (!err) {
		err = talk(sockets[0]);
		shutdown(sockets[0], SHUT_RDWR);
		pthread_join(thread, &failed);
	}
	if (err)
		fprintf(stderr, "client: %s\n", ctxfd_strerror(err));
	else
		puts("client: the server has hung up");
	close(sockets[0]);
	return err || failed ? 1 : 0;
}
