/* SPDX-License-Identifier: MIT */
/*
 * Contexts with two parents: which end is theirs, whose values, and that neither parent loses or keeps them too long.
 */
#include "harness.h"
#include "race.h"

#define FAR (3600 * CTXFD_SEC)

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static struct ctxfd *merge(const struct ctxfd *a, const struct ctxfd *b)
{
	struct ctxfd *ctx = ctxfd_merge(a, b);

	assert_non_null(ctx);
	return ctx;
}

static void assert_ended(const struct ctxfd *ctx, int err, int cause)
{
	assert_int_equal(ctxfd_err(ctx), err);
	assert_int_equal(ctxfd_cause(ctx), cause);
}

static void sleep_past(const struct ctxfd *ctx)
{
	int64_t left;

	while ((left = ctxfd_remaining(ctx)) > 0)
		pass_time(left);
}

static void ends_with_either_parent(void **state)
{
	for (int which = 0; which < 2; which++) {
		struct ctxfd *parent[] = { child_of(ctxfd_background()), child_of(ctxfd_background()) };
		struct ctxfd *ctx = merge(parent[0], parent[1]), *child = child_of(ctx),
		             *beside = child_of(parent[1 - which]);
		int fd = ctxfd_done_fd(ctx), child_fd = ctxfd_done_fd(child);

		assert_int_equal(ctxfd_err(ctx), 0);
		assert_not_readable(fd);
		ctxfd_cancel_cause(parent[which], -EPIPE);
		assert_readable(fd);
		assert_readable(child_fd);
		assert_ended(ctx, -ECANCELED, -EPIPE);
		assert_ended(child, -ECANCELED, -EPIPE);
		assert_int_equal(ctxfd_err(parent[1 - which]), 0);
		ctxfd_cancel_cause(parent[1 - which], -ENOENT);
		assert_ended(ctx, -ECANCELED, -EPIPE);
		assert_ended(child, -ECANCELED, -EPIPE);
		assert_ended(beside, -ECANCELED, -ENOENT);
		ctxfd_close(beside);
		ctxfd_close(child);
		ctxfd_close(ctx);
		ctxfd_close(parent[0]);
		ctxfd_close(parent[1]);
	}
}

static void its_own_end_reaches_neither_parent(void **state)
{
	struct ctxfd *a = child_of(ctxfd_background()), *b = child_of(ctxfd_background()), *ctx = merge(a, b);
	struct ctxfd *child = child_of(ctx);

	ctxfd_cancel_cause(ctx, -EPIPE);
	assert_ended(ctx, -ECANCELED, -EPIPE);
	assert_ended(child, -ECANCELED, -EPIPE);
	assert_int_equal(ctxfd_err(a), 0);
	assert_int_equal(ctxfd_err(b), 0);
	ctxfd_cancel(a);
	ctxfd_cancel(b);
	assert_ended(ctx, -ECANCELED, -EPIPE);
	ctxfd_unref(child);
	ctxfd_unref(ctx);
	ctxfd_unref(b);
	ctxfd_unref(a);
}

static void deadline_is_the_earlier_one(void **state)
{
	int64_t at = now() + FAR, told;
	struct ctxfd *early = ctxfd_with_deadline(ctxfd_background(), at), *never = child_of(ctxfd_background());
	struct ctxfd *late = ctxfd_with_deadline(ctxfd_background(), at + 1);
	struct ctxfd *merged[] = { merge(early, late), merge(late, early), merge(early, never), merge(never, early) };

	for (size_t i = 0; i < COUNT(merged); i++) {
		told = 0;
		assert_true(ctxfd_deadline(merged[i], &told) && told == at);
		assert_int_equal(ctxfd_err(merged[i]), 0);
		ctxfd_close(merged[i]);
	}
	ctxfd_close(early);
	ctxfd_close(late);
	early = merge(never, never);
	assert_false(ctxfd_deadline(early, NULL));
	ctxfd_close(early);
	ctxfd_close(never);
}

static void expires_with_the_cause_of_its_deadline(void **state)
{
	int64_t at = now() + 5 * CTXFD_MSEC;
	struct ctxfd *early = ctxfd_with_deadline_cause(ctxfd_background(), at, -ENETDOWN);
	struct ctxfd *same = ctxfd_with_deadline_cause(ctxfd_background(), at, -EHOSTDOWN);
	struct ctxfd *late = ctxfd_with_deadline_cause(ctxfd_background(), at + FAR, -EPIPE), *never = child_of(late);
	struct ctxfd *merged[] = {
		merge(early, late), merge(late, early), merge(early, same), merge(same, early), merge(never, early),
	};
	static const int causes[] = { -ENETDOWN, -ENETDOWN, -ENETDOWN, -EHOSTDOWN, -ENETDOWN };
	int fds[COUNT(merged)];

	for (size_t i = 0; i < COUNT(merged); i++)
		fds[i] = ctxfd_done_fd(merged[i]);
	sleep_past(early);
	for (size_t i = 0; i < COUNT(merged); i++) {
		assert_ended(merged[i], -ETIMEDOUT, causes[i]);
		assert_readable(fds[i]);
		ctxfd_close(merged[i]);
	}
	ctxfd_close(never);
	ctxfd_close(late);
	ctxfd_close(same);
	ctxfd_close(early);
}

static void of_done_parents_the_first_one_counts(void **state)
{
	struct ctxfd *a = child_of(ctxfd_background()), *b = child_of(ctxfd_background()), *ctx, *child;
	struct ctxfd *live = child_of(ctxfd_background());
	struct ctxfd *late = ctxfd_with_timeout_cause(ctxfd_background(), CTXFD_MSEC, -ENETDOWN);

	ctxfd_cancel_cause(a, -EPIPE);
	ctxfd_cancel_cause(b, -ENOENT);
	sleep_past(late); /* done, though nobody has looked */

	struct ctxfd *merged[] = { merge(a, b),
		                   merge(b, a),
		                   merge(a, live),
		                   merge(live, a),
		                   merge(late, a),
		                   merge(a, late),
		                   merge(live, late),
		                   merge(late, live),
		                   merge(a, ctxfd_background()),
		                   merge(ctxfd_background(), b) };
	static const int causes[] = { -EPIPE, -ENOENT,   -EPIPE,    -EPIPE, -ENETDOWN,
		                      -EPIPE, -ENETDOWN, -ENETDOWN, -EPIPE, -ENOENT };

	for (size_t i = 0; i < COUNT(merged); i++) {
		assert_ended(merged[i], causes[i] == -ENETDOWN ? -ETIMEDOUT : -ECANCELED, causes[i]);
		assert_readable(ctxfd_done_fd(merged[i]));
		child = child_of(merged[i]);
		assert_int_equal(ctxfd_cause(child), causes[i]);
		ctxfd_unref(child);
	}
	ctx = merge(live, live);
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_unref(ctx);
	ctxfd_unref(a);
	ctxfd_unref(b);
	ctxfd_unref(late);
	ctxfd_unref(live);
	for (size_t i = 0; i < COUNT(merged); i++)
		ctxfd_unref(merged[i]);
}

static void values_are_those_of_the_first(void **state)
{
	static const char red, blue;
	int x, y, z;
	const struct ctxfd *a = ctxfd_with_value(ctxfd_background(), &red, &x, NULL);
	const struct ctxfd *b0 = ctxfd_with_value(ctxfd_background(), &red, &y, NULL);
	const struct ctxfd *b = ctxfd_with_value(b0, &blue, &z, NULL);
	struct ctxfd *ctx = merge(a, b);

	assert_ptr_equal(ctxfd_value(ctx, &red), &x);
	assert_null(ctxfd_value(ctx, &blue));
	ctxfd_unref(b);
	ctxfd_unref(b0);
	ctxfd_unref(a);
	assert_ptr_equal(ctxfd_value(ctx, &red), &x);
	ctxfd_close(ctx);
}

/* Parents that are related, the same, values, or never done. */
static void any_two_can_be_merged(void **state)
{
	for (int way = 0; way < 8; way++) {
		struct ctxfd *root = child_of(ctxfd_background()), *mid = child_of(root),
		             *other = child_of(ctxfd_background());
		const struct ctxfd *value = ctxfd_with_value(mid, &way, NULL, NULL);
		const struct ctxfd *parents[][2] = {
			{ root, root },
			{ root, mid },
			{ mid, root },
			{ value, mid },
			{ mid, value },
			{ value, root },
			{ ctxfd_background(), value },
			{ value, ctxfd_todo() },
		};
		struct ctxfd *ctx = merge(parents[way][0], parents[way][1]), *again = merge(ctx, other),
		             *child = child_of(again);

		ctxfd_unref(value);
		ctxfd_unref(mid);
		assert_int_equal(ctxfd_err(child), 0);
		if (way % 2)
			ctxfd_unref(other);
		ctxfd_cancel_cause(root, -EPIPE);
		assert_ended(ctx, -ECANCELED, -EPIPE);
		assert_ended(again, -ECANCELED, -EPIPE);
		assert_ended(child, -ECANCELED, -EPIPE);
		ctxfd_unref(root);
		ctxfd_unref(ctx);
		ctxfd_unref(again);
		ctxfd_unref(child);
		if (way % 2 == 0)
			ctxfd_unref(other);
	}
}

static void two_that_never_end(void **state)
{
	struct ctxfd *ctx = merge(ctxfd_background(), ctxfd_todo());

	assert_int_equal(ctxfd_err(ctx), 0);
	assert_false(ctxfd_deadline(ctx, NULL));
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	ctxfd_unref(ctx);
}

/* In any order; and a merge that is gone is in nobody's list. */
static void parents_and_merge_may_be_given_up_in_any_order(void **state)
{
	static const int orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	long before = live_allocations();

	for (size_t i = 0; i < 2 * COUNT(orders); i++) {
		struct ctxfd *top[] = { child_of(ctxfd_background()), child_of(ctxfd_background()) };
		struct ctxfd *ctx[3] = { child_of(top[0]), child_of(top[1]) };

		ctx[2] = merge(ctx[0], ctx[1]);
		if (i % 2)
			ctxfd_cancel(ctx[2]);
		for (int n = 0; n < 3; n++) {
			ctxfd_unref(ctx[orders[i / 2][n]]);
			/* What nobody holds is gone, and what is still held keeps its parents. */
			if (n == 2)
				assert_int_equal(live_allocations(), before + 2);
		}
		ctxfd_cancel(top[0]);
		ctxfd_cancel(top[1]);
		ctxfd_unref(top[0]);
		ctxfd_unref(top[1]);
	}
	assert_int_equal(live_allocations(), before);
}

static void it_holds_both_parents(void **state)
{
	for (int which = 0; which < 2; which++) {
		long before = live_allocations();
		struct ctxfd *top[] = { child_of(ctxfd_background()), child_of(ctxfd_background()) };
		struct ctxfd *mid[] = { child_of(top[0]), child_of(top[1]) }, *ctx = merge(mid[0], mid[1]);

		ctxfd_unref(mid[0]);
		ctxfd_unref(mid[1]);
		assert_int_equal(live_allocations(), before + 5);
		ctxfd_cancel_cause(top[which], -EPIPE);
		assert_ended(ctx, -ECANCELED, -EPIPE);
		ctxfd_unref(ctx);
		assert_int_equal(live_allocations(), before + 2);
		ctxfd_close(top[0]);
		ctxfd_close(top[1]);
	}
}

/* A ladder: each rung is merged of the two above it, so there are many ways from the top to each. */
static void many_ways_lead_to_one(void **state)
{
	enum { RUNGS = 60 };

	for (int from = 0; from < 4; from++) {
		struct ctxfd *rung[RUNGS];
		int fds[RUNGS];

		for (int i = 0; i < RUNGS; i++) {
			rung[i] =
			        i < 2 ? child_of(ctxfd_background()) : merge(rung[i - 1 - i % 2], rung[i - 2 + i % 2]);
			fds[i] = ctxfd_done_fd(rung[i]);
		}
		ctxfd_cancel_cause(rung[from], -EPIPE);
		for (int i = from > 2 ? from : 2; i < RUNGS; i++) {
			assert_readable(fds[i]);
			assert_ended(rung[i], -ECANCELED, -EPIPE);
		}
		for (int i = 0; i < RUNGS; i++)
			ctxfd_unref(rung[i]);
	}
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

struct contest {
	struct meeting start, end;
	struct ctxfd *parent[2], *mid[2], *ctx, *child[3], *leaf, *made;
	int rounds;
	atomic_int next_number;
};

static void *cancel_one_parent(void *arg)
{
	struct contest *c = arg;
	int me = atomic_fetch_add(&c->next_number, 1), cause;

	for (int r = 0; r < c->rounds; r++) {
		meet(&c->start, 3);
		dither((unsigned)(r * (1 + 2 * me)) % 150);
		ctxfd_cancel_cause(r % 3 ? c->mid[me] : c->parent[me], me + 1);
		/* What only this thread cancelled is done; of the merge and what is below it one cause is seen. */
		require(ctxfd_cause(c->mid[me]) == me + 1);
		cause = ctxfd_cause(c->ctx);
		if (cause) {
			require(cause == 1 || cause == 2);
			for (int i = 0; i < 3; i++)
				require(ctxfd_cause(c->child[i]) == cause);
			require(ctxfd_cause(c->leaf) == cause);
		}
		meet(&c->end, 3);
	}
	return NULL;
}

static void both_parents_end_at_once(void **state)
{
	static struct contest c;
	struct thread *threads[2];

	c = (struct contest){ .rounds = rounds(6000) };
	for (size_t i = 0; i < 2; i++)
		threads[i] = thread_start(cancel_one_parent, &c);
	for (int r = 0; r < c.rounds; r++) {
		for (int i = 0; i < 2; i++) {
			c.parent[i] = child_of(ctxfd_background());
			c.mid[i] = child_of(c.parent[i]);
		}
		c.ctx = merge(c.mid[0], c.mid[1]);
		for (int i = 0; i < 3; i++)
			c.child[i] = i == 1 ? merge(c.ctx, c.ctx) : child_of(c.ctx);
		c.leaf = child_of(c.child[2]);
		meet(&c.start, 3);
		meet(&c.end, 3);
		assert_int_not_equal(ctxfd_cause(c.ctx), 0);
		assert_int_equal(ctxfd_cause(c.leaf), ctxfd_cause(c.ctx));
		ctxfd_unref(c.leaf);
		for (int i = 0; i < 3; i++)
			ctxfd_unref(c.child[i]);
		ctxfd_unref(c.ctx);
		for (int i = 0; i < 2; i++) {
			ctxfd_unref(c.mid[i]);
			ctxfd_unref(c.parent[i]);
		}
	}
	for (size_t i = 0; i < 2; i++)
		thread_join(threads[i]);
}

static void *make_merges(void *arg)
{
	struct contest *c = arg;

	for (int r = 0; r < c->rounds; r++) {
		meet(&c->start, 3);
		for (int i = 0; i < 5; i++) {
			struct ctxfd *ctx = ctxfd_merge(c->parent[i % 2], c->parent[1 - i % 2]),
			             *child = ctxfd_with_cancel(ctx);
			int was = ctxfd_cause(ctx);

			require(ctx && child && (was == 0 || was == 1 || was == 2));
			if (was)
				require(ctxfd_cause(child) == was);
			if (i == 4)
				c->made = ctxfd_with_cancel(child);
			ctxfd_unref(i % 2 ? ctx : child);
			ctxfd_unref(i % 2 ? child : ctx);
		}
		meet(&c->end, 3);
	}
	return NULL;
}

/* One thread makes merges and gives them up, two cancel the parents meanwhile. */
static void merges_come_and_go_as_their_parents_end(void **state)
{
	static struct contest c;
	struct thread *maker, *canceller;

	c = (struct contest){ .rounds = rounds(4000) };
	maker = thread_start(make_merges, &c);
	canceller = thread_start(cancel_one_parent, &c);
	for (int r = 0; r < c.rounds; r++) {
		for (int i = 0; i < 2; i++)
			c.parent[i] = c.mid[i] = child_of(ctxfd_background());
		c.ctx = merge(c.mid[0], c.mid[1]);
		c.leaf = c.child[0] = c.child[1] = c.child[2] = child_of(c.ctx);
		meet(&c.start, 3);
		dither((unsigned)r % 400);
		ctxfd_cancel_cause(c.parent[1], 2);
		meet(&c.end, 3);
		assert_int_not_equal(ctxfd_cause(c.made), 0);
		ctxfd_unref(c.made);
		ctxfd_unref(c.leaf);
		ctxfd_unref(c.ctx);
		ctxfd_unref(c.parent[0]);
		ctxfd_unref(c.parent[1]);
	}
	thread_join(maker);
	thread_join(canceller);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_with_either_parent),
		cmocka_unit_test(its_own_end_reaches_neither_parent),
		cmocka_unit_test(deadline_is_the_earlier_one),
		cmocka_unit_test(expires_with_the_cause_of_its_deadline),
		cmocka_unit_test(of_done_parents_the_first_one_counts),
		cmocka_unit_test(values_are_those_of_the_first),
		cmocka_unit_test(any_two_can_be_merged),
		cmocka_unit_test(two_that_never_end),
		cmocka_unit_test(parents_and_merge_may_be_given_up_in_any_order),
		cmocka_unit_test(it_holds_both_parents),
		cmocka_unit_test(many_ways_lead_to_one),
		cmocka_unit_test(both_parents_end_at_once),
		cmocka_unit_test(merges_come_and_go_as_their_parents_end),
	};
	return run_all(tests);
}
