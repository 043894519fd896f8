/* SPDX-License-Identifier: MIT */
/* Groups: threads that are made, do next to nothing, and are joined. With a limit, one at a time by turns. */
#include "bench.h"
#include "ctxfd.h"
#include "ctxfd_group.h"

#include <pthread.h>
#include <stdatomic.h>

static int work(const struct ctxfd *ctx, void *arg)
{
	(void)ctx;
	atomic_fetch_add_explicit((atomic_long *)arg, 1, memory_order_relaxed);
	return 0;
}

static void *work_by_hand(void *arg)
{
	work(NULL, arg);
	return NULL;
}

static void with_limit(struct bench *b, unsigned limit)
{
	atomic_long ran;

	while (bench_more(b)) {
		bool wrong = false;
		struct ctxfd_group *g;

		atomic_init(&ran, 0);
		bench_start(b);
		g = ctxfd_group_new(ctxfd_background(), limit);
		for (long i = 0; i < b->arg; i++)
			wrong |= ctxfd_group_go(g, work, &ran) != 0;
		wrong |= ctxfd_group_wait(g) != 0;
		bench_stop(b, b->arg);
		bench_check(!wrong && ran == b->arg);
	}
}

static void threads_group(struct bench *b)
{
	with_limit(b, 0);
}
BENCH("ctxfd", "group/threads", threads_group)

static void threads_by_hand(struct bench *b)
{
	pthread_t *threads = malloc((size_t)b->arg * sizeof(*threads));
	atomic_long ran;

	bench_check(threads);
	while (bench_more(b)) {
		bool wrong = false;

		atomic_init(&ran, 0);
		bench_start(b);
		for (long i = 0; i < b->arg; i++)
			wrong |= pthread_create(&threads[i], NULL, work_by_hand, &ran) != 0;
		for (long i = 0; i < b->arg; i++)
			wrong |= pthread_join(threads[i], NULL) != 0;
		bench_stop(b, b->arg);
		bench_check(!wrong && ran == b->arg);
	}
	free(threads);
}
BENCH("floor", "group/threads", threads_by_hand)

static void limited_group(struct bench *b)
{
	with_limit(b, 1);
}
BENCH("ctxfd", "group/limited", limited_group)

static void one_by_one(struct bench *b)
{
	atomic_long ran;

	while (bench_more(b)) {
		bool wrong = false;

		atomic_init(&ran, 0);
		bench_start(b);
		for (long i = 0; i < b->arg; i++) {
			pthread_t thread;

			wrong |= pthread_create(&thread, NULL, work_by_hand, &ran) != 0;
			wrong |= pthread_join(thread, NULL) != 0;
		}
		bench_stop(b, b->arg);
		bench_check(!wrong && ran == b->arg);
	}
}
BENCH("floor", "group/limited", one_by_one)
