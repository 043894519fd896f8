/* SPDX-License-Identifier: MIT */
/*
 * Contexts that end when nobody touches them: one touch; and the life of many, each of which is touched in ten rounds,
 * so that its alarm rings in between, and then ends. The floor of that is a time each, and a heap of functions by hand
 * that puts back what was touched.
 */
#include "alarms.h"
#include "bench.h"
#include "ctxfd.h"
#include "loop.h"

#include <errno.h>
#include <malloc.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#define HOUR   (3600 * CTXFD_SEC)
#define ROUNDS 10

/* ---- One touch --------------------------------------------------------------------------------------------------- */

static void touch(struct bench *b)
{
	struct ctxfd *c = ctxfd_with_idle(ctxfd_background(), HOUR, 0);

	bench_check(c);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			ctxfd_touch(c);
		bench_stop(b, b->n);
		bench_check(ctxfd_err(c) == 0);
	}
	ctxfd_close(c);
}
BENCH("ctxfd", "idle/touch", touch)

static void read_clock(struct bench *b)
{
	struct timespec t = { 0 };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			clock_gettime(CLOCK_MONOTONIC, &t);
			bench_use(t.tv_nsec);
		}
		bench_stop(b, b->n);
		bench_check(t.tv_sec > 0);
	}
}
BENCH("floor", "idle/touch", read_clock)

/* ---- Many -------------------------------------------------------------------------------------------------------- */

struct way {
	void (*setup)(void);
	void (*make)(long i, int64_t timeout);
	void (*touch)(long i);
	void (*await)(long n); /* until all have ended */
	bool (*has_ended)(long i);
	void (*drop)(long i);
	void (*teardown)(void);
};

static int64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * CTXFD_SEC + t.tv_nsec;
}

static void sleep_until(int64_t at)
{
	struct timespec t = { at / CTXFD_SEC, at % CTXFD_SEC };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		continue;
}

/* In rounds that begin a quarter of the timeout apart. False: it was too slow, so that some may have ended. */
static bool touch_all(const struct way *way, long n, int64_t timeout)
{
	int64_t before = bench_now(), began;
	bool in_time = true;

	for (int round = 0; round < ROUNDS; round++) {
		sleep_until(before + timeout / 4);
		began = bench_now();
		for (long i = 0; i < n; i++)
			way->touch(i);
		in_time = in_time && bench_now() < before + timeout;
		before = began;
	}
	return in_time;
}

static void lives(struct bench *b, const struct way *way)
{
	static int64_t timeout = 200 * CTXFD_MSEC;
	long n = b->smoke ? 100 : b->arg;

	while (bench_more(b)) {
		int64_t began = cpu_time(), started = bench_now();
		bool in_time;

		way->setup();
		for (long i = 0; i < n; i++)
			way->make(i, timeout);
		in_time = bench_now() < started + timeout / 2;
		in_time = touch_all(way, n, timeout) && in_time;
		for (long i = 0; i < n; i += n / 100 + 1)
			bench_check(!in_time || !way->has_ended(i));
		way->await(n);
		for (long i = 0; i < n; i++)
			way->drop(i);
		way->teardown();
		if (in_time) {
			bench_sample(b, (double)(cpu_time() - began) / (double)n);
		} else {
			timeout *= 2;
			bench_miss(b);
		}
	}
}

static void **all;

static void room(void)
{
	all = calloc(1000000, sizeof(*all));
	bench_check(all);
}

static void no_room(void)
{
	free(all);
}

/* ---- The library ------------------------------------------------------------------------------------------------- */

static void context_make(long i, int64_t timeout)
{
	all[i] = ctxfd_with_idle(ctxfd_background(), timeout, 0);
}

static void context_touch(long i)
{
	ctxfd_touch(all[i]);
}

static void contexts_await(long n)
{
	for (long i = 0; i < n; i++)
		bench_check(ctxfd_wait(all[i]) == -ETIMEDOUT);
}

static bool context_has_ended(long i)
{
	return ctxfd_err(all[i]);
}

static void context_drop(long i)
{
	ctxfd_close(all[i]);
}

static const struct way by_library = { room,         context_make, context_touch, contexts_await, context_has_ended,
	                               context_drop, no_room };

static void contexts(struct bench *b)
{
	lives(b, &by_library);
}
BENCH("ctxfd", "idle/life", contexts)

static void bytes(struct bench *b)
{
	long n = b->smoke ? 10000 : 1000000;
	struct mallinfo2 before, after;

	ctxfd_close(ctxfd_with_idle(ctxfd_background(), HOUR, 0)); /* starts the thread */
	room();
	before = mallinfo2();
	for (long i = 0; i < n; i++)
		context_make(i, HOUR);
	after = mallinfo2();
	bench_sample(b, (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / (double)n);
	for (long i = 0; i < n; i++)
		context_drop(i);
	no_room();
}
BENCH("ctxfd", "bytes/idle", bytes)

/* ---- By hand ----------------------------------------------------------------------------------------------------- */

struct hand {
	_Atomic int64_t touched;
	int64_t timeout;
	_Atomic bool ended;
};

static long ended, expected;
static sem_t over;

static void hand_rings(void *arg)
{
	struct hand *h = arg;
	int64_t end = atomic_load_explicit(&h->touched, memory_order_relaxed) + h->timeout;

	if (end > bench_now()) {
		bare_add(end, hand_rings, h);
	} else {
		atomic_store_explicit(&h->ended, true, memory_order_release);
		if (++ended == expected)
			sem_post(&over);
	}
}

static void hands_setup(void)
{
	room();
	ended = 0;
	sem_init(&over, 0, 0);
	bare_setup();
}

static void hand_make(long i, int64_t timeout)
{
	struct hand *h = malloc(sizeof(*h));

	expected = i + 1;
	*h = (struct hand){ .touched = bench_now(), .timeout = timeout };
	all[i] = h;
	bare_add(h->touched + timeout, hand_rings, h);
}

static void hand_touch(long i)
{
	struct hand *h = all[i];

	atomic_store_explicit(&h->touched, bench_now(), memory_order_relaxed);
}

static void hands_await(long n)
{
	(void)n;
	while (sem_wait(&over))
		continue;
}

static bool hand_has_ended(long i)
{
	struct hand *h = all[i];

	return atomic_load_explicit(&h->ended, memory_order_acquire);
}

static void hand_drop(long i)
{
	free(all[i]);
}

static void hands_teardown(void)
{
	bare_teardown();
	sem_destroy(&over);
	no_room();
}

static const struct way by_hand = { hands_setup,    hand_make, hand_touch,    hands_await,
	                            hand_has_ended, hand_drop, hands_teardown };

static void hands(struct bench *b)
{
	lives(b, &by_hand);
}
BENCH("floor", "idle/life", hands)
