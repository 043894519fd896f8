/* SPDX-License-Identifier: MIT */
/*
 * worker: a thread that computes, and is told to stop. It makes no call that could be interrupted, so it asks now and
 * then.
 *
 * Asking a live context costs a few nanoseconds. The worker gets it as const: it can see the end, not bring it about.
 *
 * Output:
 *     worker: found some primes, then: context canceled
 *     main: worker has stopped
 */
#include <ctxfd.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static bool is_prime(unsigned n)
{
	for (unsigned i = 2; i * i <= n; i++)
		if (n % i == 0)
			return false;
	return n >= 2;
}

static void *work(void *arg)
{
	const struct ctxfd *ctx = arg;
	unsigned n = 0, found = 0;

	do
		found += is_prime(++n);
	while (n < 10 || ctxfd_err(ctx) == 0);
	printf("worker: found %s primes, then: %s\n", found > 0 ? "some" : "no", ctxfd_strerror(ctxfd_err(ctx)));
	return NULL;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	pthread_t thread;
	int err;

	if (!ctx) {
		perror("worker");
		return 1;
	}
	err = pthread_create(&thread, NULL, work, ctx);
	if (err) {
		fprintf(stderr, "worker: %s\n", strerror(err));
		return 1;
	}
	ctxfd_sleep(ctx, 20 * CTXFD_MSEC); /* as long as we like to let it work */
	ctxfd_cancel(ctx);
	pthread_join(thread, NULL);
	puts("main: worker has stopped");
	return 0;
}
