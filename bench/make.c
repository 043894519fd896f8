/* SPDX-License-Identifier: MIT */
/* Making and ending children of a long-lived parent, from one thread and from several, and what each of them weighs. */
#include "bench.h"
#include "ctxfd.h"
#include "floor.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#define HOUR (3600 * CTXFD_SEC)

/* ---- The library ------------------------------------------------------------------------------------------------- */

static struct ctxfd *child(const struct ctxfd *parent, bool timed)
{
	return timed ? ctxfd_with_timeout(parent, HOUR) : ctxfd_with_cancel(parent);
}

/* What the timed loops do, once more and looked at. */
static void check_child(const struct ctxfd *parent, bool timed, bool fd)
{
	struct ctxfd *c = child(parent, timed);

	bench_check(c && ctxfd_err(c) == 0 && ctxfd_deadline(c, NULL) == timed);
	if (fd)
		bench_check(ctxfd_done_fd(c) >= 0);
	ctxfd_cancel(c);
	bench_check(ctxfd_err(c) == -ECANCELED);
	if (fd) {
		struct pollfd p = { .fd = ctxfd_done_fd(c), .events = POLLIN };

		bench_check(poll(&p, 1, 0) == 1);
	}
	ctxfd_unref(c);
}

static void make(struct bench *b, bool timed, bool fd)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());

	bench_check(parent);
	while (bench_more(b)) {
		bench_start(b);
		if (fd) {
			for (long i = 0, count = b->n; i < count; i++) {
				struct ctxfd *c = child(parent, timed);

				bench_use(ctxfd_done_fd(c));
				ctxfd_close(c);
			}
		} else if (timed) {
			for (long i = 0, count = b->n; i < count; i++)
				ctxfd_close(ctxfd_with_timeout(parent, HOUR));
		} else {
			for (long i = 0, count = b->n; i < count; i++)
				ctxfd_close(ctxfd_with_cancel(parent));
		}
		bench_stop(b, b->n);
		check_child(parent, timed, fd);
	}
	ctxfd_close(parent);
}

static void make_plain(struct bench *b)
{
	make(b, false, false);
}
BENCH("ctxfd", "make/plain", make_plain)

/* The three steps of it as three calls: ctxfd_close may know that nobody is left to see the cancel. */
static void make_apart(struct bench *b)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct ctxfd *c = ctxfd_with_cancel(parent);

			ctxfd_cancel(c);
			ctxfd_unref(c);
		}
		bench_stop(b, b->n);
		check_child(parent, false, false);
	}
	ctxfd_close(parent);
}
BENCH("ctxfd", "make/apart", make_apart)

static void make_timed(struct bench *b)
{
	make(b, true, false);
}
BENCH("ctxfd", "make/timed", make_timed)

static void make_plain_fd(struct bench *b)
{
	make(b, false, true);
}
BENCH("ctxfd", "make/plain+fd", make_plain_fd)

static void make_timed_fd(struct bench *b)
{
	make(b, true, true);
}
BENCH("ctxfd", "make/timed+fd", make_timed_fd)

/* ---- Several threads --------------------------------------------------------------------------------------------- */

#define MAX_THREADS 64

struct parents {
	struct ctxfd *of[MAX_THREADS];
};

static void make_in_thread(void *arg, int thread, long n)
{
	struct ctxfd *parent = ((struct parents *)arg)->of[thread];

	for (long i = 0; i < n; i++)
		ctxfd_close(ctxfd_with_cancel(parent));
}

static void threads(struct bench *b, bool shared)
{
	struct parents p;
	void *apart[MAX_THREADS]; /* two parents in one cache line would not be separate */

	bench_check(b->arg <= MAX_THREADS);
	for (long i = 0; i < b->arg; i++) {
		apart[i] = malloc(256);
		p.of[i] = shared && i > 0 ? p.of[0] : ctxfd_with_cancel(ctxfd_background());
	}
	bench_parallel(b, (int)b->arg, make_in_thread, &p);
	check_child(p.of[0], false, false);
	for (long i = 0; i < b->arg; i++) {
		if (i == 0 || !shared)
			ctxfd_close(p.of[i]);
		free(apart[i]);
	}
}

static void threads_shared(struct bench *b)
{
	threads(b, true);
}
BENCH("ctxfd", "threads/shared", threads_shared)

static void threads_separate(struct bench *b)
{
	threads(b, false);
}
BENCH("ctxfd", "threads/separate", threads_separate)

/* ---- Bytes ------------------------------------------------------------------------------------------------------- */

/* All arenas, what is mapped for itself, and malloc's overhead; but not what a library maps without malloc. */
static double heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return (double)m.uordblks + (double)m.hblkhd;
}

static double resident(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	bench_check(f && fscanf(f, "%*d %ld", &pages) == 1);
	fclose(f);
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static const struct ctxfd *bound(const struct ctxfd *parent)
{
	static const char key;

	return ctxfd_with_value(parent, &key, NULL, NULL);
}

static const struct ctxfd *plain(const struct ctxfd *parent)
{
	return ctxfd_with_cancel(parent);
}

static const struct ctxfd *timed(const struct ctxfd *parent)
{
	return ctxfd_with_timeout(parent, HOUR);
}

static void bytes(struct bench *b, const struct ctxfd *(*make_one)(const struct ctxfd *parent), double (*used)(void))
{
	long n = b->smoke ? 10000 : 1000000;
	const struct ctxfd **all = calloc((size_t)n, sizeof(*all));
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());

	bench_check(all && parent);
	malloc_trim(0);
	memset(all, 1, (size_t)n * sizeof(*all)); /* resident before the count begins */
	double before = used();

	for (long i = 0; i < n; i++)
		bench_check((all[i] = make_one(parent)) != NULL);
	bench_sample(b, (used() - before) / (double)n);
	ctxfd_cancel(parent);
	for (long i = 0; i < n; i++) {
		bench_check(ctxfd_err(all[i]) == -ECANCELED);
		ctxfd_unref(all[i]);
	}
	ctxfd_unref(parent);
	free(all);
}

static void bytes_plain(struct bench *b)
{
	bytes(b, plain, heap);
}
BENCH("ctxfd", "bytes/plain", bytes_plain)

static void bytes_timed(struct bench *b)
{
	bytes(b, timed, heap);
}
BENCH("ctxfd", "bytes/timed", bytes_timed)

static void bytes_value(struct bench *b)
{
	bytes(b, bound, heap);
}
BENCH("ctxfd", "bytes/value", bytes_value)

static void bytes_resident(struct bench *b)
{
	bytes(b, plain, resident);
}
BENCH("ctxfd", "bytes/resident", bytes_resident)

/* ---- The floor --------------------------------------------------------------------------------------------------- */

#define NODE 72 /* bytes: a parent, a list, a state, a deadline */

static void floor_plain(struct bench *b)
{
	struct floor_list parent = { 0 };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct floor_item *item = floor_make(&parent, NODE);

			bench_use(item);
			floor_free(&parent, item);
		}
		bench_stop(b, b->n);
	}
}
BENCH("floor", "make/plain", floor_plain)

static void floor_apart(struct bench *b)
{
	struct floor_list parent = { 0 };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct floor_item *item = floor_make(&parent, NODE);
			uint64_t live = 0;

			bench_use(item);
			bench_check(atomic_compare_exchange_strong(&item->state, &live, 1));
			floor_free(&parent, item);
		}
		bench_stop(b, b->n);
	}
}
BENCH("floor", "make/apart", floor_apart)

static void floor_timed(struct bench *b)
{
	struct floor_list parent = { 0 };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			int64_t deadline = bench_now() + HOUR;
			struct floor_item *item = floor_make(&parent, NODE);

			bench_use(deadline);
			floor_free(&parent, item);
		}
		bench_stop(b, b->n);
	}
}
BENCH("floor", "make/timed", floor_timed)

static void floor_plain_fd(struct bench *b)
{
	const uint64_t done = UINT64_MAX - 1;

	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);

			wrong |= write(fd, &done, sizeof(done)) != sizeof(done);
			close(fd);
		}
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
}
BENCH("floor", "make/plain+fd", floor_plain_fd)

static void floor_timed_fd(struct bench *b)
{
	const uint64_t ticks = 1;

	while (bench_more(b)) {
		int64_t when = bench_now() + HOUR;
		struct itimerspec at = { .it_value = { when / CTXFD_SEC, when % CTXFD_SEC }, .it_interval = { 0, 1 } };
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

			wrong |= timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL) != 0;
			wrong |= ioctl(fd, TFD_IOC_SET_TICKS, &ticks) != 0;
			close(fd);
		}
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
}
BENCH("floor", "make/timed+fd", floor_timed_fd)

static void floor_in_thread(void *arg, int thread, long n)
{
	struct floor_list own = { 0 };

	(void)arg;
	(void)thread;
	for (long i = 0; i < n; i++) {
		struct floor_item *item = floor_make(&own, NODE);

		bench_use(item);
		floor_free(&own, item);
	}
}

static void floor_threads(struct bench *b)
{
	bench_parallel(b, (int)b->arg, floor_in_thread, NULL);
}
BENCH("floor", "threads/shared", floor_threads)
BENCH("floor", "threads/separate", floor_threads)
