/* SPDX-License-Identifier: MIT */
/* Functions that run at a time, by hand: a heap under a lock, and a thread with one timerfd for the earliest. */
#ifndef ALARMS_H
#define ALARMS_H

#include "bench.h"
#include "ctxfd.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

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

static inline void bare_push(struct timed *t)
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

static inline struct timed *bare_pop(void)
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
static inline void bare_arm(void)
{
	struct itimerspec at = { 0 };

	if (!bare.used || bare.heap[1]->at >= bare.armed)
		return;
	bare.armed = bare.heap[1]->at;
	at.it_value = (struct timespec){ bare.armed / CTXFD_SEC, bare.armed % CTXFD_SEC };
	bench_check(timerfd_settime(bare.timer, TFD_TIMER_ABSTIME, &at, NULL) == 0);
}

static inline void bare_add(int64_t at, void (*fn)(void *arg), void *arg)
{
	struct timed *t = malloc(sizeof(*t));

	*t = (struct timed){ at, fn, arg };
	pthread_mutex_lock(&bare.lock);
	bare_push(t);
	bare_arm();
	pthread_mutex_unlock(&bare.lock);
}

static inline void *bare_loop(void *unused)
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

static inline void bare_setup(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	bare.ends = false;
	bare.armed = INT64_MAX;
	bare.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	bare.epoll = epoll_create1(EPOLL_CLOEXEC);
	bench_check(epoll_ctl(bare.epoll, EPOLL_CTL_ADD, bare.timer, &event) == 0);
	bare.thread = bench_thread(0, bare_loop, NULL);
}

static inline void bare_note_end(void *unused)
{
	(void)unused;
	bare.ends = true;
}

static inline void bare_teardown(void)
{
	bare_add(bench_now(), bare_note_end, NULL);
	pthread_join(bare.thread, NULL);
	close(bare.timer);
	close(bare.epoll);
}

#endif
