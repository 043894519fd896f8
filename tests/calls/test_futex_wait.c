/* SPDX-License-Identifier: MIT */
/*
 * Waiting at a word under a context: woken by the word, by the context, by the deadline; and no wake-up is lost. All
 * of it once as this kernel has it, and once without futex_waitv.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>

#include "harness.h"
#include "race.h"
#include "ticks.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define FAR (3600 * CTXFD_SEC)

/* ---- The kernel -------------------------------------------------------------------------------------------------- */

/* What futex_waitv fails with, so many times; and what every other futex fails with (EINTR once). 0: it works. */
static _Atomic int refuse_waitv, refuse_futex;
static _Atomic long refusals;
/* What is done, once, by the thread that is about to sleep at the word. */
static void (*_Atomic before_sleep)(void);

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);

static bool is_futex(long nr)
{
#ifdef SYS_futex_time64
	if (nr == SYS_futex_time64)
		return true;
#endif
#ifdef SYS_futex
	if (nr == SYS_futex)
		return true;
#endif
	return false;
}

static int refusal(long nr)
{
	if (nr == SYS_futex_waitv && refuse_waitv && atomic_fetch_sub(&refusals, 1) > 0)
		return refuse_waitv;
	if (!is_futex(nr))
		return 0;
	return refuse_futex == EINTR ? atomic_exchange(&refuse_futex, 0) : refuse_futex;
}

long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	void (*call)(void) = NULL;

	if (nr == SYS_futex_waitv || is_futex(nr))
		call = atomic_exchange(&before_sleep, NULL);
	if (call)
		call();
	errno = refusal(nr);
	return errno ? -1 : __real_syscall(nr, a, b, c, d, e, f);
}

static void without_waitv(void **state)
{
	refuse_waitv = ENOSYS;
	refusals = LONG_MAX;
}

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

/* A waiter, and what it waits at. */
struct waiter {
	const struct ctxfd *ctx;
	_Atomic uint32_t word, *at; /* at: NULL for word */
	unsigned flags;
	_Atomic int result;
};

static void *wait_once(void *arg)
{
	struct waiter *w = arg;

	errno = 4711;
	w->result = ctxfd_futex_wait(w->ctx, w->at ? w->at : &w->word, 0, w->flags);
	require(errno == 4711);
	return NULL;
}

/* Until it is another word, or the context's end. */
static void *wait_for_change(void *arg)
{
	struct waiter *w = arg;

	do
		wait_once(w);
	while (w->result == 0 && atomic_load(w->at ? w->at : &w->word) == 0);
	return NULL;
}

static int wake(void *word, int n, unsigned flags)
{
	int op = flags & CTXFD_FUTEX_SHARED ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE;

#ifdef SYS_futex
	return (int)__real_syscall(SYS_futex, (long)word, op, n, 0, 0, 0);
#else
	return (int)__real_syscall(SYS_futex_time64, (long)word, op, n, 0, 0, 0);
#endif
}

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	require(ctx);
	return ctx;
}

static void it_wakes_when_the_word_changes(void **state)
{
	for (unsigned flags = 0; flags <= CTXFD_FUTEX_SHARED; flags++)
		for (int kind = 0; kind < 4; kind++) {
			struct ctxfd *ctx = child_of(ctxfd_background()), *timed = ctxfd_with_timeout(ctx, FAR);
			const struct ctxfd *detached = ctxfd_without_cancel(ctx);
			const struct ctxfd *contexts[] = { ctx, timed, detached, ctxfd_background() };
			struct waiter w = { .ctx = contexts[kind], .flags = flags };
			struct thread *thread = thread_start(wait_for_change, &w);
			int before = count_fds();

			thread_wait_asleep(thread);
			assert_int_equal(count_fds(), before);
			w.word = 1;
			wake(&w.word, 1, flags);
			thread_join(thread);
			assert_int_equal(w.result, 0);
			ctxfd_unref(detached);
			ctxfd_unref(timed);
			ctxfd_unref(ctx);
		}
}

static void it_does_not_sleep_at_another_word(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	struct waiter w = { .ctx = ctx, .word = 5 };
	int64_t start = now();

	wait_once(&w);
	assert_int_equal(w.result, 0);
	w.ctx = ctxfd_background();
	wait_once(&w);
	assert_int_equal(w.result, 0);
	assert_elapsed(start, 0, CTXFD_SEC);
	ctxfd_unref(ctx);
}

static void what_is_done_comes_first(void **state)
{
	struct ctxfd *cancelled = child_of(ctxfd_background()), *late = ctxfd_with_timeout(ctxfd_background(), 0);
	const struct ctxfd *value = ctxfd_with_value(cancelled, &late, NULL, NULL);
	struct waiter w = { .ctx = cancelled };

	ctxfd_cancel(cancelled);
	for (uint32_t word = 0; word < 2; word++) {
		w.word = word;
		w.ctx = cancelled;
		wait_once(&w);
		assert_int_equal(w.result, -ECANCELED);
		w.ctx = value;
		wait_once(&w);
		assert_int_equal(w.result, -ECANCELED);
		w.ctx = late;
		wait_once(&w);
		assert_int_equal(w.result, -ETIMEDOUT);
	}
	ctxfd_unref(value);
	ctxfd_unref(cancelled);
	ctxfd_unref(late);
}

static void bad_arguments_are_refused(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	const struct ctxfd *contexts[] = { ctx, ctxfd_background() };
	_Atomic uint32_t words[2] = { 0 };
	void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(page, MAP_FAILED);
	for (int i = 0; i < 2; i++)
		for (unsigned flags = 0; flags <= CTXFD_FUTEX_SHARED; flags++) {
			assert_int_equal(ctxfd_futex_wait(contexts[i], (char *)words + 1, 0, flags), -EINVAL);
			assert_int_equal(ctxfd_futex_wait(contexts[i], (char *)words + 2, 0, flags), -EINVAL);
			assert_int_equal(ctxfd_futex_wait(contexts[i], words, 0, flags | 2), -EINVAL);
			assert_int_equal(ctxfd_futex_wait(contexts[i], words, 0, flags | 1U << 31), -EINVAL);
			assert_int_equal(ctxfd_futex_wait(contexts[i], page, 0, flags), -EFAULT);
			assert_int_equal(ctxfd_futex_wait(contexts[i], NULL, 0, flags), -EFAULT);
		}
	munmap(page, 4096);
	ctxfd_unref(ctx);
}

static void a_cancel_wakes_it(void **state)
{
	for (int depth = 0; depth < 3; depth++)
		for (int kind = 0; kind < 5; kind++) {
			struct ctxfd *root = ctxfd_with_timeout(ctxfd_background(), kind % 2 ? FAR : INT64_MAX);
			struct ctxfd *other = child_of(ctxfd_background()), *mid = child_of(root);
			struct ctxfd *leaf = kind < 3    ? child_of(mid)
			                     : kind == 3 ? ctxfd_merge(mid, other)
			                                 : ctxfd_merge(other, mid);
			const struct ctxfd *value = ctxfd_with_value(leaf, &root, NULL, NULL);
			struct waiter w = { .ctx = kind == 2 ? value : leaf,
				            .flags = (unsigned)kind & CTXFD_FUTEX_SHARED };
			struct thread *thread = thread_start(wait_for_change, &w);

			thread_wait_asleep(thread);
			ctxfd_cancel((struct ctxfd *[]){ leaf, mid, root }[depth]);
			thread_join(thread);
			assert_int_equal(w.result, -ECANCELED);
			ctxfd_unref(value);
			ctxfd_unref(leaf);
			ctxfd_unref(mid);
			ctxfd_unref(other);
			ctxfd_unref(root);
		}
}

static void the_deadline_ends_it(void **state)
{
	for (int i = 0; i < 3; i++) {
		int64_t at = now() + 20 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at), *child = child_of(ctx);
		struct waiter w = { .ctx = i ? child : ctx, .flags = (unsigned)i & CTXFD_FUTEX_SHARED };

		wait_for_change(&w);
		assert_int_equal(w.result, -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

static void it_sleeps_on_while_others_end(void **state)
{
	struct ctxfd *root = child_of(ctxfd_background()), *ctx = child_of(root), *below = child_of(ctx);
	struct waiter w = { .ctx = ctx };
	struct thread *thread = thread_start(wait_for_change, &w);

	thread_wait_asleep(thread);
	ctxfd_cancel(below);
	for (int i = 0; i < 1000; i++)
		ctxfd_close(child_of(i % 2 ? ctx : root));
	assert_true(ctxfd_done_fd(ctx) >= 0);
	thread_wait_asleep(thread);
	assert_int_equal(w.result, 0);
	ctxfd_cancel(ctx);
	thread_join(thread);
	assert_int_equal(w.result, -ECANCELED);
	ctxfd_unref(below);
	ctxfd_unref(ctx);
	ctxfd_unref(root);
}

/* What is done between the look at the context and the sleep. */
static struct ctxfd *between;

static void cancel_between(void)
{
	ctxfd_cancel(between);
}

static void make_a_child_between(void)
{
	ctxfd_close(ctxfd_with_timeout(between, FAR));
	ctxfd_done_fd(between);
}

static void a_cancel_just_before_the_sleep_is_seen(void **state)
{
	struct waiter w = { .ctx = between = child_of(ctxfd_background()) };

	before_sleep = cancel_between;
	wait_for_change(&w);
	assert_int_equal(w.result, -ECANCELED);
	ctxfd_unref(between);
}

/* The context's word is another, and the caller's is not: it sleeps. */
static void a_child_just_before_the_sleep_changes_nothing(void **state)
{
	struct waiter w = { .ctx = between = child_of(ctxfd_background()) };
	struct thread *thread;

	before_sleep = make_a_child_between;
	thread = thread_start(wait_once, &w);
	thread_wait_asleep(thread);
	ctxfd_cancel(between);
	thread_join(thread);
	assert_int_equal(w.result, -ECANCELED);
	ctxfd_unref(between);
}

/* ---- Signals, pthread_cancel ------------------------------------------------------------------------------------- */

static void signals_change_nothing(void **state)
{
	static const int flags[] = { 0, SA_RESTART };

	for (size_t i = 0; i < COUNT(flags); i++) {
		int64_t at = now() + 50 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);
		struct waiter w = { .ctx = ctx };

		start_ticks(200 * CTXFD_USEC, flags[i]);
		wait_once(&w);
		stop_ticks();
		assert_int_equal(w.result, -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_unref(ctx);
	}
}

/* Where only the word is waited for. */
static void a_signal_does_not_end_what_has_no_end(void **state)
{
	struct waiter w = { .ctx = ctxfd_background() };
	struct thread *thread;

	refuse_futex = EINTR;
	thread = thread_start(wait_once, &w);
	thread_wait_asleep(thread);
	assert_int_equal(refuse_futex, 0);
	wait_until(wake(&w.word, 1, 0) == 1);
	thread_join(thread);
	assert_int_equal(w.result, 0);
}

static void *wait_with_a_cancel_pending(void *arg)
{
	pthread_cancel(pthread_self());
	wait_once(arg);
	require(((struct waiter *)arg)->result == -ETIMEDOUT);
	return NULL;
}

static void it_is_no_cancellation_point(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 30 * CTXFD_MSEC);
	struct waiter w = { .ctx = ctx };

	assert_null(thread_join(thread_start(wait_with_a_cancel_pending, &w)));
	ctxfd_unref(ctx);
}

/* ---- Processes --------------------------------------------------------------------------------------------------- */

struct shared {
	_Atomic uint32_t word;
};

static struct shared *share(void)
{
	struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(s, MAP_FAILED);
	return s;
}

static int wait_in_child(struct shared *s, const struct ctxfd *ctx)
{
	struct waiter w = { .ctx = ctx, .at = &s->word, .flags = CTXFD_FUTEX_SHARED };

	wait_for_change(&w);
	return -w.result;
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void processes_wake_each_other(void **state)
{
	struct shared *s = share();
	struct ctxfd *ctx = child_of(ctxfd_background()), *timed = ctxfd_with_timeout(ctx, 50 * CTXFD_MSEC);
	const struct ctxfd *contexts[] = { ctx, ctxfd_background(), timed };

	for (size_t i = 0; i < COUNT(contexts); i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(wait_in_child(s, contexts[i]));
		if (contexts[i] == timed) {
			assert_int_equal(end_of(pid), ETIMEDOUT);
			continue;
		}
		wait_until(wake(&s->word, 1, CTXFD_FUTEX_SHARED) == 1);
		s->word = 1;
		wake(&s->word, 1, CTXFD_FUTEX_SHARED);
		assert_int_equal(end_of(pid), 0);
		s->word = 0;
	}
	munmap(s, sizeof *s);
	ctxfd_unref(timed);
	ctxfd_unref(ctx);
}

static int cancel_in_child(void *arg)
{
	struct waiter w = { .ctx = arg };
#ifdef __SANITIZE_THREAD__ /* cannot start threads here */
	ctxfd_cancel(arg);
	wait_for_change(&w);
#else
	struct thread *thread = thread_start(wait_for_change, &w);

	thread_wait_asleep(thread);
	ctxfd_cancel(arg);
	thread_join(thread);
#endif
	return w.result == -ECANCELED ? 0 : 1;
}

/* A cancel in the child wakes the child's waiters, and not the parent's. */
static void a_fork_has_its_own_waiters(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	struct waiter w = { .ctx = ctx };
	struct thread *thread = thread_start(wait_for_change, &w);

	thread_wait_asleep(thread);
	assert_int_equal(in_child(cancel_in_child, ctx), 0);
	thread_wait_asleep(thread);
	assert_int_equal(w.result, 0);
	ctxfd_cancel(ctx);
	thread_join(thread);
	assert_int_equal(w.result, -ECANCELED);
	ctxfd_unref(ctx);
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

enum { WAITERS = 3 };

struct race {
	struct meeting start, end;
	struct ctxfd *ctx;
	int rounds;
	atomic_int number, woken;
	_Atomic uint32_t word;
};

static void *keep_waiting(void *arg)
{
	struct race *r = arg;
	int me = atomic_fetch_add(&r->number, 1), result;

	for (int i = 0; i < r->rounds; i++) {
		meet(&r->start, WAITERS + 1);
		dither((unsigned)(i * (me + 1)) % 211);
		while ((result = ctxfd_futex_wait(r->ctx, &r->word, 0, 0)) == 0)
			continue;
		require(result == -ECANCELED && ctxfd_err(r->ctx) == -ECANCELED);
		meet(&r->end, WAITERS + 1);
	}
	return NULL;
}

/* A cancel that is lost shows as a test that does not end. */
static void no_cancel_is_lost(void **state)
{
	static struct race r;
	struct thread *threads[WAITERS];

	r = (struct race){ .rounds = rounds(refuse_waitv ? 100 : 5000) };
	for (int i = 0; i < WAITERS; i++)
		threads[i] = thread_start(keep_waiting, &r);
	for (int i = 0; i < r.rounds; i++) {
		r.ctx = i % 3 ? ctxfd_with_timeout(ctxfd_background(), FAR) : child_of(ctxfd_background());
		meet(&r.start, WAITERS + 1);
		dither((unsigned)i % 997);
		ctxfd_cancel(r.ctx);
		meet(&r.end, WAITERS + 1);
		ctxfd_unref(r.ctx);
	}
	for (int i = 0; i < WAITERS; i++)
		thread_join(threads[i]);
}

static void *wait_in_rounds(void *arg)
{
	struct race *r = arg;

	for (int i = 0; i < r->rounds; i++) {
		meet(&r->start, 2);
		r->woken = ctxfd_futex_wait(r->ctx, &r->word, 0, 0) == 0;
		meet(&r->end, 2);
	}
	return NULL;
}

static void pin(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	require(sched_setaffinity(tid, sizeof set, &set) == 0);
}

/* Both come at once; on one CPU, so that the waiter finds both when it runs again. */
static void a_wake_up_that_counted_it_is_not_taken_in_vain(void **state)
{
	static struct race r;
	struct thread *thread;
	int counted = 0, cpu = sched_getcpu();
	cpu_set_t all;

	require(sched_getaffinity(0, sizeof all, &all) == 0);
	r = (struct race){ .rounds = rounds(2000) };
	thread = thread_start(wait_in_rounds, &r);
	pin(0, cpu);
	pin(thread_tid(thread), cpu);
	for (int i = 0; i < r.rounds; i++) {
		int n;

		r.ctx = child_of(ctxfd_background());
		r.woken = -1;
		meet(&r.start, 2);
		for (int k = 0; k < i % 4; k++)
			sched_yield();
		if (i % 3 == 0)
			ctxfd_cancel(r.ctx);
		n = wake(&r.word, 1, 0);
		ctxfd_cancel(r.ctx);
		meet(&r.end, 2);
		counted += n;
		require(n <= r.woken); /* woken may be for no reason */
		ctxfd_unref(r.ctx);
	}
	thread_join(thread);
	require(sched_setaffinity(0, sizeof all, &all) == 0);
	assert_true(counted > 0);
}

/* ---- What the kernel refuses ------------------------------------------------------------------------------------- */

static int wait_for_both_ends(void *arg)
{
	int64_t at = now() + 40 * CTXFD_MSEC;
	struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);
	struct waiter w = { .ctx = ctx };

	wait_for_change(&w);
	require(w.result == -ETIMEDOUT && now() >= at);
	ctxfd_unref(ctx);
	w.ctx = ctx = child_of(ctxfd_background());
	before_sleep = cancel_between;
	between = ctx;
	wait_for_change(&w);
	require(w.result == -ECANCELED);
	ctxfd_unref(ctx);
	w.word = 1;
	w.ctx = ctxfd_background();
	wait_once(&w);
	require(w.result == 0);
	return 0;
}

static void whatever_is_refused_it_ends(void **state)
{
	static const int waitv[] = { ENOSYS, EPERM, EACCES, ENOMEM, EINVAL }, futex[] = { 0, ENOSYS, EPERM };

	for (size_t i = 0; i < COUNT(waitv); i++)
		for (size_t k = 0; k < COUNT(futex); k++)
			for (long n = 1; n < 1000; n += 997) {
				refuse_waitv = waitv[i];
				refusals = n;
				refuse_futex = futex[k];
				assert_int_equal(in_child(wait_for_both_ends, NULL), 0);
			}
	refuse_waitv = refuse_futex = 0;
}

#define TESTS                                                                                                      \
	cmocka_unit_test(it_wakes_when_the_word_changes), cmocka_unit_test(it_does_not_sleep_at_another_word),     \
	        cmocka_unit_test(what_is_done_comes_first), cmocka_unit_test(bad_arguments_are_refused),           \
	        cmocka_unit_test(a_cancel_wakes_it), cmocka_unit_test(the_deadline_ends_it),                       \
	        cmocka_unit_test(it_sleeps_on_while_others_end),                                                   \
	        cmocka_unit_test(a_cancel_just_before_the_sleep_is_seen),                                          \
	        cmocka_unit_test(a_child_just_before_the_sleep_changes_nothing),                                   \
	        cmocka_unit_test(signals_change_nothing), cmocka_unit_test(a_signal_does_not_end_what_has_no_end), \
	        cmocka_unit_test(it_is_no_cancellation_point), cmocka_unit_test(processes_wake_each_other),        \
	        cmocka_unit_test(a_fork_has_its_own_waiters), cmocka_unit_test(no_cancel_is_lost),                 \
	        cmocka_unit_test(a_wake_up_that_counted_it_is_not_taken_in_vain)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_is_refused_it_ends),
		TESTS,
		cmocka_unit_test(without_waitv),
		TESTS,
	};
	return run_all(tests);
}
