/* SPDX-License-Identifier: MIT */
/* Values: who sees which, when they are destroyed, and that contexts of values end with what is above them. */
#include "harness.h"

#include <sys/epoll.h>

static const char red[] = "color", blue[] = "color"; /* keys of equal text */

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static const struct ctxfd *put(const struct ctxfd *parent, const void *key, void *value)
{
	const struct ctxfd *ctx = ctxfd_with_value(parent, key, value, NULL);

	assert_non_null(ctx);
	return ctx;
}

/* ---- Lookup ------------------------------------------------------------------------------------------------------ */

static void value_is_seen_from_there_down(void **state)
{
	int x;
	struct ctxfd *root = child_of(ctxfd_background());
	const struct ctxfd *bound = put(root, red, &x);
	struct ctxfd *below = child_of(bound), *beside = child_of(root), *deep = ctxfd_with_timeout(below, CTXFD_SEC);

	assert_ptr_equal(ctxfd_value(bound, red), &x);
	assert_ptr_equal(ctxfd_value(below, red), &x);
	assert_ptr_equal(ctxfd_value(deep, red), &x);
	assert_null(ctxfd_value(root, red));
	assert_null(ctxfd_value(beside, red));
	ctxfd_unref(deep);
	ctxfd_unref(beside);
	ctxfd_unref(below);
	ctxfd_unref(bound);
	ctxfd_unref(root);
}

static void keys_are_compared_by_address(void **state)
{
	int x, y;
	const struct ctxfd *outer = put(ctxfd_background(), red, &x), *inner = put(outer, blue, &y);

	assert_string_equal(red, blue);
	assert_ptr_equal(ctxfd_value(inner, red), &x);
	assert_ptr_equal(ctxfd_value(inner, blue), &y);
	assert_null(ctxfd_value(outer, blue));
	assert_null(ctxfd_value(inner, red + 1));
	assert_null(ctxfd_value(inner, NULL));
	ctxfd_unref(inner);
	ctxfd_unref(outer);
}

static void inner_value_hides_the_outer(void **state)
{
	int x, y, z;
	const struct ctxfd *outer = put(ctxfd_background(), red, &x), *other = put(outer, blue, &z);
	const struct ctxfd *inner = put(other, red, &y), *hidden = put(inner, red, NULL), *again = put(hidden, red, &x);

	assert_ptr_equal(ctxfd_value(outer, red), &x);
	assert_ptr_equal(ctxfd_value(inner, red), &y);
	assert_null(ctxfd_value(hidden, red));
	assert_ptr_equal(ctxfd_value(again, red), &x);
	assert_ptr_equal(ctxfd_value(again, blue), &z);
	ctxfd_unref(again);
	ctxfd_unref(hidden);
	ctxfd_unref(inner);
	ctxfd_unref(other);
	ctxfd_unref(outer);
}

static void value_outlives_the_end(void **state)
{
	int x;
	struct ctxfd *root = child_of(ctxfd_background()), *leaf;
	const struct ctxfd *bound = put(root, red, &x);

	leaf = child_of(bound);
	ctxfd_cancel(root);
	assert_ptr_equal(ctxfd_value(bound, red), &x);
	assert_ptr_equal(ctxfd_value(leaf, red), &x);
	ctxfd_unref(bound);
	ctxfd_unref(root);
	assert_ptr_equal(ctxfd_value(leaf, red), &x);
	ctxfd_unref(leaf);
}

static void *value_of(void *arg)
{
	return ctxfd_value(arg, red);
}

static void value_may_be_asked_from_any_thread(void **state)
{
	int x;
	const struct ctxfd *bound = put(ctxfd_background(), red, &x);

	assert_ptr_equal(thread_join(thread_start(value_of, (void *)(uintptr_t)bound)), &x);
	ctxfd_unref(bound);
}

static int64_t time_lookups(const struct ctxfd *ctx, const int *x, const int *y)
{
	int64_t start = now();

	for (int i = 0; i < 10000; i++) {
		assert_ptr_equal(ctxfd_value(ctx, red), x);
		assert_ptr_equal(ctxfd_value(ctx, blue), y);
		assert_null(ctxfd_value(ctx, x));
	}
	return now() - start;
}

/*
 * 100,000 contexts between two values: lookups that went through them would take seconds here. (A machine that does not
 * run us meanwhile takes as long once, not each time.)
 */
static void lookup_steps_over_what_is_no_value(void **state)
{
	int x, y, depth = rounds(100000), late = 0;
	const struct ctxfd *outer = put(ctxfd_background(), red, &x), *inner;
	struct ctxfd *ctx = child_of(outer), *next;

	for (int i = 0; i < depth; i++) {
		next = i % 2 ? child_of(ctx) : ctxfd_with_timeout(ctx, 3600 * CTXFD_SEC);
		ctxfd_unref(ctx);
		ctx = next;
	}
	inner = put(ctx, blue, &y);
	ctxfd_unref(ctx);
	ctx = child_of(inner);
	while (time_lookups(ctx, &x, &y) > 200 * CTXFD_MSEC * slow())
		assert_true(++late < 3);
	ctxfd_unref(ctx);
	ctxfd_unref(inner);
	ctxfd_unref(outer);
}

/* ---- Beside the tree --------------------------------------------------------------------------------------------- */

static void value_context_ends_with_the_one_above(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	const struct ctxfd *first = put(ctx, red, NULL), *second = put(first, blue, NULL);
	struct epoll_event event = { .events = EPOLLIN };
	int64_t at, told;
	int fd, epoll;

	fd = ctxfd_done_fd(second);
	assert_true(fd >= 0);
	assert_int_equal(ctxfd_done_fd(first), fd);
	assert_int_equal(ctxfd_done_fd(ctx), fd);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, ctxfd_done_fd(ctx), &event), 0);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, ctxfd_done_fd(second), &event), -1);
	assert_int_equal(errno, EEXIST);
	close(epoll);

	assert_true(ctxfd_deadline(ctx, &at) && ctxfd_deadline(second, &told) && at == told);
	assert_int_equal(ctxfd_err(second), 0);
	assert_int_equal(ctxfd_cause(second), 0);
	ctxfd_cancel_cause(ctx, -EPIPE);
	assert_int_equal(ctxfd_err(second), -ECANCELED);
	assert_int_equal(ctxfd_cause(second), -EPIPE);
	assert_int_equal(ctxfd_wait(second), -ECANCELED);
	assert_readable(fd);
	ctxfd_unref(ctx);
	ctxfd_unref(first);
	ctxfd_unref(second);
}

static void value_context_on_background_never_ends(void **state)
{
	const struct ctxfd *value = put(ctxfd_background(), red, NULL);

	assert_int_equal(ctxfd_err(value), 0);
	assert_false(ctxfd_deadline(value, NULL));
	assert_true(ctxfd_remaining(value) == INT64_MAX);
	assert_int_equal(ctxfd_done_fd(value), ctxfd_done_fd(ctxfd_background()));
	ctxfd_unref(value);
}

/* Deriving from a value context is deriving from the node above it. */
static void children_of_a_value_context_are_cancelled(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background());
	const struct ctxfd *value = put(root, red, NULL);
	struct ctxfd *child = child_of(value), *done;

	ctxfd_cancel_cause(root, -EPIPE);
	assert_int_equal(ctxfd_cause(child), -EPIPE);
	done = child_of(value);
	assert_int_equal(ctxfd_cause(done), -EPIPE);
	ctxfd_unref(done);
	ctxfd_unref(child);
	ctxfd_unref(value);
	ctxfd_unref(root);
}

static void without_cancel_keeps_the_values_alone(void **state)
{
	int x;
	struct ctxfd *root = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	const struct ctxfd *bound = put(root, red, &x), *loose = ctxfd_without_cancel(bound),
	                   *more = put(loose, blue, &root);
	struct ctxfd *child = child_of(more);

	ctxfd_cancel(root);
	assert_int_equal(ctxfd_err(loose), 0);
	assert_int_equal(ctxfd_cause(loose), 0);
	assert_false(ctxfd_deadline(loose, NULL));
	assert_true(ctxfd_remaining(loose) == INT64_MAX);
	assert_int_equal(ctxfd_done_fd(loose), ctxfd_done_fd(ctxfd_background()));
	assert_ptr_equal(ctxfd_value(loose, red), &x);
	assert_int_equal(ctxfd_err(child), 0);
	ctxfd_unref(root);
	ctxfd_unref(bound);
	ctxfd_unref(loose);
	ctxfd_unref(more);
	assert_ptr_equal(ctxfd_value(child, red), &x);
	assert_ptr_equal(ctxfd_value(child, blue), &root);
	ctxfd_cancel(child);
	assert_int_equal(ctxfd_err(child), -ECANCELED);
	ctxfd_unref(child);
}

static void without_cancel_of_one_that_is_done(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *child;
	const struct ctxfd *loose;

	ctxfd_cancel(root);
	loose = ctxfd_without_cancel(root);
	assert_int_equal(ctxfd_err(loose), 0);
	child = child_of(loose);
	assert_int_equal(ctxfd_err(child), 0);
	ctxfd_unref(child);
	ctxfd_unref(loose);
	ctxfd_unref(root);
}

/* ---- Destroying -------------------------------------------------------------------------------------------------- */

static int destroyed, order[10];
static pthread_t destroyed_on;

/* value: a pointer to an int that counts. */
static void count_destroy(void *value)
{
	order[destroyed++] = value ? ++*(int *)value : -1;
	destroyed_on = pthread_self();
}

static void destroy_comes_with_the_last_reference(void **state)
{
	int x = 0;
	const struct ctxfd *value = ctxfd_with_value(ctxfd_background(), red, &x, count_destroy);

	ctxfd_ref(value);
	ctxfd_unref(value);
	assert_int_equal(x, 0);
	ctxfd_unref(value);
	assert_int_equal(x, 1);
}

static void what_is_derived_keeps_the_value(void **state)
{
	int x = 0, y = 0;
	struct ctxfd *root = child_of(ctxfd_background()), *ctx, *leaf;
	const struct ctxfd *value = ctxfd_with_value(root, red, &x, count_destroy), *inner, *loose;

	ctx = child_of(value);
	leaf = child_of(ctx);
	inner = ctxfd_with_value(leaf, blue, &y, count_destroy);
	loose = ctxfd_without_cancel(inner);
	ctxfd_unref(value);
	ctxfd_unref(ctx);
	ctxfd_cancel(root);
	ctxfd_unref(root);
	ctxfd_unref(leaf);
	ctxfd_unref(inner);
	assert_int_equal(x + y, 0);
	assert_ptr_equal(ctxfd_value(loose, red), &x);
	ctxfd_unref(loose);
	assert_int_equal(x, 1);
	assert_int_equal(y, 1);
}

/* Also what is born done, and merged, and what hangs on the background. */
static void every_way_of_deriving_keeps_the_value(void **state)
{
	for (int way = 0; way < 6; way++) {
		int x = 0;
		struct ctxfd *root = child_of(ctxfd_background()), *other = child_of(ctxfd_background());
		const struct ctxfd *value = ctxfd_with_value(way % 2 ? root : ctxfd_background(), red, &x,
		                                             count_destroy),
		                   *held;

		if (way == 3)
			ctxfd_cancel(root);
		if (way == 4)
			ctxfd_cancel(other);
		held = way < 4 ? child_of(value) : ctxfd_merge(value, other);
		ctxfd_unref(value);
		assert_int_equal(x, 0);
		assert_ptr_equal(ctxfd_value(held, red), &x);
		ctxfd_unref(held);
		assert_int_equal(x, 1);
		ctxfd_unref(other);
		ctxfd_unref(root);
	}
}

static void null_values_are_destroyed_too(void **state)
{
	destroyed = 0;
	ctxfd_unref(ctxfd_with_value(ctxfd_background(), red, NULL, count_destroy));
	assert_int_equal(destroyed, 1);
	assert_int_equal(order[0], -1);
}

static void no_destroy_when_it_fails(void **state)
{
	int x = 0;

	fail_allocation(1);
	assert_null(ctxfd_with_value(ctxfd_background(), red, &x, count_destroy));
	assert_int_equal(errno, ENOMEM);
	assert_null(ctxfd_with_value(NULL, red, &x, count_destroy));
	assert_int_equal(errno, EINVAL);
	assert_null(ctxfd_with_value(ctxfd_background(), NULL, &x, count_destroy));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(x, 0);
}

static void inner_values_are_destroyed_before_outer_ones(void **state)
{
	int x = 10, y = 20, z = 30;
	const struct ctxfd *a = ctxfd_with_value(ctxfd_background(), red, &x, count_destroy);
	const struct ctxfd *b = ctxfd_with_value(a, blue, &y, count_destroy);
	struct ctxfd *c = child_of(b);
	const struct ctxfd *d = ctxfd_with_value(c, red, &z, count_destroy);

	destroyed = 0;
	ctxfd_unref(a);
	ctxfd_unref(b);
	ctxfd_unref(c);
	assert_int_equal(destroyed, 0);
	ctxfd_unref(d);
	assert_int_equal(destroyed, 3);
	assert_int_equal(order[0], 31);
	assert_int_equal(order[1], 21);
	assert_int_equal(order[2], 11);
}

static void *give_up(void *arg)
{
	ctxfd_unref(arg);
	return NULL;
}

static void destroy_runs_where_the_reference_was_given_up(void **state)
{
	int x = 0;
	const struct ctxfd *value = ctxfd_with_value(ctxfd_background(), red, &x, count_destroy);
	struct ctxfd *child = child_of(value);
	struct thread *thread;
	pthread_t there;

	ctxfd_unref(value);
	thread = thread_start(give_up, child);
	there = thread_pthread(thread);
	thread_join(thread);
	assert_int_equal(x, 1);
	assert_true(pthread_equal(destroyed_on, there));
}

struct family {
	struct ctxfd *root, *child;
};

/* Uses the contexts that are still there, below which it was bound: a lock held now would never be free again. */
static void use_the_tree(void *value)
{
	struct family *f = value;
	struct ctxfd *more = ctxfd_with_cancel(f->root), *below = ctxfd_with_cancel(f->child);
	const struct ctxfd *bound = ctxfd_with_value(more, blue, NULL, NULL);

	require(more && below && bound);
	ctxfd_unref(f->child);
	ctxfd_cancel_cause(f->root, -EPIPE);
	require(ctxfd_cause(bound) == -EPIPE && ctxfd_cause(below) == -EPIPE);
	ctxfd_unref(bound);
	ctxfd_unref(more);
	ctxfd_unref(below);
	destroyed++;
}

static void destroy_may_use_the_library(void **state)
{
	struct family f;
	const struct ctxfd *value, *other;
	struct ctxfd *last;

	destroyed = 0;
	f.root = child_of(ctxfd_background());
	f.child = child_of(f.root);
	value = ctxfd_with_value(f.child, red, &f, use_the_tree);
	other = put(value, red, NULL);
	last = child_of(other);
	ctxfd_unref(value);
	ctxfd_unref(other);
	ctxfd_unref(last);
	assert_int_equal(destroyed, 1);
	assert_int_equal(ctxfd_cause(f.root), -EPIPE);
	ctxfd_unref(f.root);
}

static atomic_int dying;

static void count_dying(void *value)
{
	require(value == &dying);
	dying++;
}

static void *derive_and_drop(void *arg)
{
	for (int i = 0; i < rounds(20000); i++) {
		struct ctxfd *child = ctxfd_with_cancel(arg);
		const struct ctxfd *inner = ctxfd_with_value(child, blue, NULL, NULL);

		require(ctxfd_value(inner, red) == &dying);
		ctxfd_unref(child);
		ctxfd_unref(inner);
	}
	ctxfd_unref(arg);
	return NULL;
}

static void threads_destroy_it_once(void **state)
{
	for (int r = 0; r < 5; r++) {
		const struct ctxfd *value = ctxfd_with_value(ctxfd_background(), red, &dying, count_dying);
		struct thread *threads[3];

		dying = 0;
		for (size_t i = 0; i < COUNT(threads); i++)
			threads[i] = thread_start(derive_and_drop, (void *)(uintptr_t)ctxfd_ref(value));
		ctxfd_unref(value);
		for (size_t i = 0; i < COUNT(threads); i++)
			thread_join(threads[i]);
		assert_int_equal(dying, 1);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(value_is_seen_from_there_down),
		cmocka_unit_test(keys_are_compared_by_address),
		cmocka_unit_test(inner_value_hides_the_outer),
		cmocka_unit_test(value_outlives_the_end),
		cmocka_unit_test(value_may_be_asked_from_any_thread),
		cmocka_unit_test(lookup_steps_over_what_is_no_value),
		cmocka_unit_test(value_context_ends_with_the_one_above),
		cmocka_unit_test(value_context_on_background_never_ends),
		cmocka_unit_test(children_of_a_value_context_are_cancelled),
		cmocka_unit_test(without_cancel_keeps_the_values_alone),
		cmocka_unit_test(without_cancel_of_one_that_is_done),
		cmocka_unit_test(destroy_comes_with_the_last_reference),
		cmocka_unit_test(what_is_derived_keeps_the_value),
		cmocka_unit_test(every_way_of_deriving_keeps_the_value),
		cmocka_unit_test(null_values_are_destroyed_too),
		cmocka_unit_test(no_destroy_when_it_fails),
		cmocka_unit_test(inner_values_are_destroyed_before_outer_ones),
		cmocka_unit_test(destroy_runs_where_the_reference_was_given_up),
		cmocka_unit_test(destroy_may_use_the_library),
		cmocka_unit_test(threads_destroy_it_once),
	};
	return run_all(tests);
}
