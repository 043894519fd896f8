/* SPDX-License-Identifier: MIT */
/*
 * worker: a thread computes until it is told to stop. It makes no call that could be interrupted, so it asks the
 * context now and then. That costs a few nanoseconds.
 *
 * The worker gets the context as const: it can see the end, but cannot cancel.
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
	ctxfd_sleep(ctx, 20 * CTXFD_MSEC); /* nothing else ends ctx, so this sleeps the whole time */
	ctxfd_cancel(ctx);
	pthread_join(thread, NULL);
	puts("main: worker has stopped");
	return 0;
}
