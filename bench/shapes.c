/* SPDX-License-Identifier: MIT */
/* The shapes of the benchmarks that Go's own context package comes with; the values of its DeepValue are in ask.c. */
#include "bench.h"
#include "ctxfd.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define HOUR (3600 * CTXFD_SEC)

static int cpus(void)
{
	return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static const char key;
static char value;

/* ---- CommonParentCancel ------------------------------------------------------------------------------------------ */

static long divide(long x)
{
	for (int i = 0; i < 100; i++) {
		x /= x + 1;
		bench_use(x);
	}
	return x;
}

static void common_parent_in_thread(void *shared, int thread, long n)
{
	long x = 0;

	(void)thread;
	for (long i = 0; i < n; i++) {
		struct ctxfd *c = ctxfd_with_cancel(shared);

		bench_check(ctxfd_value(c, &key) == &value);
		x = divide(x);
		ctxfd_close(c);
		x = divide(x);
	}
}

static void common_parent(struct bench *b)
{
	const struct ctxfd *root = ctxfd_with_value(ctxfd_background(), &key, &value, NULL);
	struct ctxfd *shared = ctxfd_with_cancel(root);

	bench_parallel(b, cpus(), common_parent_in_thread, shared);
	bench_check(ctxfd_err(shared) == 0);
	ctxfd_close(shared);
	ctxfd_unref(root);
}
BENCH("ctxfd", "go/common-parent", common_parent)

/* ---- WithTimeout ------------------------------------------------------------------------------------------------- */

static void ten_timeouts(void *arg, int thread, long n)
{
	struct ctxfd *c[10];

	(void)arg;
	(void)thread;
	for (long i = 0; i < n; i++) {
		for (int k = 0; k < 10; k++)
			c[k] = ctxfd_with_timeout(ctxfd_background(), HOUR);
		for (int k = 0; k < 10; k++)
			ctxfd_close(c[k]);
	}
}

static void with_timeout(struct bench *b)
{
	struct ctxfd **alive = calloc((size_t)b->arg, sizeof(*alive));

	bench_check(alive);
	for (long i = 0; i < b->arg; i++)
		alive[i] = ctxfd_with_timeout(ctxfd_background(), HOUR);
	bench_parallel(b, cpus(), ten_timeouts, NULL);
	for (long i = 0; i < b->arg; i++) {
		bench_check(ctxfd_err(alive[i]) == 0);
		ctxfd_close(alive[i]);
	}
	free(alive);
}
BENCH("ctxfd", "go/with-timeout", with_timeout)

/* ---- CancelTree -------------------------------------------------------------------------------------------------- */

#define DEPTH 1000

enum root { BACKGROUND, OPEN, CLOSED };

static void build(const struct ctxfd *root, struct ctxfd **c, long depth)
{
	for (long i = 0; i < depth; i++)
		c[i] = ctxfd_with_cancel(i ? c[i - 1] : root);
}

/*
 * Go leaves the contexts to its collector; here they are freed, by the same operation. Below the background nobody
 * cancels.
 */
static void tree_once(struct ctxfd **c, long depth, enum root kind)
{
	struct ctxfd *root = NULL;

	if (kind != BACKGROUND)
		root = ctxfd_with_cancel(ctxfd_background());
	if (kind == CLOSED)
		ctxfd_cancel(root);
	build(root ? root : ctxfd_background(), c, depth);
	if (kind == OPEN)
		ctxfd_cancel(root);
	for (long i = depth - 1; i >= 0; i--)
		ctxfd_unref(c[i]);
	ctxfd_unref(root);
}

static void cancel_tree(struct bench *b, enum root kind)
{
	struct ctxfd *c[DEPTH], *root = ctxfd_with_cancel(ctxfd_background());

	bench_check(b->arg <= DEPTH);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			tree_once(c, b->arg, kind);
		bench_stop(b, b->n);
	}
	build(root, c, b->arg);
	ctxfd_cancel(root);
	bench_check(ctxfd_err(c[b->arg - 1]) == -ECANCELED);
	for (long i = b->arg - 1; i >= 0; i--)
		ctxfd_unref(c[i]);
	ctxfd_unref(root);
}

static void tree_background(struct bench *b)
{
	cancel_tree(b, BACKGROUND);
}
BENCH("ctxfd", "go/cancel-tree-background", tree_background)

static void tree_open(struct bench *b)
{
	cancel_tree(b, OPEN);
}
BENCH("ctxfd", "go/cancel-tree-open", tree_open)

static void tree_closed(struct bench *b)
{
	cancel_tree(b, CLOSED);
}
BENCH("ctxfd", "go/cancel-tree-closed", tree_closed)

/* ---- CheckCanceled, ContextCancelDone ---------------------------------------------------------------------------- */

static void check_err(struct bench *b)
{
	struct ctxfd *c = ctxfd_with_cancel(ctxfd_background());
	int all = 0;

	ctxfd_cancel(c);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			all |= ctxfd_err(c);
		bench_stop(b, b->n);
		bench_check(all == -ECANCELED);
	}
	ctxfd_close(c);
}
BENCH("ctxfd", "go/check-canceled-err", check_err)

/* The channel's counterpart is the descriptor; whoever only wants to know asks err, which is the row above. */
static void check_done(struct bench *b)
{
	struct ctxfd *c = ctxfd_with_cancel(ctxfd_background());

	ctxfd_cancel(c);
	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct pollfd p = { .fd = ctxfd_done_fd(c), .events = POLLIN };

			wrong |= poll(&p, 1, 0) != 1;
		}
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	ctxfd_close(c);
}
BENCH("ctxfd", "go/check-canceled-done", check_done)

static void ask_done(void *c, int thread, long n)
{
	int all = 0;

	(void)thread;
	for (long i = 0; i < n; i++)
		all |= ctxfd_err(c);
	bench_use(all);
}

static void cancel_done(struct bench *b)
{
	struct ctxfd *c = ctxfd_with_cancel(ctxfd_background());

	bench_parallel(b, cpus(), ask_done, c);
	bench_check(ctxfd_err(c) == 0);
	ctxfd_close(c);
}
BENCH("ctxfd", "go/context-cancel-done", cancel_done)
