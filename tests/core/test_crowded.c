/* SPDX-License-Identifier: MIT */
/*
 * A parent at which many threads meet. The library spreads its children over shards then (shard.h), and all must be as
 * with any other parent. Most tests here have it spread at once, without a crowd.
 */
#include "gate.h"
#include "race.h"
#include "core/shard.h"

enum { CROWD = 4, EACH = 200 };

struct crowd {
	struct ctxfd *parent;
	struct meeting start;
	atomic_bool enough;
	struct ctxfd *child[CROWD][EACH]; /* each thread's */
	atomic_int next_number;
	int rounds;
};

static void *have_children(void *arg)
{
	struct crowd *c = arg;
	int me = atomic_fetch_add(&c->next_number, 1);

	for (int i = 0; i < EACH; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(c->parent);

		/* Some are themselves parents, which their child keeps. */
		c->child[me][i] = i % 5 ? ctx : ctxfd_with_cancel(ctx);
		require(c->child[me][i]);
		if (i % 5 == 0)
			ctxfd_unref(ctx);
	}
	return NULL;
}

/* A crowded parent below `above` with CROWD * EACH children, made by as many threads. */
static void make_crowded(struct crowd *c, const struct ctxfd *above)
{
	struct thread *threads[CROWD];

	memset(c, 0, sizeof *c);
	c->parent = ctxfd_with_cancel(above);
	assert_non_null(c->parent);
	ctxfdi_split_children(c->parent);
	for (int i = 0; i < CROWD; i++)
		threads[i] = thread_start(have_children, c);
	for (int i = 0; i < CROWD; i++)
		thread_join(threads[i]);
}

static struct ctxfd **nth(struct crowd *c, int n)
{
	return &c->child[n % CROWD][n / CROWD];
}

static void drop_children(struct crowd *c)
{
	for (int i = 0; i < CROWD * EACH; i++)
		ctxfd_unref(*nth(c, i));
}

static struct crowd crowded;

static void *elbow(void *arg)
{
	struct crowd *c = arg;

	while (!c->enough)
		for (int i = 0; i < 100; i++) {
			struct ctxfd *child = ctxfd_with_cancel(c->parent);

			require(child);
			ctxfd_unref(child);
		}
	return NULL;
}

static bool is_spread(const struct ctxfd *ctx)
{
	return load_word(ctx) & CTX_SHARDED;
}

static void a_crowd_spreads_its_children(void **state)
{
	struct crowd c = { .parent = ctxfd_with_cancel(ctxfd_background()) };
	struct thread *threads[CROWD];
	int64_t until = now() + 5 * CTXFD_SEC;

	assert_false(is_spread(c.parent));
	for (int i = 0; i < CROWD; i++)
		threads[i] = thread_start(elbow, &c);
	while (!is_spread(c.parent) && now() < until)
		pass_time(CTXFD_MSEC);
	c.enough = true;
	for (int i = 0; i < CROWD; i++)
		thread_join(threads[i]);
	if (!is_spread(c.parent)) {
		ctxfd_unref(c.parent);
		skip_test("no two threads of this machine meet at one parent");
	}
	ctxfd_unref(c.parent);
}

static void without_memory_it_stays_as_it_is(void **state)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background()), *child = ctxfd_with_cancel(parent);

	fail_allocation(1);
	errno = EDOM;
	ctxfdi_split_children(parent);
	assert_int_equal(errno, EDOM);
	assert_true(allocation_failed());
	assert_false(is_spread(parent));
	ctxfdi_split_children(parent);
	assert_true(is_spread(parent));
	ctxfd_cancel_cause(parent, -EPIPE);
	assert_ended(child, -EPIPE);
	ctxfd_unref(child);
	ctxfd_unref(parent);
}

static void all_children_are_cancelled(void **state)
{
	struct crowd *c = &crowded;
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *other = ctxfd_with_cancel(ctxfd_background()),
	             *merged;

	for (int above = 0; above < 2; above++) {
		make_crowded(c, root);
		merged = ctxfd_merge(other, c->parent);
		for (int i = 0; i < CROWD * EACH; i++)
			assert_int_equal(ctxfd_err(*nth(c, i)), 0);
		ctxfd_cancel_cause(above ? root : c->parent, -EPIPE);
		for (int i = 0; i < CROWD * EACH; i++)
			assert_ended(*nth(c, i), -EPIPE);
		assert_ended(merged, -EPIPE);
		/* What comes later is born done. */
		for (int i = 0; i < CROWD; i++) {
			struct ctxfd *late = ctxfd_with_cancel(c->parent);

			assert_ended(late, -EPIPE);
			ctxfd_unref(late);
		}
		ctxfd_unref(merged);
		drop_children(c);
		ctxfd_unref(c->parent);
	}
	ctxfd_unref(other);
	ctxfd_unref(root);
}

/* No cancel comes by its shards then: whoever derives must see by the parent that it is late. */
static void an_expired_parent_has_no_live_children(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout_cause(ctxfd_background(), 5 * CTXFD_MSEC, -ENETDOWN), *child;
	struct ctxfd *early = ctxfd_with_cancel(parent);

	ctxfdi_split_children(parent);
	for (int seen = 0; seen < 2; seen++) {
		assert_int_equal(ctxfd_wait(early), -ETIMEDOUT);
		if (seen)
			assert_int_equal(ctxfd_err(parent), -ETIMEDOUT);
		child = ctxfd_with_cancel(parent);
		assert_int_equal(ctxfd_err(child), -ETIMEDOUT);
		assert_int_equal(ctxfd_cause(child), -ENETDOWN);
		ctxfd_unref(child);
	}
	ctxfd_unref(early);
	ctxfd_unref(parent);
}

/* First the parent, or first the children, or those of one thread by another; and after a cancel, or without. */
static void nothing_is_left_in_whatever_order_they_go(void **state)
{
	long before = live_allocations();
	struct crowd *c = &crowded;

	for (int way = 0; way < 6; way++) {
		make_crowded(c, ctxfd_background());
		if (way % 2)
			ctxfd_cancel(c->parent);
		if (way / 2 == 0)
			ctxfd_unref(c->parent);
		for (int i = 0; i < CROWD * EACH; i++) {
			if (way / 2 == 1 && i == EACH)
				ctxfd_unref(c->parent);
			ctxfd_unref(*nth(c, way % 2 ? i : CROWD * EACH - 1 - i));
		}
		if (way / 2 == 2)
			ctxfd_unref(c->parent);
		assert_int_equal(live_allocations(), before);
	}
}

static void children_keep_their_parent(void **state)
{
	struct crowd *c = &crowded;
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());

	make_crowded(c, root);
	ctxfd_unref(c->parent);
	for (int i = 1; i < CROWD * EACH; i++)
		ctxfd_unref(*nth(c, i));
	assert_int_equal(ctxfd_err(*nth(c, 0)), 0);
	ctxfd_cancel_cause(root, -EPIPE);
	assert_ended(*nth(c, 0), -EPIPE);
	ctxfd_unref(*nth(c, 0));
	ctxfd_unref(root);
}

/* ---- Halfway ----------------------------------------------------------------------------------------------------- */

static void *give_all_up(void *arg)
{
	drop_children(arg);
	return NULL;
}

static void halfway_they_are_like_others(void **state)
{
	struct crowd *c = &crowded;
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *born[2 * CROWD];
	struct thread *giver;
	struct stop s;
	int done = 0;

	make_crowded(c, root);
	spoil_freed_memory(true);
	stop_at(&s, root, -EPIPE, *nth(c, CROWD * EACH / 2));
	assert_int_equal(ctxfd_err(root), 0);
	assert_int_equal(ctxfd_err(c->parent), 0);
	for (int i = 0; i < CROWD * EACH; i++)
		done += ctxfd_err(*nth(c, i)) != 0;
	assert_true(done > 0);
	for (size_t i = 0; i < COUNT(born); i++) {
		born[i] = ctxfd_with_cancel(c->parent);
		assert_ended(born[i], -EPIPE);
	}
	giver = thread_start(give_all_up, c);
	thread_wait_asleep(giver); /* until the cancel is through */
	go_on(&s);
	thread_join(giver);
	for (size_t i = 0; i < COUNT(born); i++)
		ctxfd_unref(born[i]);
	assert_ended(c->parent, -EPIPE);
	ctxfd_unref(c->parent);
	ctxfd_unref(root);
	spoil_freed_memory(false);
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

/* Goes on having children until it sees the end; what it makes from then on is born done. */
static void *have_many(void *arg)
{
	struct crowd *c = arg;
	int me = atomic_fetch_add(&c->next_number, 1) % CROWD;
	bool ended;

	for (int r = 0; r < c->rounds; r++) {
		meet(&c->start, CROWD + 1);
		for (int i = 0; i < EACH; i++) {
			ended = ctxfd_err(c->parent) != 0;
			c->child[me][i] = ctxfd_with_cancel(c->parent);
			if (ended)
				require(ctxfd_err(c->child[me][i]) == -ECANCELED);
			if (i % 3 == 0) {
				ctxfd_unref(c->child[me][i]);
				c->child[me][i] = NULL;
			}
		}
		meet(&c->start, CROWD + 1);
		for (int i = 0; i < EACH; i++) {
			if (c->child[me][i])
				require(ctxfd_cause(c->child[me][i]) == -EPIPE);
			ctxfd_unref(c->child[me][i]);
		}
		meet(&c->start, CROWD + 1);
	}
	return NULL;
}

/* From parents that nobody has crowded yet, so that they may be spread at any time. */
static void a_crowd_is_cancelled(void **state)
{
	struct crowd *c = &crowded;
	struct thread *threads[CROWD];

	memset(c, 0, sizeof *c);
	c->rounds = rounds(2000);
	for (int i = 0; i < CROWD; i++)
		threads[i] = thread_start(have_many, c);
	for (int r = 0; r < c->rounds; r++) {
		struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());

		c->parent = ctxfd_with_cancel(root);
		meet(&c->start, CROWD + 1);
		dither((unsigned)(r * 997) % 50000);
		ctxfd_cancel_cause(r % 2 ? root : c->parent, -EPIPE);
		meet(&c->start, CROWD + 1);
		if (r % 3 == 0)
			ctxfd_unref(c->parent);
		meet(&c->start, CROWD + 1);
		if (r % 3)
			ctxfd_unref(c->parent);
		ctxfd_unref(root);
	}
	for (int i = 0; i < CROWD; i++)
		thread_join(threads[i]);
}

/* The last children and the last owner go at the same time: a few children, so that it is over soon. */
static void *have_few(void *arg)
{
	struct crowd *c = arg;

	for (int r = 0; r < c->rounds; r++) {
		struct ctxfd *few[3];

		meet(&c->start, CROWD + 1);
		for (size_t i = 0; i < COUNT(few); i++) {
			few[i] = ctxfd_with_cancel(c->parent);
			require(few[i]);
		}
		meet(&c->start, CROWD + 1);
		for (size_t i = 0; i < COUNT(few); i++)
			ctxfd_unref(few[i]);
		meet(&c->start, CROWD + 1);
	}
	return NULL;
}

static void a_crowd_leaves(void **state)
{
	struct crowd *c = &crowded;
	struct thread *threads[CROWD];
	long before = live_allocations();

	memset(c, 0, sizeof *c);
	c->rounds = rounds(20000);
	for (int i = 0; i < CROWD; i++)
		threads[i] = thread_start(have_few, c);
	for (int r = 0; r < c->rounds; r++) {
		c->parent = ctxfd_with_cancel(ctxfd_background());
		ctxfdi_split_children(c->parent);
		meet(&c->start, CROWD + 1);
		meet(&c->start, CROWD + 1);
		dither((unsigned)(r * 7) % 400);
		ctxfd_unref(c->parent);
		meet(&c->start, CROWD + 1);
		assert_int_equal(live_allocations(), before);
	}
	for (int i = 0; i < CROWD; i++)
		thread_join(threads[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_crowd_spreads_its_children),
		cmocka_unit_test(without_memory_it_stays_as_it_is),
		cmocka_unit_test(all_children_are_cancelled),
		cmocka_unit_test(an_expired_parent_has_no_live_children),
		cmocka_unit_test(nothing_is_left_in_whatever_order_they_go),
		cmocka_unit_test(children_keep_their_parent),
		cmocka_unit_test(halfway_they_are_like_others),
		cmocka_unit_test(a_crowd_is_cancelled),
		cmocka_unit_test(a_crowd_leaves),
	};
	return run_all(tests);
}
