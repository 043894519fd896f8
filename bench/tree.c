/* SPDX-License-Identifier: MIT */
/*
 * Cancelling wide and deep trees. Only the cancel is timed; the trees are new each time, and freed outside of the timed
 * part.
 */
#include "bench.h"
#include "ctxfd.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NODES 2000 /* of a batch: small trees come in numbers, so that the clock can see them */

static long trees(const struct bench *b)
{
	return b->smoke || b->arg >= NODES ? 1 : NODES / b->arg;
}

static void *array(long n, size_t size)
{
	void *p = calloc((size_t)n, size);

	bench_check(p);
	return p;
}

/* ---- Children of one root ---------------------------------------------------------------------------------------- */

static void plant(struct ctxfd **root, struct ctxfd **child, long n, bool fd)
{
	*root = ctxfd_with_cancel(ctxfd_background());
	for (long i = 0; i < n; i++) {
		child[i] = ctxfd_with_cancel(*root);
		bench_check(child[i]);
		if (fd)
			bench_check(ctxfd_done_fd(child[i]) >= 0);
	}
}

static void fell(struct ctxfd *root, struct ctxfd **child, long n, bool fd)
{
	for (long i = 0; i < n; i++) {
		bench_check(ctxfd_err(child[i]) == -ECANCELED);
		if (fd) {
			struct pollfd p = { .fd = ctxfd_done_fd(child[i]), .events = POLLIN };

			bench_check(poll(&p, 1, 0) == 1);
		}
		ctxfd_unref(child[i]);
	}
	ctxfd_unref(root);
}

static void cancel_children(struct bench *b, bool fd)
{
	long n = b->arg, count = trees(b);
	struct ctxfd **roots = array(count, sizeof(struct ctxfd *)),
	             **children = array(count * n, sizeof(struct ctxfd *));

	while (bench_more(b)) {
		for (long i = 0; i < count; i++)
			plant(&roots[i], &children[i * n], n, fd);
		bench_start(b);
		for (long i = 0; i < count; i++)
			ctxfd_cancel(roots[i]);
		bench_stop(b, count * n);
		for (long i = 0; i < count; i++)
			fell(roots[i], &children[i * n], n, fd);
	}
	free(children);
	free(roots);
}

static void children(struct bench *b)
{
	cancel_children(b, false);
}
BENCH("ctxfd", "cancel/children", children)

static void children_fd(struct bench *b)
{
	cancel_children(b, true);
}
BENCH("ctxfd", "cancel/children+fd", children_fd)

/* ---- A chain ----------------------------------------------------------------------------------------------------- */

static void chains(struct bench *b)
{
	long n = b->arg, count = trees(b);
	struct ctxfd **c = array(count * n, sizeof(struct ctxfd *));

	while (bench_more(b)) {
		for (long i = 0; i < count * n; i++) {
			c[i] = ctxfd_with_cancel(i % n ? c[i - 1] : ctxfd_background());
			bench_check(c[i]);
		}
		bench_start(b);
		for (long i = 0; i < count; i++)
			ctxfd_cancel(c[i * n]);
		bench_stop(b, count * n);
		for (long i = 0; i < count * n; i++)
			bench_check(ctxfd_err(c[i]) == -ECANCELED);
		for (long i = 0; i < count * n; i++)
			ctxfd_unref(c[i]); /* from the root on: the last one frees the whole chain */
	}
	free(c);
}

static void *on_small_stack(void *b)
{
	bench_pin(-1);
	chains(b);
	return NULL;
}

static void chain(struct bench *b)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	bench_check(pthread_attr_setstacksize(&attr, 64 * 1024) == 0);
	bench_check(pthread_create(&thread, &attr, on_small_stack, b) == 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
}
BENCH("ctxfd", "cancel/chain", chain)

/* ---- The floor --------------------------------------------------------------------------------------------------- */

struct node {
	struct node *next, *prev;
	atomic_ulong state;
	char rest[48];
};

static bool swap(struct node *node, unsigned long from, unsigned long to)
{
	return atomic_compare_exchange_strong(&node->state, &from, to);
}

/* One compare-and-swap on each of N nodes; or two: in a chain one on the way down, and one on the way back up. */
static void swap_list(struct bench *b, bool back)
{
	long n = b->arg, count = trees(b);
	struct node **first = array(count, sizeof(struct node *));

	while (bench_more(b)) {
		bool wrong = false;

		for (long i = 0; i < count * n; i++) {
			struct node *node = malloc(sizeof(*node));

			bench_check(node);
			memset(node, 0, sizeof(*node));
			node->next = first[i / n];
			if (node->next)
				node->next->prev = node;
			first[i / n] = node;
		}
		bench_start(b);
		for (long i = 0; i < count; i++) {
			struct node *last = NULL;

			for (struct node *node = first[i]; node; last = node, node = node->next)
				wrong |= !swap(node, 0, 1);
			for (; back && last; last = last->prev)
				wrong |= !swap(last, 1, 2);
		}
		bench_stop(b, count * n);
		bench_check(!wrong);
		for (long i = 0; i < count; i++)
			for (struct node *node; (node = first[i]);) {
				first[i] = node->next;
				free(node);
			}
	}
	free(first);
}

static void swap_children(struct bench *b)
{
	swap_list(b, false);
}
BENCH("floor", "cancel/children", swap_children)

static void swap_chain(struct bench *b)
{
	swap_list(b, true);
}
BENCH("floor", "cancel/chain", swap_chain)

/* One write to each of N fds. */

static void write_fds(struct bench *b)
{
	const uint64_t done = UINT64_MAX - 1;
	long n = trees(b) * b->arg;
	int *fds = array(n, sizeof(int));

	while (bench_more(b)) {
		bool wrong = false;

		for (long i = 0; i < n; i++) {
			fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
			bench_check(fds[i] >= 0);
		}
		bench_start(b);
		for (long i = 0; i < n; i++)
			wrong |= write(fds[i], &done, sizeof(done)) != sizeof(done);
		bench_stop(b, n);
		bench_check(!wrong);
		for (long i = 0; i < n; i++)
			close(fds[i]);
	}
	free(fds);
}
BENCH("floor", "cancel/children+fd", write_fds)
