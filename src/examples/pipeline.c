/* SPDX-License-Identifier: MIT */
/*
 * pipeline: three threads, joined by pipes, end when Ctrl-C comes. This is Go's signal.NotifyContext.
 *
 * Output:
 *     press Ctrl-C
 *     all threads have ended: Interrupt
 */
#include <ctxfd.h>

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static struct ctxfd *ctx;
static int numbers[2], squares[2];

/* The first stage that fails ends the others, with its error as the cause. After Ctrl-C this has no effect. */
static void *finish(ssize_t n)
{
	ctxfd_cancel_cause(ctx, (int)n);
	return NULL;
}

static void *count(void *arg)
{
	ssize_t n;

	for (unsigned i = 0; (n = ctxfd_write(ctx, numbers[1], &i, sizeof(i))) > 0; i++)
		ctxfd_sleep(ctx, CTXFD_MSEC);
	(void)arg;
	return finish(n);
}

static void *square(void *arg)
{
	unsigned i;
	ssize_t n;

	while ((n = ctxfd_read(ctx, numbers[0], &i, sizeof(i))) > 0) {
		i *= i;
		n = ctxfd_write(ctx, squares[1], &i, sizeof(i));
		if (n < 0)
			break;
	}
	(void)arg;
	return finish(n);
}

static void *sum(void *arg)
{
	unsigned i, total = 0;
	ssize_t n;

	for (; (n = ctxfd_read(ctx, squares[0], &i, sizeof(i))) > 0; total += i)
		if (total == 0 && i > 0)
			puts("press Ctrl-C");
	(void)arg;
	return finish(n);
}

int main(void)
{
	void *(*const stages[])(void *) = { count, square, sum };
	pthread_t threads[3];
	sigset_t ctrl_c;
	int n, cause;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&ctrl_c);
	sigaddset(&ctrl_c, SIGINT);
	ctx = ctxfd_with_signals(ctxfd_background(), &ctrl_c);
	if (!ctx || pipe(numbers) < 0 || pipe(squares) < 0) {
		perror("pipeline");
		return 1;
	}
	for (n = 0; n < 3; n++) {
		int err = pthread_create(&threads[n], NULL, stages[n], NULL);

		if (err) {
			ctxfd_cancel_cause(ctx, -err);
			break;
		}
	}
	while (n > 0)
		pthread_join(threads[--n], NULL);
	cause = ctxfd_cause(ctx);
	fprintf(cause == SIGINT ? stdout : stderr, "all threads have ended: %s\n", ctxfd_strerror(cause));
	ctxfd_unref(ctx);
	for (int end = 0; end < 2; end++) {
		close(numbers[end]);
		close(squares[end]);
	}
	return cause == SIGINT ? 0 : 1;
}
