/* SPDX-License-Identifier: MIT */
/* Waiting and sleeping, which need no fd: who wakes, when, and that nobody sleeps on. */
#include "harness.h"
#include "race.h"
#include "ticks.h"

#define FAR (3600 * CTXFD_SEC)

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static void *wait_for_it(void *arg)
{
	return (void *)(intptr_t)ctxfd_wait(arg);
}

static void *sleep_on_it(void *arg)
{
	return (void *)(intptr_t)ctxfd_sleep(arg, FAR);
}

static void *sleep_for_ever(void *arg)
{
	return (void *)(intptr_t)ctxfd_sleep(arg, INT64_MAX);
}

static void *(*const waits[])(void *) = { wait_for_it, sleep_on_it, sleep_for_ever };

static int result(struct thread *thread)
{
	return (int)(intptr_t)thread_join(thread);
}

static void they_wake_when_it_is_cancelled(void **state)
{
	int before = count_fds();

	for (size_t i = 0; i < COUNT(waits); i++)
		for (int depth = 0; depth < 3; depth++)
			for (int timed = 0; timed < 2; timed++) {
				struct ctxfd *root =
				        ctxfd_with_timeout(ctxfd_background(), timed ? 2 * FAR : INT64_MAX);
				struct ctxfd *mid = child_of(root), *leaf = child_of(mid);
				struct thread *thread = thread_start(waits[i], leaf);

				thread_wait_asleep_in(thread, SYS_futex);
				assert_int_equal(count_fds(), before);
				ctxfd_cancel((struct ctxfd *[]){ leaf, mid, root }[depth]);
				assert_int_equal(result(thread), -ECANCELED);
				ctxfd_unref(leaf);
				ctxfd_unref(mid);
				ctxfd_unref(root);
			}
}

static void they_wake_at_the_deadline(void **state)
{
	for (size_t i = 0; i < COUNT(waits); i++) {
		int64_t at = now() + 10 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = child_of(ctx);

		assert_int_equal((int)(intptr_t)waits[i](child), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

static void they_return_at_once_when_it_is_done(void **state)
{
	struct ctxfd *cancelled = child_of(ctxfd_background()), *late = ctxfd_with_timeout(ctxfd_background(), 0);

	ctxfd_cancel(cancelled);
	for (size_t i = 0; i < COUNT(waits); i++) {
		assert_int_equal((int)(intptr_t)waits[i](cancelled), -ECANCELED);
		assert_int_equal((int)(intptr_t)waits[i](late), -ETIMEDOUT);
	}
	assert_int_equal(ctxfd_sleep(cancelled, 0), -ECANCELED);
	assert_int_equal(ctxfd_sleep(cancelled, -1), -ECANCELED);
	ctxfd_unref(cancelled);
	ctxfd_unref(late);
}

static void all_of_many_wake(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *child = child_of(root);
	const struct ctxfd *value = ctxfd_with_value(child, &root, NULL, NULL);
	struct thread *threads[12];

	for (size_t i = 0; i < COUNT(threads); i++)
		threads[i] = thread_start(waits[i % 3], i % 2 ? root : (void *)(uintptr_t)value);
	for (size_t i = 0; i < COUNT(threads); i++)
		thread_wait_asleep_in(threads[i], SYS_futex);
	ctxfd_cancel(root);
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(result(threads[i]), -ECANCELED);
	ctxfd_unref(value);
	ctxfd_unref(child);
	ctxfd_unref(root);
}

static void they_sleep_on_while_others_end(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *ctx = child_of(root), *sibling = child_of(root),
	             *below = child_of(ctx);
	struct thread *thread = thread_start(wait_for_it, ctx);

	thread_wait_asleep(thread);
	ctxfd_cancel(sibling);
	ctxfd_cancel(below);
	for (int i = 0; i < 100; i++)
		ctxfd_close(child_of(ctx));
	thread_wait_asleep(thread);
	ctxfd_cancel(ctx);
	assert_int_equal(result(thread), -ECANCELED);
	ctxfd_unref(below);
	ctxfd_unref(sibling);
	ctxfd_unref(ctx);
	ctxfd_unref(root);
}

static void sleep_takes_its_time(void **state)
{
	static const int64_t times[] = { 1, 400, CTXFD_USEC, 300 * CTXFD_USEC, CTXFD_MSEC, 10 * CTXFD_MSEC };
	struct ctxfd *ctx = child_of(ctxfd_background()), *timed = ctxfd_with_timeout(ctx, FAR);
	const struct ctxfd *contexts[] = { ctx, timed, ctxfd_background() };

	for (size_t i = 0; i < COUNT(times) * COUNT(contexts); i++) {
		int64_t start = now();

		assert_int_equal(ctxfd_sleep(contexts[i % COUNT(contexts)], times[i / COUNT(contexts)]), 0);
		assert_elapsed(start, times[i / COUNT(contexts)], CTXFD_SEC);
	}
	ctxfd_close(timed);
	ctxfd_close(ctx);
}

static void no_time_is_no_sleep(void **state)
{
	static const int64_t times[] = { 0, -1, -CTXFD_SEC, INT64_MIN };
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), FAR);
	int64_t start = now();

	for (size_t i = 0; i < COUNT(times); i++) {
		assert_int_equal(ctxfd_sleep(ctx, times[i]), 0);
		assert_int_equal(ctxfd_sleep(ctxfd_background(), times[i]), 0);
	}
	assert_elapsed(start, 0, CTXFD_SEC / 2);
	ctxfd_close(ctx);
}

static void the_earlier_of_sleep_and_deadline_counts(void **state)
{
	int64_t at = now() + 30 * CTXFD_MSEC;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);

	while (now() + 2 * CTXFD_MSEC < at) {
		int64_t start = now();
		int err = ctxfd_sleep(ctx, CTXFD_MSEC);

		assert_true(err == 0 || now() >= at);
		assert_elapsed(start, CTXFD_MSEC, CTXFD_SEC);
	}
	assert_int_equal(ctxfd_sleep(ctx, FAR), -ETIMEDOUT);
	assert_elapsed(at, 0, CTXFD_SEC);
	ctxfd_unref(ctx);
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

/* No signal ends them, or makes them late or early. */
static void signals_change_nothing(void **state)
{
	static const int flags[] = { 0, SA_RESTART };

	for (size_t i = 0; i < COUNT(flags); i++) {
		struct ctxfd *ctx = child_of(ctxfd_background()), *timed;
		int64_t start, at;

		start_ticks(200 * CTXFD_USEC, flags[i]);
		start = now();
		assert_int_equal(ctxfd_sleep(ctx, 50 * CTXFD_MSEC), 0);
		assert_elapsed(start, 50 * CTXFD_MSEC, CTXFD_SEC);
		at = now() + 50 * CTXFD_MSEC;
		timed = ctxfd_with_deadline(ctx, at);
		assert_int_equal(ctxfd_wait(timed), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		stop_ticks();
		ctxfd_close(timed);
		ctxfd_close(ctx);
	}
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

enum { WAITERS = 3 };

struct waiting {
	struct meeting start, end;
	struct ctxfd *root, *ctx;
	int rounds;
	atomic_int next_number;
};

static void *keep_waiting(void *arg)
{
	struct waiting *w = arg;
	int me = atomic_fetch_add(&w->next_number, 1);

	for (int r = 0; r < w->rounds; r++) {
		meet(&w->start, WAITERS + 1);
		dither((unsigned)(r * (me + 1)) % 211);
		require((int)(intptr_t)waits[me % 3](w->ctx) == -ECANCELED);
		require(ctxfd_err(w->ctx) == -ECANCELED);
		meet(&w->end, WAITERS + 1);
	}
	return NULL;
}

/* A wake-up that is lost shows as a test that does not end. */
static void no_wake_up_is_lost(void **state)
{
	static struct waiting w;
	struct thread *threads[WAITERS];

	w = (struct waiting){ .rounds = rounds(10000) };
	for (int i = 0; i < WAITERS; i++)
		threads[i] = thread_start(keep_waiting, &w);
	for (int r = 0; r < w.rounds; r++) {
		w.root = r % 3 ? ctxfd_with_timeout(ctxfd_background(), FAR) : child_of(ctxfd_background());
		w.ctx = r % 2 ? child_of(w.root) : w.root;
		meet(&w.start, WAITERS + 1);
		dither((unsigned)r % 997);
		ctxfd_cancel(w.root);
		meet(&w.end, WAITERS + 1);
		if (w.ctx != w.root)
			ctxfd_unref(w.ctx);
		ctxfd_unref(w.root);
	}
	for (int i = 0; i < WAITERS; i++)
		thread_join(threads[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_wake_when_it_is_cancelled),
		cmocka_unit_test(they_wake_at_the_deadline),
		cmocka_unit_test(they_return_at_once_when_it_is_done),
		cmocka_unit_test(all_of_many_wake),
		cmocka_unit_test(they_sleep_on_while_others_end),
		cmocka_unit_test(sleep_takes_its_time),
		cmocka_unit_test(no_time_is_no_sleep),
		cmocka_unit_test(the_earlier_of_sleep_and_deadline_counts),
		cmocka_unit_test(signals_change_nothing),
		cmocka_unit_test(no_wake_up_is_lost),
	};
	return run_all(tests);
}
