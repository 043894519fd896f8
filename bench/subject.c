/* SPDX-License-Identifier: MIT */
/*
 * The main program of every subject that is not written in Go: does rounds of one row, as bench/run asks for them.
 *
 *     subject --list                   prints "SUBJECT ROW" for each of its rows
 *     subject SUBJECT ROW ARG [smoke]  reads lines with a number: does a round of about so many nanoseconds for each;
 *                                      answers "ok" and the samples, or "fail" and why
 *     subject SUBJECT ROW ARG count    for callgrind: one batch without and one with counting, then "ops" and how many
 *                                      they were
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_TOGGLE_COLLECT ((void)0)
#endif

#define BATCH_NS    20000 /* what a batch takes at least: two looks at the clock are half a percent of it */
#define MAX_SAMPLES 5000  /* of a round */
#define COUNTED     1000  /* operations of a batch whose instructions are counted */

static struct bench_row *rows;

void bench_add(struct bench_row *row)
{
	row->next = rows;
	rows = row;
}

void bench_fail(const char *format, const char *what, int line)
{
	printf("fail ");
	printf(format, what, line);
	printf(", errno %s\n", strerrorname_np(errno));
	fflush(stdout);
	_exit(1);
}

int64_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

long bench_sleeps(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_nvcsw;
}

/* ---- Batches ----------------------------------------------------------------------------------------------------- */

bool bench_more(struct bench *b)
{
	if (b->counting)
		return ++b->batches <= 2;
	return b->used == 0 || (bench_now() - b->began < b->budget && b->used < MAX_SAMPLES);
}

void bench_start(struct bench *b)
{
	b->start = bench_now();
	if (b->counting && b->batches == 2)
		CALLGRIND_TOGGLE_COLLECT;
}

void bench_sample(struct bench *b, double value)
{
	if (b->used == b->room) {
		b->room = b->room ? 2 * b->room : MAX_SAMPLES;
		b->samples = realloc(b->samples, b->room * sizeof(*b->samples));
		bench_check(b->samples);
	}
	b->samples[b->used++] = value;
}

void bench_miss(struct bench *b)
{
	bench_check(++b->missed <= 100 + (long)b->used);
}

/* A batch that was too short for the clock does not count, unless its size is the row's own. */
void bench_batch(struct bench *b, int64_t ns, long ops, double value)
{
	bench_check(ops > 0);
	b->ops = ops;
	if (!b->counting && ns < b->batch && ops == b->n)
		b->n *= 2;
	else
		bench_sample(b, value);
}

void bench_stop(struct bench *b, long ops)
{
	if (b->counting && b->batches == 2)
		CALLGRIND_TOGGLE_COLLECT;
	int64_t ns = bench_now() - b->start;

	bench_batch(b, ns, ops, (double)ns / (double)ops);
}

/* ---- The conversation -------------------------------------------------------------------------------------------- */

static void answer(const struct bench *b)
{
	printf("ok");
	for (size_t i = 0; i < b->used; i++)
		printf(" %.3f", b->samples[i]);
	printf("\n");
	fflush(stdout);
}

static void converse(struct bench *b, const struct bench_row *row)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin)) {
		b->budget = strtoll(line, NULL, 10);
		b->used = 0;
		b->missed = 0;
		b->began = bench_now();
		row->run(b);
		answer(b);
	}
}

static void count(struct bench *b, const struct bench_row *row)
{
	b->counting = true;
	b->n = COUNTED;
	row->run(b);
	printf("ops %ld\n", b->ops);
}

static void *parked(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static const struct bench_row *find(const char *subject, const char *name)
{
	const struct bench_row *row = rows;

	while (row && (strcmp(row->subject, subject) || strcmp(row->name, name)))
		row = row->next;
	return row;
}

int main(int argc, char **argv)
{
	struct bench b = { .n = 1, .batch = BATCH_NS };

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (const struct bench_row *row = rows; row; row = row->next)
			printf("%s %s\n", row->subject, row->name);
		return 0;
	}
	if (argc < 4 || !find(argv[1], argv[2])) {
		fprintf(stderr, "usage: %s --list | SUBJECT ROW ARG [count | smoke]\n", argv[0]);
		return 2;
	}
	b.arg = strtol(argv[3], NULL, 10);
	b.smoke = argc > 4 && strcmp(argv[4], "smoke") == 0;
	if (b.smoke)
		b.batch = 1;
	/*
	 * libc and kernel have fast paths for a process with one thread, which no program with contexts has for long.
	 */
	bench_thread(0, parked, NULL);
	bench_pin(-1);
	if (argc > 4 && strcmp(argv[4], "count") == 0)
		count(&b, find(argv[1], argv[2]));
	else
		converse(&b, find(argv[1], argv[2]));
	return 0;
}
