/* SPDX-License-Identifier: MIT */
/* Contexts that end some time after their parent. */
#include "loop.h"

#include <pthread.h>

#include "core/shard.h"

#define CAUSE (-4321)
#define BRIEF (5 * CTXFD_MSEC)
#define LONG  (3600 * CTXFD_SEC)

static struct ctxfd *grace_below(const struct ctxfd *parent, int64_t grace)
{
	struct ctxfd *ctx = ctxfd_with_grace(parent, grace, CAUSE);

	require(ctx);
	return ctx;
}

static struct ctxfd *make(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctx);
	return ctx;
}

static void assert_over(const struct ctxfd *ctx)
{
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(ctx), CAUSE);
}

#define ASSERT_NO_DEADLINE(ctx)                                    \
	do {                                                       \
		int64_t none;                                      \
		assert_false(ctxfd_deadline(ctx, &none));          \
		assert_int_equal(ctxfd_remaining(ctx), INT64_MAX); \
	} while (0)

static int64_t deadline_of(const struct ctxfd *ctx)
{
	int64_t at;

	require(ctxfd_deadline(ctx, &at));
	return at;
}

/* ---- When it ends ------------------------------------------------------------------------------------------------ */

static void it_counts_from_the_cancel(void **state)
{
	struct ctxfd *root = make(), *parent = ctxfd_with_cancel(root), *ctx = grace_below(parent, BRIEF);
	struct ctxfd *child = ctxfd_with_cancel(ctx);
	int64_t before, after, end;

	(void)state;
	ASSERT_NO_DEADLINE(ctx);
	ASSERT_NO_DEADLINE(child);
	before = now();
	ctxfd_cancel(root);
	after = now();
	assert_int_equal(ctxfd_err(parent), -ECANCELED);
	end = deadline_of(ctx);
	assert_between(end, before + BRIEF, after + BRIEF);
	assert_int_equal(deadline_of(child), end);
	assert_int_equal(ctxfd_wait(child), -ETIMEDOUT);
	assert_true(now() >= end);
	assert_over(child);
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_over(ctx);
	assert_int_equal(deadline_of(ctx), end);
	assert_int_equal(ctxfd_remaining(ctx), 0);
	ctxfd_unref(child);
	ctxfd_unref(ctx);
	ctxfd_unref(parent);
	ctxfd_unref(root);
}

/* However late anyone looks; and a cancel that comes later changes nothing. */
static void it_counts_from_the_deadline(void **state)
{
	int64_t deadline = now() + 100 * CTXFD_MSEC * slow(), at;
	struct ctxfd *parent = ctxfd_with_deadline(ctxfd_background(), deadline), *ctx = grace_below(parent, LONG);
	struct ctxfd *brief = grace_below(parent, BRIEF), *other = ctxfd_with_deadline(ctxfd_background(), deadline);
	struct ctxfd *asked = grace_below(other, LONG);
	bool told = ctxfd_deadline(ctx, &at);

	(void)state;
	if (now() >= deadline)
		skip_test("the machine is too slow for it");
	assert_false(told);
	pass_time(deadline - now() + 2 * BRIEF);
	assert_int_equal(deadline_of(asked), deadline + LONG);
	ctxfd_cancel(parent);
	assert_int_equal(ctxfd_err(parent), -ETIMEDOUT);
	assert_int_equal(deadline_of(ctx), deadline + LONG);
	assert_int_equal(deadline_of(asked), deadline + LONG);
	assert_int_equal(ctxfd_wait(brief), -ETIMEDOUT);
	assert_over(brief);
	assert_int_equal(deadline_of(brief), deadline + BRIEF);
	assert_true(now() >= deadline + BRIEF);
	ctxfd_close(ctx);
	ctxfd_close(brief);
	ctxfd_close(asked);
	ctxfd_unref(other);
	ctxfd_unref(parent);
}

static void a_cancel_before_the_deadline_counts(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout(ctxfd_background(), LONG), *ctx = grace_below(parent, BRIEF);
	int64_t before = now();

	(void)state;
	ASSERT_NO_DEADLINE(ctx);
	ctxfd_cancel(parent);
	assert_between(deadline_of(ctx), before + BRIEF, now() + BRIEF);
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_over(ctx);
	ctxfd_unref(ctx);
	ctxfd_unref(parent);
}

static void below_what_is_done_it_counts_from_the_call(void **state)
{
	struct ctxfd *cancelled = make(), *expired = ctxfd_with_timeout(ctxfd_background(), 1);

	(void)state;
	ctxfd_cancel(cancelled);
	pass_time(BRIEF);
	for (int i = 0; i < 2; i++) {
		int64_t before = now();
		struct ctxfd *ctx = grace_below(i ? expired : cancelled, BRIEF);

		assert_between(deadline_of(ctx), before + BRIEF, now() + BRIEF);
		assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
		assert_true(now() - before >= BRIEF);
		assert_over(ctx);
		ctxfd_unref(ctx);
	}
	ctxfd_unref(cancelled);
	ctxfd_unref(expired);
}

static void no_grace_is_none(void **state)
{
	for (int64_t grace = -1; grace <= 0; grace++) {
		struct ctxfd *parent = make(), *ctx = grace_below(parent, grace), *born;

		assert_int_equal(ctxfd_err(ctx), 0);
		ctxfd_cancel(parent);
		assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
		assert_over(ctx);
		born = grace_below(parent, grace);
		assert_over(born);
		assert_readable(ctxfd_done_fd(born));
		ctxfd_unref(born);
		ctxfd_unref(ctx);
		ctxfd_unref(parent);
	}
}

static void times_before_the_clock_began_do_no_harm(void **state)
{
	struct ctxfd *parent = ctxfd_with_deadline(ctxfd_background(), INT64_MIN), *ctx = grace_below(parent, LONG);

	(void)state;
	assert_true(deadline_of(ctx) > now());
	ctxfd_close(ctx);
	ctx = grace_below(parent, INT64_MAX);
	ASSERT_NO_DEADLINE(ctx);
	ctxfd_close(ctx);
	/* From now that is never, from the deadline it would have been long ago. */
	ctx = grace_below(parent, INT64_MAX - 1);
	ASSERT_NO_DEADLINE(ctx);
	assert_int_equal(ctxfd_sleep(ctx, 2 * BRIEF), 0);
	ctxfd_close(ctx);
	ctxfd_unref(parent);
}

static void some_never_end(void **state)
{
	struct ctxfd *parent = make(), *ctx[4];
	const struct ctxfd *loose = ctxfd_without_cancel(parent);

	(void)state;
	ctx[0] = grace_below(parent, INT64_MAX);
	ctx[1] = grace_below(parent, INT64_MAX - 1);
	ctx[2] = grace_below(ctxfd_background(), BRIEF);
	ctx[3] = grace_below(loose, BRIEF);
	ctxfd_cancel(parent);
	for (int i = 0; i < 4; i++) {
		ASSERT_NO_DEADLINE(ctx[i]);
		assert_int_equal(ctxfd_sleep(ctx[i], 2 * BRIEF), 0);
		ctxfd_cancel_cause(ctx[i], 7);
		assert_int_equal(ctxfd_err(ctx[i]), -ECANCELED);
		assert_int_equal(ctxfd_cause(ctx[i]), 7);
		ctxfd_unref(ctx[i]);
	}
	ctxfd_unref(loose);
	ctxfd_unref(parent);
}

static void a_cancel_ends_it_at_once(void **state)
{
	struct ctxfd *parent = make(), *before = grace_below(parent, LONG), *after = grace_below(parent, LONG);
	struct ctxfd *child = ctxfd_with_cancel(after);

	(void)state;
	ctxfd_cancel(before);
	assert_int_equal(ctxfd_err(before), -ECANCELED);
	assert_int_equal(ctxfd_err(parent), 0);
	ctxfd_cancel(parent);
	assert_int_equal(ctxfd_err(after), 0);
	ctxfd_cancel_cause(after, 3);
	assert_int_equal(ctxfd_err(child), -ECANCELED);
	assert_int_equal(ctxfd_cause(child), 3);
	ctxfd_unref(child);
	ctxfd_unref(before);
	ctxfd_unref(after);
	ctxfd_unref(parent);
}

/* ---- What it is made of ------------------------------------------------------------------------------------------ */

static _Atomic int given_up;

static void give_up(void *value)
{
	(void)value;
	given_up++;
}

static void it_has_the_values_of_its_parent(void **state)
{
	static int key, value;
	struct ctxfd *root = make(), *ctx, *child;
	const struct ctxfd *named = ctxfd_with_value(root, &key, &value, give_up);
	char words[100];

	(void)state;
	given_up = 0;
	ctx = grace_below(named, LONG);
	child = ctxfd_with_cancel(ctx);
	ctxfd_unref(named);
	ctxfd_cancel(root);
	ctxfd_unref(root);
	assert_ptr_equal(ctxfd_value(ctx, &key), &value);
	assert_ptr_equal(ctxfd_value(child, &key), &value);
	assert_true(ctxfd_describe(child, words, sizeof words) > 0);
	assert_non_null(strstr(words, ").with_grace.with_cancel"));
	assert_int_equal(given_up, 0);
	ctxfd_unref(child);
	ctxfd_close(ctx);
	assert_int_equal(given_up, 1);
}

static void what_is_derived_tells_the_earlier_time(void **state)
{
	struct ctxfd *parent = make(), *ctx = grace_below(parent, CTXFD_SEC), *late = ctxfd_with_timeout(ctx, LONG);
	const struct ctxfd *value = ctxfd_with_value(late, &parent, NULL, NULL);
	struct ctxfd *soon = ctxfd_with_timeout(value, BRIEF), *other = make(), *merged = ctxfd_merge(value, other);
	const struct ctxfd *loose = ctxfd_without_cancel(value);
	int64_t first = deadline_of(soon);

	(void)state;
	assert_true(deadline_of(late) > now() + LONG / 2);
	ctxfd_cancel(parent);
	assert_int_equal(deadline_of(late), deadline_of(ctx));
	assert_int_equal(deadline_of(value), deadline_of(ctx));
	assert_int_equal(deadline_of(merged), deadline_of(ctx));
	assert_int_equal(deadline_of(soon), first);
	ASSERT_NO_DEADLINE(loose);
	ctxfd_unref(loose);
	ctxfd_close(merged);
	ctxfd_close(other);
	ctxfd_close(soon);
	ctxfd_unref(value);
	ctxfd_close(late);
	ctxfd_close(ctx);
	ctxfd_unref(parent);
}

/* The second begins when the first ends, by whatever. */
static void one_grace_after_another(void **state)
{
	struct ctxfd *parent = make(), *first = grace_below(parent, BRIEF), *second = grace_below(first, BRIEF);
	struct ctxfd *third = grace_below(first, LONG);
	int64_t end;

	(void)state;
	ctxfd_cancel(parent);
	end = deadline_of(first);
	assert_int_equal(ctxfd_wait(second), -ETIMEDOUT);
	assert_over(first);
	assert_over(second);
	assert_int_equal(deadline_of(second), end + BRIEF);
	assert_true(now() >= end + BRIEF);
	assert_int_equal(deadline_of(third), end + LONG);
	ctxfd_unref(third);
	ctxfd_unref(second);
	ctxfd_unref(first);
	ctxfd_unref(parent);
}

/* What counts is when the first was over, not when its loop came to it; or the call, if that was in between. */
static void one_grace_after_another_on_a_late_loop(void **state)
{
	struct ctxfd *parent, *first, *early, *late, *cancelled, *below;
	int64_t end, before, after;

	(void)state;
	make_loop();
	parent = ctxfd_with_cancel(home);
	first = grace_below(parent, BRIEF);
	cancelled = grace_below(parent, BRIEF);
	early = grace_below(first, LONG);
	below = grace_below(cancelled, LONG);
	ctxfd_cancel(parent);
	end = deadline_of(first);
	pass_time(2 * BRIEF);
	ASSERT_NO_DEADLINE(early);
	before = now();
	late = grace_below(first, LONG);
	after = now();
	pass_time(BRIEF);
	assert_int_equal(ctxfd_err(first), 0);
	ctxfd_cancel(cancelled); /* it comes late, but before the loop */
	assert_true(deadline_of(below) >= after + LONG);
	wait_readable(ctxfd_dispatcher_fd(loop));
	assert_int_equal(run_loop(), 1);
	assert_over(first);
	assert_int_equal(deadline_of(early), end + LONG);
	assert_between(deadline_of(late), before + LONG, after + LONG);
	ctxfd_close(early);
	ctxfd_close(late);
	ctxfd_close(below);
	ctxfd_unref(cancelled);
	ctxfd_unref(first);
	ctxfd_unref(parent);
	free_loop();
}

static void below_contexts_of_all_kinds(void **state)
{
	struct ctxfd *other = make(), *parents[4];
	int pipe[2];

	(void)state;
	make_pipe(pipe);
	parents[0] = ctxfd_with_idle(ctxfd_background(), BRIEF, 0);
	parents[1] = ctxfd_with_fd(ctxfd_background(), pipe[0], POLLIN, 0);
	parents[2] = ctxfd_merge(ctxfd_background(), other);
	parents[3] = make();
	ctxfdi_split_children(parents[3]);
	for (int i = 0; i < 4; i++) {
		struct ctxfd *ctx = grace_below(parents[i], BRIEF), *one = grace_below(parents[i], LONG);
		int64_t before = now();

		if (i == 1)
			assert_int_equal(write(pipe[1], "x", 1), 1);
		else if (i > 0)
			ctxfd_cancel(i == 2 ? other : parents[i]);
		assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
		assert_true(now() - before >= BRIEF || i == 0);
		assert_true(ctxfd_err(parents[i]));
		assert_over(ctx);
		ctxfd_unref(ctx);
		ctxfd_unref(parents[i]);
		ctxfd_unref(one);
	}
	ctxfd_unref(other);
	close_pair(pipe);
}

static void a_dump_has_it_below_its_parent(void **state)
{
	struct ctxfd *parent = make(), *ctx = grace_below(parent, LONG), *child = ctxfd_with_cancel(ctx);
	char text[400] = "", expected[400];
	int pipe[2];

	(void)state;
	make_pipe(pipe);
	assert_int_equal(ctxfd_dump(parent, pipe[1]), 0);
	assert_true(read(pipe[0], text, sizeof text - 1) > 0);
	snprintf(expected, sizeof expected,
	         "with_cancel %p: live, 2 references\n"
	         "  with_grace %p: live, 1 reference\n"
	         "    with_cancel %p: live, 1 reference\n",
	         (void *)parent, (void *)ctx, (void *)child);
	assert_string_equal(text, expected);
	ctxfd_unref(child);
	child = ctxfd_with_timeout(ctx, LONG / 2); /* its own deadline is not the one that is told */
	ctxfd_cancel(parent);
	assert_int_equal(ctxfd_dump(ctx, pipe[1]), 0);
	memset(text, 0, sizeof text);
	assert_true(read(pipe[0], text, sizeof text - 1) > 0);
	assert_non_null(strstr(text, ": live, 35")); /* 3599 seconds, if not a few less */
	ctxfd_unref(child);
	ctxfd_close(ctx);
	ctxfd_unref(parent);
	close_pair(pipe);
}

/* ---- Waiting for it ---------------------------------------------------------------------------------------------- */

static void all_ways_of_waiting_hear_of_it(void **state)
{
	struct ctxfd *parent = make(), *ctx[5];
	int none[2];
	char byte;

	(void)state;
	make_socketpair(none);
	for (int i = 0; i < 5; i++)
		ctx[i] = grace_below(parent, BRIEF);
	assert_not_readable(ctxfd_done_fd(ctx[0]));
	ctxfd_cancel(parent);
	wait_readable(ctxfd_done_fd(ctx[0]));
	assert_over(ctx[0]);
	assert_int_equal(ctxfd_poll(ctx[1], NULL, 0, -1), -ETIMEDOUT);
	assert_int_equal(ctxfd_recv(ctx[2], none[0], &byte, 1, 0), -ETIMEDOUT);
	assert_int_equal(ctxfd_sleep(ctx[3], LONG), -ETIMEDOUT);
	wait_until(ctxfd_err(ctx[4]));
	assert_readable(ctxfd_done_fd(ctx[4]));
	for (int i = 0; i < 5; i++)
		ctxfd_unref(ctx[i]);
	ctxfd_unref(parent);
	close_pair(none);
}

/* It ends on the program's loop, and not before that runs. */
static void the_programs_dispatcher_ends_it(void **state)
{
	struct ctxfd *parent, *ctx;
	int fd = make_loop();
	int64_t end;

	(void)state;
	parent = ctxfd_with_cancel(home);
	ctx = grace_below(parent, BRIEF);
	assert_int_equal(run_loop(), 0);
	ctxfd_cancel(parent);
	end = deadline_of(ctx);
	wait_readable(fd);
	assert_true(now() >= end);
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(run_loop(), 1);
	assert_over(ctx);
	assert_int_equal(run_loop(), 0);
	ctxfd_unref(ctx);
	ctxfd_unref(parent);
	free_loop();
}

/* The alarm that was set for the deadline gives way to the one for the cancel. */
static void an_earlier_end_wakes_the_loop_earlier(void **state)
{
	struct ctxfd *parent, *ctx;
	int fd = make_loop();

	(void)state;
	parent = ctxfd_with_timeout(home, LONG);
	ctx = grace_below(parent, BRIEF);
	assert_int_equal(run_loop(), 0);
	ctxfd_cancel(parent);
	wait_readable(fd);
	assert_int_equal(run_loop(), 1);
	assert_over(ctx);
	ctxfd_unref(ctx);
	ctxfd_unref(parent);
	free_loop();
}

static void give_all_up(void *arg)
{
	struct ctxfd **both = arg;

	ctxfd_close(both[0]);
	ctxfd_close(both[1]);
	given_up++;
}

static void a_function_that_it_calls_may_free_it(void **state)
{
	struct ctxfd *both[2] = { make() };

	(void)state;
	given_up = 0;
	both[1] = grace_below(both[0], BRIEF);
	assert_int_equal(ctxfd_after_func(both[1], give_all_up, both, NULL), 0);
	ctxfd_cancel(both[0]);
	wait_until(given_up);
}

/* ---- Lifetimes --------------------------------------------------------------------------------------------------- */

static void whoever_goes_first(void **state)
{
	for (int i = 0; i < 8; i++) {
		struct ctxfd *parent = i & 1 ? make() : ctxfd_with_timeout(ctxfd_background(), LONG);
		struct ctxfd *ctx = grace_below(parent, LONG);

		if (i & 2)
			ctxfd_unref(parent);
		if (i & 4)
			ctxfd_close(ctx);
		if (!(i & 2))
			ctxfd_close(parent);
		if (!(i & 4))
			ctxfd_unref(ctx);
	}
}

struct race {
	struct ctxfd *parent, *ctx;
	pthread_barrier_t start;
};

static void *cancel_the_parent(void *arg)
{
	struct race *r = arg;

	pthread_barrier_wait(&r->start);
	ctxfd_close(r->parent);
	return NULL;
}

static void *give_it_up(void *arg)
{
	struct race *r = arg;

	pthread_barrier_wait(&r->start);
	(void)ctxfd_remaining(r->ctx);
	ctxfd_unref(r->ctx);
	return NULL;
}

static void a_cancel_meets_a_free(void **state)
{
	for (int i = 0; i < rounds(400); i++) {
		struct race r = { .parent = i % 2 ? make() : ctxfd_with_timeout(ctxfd_background(), i % 3) };
		struct thread *threads[2];

		pthread_barrier_init(&r.start, NULL, 2);
		r.ctx = grace_below(r.parent, i % 5 * CTXFD_USEC);
		threads[0] = thread_start(cancel_the_parent, &r);
		threads[1] = thread_start(give_it_up, &r);
		thread_join(threads[0]);
		thread_join(threads[1]);
		pthread_barrier_destroy(&r.start);
	}
}

static void refuses_nothing(void **state)
{
	errno = 0;
	assert_null(ctxfd_with_grace(NULL, BRIEF, 0));
	assert_int_equal(errno, EINVAL);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

static int ends_in_child(void *arg)
{
	struct race *r = arg;

	ctxfd_cancel(r->parent);
	require(ctxfd_wait(r->ctx) == -ETIMEDOUT);
	require(ctxfd_cause(r->ctx) == CAUSE);
	return 7;
}

/* A cancel starts the child's thread: nobody has to ask first. */
static int is_told_in_child(void *arg)
{
	struct race *r = arg;
	int fd = ctxfd_done_fd(r->ctx);

	ctxfd_cancel(r->parent);
	wait_readable(fd);
	require(ctxfd_err(r->ctx) == -ETIMEDOUT);
	return 7;
}

/* Before its parent's end, and after it. */
static void it_goes_on_in_the_child_of_a_fork(void **state)
{
	struct race r = { .parent = make() };

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip_test("the sanitizer does not follow threads that a forked child starts");
#endif
	r.ctx = grace_below(r.parent, 50 * CTXFD_MSEC);
	assert_int_equal(in_child(ends_in_child, &r), 7);
	assert_int_equal(in_child(is_told_in_child, &r), 7);
	assert_int_equal(ctxfd_err(r.parent), 0);
	ASSERT_NO_DEADLINE(r.ctx);
	ctxfd_cancel(r.parent);
	assert_int_equal(in_child(ends_in_child, &r), 7);
	assert_int_equal(ctxfd_wait(r.ctx), -ETIMEDOUT);
	ctxfd_unref(r.ctx);
	ctxfd_unref(r.parent);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_counts_from_the_cancel),
		cmocka_unit_test(it_counts_from_the_deadline),
		cmocka_unit_test(a_cancel_before_the_deadline_counts),
		cmocka_unit_test(below_what_is_done_it_counts_from_the_call),
		cmocka_unit_test(no_grace_is_none),
		cmocka_unit_test(times_before_the_clock_began_do_no_harm),
		cmocka_unit_test(some_never_end),
		cmocka_unit_test(a_cancel_ends_it_at_once),
		cmocka_unit_test(it_has_the_values_of_its_parent),
		cmocka_unit_test(what_is_derived_tells_the_earlier_time),
		cmocka_unit_test(one_grace_after_another),
		cmocka_unit_test(one_grace_after_another_on_a_late_loop),
		cmocka_unit_test(below_contexts_of_all_kinds),
		cmocka_unit_test(a_dump_has_it_below_its_parent),
		cmocka_unit_test(all_ways_of_waiting_hear_of_it),
		cmocka_unit_test(the_programs_dispatcher_ends_it),
		cmocka_unit_test(an_earlier_end_wakes_the_loop_earlier),
		cmocka_unit_test(a_function_that_it_calls_may_free_it),
		cmocka_unit_test(whoever_goes_first),
		cmocka_unit_test(a_cancel_meets_a_free),
		cmocka_unit_test(refuses_nothing),
		cmocka_unit_test(it_goes_on_in_the_child_of_a_fork),
	};

	start_dispatcher();
	return run_all(tests);
}
