/* SPDX-License-Identifier: MIT */
/* libuv's timers. They count in milliseconds; the loop is in the thread that makes them. */
#include "bench.h"

#include <malloc.h>
#include <string.h>
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

/* ---- Timers that are set anew, as contexts are touched: see bench/idle.c ----------------------------------------- */

#define TOUCHES 10

static void touch(struct bench *b)
{
	uv_loop_t *loop = uv_default_loop();
	uv_timer_t timer;

	uv_timer_init(loop, &timer);
	uv_timer_start(&timer, count_due, 3600000, 3600000);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			uv_timer_again(&timer);
		bench_stop(b, b->n);
	}
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(loop, UV_RUN_DEFAULT);
}
BENCH("uv", "idle/touch", touch)

static void count_idle(uv_timer_t *timer)
{
	uv_timer_stop(timer);
	due.ran++;
}

/* In rounds that begin a quarter of the timeout apart, the loop's turn between them. False: it was too slow. */
static bool touch_all(uv_loop_t *loop, uv_timer_t **timers, long n, int64_t timeout)
{
	int64_t before = bench_now(), began;
	bool in_time = true;

	for (int round = 0; round < TOUCHES; round++) {
		struct timespec until = { (before + timeout / 4) / 1000000000, (before + timeout / 4) % 1000000000 };

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
			continue;
		began = bench_now();
		uv_update_time(loop);
		for (long i = 0; i < n; i++)
			uv_timer_again(timers[i]);
		uv_run(loop, UV_RUN_NOWAIT);
		in_time = in_time && bench_now() < before + timeout;
		before = began;
	}
	return in_time;
}

static void idle_life(struct bench *b)
{
	static uint64_t timeout = 200;
	uv_loop_t *loop = uv_default_loop();
	long n = b->smoke ? 100 : b->arg;
	uv_timer_t **timers = malloc((size_t)n * sizeof(*timers));

	while (bench_more(b)) {
		int64_t began = cpu_time(), started = bench_now();
		bool in_time;

		due.ran = 0;
		uv_update_time(loop);
		for (long i = 0; i < n; i++) {
			timers[i] = malloc(sizeof(*timers[i]));
			uv_timer_init(loop, timers[i]);
			uv_timer_start(timers[i], count_idle, timeout, timeout);
		}
		in_time = bench_now() < started + (int64_t)timeout * 500000;
		in_time = touch_all(loop, timers, n, (int64_t)timeout * 1000000) && in_time;
		bench_check(!in_time || due.ran == 0);
		uv_run(loop, UV_RUN_DEFAULT);
		bench_check(!in_time || due.ran == n);
		for (long i = 0; i < n; i++)
			uv_close((uv_handle_t *)timers[i], free_timer);
		uv_run(loop, UV_RUN_DEFAULT);
		if (in_time) {
			bench_sample(b, (double)(cpu_time() - began) / (double)n);
		} else {
			timeout *= 2;
			bench_miss(b);
		}
	}
	free(timers);
}
BENCH("uv", "idle/life", idle_life)

static void bytes(struct bench *b)
{
	bench_sample(b, (double)malloc_usable_size(memset(malloc(sizeof(uv_timer_t)), 0, 1)) + sizeof(size_t));
}
BENCH("uv", "bytes/idle", bytes)
