/* SPDX-License-Identifier: MIT */
/*
 * Waiting at a condition variable under a context: woken by a signal, a cancel, the deadline; no wake-up lost, and no
 * deadlock whoever holds the mutex.
 */
#include <sched.h>
#include <sys/mman.h>

#include "gate.h"
#include "race.h"
#include "ticks.h"

#define FAR (3600 * CTXFD_SEC)

/* ---- libc's wait, which the linker leads through here: see core.mk ----------------------------------------------- */

/* Done once, by the thread that enters libc's timed wait, and by the one that leaves it; both have the mutex. */
typedef void hook(int result);
static hook *_Atomic after_wait;
static void (*_Atomic before_wait)(void);
/* What the next timed wait fails with, without waiting; 0: it waits. */
static _Atomic int refusal;
/* Timed waits say that they timed out, whatever they took. */
static _Atomic bool always_late;

static _Thread_local bool in_library;
static _Atomic int passed_on;

int __real_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
	if (in_library)
		passed_on++;
	return __real_pthread_cond_signal(cond);
}

static bool enter_wait(int *result)
{
	void (*call)(void) = atomic_exchange(&before_wait, NULL);

	if (call)
		call();
	*result = atomic_exchange(&refusal, 0);
	return *result == 0;
}

static int leave_wait(int result)
{
	void (*call)(int) = atomic_exchange(&after_wait, NULL);

	if (call)
		call(result);
	return result == 0 && always_late ? ETIMEDOUT : result;
}

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 30)
#define HAS_CLOCKWAIT
#endif
#endif

/*
 * pthread_cancel takes threads out of these: AddressSanitizer would take what it knows of the frame for that of another
 * function, later.
 */
#define UNWOUND __attribute__((no_sanitize("address")))

typedef struct timespec limit_t;

#ifdef HAS_CLOCKWAIT
int __real_pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const limit_t *limit);
int __wrap_pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const limit_t *limit);

UNWOUND int __wrap_pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
                                          const limit_t *limit)
{
	int result;

	return enter_wait(&result) ? leave_wait(__real_pthread_cond_clockwait(cond, mutex, clock, limit)) : result;
}
#endif

/* For want of the other one; and for calls (calls/call.c). */
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const limit_t *limit);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const limit_t *limit);

UNWOUND int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const limit_t *limit)
{
	int result;

	return enter_wait(&result) ? leave_wait(__real_pthread_cond_timedwait(cond, mutex, limit)) : result;
}

/* ---- A waiter, and what it waits for ----------------------------------------------------------------------------- */

struct place {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	int items;
};

static void make_place(struct place *p, int mutex_type, bool robust, bool shared, clockid_t clock)
{
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;

	require(pthread_mutexattr_init(&mutex) == 0 && pthread_condattr_init(&cond) == 0);
	require(pthread_mutexattr_settype(&mutex, mutex_type) == 0);
	if (robust)
		require(pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST) == 0);
	if (shared) {
		require(pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED) == 0);
		require(pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED) == 0);
	}
	require(pthread_condattr_setclock(&cond, clock) == 0);
	require(pthread_mutex_init(&p->mutex, &mutex) == 0 && pthread_cond_init(&p->cond, &cond) == 0);
	pthread_mutexattr_destroy(&mutex);
	pthread_condattr_destroy(&cond);
	p->items = 0;
}

/* Its mutex tells whether it is held. */
static void make_plain_place(struct place *p)
{
	make_place(p, PTHREAD_MUTEX_ERRORCHECK, false, false, CLOCK_REALTIME);
}

static void free_place(struct place *p)
{
	require(pthread_cond_destroy(&p->cond) == 0);
	require(pthread_mutex_destroy(&p->mutex) == 0);
}

static void lock(struct place *p)
{
	require(pthread_mutex_lock(&p->mutex) == 0);
}

static void unlock(struct place *p)
{
	require(pthread_mutex_unlock(&p->mutex) == 0);
}

static void put(struct place *p)
{
	lock(p);
	p->items++;
	unlock(p);
	require(pthread_cond_signal(&p->cond) == 0);
}

static int wait_once(const struct ctxfd *ctx, struct place *p)
{
	int result;

	errno = 4711;
	in_library = true;
	result = ctxfd_cond_wait(ctx, &p->cond, &p->mutex);
	in_library = false;
	require(errno == 4711);
	return result;
}

/* Takes an item: 0, or err. */
static int take(const struct ctxfd *ctx, struct place *p)
{
	int err = 0;

	lock(p);
	while (!p->items && !err)
		err = wait_once(ctx, p);
	if (!err)
		p->items--;
	unlock(p);
	return err;
}

struct taker {
	const struct ctxfd *ctx;
	struct place *place;
};

static void *take_one(void *arg)
{
	struct taker *t = arg;

	return (void *)(intptr_t)take(t->ctx, t->place);
}

static int result(struct thread *thread)
{
	return (int)(intptr_t)thread_join(thread);
}

/* ---- What wakes it ----------------------------------------------------------------------------------------------- */

static void a_signal_wakes_it(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *timed = ctxfd_with_timeout(ctx, FAR);
	const struct ctxfd *value = ctxfd_with_value(timed, &ctx, NULL, NULL), *detached = ctxfd_without_cancel(ctx);
	const struct ctxfd *contexts[] = { ctx, timed, value, detached, ctxfd_background() };
	int before = count_fds();
	struct place p;

	make_plain_place(&p);
	for (size_t i = 0; i < COUNT(contexts); i++) {
		struct thread *thread = thread_start(take_one, &(struct taker){ contexts[i], &p });

		thread_wait_asleep(thread);
		assert_int_equal(count_fds(), before);
		put(&p);
		assert_int_equal(result(thread), 0);
	}
	free_place(&p);
	ctxfd_unref(detached);
	ctxfd_unref(value);
	ctxfd_unref(timed);
	ctxfd_unref(ctx);
}

static void what_is_done_comes_first(void **state)
{
	struct ctxfd *cancelled = child_of(ctxfd_background(), false),
	             *late = ctxfd_with_timeout(ctxfd_background(), 0);
	const struct ctxfd *value = ctxfd_with_value(cancelled, &late, NULL, NULL);
	struct place p;

	make_plain_place(&p);
	ctxfd_cancel(cancelled);
	assert_int_equal(take(cancelled, &p), -ECANCELED);
	assert_int_equal(take(value, &p), -ECANCELED);
	assert_int_equal(take(late, &p), -ETIMEDOUT);
	free_place(&p);
	ctxfd_unref(value);
	ctxfd_unref(late);
	ctxfd_unref(cancelled);
}

static _Atomic int woken;

static void count_wake_up(int result)
{
	woken += result == 0;
}

static void a_cancel_wakes_it(void **state)
{
	struct place p;

	make_plain_place(&p);
	for (int depth = 0; depth < 3; depth++)
		for (int kind = 0; kind < 5; kind++) {
			struct ctxfd *root = ctxfd_with_timeout(ctxfd_background(), kind % 2 ? FAR : INT64_MAX);
			struct ctxfd *other = child_of(ctxfd_background(), false), *mid = child_of(root, false);
			struct ctxfd *leaf = kind < 3    ? child_of(mid, false)
			                     : kind == 3 ? ctxfd_merge(mid, other)
			                                 : ctxfd_merge(other, mid);
			const struct ctxfd *value = ctxfd_with_value(leaf, &root, NULL, NULL);
			struct taker t = { kind == 2 ? value : leaf, &p };
			struct thread *thread = thread_start(take_one, &t);

			thread_wait_asleep(thread);
			woken = 0;
			after_wait = count_wake_up;
			ctxfd_cancel((struct ctxfd *[]){ leaf, mid, root }[depth]);
			assert_int_equal(result(thread), -ECANCELED);
			assert_int_equal(woken, 1); /* and not because a second was over */
			ctxfd_unref(value);
			ctxfd_unref(leaf);
			ctxfd_unref(mid);
			ctxfd_unref(other);
			ctxfd_unref(root);
		}
	free_place(&p);
}

static void the_deadline_ends_it(void **state)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC };

	for (size_t i = 0; i < 3 * COUNT(clocks); i++) {
		int64_t at = now() + 20 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = child_of(ctx, false);
		struct place p;

		make_place(&p, PTHREAD_MUTEX_ERRORCHECK, false, false, clocks[i % 2]);
		assert_int_equal(take(i % 3 ? child : ctx, &p), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		free_place(&p);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

static void all_of_many_wake(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background(), false), *child = child_of(root, false);
	struct place places[3];
	struct taker takers[12];
	struct thread *threads[COUNT(takers)];
	int64_t start;

	for (size_t i = 0; i < COUNT(places); i++)
		make_plain_place(&places[i]);
	for (size_t i = 0; i < COUNT(takers); i++) {
		takers[i] = (struct taker){ i % 2 ? root : child, &places[i % 3] };
		threads[i] = thread_start(take_one, &takers[i]);
	}
	for (size_t i = 0; i < COUNT(takers); i++)
		thread_wait_asleep(threads[i]);
	start = now();
	ctxfd_cancel(root);
	for (size_t i = 0; i < COUNT(takers); i++)
		assert_int_equal(result(threads[i]), -ECANCELED);
	assert_elapsed(start, 0, CTXFD_SEC);
	for (size_t i = 0; i < COUNT(places); i++)
		free_place(&places[i]);
	ctxfd_unref(child);
	ctxfd_unref(root);
}

static void others_wait_on(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *other = child_of(ctxfd_background(), false);
	struct place p;
	struct thread *ends, *stays[2];

	make_plain_place(&p);
	ends = thread_start(take_one, &(struct taker){ ctx, &p });
	stays[0] = thread_start(take_one, &(struct taker){ other, &p });
	stays[1] = thread_start(take_one, &(struct taker){ ctxfd_background(), &p });
	thread_wait_asleep(ends);
	ctxfd_cancel(ctx);
	assert_int_equal(result(ends), -ECANCELED);
	for (int i = 0; i < 2; i++)
		thread_wait_asleep(stays[i]);
	put(&p);
	put(&p);
	for (int i = 0; i < 2; i++)
		assert_int_equal(result(stays[i]), 0);
	free_place(&p);
	ctxfd_unref(other);
	ctxfd_unref(ctx);
}

/* ---- The mutex --------------------------------------------------------------------------------------------------- */

static void whoever_cancels_may_hold_the_mutex(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct thread *thread;
	struct place p;

	make_plain_place(&p);
	thread = thread_start(take_one, &(struct taker){ ctx, &p });
	thread_wait_asleep(thread);
	lock(&p);
	ctxfd_cancel(ctx);
	thread_wait_asleep(thread);
	unlock(&p);
	assert_int_equal(result(thread), -ECANCELED);
	free_place(&p);
	ctxfd_unref(ctx);
}

static struct ctxfd *to_cancel;

static void cancel_it(void)
{
	ctxfd_cancel(to_cancel);
}

/* A broadcast finds nobody yet, and the thread that waits has the mutex. */
static void a_cancel_just_before_libc_queues_it_is_seen_at_once(void **state)
{
	struct place p;

	make_plain_place(&p);
	for (int timed = 0; timed < 2; timed++) {
		int64_t start = now();

		to_cancel = ctxfd_with_timeout(ctxfd_background(), timed ? FAR : INT64_MAX);
		before_wait = cancel_it;
		assert_int_equal(take(to_cancel, &p), -ECANCELED);
		assert_elapsed(start, 0, 9 * CTXFD_SEC / 10);
		ctxfd_unref(to_cancel);
	}
	free_place(&p);
}

/* The context is about to end: err still says 0, and a waiter that was parked now would not be rung. */
static void it_waits_for_a_cancel_at_work(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *child = child_of(ctx, false);
	struct thread *thread;
	struct place p;
	struct stop s;

	make_plain_place(&p);
	stop_at(&s, ctx, -EPIPE, child);
	assert_int_equal(ctxfd_err(ctx), 0);
	thread = thread_start(take_one, &(struct taker){ ctx, &p });
	thread_wait_asleep(thread);
	go_on(&s);
	assert_int_equal(result(thread), -ECANCELED);
	assert_ended(ctx, -EPIPE);
	free_place(&p);
	ctxfd_unref(child);
	ctxfd_unref(ctx);
}

/* It is rung, and runs, before the context has ended. */
static void it_waits_for_the_cancel_that_woke_it(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *first = child_of(ctx, false);
	struct thread *thread;
	struct place p;
	struct stop s;

	/* The walk goes from the youngest to the oldest. */
	make_plain_place(&p);
	thread = thread_start(take_one, &(struct taker){ ctx, &p });
	thread_wait_asleep(thread);
	stop_at(&s, ctx, -EPIPE, first);
	assert_int_equal(ctxfd_err(ctx), 0);
	thread_wait_asleep(thread);
	go_on(&s);
	assert_int_equal(result(thread), -ECANCELED);
	assert_ended(ctx, -EPIPE);
	free_place(&p);
	ctxfd_unref(first);
	ctxfd_unref(ctx);
}

static void it_may_return_for_no_reason(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct place p;

	make_plain_place(&p);
	lock(&p);
	refusal = ETIMEDOUT;
	assert_int_equal(wait_once(ctx, &p), 0);
	unlock(&p);
	free_place(&p);
	ctxfd_unref(ctx);
}

static void a_mutex_of_somebody_else_is_refused(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct place p;

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer reports what a program does there");
#endif

	make_plain_place(&p);
	assert_int_equal(wait_once(ctx, &p), -EPERM);
	assert_int_equal(wait_once(ctxfd_background(), &p), -EPERM);
	ctxfd_cancel(ctx); /* reaches nobody */
	free_place(&p);
	ctxfd_unref(ctx);
}

static void a_mutex_with_priorities_will_do(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	pthread_mutexattr_t attr;
	struct thread *thread;
	struct place p;

	make_plain_place(&p);
	pthread_mutex_destroy(&p.mutex);
	pthread_mutexattr_init(&attr);
	if (pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT) != 0 || pthread_mutex_init(&p.mutex, &attr) != 0)
		skip_test("no priority inheritance here");
	for (int i = 0; i < 2; i++) {
		thread = thread_start(take_one, &(struct taker){ ctx, &p });
		thread_wait_asleep(thread);
		if (i == 0)
			put(&p);
		else
			ctxfd_cancel(ctx);
		assert_int_equal(result(thread), i ? -ECANCELED : 0);
	}
	free_place(&p);
	ctxfd_unref(ctx);
}

/* Who dies with the mutex, and what it does before. */
struct murder {
	struct place *place;
	struct ctxfd *ctx; /* to cancel */
	bool wakes;
};

static void *die_with_it(void *arg)
{
	struct murder *m = arg;

	lock(m->place);
	ctxfd_cancel(m->ctx);
	if (m->wakes)
		pthread_cond_broadcast(&m->place->cond);
	return NULL;
}

static void *wait_robustly(void *arg)
{
	struct taker *t = arg;
	int err;

	lock(t->place);
	do
		err = wait_once(t->ctx, t->place);
	while (!err);
	if (err == -EOWNERDEAD) {
		t->place->items++;
		require(pthread_mutex_consistent(&t->place->mutex) == 0);
		require(!ctxfd_err(t->ctx) || wait_once(t->ctx, t->place) == -ECANCELED);
	}
	if (err != -ENOTRECOVERABLE)
		unlock(t->place);
	return (void *)(intptr_t)err;
}

static void a_dead_owner_is_told_of(void **state)
{
	for (int cancels = 0; cancels < 2; cancels++) {
		struct ctxfd *ctx = child_of(ctxfd_background(), false);
		struct murder m;
		struct thread *thread;
		struct place p;

		make_place(&p, PTHREAD_MUTEX_NORMAL, true, false, CLOCK_REALTIME);
		m = (struct murder){ &p, cancels ? ctx : NULL, !cancels };
		thread = thread_start(wait_robustly, &(struct taker){ ctx, &p });
		thread_wait_asleep(thread);
		thread_join(thread_start(die_with_it, &m));
		assert_int_equal(result(thread), -EOWNERDEAD);
		assert_int_equal(p.items, 1);
		free_place(&p);
		ctxfd_close(ctx);
	}
}

/* Takes it over, and gives it back without making it consistent. */
static void *give_it_up(void *arg)
{
	struct taker *t = arg;

	if (pthread_mutex_lock(&t->place->mutex) == EOWNERDEAD)
		pthread_mutex_unlock(&t->place->mutex);
	return NULL;
}

static void a_lost_mutex_is_told_of(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct thread *thread;
	struct place p;
	struct taker t = { ctx, &p };

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer reports what a program does there");
#endif

	make_place(&p, PTHREAD_MUTEX_NORMAL, true, false, CLOCK_REALTIME);
	thread = thread_start(wait_robustly, &t);
	thread_wait_asleep(thread);
	thread_join(thread_start(die_with_it, &(struct murder){ .place = &p }));
	thread_join(thread_start(give_it_up, &t));
	pthread_cond_broadcast(&p.cond);
	assert_int_equal(result(thread), -ENOTRECOVERABLE);
	pthread_cond_destroy(&p.cond);
	pthread_mutex_destroy(&p.mutex);
	ctxfd_cancel(ctx);
	ctxfd_unref(ctx);
}

/* ---- Signals that are passed on ---------------------------------------------------------------------------------- */

static const struct ctxfd *to_expire;
static _Atomic int taken_in_vain;

static void expire_after_signal(int result)
{
	taken_in_vain += result == 0;
	while (!ctxfd_err(to_expire))
		pass_time(100 * CTXFD_USEC);
}

static int waiting; /* under the mutex */

static void count_waiting(void)
{
	waiting++;
}

static void *take_plainly(void *arg)
{
	struct place *p = arg;

	lock(p);
	waiting++;
	while (!p->items)
		pthread_cond_wait(&p->cond, &p->mutex);
	p->items--;
	unlock(p);
	return NULL;
}

/* A thread that waits gives the mutex back once it is in the queue. */
static bool are_waiting(struct place *p, int n)
{
	bool are;

	lock(p);
	are = waiting == n;
	unlock(p);
	return are;
}

/*
 * One item, one signal; the one that is in the queue first has no use for it any more. (A cancel would wake the other
 * one itself.) On a busy machine its time is up before there is a signal: then it is tried again.
 */
static void a_wake_up_that_a_call_took_in_vain_is_passed_on(void **state)
{
	struct place p;

	make_plain_place(&p);
	while (!taken_in_vain) {
		struct thread *ends, *takes;

		waiting = 0;
		before_wait = count_waiting;
		to_expire = ctxfd_with_timeout(ctxfd_background(), 200 * slow() * CTXFD_MSEC);
		ends = thread_start(take_one, &(struct taker){ to_expire, &p });
		wait_until(are_waiting(&p, 1) || ctxfd_err(to_expire));
		takes = thread_start(take_plainly, &p);
		wait_until(are_waiting(&p, 2) || ctxfd_err(to_expire));
		after_wait = expire_after_signal;
		put(&p);
		thread_join(takes);
		assert_int_equal(result(ends), -ETIMEDOUT);
		before_wait = (void (*)(void))0;
		after_wait = (hook *)0;
		ctxfd_unref(to_expire);
	}
	free_place(&p);
	taken_in_vain = 0;
}

/* POSIX lets a wait take a signal and time out; glibc's does not, and the library goes by that. */
static void so_is_one_that_a_wait_took_as_it_timed_out(void **state)
{
#ifdef __GLIBC__
	skip_test("glibc passes it on");
#endif
	always_late = true;
	a_wake_up_that_a_call_took_in_vain_is_passed_on(state);
	always_late = false;
}

static void what_took_none_passes_none_on(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *late = ctxfd_with_timeout(ctx, CTXFD_MSEC);
	struct place p;

	make_plain_place(&p);
	passed_on = 0;
	assert_int_equal(take(late, &p), -ETIMEDOUT);
	ctxfd_cancel(ctx);
	assert_int_equal(take(ctx, &p), -ECANCELED);
#ifdef __GLIBC__ /* with others nobody knows */
	assert_int_equal(passed_on, 0);
#endif
	free_place(&p);
	ctxfd_unref(late);
	ctxfd_unref(ctx);
}

/* ---- Signals of the other kind, pthread_cancel, memory ----------------------------------------------------------- */

static void signals_change_nothing(void **state)
{
	static const int flags[] = { 0, SA_RESTART };
	struct place p;

	make_plain_place(&p);
	for (size_t i = 0; i < COUNT(flags); i++) {
		int64_t at = now() + 50 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);

		start_ticks(200 * CTXFD_USEC, flags[i]);
		assert_int_equal(take(ctx, &p), -ETIMEDOUT);
		stop_ticks();
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_unref(ctx);
	}
	free_place(&p);
}

static void unlock_at_the_end(void *arg)
{
	unlock(arg);
}

UNWOUND static void *wait_to_be_taken(void *arg)
{
	struct taker *t = arg;

	lock(t->place);
	pthread_cleanup_push(unlock_at_the_end, t->place);
	for (;;)
		ctxfd_cond_wait(t->ctx, &t->place->cond, &t->place->mutex);
	pthread_cleanup_pop(0);
	return NULL;
}

static void *wait_with_a_cancel_pending(void *arg)
{
	pthread_cancel(pthread_self());
	return wait_to_be_taken(arg);
}

/* It holds the mutex, and leaves nothing in the context: what a cancel would ring is gone. */
static void it_is_a_cancellation_point(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *done = child_of(ctxfd_background(), false);
	const struct ctxfd *contexts[] = { ctx, done, ctxfd_background() };
	struct place *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	make_plain_place(p);
	ctxfd_cancel(done);
	for (size_t i = 0; i < COUNT(contexts); i++) {
		struct taker t = { contexts[i], p };
		struct thread *thread = thread_start(wait_with_a_cancel_pending, &t);

		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
		if (contexts[i] == done)
			continue;
		thread = thread_start(wait_to_be_taken, &t);
		thread_wait_asleep(thread);
		pthread_cancel(thread_pthread(thread));
		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	}
	free_place(p);
	munmap(p, sizeof *p);
	ctxfd_cancel(ctx);
	ctxfd_unref(done);
	ctxfd_unref(ctx);
}

/* pthread_cancel has ended the wait, which waits for the mutex: it is the last to have the context, and frees it. */
static void a_cancelled_thread_may_be_the_last_to_have_it(void **state)
{
	struct place *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct taker t = { ctx, p };
	struct thread *thread;
	long before;

	assert_ptr_not_equal(p, MAP_FAILED);
	make_plain_place(p);
	thread = thread_start(wait_to_be_taken, &t);
	thread_wait_asleep(thread);
	lock(p);
	pthread_cancel(thread_pthread(thread));
	before = live_allocations();
	ctxfd_unref(ctx);
	assert_int_equal(live_allocations(), before);
	unlock(p);
	assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
	assert_true(live_allocations() < before);
	free_place(p);
	munmap(p, sizeof *p);
}

static void *take_without_memory(void *arg)
{
	struct taker *t = arg;

	fail_allocation(1);
	require(take(t->ctx, t->place) == -ECANCELED);
	require(allocation_failed());
	return NULL;
}

static void it_works_without_memory(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct place p;

	make_plain_place(&p);
	to_cancel = ctx;
	before_wait = cancel_it;
	thread_join(thread_start(take_without_memory, &(struct taker){ ctx, &p }));
	free_place(&p);
	ctxfd_unref(ctx);
}

/* ---- Processes --------------------------------------------------------------------------------------------------- */

static int take_in_child(struct place *p, const struct ctxfd *ctx)
{
	return -take(ctx, p);
}

static pid_t fork_taker(struct place *p, const struct ctxfd *ctx)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(take_in_child(p, ctx));
	return pid;
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A signal wakes a waiter of another process; a deadline and a cancel end one, whoever else waits there. */
static void processes_share_a_condition(void **state)
{
	struct place *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ctxfd *ctx = child_of(ctxfd_background(), false), *timed = ctxfd_with_timeout(ctx, 50 * CTXFD_MSEC);
	struct thread *thread;
	pid_t late, takes;

	assert_ptr_not_equal(p, MAP_FAILED);
	make_place(p, PTHREAD_MUTEX_ERRORCHECK, false, true, CLOCK_REALTIME);
	takes = fork_taker(p, ctx);
	late = fork_taker(p, timed);
	assert_int_equal(end_of(late), ETIMEDOUT);
	thread = thread_start(take_one, &(struct taker){ ctx, p });
	thread_wait_asleep(thread);
	ctxfd_cancel(ctx);
	assert_int_equal(result(thread), -ECANCELED);
	put(p);
	assert_int_equal(end_of(takes), 0);
	free_place(p);
	munmap(p, sizeof *p);
	ctxfd_unref(timed);
	ctxfd_unref(ctx);
}

static int cancel_in_child(void *arg)
{
	struct place p;
	int err;

	make_plain_place(&p);
#ifdef __SANITIZE_THREAD__ /* cannot start threads here */
	ctxfd_cancel(arg);
	err = take(arg, &p);
#else
	struct thread *thread = thread_start(take_one, &(struct taker){ arg, &p });

	thread_wait_asleep(thread);
	ctxfd_cancel(arg);
	err = result(thread);
#endif
	return err == -ECANCELED ? 0 : 1;
}

/* The child has the parent's waiters in its copy of the context, and wakes none, even where it could. */
static void a_fork_has_its_own_waiters(void **state)
{
	struct place *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ctxfd *ctx = child_of(ctxfd_background(), false);
	struct taker t = { ctx, p };
	struct thread *thread;

	assert_ptr_not_equal(p, MAP_FAILED);
	make_place(p, PTHREAD_MUTEX_ERRORCHECK, false, true, CLOCK_REALTIME);
	thread = thread_start(take_one, &t);
	thread_wait_asleep(thread);
	woken = 0;
	after_wait = count_wake_up;
	assert_int_equal(in_child(cancel_in_child, ctx), 0);
	thread_wait_asleep(thread);
	assert_int_equal(woken, 0);
	ctxfd_cancel(ctx);
	assert_int_equal(result(thread), -ECANCELED);
	after_wait = (hook *)0;
	free_place(p);
	munmap(p, sizeof *p);
	ctxfd_unref(ctx);
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

enum { WAITERS = 3 };

struct race {
	struct meeting start, end;
	struct ctxfd *ctx;
	struct place *place;
	int rounds;
	atomic_int number, left;
	atomic_bool over;
};

/* The last one out takes the condition with it, perhaps while the cancel is still at work. */
static void *keep_waiting(void *arg)
{
	struct race *r = arg;
	int me = atomic_fetch_add(&r->number, 1);

	for (int i = 0; i < r->rounds; i++) {
		meet(&r->start, WAITERS + 1);
		dither((unsigned)(i * (me + 1)) % 211);
		require(take(r->ctx, r->place) == -ECANCELED);
		if (atomic_fetch_sub(&r->left, 1) == 1) {
			free_place(r->place);
			memset(r->place, 0x5a, sizeof *r->place);
			free(r->place);
		}
		meet(&r->end, WAITERS + 1);
	}
	return NULL;
}

/* A cancel that is lost shows as a test that takes a second longer, again and again. */
static void no_cancel_is_lost(void **state)
{
	static struct race r;
	struct thread *threads[WAITERS];

	r = (struct race){ .rounds = rounds(3000) };
	for (int i = 0; i < WAITERS; i++)
		threads[i] = thread_start(keep_waiting, &r);
	for (int i = 0; i < r.rounds; i++) {
		struct ctxfd *root =
		        i % 3 ? ctxfd_with_timeout(ctxfd_background(), FAR) : child_of(ctxfd_background(), false);

		r.ctx = i % 2 ? child_of(root, false) : root;
		r.place = malloc(sizeof *r.place);
		make_plain_place(r.place);
		r.left = WAITERS;
		meet(&r.start, WAITERS + 1);
		dither((unsigned)i % 997);
		ctxfd_cancel(root);
		meet(&r.end, WAITERS + 1);
		if (r.ctx != root)
			ctxfd_unref(r.ctx);
		ctxfd_unref(root);
	}
	for (int i = 0; i < WAITERS; i++)
		thread_join(threads[i]);
}

/* A bounded queue, with one signal an item, and calls that are cancelled at random. */
enum { ROOM = 2, PRODUCERS = 3, CONSUMERS = 3, CALLERS = PRODUCERS + CONSUMERS };

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t not_full, not_empty;
	int items, put, taken, total;
	atomic_int cancelled, number;
	atomic_bool over;
	pthread_mutex_t current_mutex;
	struct ctxfd *current[CALLERS];
} queue;

/* One call, of every third thread without a context: nothing but a signal ends that one. */
static int wait_at(const struct ctxfd *ctx, pthread_cond_t *cond)
{
	return ctx ? ctxfd_cond_wait(ctx, cond, &queue.mutex) : -pthread_cond_wait(cond, &queue.mutex);
}

static bool put_or_take(bool puts, const struct ctxfd *ctx)
{
	pthread_cond_t *mine = puts ? &queue.not_full : &queue.not_empty;
	pthread_cond_t *theirs = puts ? &queue.not_empty : &queue.not_full;
	int *count = puts ? &queue.put : &queue.taken, err = 0;
	bool goes_on;

	pthread_mutex_lock(&queue.mutex);
	while (!err && *count < queue.total && (puts ? queue.items == ROOM : queue.items == 0))
		err = wait_at(ctx, mine);
	require(!err || err == -ECANCELED);
	if (!err && *count < queue.total) {
		queue.items += puts ? 1 : -1;
		++*count;
		pthread_cond_signal(theirs);
		if (*count == queue.total)
			pthread_cond_broadcast(mine);
	}
	goes_on = *count < queue.total;
	queue.cancelled += err != 0;
	pthread_mutex_unlock(&queue.mutex);
	return goes_on;
}

static void *use_queue(void *arg)
{
	int me = atomic_fetch_add(&queue.number, 1);
	struct ctxfd *ctx = NULL;
	bool goes_on;

	do {
		if (me % 3 && (!ctx || ctxfd_err(ctx))) {
			pthread_mutex_lock(&queue.current_mutex);
			ctxfd_unref(ctx);
			queue.current[me] = ctx = child_of(ctxfd_background(), false);
			pthread_mutex_unlock(&queue.current_mutex);
		}
		goes_on = put_or_take(me < PRODUCERS, ctx);
	} while (goes_on);
	pthread_mutex_lock(&queue.current_mutex);
	queue.current[me] = NULL;
	pthread_mutex_unlock(&queue.current_mutex);
	ctxfd_unref(ctx);
	return arg;
}

static void *cancel_at_random(void *arg)
{
	unsigned seed = 1;

	while (!queue.over) {
		int victim = rand_r(&seed) % CALLERS;

		pthread_mutex_lock(&queue.current_mutex);
		ctxfd_cancel(queue.current[victim]);
		pthread_mutex_unlock(&queue.current_mutex);
		dither((unsigned)rand_r(&seed) % 5000);
		sched_yield();
	}
	return arg;
}

static void no_wake_up_is_lost(void **state)
{
	struct thread *threads[CALLERS], *canceller;

	memset(&queue, 0, sizeof queue);
	queue.total = rounds(100000);
	pthread_mutex_init(&queue.mutex, NULL);
	pthread_mutex_init(&queue.current_mutex, NULL);
	pthread_cond_init(&queue.not_full, NULL);
	pthread_cond_init(&queue.not_empty, NULL);
	for (int i = 0; i < CALLERS; i++)
		threads[i] = thread_start(use_queue, NULL);
	canceller = thread_start(cancel_at_random, NULL);
	for (int i = 0; i < CALLERS; i++)
		thread_join(threads[i]);
	queue.over = true;
	thread_join(canceller);
	assert_int_equal(queue.put, queue.total);
	assert_int_equal(queue.taken, queue.total);
	assert_int_equal(queue.items, 0);
	assert_true(queue.cancelled > 0);
	pthread_cond_destroy(&queue.not_full);
	pthread_cond_destroy(&queue.not_empty);
	pthread_mutex_destroy(&queue.mutex);
	pthread_mutex_destroy(&queue.current_mutex);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signal_wakes_it),
		cmocka_unit_test(what_is_done_comes_first),
		cmocka_unit_test(a_cancel_wakes_it),
		cmocka_unit_test(the_deadline_ends_it),
		cmocka_unit_test(all_of_many_wake),
		cmocka_unit_test(others_wait_on),
		cmocka_unit_test(whoever_cancels_may_hold_the_mutex),
		cmocka_unit_test(a_cancel_just_before_libc_queues_it_is_seen_at_once),
		cmocka_unit_test(it_waits_for_a_cancel_at_work),
		cmocka_unit_test(it_waits_for_the_cancel_that_woke_it),
		cmocka_unit_test(it_may_return_for_no_reason),
		cmocka_unit_test(a_mutex_of_somebody_else_is_refused),
		cmocka_unit_test(a_mutex_with_priorities_will_do),
		cmocka_unit_test(a_dead_owner_is_told_of),
		cmocka_unit_test(a_lost_mutex_is_told_of),
		cmocka_unit_test(a_wake_up_that_a_call_took_in_vain_is_passed_on),
		cmocka_unit_test(so_is_one_that_a_wait_took_as_it_timed_out),
		cmocka_unit_test(what_took_none_passes_none_on),
		cmocka_unit_test(signals_change_nothing),
		cmocka_unit_test(it_is_a_cancellation_point),
		cmocka_unit_test(a_cancelled_thread_may_be_the_last_to_have_it),
		cmocka_unit_test(it_works_without_memory),
		cmocka_unit_test(processes_share_a_condition),
		cmocka_unit_test(a_fork_has_its_own_waiters),
		cmocka_unit_test(no_cancel_is_lost),
		cmocka_unit_test(no_wake_up_is_lost),
	};
	return run_all(tests);
}
