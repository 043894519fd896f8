/* SPDX-License-Identifier: MIT */
/*
 * generator: a thread makes numbers for as long as somebody wants them. Go's example of WithCancel.
 *
 * The pipe is the channel. Cancelling the context is what ends the thread: by then it is stuck in a write that nobody
 * will make room for.
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

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

struct generator {
	const struct ctxfd *ctx;
	int out;
};

static void *generate(void *arg)
{
	const struct generator *g = arg;
	ssize_t n;

	for (int i = 1; (n = ctxfd_write(g->ctx, g->out, &i, sizeof(i))) > 0; i++)
		continue;
	printf("generator: %s\n", ctxfd_strerror((int)n));
	return NULL;
}

int main(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct generator generator = { .ctx = ctx };
	int fds[2], number = 0;
	pthread_t thread;

	if (!ctx || pipe(fds) < 0)
		return 1;
	generator.out = fds[1];
	if (pthread_create(&thread, NULL, generate, &generator) != 0)
		return 1;

	while (number < 5 && read(fds[0], &number, sizeof(number)) > 0)
		printf("%d\n", number);

	ctxfd_cancel(ctx);
	pthread_join(thread, NULL);
	ctxfd_unref(ctx);
	close(fds[0]);
	close(fds[1]);
	return 0;
}
