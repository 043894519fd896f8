/* SPDX-License-Identifier: MIT */
/* Asking a context: whether it is done, and for a value. */
#include "bench.h"
#include "ctxfd.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define HOUR (3600 * CTXFD_SEC)
#define NEAR (900 * CTXFD_MSEC) /* less than the second within which only the real clock will do */

/* ---- err, one thread --------------------------------------------------------------------------------------------- */

static void err_of(struct bench *b, struct ctxfd *(*make)(void), int expected)
{
	while (bench_more(b)) {
		struct ctxfd *c = make();
		int all = 0;

		bench_check(c);
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			all |= ctxfd_err(c);
		bench_stop(b, b->n);
		bench_check(all == expected);
		ctxfd_close(c);
	}
}

static struct ctxfd *live(void)
{
	return ctxfd_with_cancel(ctxfd_background());
}

static struct ctxfd *far(void)
{
	return ctxfd_with_timeout(ctxfd_background(), HOUR);
}

static struct ctxfd *near(void)
{
	return ctxfd_with_timeout(ctxfd_background(), NEAR);
}

static struct ctxfd *done(void)
{
	struct ctxfd *c = live();

	ctxfd_cancel(c);
	return c;
}

static void err_live(struct bench *b)
{
	err_of(b, live, 0);
}
BENCH("ctxfd", "err/live", err_live)

static void err_far(struct bench *b)
{
	err_of(b, far, 0);
}
BENCH("ctxfd", "err/far-deadline", err_far)

static void err_near(struct bench *b)
{
	err_of(b, near, 0);
}
BENCH("ctxfd", "err/near-deadline", err_near)

static void err_done(struct bench *b)
{
	err_of(b, done, -ECANCELED);
}
BENCH("ctxfd", "err/done", err_done)

/* What nobody can do without: a call and a load; and a look at the clock, the coarse one where that will do. */
__attribute__((noinline)) static int load(const atomic_int *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void floor_load(struct bench *b)
{
	static const atomic_int word;

	while (bench_more(b)) {
		int all = 0;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			all |= load(&word);
		bench_stop(b, b->n);
		bench_check(all == 0);
	}
}
BENCH("floor", "err/live", floor_load)
BENCH("floor", "err/done", floor_load)

static void floor_clock(struct bench *b, clockid_t clock)
{
	while (bench_more(b)) {
		struct timespec t;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			clock_gettime(clock, &t);
			bench_use(t.tv_nsec);
		}
		bench_stop(b, b->n);
	}
}

static void floor_coarse(struct bench *b)
{
	floor_clock(b, CLOCK_MONOTONIC_COARSE);
}
BENCH("floor", "err/far-deadline", floor_coarse)

static void floor_precise(struct bench *b)
{
	floor_clock(b, CLOCK_MONOTONIC);
}
BENCH("floor", "err/near-deadline", floor_precise)

/* ---- err, all CPUs on one context -------------------------------------------------------------------------------- */

static void ask(void *arg, int thread, long n)
{
	int all = 0;

	(void)thread;
	for (long i = 0; i < n; i++)
		all |= ctxfd_err(arg);
	bench_use(all);
}

static void ask_together(struct bench *b, struct ctxfd *c, int expected)
{
	bench_parallel(b, (int)sysconf(_SC_NPROCESSORS_ONLN), ask, c);
	bench_check(ctxfd_err(c) == expected);
	ctxfd_close(c);
}

static void all_live(struct bench *b)
{
	ask_together(b, live(), 0);
}
BENCH("ctxfd", "err-all-cpus/live", all_live)

static void all_far(struct bench *b)
{
	ask_together(b, far(), 0);
}
BENCH("ctxfd", "err-all-cpus/far-deadline", all_far)

static void all_done(struct bench *b)
{
	ask_together(b, done(), -ECANCELED);
}
BENCH("ctxfd", "err-all-cpus/done", all_done)

static void load_in_thread(void *arg, int thread, long n)
{
	(void)thread;
	for (long i = 0; i < n; i++)
		bench_use(load(arg));
}

static void floor_all(struct bench *b)
{
	atomic_int word = 0;

	bench_parallel(b, (int)sysconf(_SC_NPROCESSORS_ONLN), load_in_thread, &word);
}
BENCH("floor", "err-all-cpus/live", floor_all)
BENCH("floor", "err-all-cpus/done", floor_all)

/* ---- Values ------------------------------------------------------------------------------------------------------ */

static const char keys[1000], stranger;
static char values[1000];

/*
 * `depth` bindings, each under a cancellable context of its own if mixed. Returns the lowest, which alone holds the
 * rest.
 */
static const struct ctxfd *bindings(long depth, bool mixed)
{
	const struct ctxfd *c = ctxfd_background();

	bench_check(depth <= (long)sizeof(keys));
	for (long i = 0; i < depth; i++) {
		const struct ctxfd *up = c, *between = mixed ? ctxfd_with_cancel(c) : ctxfd_ref(c);

		c = ctxfd_with_value(between, &keys[i], &values[i], NULL);
		bench_check(c);
		ctxfd_unref(between);
		ctxfd_unref(up);
	}
	return c;
}

/* A hit is the uppermost binding, so that it too goes all the way. */
static void value_of(struct bench *b, bool hit, bool mixed)
{
	const struct ctxfd *c = bindings(b->arg, mixed);
	const void *key = hit ? &keys[0] : &stranger, *expected = hit ? &values[0] : NULL;

	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			wrong |= ctxfd_value(c, key) != expected;
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	ctxfd_unref(c);
}

static void value_hit(struct bench *b)
{
	value_of(b, true, false);
}
BENCH("ctxfd", "value/hit", value_hit)

static void value_miss(struct bench *b)
{
	value_of(b, false, false);
}
BENCH("ctxfd", "value/miss", value_miss)
BENCH("ctxfd", "go/deep-value-same", value_miss)

static void value_mixed_hit(struct bench *b)
{
	value_of(b, true, true);
}
BENCH("ctxfd", "value-mixed/hit", value_mixed_hit)

static void value_mixed_miss(struct bench *b)
{
	value_of(b, false, true);
}
BENCH("ctxfd", "value-mixed/miss", value_mixed_miss)

static void *look_up_once(void *c)
{
	return ctxfd_value(c, &stranger);
}

static void value_new_thread(struct bench *b)
{
	const struct ctxfd *c = bindings(b->arg, false);

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			pthread_t t;
			void *found;

			bench_check(pthread_create(&t, NULL, look_up_once, (void *)c) == 0);
			bench_check(pthread_join(t, &found) == 0 && !found);
		}
		bench_stop(b, b->n);
	}
	ctxfd_unref(c);
}
BENCH("ctxfd", "go/deep-value-new", value_new_thread)

/* The floor: as many links of a list followed and compared. */
struct link {
	struct link *up;
	const void *key;
	void *value;
};

__attribute__((noinline)) static void *follow(const struct link *l, const void *key)
{
	for (; l; l = l->up)
		if (l->key == key)
			return l->value;
	return NULL;
}

static void floor_follow(struct bench *b)
{
	struct link *top = NULL;
	void *all[1000];

	for (long i = 0; i < b->arg; i++) {
		struct link *l = malloc(sizeof(*l));

		bench_check(l);
		*l = (struct link){ top, &keys[i], &values[i] };
		all[i] = top = l;
	}
	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			wrong |= follow(top, &keys[0]) != &values[0];
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	for (long i = 0; i < b->arg; i++)
		free(all[i]);
}
BENCH("floor", "value/hit", floor_follow)
BENCH("floor", "value-mixed/hit", floor_follow)
