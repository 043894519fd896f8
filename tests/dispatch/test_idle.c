/* SPDX-License-Identifier: MIT */
/* Contexts that end once nobody has touched them for some time. */
#include "stop.h"

#define CAUSE (-4321)
#define BRIEF (5 * CTXFD_MSEC)
#define LONG  (3600 * CTXFD_SEC)

static struct ctxfd *idle_below(const struct ctxfd *parent, int64_t timeout, int cause)
{
	struct ctxfd *ctx = ctxfd_with_idle(parent, timeout, cause);

	assert_non_null(ctx);
	return ctx;
}

static struct ctxfd *idle(int64_t timeout, int cause)
{
	return idle_below(ctxfd_background(), timeout, cause);
}

static void assert_idle(const struct ctxfd *ctx, int cause)
{
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	assert_int_equal(ctxfd_cause(ctx), cause);
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

static void ends_when_nobody_touches_it(void **state)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background()), *ctx, *child;
	int64_t start = now();

	(void)state;
	ctx = idle_below(parent, BRIEF, CAUSE);
	child = ctxfd_with_cancel(ctx);
	assert_int_equal(ctxfd_wait(child), -ETIMEDOUT);
	assert_elapsed(start, BRIEF, CTXFD_SEC);
	assert_idle(child, CAUSE);
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_idle(ctx, CAUSE);
	assert_int_equal(ctxfd_err(parent), 0);
	ctxfd_unref(child);
	ctxfd_unref(ctx);
	ctxfd_close(parent);
}

static void without_a_cause_it_is_the_err(void **state)
{
	struct ctxfd *ctx = idle(1, 0);

	(void)state;
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_idle(ctx, -ETIMEDOUT);
	ctxfd_close(ctx);
}

static void all_ways_of_waiting_hear_of_it(void **state)
{
	struct ctxfd *ctx[5];
	int none[2], fd;
	char byte;

	(void)state;
	make_socketpair(none);
	for (int i = 0; i < 5; i++)
		ctx[i] = idle(BRIEF, CAUSE);
	fd = ctxfd_done_fd(ctx[0]);
	wait_readable(fd);
	assert_idle(ctx[0], CAUSE);
	assert_int_equal(ctxfd_poll(ctx[1], NULL, 0, -1), -ETIMEDOUT);
	assert_int_equal(ctxfd_recv(ctx[2], none[0], &byte, 1, 0), -ETIMEDOUT);
	assert_int_equal(ctxfd_sleep(ctx[3], LONG), -ETIMEDOUT);
	wait_until(ctxfd_err(ctx[4]));
	assert_readable(ctxfd_done_fd(ctx[4]));
	for (int i = 0; i < 5; i++)
		ctxfd_close(ctx[i]);
	close_pair(none);
}

/* With a deadline above it the done fd is a timerfd. */
static void ends_before_a_later_deadline(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout(ctxfd_background(), LONG), *ctx = idle_below(parent, BRIEF, CAUSE);

	(void)state;
	wait_readable(ctxfd_done_fd(ctx));
	assert_idle(ctx, CAUSE);
	assert_int_equal(ctxfd_err(parent), 0);
	ctxfd_close(ctx);
	ctxfd_close(parent);
}

static void an_earlier_end_stands(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout_cause(ctxfd_background(), 1, -7);
	struct ctxfd *late = idle_below(parent, LONG, CAUSE), *cancelled, *below;

	(void)state;
	require(make_loop() >= 0);
	assert_int_equal(ctxfd_wait(late), -ETIMEDOUT);
	assert_idle(late, -7);
	cancelled = idle_below(home, 1, CAUSE);
	below = idle_below(cancelled, 1, CAUSE);
	ctxfd_cancel_cause(cancelled, -8);
	pass_time(CTXFD_USEC);
	assert_int_equal(run_loop(), 0);
	assert_int_equal(ctxfd_err(cancelled), -ECANCELED);
	assert_int_equal(ctxfd_cause(cancelled), -8);
	assert_int_equal(ctxfd_cause(below), -8);
	ctxfd_touch(cancelled);
	assert_int_equal(ctxfd_cause(cancelled), -8);
	ctxfd_unref(below);
	ctxfd_unref(cancelled);
	ctxfd_close(late);
	ctxfd_close(parent);
	free_loop();
}

static void timeouts_at_the_limits(void **state)
{
	static const int64_t none[] = { INT64_MAX, INT64_MAX - 1, INT64_MAX - CTXFD_SEC },
	                     over[] = { 0, -1, INT64_MIN };
	int threads = count_threads();
	struct ctxfd *ctx;

	(void)state;
	for (size_t i = 0; i < COUNT(none); i++) {
		ctx = idle(none[i], CAUSE);
		ctxfd_touch(ctx);
		assert_int_equal(ctxfd_err(ctx), 0);
		assert_int_equal(ctxfd_remaining(ctx), INT64_MAX);
		ctxfd_close(ctx);
	}
	for (size_t i = 0; i < COUNT(over); i++) {
		ctx = idle(over[i], CAUSE);
		assert_idle(ctx, CAUSE);
		assert_readable(ctxfd_done_fd(ctx));
		ctxfd_touch(ctx);
		assert_idle(ctx, CAUSE);
		assert_false(ctxfd_deadline(ctx, NULL));
		ctxfd_close(ctx);
	}
	assert_int_equal(count_threads(), threads);
	/* The first alarm does not overflow the clock, and that of a later touch does. */
	ctx = idle(INT64_MAX - now() - 1000 * CTXFD_SEC, CAUSE);
	ctxfd_touch(ctx);
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_close(ctx);
}

static void a_done_parent_s_end_comes_first(void **state)
{
	struct ctxfd *cancelled = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *expired = ctxfd_with_timeout_cause(ctxfd_background(), 1, -6);
	static const int64_t timeouts[] = { 0, 1, LONG, INT64_MAX };

	(void)state;
	ctxfd_cancel_cause(cancelled, -5);
	pass_time(CTXFD_USEC);
	for (size_t i = 0; i < COUNT(timeouts); i++) {
		struct ctxfd *a = idle_below(cancelled, timeouts[i], CAUSE);
		struct ctxfd *b = idle_below(expired, timeouts[i], CAUSE);

		assert_int_equal(ctxfd_err(a), -ECANCELED);
		assert_int_equal(ctxfd_cause(a), -5);
		assert_idle(b, -6);
		ctxfd_touch(a);
		ctxfd_touch(b);
		assert_int_equal(ctxfd_cause(a), -5);
		ctxfd_close(a);
		ctxfd_close(b);
	}
	ctxfd_close(cancelled);
	ctxfd_close(expired);
}

static void tells_of_no_deadline(void **state)
{
	struct ctxfd *ctx = idle(LONG, CAUSE), *parent = ctxfd_with_timeout(ctxfd_background(), LONG);
	struct ctxfd *below = idle_below(parent, CTXFD_SEC, 0);
	int64_t deadline = 17, above = 0;
	char text[80];

	(void)state;
	assert_false(ctxfd_deadline(ctx, &deadline));
	assert_int_equal(deadline, 17);
	assert_int_equal(ctxfd_remaining(ctx), INT64_MAX);
	assert_true(ctxfd_deadline(below, &deadline) && ctxfd_deadline(parent, &above));
	assert_int_equal(deadline, above);
	assert_true(ctxfd_describe(ctx, text, sizeof text) > 0);
	assert_string_equal(text, "background.with_idle");
	ctxfd_close(ctx);
	ctxfd_close(below);
	ctxfd_close(parent);
}

static void a_null_parent_is_invalid(void **state)
{
	static const int64_t timeouts[] = { 0, 1, INT64_MAX };

	(void)state;
	for (size_t i = 0; i < COUNT(timeouts); i++) {
		errno = 0;
		assert_null(ctxfd_with_idle(NULL, timeouts[i], 0));
		assert_int_equal(errno, EINVAL);
	}
}

static void what_is_derived_ends_with_it(void **state)
{
	static const char key;
	struct ctxfd *ctx = idle(BRIEF, CAUSE), *other = ctxfd_with_cancel(ctxfd_background());
	const struct ctxfd *value = ctxfd_with_value(ctx, &key, &ctx, NULL), *apart = ctxfd_without_cancel(value);
	struct ctxfd *first = ctxfd_merge(value, other), *second = ctxfd_merge(other, ctx), *late;

	(void)state;
	assert_int_equal(ctxfd_wait(first), -ETIMEDOUT);
	assert_idle(first, CAUSE);
	assert_int_equal(ctxfd_wait(second), -ETIMEDOUT);
	assert_idle(second, CAUSE);
	assert_int_equal(ctxfd_wait(value), -ETIMEDOUT);
	assert_idle(value, CAUSE);
	assert_int_equal(ctxfd_err(apart), 0);
	assert_ptr_equal(ctxfd_value(apart, &key), &ctx);
	late = ctxfd_merge(other, ctx);
	assert_idle(late, CAUSE);
	ctxfd_close(late);
	late = ctxfd_with_cancel(value);
	assert_idle(late, CAUSE);
	ctxfd_close(late);
	ctxfd_close(first);
	ctxfd_close(second);
	ctxfd_unref(apart);
	ctxfd_unref(value);
	ctxfd_close(ctx);
	ctxfd_close(other);
}

/* ---- Touching ---------------------------------------------------------------------------------------------------- */

/*
 * How often it was touched and live after that. Where we do not get the CPU for so long it may end, but after that time
 * only.
 */
static int touch_again_and_again(void)
{
	int64_t before, last = now(), until = last + 20 * BRIEF;
	struct ctxfd *ctx = idle(2 * BRIEF, CAUSE);
	int touches = 0;

	while (now() < until) {
		before = now();
		ctxfd_touch(ctx);
		if (ctxfd_err(ctx))
			break;
		last = before;
		touches++;
	}
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	assert_elapsed(last, 2 * BRIEF, CTXFD_SEC);
	ctxfd_close(ctx);
	return touches;
}

static void each_touch_begins_it_anew(void **state)
{
	(void)state;
	wait_until(touch_again_and_again() > 0);
}

/* Nobody has run the dispatcher yet, so it is live, and touched. */
static void a_late_touch_counts(void **state)
{
	int64_t touched;
	struct ctxfd *ctx;
	int fd = make_loop();

	(void)state;
	ctx = idle_below(home, BRIEF, CAUSE);
	pass_time(2 * BRIEF);
	wait_readable(fd); /* the alarm has rung */
	assert_int_equal(ctxfd_err(ctx), 0);
	touched = now();
	ctxfd_touch(ctx);
	do {
		int ended = run_loop();

		assert_int_equal(ended, ctxfd_err(ctx) ? 1 : 0);
		if (!ended)
			wait_readable(fd);
	} while (!ctxfd_err(ctx));
	assert_elapsed(touched, BRIEF, CTXFD_SEC);
	assert_idle(ctx, CAUSE);
	ctxfd_close(ctx);
	free_loop();
}

/* A touch sets no alarm. What rings is the first one, and then one for the last touch. */
static void the_alarm_is_set_anew_when_it_rings(void **state)
{
	int fd = make_loop(), rings = 0;
	int64_t start = now();
	struct ctxfd *ctx = idle_below(home, 2 * BRIEF, CAUSE);

	(void)state;
	do
		ctxfd_touch(ctx);
	while (now() < start + BRIEF);
	assert_true(!readable(fd) || now() >= start + 2 * BRIEF);
	for (; !ctxfd_err(ctx); rings++) {
		wait_readable(fd);
		run_loop();
	}
	assert_between(rings, 1, 2);
	ctxfd_close(ctx);
	free_loop();
}

static void ancestors_are_not_touched(void **state)
{
	struct ctxfd *outer = idle(2 * BRIEF, CAUSE), *inner = idle_below(outer, LONG, -1);

	(void)state;
	while (!ctxfd_err(outer))
		ctxfd_touch(inner);
	assert_idle(inner, CAUSE);
	ctxfd_close(inner);
	ctxfd_close(outer);
}

static struct ctxfd *anyway(const struct ctxfd *ctx)
{
	return (struct ctxfd *)(uintptr_t)ctx;
}

/* They would keep it from ending for as long as the test has. */
static void nothing_else_can_be_touched(void **state)
{
	static const char key;
	struct ctxfd *ctx = idle(2 * BRIEF, CAUSE), *child = ctxfd_with_cancel(ctx), *timed;
	const struct ctxfd *value = ctxfd_with_value(ctx, &key, NULL, NULL);

	(void)state;
	timed = ctxfd_with_timeout(value, LONG);
	while (!ctxfd_err(ctx)) {
		ctxfd_touch(NULL);
		ctxfd_touch(anyway(value));
		ctxfd_touch(child);
		ctxfd_touch(timed);
		ctxfd_touch(anyway(ctxfd_background()));
	}
	assert_idle(ctx, CAUSE);
	ctxfd_close(timed);
	ctxfd_unref(value);
	ctxfd_close(child);
	ctxfd_close(ctx);
}

/* Others touch, and somebody else sees it live: it lives for so long from there. */
struct touched {
	struct ctxfd *ctx;
	_Atomic int64_t last; /* read before a touch after which it was live */
	_Atomic bool enough;
};

static void *touch_often(void *arg)
{
	struct touched *t = arg;

	while (!t->enough) {
		int64_t before = now(), last = t->last;

		ctxfd_touch(t->ctx);
		if (ctxfd_err(t->ctx))
			break;
		while (last < before && !atomic_compare_exchange_weak(&t->last, &last, before))
			continue;
	}
	return NULL;
}

static void many_threads_touch(void **state)
{
	struct thread *threads[3];

	(void)state;
	for (int round = rounds(20); round > 0; round--) {
		/* So short that a touch and the end often meet. */
		int64_t timeout = (1 + round % 4 * 25) * CTXFD_USEC;
		struct touched t = { .ctx = idle(timeout, CAUSE), .last = 0 };

		for (size_t i = 0; i < COUNT(threads); i++)
			threads[i] = thread_start(touch_often, &t);
		pass_time(BRIEF);
		t.enough = true;
		ctxfd_wait(t.ctx);
		assert_true(now() >= t.last + timeout);
		for (size_t i = 0; i < COUNT(threads); i++)
			thread_join(threads[i]);
		ctxfd_close(t.ctx);
	}
}

static void *touch(void *ctx)
{
	ctxfd_touch(ctx);
	return (void *)(intptr_t)ctxfd_err(ctx);
}

/*
 * The dispatcher is at the child's done fd, so ctx is about to end, and live. Who touches it is not told that it lives.
 */
static void a_touch_waits_for_an_end_that_is_under_way(void **state)
{
	struct thread *dispatcher, *toucher;
	struct ctxfd *ctx, *child;
	int fd = make_loop();

	(void)state;
	ctx = idle_below(home, 1, CAUSE);
	child = ctxfd_with_cancel(ctx);
	stop_at[0] = ctxfd_done_fd(child);
	wait_readable(fd);
	dispatcher = thread_start(run_loop_once, NULL);
	wait_for(&there);
	assert_int_equal(ctxfd_err(ctx), 0);
	toucher = thread_start(touch, ctx);
	thread_wait_asleep(toucher);
	assert_int_equal(sem_post(&go), 0);
	assert_int_equal((intptr_t)thread_join(toucher), -ETIMEDOUT);
	assert_int_equal((intptr_t)thread_join(dispatcher), 1);
	assert_idle(ctx, CAUSE);
	ctxfd_close(child);
	ctxfd_close(ctx);
	free_loop();
}

/* ---- Dispatchers, and the end of contexts ------------------------------------------------------------------------ */

static void its_dispatcher_ends_it(void **state)
{
	int fd = make_loop();
	struct ctxfd *ctx[2], *of_library;

	(void)state;
	for (int i = 0; i < 2; i++)
		ctx[i] = idle_below(home, BRIEF, CAUSE);
	of_library = idle(BRIEF, CAUSE);
	assert_int_equal(ctxfd_wait(of_library), -ETIMEDOUT);
	wait_readable(fd);
	pass_time(BRIEF);
	assert_int_equal(ctxfd_err(ctx[0]), 0);
	assert_int_equal(ctxfd_err(ctx[1]), 0);
	assert_int_equal(run_loop(), 2);
	assert_idle(ctx[0], CAUSE);
	assert_idle(ctx[1], CAUSE);
	assert_int_equal(run_loop(), 0);
	assert_not_readable(fd);
	for (int i = 0; i < 2; i++)
		ctxfd_close(ctx[i]);
	ctxfd_close(of_library);
	free_loop();
}

static void nobody_runs_its_dispatcher(void **state)
{
	struct ctxfd *ctx;

	(void)state;
	make_loop();
	ctx = idle_below(home, 1, CAUSE);
	free_loop();
	pass_time(BRIEF);
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_touch(ctx);
	ctxfd_cancel_cause(ctx, -3);
	assert_int_equal(ctxfd_cause(ctx), -3);
	ctxfd_unref(ctx);
}

struct visit {
	struct ctxfd *ctx;
	void (*does)(struct ctxfd *ctx);
	_Atomic int err;
};

static void visit(void *arg)
{
	struct visit *v = arg;

	v->does(v->ctx);
	v->err = ctxfd_err(v->ctx);
}

static void close_it(struct ctxfd *ctx)
{
	ctxfd_ref(ctx);
	ctxfd_close(ctx);
}

static void derive(struct ctxfd *ctx)
{
	struct ctxfd *late = ctxfd_with_idle(ctx, LONG, -1);

	ctxfd_touch(late);
	ctxfd_close(late);
}

static void after_funcs_may_do_anything_with_it(void **state)
{
	void (*const does[])(struct ctxfd * ctx) = { ctxfd_touch, ctxfd_cancel, close_it, derive };

	(void)state;
	for (size_t i = 0; i < COUNT(does); i++) {
		struct visit v = { .ctx = idle(BRIEF, CAUSE), .does = does[i] };

		assert_int_equal(ctxfd_after_func(v.ctx, visit, &v, NULL), 0);
		if (i % 2)
			ctxfd_unref(v.ctx); /* the registration keeps it */
		wait_until(v.err);
		assert_int_equal(v.err, -ETIMEDOUT);
		if (i % 2 == 0)
			ctxfd_unref(v.ctx);
	}
}

static void is_given_up_before_its_alarm(void **state)
{
	int fd = make_loop();
	struct ctxfd *ctx[3], *child;

	(void)state;
	for (int i = 0; i < 3; i++)
		ctx[i] = idle_below(home, BRIEF, CAUSE);
	child = ctxfd_with_cancel(ctx[0]);
	ctxfd_unref(ctx[0]); /* the child keeps it, and ends with it */
	ctxfd_unref(ctx[1]);
	ctxfd_close(ctx[2]);
	wait_readable(fd);
	wait_until(run_loop() == 1);
	assert_idle(child, CAUSE);
	ctxfd_unref(child);
	free_loop();
}

/* Many at once, whose ends come in the order of their touches. */
static void a_crowd(void **state)
{
	enum { MANY = 500 };
	struct ctxfd *ctx[MANY];
	int64_t touched[MANY];
	int fd = make_loop(), ended = 0;

	(void)state;
	for (int i = 0; i < MANY; i++)
		ctx[i] = idle_below(home, BRIEF, i + 1);
	for (int i = MANY - 1; i >= 0; i--) {
		touched[i] = now();
		ctxfd_touch(ctx[i]);
	}
	while (ended < MANY) {
		int64_t before;

		wait_readable(fd);
		ended += run_loop();
		before = now();
		for (int i = 0; i < MANY; i++)
			assert_true(!ctxfd_err(ctx[i]) || touched[i] + BRIEF <= before);
	}
	for (int i = 0; i < MANY; i++) {
		assert_idle(ctx[i], i + 1);
		ctxfd_close(ctx[i]);
	}
	free_loop();
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

struct inherited {
	struct ctxfd *ctx;
	int64_t touched;
	bool on_loop;
};

/* With the time of the last touch; and the parent's ends as if there were no child. */
static int goes_on_in_a_child(void *arg)
{
	const struct inherited *p = arg;

	while (ctxfd_err(p->ctx) == 0)
		require(!p->on_loop || run_loop() >= 0);
	require(now() >= p->touched + BRIEF);
	require(ctxfd_err(p->ctx) == -ETIMEDOUT && ctxfd_cause(p->ctx) == CAUSE);
	ctxfd_unref(p->ctx);
	return 0;
}

static void fork_and_end(bool on_loop)
{
	struct inherited p = { .on_loop = on_loop };

	make_loop();
	p.ctx = idle_below(on_loop ? home : ctxfd_background(), BRIEF, CAUSE);
	p.touched = now();
	ctxfd_touch(p.ctx);
	if (ctxfd_err(p.ctx) == 0)
		assert_int_equal(in_child(goes_on_in_a_child, &p), 0);
	while (ctxfd_err(p.ctx) == 0)
		assert_true(run_loop() >= 0);
	assert_idle(p.ctx, CAUSE);
	ctxfd_unref(p.ctx);
	free_loop();
}

static void goes_on_after_a_fork(void **state)
{
	(void)state;
	fork_and_end(false);
	fork_and_end(true);
}

/* ---- Running out ------------------------------------------------------------------------------------------------- */

static void no_memory_is_an_error(void **state)
{
	(void)state;
	for (int64_t timeout = 0; timeout < 2; timeout++) {
		fail_allocation(1);
		errno = 0;
		assert_null(ctxfd_with_idle(ctxfd_background(), timeout, CAUSE));
		assert_int_equal(errno, ENOMEM);
		assert_true(allocation_failed());
	}
}

/* A child of a fork has no library's thread yet. */
static int starts_the_thread(void *arg)
{
	struct ctxfd *ctx;

	exhaust_fds();
	ctx = ctxfd_with_idle(ctxfd_background(), 0, CAUSE);
	require(ctx && ctxfd_err(ctx) == -ETIMEDOUT);
	ctxfd_close(ctx);
	ctx = ctxfd_with_idle(ctxfd_background(), INT64_MAX, CAUSE);
	require(ctx && ctxfd_err(ctx) == 0);
	ctxfd_close(ctx);
	require(!ctxfd_with_idle(ctxfd_background(), 1, CAUSE) && errno == EMFILE);
	free_fds();
	ctx = ctxfd_with_idle(ctxfd_background(), 1, CAUSE);
	require(ctx && ctxfd_wait(ctx) == -ETIMEDOUT);
	ctxfd_close(ctx);
	return 0;
}
IN_CHILD(starts_the_thread)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_when_nobody_touches_it),
		cmocka_unit_test(without_a_cause_it_is_the_err),
		cmocka_unit_test(all_ways_of_waiting_hear_of_it),
		cmocka_unit_test(ends_before_a_later_deadline),
		cmocka_unit_test(an_earlier_end_stands),
		cmocka_unit_test(timeouts_at_the_limits),
		cmocka_unit_test(a_done_parent_s_end_comes_first),
		cmocka_unit_test(tells_of_no_deadline),
		cmocka_unit_test(a_null_parent_is_invalid),
		cmocka_unit_test(what_is_derived_ends_with_it),
		cmocka_unit_test(each_touch_begins_it_anew),
		cmocka_unit_test(a_late_touch_counts),
		cmocka_unit_test(the_alarm_is_set_anew_when_it_rings),
		cmocka_unit_test(ancestors_are_not_touched),
		cmocka_unit_test(nothing_else_can_be_touched),
		cmocka_unit_test(many_threads_touch),
		cmocka_unit_test(a_touch_waits_for_an_end_that_is_under_way),
		cmocka_unit_test(its_dispatcher_ends_it),
		cmocka_unit_test(nobody_runs_its_dispatcher),
		cmocka_unit_test(after_funcs_may_do_anything_with_it),
		cmocka_unit_test(is_given_up_before_its_alarm),
		cmocka_unit_test(a_crowd),
		cmocka_unit_test(goes_on_after_a_fork),
		cmocka_unit_test(no_memory_is_an_error),
		cmocka_unit_test(starts_the_thread_),
	};

	make_stop();
	start_dispatcher();
	make_waiter();
	return run_all(tests);
}
