/* SPDX-License-Identifier: MIT */
/*
 * A function that runs on another thread while its caller waits: ctxfd_call, under a context with a deadline. The floor
 * hands it over to a thread that is parked, by a mutex and two condition variables, and waits with a time limit, too.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"
#include "ctxfd.h"

#include <time.h>

static int count(void *arg)
{
	++*(long *)arg;
	return 0;
}

static void by_ctxfd(struct bench *b)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);

	while (bench_more(b)) {
		long ran = 0, n = b->n;

		bench_start(b);
		for (long i = 0; i < n; i++) {
			int result = -1;

			bench_check(ctxfd_call(ctx, count, &ran, NULL, &result) == 0 && result == 0);
		}
		bench_stop(b, n);
		bench_check(ran == n);
	}
	ctxfd_close(ctx);
}
BENCH("ctxfd", "handover", by_ctxfd)

struct parked {
	pthread_mutex_t lock;
	pthread_cond_t wake, caller;
	enum { PARKED, READY, FINISHED, ENDING } state;
	int (*fn)(void *arg);
	void *arg;
	int result;
};

static void *serve(void *arg)
{
	struct parked *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		int result;

		while (p->state != READY && p->state != ENDING)
			pthread_cond_wait(&p->wake, &p->lock);
		if (p->state == ENDING)
			break;
		pthread_mutex_unlock(&p->lock);
		result = p->fn(p->arg);
		pthread_mutex_lock(&p->lock);
		p->result = result;
		p->state = FINISHED;
		pthread_cond_signal(&p->caller);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int hand_over(struct parked *p, int (*fn)(void *arg), void *arg)
{
	struct timespec limit;
	int result;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 3600;
	pthread_mutex_lock(&p->lock);
	p->fn = fn;
	p->arg = arg;
	p->state = READY;
	pthread_cond_signal(&p->wake);
	while (p->state != FINISHED)
		bench_check(pthread_cond_timedwait(&p->caller, &p->lock, &limit) == 0);
	result = p->result;
	p->state = PARKED;
	pthread_mutex_unlock(&p->lock);
	return result;
}

static void by_hand(struct bench *b)
{
	struct parked p = { .lock = PTHREAD_MUTEX_INITIALIZER,
		            .wake = PTHREAD_COND_INITIALIZER,
		            .caller = PTHREAD_COND_INITIALIZER };
	pthread_t thread;

	bench_check(pthread_create(&thread, NULL, serve, &p) == 0);
	while (bench_more(b)) {
		long ran = 0, n = b->n;

		bench_start(b);
		for (long i = 0; i < n; i++)
			bench_check(hand_over(&p, count, &ran) == 0);
		bench_stop(b, n);
		bench_check(ran == n);
	}
	pthread_mutex_lock(&p.lock);
	p.state = ENDING;
	pthread_cond_signal(&p.wake);
	pthread_mutex_unlock(&p.lock);
	pthread_join(thread, NULL);
}
BENCH("floor", "handover", by_hand)
