/* SPDX-License-Identifier: MIT */
/* Threads for rows that need more than one: a team that works at once, and a partner that sleeps until it is woken. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void bench_pin(int cpu)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)((cpu + n) % n), &set);
	sched_setaffinity(0, sizeof(set), &set); /* a machine that forbids it is measured unpinned */
}

struct start {
	int cpu;
	void *(*fn)(void *arg);
	void *arg;
};

static void *start_pinned(void *arg)
{
	struct start s = *(struct start *)arg;

	free(arg);
	bench_pin(s.cpu);
	return s.fn(s.arg);
}

pthread_t bench_thread(int cpu, void *(*fn)(void *arg), void *arg)
{
	struct start *s = malloc(sizeof(*s));
	pthread_t thread;

	bench_check(s);
	*s = (struct start){ cpu, fn, arg };
	bench_check(pthread_create(&thread, NULL, start_pinned, s) == 0);
	return thread;
}

/*
 * The workers of bench_parallel spin to the start: a futex would let the first run alone for longer than a batch takes.
 */
struct team {
	void (*fn)(void *arg, int thread, long n);
	void *arg;
	long n; /* 0: go home */
	atomic_int turn, ready, at_work;
	int threads;
};

struct worker {
	struct team *team;
	int index;
	int64_t began, ended;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct team *t = w->team;

	for (int turn = 1;; turn++) {
		for (long i = 0; atomic_load(&t->turn) != turn; i++)
			if (i > 1000)
				sched_yield();
		if (!t->n)
			return NULL;
		atomic_fetch_add(&t->ready, 1);
		for (long i = 0; atomic_load(&t->ready) % t->threads; i++)
			if (i > 1000)
				sched_yield();
		w->began = bench_now();
		t->fn(t->arg, w->index, t->n);
		w->ended = bench_now();
		atomic_fetch_sub(&t->at_work, 1);
	}
}

/* Returns how long the batch took, and in *together for how much of it all workers were at it. */
static int64_t team_batch(struct team *t, struct worker *workers, long n, int64_t *together)
{
	int64_t began = INT64_MAX, ended = 0, last_began = 0, first_ended = INT64_MAX;

	t->n = n;
	atomic_store(&t->at_work, t->threads);
	atomic_fetch_add(&t->turn, 1);
	while (atomic_load(&t->at_work))
		usleep(100); /* asleep: the CPU is a worker's */
	for (int i = 0; i < t->threads; i++) {
		began = workers[i].began < began ? workers[i].began : began;
		ended = workers[i].ended > ended ? workers[i].ended : ended;
		last_began = workers[i].began > last_began ? workers[i].began : last_began;
		first_ended = workers[i].ended < first_ended ? workers[i].ended : first_ended;
	}
	*together = first_ended - last_began;
	return ended - began;
}

void bench_parallel(struct bench *b, int threads, void (*fn)(void *arg, int thread, long n), void *arg)
{
	struct team team = { .fn = fn, .arg = arg, .threads = threads };
	struct worker *workers = calloc((size_t)threads, sizeof(*workers));

	bench_check(workers);
	b->batch = b->smoke ? b->batch : 1000000;
	for (int i = 0; i < threads; i++) {
		workers[i].team = &team;
		workers[i].index = i;
		workers[i].thread = bench_thread(i, work, &workers[i]);
	}
	while (bench_more(b)) {
		int64_t together, ns = team_batch(&team, workers, b->n, &together);

		/*
		 * With a CPU for each, half a batch alone is not what this is about. The smoke's batches are over too
		 * soon.
		 */
		if (!b->smoke && ns >= b->batch && threads <= sysconf(_SC_NPROCESSORS_ONLN) && together < ns / 2)
			bench_miss(b);
		else
			bench_batch(b, ns, b->n, (double)ns / (double)(b->n * threads));
	}
	team.n = 0;
	atomic_fetch_add(&team.turn, 1);
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	free(workers);
}

/* ---- A partner to wake ------------------------------------------------------------------------------------------- */

static int stat_of(long tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	bench_check(fd >= 0);
	return fd;
}

int bench_thread_named(const char *name)
{
	DIR *tasks = opendir("/proc/self/task");
	int found = -1;

	bench_check(tasks);
	for (struct dirent *d; found < 0 && (d = readdir(tasks));) {
		char line[128];
		ssize_t got;

		if (d->d_name[0] == '.')
			continue;
		found = stat_of(strtol(d->d_name, NULL, 10));
		got = pread(found, line, sizeof(line) - 1, 0);
		line[got > 0 ? got : 0] = 0;
		char *open = strchr(line, '('), *end = strrchr(line, ')');

		if (!open || !end || (*end = 0, strcmp(open + 1, name) != 0)) {
			close(found);
			found = -1;
		}
	}
	closedir(tasks);
	return found;
}

bool bench_asleep(int stat)
{
	char line[128];
	ssize_t got = pread(stat, line, sizeof(line) - 1, 0);

	bench_check(got > 0);
	line[got] = 0;
	const char *state = strrchr(line, ')');

	bench_check(state);
	return state[2] == 'S';
}

struct bench_partner {
	void (*wait)(void *arg);
	void *arg; /* NULL: go home */
	sem_t turn, over;
	atomic_bool entering;
	int64_t woken;
	long slept;
	pid_t tid;
	int stat;
	pthread_t thread;
};

static void *partner(void *arg)
{
	struct bench_partner *p = arg;

	p->tid = (pid_t)syscall(SYS_gettid);
	sem_post(&p->over);
	for (;;) {
		sem_wait(&p->turn);
		if (!p->arg)
			return NULL;
		long before = bench_sleeps();

		atomic_store(&p->entering, true);
		p->wait(p->arg);
		p->woken = bench_now();
		p->slept = bench_sleeps() - before;
		sem_post(&p->over);
	}
}

struct bench_partner *bench_partner_new(void (*wait)(void *arg))
{
	struct bench_partner *p = calloc(1, sizeof(*p));

	bench_check(p);
	p->wait = wait;
	sem_init(&p->turn, 0, 0);
	sem_init(&p->over, 0, 0);
	p->thread = bench_thread(0, partner, p);
	sem_wait(&p->over);
	p->stat = stat_of(p->tid);
	return p;
}

void bench_partner_arm(struct bench_partner *p, void *arg)
{
	int64_t limit = bench_now() + INT64_C(10000000000);

	p->arg = arg;
	atomic_store(&p->entering, false);
	sem_post(&p->turn);
	/* Seen twice, since it says so a moment before it leaves the CPU. */
	while (!atomic_load(&p->entering) || !bench_asleep(p->stat) || !bench_asleep(p->stat))
		bench_check(bench_now() < limit);
}

int64_t bench_partner_woken(struct bench_partner *p)
{
	while (sem_wait(&p->over))
		;
	return p->slept > 0 ? p->woken : -1;
}

void bench_partner_free(struct bench_partner *p)
{
	p->arg = NULL;
	sem_post(&p->turn);
	pthread_join(p->thread, NULL);
	close(p->stat);
	sem_destroy(&p->turn);
	sem_destroy(&p->over);
	free(p);
}
