/* SPDX-License-Identifier: MIT */
/* After-funcs: what it costs to register one and take it back, and how soon after a cancel it runs. */
#include "bench.h"
#include "ctxfd.h"
#include "floor.h"
#include "loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
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
BENCH("ctxfd", "after/stop-kept", stop_plain)

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
BENCH("floor", "after/stop-kept", floor_stop)
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

/* Who calls back, and how: each with a thread of that name, which sleeps until something is due. */
struct caller {
	const char *name;
	void (*setup)(void);
	void (*before)(struct call *c);
	void (*fire)(void);
	void (*after)(void);
	void (*teardown)(void);
};

/* By the time until note_time runs, on a thread of another CPU. */
static void run(struct bench *b, const struct caller *caller)
{
	struct call call = { 0 };
	int thread = -1;

	sem_init(&call.over, 0, 0);
	bench_pin(0); /* where a thread that is born with the first call will stay */
	caller->setup();
	while (bench_more(b)) {
		int64_t limit = bench_now() + 10 * CTXFD_SEC;

		caller->before(&call);
		bench_pin(-1);
		while (thread < 0 && (thread = bench_thread_named(caller->name)) < 0)
			bench_check(bench_now() < limit);
		while (!bench_asleep(thread) || !bench_asleep(thread))
			bench_check(bench_now() < limit);
		int64_t fired = bench_now();

		caller->fire();
		while (sem_wait(&call.over))
			;
		bench_sample(b, (double)(call.at - fired));
		caller->after();
	}
	caller->teardown();
	close(thread);
	sem_destroy(&call.over);
}

static const struct ctxfd *home; /* where the contexts are */
static struct ctxfd *ended;      /* the context of this event */
static struct ctxfd_after *handle;

static void library_setup(void)
{
	home = ctxfd_ref(ctxfd_background());
}

static void library_teardown(void)
{
	ctxfd_unref(home);
}

static void context_before(struct call *c)
{
	ended = ctxfd_with_cancel(home);
	bench_check(ctxfd_after_func(ended, note_time, c, &handle) == 0);
}

static void context_fire(void)
{
	ctxfd_cancel(ended);
}

static void context_after(void)
{
	bench_check(!ctxfd_after_stop(handle));
	ctxfd_unref(ended);
}

static const struct caller by_library = { "ctxfd",      library_setup, context_before,
	                                  context_fire, context_after, library_teardown };

static struct loop own;

static void own_setup(void)
{
	loop_start(&own);
	home = own.home;
}

static void own_teardown(void)
{
	loop_end(&own);
}

static const struct caller by_own_loop = {
	"loop", own_setup, context_before, context_fire, context_after, own_teardown
};

/* The least: a loop by hand that has a queue of one. */
static struct {
	pthread_mutex_t lock;
	int epoll, event;
	void (*fn)(void *arg);
	void *arg;
	bool ends;
	struct call *next;
	pthread_t thread;
} bare = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *bare_loop(void *unused)
{
	prctl(PR_SET_NAME, "bare");
	for (;;) {
		struct epoll_event event;
		void (*fn)(void *arg);
		uint64_t count;
		void *arg;
		bool ends;

		if (epoll_wait(bare.epoll, &event, 1, -1) != 1)
			continue;
		bench_check(read(bare.event, &count, sizeof count) == sizeof count);
		pthread_mutex_lock(&bare.lock);
		ends = bare.ends;
		fn = bare.fn;
		arg = bare.arg;
		bare.fn = NULL;
		pthread_mutex_unlock(&bare.lock);
		if (fn)
			fn(arg);
		if (ends)
			return unused;
	}
}

static void bare_setup(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	bare.ends = false;
	bare.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	bare.epoll = epoll_create1(EPOLL_CLOEXEC);
	bench_check(epoll_ctl(bare.epoll, EPOLL_CTL_ADD, bare.event, &event) == 0);
	bare.thread = bench_thread(0, bare_loop, NULL);
}

static void bare_before(struct call *c)
{
	bare.next = c;
}

static void bare_wake(void (*fn)(void *arg), void *arg, bool ends)
{
	uint64_t one = 1;

	pthread_mutex_lock(&bare.lock);
	bare.fn = fn;
	bare.arg = arg;
	bare.ends = ends;
	pthread_mutex_unlock(&bare.lock);
	bench_check(write(bare.event, &one, sizeof one) == sizeof one);
}

static void bare_fire(void)
{
	bare_wake(note_time, bare.next, false);
}

static void bare_after(void)
{
}

static void bare_teardown(void)
{
	bare_wake(NULL, NULL, true);
	pthread_join(bare.thread, NULL);
	close(bare.event);
	close(bare.epoll);
}

static const struct caller by_hand = { "bare", bare_setup, bare_before, bare_fire, bare_after, bare_teardown };

/* Whether idle CPUs halt is for bench/run to say. */
#define RUN(subject, caller, row)                  \
	static void run_##caller(struct bench *b)  \
	{                                          \
		run(b, &caller);                   \
	}                                          \
	BENCH(subject, "after/" row, run_##caller) \
	BENCH(subject, "after-awake/" row, run_##caller)

RUN("ctxfd", by_library, "run")
RUN("ctxfd", by_own_loop, "run-own")
RUN("floor", by_hand, "run")
BENCH("floor", "after/run-own", run_by_hand)
BENCH("floor", "after-awake/run-own", run_by_hand)

/* ---- A loop for each thread -------------------------------------------------------------------------------------- */

#define MOST_LOOPS 64

struct each {
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
	struct each *l = &((struct each *)arg)[thread];

	for (long i = 0; i < n; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(l->home);

		bench_check(ctxfd_after_func(ctx, count_here, &l->calls, NULL) == 0);
		ctxfd_close(ctx);
		bench_check(ctxfd_dispatcher_run(l->d) == 1);
	}
}

static void loops(struct bench *b)
{
	static struct each all[MOST_LOOPS];
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

/*
 * What a good engineer writes by hand: a queue under a lock, an eventfd that wakes the loop, and the loop's epoll set.
 */
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
