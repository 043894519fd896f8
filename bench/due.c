/* SPDX-License-Identifier: MIT */
/*
 * Many after-funcs, each on a context of its own, whose deadlines are one point in time. The floor is a heap of
 * functions with a time, under a lock, and a thread with one timerfd for the earliest.
 */
#include "alarms.h"
#include "bench.h"
#include "ctxfd.h"
#include "loop.h"

#include <semaphore.h>
#include <time.h>

struct way {
	void (*setup)(void);
	void (*make)(long n, int64_t deadline);
	void (*drop)(long n); /* when all have run */
	void (*teardown)(void);
};

enum figure { RUN, LAST, LIFE };

/* Their functions run on one thread. */
static struct {
	long n, ran;
	int64_t last;
	sem_t over;
} due;

static void count_due(void *arg)
{
	bench_use(arg);
	if (++due.ran < due.n)
		return;
	due.last = bench_now();
	sem_post(&due.over);
}

static int64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * CTXFD_SEC + t.tv_nsec;
}

static void all_due(struct bench *b, const struct way *way, enum figure figure)
{
	static int64_t ahead = 40 * CTXFD_MSEC;
	long n = b->smoke ? 100 : b->arg;

	way->setup();
	sem_init(&due.over, 0, 0);
	while (bench_more(b)) {
		int64_t deadline = bench_now() + ahead, began = cpu_time(), made, ran;
		bool in_time;

		due.n = n;
		due.ran = 0;
		way->make(n, deadline);
		made = cpu_time();
		in_time = bench_now() < deadline;
		while (sem_wait(&due.over))
			;
		ran = cpu_time();
		way->drop(n);
		bench_check(due.ran == n && due.last >= deadline);
		if (!in_time) {
			ahead *= 2;
			bench_miss(b);
		} else if (figure == LAST) {
			bench_sample(b, (double)(due.last - deadline));
		} else {
			bench_sample(b, (double)(figure == RUN ? ran - made : cpu_time() - began) / (double)n);
		}
	}
	sem_destroy(&due.over);
	way->teardown();
}

/* ---- The library ------------------------------------------------------------------------------------------------- */

static struct ctxfd **contexts;
static const struct ctxfd *home;
static struct loop loop;

static void contexts_make(long n, int64_t deadline)
{
	contexts = malloc((size_t)n * sizeof(*contexts));
	for (long i = 0; i < n; i++) {
		contexts[i] = ctxfd_with_deadline(home, deadline);
		bench_check(ctxfd_after_func(contexts[i], count_due, NULL, NULL) == 0);
	}
}

static void contexts_drop(long n)
{
	for (long i = 0; i < n; i++)
		ctxfd_close(contexts[i]);
	free(contexts);
}

static void library_setup(void)
{
	home = ctxfd_background();
}

static void library_teardown(void)
{
}

static void own_setup(void)
{
	loop_start(&loop);
	home = loop.home;
}

static void own_teardown(void)
{
	loop_end(&loop);
}

static const struct way by_library = { library_setup, contexts_make, contexts_drop, library_teardown };
static const struct way by_own_loop = { own_setup, contexts_make, contexts_drop, own_teardown };

/* ---- By hand ----------------------------------------------------------------------------------------------------- */

static void bare_make(long n, int64_t deadline)
{
	for (long i = 0; i < n; i++)
		bare_add(deadline, count_due, NULL);
}

static void bare_drop(long n)
{
	(void)n;
}

static const struct way by_hand = { bare_setup, bare_make, bare_drop, bare_teardown };

#define DUE(subject, name, way, figure)             \
	static void way##_##figure(struct bench *b) \
	{                                           \
		all_due(b, &way, figure);           \
	}                                           \
	BENCH(subject, name, way##_##figure)

DUE("ctxfd", "due/run", by_library, RUN)
DUE("ctxfd", "due/last", by_library, LAST)
DUE("ctxfd", "due/life", by_library, LIFE)
DUE("ctxfd", "due/run-own", by_own_loop, RUN)
DUE("ctxfd", "due/last-own", by_own_loop, LAST)
DUE("ctxfd", "due/life-own", by_own_loop, LIFE)
DUE("floor", "due/run", by_hand, RUN)
DUE("floor", "due/last", by_hand, LAST)
DUE("floor", "due/life", by_hand, LIFE)
BENCH("floor", "due/run-own", by_hand_RUN)
BENCH("floor", "due/last-own", by_hand_LAST)
BENCH("floor", "due/life-own", by_hand_LIFE)
