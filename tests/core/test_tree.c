/* SPDX-License-Identifier: MIT */
/* Who is whose child, who keeps whom alive, and when memory goes: the tree without the ways in which it ends. */
#include "harness.h"

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static void background_is_never_done(void **state)
{
	const struct ctxfd *roots[] = { ctxfd_background(), ctxfd_todo() };

	assert_ptr_equal(ctxfd_background(), roots[0]);
	assert_ptr_equal(ctxfd_todo(), roots[1]);
	assert_ptr_not_equal(roots[0], roots[1]);
	for (size_t i = 0; i < COUNT(roots); i++) {
		int64_t deadline = 42;

		assert_int_equal(ctxfd_err(roots[i]), 0);
		assert_int_equal(ctxfd_cause(roots[i]), 0);
		assert_false(ctxfd_deadline(roots[i], &deadline));
		assert_int_equal(deadline, 42);
		assert_true(ctxfd_remaining(roots[i]) == INT64_MAX);
		assert_null(ctxfd_value(roots[i], roots));
	}
}

static void background_is_immortal(void **state)
{
	const struct ctxfd *roots[] = { ctxfd_background(), ctxfd_todo() };

	for (size_t i = 0; i < COUNT(roots); i++) {
		struct ctxfd *child;

		for (int n = 0; n < 10; n++)
			ctxfd_unref(roots[i]);
		assert_ptr_equal(ctxfd_ref(roots[i]), roots[i]);
		child = child_of(roots[i]);
		for (int n = 0; n < 10; n++)
			ctxfd_unref(roots[i]);
		assert_int_equal(ctxfd_err(child), 0);
		ctxfd_close(child);
	}
}

static void cancel_goes_down_and_not_up_or_across(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *left = child_of(root), *right = child_of(root);
	struct ctxfd *below = child_of(left), *leaf = child_of(below);

	ctxfd_cancel(left);
	assert_int_equal(ctxfd_err(left), -ECANCELED);
	assert_int_equal(ctxfd_err(below), -ECANCELED);
	assert_int_equal(ctxfd_err(leaf), -ECANCELED);
	assert_int_equal(ctxfd_err(root), 0);
	assert_int_equal(ctxfd_err(right), 0);
	ctxfd_cancel(root);
	assert_int_equal(ctxfd_err(root), -ECANCELED);
	assert_int_equal(ctxfd_err(right), -ECANCELED);
	ctxfd_close(leaf);
	ctxfd_close(below);
	ctxfd_close(right);
	ctxfd_close(left);
	ctxfd_close(root);
}

static void child_of_a_done_parent_is_born_done(void **state)
{
	struct ctxfd *cancelled = child_of(ctxfd_background()), *child, *grandchild;
	struct ctxfd *late = ctxfd_with_deadline_cause(ctxfd_background(), now() - 1, -ENETDOWN);

	ctxfd_cancel_cause(cancelled, -EPIPE);
	child = child_of(cancelled);
	grandchild = ctxfd_with_timeout_cause(child, CTXFD_SEC, -ENOENT);
	assert_int_equal(ctxfd_err(child), -ECANCELED);
	assert_int_equal(ctxfd_cause(child), -EPIPE);
	assert_int_equal(ctxfd_err(grandchild), -ECANCELED);
	assert_int_equal(ctxfd_cause(grandchild), -EPIPE);
	ctxfd_unref(child);
	ctxfd_unref(grandchild);
	ctxfd_unref(cancelled);

	child = child_of(late);
	assert_int_equal(ctxfd_err(child), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(child), -ENETDOWN);
	ctxfd_unref(late);
	assert_int_equal(ctxfd_cause(child), -ENETDOWN);
	ctxfd_unref(child);
}

static void one_that_is_born_done_holds_its_parent(void **state)
{
	struct ctxfd *parent = child_of(ctxfd_background()), *child;
	long before = live_allocations();

	ctxfd_cancel(parent);
	child = child_of(parent);
	ctxfd_unref(parent);
	assert_int_equal(live_allocations(), before + 1);
	ctxfd_unref(child);
	assert_int_equal(live_allocations(), before - 1);
}

static void child_holds_its_parent(void **state)
{
	long before = live_allocations();
	struct ctxfd *root = child_of(ctxfd_background()), *mid = child_of(root), *leaf = child_of(mid);

	ctxfd_unref(mid);
	assert_int_equal(live_allocations(), before + 3);
	assert_int_equal(ctxfd_err(leaf), 0);
	ctxfd_cancel(root); /* through mid, which nobody else knows any more */
	assert_int_equal(ctxfd_err(leaf), -ECANCELED);
	ctxfd_unref(leaf);
	assert_int_equal(live_allocations(), before + 1);
	ctxfd_unref(root);
	assert_int_equal(live_allocations(), before);
}

static void last_child_frees_all_above_it(void **state)
{
	enum { DEPTH = 50 };
	long before = live_allocations();
	struct ctxfd *chain[DEPTH], *second;

	chain[0] = child_of(ctxfd_background());
	for (int i = 1; i < DEPTH; i++)
		chain[i] = child_of(chain[i - 1]);
	second = child_of(chain[DEPTH / 2]);
	for (int i = 0; i < DEPTH - 1; i++)
		ctxfd_unref(chain[i]);
	assert_int_equal(live_allocations(), before + DEPTH + 1);
	ctxfd_unref(chain[DEPTH - 1]);
	assert_int_equal(live_allocations(), before + DEPTH / 2 + 2);
	assert_int_equal(ctxfd_err(second), 0);
	ctxfd_unref(second);
	assert_int_equal(live_allocations(), before);
}

static void unref_cancels_nothing(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *child = child_of(root);
	int watcher = fcntl(ctxfd_done_fd(root), F_DUPFD_CLOEXEC, 0);

	assert_true(watcher >= 0);
	ctxfd_unref(root);
	assert_int_equal(ctxfd_err(child), 0);
	ctxfd_unref(child);
	assert_not_readable(watcher);
	close(watcher);
}

static void ref_gives_one_more_owner(void **state)
{
	long before = live_allocations();
	struct ctxfd *ctx = child_of(ctxfd_background());

	assert_ptr_equal(ctxfd_ref(ctx), ctx);
	assert_ptr_equal(ctxfd_ref(ctx), ctx);
	ctxfd_unref(ctx);
	ctxfd_unref(ctx);
	assert_int_equal(live_allocations(), before + 1);
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_unref(ctx);
	assert_int_equal(live_allocations(), before);
}

static void close_cancels_for_whoever_is_left(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background()), *child;
	const struct ctxfd *kept = ctxfd_ref(ctx), *value;
	int watcher;

	ctxfd_close(ctx);
	assert_int_equal(ctxfd_err(kept), -ECANCELED);
	ctxfd_unref(kept);

	ctx = child_of(ctxfd_background());
	child = child_of(ctx);
	ctxfd_close(ctx);
	assert_int_equal(ctxfd_err(child), -ECANCELED);
	ctxfd_unref(child);

	ctx = child_of(ctxfd_background());
	value = ctxfd_with_value(ctx, &ctx, NULL, NULL);
	ctxfd_close(ctx);
	assert_int_equal(ctxfd_err(value), -ECANCELED);
	ctxfd_unref(value);

	for (int timed = 0; timed < 2; timed++) {
		ctx = ctxfd_with_timeout(ctxfd_background(), timed ? 3600 * CTXFD_SEC : INT64_MAX);
		watcher = fcntl(ctxfd_done_fd(ctx), F_DUPFD_CLOEXEC, 0);
		assert_true(watcher >= 0);
		assert_not_readable(watcher);
		ctxfd_close(ctx);
		assert_readable(watcher);
		close(watcher);
	}
}

static const struct ctxfd *leave_a_scope(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = child_of(ctxfd_background());
	const struct ctxfd *kept = ctxfd_ref(ctx);

	assert_int_equal(ctxfd_err(kept), 0);
	if (kept)
		return kept;
	fail();
	return NULL;
}

static void scoped_closes_at_the_end_of_the_scope(void **state)
{
	const struct ctxfd *kept = leave_a_scope();

	assert_int_equal(ctxfd_err(kept), -ECANCELED);
	ctxfd_unref(kept);
	{
		CTXFD_SCOPED struct ctxfd *none = NULL;
		(void)none;
	}
}

/* A child leaves from the front, the middle and the end of its parent's list, and the others stay in it. */
static void any_sibling_can_go(void **state)
{
	enum { SIBLINGS = 5 };

	for (int gone = 0; gone < SIBLINGS; gone++) {
		struct ctxfd *parent = child_of(ctxfd_background()), *children[SIBLINGS];

		for (int i = 0; i < SIBLINGS; i++)
			children[i] = child_of(parent);
		ctxfd_unref(children[gone]);
		if (gone + 1 < SIBLINGS)
			ctxfd_unref(children[gone + 1]);
		ctxfd_cancel(parent);
		for (int i = 0; i < SIBLINGS; i++)
			if (i != gone && i != gone + 1) {
				assert_int_equal(ctxfd_err(children[i]), -ECANCELED);
				ctxfd_unref(children[i]);
			}
		ctxfd_unref(parent);
	}
}

/* xorshift64: the same trees every time. */
static uint64_t draw(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static const struct ctxfd *some_context(const struct ctxfd *a, const struct ctxfd *b, uint64_t kind)
{
	switch (kind % 6) {
	case 0:
		return ctxfd_with_value(a, &kind, NULL, NULL);
	case 1:
		return ctxfd_without_cancel(a);
	case 2:
		return ctxfd_merge(a, b);
	case 3:
		return ctxfd_with_timeout(a, 3600 * CTXFD_SEC);
	default:
		return ctxfd_with_cancel(a);
	}
}

/* Random trees of all kinds, given up in random order, some of them after a cancel: the harness finds what is left. */
static void any_order_of_giving_up_leaves_nothing(void **state)
{
	enum { NODES = 40 };
	uint64_t seed = 88172645463325252;
	long before = live_allocations();

	for (int round = 0; round < rounds(4000); round++) {
		const struct ctxfd *node[NODES], *last;

		node[0] = child_of(ctxfd_background());
		for (int i = 1; i < NODES; i++)
			node[i] = some_context(node[draw(&seed) % (unsigned)i], node[draw(&seed) % (unsigned)i],
			                       draw(&seed));
		if (draw(&seed) % 2)
			ctxfd_cancel((struct ctxfd *)(uintptr_t)node[0]);
		for (unsigned left = NODES; left > 0; left--) {
			unsigned i = (unsigned)(draw(&seed) % left);

			last = node[i];
			node[i] = node[left - 1];
			ctxfd_unref(last);
		}
		assert_int_equal(live_allocations(), before);
	}
}

static void *make_and_free(void *arg)
{
	const struct ctxfd *parent = arg;

	for (int i = 0; i < rounds(20000); i++) {
		struct ctxfd *a = ctxfd_with_cancel(parent), *b = ctxfd_with_cancel(a), *c = ctxfd_with_cancel(parent);

		require(a && b && c);
		ctxfd_unref(a);
		ctxfd_cancel(c);
		require(ctxfd_err(b) == 0 && ctxfd_err(c) == -ECANCELED);
		ctxfd_unref(b);
		ctxfd_unref(c);
	}
	return NULL;
}

static void threads_share_a_parent(void **state)
{
	struct ctxfd *parent = child_of(ctxfd_background());
	struct thread *threads[4];

	for (size_t i = 0; i < COUNT(threads); i++)
		threads[i] = thread_start(make_and_free, parent);
	for (size_t i = 0; i < COUNT(threads); i++)
		thread_join(threads[i]);
	assert_int_equal(ctxfd_err(parent), 0);
	ctxfd_close(parent);
}

static void *take_and_give_up(void *arg)
{
	for (int i = 0; i < rounds(20000); i++) {
		struct ctxfd *child = ctxfd_with_cancel(ctxfd_ref(arg));

		ctxfd_unref(arg);
		ctxfd_unref(child);
	}
	ctxfd_unref(arg);
	return NULL;
}

/* The last of several owners, whichever it is, frees it, and so does the last child. */
static void threads_give_up_one_context(void **state)
{
	long before = live_allocations();

	for (int round = 0; round < 10; round++) {
		struct ctxfd *ctx = child_of(ctxfd_background());
		struct thread *threads[3];

		for (size_t i = 0; i < COUNT(threads); i++) {
			ctxfd_ref(ctx);
			threads[i] = thread_start(take_and_give_up, ctx);
		}
		ctxfd_unref(ctx);
		for (size_t i = 0; i < COUNT(threads); i++)
			thread_join(threads[i]);
		assert_int_equal(live_allocations(), before);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(background_is_never_done),
		cmocka_unit_test(background_is_immortal),
		cmocka_unit_test(cancel_goes_down_and_not_up_or_across),
		cmocka_unit_test(child_of_a_done_parent_is_born_done),
		cmocka_unit_test(one_that_is_born_done_holds_its_parent),
		cmocka_unit_test(child_holds_its_parent),
		cmocka_unit_test(last_child_frees_all_above_it),
		cmocka_unit_test(unref_cancels_nothing),
		cmocka_unit_test(ref_gives_one_more_owner),
		cmocka_unit_test(close_cancels_for_whoever_is_left),
		cmocka_unit_test(scoped_closes_at_the_end_of_the_scope),
		cmocka_unit_test(any_sibling_can_go),
		cmocka_unit_test(any_order_of_giving_up_leaves_nothing),
		cmocka_unit_test(threads_share_a_parent),
		cmocka_unit_test(threads_give_up_one_context),
	};
	return run_all(tests);
}
