/* SPDX-License-Identifier: MIT */
/*
 * Cancelling: whose cause counts, who wins, and what other threads may see of it. test_halfway.c has what needs a
 * stalled cancel.
 */
#include "harness.h"
#include "race.h"

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static void live_one_has_neither_err_nor_cause(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	struct ctxfd *timed = ctxfd_with_timeout_cause(ctx, 3600 * CTXFD_SEC, -EPIPE);

	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(ctxfd_cause(ctx), 0);
	assert_int_equal(ctxfd_err(timed), 0);
	assert_int_equal(ctxfd_cause(timed), 0);
	ctxfd_close(timed);
	ctxfd_close(ctx);
}

static void cause_is_what_was_given(void **state)
{
	static const int causes[] = { 0, -ENOENT, SIGINT, -1, 1, INT_MIN, INT_MAX, -ECANCELED, -ETIMEDOUT };

	for (size_t i = 0; i < COUNT(causes); i++) {
		struct ctxfd *ctx = child_of(ctxfd_background()), *child = child_of(ctx), *grandchild = child_of(child);
		int expected = causes[i] ? causes[i] : -ECANCELED;

		ctxfd_cancel_cause(ctx, causes[i]);
		assert_int_equal(ctxfd_err(ctx), -ECANCELED);
		assert_int_equal(ctxfd_cause(ctx), expected);
		assert_int_equal(ctxfd_err(child), -ECANCELED);
		assert_int_equal(ctxfd_cause(child), expected);
		assert_int_equal(ctxfd_err(grandchild), -ECANCELED);
		assert_int_equal(ctxfd_cause(grandchild), expected);
		ctxfd_close(grandchild);
		ctxfd_close(child);
		ctxfd_close(ctx);
	}
}

static void cancel_has_no_cause_of_its_own(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());

	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_cause(ctx), -ECANCELED);
	ctxfd_close(ctx);

	/* The cause that waits for the deadline does not leak into an earlier end. */
	ctx = ctxfd_with_timeout_cause(ctxfd_background(), 3600 * CTXFD_SEC, -EPIPE);
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), -ECANCELED);
	ctxfd_close(ctx);
}

static void first_end_stands(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *child = child_of(root), *sibling = child_of(root);

	ctxfd_cancel_cause(child, -ENOENT);
	ctxfd_cancel_cause(child, -EPIPE);
	ctxfd_cancel(child);
	assert_int_equal(ctxfd_cause(child), -ENOENT);
	ctxfd_cancel_cause(root, SIGTERM);
	ctxfd_cancel_cause(root, SIGINT);
	assert_int_equal(ctxfd_cause(child), -ENOENT);
	assert_int_equal(ctxfd_cause(root), SIGTERM);
	assert_int_equal(ctxfd_cause(sibling), SIGTERM);
	ctxfd_close(sibling);
	ctxfd_close(child);
	ctxfd_close(root);
}

static void a_deadline_that_passed_unseen_wins(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout_cause(ctxfd_background(), CTXFD_MSEC, -ENETDOWN);
	struct ctxfd *parent = ctxfd_with_timeout_cause(ctxfd_background(), CTXFD_MSEC, -EHOSTDOWN);
	struct ctxfd *child = child_of(parent), *below = ctxfd_with_timeout(child, 3600 * CTXFD_SEC);

	pass_time(2 * CTXFD_MSEC);
	ctxfd_cancel_cause(ctx, -EPIPE);
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(ctx), -ENETDOWN);
	ctxfd_close(ctx);

	ctxfd_cancel_cause(child, -EPIPE); /* one whose deadline is its parent's */
	assert_int_equal(ctxfd_err(child), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(child), -EHOSTDOWN);
	assert_int_equal(ctxfd_err(below), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(below), -EHOSTDOWN);
	ctxfd_cancel_cause(parent, -EPIPE);
	assert_int_equal(ctxfd_cause(parent), -EHOSTDOWN);
	ctxfd_close(below);
	ctxfd_close(child);
	ctxfd_close(parent);
}

/* Each with its own verdict, whatever hangs below and above it. */
static void an_expired_child_keeps_its_own_end(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background());
	struct ctxfd *leaf = ctxfd_with_timeout_cause(root, CTXFD_MSEC, -ENETDOWN);
	struct ctxfd *inner = ctxfd_with_timeout_cause(root, CTXFD_MSEC, -EHOSTDOWN), *below = child_of(inner);
	struct ctxfd *live = ctxfd_with_timeout_cause(root, 3600 * CTXFD_SEC, -ENETDOWN);
	struct ctxfd *earlier = ctxfd_with_timeout_cause(live, CTXFD_MSEC, -ENONET);
	int fd = ctxfd_done_fd(below);

	pass_time(2 * CTXFD_MSEC);
	ctxfd_cancel_cause(root, -EPIPE);
	assert_int_equal(ctxfd_cause(root), -EPIPE);
	assert_int_equal(ctxfd_err(leaf), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(leaf), -ENETDOWN);
	assert_int_equal(ctxfd_err(inner), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(inner), -EHOSTDOWN);
	assert_int_equal(ctxfd_err(below), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(below), -EHOSTDOWN);
	assert_readable(fd);
	assert_int_equal(ctxfd_err(live), -ECANCELED);
	assert_int_equal(ctxfd_cause(live), -EPIPE);
	assert_int_equal(ctxfd_err(earlier), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(earlier), -ENONET);
	ctxfd_close(earlier);
	ctxfd_close(live);
	ctxfd_close(below);
	ctxfd_close(inner);
	ctxfd_close(leaf);
	ctxfd_close(root);
}

static void a_cancel_before_the_deadline_stands_after_it(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout_cause(ctxfd_background(), 20 * CTXFD_MSEC, -ENETDOWN);

	ctxfd_cancel_cause(ctx, -EPIPE);
	if (ctxfd_remaining(ctx) > 0)
		assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	pass_time(ctxfd_remaining(ctx) + CTXFD_MSEC);
	if (ctxfd_err(ctx) == -ECANCELED) { /* else this machine took 20 ms to come to the cancel */
		assert_int_equal(ctxfd_cause(ctx), -EPIPE);
		ctxfd_cancel_cause(ctx, -ENOENT);
		assert_int_equal(ctxfd_cause(ctx), -EPIPE);
	}
	ctxfd_close(ctx);
}

static void cancel_allocates_nothing(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *node[300];
	long before;

	for (size_t i = 0; i < COUNT(node); i++) {
		node[i] = i % 3 == 2 ? ctxfd_merge(root, node[i / 2]) : child_of(i ? node[i / 2] : root);
		if (i % 4 == 0)
			assert_true(ctxfd_done_fd(node[i]) >= 0);
	}
	before = live_allocations();
	fail_allocation(1);
	ctxfd_cancel(root);
	assert_false(allocation_failed());
	assert_int_equal(live_allocations(), before);
	for (size_t i = 0; i < COUNT(node); i++) {
		assert_int_equal(ctxfd_err(node[i]), -ECANCELED);
		ctxfd_unref(node[i]);
	}
	ctxfd_unref(root);
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

enum { CANCELLERS = 3, LEVELS = 6, FAN = 2, TREE = (1 << LEVELS) - 1 };

struct contest {
	struct meeting start, end;
	struct ctxfd *tree[TREE]; /* a heap: the children of i are 2i+1 and 2i+2 */
	int rounds;
	atomic_int next_number;
};

static size_t parent_index(size_t i)
{
	return (i - 1) / FAN;
}

/* Where canceller `me` strikes: at the root all of them, or at nodes above and below one another. */
static size_t target(int round, int me)
{
	static const size_t targets[][CANCELLERS] = { { 0, 0, 0 }, { 0, 1, 3 }, { 3, 1, 0 }, { 1, 4, 0 }, { 0, 2, 1 } };

	return targets[(size_t)round % COUNT(targets)][me];
}

static bool is_below(size_t i, size_t top)
{
	while (i > top)
		i = parent_index(i);
	return i == top;
}

static void *contestant(void *arg)
{
	struct contest *c = arg;
	int me = atomic_fetch_add(&c->next_number, 1);

	for (int r = 0; r < c->rounds; r++) {
		meet(&c->start, CANCELLERS + 1);
		dither((unsigned)(r * 7 * (me + 1)) % 200);
		ctxfd_cancel_cause(c->tree[target(r, me)], me + 1);
		/* All below is done now, whoever did it. */
		for (size_t i = 0; i < TREE; i++)
			if (is_below(i, target(r, me)))
				require(ctxfd_err(c->tree[i]) == -ECANCELED);
		meet(&c->end, CANCELLERS + 1);
	}
	return NULL;
}

static void cancel_returns_when_all_below_is_done(void **state)
{
	static struct contest c;
	struct thread *threads[CANCELLERS];

	c = (struct contest){ .rounds = rounds(4000) };
	for (int i = 0; i < CANCELLERS; i++)
		threads[i] = thread_start(contestant, &c);
	for (int r = 0; r < c.rounds; r++) {
		for (size_t i = 0; i < TREE; i++)
			c.tree[i] = child_of(i ? c.tree[parent_index(i)] : ctxfd_background());
		meet(&c.start, CANCELLERS + 1);
		meet(&c.end, CANCELLERS + 1);
		for (size_t i = 0; i < TREE; i++) {
			int cause = ctxfd_cause(c.tree[i]);
			bool own = false;

			/* Its cause is that of somebody who cancelled it or what is above it. */
			for (int me = 0; me < CANCELLERS; me++)
				own |= cause == me + 1 && is_below(i, target(r, me));
			assert_true(own);
		}
		for (size_t i = TREE; i-- > 0;)
			ctxfd_unref(c.tree[i]);
	}
	for (int i = 0; i < CANCELLERS; i++)
		thread_join(threads[i]);
}

/* With every canceller at the root one of them ends the whole tree: nobody gets a part. */
static void *root_canceller(void *arg)
{
	struct contest *c = arg;
	int me = atomic_fetch_add(&c->next_number, 1), seen;

	for (int r = 0; r < c->rounds; r++) {
		meet(&c->start, CANCELLERS + 1);
		ctxfd_cancel_cause(c->tree[0], me + 1);
		seen = ctxfd_cause(c->tree[0]);
		for (size_t i = 0; i < TREE; i++)
			require(ctxfd_cause(c->tree[i]) == seen);
		meet(&c->end, CANCELLERS + 1);
		require(ctxfd_cause(c->tree[0]) == seen);
		meet(&c->end, CANCELLERS + 1);
	}
	return NULL;
}

static void one_canceller_ends_the_whole_tree(void **state)
{
	static struct contest c;
	struct thread *threads[CANCELLERS];

	c = (struct contest){ .rounds = rounds(4000) };
	for (int i = 0; i < CANCELLERS; i++)
		threads[i] = thread_start(root_canceller, &c);
	for (int r = 0; r < c.rounds; r++) {
		for (size_t i = 0; i < TREE; i++)
			c.tree[i] = child_of(i ? c.tree[parent_index(i)] : ctxfd_background());
		meet(&c.start, CANCELLERS + 1);
		meet(&c.end, CANCELLERS + 1);
		meet(&c.end, CANCELLERS + 1);
		for (size_t i = 0; i < TREE; i++)
			ctxfd_unref(c.tree[i]);
	}
	for (int i = 0; i < CANCELLERS; i++)
		thread_join(threads[i]);
}

/* ---- Children before parents ------------------------------------------------------------------------------------- */

enum { CHAIN = 8 };

struct observed {
	struct meeting start, end;
	struct ctxfd *chain[CHAIN];
	int fds[CHAIN];
	int rounds;
	bool timed;
};

/* Looks from the top: whatever is done has all below it done, fds too. */
static void *observer(void *arg)
{
	struct observed *o = arg;

	for (int r = 0; r < o->rounds; r++) {
		int i = r % CHAIN;
		bool by_fd = r / CHAIN % 2;

		meet(&o->start, 2);
		while (by_fd ? !readable(o->fds[i]) : !ctxfd_err(o->chain[i]))
			sched_yield();
		for (; i < CHAIN; i++) {
			int err = ctxfd_err(o->chain[i]);

			require(err == -ECANCELED || (o->timed && err == -ETIMEDOUT));
			require(readable(o->fds[i]));
		}
		meet(&o->end, 2);
	}
	return NULL;
}

static void observe(bool timed, int n)
{
	struct observed o = { .rounds = rounds(n), .timed = timed };
	struct thread *thread = thread_start(observer, &o);

	for (int r = 0; r < o.rounds; r++) {
		for (int i = 0; i < CHAIN; i++) {
			o.chain[i] =
			        ctxfd_with_timeout(i ? o.chain[i - 1] : ctxfd_background(),
			                           timed ? (r % 2 ? 100 * CTXFD_USEC : 3600 * CTXFD_SEC) : INT64_MAX);
			o.fds[i] = ctxfd_done_fd(o.chain[i]);
			assert_true(o.fds[i] >= 0);
		}
		meet(&o.start, 2);
		dither((unsigned)r % 500);
		ctxfd_cancel(o.chain[0]);
		/* Below one that expired, an fd may follow a little later, unless somebody asks. */
		for (int i = 0; i < CHAIN; i++)
			if (ctxfd_err(o.chain[0]) == -ECANCELED || ctxfd_err(o.chain[i]))
				assert_readable(o.fds[i]);
		meet(&o.end, 2);
		for (int i = 0; i < CHAIN; i++)
			ctxfd_unref(o.chain[i]);
	}
	thread_join(thread);
}

static void whoever_sees_one_done_sees_all_below_it_done(void **state)
{
	observe(false, 4000);
	observe(true, 4000);
}

/* ---- Deriving during a cancel ------------------------------------------------------------------------------------ */

struct deriving {
	struct ctxfd *root;
	struct ctxfd *made[200000];
	int n;
	atomic_bool stop;
	atomic_int ready;
};

/* Makes children until the end is visible, and a few more. What is made once it is visible must be born done. */
static void *deriver(void *arg)
{
	struct deriving *d = arg;
	int more = 100;

	d->ready = 1;
	while (d->n < (int)COUNT(d->made) && more > 0) {
		bool ended = ctxfd_err(d->root) != 0;

		d->made[d->n] = ctxfd_with_cancel(d->root);
		require(d->made[d->n]);
		if (ended)
			require(ctxfd_err(d->made[d->n]) == -ECANCELED);
		d->n++;
		if (ended)
			more--;
		else
			dither(200);
	}
	return NULL;
}

static void what_is_derived_during_a_cancel_is_done_after_it(void **state)
{
	enum { WIDE = 100000 };
	static struct deriving d;
	static struct ctxfd *wide[WIDE];
	int n = rounds(WIDE);

	for (int r = 0; r < 3; r++) {
		struct thread *thread;
		int born_done = 0;

		d.root = child_of(ctxfd_background());
		d.n = 0;
		d.ready = 0;
		for (int i = 0; i < n; i++)
			wide[i] = child_of(d.root);
		thread = thread_start(deriver, &d);
		while (!d.ready)
			sched_yield();
		ctxfd_cancel_cause(d.root, -EPIPE);
		thread_join(thread);
		for (int i = 0; i < d.n; i++) {
			assert_int_equal(ctxfd_err(d.made[i]), -ECANCELED);
			assert_int_equal(ctxfd_cause(d.made[i]), -EPIPE);
			born_done++;
			ctxfd_unref(d.made[i]);
		}
		assert_true(born_done >= 100);
		for (int i = 0; i < n; i++)
			ctxfd_unref(wide[i]);
		ctxfd_unref(d.root);
	}
}

/* ---- Freeing during a cancel ------------------------------------------------------------------------------------- */

struct leaving {
	struct meeting start, end;
	struct ctxfd *children[64];
	int rounds;
};

static void *leaver(void *arg)
{
	struct leaving *l = arg;

	for (int r = 0; r < l->rounds; r++) {
		meet(&l->start, 2);
		for (size_t i = 0; i < COUNT(l->children); i++)
			ctxfd_unref(l->children[r % 2 ? i : COUNT(l->children) - 1 - i]);
		meet(&l->end, 2);
	}
	return NULL;
}

/* Half of them are themselves parents, which their last child frees. */
static void children_may_be_given_up_during_a_cancel(void **state)
{
	static struct leaving l;
	struct thread *thread;

	l = (struct leaving){ .rounds = rounds(3000) };
	thread = thread_start(leaver, &l);
	for (int r = 0; r < l.rounds; r++) {
		struct ctxfd *root = child_of(ctxfd_background());

		for (size_t i = 0; i < COUNT(l.children); i++) {
			struct ctxfd *mid = child_of(root);

			l.children[i] = i % 2 ? child_of(mid) : mid;
			if (i % 2)
				ctxfd_unref(mid);
			if (i % 8 == 0)
				assert_true(ctxfd_done_fd(l.children[i]) >= 0);
		}
		meet(&l.start, 2);
		dither((unsigned)r % 1000);
		ctxfd_cancel(root);
		meet(&l.end, 2);
		ctxfd_unref(root);
	}
	thread_join(thread);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(live_one_has_neither_err_nor_cause),
		cmocka_unit_test(cause_is_what_was_given),
		cmocka_unit_test(cancel_has_no_cause_of_its_own),
		cmocka_unit_test(first_end_stands),
		cmocka_unit_test(a_deadline_that_passed_unseen_wins),
		cmocka_unit_test(an_expired_child_keeps_its_own_end),
		cmocka_unit_test(a_cancel_before_the_deadline_stands_after_it),
		cmocka_unit_test(cancel_allocates_nothing),
		cmocka_unit_test(cancel_returns_when_all_below_is_done),
		cmocka_unit_test(one_canceller_ends_the_whole_tree),
		cmocka_unit_test(whoever_sees_one_done_sees_all_below_it_done),
		cmocka_unit_test(what_is_derived_during_a_cancel_is_done_after_it),
		cmocka_unit_test(children_may_be_given_up_during_a_cancel),
	};
	return run_all(tests);
}
