/* SPDX-License-Identifier: MIT */
/*
 * hang_up: a request's context ends when its client hangs up, even while the server works and does not read.
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
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Serves one request. Returns 0 or -errno. */
static int serve(int client)
{
	CTXFD_SCOPED struct ctxfd *request = ctxfd_with_fd(ctxfd_background(), client, POLLRDHUP, -ECONNRESET);
	char name[16] = "";
	ssize_t n;

	if (!request)
		return -errno;
	n = ctxfd_recv(request, client, name, sizeof(name) - 1, 0);
	if (n > 0) {
		printf("server: works on \"%s\"\n", name);
		n = ctxfd_send(request, client, "...", 3, MSG_NOSIGNAL);
	}
	if (n <= 0)
		return n < 0 ? (int)n : -ECONNRESET;
	if (ctxfd_sleep(request, 3600 * CTXFD_SEC) == 0) /* the work */
		return -ETIME;
	printf("server: %s, %s\n", ctxfd_strerror(ctxfd_err(request)), ctxfd_strerror(ctxfd_cause(request)));
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

static int fail(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(err));
	return 1;
}

int main(void)
{
	pthread_t thread;
	bool answered;
	void *failed;
	int sockets[2], err;
	char buf[3];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		return fail("socketpair", errno);
	err = pthread_create(&thread, NULL, server, &sockets[1]);
	if (err)
		return fail("pthread_create", err);
	if (send(sockets[0], "page", 4, MSG_NOSIGNAL) != 4)
		return fail("client: send", errno);
	answered = recv(sockets[0], buf, sizeof(buf), 0) > 0;
	if (answered)
		puts("client: hangs up");
	else
		fputs("client: no answer\n", stderr);
	close(sockets[0]);
	pthread_join(thread, &failed);
	return failed || !answered ? 1 : 0;
}
