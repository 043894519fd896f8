/* SPDX-License-Identifier: MIT */
/*
 * Many after-funcs, each on a context of its own, whose deadlines are one point in time. The floor is a heap of functions
 * with a time, under a lock, and a thread with one timerfd for the earliest.
 */
#include "bench.h"
#include "ctxfd.h"
#include "loop.h"

#include <semaphore.h>
#include <sys/timerfd.h>
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

/* ---- The library ------------------------------------------------------------------------------------------------------ */

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

/* ---- By hand ---------------------------------------------------------------------------------------------------------- */

struct timed {
	int64_t at;
	void (*fn)(void *arg);
	void *arg;
};

static struct {
	pthread_mutex_t lock;
	struct timed **heap; /* a binary one, from 1 */
	long used, room;
	int64_t armed;
	int timer, epoll;
	bool ends;
	pthread_t thread;
} bare = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void bare_push(struct timed *t)
{
	long i = ++bare.used;

	if (bare.used >= bare.room) {
		bare.room = bare.room ? 2 * bare.room : 64;
		bare.heap = realloc(bare.heap, (size_t)bare.room * sizeof(*bare.heap));
		bench_check(bare.heap);
	}
	for (; i > 1 && bare.heap[i / 2]->at > t->at; i /= 2)
		bare.heap[i] = bare.heap[i / 2];
	bare.heap[i] = t;
}

static struct timed *bare_pop(void)
{
	struct timed *first = bare.heap[1], *last = bare.heap[bare.used--];
	long i = 1, child;

	for (; (child = 2 * i) <= bare.used; i = child) {
		if (child < bare.used && bare.heap[child + 1]->at < bare.heap[child]->at)
			child++;
		if (last->at <= bare.heap[child]->at)
			break;
		bare.heap[i] = bare.heap[child];
	}
	bare.heap[i] = last;
	return first;
}

/* Under the lock. */
static void bare_arm(void)
{
	struct itimerspec at = { 0 };

	if (!bare.used || bare.heap[1]->at >= bare.armed)
		return;
	bare.armed = bare.heap[1]->at;
	at.it_value = (struct timespec){ bare.armed / CTXFD_SEC, bare.armed % CTXFD_SEC };
	bench_check(timerfd_settime(bare.timer, TFD_TIMER_ABSTIME, &at, NULL) == 0);
}

static void bare_add(int64_t at, void (*fn)(void *arg), void *arg)
{
	struct timed *t = malloc(sizeof(*t));

	*t = (struct timed){ at, fn, arg };
	pthread_mutex_lock(&bare.lock);
	bare_push(t);
	bare_arm();
	pthread_mutex_unlock(&bare.lock);
}

static void *bare_loop(void *unused)
{
	struct epoll_event event;
	uint64_t count;

	while (!bare.ends) {
		if (epoll_wait(bare.epoll, &event, 1, -1) != 1)
			continue;
		bench_check(read(bare.timer, &count, sizeof(count)) == sizeof(count));
		int64_t now = bench_now();

		pthread_mutex_lock(&bare.lock);
		bare.armed = INT64_MAX;
		while (bare.used && bare.heap[1]->at <= now) {
			struct timed *t = bare_pop();

			pthread_mutex_unlock(&bare.lock);
			t->fn(t->arg);
			free(t);
			pthread_mutex_lock(&bare.lock);
		}
		bare_arm();
		pthread_mutex_unlock(&bare.lock);
	}
	return unused;
}

static void bare_setup(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	bare.ends = false;
	bare.armed = INT64_MAX;
	bare.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	bare.epoll = epoll_create1(EPOLL_CLOEXEC);
	bench_check(epoll_ctl(bare.epoll, EPOLL_CTL_ADD, bare.timer, &event) == 0);
	bare.thread = bench_thread(0, bare_loop, NULL);
}

static void bare_make(long n, int64_t deadline)
{
	for (long i = 0; i < n; i++)
		bare_add(deadline, count_due, NULL);
}

static void bare_drop(long n)
{
	(void)n;
}

static void bare_note_end(void *unused)
{
	(void)unused;
	bare.ends = true;
}

static void bare_teardown(void)
{
	bare_add(bench_now(), bare_note_end, NULL);
	pthread_join(bare.thread, NULL);
	close(bare.timer);
	close(bare.epoll);
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
