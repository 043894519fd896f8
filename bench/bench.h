/* SPDX-License-Identifier: MIT */
/*
 * What a benchmark's row is made of.
 *
 * A row is the same work done by several subjects: the library ("ctxfd"), the bare system calls or instructions that
 * nobody can do without ("floor"), and the peers. Each (subject, row, argument) runs in a process of its own, which
 * does one round whenever bench/run asks for it, so that the rounds of all subjects of a row take turns and a machine
 * that changes its speed changes it for all alike. A round is a number of batches; a batch times many operations or,
 * where an event is long enough to be timed by itself, one.
 *
 * TO ADD A ROW
 *
 *   1. Write a function for each subject, in any .c file of bench/ (bench/uring*.c when it needs libctxfd-uring;
 *      bench/bench.mk finds them by wildcard):
 *
 *          static void make_plain(struct bench *b)
 *          {
 *                  struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
 *                  while (bench_more(b)) {
 *                          bench_start(b);
 *                          for (long i = 0, count = b->n; i < count; i++)
 *                                  ctxfd_close(ctxfd_with_cancel(parent));
 *                          bench_stop(b, b->n);
 *                          bench_check(ctxfd_err(parent) == 0);
 *                  }
 *                  ctxfd_close(parent);
 *          }
 *          BENCH("ctxfd", "make/plain", make_plain)
 *
 *      What is outside of bench_start and bench_stop is not timed. b->n grows until a batch is long enough for the
 *      clock; a row whose batch has a size of its own (cancelling b->arg children) ignores it and tells bench_stop what
 *      it did. To time single events, or to measure something else than time, call bench_sample instead of start and
 *      stop.
 *   2. Add a line to ROWS in bench/suite.py: the row's name, its arguments, what it says in the table.
 *   3. If there is a figure to reach, add it to FIGURES there.
 *
 * Every row checks, with bench_check and outside of the timed part, that the work was done; a failed check fails the
 * run.
 */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bench {
	long arg;       /* children, depth, threads: the row's argument; 0 when it has none */
	long n;         /* operations that a batch should do */
	bool smoke;     /* only to see that it works: the least that proves it */
	int64_t batch;  /* ns that a batch should take at least */
	int64_t budget; /* from here on the framework's own: ns that this round may take */
	int64_t began, start;
	bool counting; /* instructions: of the second of two batches */
	int batches;
	long ops, missed;
	double *samples;
	size_t used, room;
};

struct bench_row {
	const char *subject, *name;
	void (*run)(struct bench *b); /* does one round */
	struct bench_row *next;
};

void bench_add(struct bench_row *row);

#define BENCH_JOIN_(a, b)         a##b
#define BENCH_JOIN(a, b)          BENCH_JOIN_(a, b)
#define BENCH(subject, name, run) BENCH_AT_(subject, name, run, __COUNTER__)
#define BENCH_AT_(subject, name, run, id)                                                  \
	static struct bench_row BENCH_JOIN(bench_row_, id) = { subject, name, run, NULL }; \
	__attribute__((constructor)) static void BENCH_JOIN(bench_add_, id)(void)          \
	{                                                                                  \
		bench_add(&BENCH_JOIN(bench_row_, id));                                    \
	}

/* Whether the round should do another batch. */
bool bench_more(struct bench *b);

/* Around the timed part of a batch. `ops` is how many operations it did: the sample is ns an operation. */
void bench_start(struct bench *b);
void bench_stop(struct bench *b, long ops);

/* The end of a batch that the row timed itself: it took ns for `ops` operations, each of which counts as `value`. */
void bench_batch(struct bench *b, int64_t ns, long ops, double value);

/* A sample that the row measured itself. */
void bench_sample(struct bench *b, double value);

/* An event that did not happen as it should, so that it gives no sample. Too many of them fail the run. */
void bench_miss(struct bench *b);

/*
 * A whole round: batches of fn(arg, thread, n) in `threads` pinned threads at once. The sample is wall time by all
 * their operations.
 */
void bench_parallel(struct bench *b, int threads, void (*fn)(void *arg, int thread, long n), void *arg);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t bench_now(void);

/* Pins the calling thread to this CPU, counted round; the main thread is on CPU -1, the last. */
void bench_pin(int cpu);

/* A thread pinned to that CPU: 0 is another than the main thread's, if there are two. */
pthread_t bench_thread(int cpu, void *(*fn)(void *arg), void *arg);

/*
 * A partner that waits in another thread, so that the time from a signal to its running again can be taken. For each
 * event the main thread calls arm, which returns when the partner sleeps inside wait(arg); then it reads the clock,
 * signals, and calls woken, which returns the clock as the partner read it right after wait returned; or -1 when it had
 * not slept after all, which is a bench_miss.
 */
struct bench_partner;
struct bench_partner *bench_partner_new(void (*wait)(void *arg));
void bench_partner_arm(struct bench_partner *p, void *arg);
int64_t bench_partner_woken(struct bench_partner *p);
void bench_partner_free(struct bench_partner *p);

/*
 * For a thread that is not a partner: an fd by which to ask whether it sleeps, or -1 when there is none of that name.
 */
int bench_thread_named(const char *name);
bool bench_asleep(int thread);

/* How often the calling thread has gone to sleep: it grows by one or more in every call that really waited. */
long bench_sleeps(void);

/* Keeps the compiler from dropping a result or a loop. */
#define bench_use(value) __asm__ volatile("" : : "r"(value) : "memory")

#define bench_check(condition) \
	((condition) ? (void)0 : bench_fail(__FILE__ ": %s is not so (line %d)", #condition, __LINE__))
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void bench_fail(const char *format, const char *what, int line);

#ifdef __cplusplus
}
#endif

#endif
