/* SPDX-License-Identifier: MIT */
/* Deadlines: which one is in effect, when it comes, and what it leaves behind. */
#include "harness.h"

#include <signal.h>

#define FAR (3600 * CTXFD_SEC)

static void sleep_past(const struct ctxfd *ctx)
{
	int64_t left;

	while ((left = ctxfd_remaining(ctx)) > 0)
		pass_time(left);
}

static void assert_live(const struct ctxfd *ctx)
{
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(ctxfd_cause(ctx), 0);
}

static void assert_expired(const struct ctxfd *ctx, int cause)
{
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(ctx), cause);
}

static void now_is_the_monotonic_clock(void **state)
{
	int64_t before = now(), asked = ctxfd_now(), after = now();

	assert_true(before <= asked && asked <= after);
}

static void deadline_is_told(void **state)
{
	int64_t at = now() + FAR, told = 42, before, after;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = ctxfd_with_cancel(ctx);
	const struct ctxfd *value = ctxfd_with_value(child, &at, NULL, NULL);

	assert_true(ctxfd_deadline(ctx, &told));
	assert_true(told == at);
	assert_true(ctxfd_deadline(ctx, NULL));
	told = 42;
	assert_true(ctxfd_deadline(child, &told) && told == at);
	told = 42;
	assert_true(ctxfd_deadline(value, &told) && told == at);
	ctxfd_unref(value);
	ctxfd_close(child);
	ctxfd_close(ctx);

	before = now();
	ctx = ctxfd_with_timeout(ctxfd_background(), FAR);
	after = now();
	assert_true(ctxfd_deadline(ctx, &told));
	assert_true(before + FAR <= told && told <= after + FAR);
	ctxfd_close(ctx);

	ctx = ctxfd_with_cancel(ctxfd_background());
	told = 42;
	assert_false(ctxfd_deadline(ctx, &told));
	assert_false(ctxfd_deadline(ctx, NULL));
	assert_true(told == 42);
	ctxfd_close(ctx);
}

static void remaining_counts_down_to_zero(void **state)
{
	int64_t at = now() + 20 * CTXFD_MSEC, last, left, before;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *none = ctxfd_with_cancel(ctxfd_background());

	assert_true(ctxfd_remaining(none) == INT64_MAX);
	for (last = 20 * CTXFD_MSEC; last > 0; last = left) {
		before = now();
		left = ctxfd_remaining(ctx);
		assert_true(left <= last && left >= 0);
		assert_true(left <= at - before || left == 0);
		assert_true(left >= at - now());
	}
	assert_true(now() >= at);
	ctxfd_close(ctx);
	ctxfd_close(none);
}

static void cancelling_changes_no_deadline(void **state)
{
	int64_t at = now() + FAR, told;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);

	ctxfd_cancel(ctx);
	assert_true(ctxfd_deadline(ctx, &told) && told == at);
	assert_true(ctxfd_remaining(ctx) > FAR / 2);
	ctxfd_close(ctx);
}

/*
 * Exactly: not a nanosecond before, and not one after; over a clock tick, so that no coarse clock can pass for a good
 * one.
 */
static void err_turns_when_the_clock_reaches_it(void **state)
{
	for (int r = 0; r < rounds(100); r++) {
		int64_t at = now() + 2 * CTXFD_MSEC + r * 77 * CTXFD_USEC, before, after;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = ctxfd_with_cancel(ctx);
		const struct ctxfd *asked = r % 2 ? child : ctx;
		int err;

		do {
			before = now();
			err = r % 3 ? ctxfd_err(asked) : ctxfd_cause(asked);
			after = now();
			assert_false(err && after < at);
			assert_false(!err && before >= at);
		} while (!err);
		assert_expired(asked, -ETIMEDOUT);
		ctxfd_close(child);
		ctxfd_close(ctx);
	}
}

/* From more than a second away, where a cheaper clock may answer, through the last second. */
static void a_far_deadline_is_kept_as_exactly(void **state)
{
	int64_t at = now() + CTXFD_SEC + 20 * CTXFD_MSEC, before, after;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);
	int err;

	do {
		before = now();
		err = ctxfd_err(ctx);
		after = now();
		assert_false(err && after < at);
		assert_false(!err && before >= at);
		if (at - after > 30 * CTXFD_MSEC && at - after < 980 * CTXFD_MSEC)
			pass_time(at - after - 30 * CTXFD_MSEC);
	} while (!err);
	ctxfd_close(ctx);
}

/* Far off when last looked at, and long past at the next look. */
static void a_deadline_may_pass_between_two_looks(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC + 100 * CTXFD_MSEC);

	assert_live(ctx);
	sleep_past(ctx);
	assert_expired(ctx, -ETIMEDOUT);
	ctxfd_close(ctx);
}

static void the_earlier_one_is_in_effect(void **state)
{
	int64_t at = now() + FAR, told;
	struct ctxfd *parent = ctxfd_with_deadline(ctxfd_background(), at);
	struct ctxfd *earlier = ctxfd_with_deadline(parent, at - 1), *same = ctxfd_with_deadline(parent, at);
	struct ctxfd *later = ctxfd_with_deadline(parent, at + 1), *below = ctxfd_with_deadline(earlier, at);
	struct ctxfd *none = ctxfd_with_deadline(parent, INT64_MAX), *longer = ctxfd_with_timeout(parent, 2 * FAR);

	assert_true(ctxfd_deadline(earlier, &told) && told == at - 1);
	assert_true(ctxfd_deadline(same, &told) && told == at);
	assert_true(ctxfd_deadline(later, &told) && told == at);
	assert_true(ctxfd_deadline(below, &told) && told == at - 1);
	assert_true(ctxfd_deadline(none, &told) && told == at);
	assert_true(ctxfd_deadline(longer, &told) && told == at);
	ctxfd_close(below);
	ctxfd_close(longer);
	ctxfd_close(none);
	ctxfd_close(later);
	ctxfd_close(same);
	ctxfd_close(earlier);
	ctxfd_close(parent);
}

/* False: the first one had passed before all were made. */
static bool expire_with_causes(int64_t timeout)
{
	int64_t at = now() + timeout;
	struct ctxfd *parent = ctxfd_with_deadline_cause(ctxfd_background(), at, -ENETDOWN);
	struct ctxfd *earlier = ctxfd_with_deadline_cause(parent, at - CTXFD_MSEC, SIGALRM);
	struct ctxfd *bare = ctxfd_with_deadline(parent, at - CTXFD_MSEC);
	struct ctxfd *same = ctxfd_with_deadline_cause(parent, at, -EPIPE);
	struct ctxfd *later = ctxfd_with_timeout_cause(parent, FAR, -EPIPE);
	struct ctxfd *child = ctxfd_with_cancel(parent), *below = ctxfd_with_timeout_cause(earlier, FAR, -EPIPE);
	bool in_time = now() < at - CTXFD_MSEC;

	sleep_past(parent);
	if (in_time) {
		assert_expired(below, SIGALRM);
		assert_expired(earlier, SIGALRM);
		assert_expired(bare, -ETIMEDOUT);
		assert_expired(same, -ENETDOWN);
		assert_expired(later, -ENETDOWN);
		assert_expired(child, -ENETDOWN);
		assert_expired(parent, -ENETDOWN);
	}
	ctxfd_close(below);
	ctxfd_close(child);
	ctxfd_close(later);
	ctxfd_close(same);
	ctxfd_close(bare);
	ctxfd_close(earlier);
	ctxfd_close(parent);
	return in_time;
}

static void cause_comes_with_the_deadline_in_effect(void **state)
{
	int64_t timeout = 5 * CTXFD_MSEC;

	while (!expire_with_causes(timeout))
		timeout *= 2;
}

static void expiry_goes_down_and_not_up(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout(ctxfd_background(), FAR);
	struct ctxfd *ctx = ctxfd_with_timeout(parent, CTXFD_MSEC), *sibling = ctxfd_with_cancel(parent);
	struct ctxfd *child = ctxfd_with_cancel(ctx), *grandchild = ctxfd_with_timeout(child, FAR);

	sleep_past(ctx);
	assert_expired(grandchild, -ETIMEDOUT);
	assert_expired(child, -ETIMEDOUT);
	assert_expired(ctx, -ETIMEDOUT);
	assert_live(parent);
	assert_live(sibling);
	ctxfd_close(grandchild);
	ctxfd_close(child);
	ctxfd_close(sibling);
	ctxfd_close(ctx);
	ctxfd_close(parent);
}

static void one_in_the_past_is_done_when_made(void **state)
{
	static const int64_t past[] = { INT64_MIN, INT64_MIN + 1, -1, 0, 1 };
	static const int64_t timeouts[] = { 0, -1, -CTXFD_SEC, INT64_MIN + 1, INT64_MIN };
	struct ctxfd *parent = ctxfd_with_timeout_cause(ctxfd_background(), FAR, -EPIPE);
	int64_t told;

	for (size_t i = 0; i <= COUNT(past); i++) {
		int64_t at = i < COUNT(past) ? past[i] : now();
		struct ctxfd *ctx = ctxfd_with_deadline_cause(i % 2 ? parent : ctxfd_background(), at, -ENETDOWN);

		assert_expired(ctx, -ENETDOWN);
		assert_true(ctxfd_deadline(ctx, &told) && told == at);
		assert_true(ctxfd_remaining(ctx) == 0);
		assert_readable(ctxfd_done_fd(ctx));
		ctxfd_close(ctx);
		ctx = ctxfd_with_deadline(parent, at);
		assert_expired(ctx, -ETIMEDOUT);
		ctxfd_unref(ctx);
	}
	for (size_t i = 0; i < COUNT(timeouts); i++) {
		struct ctxfd *ctx =
		        ctxfd_with_timeout_cause(i % 2 ? parent : ctxfd_background(), timeouts[i], -ENETDOWN);

		assert_expired(ctx, -ENETDOWN);
		assert_true(ctxfd_remaining(ctx) == 0);
		assert_readable(ctxfd_done_fd(ctx));
		ctxfd_close(ctx);
		ctx = ctxfd_with_timeout(parent, timeouts[i]);
		assert_expired(ctx, -ETIMEDOUT);
		ctxfd_unref(ctx);
	}
	ctxfd_close(parent);
}

static void none_at_all(void **state)
{
	struct ctxfd *ctx[] = {
		ctxfd_with_deadline(ctxfd_background(), INT64_MAX),
		ctxfd_with_deadline_cause(ctxfd_background(), INT64_MAX, -EPIPE),
		ctxfd_with_timeout(ctxfd_background(), INT64_MAX),
		ctxfd_with_timeout(ctxfd_background(), INT64_MAX - 1),
		ctxfd_with_timeout_cause(ctxfd_background(), INT64_MAX - now() + CTXFD_SEC, -EPIPE),
	};

	for (size_t i = 0; i < COUNT(ctx); i++) {
		assert_false(ctxfd_deadline(ctx[i], NULL));
		assert_true(ctxfd_remaining(ctx[i]) == INT64_MAX);
		assert_live(ctx[i]);
		assert_not_readable(ctxfd_done_fd(ctx[i]));
		ctxfd_cancel(ctx[i]);
		assert_int_equal(ctxfd_cause(ctx[i]), -ECANCELED);
		assert_readable(ctxfd_done_fd(ctx[i]));
		ctxfd_unref(ctx[i]);
	}
}

static void the_latest_there_is(void **state)
{
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), INT64_MAX - 1);
	int64_t told;

	assert_true(ctxfd_deadline(ctx, &told) && told == INT64_MAX - 1);
	assert_live(ctx);
	assert_int_equal(ctxfd_sleep(ctx, CTXFD_MSEC), 0);
	assert_not_readable(ctxfd_done_fd(ctx));
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	assert_readable(ctxfd_done_fd(ctx));
	ctxfd_unref(ctx);
}

/* The parent's end goes first: linking, then the clock. */
static void a_done_parent_beats_a_past_deadline(void **state)
{
	struct ctxfd *cancelled = ctxfd_with_cancel(ctxfd_background()), *ctx;
	struct ctxfd *late = ctxfd_with_timeout_cause(ctxfd_background(), CTXFD_MSEC, -EHOSTDOWN);
	int64_t told;

	ctxfd_cancel_cause(cancelled, -EPIPE);
	ctx = ctxfd_with_deadline_cause(cancelled, 1, -ENETDOWN);
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), -EPIPE);
	ctxfd_unref(ctx);
	ctx = ctxfd_with_timeout_cause(cancelled, -1, -ENETDOWN);
	assert_int_equal(ctxfd_cause(ctx), -EPIPE);
	ctxfd_unref(ctx);

	sleep_past(late); /* done, though nobody has looked */
	ctx = ctxfd_with_deadline_cause(late, 1, -ENETDOWN);
	assert_expired(ctx, -EHOSTDOWN);
	assert_true(ctxfd_deadline(ctx, &told) && told == 1);
	ctxfd_unref(ctx);
	ctx = ctxfd_with_timeout_cause(late, INT64_MIN, -ENETDOWN);
	assert_expired(ctx, -EHOSTDOWN);
	ctxfd_unref(ctx);
	ctx = ctxfd_with_timeout_cause(late, FAR, -ENETDOWN);
	assert_expired(ctx, -EHOSTDOWN);
	ctxfd_unref(ctx);
	ctxfd_unref(late);
	ctxfd_unref(cancelled);
}

static void an_expiry_is_not_cancelled_any_more(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout_cause(ctxfd_background(), CTXFD_MSEC, -ENETDOWN);

	sleep_past(ctx);
	assert_expired(ctx, -ENETDOWN);
	ctxfd_cancel_cause(ctx, -EPIPE);
	assert_expired(ctx, -ENETDOWN);
	ctxfd_close(ctx);
}

static void *linger(void *arg)
{
	const struct ctxfd *ctx = ctxfd_with_cancel(arg);
	int err = 0;

	while (!(err = ctxfd_err(ctx)))
		;
	require(err == -ETIMEDOUT && ctxfd_cause(ctx) == -ENETDOWN);
	require(ctxfd_err(arg) == -ETIMEDOUT && ctxfd_cause(arg) == -ENETDOWN);
	ctxfd_unref(ctx);
	return NULL;
}

static void threads_agree_on_it(void **state)
{
	for (int r = 0; r < rounds(100); r++) {
		struct ctxfd *ctx = ctxfd_with_timeout_cause(ctxfd_background(), CTXFD_MSEC / 2, -ENETDOWN);
		struct thread *threads[3];

		for (size_t i = 0; i < COUNT(threads); i++)
			threads[i] = thread_start(linger, ctx);
		for (size_t i = 0; i < COUNT(threads); i++)
			thread_join(threads[i]);
		ctxfd_close(ctx);
	}
}

/* A cancel and a deadline at the same time: either, and the same for everybody and for good. */
static void *cancel_at_the_deadline(void *arg)
{
	int64_t at;

	require(ctxfd_deadline(arg, &at));
	while (now() < at)
		;
	ctxfd_cancel_cause(arg, -EPIPE);
	return NULL;
}

static void a_cancel_after_the_deadline_never_wins(void **state)
{
	for (int r = 0; r < rounds(300); r++) {
		struct ctxfd *ctx = ctxfd_with_timeout_cause(ctxfd_background(), 200 * CTXFD_USEC, -ENETDOWN);
		struct ctxfd *child = ctxfd_with_cancel(ctx);
		struct thread *thread = thread_start(cancel_at_the_deadline, r % 2 ? ctx : child);

		while (!ctxfd_err(child))
			;
		assert_expired(child, -ENETDOWN);
		thread_join(thread);
		assert_expired(child, -ENETDOWN);
		assert_expired(ctx, -ENETDOWN);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(now_is_the_monotonic_clock),
		cmocka_unit_test(deadline_is_told),
		cmocka_unit_test(remaining_counts_down_to_zero),
		cmocka_unit_test(cancelling_changes_no_deadline),
		cmocka_unit_test(err_turns_when_the_clock_reaches_it),
		cmocka_unit_test(a_far_deadline_is_kept_as_exactly),
		cmocka_unit_test(a_deadline_may_pass_between_two_looks),
		cmocka_unit_test(the_earlier_one_is_in_effect),
		cmocka_unit_test(cause_comes_with_the_deadline_in_effect),
		cmocka_unit_test(expiry_goes_down_and_not_up),
		cmocka_unit_test(one_in_the_past_is_done_when_made),
		cmocka_unit_test(none_at_all),
		cmocka_unit_test(the_latest_there_is),
		cmocka_unit_test(a_done_parent_beats_a_past_deadline),
		cmocka_unit_test(an_expiry_is_not_cancelled_any_more),
		cmocka_unit_test(threads_agree_on_it),
		cmocka_unit_test(a_cancel_after_the_deadline_never_wins),
	};
	return run_all(tests);
}
