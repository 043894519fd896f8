/* SPDX-License-Identifier: MIT */
/*
 * What others see, and may do, while a cancel is halfway through.
 *
 * A cancel is stopped at a gate (gate.h): a context whose fd it is about to make readable. What is above the gate, up
 * to where the cancel began, is marked by then but not done.
 */
#include "gate.h"

#include <sys/mman.h>

/* ---- Those who come in between ----------------------------------------------------------------------------------- */

static void *call_wait(void *arg)
{
	struct caller *c = arg;

	c->result = ctxfd_wait(c->ctx);
	c->returned = true;
	return NULL;
}

static void *call_unref(void *arg)
{
	struct caller *c = arg;

	ctxfd_unref(c->ctx);
	c->returned = true;
	return NULL;
}

/*
 * top > ctx > inner > gate, and a sibling of each but the first, some of which a cancel comes to before the gate, some
 * after.
 */
struct family {
	struct ctxfd *top, *ctx, *inner, *gate;
	struct ctxfd *before[3], *after[3];
};

static void make_family(struct family *f, bool timed)
{
	f->top = child_of(ctxfd_background(), timed);
	f->before[0] = child_of(f->top, timed);
	f->ctx = child_of(f->top, timed);
	f->after[0] = child_of(f->top, timed);
	f->before[1] = child_of(f->ctx, timed);
	f->inner = child_of(f->ctx, timed);
	f->after[1] = child_of(f->ctx, timed);
	f->before[2] = child_of(f->inner, timed);
	f->gate = child_of(f->inner, timed);
	f->after[2] = child_of(f->inner, timed);
}

static void drop_family(struct family *f)
{
	for (int i = 0; i < 3; i++) {
		ctxfd_unref(f->before[i]);
		ctxfd_unref(f->after[i]);
	}
	ctxfd_unref(f->gate);
	ctxfd_unref(f->inner);
	ctxfd_unref(f->ctx);
	ctxfd_unref(f->top);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void halfway_is_not_done(void **state)
{
	for (int timed = 0; timed < 2; timed++) {
		struct family f;
		struct stop s;
		int fd, inner_fd;

		make_family(&f, timed);
		fd = ctxfd_done_fd(f.ctx);
		stop_at(&s, f.ctx, -EPIPE, f.gate);
		inner_fd = ctxfd_done_fd(f.inner); /* asked for while the cancel is halfway */
		assert_int_equal(ctxfd_err(f.ctx), 0);
		assert_int_equal(ctxfd_cause(f.ctx), 0);
		assert_int_equal(ctxfd_err(f.inner), 0);
		assert_int_equal(ctxfd_sleep(f.ctx, CTXFD_MSEC), 0);
		assert_int_equal(ctxfd_poll(f.ctx, NULL, 0, CTXFD_MSEC), 0);
		assert_not_readable(fd);
		assert_not_readable(inner_fd);
		assert_ended(f.gate, -EPIPE);
		go_on(&s);
		assert_readable(fd);
		assert_readable(inner_fd);
		assert_ended(f.ctx, -EPIPE);
		assert_ended(f.inner, -EPIPE);
		for (int i = 1; i < 3; i++) {
			assert_ended(f.before[i], -EPIPE);
			assert_ended(f.after[i], -EPIPE);
		}
		assert_int_equal(ctxfd_err(f.top), 0);
		assert_int_equal(ctxfd_err(f.before[0]), 0);
		drop_family(&f);
	}
}

/* Which of the family a first cancel is halfway through, and which a second one is called on. */
struct pair {
	size_t first, second;
};

static void second_cancel_waits_for_the_first(void **state)
{
	enum { TOP, CTX, INNER };
	static const struct pair pairs[] = {
		{ CTX, CTX }, { CTX, INNER }, { INNER, INNER }, { CTX, TOP }, { INNER, CTX }, { INNER, TOP },
	};

	for (size_t i = 0; i < 2 * COUNT(pairs); i++) {
		const struct pair *p = &pairs[i / 2];
		struct family f;
		struct stop s;
		struct caller caller = { 0 };
		struct thread *thread;
		int fd;

		make_family(&f, i % 2);
		fd = ctxfd_done_fd(f.inner);
		caller.ctx = (struct ctxfd *[]){ f.top, f.ctx, f.inner }[p->second];
		stop_at(&s, p->first == CTX ? f.ctx : f.inner, -EPIPE, f.gate);
		thread = thread_start(call_cancel, &caller);
		thread_wait_asleep_in(thread, SYS_futex);
		assert_false(caller.returned);
		assert_int_equal(ctxfd_err(f.top), 0);
		assert_int_equal(ctxfd_err(f.ctx), 0);
		assert_int_equal(ctxfd_err(f.inner), 0);
		assert_not_readable(fd);
		go_on(&s);
		thread_join(thread);
		assert_readable(fd);
		assert_ended(f.inner, -EPIPE);
		assert_ended(f.before[2], -EPIPE);
		assert_ended(f.after[2], -EPIPE);
		if (p->first == CTX)
			assert_ended(f.before[1], -EPIPE);
		else if (p->second <= CTX)
			assert_ended(f.after[1], -ENOENT);
		if (p->second == TOP) {
			assert_ended(f.top, -ENOENT);
			assert_ended(f.before[0], -ENOENT);
		} else {
			assert_int_equal(ctxfd_err(f.top), 0);
		}
		drop_family(&f);
	}
}

static void waiters_sleep_until_it_is_done(void **state)
{
	struct family f;
	struct stop s;
	struct caller early = { 0 }, late = { 0 };
	struct thread *threads[2];

	make_family(&f, false);
	early.ctx = late.ctx = f.ctx;
	threads[0] = thread_start(call_wait, &early);
	thread_wait_asleep_in(threads[0], SYS_futex);
	stop_at(&s, f.ctx, -EPIPE, f.gate);
	threads[1] = thread_start(call_wait, &late);
	thread_wait_asleep_in(threads[1], SYS_futex);
	assert_false(early.returned);
	assert_false(late.returned);
	go_on(&s);
	thread_join(threads[0]);
	thread_join(threads[1]);
	assert_int_equal(early.result, -ECANCELED);
	assert_int_equal(late.result, -ECANCELED);
	drop_family(&f);
}

static void what_is_derived_halfway_is_born_done(void **state)
{
	for (int timed = 0; timed <= can_stop_timers(); timed++) {
		struct family f;
		struct stop s;
		struct ctxfd *born[8], *other = child_of(ctxfd_background(), false), *live;
		const struct ctxfd *value;
		int fd;

		make_family(&f, timed);
		stop_at(&s, f.ctx, -EPIPE, f.gate);
		value = ctxfd_with_value(f.inner, &f, NULL, NULL);
		born[0] = ctxfd_with_cancel(f.ctx);
		born[1] = ctxfd_with_cancel(f.inner);
		born[2] = ctxfd_with_timeout(f.inner, CTXFD_SEC);
		born[3] = ctxfd_with_timeout(f.ctx, -1);
		born[4] = ctxfd_with_cancel(value);
		born[5] = ctxfd_merge(f.inner, other);
		born[6] = ctxfd_merge(other, f.inner);
		born[7] = ctxfd_merge(f.inner, f.ctx);
		for (size_t i = 0; i < COUNT(born); i++)
			assert_ended(born[i], -EPIPE);
		fd = ctxfd_done_fd(born[1]);
		assert_readable(fd);
		/* Where the cancel has not been yet, or is not going to be, it is live. */
		live = ctxfd_with_cancel(f.top);
		assert_int_equal(ctxfd_err(live), 0);
		go_on(&s);
		assert_int_equal(ctxfd_err(live), 0);
		assert_int_equal(ctxfd_err(other), 0);
		for (size_t i = 0; i < COUNT(born); i++)
			ctxfd_unref(born[i]);
		assert_ended(value, -EPIPE);
		ctxfd_unref(value);
		ctxfd_unref(live);
		ctxfd_close(other);
		drop_family(&f);
	}
}

/*
 * Siblings of what is at the gate, before and after it, are live or done; either way what comes of them is done in the
 * end.
 */
static void what_is_derived_beside_it_is_done_in_the_end(void **state)
{
	struct family f;
	struct stop s;
	struct ctxfd *made[4], *below[4];

	make_family(&f, false);
	stop_at(&s, f.ctx, -EPIPE, f.gate);
	for (int i = 0; i < 4; i++) {
		made[i] = ctxfd_with_cancel(i % 2 ? f.before[1 + i / 2] : f.after[1 + i / 2]);
		below[i] = ctxfd_with_cancel(made[i]);
		if (ctxfd_err(made[i]))
			assert_ended(below[i], -EPIPE);
	}
	go_on(&s);
	for (int i = 0; i < 4; i++) {
		assert_ended(made[i], -EPIPE);
		assert_ended(below[i], -EPIPE);
		ctxfd_unref(below[i]);
		ctxfd_unref(made[i]);
	}
	drop_family(&f);
}

/* Whether the thread of c has come to its end, or sleeps because it must wait. */
static void wait_blocked_or_returned(struct thread *thread, struct caller *c)
{
	int64_t until = now() + 20 * CTXFD_MSEC;

	while (!c->returned && now() < until)
		pass_time(CTXFD_MSEC);
	if (!c->returned)
		thread_wait_asleep(thread);
}

/* The node at which the cancel stands, its siblings, and the nodes above it are given up while it stands there. */
static void free_waits_for_the_cancel_or_leaves_it_alone(void **state)
{
	spoil_freed_memory(true);
	for (int victim = 0; victim < 6; victim++)
		for (int timed = 0; timed < 2; timed++) {
			struct family f;
			struct ctxfd **victims[] = {
				&f.gate, &f.before[2], &f.after[2], &f.inner, &f.before[1], &f.ctx
			};
			struct caller giver = { 0 };
			struct thread *thread;
			struct stop s;

			make_family(&f, timed);
			stop_at(&s, f.top, -EPIPE, f.gate);
			giver.ctx = *victims[victim];
			*victims[victim] = NULL;
			thread = thread_start(call_unref, &giver);
			wait_blocked_or_returned(thread, &giver);
			assert_int_equal(ctxfd_err(f.top), 0);
			go_on(&s);
			thread_join(thread);
			assert_ended(f.top, -EPIPE);
			for (int i = 0; i < 3; i++) {
				if (f.before[i])
					assert_ended(f.before[i], -EPIPE);
				if (f.after[i])
					assert_ended(f.after[i], -EPIPE);
			}
			drop_family(&f);
		}
	spoil_freed_memory(false);
}

static void *give_up_inner(void *arg)
{
	struct family *f = arg;

	ctxfd_unref(f->inner);
	ctxfd_unref(f->before[2]);
	ctxfd_unref(f->after[2]);
	ctxfd_unref(f->gate);
	return NULL;
}

/* The cancel is back from below inner, which is done and only waits to be signalled. */
static void a_node_stays_until_the_cancel_has_gone_on_from_it(void **state)
{
	spoil_freed_memory(true);
	for (int timed = 0; timed < 2; timed++) {
		struct family f;
		struct thread *thread;
		struct stop s;

		make_family(&f, timed);
		stop_at(&s, f.top, -EPIPE, f.inner);
		assert_ended(f.gate, -EPIPE);
		thread = thread_start(give_up_inner, &f);
		thread_wait_asleep(thread);
		go_on(&s);
		thread_join(thread);
		f.inner = f.gate = f.before[2] = f.after[2] = NULL;
		assert_ended(f.top, -EPIPE);
		drop_family(&f);
	}
	spoil_freed_memory(false);
}

/*
 * The last reference below an inner node that has no owner: it, and the nodes above it, go when the cancel is through.
 */
static void an_orphaned_branch_is_freed_after_the_cancel(void **state)
{
	long before = live_allocations();
	struct ctxfd *top = child_of(ctxfd_background(), false), *mid = child_of(top, false),
	             *low = child_of(mid, false);
	struct caller giver = { .ctx = child_of(low, false) };
	struct thread *thread;
	struct stop s;

	spoil_freed_memory(true);
	stop_at(&s, top, -EPIPE, giver.ctx);
	ctxfd_unref(mid);
	ctxfd_unref(low);
	thread = thread_start(call_unref, &giver);
	wait_blocked_or_returned(thread, &giver);
	go_on(&s);
	thread_join(thread);
	assert_int_equal(live_allocations(), before + 1);
	assert_ended(top, -EPIPE);
	ctxfd_unref(top);
	spoil_freed_memory(false);
}

/* ---- A deadline passes halfway ----------------------------------------------------------------------------------- */

static void deadline_makes_the_verdict_visible_early(void **state)
{
	struct ctxfd *top = child_of(ctxfd_background(), false);
	int64_t deadline = now() + 100 * CTXFD_MSEC * slow();
	struct ctxfd *ctx = ctxfd_with_deadline_cause(top, deadline, -ENETDOWN);
	struct ctxfd *unseen = child_of(ctx, false), *at = child_of(ctx, false), *born;
	struct caller waiter = { .ctx = ctx }, second = { .ctx = top };
	struct thread *threads[2];
	struct stop s;
	int fd = ctxfd_done_fd(ctx), unseen_err;

	if (!can_stop_timers())
		skip_test("without SET_TICKS whoever signals a timerfd has a lock");
	stop_at(&s, ctx, -EPIPE, at);
	if (now() >= deadline) {
		go_on(&s);
		skip_test("the machine is too slow for it");
	}
	threads[0] = thread_start(call_wait, &waiter);
	thread_join(threads[0]); /* by the clock: nobody wakes it */
	assert_true(now() >= deadline);
	assert_int_equal(waiter.result, -ECANCELED);
	assert_readable(fd);
	assert_ended(ctx, -EPIPE);
	unseen_err = ctxfd_err(unseen);
	assert_int_not_equal(unseen_err, 0);
	born = child_of(ctx, false);
	assert_ended(born, -EPIPE);

	threads[1] = thread_start(call_cancel, &second);
	wait_blocked_or_returned(threads[1], &second);
	if (ctxfd_err(top))
		assert_ended(ctx, -EPIPE);
	go_on(&s);
	thread_join(threads[1]);
	assert_ended(ctx, -EPIPE);
	assert_ended(top, -ENOENT);
	assert_int_equal(ctxfd_err(unseen), unseen_err);
	ctxfd_unref(born);
	ctxfd_unref(unseen);
	ctxfd_unref(at);
	ctxfd_unref(ctx);
	ctxfd_unref(top);
}

/* ---- A dump halfway ---------------------------------------------------------------------------------------------- */

struct dumper {
	struct ctxfd *ctx;
	int file;
};

static void *call_dump(void *arg)
{
	struct dumper *d = arg;

	require(ctxfd_dump(d->ctx, d->file) == 0);
	return NULL;
}

/* A dump that comes to ctx while its cancel stands at `at`, and then waits for the cancel. */
static void dump_halfway(struct ctxfd *ctx, struct ctxfd *at, int64_t from, char text[400])
{
	struct dumper d = { .ctx = ctx, .file = memfd_create("dump", MFD_CLOEXEC) };
	struct thread *thread;
	struct stop s;

	assert_true(d.file >= 0);
	stop_at(&s, ctx, -EPIPE, at);
	if (now() < from)
		pass_time(from - now());
	thread = thread_start(call_dump, &d);
	thread_wait_asleep_in(thread, SYS_futex);
	go_on(&s);
	thread_join(thread);
	memset(text, 0, 400);
	assert_true(pread(d.file, text, 399, 0) > 0);
	close(d.file);
}

static void a_dump_tells_of_the_cancel(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *at = child_of(ctx, false);
	char text[400], expected[400];

	dump_halfway(ctx, at, 0, text);
	snprintf(expected, sizeof expected,
	         "with_cancel %p: being cancelled, 1 reference\n"
	         "  with_cancel %p: done: context canceled, cause %d: %s, 1 reference, done fd %d\n",
	         (void *)ctx, (void *)at, -EPIPE, strerror(EPIPE), ctxfd_done_fd(at));
	assert_string_equal(text, expected);
	ctxfd_unref(at);
	ctxfd_unref(ctx);
}

/* The clock makes the cancel's verdict visible, and changes nothing about it. */
static void a_dump_knows_what_ended_it_when_the_deadline_passes(void **state)
{
	int64_t deadline = now() + 300 * CTXFD_MSEC * slow();
	struct ctxfd *ctx = ctxfd_with_deadline_cause(ctxfd_background(), deadline, -ENETDOWN),
	             *at = child_of(ctx, false);
	char text[400], expected[400];

	dump_halfway(ctx, at, deadline, text);
	if (ctxfd_err(ctx) == -ETIMEDOUT) {
		ctxfd_unref(at);
		ctxfd_unref(ctx);
		skip_test("the machine is too slow for it");
	}
	snprintf(expected, sizeof expected, "with_deadline %p: done: context canceled, cause %d: %s, 1 reference\n",
	         (void *)ctx, -EPIPE, strerror(EPIPE));
	assert_memory_equal(text, expected, strlen(expected));
	ctxfd_unref(at);
	ctxfd_unref(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(halfway_is_not_done),
		cmocka_unit_test(second_cancel_waits_for_the_first),
		cmocka_unit_test(waiters_sleep_until_it_is_done),
		cmocka_unit_test(what_is_derived_halfway_is_born_done),
		cmocka_unit_test(what_is_derived_beside_it_is_done_in_the_end),
		cmocka_unit_test(free_waits_for_the_cancel_or_leaves_it_alone),
		cmocka_unit_test(a_node_stays_until_the_cancel_has_gone_on_from_it),
		cmocka_unit_test(an_orphaned_branch_is_freed_after_the_cancel),
		cmocka_unit_test(deadline_makes_the_verdict_visible_early),
		cmocka_unit_test(a_dump_tells_of_the_cancel),
		cmocka_unit_test(a_dump_knows_what_ended_it_when_the_deadline_passes),
	};
	return run_all(tests);
}
