/* SPDX-License-Identifier: MIT */
/*
 * After-funcs: when they run, how often, in which order, and what stopping one promises. On the library's own thread.
 */
#include "harness.h"

/* What a callback leaves behind: how often it ran, and whether it is at it. */
struct note {
	_Atomic int runs;
	_Atomic bool inside;
	_Atomic bool go; /* run_slowly returns once this is set */
	const struct ctxfd *ctx;
	int err;
	struct ctxfd_after *handle;
	bool stopped;
};

static void run(void *arg)
{
	struct note *note = arg;

	note->err = note->ctx ? ctxfd_err(note->ctx) : 0;
	note->runs++;
}

static void run_slowly(void *arg)
{
	struct note *note = arg;

	note->inside = true;
	wait_until(note->go);
	note->inside = false;
	note->runs++;
}

/* Waits until the dispatcher has run what was due when this was called. */
static void drain(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0 };

	ctxfd_cancel(ctx);
	require(ctxfd_after_func(ctx, run, &note, NULL) == 0);
	wait_until(note.runs == 1);
	ctxfd_unref(ctx);
}

static void runs_once_after_a_cancel(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .ctx = ctx };

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run, &note, &note.handle), 0);
	drain();
	assert_int_equal(note.runs, 0);
	ctxfd_cancel(ctx);
	wait_until(note.runs == 1);
	assert_int_equal(note.err, -ECANCELED);
	ctxfd_cancel(ctx);
	drain();
	assert_int_equal(note.runs, 1);
	assert_false(ctxfd_after_stop(note.handle));
	ctxfd_unref(ctx);
}

static void runs_at_the_deadline(void **state)
{
	int64_t start = now();
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 30 * CTXFD_MSEC);
	struct note note = { .ctx = ctx };

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run, &note, NULL), 0);
	wait_until(note.runs == 1);
	assert_elapsed(start, 30 * CTXFD_MSEC, 2 * CTXFD_SEC);
	assert_int_equal(note.err, -ETIMEDOUT);
	ctxfd_unref(ctx);
}

/* The timer is set for the earliest, whichever was registered first; and set again for the next. */
static void runs_at_each_deadline(void **state)
{
	static const int ms[] = { 60, 20, 40, 20, 80 };
	struct ctxfd *ctx[COUNT(ms)];
	struct note note[COUNT(ms)] = { { .runs = 0 } };
	int64_t start = now();

	(void)state;
	for (size_t i = 0; i < COUNT(ms); i++) {
		ctx[i] = ctxfd_with_deadline(ctxfd_background(), start + ms[i] * CTXFD_MSEC);
		note[i].ctx = ctx[i];
		assert_int_equal(ctxfd_after_func(ctx[i], run, &note[i], NULL), 0);
	}
	for (size_t i = 0; i < COUNT(ms); i++) {
		wait_until(note[i].runs == 1);
		assert_true(now() >= start + ms[i] * CTXFD_MSEC);
		assert_int_equal(note[i].err, -ETIMEDOUT);
		ctxfd_unref(ctx[i]);
	}
}

static void *wait_for_end(void *ctx)
{
	require(ctxfd_wait(ctx) == -ECANCELED);
	return NULL;
}

/* Beyond what a time_t of 32 bits can say, for one. */
static void a_deadline_in_centuries_is_not_now(void **state)
{
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), INT64_MAX - 1);
	struct note note = { .ctx = ctx };
	struct thread *waiter = thread_start(wait_for_end, ctx);

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run, &note, &note.handle), 0);
	thread_wait_asleep(waiter);
	assert_not_readable(ctxfd_done_fd(ctx));
	drain();
	assert_int_equal(note.runs, 0);
	ctxfd_cancel(ctx);
	thread_join(waiter);
	assert_readable(ctxfd_done_fd(ctx));
	wait_until(note.runs == 1);
	assert_false(ctxfd_after_stop(note.handle));
	ctxfd_unref(ctx);
}

static void runs_at_once_on_a_done_context(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 0);
	struct note note = { .ctx = ctx };

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run, &note, NULL), 0);
	wait_until(note.runs == 1);
	assert_int_equal(note.err, -ETIMEDOUT);
	ctxfd_unref(ctx);
}

static void runs_when_a_distant_ancestor_ends(void **state)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *child = ctxfd_with_timeout(root, 3600 * CTXFD_SEC);
	static int key;
	const struct ctxfd *value = ctxfd_with_value(child, &key, NULL, NULL);
	struct note note = { .ctx = value };

	(void)state;
	assert_int_equal(ctxfd_after_func(value, run, &note, NULL), 0);
	ctxfd_cancel(root);
	wait_until(note.runs == 1);
	assert_int_equal(note.err, -ECANCELED);
	ctxfd_unref(value);
	ctxfd_close(child);
	ctxfd_close(root);
}

/* Dropped by its owner, it lives on by its after-func, until the parent ends it. */
static void holds_its_context(void **state)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *child = ctxfd_with_cancel(root);
	struct ctxfd *timed = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	struct note note = { .ctx = child }, late = { .ctx = timed };

	(void)state;
	assert_int_equal(ctxfd_after_func(child, run, &note, NULL), 0);
	assert_int_equal(ctxfd_after_func(timed, run, &late, NULL), 0);
	ctxfd_unref(child);
	ctxfd_unref(timed);
	ctxfd_close(root);
	wait_until(note.runs == 1 && late.runs == 1);
	assert_int_equal(note.err, -ECANCELED);
	assert_int_equal(late.err, -ETIMEDOUT);
}

struct order {
	_Atomic int count;
	int seen[1000];
};

struct place {
	struct order *order;
	int number;
};

static void take_place(void *arg)
{
	struct place *place = arg;
	int i = place->order->count;

	place->order->seen[i] = place->number;
	place->order->count = i + 1;
}

/*
 * Among other children. False: the deadline has passed before the last one was registered. Those that come after the
 * end are due at once, and so may be before the others.
 */
static bool register_and_run(struct ctxfd *ctx)
{
	struct order order = { .count = 0 };
	static struct place place[1000];
	bool in_time;

	for (int i = 0; i < 1000; i++) {
		struct ctxfd *other = i % 3 ? NULL : ctxfd_with_cancel(ctx);

		place[i] = (struct place){ &order, i };
		assert_int_equal(ctxfd_after_func(ctx, take_place, &place[i], NULL), 0);
		ctxfd_close(other);
	}
	in_time = ctxfd_err(ctx) == 0;
	if (!ctxfd_deadline(ctx, NULL))
		ctxfd_cancel(ctx);
	wait_until(order.count == 1000);
	for (int i = 0; in_time && i < 1000; i++)
		assert_int_equal(order.seen[i], i);
	ctxfd_unref(ctx);
	return in_time;
}

static void run_in_the_order_of_registration(void **state)
{
	int64_t timeout = slow() * 100 * CTXFD_MSEC;

	(void)state;
	assert_true(register_and_run(ctxfd_with_cancel(ctxfd_background())));
	while (!register_and_run(ctxfd_with_timeout(ctxfd_background(), timeout)))
		timeout *= 2;
}

static void note_thread(void *arg)
{
	*(pthread_t *)arg = pthread_self();
}

static void never_runs_on_the_cancelling_thread(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	pthread_t where = pthread_self();

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, note_thread, &where, NULL), 0);
	ctxfd_cancel(ctx);
	drain();
	assert_false(pthread_equal(where, pthread_self()));
	ctxfd_unref(ctx);
}

/* ---- Stopping ---------------------------------------------------------------------------------------------------- */

/* False: the deadline has passed before it was stopped. */
static bool stop_before_the_deadline(int64_t timeout)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), timeout);
	struct note note = { .runs = 0 };
	bool in_time;

	assert_int_equal(ctxfd_after_func(ctx, run, &note, &note.handle), 0);
	note.stopped = ctxfd_after_stop(note.handle);
	in_time = ctxfd_err(ctx) == 0;
	assert_true(note.stopped || !in_time);
	assert_int_equal(ctxfd_wait(ctx), -ETIMEDOUT);
	drain();
	assert_int_equal(note.runs, !note.stopped);
	ctxfd_unref(ctx);
	return in_time;
}

static void stopped_before_the_end_never_runs(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	int64_t timeout = slow() * 50 * CTXFD_MSEC;
	struct note note = { .runs = 0 };
	struct ctxfd_after *a, *b;

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run, &note, &a), 0);
	assert_int_equal(ctxfd_after_func(ctxfd_background(), run, &note, &b), 0);
	assert_true(ctxfd_after_stop(a));
	assert_true(ctxfd_after_stop(b));
	ctxfd_cancel(ctx);
	drain();
	assert_int_equal(note.runs, 0);
	assert_false(ctxfd_after_stop(NULL));
	ctxfd_unref(ctx);
	while (!stop_before_the_deadline(timeout))
		timeout *= 2;
}

/* Due, but the dispatcher has not come to it: stopping still wins. */
static void stopped_while_it_queues_never_runs(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note slow_one = { .runs = 0 }, note = { .runs = 0 };

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run_slowly, &slow_one, NULL), 0);
	assert_int_equal(ctxfd_after_func(ctx, run, &note, &note.handle), 0);
	ctxfd_cancel(ctx);
	wait_until(slow_one.inside);
	assert_true(ctxfd_after_stop(note.handle));
	slow_one.go = true;
	drain();
	assert_int_equal(slow_one.runs, 1);
	assert_int_equal(note.runs, 0);
	ctxfd_unref(ctx);
}

static void *stop(void *arg)
{
	struct note *note = arg;

	note->stopped = ctxfd_after_stop(note->handle);
	return NULL;
}

static void stopping_waits_for_one_that_runs(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .runs = 0, .stopped = true };
	struct thread *stopper;

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, run_slowly, &note, &note.handle), 0);
	ctxfd_cancel(ctx);
	wait_until(note.inside);
	stopper = thread_start(stop, &note);
	thread_wait_asleep_in(stopper, SYS_futex);
	assert_int_equal(note.runs, 0);
	note.go = true;
	thread_join(stopper);
	assert_int_equal(note.runs, 1);
	assert_false(note.stopped);
	ctxfd_unref(ctx);
}

static void stop_own(void *arg)
{
	struct note *note = arg;

	note->stopped = ctxfd_after_stop(note->handle);
	note->runs++;
}

static void may_stop_itself(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note note = { .stopped = true };

	(void)state;
	assert_int_equal(ctxfd_after_func(ctx, stop_own, &note, &note.handle), 0);
	ctxfd_cancel(ctx);
	wait_until(note.runs == 1);
	assert_false(note.stopped);
	ctxfd_unref(ctx);
	drain();
}

/* ---- What a callback may do -------------------------------------------------------------------------------------- */

struct busy {
	struct ctxfd *own, *other;
	struct note again, due;
	_Atomic bool done;
	int derived;
};

static void use_everything(void *arg)
{
	struct busy *busy = arg;
	struct ctxfd *child = ctxfd_with_cancel(busy->own);

	busy->derived = ctxfd_err(child);
	ctxfd_close(child);
	require(ctxfd_after_func(busy->own, run, &busy->again, NULL) == 0);
	require(ctxfd_after_func(busy->other, run, &busy->due, NULL) == 0);
	ctxfd_cancel(busy->own);
	ctxfd_close(busy->other);
	ctxfd_unref(busy->own);
	busy->done = true;
}

static void a_callback_may_use_any_context(void **state)
{
	struct busy busy = { .own = ctxfd_with_cancel(ctxfd_background()) };

	(void)state;
	busy.other = ctxfd_with_cancel(busy.own);
	ctxfd_ref(busy.other);
	ctxfd_ref(busy.own);
	assert_int_equal(ctxfd_after_func(busy.own, use_everything, &busy, NULL), 0);
	ctxfd_cancel(busy.own);
	wait_until(busy.done && busy.again.runs && busy.due.runs);
	assert_int_equal(busy.derived, -ECANCELED);
	ctxfd_unref(busy.other);
	ctxfd_unref(busy.own);
	drain();
}

static void counted(void *value)
{
	++*(_Atomic int *)value;
}

/* The after-func is the last that keeps a value: its destructor runs when the after-func is gone, on the dispatcher. */
static void the_last_after_func_frees_values(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	static int key;
	_Atomic int destroyed = 0;
	const struct ctxfd *value = ctxfd_with_value(ctx, &key, &destroyed, counted);
	struct note note = { .runs = 0 };

	(void)state;
	assert_int_equal(ctxfd_after_func(value, run, &note, NULL), 0);
	ctxfd_unref(value);
	assert_int_equal(destroyed, 0);
	ctxfd_close(ctx);
	wait_until(destroyed == 1);
	assert_int_equal(note.runs, 1);
}

/* ---- Bad input and no memory ------------------------------------------------------------------------------------- */

static void bad_arguments(void **state)
{
	struct ctxfd_after *handle = (struct ctxfd_after *)(void *)state; /* anything but NULL */

	assert_int_equal(ctxfd_after_func(NULL, run, NULL, &handle), -EINVAL);
	assert_int_equal(ctxfd_after_func(ctxfd_background(), NULL, NULL, &handle), -EINVAL);
	assert_ptr_equal(handle, (void *)state);
}

/* On a context with a deadline the first after-func takes memory twice, any further one once. */
static void no_memory(void **state)
{
	struct ctxfd_after *handle = (struct ctxfd_after *)(void *)state; /* anything but NULL */
	struct ctxfd *plain = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *timed = ctxfd_with_timeout(plain, 3600 * CTXFD_SEC);
	struct {
		struct ctxfd *ctx;
		int nth;
	} all[] = { { plain, 1 }, { timed, 1 }, { timed, 2 }, { timed, 1 } };
	struct note note = { .runs = 0 };

	for (size_t i = 0; i < COUNT(all); i++) {
		fail_allocation(all[i].nth);
		assert_int_equal(ctxfd_after_func(all[i].ctx, run, &note, &handle), -ENOMEM);
		assert_true(allocation_failed());
		assert_ptr_equal(handle, (void *)state);
	}
	fail_allocation(0);
	ctxfd_close(plain);
	ctxfd_close(timed);
	drain();
	assert_int_equal(note.runs, 0);
}

/* Where a deadline cannot end anything any more the dispatcher need not know of it. */
static void an_ended_context_takes_memory_once(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	struct note note = { .runs = 0 };
	struct ctxfd_after *handle;

	(void)state;
	ctxfd_cancel(ctx);
	fail_allocation(2);
	assert_int_equal(ctxfd_after_func(ctx, run, &note, &handle), 0);
	assert_false(allocation_failed());
	fail_allocation(0);
	wait_until(note.runs == 1);
	ctxfd_after_stop(handle);
	ctxfd_unref(ctx);
}

/* Registering and stopping cost no fd, and after the first time no thread. */
static void costs_no_fd(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	int fds = count_fds(), threads = count_threads();
	struct ctxfd_after *handle[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(ctxfd_after_func(ctx, run, NULL, &handle[i]), 0);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_threads(), threads);
	for (int i = 0; i < 100; i++)
		assert_true(ctxfd_after_stop(handle[i * 37 % 100]));
	ctxfd_close(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_once_after_a_cancel),
		cmocka_unit_test(runs_at_the_deadline),
		cmocka_unit_test(runs_at_each_deadline),
		cmocka_unit_test(a_deadline_in_centuries_is_not_now),
		cmocka_unit_test(runs_at_once_on_a_done_context),
		cmocka_unit_test(runs_when_a_distant_ancestor_ends),
		cmocka_unit_test(holds_its_context),
		cmocka_unit_test(run_in_the_order_of_registration),
		cmocka_unit_test(never_runs_on_the_cancelling_thread),
		cmocka_unit_test(stopped_before_the_end_never_runs),
		cmocka_unit_test(stopped_while_it_queues_never_runs),
		cmocka_unit_test(stopping_waits_for_one_that_runs),
		cmocka_unit_test(may_stop_itself),
		cmocka_unit_test(a_callback_may_use_any_context),
		cmocka_unit_test(the_last_after_func_frees_values),
		cmocka_unit_test(bad_arguments),
		cmocka_unit_test(no_memory),
		cmocka_unit_test(an_ended_context_takes_memory_once),
		cmocka_unit_test(costs_no_fd),
	};

	start_dispatcher();
	return run_all(tests);
}
