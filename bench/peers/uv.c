/* SPDX-License-Identifier: MIT */
/* libuv's timers. They count in milliseconds; the loop is in the thread that makes them. */
#include "bench.h"

#include <time.h>
#include <uv.h>

enum figure { RUN, LAST, LIFE };

static struct {
	long n, ran;
	int64_t last, cpu;
} due;

static int64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void count_due(uv_timer_t *timer)
{
	bench_use(timer);
	if (++due.ran < due.n)
		return;
	due.last = bench_now();
	due.cpu = cpu_time();
}

static void free_timer(uv_handle_t *timer)
{
	free(timer);
}

static void all_due(struct bench *b, enum figure figure)
{
	static uint64_t ahead = 40;
	uv_loop_t *loop = uv_default_loop();
	long n = b->smoke ? 100 : b->arg;
	uv_timer_t **timers = malloc((size_t)n * sizeof(*timers));

	due.n = n;
	while (bench_more(b)) {
		int64_t began = cpu_time(), made, deadline;
		bool in_time;

		due.ran = 0;
		uv_update_time(loop);
		deadline = (int64_t)(uv_now(loop) + ahead) * 1000000;
		for (long i = 0; i < n; i++) {
			timers[i] = malloc(sizeof(*timers[i]));
			uv_timer_init(loop, timers[i]);
			uv_timer_start(timers[i], count_due, ahead, 0);
		}
		made = cpu_time();
		in_time = bench_now() < deadline;
		uv_run(loop, UV_RUN_DEFAULT);
		for (long i = 0; i < n; i++)
			uv_close((uv_handle_t *)timers[i], free_timer);
		uv_run(loop, UV_RUN_DEFAULT);
		bench_check(due.ran == n && due.last >= deadline);
		if (!in_time) {
			ahead *= 2;
			bench_miss(b);
		} else if (figure == LAST) {
			bench_sample(b, (double)(due.last - deadline));
		} else {
			bench_sample(b, (double)(figure == RUN ? due.cpu - made : cpu_time() - began) / (double)n);
		}
	}
	free(timers);
}

static void run(struct bench *b)
{
	all_due(b, RUN);
}
BENCH("uv", "due/run", run)

static void last(struct bench *b)
{
	all_due(b, LAST);
}
BENCH("uv", "due/last", last)

static void life(struct bench *b)
{
	all_due(b, LIFE);
}
BENCH("uv", "due/life", life)
