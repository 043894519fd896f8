/* SPDX-License-Identifier: MIT */
/*
 * grace: a request runs out of time. Its clean-up, a farewell to the client and its answer, gets a second from then on,
 * and knows the request's name.
 *
 * Output:
 *     server: context deadline exceeded
 *     client: "request 7 is over"
 *     server: the client knows
 */
#include <ctxfd.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char name; /* the key of a request's name */

/* Returns 0 or -errno. It never takes longer than its context lasts, however slow the client is. */
static int say_goodbye(const struct ctxfd *cleanup, int client)
{
	char text[40], answer;
	int length = snprintf(text, sizeof(text), "%s is over", (const char *)ctxfd_value(cleanup, &name));
	ssize_t n = ctxfd_send(cleanup, client, text, (size_t)length, MSG_NOSIGNAL);

	if (n > 0)
		n = ctxfd_recv(cleanup, client, &answer, 1, 0);
	return n < 0 ? (int)n : n == 0 ? -ECONNRESET : 0;
}

/* Works until the request is over, and then cleans up. Returns 0 or -errno. */
static int serve(const struct ctxfd *request, int client)
{
	CTXFD_SCOPED struct ctxfd *cleanup = ctxfd_with_grace(request, CTXFD_SEC, 0);
	int err;

	if (!cleanup)
		return -errno;
	if (ctxfd_sleep(request, 3600 * CTXFD_SEC) == 0) /* the work */
		return -ETIME;
	printf("server: %s\n", ctxfd_strerror(ctxfd_err(request)));
	err = say_goodbye(cleanup, client);
	if (!err)
		puts("server: the client knows");
	return err;
}

static int start(int client)
{
	CTXFD_SCOPED struct ctxfd *timed = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC / 10);
	CTXFD_SCOPED_REF const struct ctxfd *request = ctxfd_with_value(timed, &name, "request 7", NULL);

	return request ? serve(request, client) : -errno;
}

static void *client(void *arg)
{
	int server = *(int *)arg;
	char text[40];
	ssize_t n = recv(server, text, sizeof(text), 0);

	if (n > 0) {
		printf("client: \"%.*s\"\n", (int)n, text);
		n = send(server, "!", 1, MSG_NOSIGNAL);
	}
	if (n < 0)
		perror("client");
	close(server);
	return n > 0 ? NULL : arg;
}

int main(void)
{
	pthread_t thread;
	void *failed = NULL;
	int sockets[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0) {
		perror("socketpair");
		return 1;
	}
	err = -pthread_create(&thread, NULL, client, &sockets[1]);
	if (!err) {
		err = start(sockets[0]);
		shutdown(sockets[0], SHUT_RDWR);
		pthread_join(thread, &failed);
	}
	if (err)
		fprintf(stderr, "server: %s\n", ctxfd_strerror(err));
	close(sockets[0]);
	return err || failed ? 1 : 0;
}
