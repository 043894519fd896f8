/* SPDX-License-Identifier: MIT */
/*
 * generator: a thread makes numbers until they are no longer wanted. This is Go's example of WithCancel.
 *
 * The pipe is the channel. When main has its five numbers, it cancels the context. That ends the thread even while it
 * waits in a write to the full pipe.
 *
 * Output:
 *     1
 *     2
 *     3
 *     4
 *     5
 *     generator: context canceled
 */
#include <ctxfd.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct generator {
	const struct ctxfd *ctx;
	int out; /* the pipe's writing end, which the thread closes */
	int err; /* why the thread ended */
};

static void *generate(void *arg)
{
	struct generator *g = arg;
	ssize_t n;

	for (int i = 1; (n = ctxfd_write(g->ctx, g->out, &i, sizeof(i))) > 0; i++)
		continue;
	g->err = (int)n;
	fprintf(g->err == -ECANCELED ? stdout : stderr, "generator: %s\n", ctxfd_strerror(g->err));
	close(g->out); /* so that the reader does not wait for more */
	return NULL;
}

int main(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct generator generator = { .ctx = ctx };
	int fds[2], number = 0, err;
	pthread_t thread;

	if (!ctx || pipe(fds) < 0) {
		perror("generator");
		return 1;
	}
	generator.out = fds[1];
	err = pthread_create(&thread, NULL, generate, &generator);
	if (err) {
		fprintf(stderr, "generator: %s\n", strerror(err));
		return 1;
	}

	while (number < 5 && read(fds[0], &number, sizeof(number)) == sizeof(number))
		printf("%d\n", number);
	if (number < 5)
		fprintf(stderr, "generator: %d numbers came, not 5\n", number);

	ctxfd_cancel(ctx);
	pthread_join(thread, NULL);
	ctxfd_unref(ctx);
	close(fds[0]);
	return number < 5 || generator.err != -ECANCELED;
}
