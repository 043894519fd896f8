/* SPDX-License-Identifier: MIT */
/* Google's nsync_note: a tree with deadlines and a wait of its own, no descriptor. */
#include "bench.h"

#include <malloc.h>
#include <nsync.h>
#include <unistd.h>

#define HOUR 3600

static nsync_time in_an_hour(void)
{
	return nsync_time_add(nsync_time_now(), nsync_time_s_ns(HOUR, 0));
}

static nsync_note child(nsync_note parent)
{
	nsync_note n = nsync_note_new(parent, nsync_time_no_deadline);

	bench_check(n);
	return n;
}

static void check(nsync_note parent)
{
	nsync_note n = child(parent);

	bench_check(!nsync_note_is_notified(n));
	nsync_note_notify(n);
	bench_check(nsync_note_is_notified(n) && !nsync_note_is_notified(parent));
	nsync_note_free(n);
}

static void make(struct bench *b, bool timed)
{
	nsync_note parent = child(NULL);

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			nsync_note n = nsync_note_new(parent, timed ? in_an_hour() : nsync_time_no_deadline);

			nsync_note_notify(n);
			nsync_note_free(n);
		}
		bench_stop(b, b->n);
		check(parent);
	}
	nsync_note_free(parent);
}

static void make_plain(struct bench *b)
{
	make(b, false);
}
BENCH("nsync", "make/plain", make_plain)
BENCH("nsync", "make/apart", make_plain)

static void make_timed(struct bench *b)
{
	make(b, true);
}
BENCH("nsync", "make/timed", make_timed)

static void err(struct bench *b, nsync_time deadline, int notified)
{
	nsync_note n = nsync_note_new(NULL, deadline);

	if (notified)
		nsync_note_notify(n);
	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			wrong |= nsync_note_is_notified(n) != notified;
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	nsync_note_free(n);
}

static void err_live(struct bench *b)
{
	err(b, nsync_time_no_deadline, 0);
}
BENCH("nsync", "err/live", err_live)

static void err_far(struct bench *b)
{
	err(b, in_an_hour(), 0);
}
BENCH("nsync", "err/far-deadline", err_far)

static void err_done(struct bench *b)
{
	err(b, nsync_time_no_deadline, 1);
}
BENCH("nsync", "err/done", err_done)
BENCH("nsync", "go/check-canceled-err", err_done)

static void ask_in_thread(void *n, int thread, long count)
{
	(void)thread;
	for (long i = 0; i < count; i++)
		bench_use(nsync_note_is_notified(n));
}

static void err_all(struct bench *b)
{
	nsync_note n = child(NULL);

	bench_parallel(b, (int)sysconf(_SC_NPROCESSORS_ONLN), ask_in_thread, n);
	nsync_note_free(n);
}
BENCH("nsync", "err-all-cpus/live", err_all)

/* A tree is freed from its leaves on, or each node would be handed to its grandparent first. */
#define NODES 2000

static void tree(struct bench *b, bool deep)
{
	long count = b->smoke || b->arg >= NODES ? 1 : NODES / b->arg, n = count * b->arg;
	nsync_note *roots = calloc((size_t)count, sizeof(*roots)), *all = calloc((size_t)n, sizeof(*all));

	bench_check(roots && all);
	while (bench_more(b)) {
		for (long i = 0; i < n; i++) {
			if (i % b->arg == 0)
				roots[i / b->arg] = child(NULL);
			all[i] = child(deep && i % b->arg ? all[i - 1] : roots[i / b->arg]);
		}
		bench_start(b);
		for (long i = 0; i < count; i++)
			nsync_note_notify(roots[i]);
		bench_stop(b, n);
		for (long i = n - 1; i >= 0; i--) {
			bench_check(nsync_note_is_notified(all[i]));
			nsync_note_free(all[i]);
		}
		for (long i = 0; i < count; i++)
			nsync_note_free(roots[i]);
	}
	free(all);
	free(roots);
}

static void children(struct bench *b)
{
	tree(b, false);
}
BENCH("nsync", "cancel/children", children)

static void chain(struct bench *b)
{
	tree(b, true);
}
BENCH("nsync", "cancel/chain", chain)

static void wait_note(void *n)
{
	bench_check(nsync_note_wait(n, nsync_time_no_deadline));
}

static void wake(struct bench *b)
{
	struct bench_partner *p = bench_partner_new(wait_note);

	while (bench_more(b)) {
		nsync_note n = child(NULL);

		bench_partner_arm(p, n);
		int64_t signalled = bench_now();

		nsync_note_notify(n);
		int64_t woken = bench_partner_woken(p);

		if (woken >= 0)
			bench_sample(b, (double)(woken - signalled));
		else
			bench_miss(b);
		nsync_note_free(n);
	}
	bench_partner_free(p);
}
BENCH("nsync", "wake/wait", wake)
BENCH("nsync", "wake-awake/wait", wake)

/* nsync's time is CLOCK_REALTIME. */
static void late(struct bench *b)
{
	unsigned seed = 1;

	while (bench_more(b)) {
		long before = bench_sleeps();
		nsync_time wait = nsync_time_s_ns(0, (unsigned)(150 + rand_r(&seed) % 64) * 1000);
		nsync_time deadline = nsync_time_add(nsync_time_now(), wait);
		nsync_note n = nsync_note_new(NULL, deadline);

		bench_check(nsync_note_wait(n, nsync_time_no_deadline));
		nsync_time lateness = nsync_time_sub(nsync_time_now(), deadline);

		if (bench_sleeps() > before)
			bench_sample(b, (double)NSYNC_TIME_SEC(lateness) * 1e9 + (double)NSYNC_TIME_NSEC(lateness));
		else
			bench_miss(b);
		nsync_note_free(n);
	}
}
BENCH("nsync", "late/wait", late)

static void make_in_thread(void *arg, int thread, long n)
{
	nsync_note parent = ((nsync_note *)arg)[thread];

	for (long i = 0; i < n; i++) {
		nsync_note c = nsync_note_new(parent, nsync_time_no_deadline);

		nsync_note_notify(c);
		nsync_note_free(c);
	}
}

static void threads(struct bench *b, bool shared)
{
	nsync_note parents[64];
	void *apart[64]; /* two parents in one cache line would not be separate */

	bench_check(b->arg <= 64);
	for (long i = 0; i < b->arg; i++) {
		apart[i] = malloc(256);
		parents[i] = shared && i ? parents[0] : child(NULL);
	}
	bench_parallel(b, (int)b->arg, make_in_thread, parents);
	check(parents[0]);
	for (long i = 0; i < b->arg; i++) {
		if (i == 0 || !shared)
			nsync_note_free(parents[i]);
		free(apart[i]);
	}
}

static void threads_shared(struct bench *b)
{
	threads(b, true);
}
BENCH("nsync", "threads/shared", threads_shared)

static void threads_separate(struct bench *b)
{
	threads(b, false);
}
BENCH("nsync", "threads/separate", threads_separate)

static void bytes(struct bench *b)
{
	long n = b->smoke ? 10000 : 1000000;
	nsync_note parent = child(NULL), *all = calloc((size_t)n, sizeof(*all));
	struct mallinfo2 before = mallinfo2();

	for (long i = 0; i < n; i++)
		all[i] = child(parent);
	struct mallinfo2 after = mallinfo2();

	bench_sample(b, (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / (double)n);
	for (long i = n - 1; i >= 0; i--)
		nsync_note_free(all[i]);
	nsync_note_free(parent);
	free(all);
}
BENCH("nsync", "bytes/plain", bytes)
