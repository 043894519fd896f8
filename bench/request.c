/* SPDX-License-Identifier: MIT */
/*
 * The life of a request: a context with a deadline, a function that is called when it ends, a few looks whether it has,
 * then the function is taken back and the context closed. N requests are in flight, the oldest ends first. The peers do
 * the same with what they have.
 */
#include "bench.h"
#include "ctxfd.h"
#include "floor.h"

#define LIMIT (60 * CTXFD_SEC)
#define LOOKS 3

struct request {
	struct ctxfd *ctx;
	struct ctxfd_after *after;
};

static void count_call(void *arg)
{
	++*(int *)arg;
}

static bool begin(struct request *r, const struct ctxfd *server, int *calls)
{
	r->ctx = ctxfd_with_timeout(server, LIMIT);
	return ctxfd_after_func(r->ctx, count_call, calls, &r->after) == 0;
}

static bool end(struct request *r)
{
	bool live = true;

	for (int i = 0; i < LOOKS; i++)
		live &= ctxfd_err(r->ctx) == 0;
	live &= ctxfd_after_stop(r->after);
	ctxfd_close(r->ctx);
	return live;
}

static void life(struct bench *b)
{
	struct ctxfd *server = ctxfd_with_cancel(ctxfd_background());
	struct request *all = calloc((size_t)b->arg, sizeof(*all));
	bool right = server && all;
	long oldest = 0;
	int calls = 0;

	bench_check(right);
	for (long i = 0; i < b->arg; i++)
		right &= begin(&all[i], server, &calls);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			right &= end(&all[oldest]);
			right &= begin(&all[oldest], server, &calls);
			if (++oldest == b->arg)
				oldest = 0;
		}
		bench_stop(b, b->n);
		bench_check(right);
	}
	for (long i = 0; i < b->arg; i++)
		right &= end(&all[i]);
	bench_check(right && calls == 0);
	ctxfd_close(server);
	free(all);
}
BENCH("ctxfd", "request", life)

/* By hand: a request in its server's list, its function in another one, a deadline in a list in order of time. */
#define REQUEST 96

struct by_hand {
	struct floor_item *request, *function;
};

static void floor_life(struct bench *b)
{
	struct by_hand *all = calloc((size_t)b->arg, sizeof(*all));
	struct floor_list requests = { 0 }, functions = { 0 };
	long oldest = 0;

	bench_check(all);
	for (long i = 0; i < b->arg; i++)
		all[i] = (struct by_hand){ floor_make(&requests, REQUEST), floor_make(&functions, REQUEST) };
	while (bench_more(b)) {
		bool live = true;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct by_hand *r = &all[oldest];

			for (int j = 0; j < LOOKS; j++)
				live &= atomic_load_explicit(&r->request->state, memory_order_acquire) == 0;
			floor_free(&functions, r->function);
			floor_free(&requests, r->request);
			bench_use(bench_now() + LIMIT);
			*r = (struct by_hand){ floor_make(&requests, REQUEST), floor_make(&functions, REQUEST) };
			if (++oldest == b->arg)
				oldest = 0;
		}
		bench_stop(b, b->n);
		bench_check(live);
	}
	for (long i = 0; i < b->arg; i++) {
		floor_free(&functions, all[i].function);
		floor_free(&requests, all[i].request);
	}
	free(all);
}
BENCH("floor", "request", floor_life)
