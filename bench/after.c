/* SPDX-License-Identifier: MIT */
/* After-funcs: what it costs to register one and take it back, and how soon after a cancel it runs. */
#include "bench.h"
#include "ctxfd.h"
#include "floor.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HOUR (3600 * CTXFD_SEC)

static void count_call(void *arg)
{
	++*(int *)arg;
}

static void stop(struct bench *b, struct ctxfd *ctx)
{
	int calls = 0;

	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct ctxfd_after *handle;

			wrong |= ctxfd_after_func(ctx, count_call, &calls, &handle) != 0;
			wrong |= !ctxfd_after_stop(handle);
		}
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	ctxfd_close(ctx);
	bench_check(calls == 0);
}

static void stop_plain(struct bench *b)
{
	stop(b, ctxfd_with_cancel(ctxfd_background()));
}
BENCH("ctxfd", "after/stop", stop_plain)

static void stop_timed(struct bench *b)
{
	stop(b, ctxfd_with_timeout(ctxfd_background(), HOUR));
}
BENCH("ctxfd", "after/stop-timed", stop_timed)

/* A function, its argument and its state beside what a child is. */
#define HANDLE 136

static void floor_stop(struct bench *b)
{
	struct floor_list parent = { 0 };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct floor_item *item = floor_make(&parent, HANDLE);

			bench_use(item);
			floor_free(&parent, item);
		}
		bench_stop(b, b->n);
	}
}
BENCH("floor", "after/stop", floor_stop)
BENCH("floor", "after/stop-timed", floor_stop)

/* The first after-func on a context with a deadline: that is when the dispatcher learns of the deadline. */
static void stop_first(struct bench *b)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	int calls = 0;

	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct ctxfd *ctx = ctxfd_with_timeout(root, HOUR);
			struct ctxfd_after *handle;

			wrong |= ctxfd_after_func(ctx, count_call, &calls, &handle) != 0;
			wrong |= !ctxfd_after_stop(handle);
			ctxfd_close(ctx);
		}
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	ctxfd_close(root);
	bench_check(calls == 0);
}
BENCH("ctxfd", "after/stop-first", stop_first)

struct call {
	int64_t at;
	sem_t over;
};

static void note_time(void *arg)
{
	struct call *c = arg;

	c->at = bench_now();
	sem_post(&c->over);
}

static void run(struct bench *b)
{
	struct call call = { 0 };
	int dispatcher = -1;

	sem_init(&call.over, 0, 0);
	bench_pin(0); /* where the dispatcher, which is born with the first call, will stay */
	while (bench_more(b)) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_after *handle;
		int64_t limit = bench_now() + 10 * CTXFD_SEC;

		bench_check(ctxfd_after_func(ctx, note_time, &call, &handle) == 0);
		bench_pin(-1);
		while (dispatcher < 0 && (dispatcher = bench_thread_named("ctxfd")) < 0)
			bench_check(bench_now() < limit);
		while (!bench_asleep(dispatcher) || !bench_asleep(dispatcher))
			bench_check(bench_now() < limit);
		int64_t cancelled = bench_now();

		ctxfd_cancel(ctx);
		while (sem_wait(&call.over))
			;
		bench_sample(b, (double)(call.at - cancelled));
		bench_check(!ctxfd_after_stop(handle));
		ctxfd_unref(ctx);
	}
	close(dispatcher);
	sem_destroy(&call.over);
}
BENCH("ctxfd", "after/run", run)

/* ---- A loop for each thread ----------------------------------------------------------------------------------------- */

#define MOST_LOOPS 64

struct loop {
	_Alignas(128) struct ctxfd_dispatcher *d;
	const struct ctxfd *home;
	long calls;
};

static void count_here(void *arg)
{
	++*(long *)arg;
}

/* A callback each time, on the thread's own dispatcher. */
static void loop_run(void *arg, int thread, long n)
{
	struct loop *l = &((struct loop *)arg)[thread];

	for (long i = 0; i < n; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(l->home);

		bench_check(ctxfd_after_func(ctx, count_here, &l->calls, NULL) == 0);
		ctxfd_close(ctx);
		bench_check(ctxfd_dispatcher_run(l->d) == 1);
	}
}

static void loops(struct bench *b)
{
	static struct loop all[MOST_LOOPS];
	int n = (int)b->arg;

	bench_check(n <= MOST_LOOPS);
	for (int i = 0; i < n; i++) {
		all[i].d = ctxfd_dispatcher_new();
		all[i].home = ctxfd_with_dispatcher(ctxfd_background(), all[i].d);
	}
	bench_parallel(b, n, loop_run, all);
	for (int i = 0; i < n; i++) {
		ctxfd_unref(all[i].home);
		ctxfd_dispatcher_free(all[i].d);
	}
}
BENCH("ctxfd", "after/loops", loops)

/* What a good engineer writes by hand: a queue under a lock, an eventfd that wakes the loop, and the loop's epoll set. */
struct hand {
	_Alignas(128) pthread_mutex_t lock;
	int epoll, event;
	long calls;
};

static void hand_run(void *arg, int thread, long n)
{
	struct hand *h = &((struct hand *)arg)[thread];
	uint64_t one = 1;

	for (long i = 0; i < n; i++) {
		struct floor_item *item = malloc(HANDLE);
		struct epoll_event event;

		bench_use(item);
		pthread_mutex_lock(&h->lock);
		bench_check(write(h->event, &one, sizeof one) == sizeof one);
		pthread_mutex_unlock(&h->lock);
		bench_check(epoll_wait(h->epoll, &event, 1, 0) == 1);
		bench_check(read(h->event, &one, sizeof one) == sizeof one);
		pthread_mutex_lock(&h->lock);
		pthread_mutex_unlock(&h->lock);
		count_here(&h->calls);
		free(item);
	}
}

static void hands(struct bench *b)
{
	static struct hand all[MOST_LOOPS];
	struct epoll_event event = { .events = EPOLLIN };
	int n = (int)b->arg;

	for (int i = 0; i < n; i++) {
		pthread_mutex_init(&all[i].lock, NULL);
		all[i].event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		all[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		bench_check(epoll_ctl(all[i].epoll, EPOLL_CTL_ADD, all[i].event, &event) == 0);
	}
	bench_parallel(b, n, hand_run, all);
	for (int i = 0; i < n; i++) {
		close(all[i].event);
		close(all[i].epoll);
	}
}
BENCH("floor", "after/loops", hands)
