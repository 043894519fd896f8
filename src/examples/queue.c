/* SPDX-License-Identifier: MIT */
/*
 * queue: a bounded queue between two threads. A thread that waits at it, for a job or for room, stops when its context
 * ends.
 *
 * Output:
 *     worker: job 1
 *     worker: job 2
 *     worker: job 3
 *     worker: job 4
 *     worker: no more jobs: context canceled
 *     main: no room for job 7: context deadline exceeded
 */
#include <ctxfd.h>

#include <stdio.h>
#include <string.h>

#define ROOM 2

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* by put or get: either may be waited for */
	int jobs[ROOM], first, count;
} queue = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* 0, or why ctx ended before there was room. Room that came in time counts, even if ctx has ended by now. */
static int put(const struct ctxfd *ctx, int job)
{
	int err = 0;

	pthread_mutex_lock(&queue.mutex);
	while (queue.count == ROOM && err == 0)
		err = ctxfd_cond_wait(ctx, &queue.changed, &queue.mutex);
	if (queue.count < ROOM) {
		err = 0;
		queue.jobs[(queue.first + queue.count++) % ROOM] = job;
		pthread_cond_broadcast(&queue.changed);
	}
	pthread_mutex_unlock(&queue.mutex);
	return err;
}

/* The same with a job. */
static int get(const struct ctxfd *ctx, int *job)
{
	int err = 0;

	pthread_mutex_lock(&queue.mutex);
	while (queue.count == 0 && err == 0)
		err = ctxfd_cond_wait(ctx, &queue.changed, &queue.mutex);
	if (queue.count > 0) {
		err = 0;
		*job = queue.jobs[queue.first];
		queue.first = (queue.first + 1) % ROOM;
		queue.count--;
		pthread_cond_broadcast(&queue.changed);
	}
	pthread_mutex_unlock(&queue.mutex);
	return err;
}

static void *work(void *arg)
{
	const struct ctxfd *ctx = arg;
	int job = 0, err;

	while ((err = get(ctx, &job)) == 0)
		printf("worker: job %d\n", job);
	printf("worker: no more jobs: %s\n", ctxfd_strerror(err));
	return NULL;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	CTXFD_SCOPED struct ctxfd *brief = NULL;
	pthread_t worker;
	int job = 1, err;

	if (!ctx) {
		perror("queue");
		return 1;
	}
	err = pthread_create(&worker, NULL, work, ctx);
	if (err) {
		fprintf(stderr, "queue: %s\n", strerror(err));
		return 1;
	}
	for (; job <= 4 && err == 0; job++)
		err = put(ctx, job); /* waits when the worker is behind */
	ctxfd_cancel(ctx);
	pthread_join(worker, NULL);

	/* Nobody works any more. */
	brief = ctxfd_with_timeout(ctxfd_background(), 100 * CTXFD_MSEC);
	if (!brief) {
		perror("queue");
		return 1;
	}
	while ((err = put(brief, job)) == 0)
		job++;
	printf("main: no room for job %d: %s\n", job, ctxfd_strerror(err));
	return 0;
}
