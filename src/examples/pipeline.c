/* SPDX-License-Identifier: MIT */
/*
 * pipeline: three threads, joined by pipes, that Ctrl-C ends. Go's signal.NotifyContext.
 *
 * Output:
 *     press Ctrl-C
 *     all threads have ended: Interrupt
 */
#include <ctxfd.h>

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static const struct ctxfd *ctx;
static int numbers[2], squares[2];

static void *count(void *arg)
{
	for (unsigned n = 0; ctxfd_write(ctx, numbers[1], &n, sizeof(n)) > 0; n++)
		ctxfd_sleep(ctx, CTXFD_MSEC);
	return arg;
}

static void *square(void *arg)
{
	for (unsigned n; ctxfd_read(ctx, numbers[0], &n, sizeof(n)) > 0;) {
		n *= n;
		if (ctxfd_write(ctx, squares[1], &n, sizeof(n)) < 0)
			break;
	}
	return arg;
}

static void *sum(void *arg)
{
	for (unsigned n, total = 0; ctxfd_read(ctx, squares[0], &n, sizeof(n)) > 0; total += n)
		if (total == 0 && n > 0)
			puts("press Ctrl-C");
	return arg;
}

int main(void)
{
	void *(*const stages[])(void *) = { count, square, sum };
	pthread_t threads[3];
	sigset_t ctrl_c;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&ctrl_c);
	sigaddset(&ctrl_c, SIGINT);
	ctx = ctxfd_with_signals(ctxfd_background(), &ctrl_c);
	if (!ctx || pipe(numbers) < 0 || pipe(squares) < 0)
		return 1;
	for (int i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, stages[i], NULL) != 0)
			return 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("all threads have ended: %s\n", ctxfd_strerror(ctxfd_cause(ctx)));
	ctxfd_unref(ctx);
	return 0;
}
