/* SPDX-License-Identifier: MIT */
/*
 * interrupt_read: ends a read that knows nothing of contexts, such as one in another library. This is Go's example of
 * AfterFunc.
 *
 * If the context ends while fgets waits, the after-func shuts the socket down; ctxfd_after_stop then returns false. A
 * shutdown lasts, so it may come before fgets begins to wait. A signal to the thread would be lost then.
 *
 * Output:
 *     line: hello
 *     line: context deadline exceeded
 */
#define _POSIX_C_SOURCE 200809L
#include <ctxfd.h>

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void hang_up(void *arg)
{
	shutdown(fileno(arg), SHUT_RD);
}

/* Returns 0, -errno, or the context's err. */
static int get_line(const struct ctxfd *ctx, FILE *stream, char *line, int size)
{
	struct ctxfd_after *after;
	int err = ctxfd_after_func(ctx, hang_up, stream, &after);
	bool got;

	if (err)
		return err;
	got = fgets(line, size, stream) != NULL;
	if (!ctxfd_after_stop(after))
		err = ctxfd_err(ctx);
	return got ? 0 : err ? err : -EPIPE;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC / 4);
	int sockets[2], err;
	char line[64];
	FILE *stream;

	if (!ctx || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0 || !(stream = fdopen(sockets[0], "r")) ||
	    send(sockets[1], "hello\n", 6, 0) != 6) {
		perror("interrupt_read");
		return 1;
	}
	while ((err = get_line(ctx, stream, line, sizeof(line))) == 0)
		printf("line: %s", line);
	fprintf(err == -ETIMEDOUT ? stdout : stderr, "line: %s\n", ctxfd_strerror(err));
	fclose(stream);
	close(sockets[1]);
	return err == -ETIMEDOUT ? 0 : 1;
}
