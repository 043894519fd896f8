/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_call: fn runs on a thread of the library's; whoever owns arg in the end gives it up once, and only once; and
 * the threads are used again, limited, and end.
 */
#include "gate.h"
#include "race.h"
#include "signal_storm.h"

#include <signal.h>
#include <sys/resource.h>

#include "calls/call.h"

/* ---- A job that the test holds in its hand ----------------------------------------------------------------------- */

struct job {
	sem_t running, go; /* fn tells that it runs, and waits to be let go */
	bool leaves;       /* fn ends its thread */
	_Atomic int runs, drops, returned;
	pid_t fn_tid, drop_tid;
	int result; /* what fn returns */
};

static pid_t my_tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		continue;
}

/* Memory of its own, as the header asks for: a thread that comes to it too late is found by the sanitizers. */
static struct job *make_job(int result)
{
	struct job *j = calloc(1, sizeof *j);

	require(j && sem_init(&j->running, 0, 0) == 0 && sem_init(&j->go, 0, 0) == 0);
	j->result = result;
	return j;
}

static int at_once(void *arg)
{
	struct job *j = arg;
	int result = j->result;
	bool leaves = j->leaves;

	j->fn_tid = my_tid();
	j->runs++; /* from here on it may be freed */
	if (leaves)
		pthread_exit(NULL);
	return result;
}

static int held(void *arg)
{
	struct job *j = arg;

	require(sem_post(&j->running) == 0);
	wait_for(&j->go);
	return at_once(j);
}

static void drop(void *arg)
{
	struct job *j = arg;

	j->drop_tid = my_tid();
	j->drops++;
}

/* A call on a thread of its own. */
struct call {
	const struct ctxfd *ctx;
	struct job *job;
	int (*fn)(void *arg);
	bool pending; /* the thread is cancelled before it */
	bool no_drop;
	int err, result;
	struct thread *thread;
};

static void *make_call(void *arg)
{
	struct call *c = arg;

	if (c->pending)
		pthread_cancel(pthread_self());
	c->result = 4711;
	c->err = ctxfd_call(c->ctx, c->fn, c->job, c->no_drop ? NULL : drop, &c->result);
	return NULL;
}

/* Returns when fn runs. */
static void start_call(struct call *c, const struct ctxfd *ctx, struct job *job)
{
	*c = (struct call){ .ctx = ctx, .job = job, .fn = held };
	c->thread = thread_start(make_call, c);
	wait_for(&job->running);
}

static int end_call(struct call *c)
{
	thread_join(c->thread);
	return c->err;
}

/* Lets an abandoned fn go: then arg is dropped, once, on the thread of fn. */
static void assert_dropped(struct job *j)
{
	assert_int_equal(j->drops, 0);
	assert_int_equal(sem_post(&j->go), 0);
	wait_until(j->drops);
	assert_int_equal(j->runs, 1);
	assert_int_equal(j->drops, 1);
	assert_int_equal(j->drop_tid, j->fn_tid);
	free(j);
}

/* The same when fn may not have begun: then it never does, and arg is dropped already. */
static void assert_given_up(struct job *j)
{
	bool begun = false;

	wait_until((begun = sem_trywait(&j->running) == 0) || j->drops);
	if (begun) {
		assert_dropped(j);
		return;
	}
	assert_int_equal(j->runs, 0);
	assert_int_equal(j->drops, 1);
	assert_int_equal(j->drop_tid, my_tid());
	free(j);
}

/* ---- What it gives ----------------------------------------------------------------------------------------------- */

static void the_result_comes_back(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	const struct ctxfd *under[] = { ctx, ctxfd_background(), ctxfd_without_cancel(ctx),
		                        ctxfd_with_value(ctx, &under, NULL, NULL), ctxfd_merge(ctx, ctxfd_todo()) };
	struct job *j = make_job(42);
	int result = 0;

	for (size_t i = 0; i < COUNT(under); i++) {
		errno = 4711;
		assert_int_equal(ctxfd_call(under[i], at_once, j, drop, &result), 0);
		assert_int_equal(errno, 4711);
		assert_int_equal(result, j->result);
		assert_int_equal(j->runs, i + 1);
		assert_int_not_equal(j->fn_tid, my_tid());
		j->result = -(int)i;
	}
	assert_int_equal(ctxfd_call(ctx, at_once, j, NULL, NULL), 0);
	assert_int_equal(j->drops, 0);
	for (size_t i = 2; i < COUNT(under); i++)
		ctxfd_unref(under[i]);
	ctxfd_close(ctx);
	free(j);
}

struct surroundings {
	char name[32];
	sigset_t blocked;
	size_t stack;
	int cancel;
};

static int look_around(void *arg)
{
	struct surroundings *s = arg;
	pthread_attr_t attr;

	require(pthread_getname_np(pthread_self(), s->name, sizeof s->name) == 0);
	require(pthread_sigmask(SIG_SETMASK, NULL, &s->blocked) == 0);
	require(pthread_getattr_np(pthread_self(), &attr) == 0);
	require(pthread_attr_getstacksize(&attr, &s->stack) == 0);
	require(pthread_attr_destroy(&attr) == 0);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &s->cancel);
	return 0;
}

static void the_thread_is_as_the_header_says(void **state)
{
	struct surroundings s;
	pthread_attr_t attr;
	size_t stack;

	assert_int_equal(pthread_attr_init(&attr), 0);
	assert_int_equal(pthread_attr_getstacksize(&attr, &stack), 0);
	assert_int_equal(ctxfd_call(ctxfd_background(), look_around, &s, NULL, NULL), 0);
	assert_string_equal(s.name, "ctxfd-call");
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && (sig < 32 || sig >= SIGRTMIN))
			assert_int_equal(sigismember(&s.blocked, sig) == 0,
			                 sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
			                         sig == SIGTRAP || sig == SIGSYS || sig == SIGABRT);
	assert_true(s.stack >= stack - 65536);
	assert_int_equal(s.cancel, PTHREAD_CANCEL_DISABLE);
	assert_int_equal(pthread_attr_destroy(&attr), 0);
}

static int call_again(void *arg)
{
	struct job *j = arg;
	int result = 0;

	require(ctxfd_call(ctxfd_background(), at_once, j, drop, &result) == 0 && result == 42);
	return j->fn_tid == my_tid();
}

static void fn_may_call(void **state)
{
	struct job *j = make_job(42);
	int result = -1;

	assert_int_equal(ctxfd_call(ctxfd_background(), call_again, j, drop, &result), 0);
	assert_int_equal(result, 0);
	assert_int_equal(j->runs, 1);
	free(j);
}

/* ---- How it ends ------------------------------------------------------------------------------------------------- */

static void a_done_context_runs_nothing(void **state)
{
	struct ctxfd *done[] = { ctxfd_with_cancel(ctxfd_background()), ctxfd_with_timeout(ctxfd_background(), 0) };
	int errs[] = { -ECANCELED, -ETIMEDOUT }, threads = count_threads();

	ctxfd_cancel(done[0]);
	for (size_t i = 0; i < COUNT(done); i++) {
		struct job *j = make_job(0);
		int result = 4711;

		assert_int_equal(ctxfd_call(done[i], at_once, j, drop, &result), errs[i]);
		assert_int_equal(j->drops, 1);
		assert_int_equal(j->drop_tid, my_tid());
		assert_int_equal(ctxfd_call(done[i], at_once, j, NULL, &result), errs[i]);
		assert_int_equal(j->runs, 0);
		assert_int_equal(result, 4711);
		assert_int_equal(count_threads(), threads);
		free(j);
		ctxfd_close(done[i]);
	}
}

/* However the context that is cancelled is related to the one that the call has. */
static void a_cancel_leaves_fn_to_itself(void **state)
{
	for (int way = 0; way < 5; way++) {
		struct ctxfd *top = ctxfd_with_cancel(ctxfd_background()),
		             *other = ctxfd_with_cancel(ctxfd_background());
		const struct ctxfd *ctx = way == 0   ? ctxfd_ref(top)
		                          : way == 1 ? ctxfd_with_value(top, &way, NULL, NULL)
		                          : way == 2 ? ctxfd_merge(top, other)
		                          : way == 3 ? ctxfd_merge(other, top)
		                                     : ctxfd_with_timeout(top, 3600 * CTXFD_SEC);
		struct job *j = make_job(0);
		struct call c;

		start_call(&c, ctx, j);
		thread_wait_asleep(c.thread);
		ctxfd_cancel_cause(top, -7);
		assert_int_equal(end_call(&c), -ECANCELED);
		assert_int_equal(c.result, 4711);
		assert_int_equal(ctxfd_cause(ctx), -7);
		/* Nothing that fn still does needs them. */
		ctxfd_unref(ctx);
		ctxfd_close(other);
		ctxfd_close(top);
		assert_dropped(j);
	}
}

static void a_deadline_leaves_fn_to_itself(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	struct job *j = make_job(0);
	int64_t deadline = 0;
	int result = 4711;

	assert_true(ctxfd_deadline(ctx, &deadline));
	assert_int_equal(ctxfd_call(ctx, held, j, drop, &result), -ETIMEDOUT);
	assert_elapsed(deadline, 0, CTXFD_SEC);
	assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
	assert_int_equal(result, 4711);
	ctxfd_close(ctx);
	assert_given_up(j);
}

/* Without drop nobody is told when fn has returned; the thread is used again. */
static void drop_may_be_missing(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct job *j = make_job(0);
	struct call c = { .ctx = ctx, .job = j, .fn = held, .no_drop = true };

	c.thread = thread_start(make_call, &c);
	wait_for(&j->running);
	ctxfd_cancel(ctx);
	assert_int_equal(end_call(&c), -ECANCELED);
	ctxfd_close(ctx);
	assert_int_equal(sem_post(&j->go), 0);
	wait_until(j->runs);
	free(j);
}

/* Before the call returns err, ctxfd_err does: ctx is only marked while a cancel is at work below it. */
static void err_is_told_when_ctx_tells_it(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *gate = ctxfd_with_cancel(ctx);
	struct job *j = make_job(0), *refused = make_job(0);
	struct call c, late;
	struct stop s;

	start_call(&c, ctx, j);
	stop_at(&s, ctx, -7, gate);
	late = (struct call){ .ctx = ctx, .job = refused, .fn = at_once };
	late.thread = thread_start(make_call, &late);
	thread_wait_asleep(c.thread);
	thread_wait_asleep(late.thread);
	assert_int_equal(ctxfd_err(ctx), 0);
	go_on(&s);
	assert_int_equal(end_call(&c), -ECANCELED);
	assert_int_equal(end_call(&late), -ECANCELED);
	assert_int_equal(refused->runs, 0);
	assert_int_equal(refused->drops, 1);
	free(refused);
	ctxfd_close(gate);
	ctxfd_close(ctx);
	assert_dropped(j);
}

/* fn returns while a cancel is at work, which has marked ctx and rung. */
static void a_result_beats_the_end(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *gate = ctxfd_with_cancel(ctx);
	struct job *j = make_job(42);
	struct call c;
	struct stop s;

	start_call(&c, ctx, j);
	stop_at(&s, ctx, -7, gate);
	assert_int_equal(sem_post(&j->go), 0);
	wait_until(j->runs);
	thread_wait_asleep(c.thread);
	go_on(&s);
	assert_int_equal(end_call(&c), 0);
	assert_int_equal(c.result, 42);
	assert_int_equal(j->drops, 0);
	assert_ended(ctx, -7);
	free(j);
	ctxfd_close(gate);
	ctxfd_close(ctx);
}

struct owner {
	struct ctxfd *ctx;
	sem_t go;
	_Atomic bool dropped;
};

static int wait_for_go(void *arg)
{
	wait_for(&((struct owner *)arg)->go);
	return 0;
}

static void give_up_context(void *arg)
{
	struct owner *o = arg;

	ctxfd_unref(o->ctx);
	o->dropped = true;
}

/* arg may be what keeps the context: when drop gives that up, the call has no need of it any more. */
static void drop_may_free_the_context(void **state)
{
	struct owner o = { .ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC) };

	assert_int_equal(sem_init(&o.go, 0, 1), 0);
	pass_time(2 * CTXFD_MSEC);
	assert_int_equal(ctxfd_call(o.ctx, wait_for_go, &o, give_up_context, NULL), -ETIMEDOUT);
	assert_true(o.dropped);
	for (int i = 0; i < rounds(200); i++) {
		o.ctx = ctxfd_with_timeout(ctxfd_background(), 30 * CTXFD_USEC);
		o.dropped = false;
		assert_int_equal(sem_post(&o.go), 0);
		if (ctxfd_call(o.ctx, wait_for_go, &o, give_up_context, NULL) == 0)
			ctxfd_unref(o.ctx);
		else
			wait_until(o.dropped);
		while (sem_trywait(&o.go) == 0)
			continue;
	}
	sem_destroy(&o.go);
}

/* ---- pthread_cancel ---------------------------------------------------------------------------------------------- */

static void a_cancelled_caller_leaves_fn_to_itself(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	const struct ctxfd *under[] = { ctx, ctxfd_background() };

	for (size_t i = 0; i < COUNT(under); i++) {
		struct job *j = make_job(0);
		struct call c;

		start_call(&c, under[i], j);
		thread_wait_asleep(c.thread);
		assert_int_equal(pthread_cancel(thread_pthread(c.thread)), 0);
		assert_ptr_equal(thread_join(c.thread), PTHREAD_CANCELED);
		assert_dropped(j);
	}
	ctxfd_close(ctx);
}

/* Its owner frees it meanwhile: then the call is the last to have it. */
static void a_cancelled_caller_gives_its_context_up(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer sees no order in what a thread does after it was cancelled in a call");
#endif
	for (int i = 0; i < rounds(50); i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct job *j = make_job(0);
		struct call c;

		start_call(&c, ctx, j);
		thread_wait_asleep(c.thread);
		assert_int_equal(pthread_cancel(thread_pthread(c.thread)), 0);
		ctxfd_unref(ctx);
		assert_ptr_equal(thread_join(c.thread), PTHREAD_CANCELED);
		assert_dropped(j);
	}
}

/* However far fn has come by then, arg is dropped or the call has told of it. */
static void a_pending_cancellation_drops_once(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	for (int i = 0; i < rounds(200); i++) {
		struct job *j = make_job(0);
		struct call c = { .ctx = ctx, .job = j, .fn = at_once, .pending = true, .err = 1 };

		c.thread = thread_start(make_call, &c);
		thread_join(c.thread);
		if (c.err == 1)
			wait_until(j->drops);
		assert_true(j->runs == 1 || j->drop_tid != j->fn_tid);
		assert_int_equal(j->drops, c.err == 1);
		free(j);
	}
	ctxfd_close(ctx);
}

/* The caller is cancelled while a walk, which has not come to it yet, holds the list that it is in. */
static void a_cancelled_caller_waits_for_the_walk(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *gate;
	struct job *j = make_job(0);
	struct call c;
	struct stop s;

	start_call(&c, ctx, j);
	thread_wait_asleep(c.thread);
	gate = ctxfd_with_cancel(ctx);
	stop_at(&s, ctx, 0, gate);
	assert_int_equal(pthread_cancel(thread_pthread(c.thread)), 0);
	thread_wait_asleep(c.thread);
	go_on(&s);
	assert_ptr_equal(thread_join(c.thread), PTHREAD_CANCELED);
	ctxfd_close(gate);
	ctxfd_close(ctx);
	assert_dropped(j);
}

/* A cancellation point, at which drop's thread is cancelled, if that is enabled. */
static void drop_in_two_steps(void *arg)
{
	struct job *j = arg;

	j->drop_tid = my_tid();
	if (j->drop_tid != j->fn_tid)
		pthread_cancel(pthread_self());
	j->drops++;
	pthread_testcancel();
	j->returned++;
}

static void *call_with_that_drop(void *arg)
{
	struct call *c = arg;
	struct ctxfd *soon = ctxfd_with_timeout(c->ctx, c->pending ? 0 : 5 * CTXFD_USEC);

	if (c->pending)
		pthread_cancel(pthread_self());
	c->err = ctxfd_call(soon, c->fn, c->job, drop_in_two_steps, NULL);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	ctxfd_close(soon);
	return NULL;
}

/* On the caller's thread: as ctx is done already, and as it ends before fn has begun. */
static void a_cancellation_does_not_cut_drop_short(void **state)
{
	int dropped = 0;

	for (int i = 0; i < 2 || i < rounds(1000); i++) {
		struct job *j = make_job(0);
		struct call c = { .ctx = ctxfd_background(), .job = j, .fn = at_once, .pending = i == 0 };

		thread_join(c.thread = thread_start(call_with_that_drop, &c));
		if (c.err)
			wait_until(j->returned);
		assert_int_equal(j->returned, j->drops);
		dropped += j->drops && j->drop_tid != j->fn_tid;
		free(j);
	}
	assert_true(dropped);
	for (int i = 0; i < CTXFD_CALL_MAX; i++) { /* and no thread was lost */
		struct job *j = make_job(0);

		assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, NULL), 0);
		free(j);
	}
}

/* ---- The threads ------------------------------------------------------------------------------------------------- */

static void a_thread_is_used_again(void **state)
{
	int64_t idle = ctxfdi_call_idle;
	struct job *j = make_job(0);
	pid_t first;

	ctxfdi_call_idle = 3600 * CTXFD_SEC;
	assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, NULL), 0);
	first = j->fn_tid;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, NULL), 0);
		assert_int_equal(j->fn_tid, first);
	}
	ctxfdi_call_idle = idle;
	assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, NULL), 0);
	free(j);
}

static void idle_threads_end(void **state)
{
	int threads = count_threads();
	struct job *jobs[8];
	struct call c[8];

	for (size_t i = 0; i < COUNT(c); i++)
		start_call(&c[i], ctxfd_background(), jobs[i] = make_job(0));
	for (size_t i = 0; i < COUNT(c); i++) {
		assert_int_equal(sem_post(&jobs[i]->go), 0);
		assert_int_equal(end_call(&c[i]), 0);
		free(jobs[i]);
	}
	wait_until(count_threads() <= threads);
}

/* fn ends its thread: the call tells of it, or drop is called all the same; and the next call has another thread. */
static void fn_may_end_its_thread(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct job *j = make_job(0);
	struct call c;
	int result = 0;

	j->leaves = true;
	assert_int_equal(ctxfd_call(ctx, at_once, j, drop, &result), 0);
	assert_int_equal(result, -ECANCELED);
	start_call(&c, ctx, j);
	ctxfd_cancel(ctx);
	assert_int_equal(end_call(&c), -ECANCELED);
	assert_int_equal(sem_post(&j->go), 0);
	wait_until(j->drops);
	j->leaves = false;
	assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, &result), 0);
	assert_int_equal(result, 0);
	assert_int_equal(j->runs, 3);
	ctxfd_close(ctx);
	free(j);
}

static void no_more_than_the_limit_run(void **state)
{
	struct job *jobs[CTXFD_CALL_MAX], *more = make_job(42);
	int result = 0;

	set_time_limit(120);
	for (int i = 0; i < CTXFD_CALL_MAX; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct call c;

		start_call(&c, ctx, jobs[i] = make_job(0));
		ctxfd_cancel(ctx);
		assert_int_equal(end_call(&c), -ECANCELED);
		ctxfd_close(ctx);
	}
	assert_int_equal(ctxfd_call(ctxfd_background(), at_once, more, drop, &result), -EAGAIN);
	assert_int_equal(more->runs, 0);
	assert_int_equal(more->drops, 0);
	assert_dropped(jobs[0]);
	wait_until(ctxfd_call(ctxfd_background(), at_once, more, drop, &result) == 0);
	assert_int_equal(result, 42);
	for (int i = 1; i < CTXFD_CALL_MAX; i++)
		assert_dropped(jobs[i]);
	free(more);
}

static void without_memory_arg_is_the_callers(void **state)
{
	struct job *j = make_job(42);
	int result = 4711;

	fail_allocation(1);
	errno = 4711;
	assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, &result), -ENOMEM);
	assert_int_equal(errno, 4711);
	assert_int_equal(result, 4711);
	assert_int_equal(j->runs + j->drops, 0);
	assert_int_equal(ctxfd_call(ctxfd_background(), at_once, j, drop, &result), 0);
	assert_int_equal(result, 42);
	free(j);
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

static void signals_do_not_end_it(void **state)
{
	struct signal_storm storm;
	struct job *j = make_job(0);
	int64_t deadline = 0;
	struct ctxfd *ctx;
	int err;

	start_signals(&storm);
	ctx = ctxfd_with_timeout(ctxfd_background(), 30 * CTXFD_MSEC);
	err = ctxfd_call(ctx, held, j, drop, NULL);
	stop_signals(&storm);
	assert_int_equal(err, -ETIMEDOUT);
	assert_true(ctxfd_deadline(ctx, &deadline));
	assert_elapsed(deadline, 0, CTXFD_SEC);
	ctxfd_close(ctx);
	assert_given_up(j);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

static int call_in_child(void *arg)
{
	struct job *abandoned = arg, *j = make_job(42);
	int result = 0;

	require(sem_post(&abandoned->go) == 0);
	for (int i = 0; i < 3; i++) {
		require(ctxfd_call(ctxfd_background(), at_once, j, drop, &result) == 0 && result == 42);
		require(j->fn_tid != abandoned->fn_tid);
	}
	require(abandoned->runs == 0 && abandoned->drops == 0);
	free(j);
	return 0;
}

/* The parent has threads that are idle, and one that is abandoned. The child has neither, and no leak. */
static void a_child_has_threads_of_its_own(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct job *j = make_job(0), *inner = make_job(42);
	int64_t idle = ctxfdi_call_idle;
	struct call c;

	ctxfdi_call_idle = CTXFD_SEC; /* long enough to be idle at the fork */
	start_call(&c, ctx, j);
	assert_int_equal(ctxfd_call(ctx, call_again, inner, drop, NULL), 0);
	ctxfd_cancel(ctx);
	assert_int_equal(end_call(&c), -ECANCELED);
	assert_int_equal(in_child(call_in_child, j), 0);
	ctxfdi_call_idle = idle;
	assert_dropped(j);
	free(inner);
	ctxfd_close(ctx);
}

static void *call_and_call(void *arg)
{
	struct job *j = make_job(0);

	while (!*(_Atomic bool *)arg)
		require(ctxfd_call(ctxfd_background(), at_once, j, drop, NULL) == 0);
	free(j);
	return NULL;
}

static int seven(void *arg)
{
	return 7;
}

/* Whatever the threads are doing. The child, made while others are inside the library, may only exec or _exit. */
static void fork_does_not_hang(void **state)
{
	_Atomic bool over = false;
	struct thread *callers[2];

	for (size_t i = 0; i < COUNT(callers); i++)
		callers[i] = thread_start(call_and_call, (void *)&over);
	for (int i = 0; i < rounds(300); i++)
		assert_int_equal(in_child(seven, NULL), 7);
	over = true;
	for (size_t i = 0; i < COUNT(callers); i++)
		thread_join(callers[i]);
}

static int cancel_it(void *arg)
{
	ctxfd_cancel(arg);
	require(ctxfd_err(arg) == -ECANCELED);
	return 0;
}

/* What the child does to its copy of a context does not reach a call that waits in the parent. */
static void a_child_may_end_what_its_parent_waits_under(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct job *j = make_job(42);
	struct call c;

	start_call(&c, ctx, j);
	thread_wait_asleep(c.thread);
	assert_int_equal(in_child(cancel_it, ctx), 0);
	assert_int_equal(sem_post(&j->go), 0);
	assert_int_equal(end_call(&c), 0);
	assert_int_equal(c.result, 42);
	free(j);
	ctxfd_close(ctx);
}

/* A function of the program's forks, on whatever thread it runs. */
struct forking {
	_Atomic pid_t child;
	bool leaves;
	sem_t running, go;
	_Atomic int drops;
};

static int fork_in_fn(void *arg)
{
	struct forking *f = arg;
	pid_t pid = fork();

	f->child = pid;
	if (pid == 0 && f->leaves)
		pthread_exit(NULL);
	return 0;
}

static int wait_before_drop(void *arg)
{
	struct forking *f = arg;

	require(sem_post(&f->running) == 0);
	wait_for(&f->go);
	return 0;
}

static void fork_in_drop(void *arg)
{
	struct forking *f = arg;
	pid_t pid = fork();

	f->drops++;
	f->child = pid;
}

static void assert_child_ends(struct forking *f)
{
	int status;

	wait_until(f->child);
	assert_int_equal(waitpid(f->child, &status, 0), f->child);
	assert_int_equal(status, 0);
	f->child = 0;
}

static void *call_until_cancelled(void *arg)
{
	struct call *c = arg;

	c->err = ctxfd_call(c->ctx, wait_before_drop, c->job, fork_in_drop, NULL);
	return NULL;
}

/* The child's only thread ends with fn, or drop, and with it the child; it has nobody to tell, and drops nothing. */
static void what_is_called_may_fork(void **state)
{
	struct ctxfd *ctx;
	struct forking f = { 0 };
	struct call c = { 0 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip_test("the sanitizer would report how the child ends");
#endif
	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind would report how the child ends");
	assert_true(sem_init(&f.running, 0, 0) == 0 && sem_init(&f.go, 0, 0) == 0);
	ctx = ctxfd_with_cancel(ctxfd_background());
	for (int leaves = 0; leaves < 2; leaves++) {
		f.leaves = leaves;
		assert_int_equal(ctxfd_call(ctx, fork_in_fn, &f, fork_in_drop, NULL), 0);
		assert_child_ends(&f);
	}
	assert_int_equal(f.drops, 0);
	c.ctx = ctx;
	c.job = (struct job *)(void *)&f;
	c.thread = thread_start(call_until_cancelled, &c);
	wait_for(&f.running);
	ctxfd_cancel(ctx);
	assert_int_equal(end_call(&c), -ECANCELED);
	assert_int_equal(sem_post(&f.go), 0);
	assert_child_ends(&f);
	assert_int_equal(f.drops, 1);
	ctxfd_close(ctx);
}

/* ---- Races ------------------------------------------------------------------------------------------------------- */

struct race {
	struct meeting start;
	struct ctxfd *ctx;
	unsigned loops;
};

static void *cancel_in_between(void *arg)
{
	struct race *r = arg;

	meet(&r->start, 2);
	dither(r->loops);
	ctxfd_cancel(r->ctx);
	return NULL;
}

static _Atomic int live_args;

static int spin(void *arg)
{
	dither(*(unsigned *)arg);
	return 42;
}

static void drop_arg(void *arg)
{
	free(arg);
	live_args--;
}

/* Every arg comes back or is dropped, however fn's return, a cancel and a deadline meet. */
static void every_arg_is_given_up_once(void **state)
{
	int results = 0, ends = 0;

	for (int i = 0; i < rounds(3000); i++) {
		struct race r = { .loops = (unsigned)(i * 911) % 600000 };
		struct thread *canceller;
		unsigned *arg = malloc(sizeof *arg);
		int result = 0, err;

		*arg = (unsigned)(i * 37) % 5000;
		live_args++;
		r.ctx = ctxfd_with_timeout(ctxfd_background(), i % 3 ? 3600 * CTXFD_SEC : (i % 100) * CTXFD_USEC);
		canceller = thread_start(cancel_in_between, &r);
		meet(&r.start, 2);
		err = ctxfd_call(r.ctx, spin, arg, drop_arg, &result);
		if (err == 0) {
			assert_int_equal(result, 42);
			drop_arg(arg);
			results++;
		} else {
			assert_int_equal(err, ctxfd_err(r.ctx));
			ends++;
		}
		thread_join(canceller);
		ctxfd_close(r.ctx);
	}
	wait_until(live_args == 0);
	printf("# %d results, %d ends\n", results, ends);
}

/* Many callers below one context, all of whom a cancel reaches. */
static void one_cancel_reaches_all(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct job *jobs[32];
	struct call c[32];

	for (size_t i = 0; i < COUNT(c); i++)
		start_call(&c[i], ctx, jobs[i] = make_job(0));
	ctxfd_cancel(ctx);
	for (size_t i = 0; i < COUNT(c); i++)
		assert_int_equal(end_call(&c[i]), -ECANCELED);
	ctxfd_close(ctx);
	for (size_t i = 0; i < COUNT(c); i++)
		assert_dropped(jobs[i]);
}

/* Last: an idle thread is left for exit to end, where leak checkers look. */
static void exit_ends_what_is_idle(void)
{
	struct job *j = make_job(0);

	ctxfdi_call_idle = 3600 * CTXFD_SEC;
	require(ctxfd_call(ctxfd_background(), at_once, j, drop, NULL) == 0);
	free(j);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_result_comes_back),
		cmocka_unit_test(the_thread_is_as_the_header_says),
		cmocka_unit_test(fn_may_call),
		cmocka_unit_test(a_done_context_runs_nothing),
		cmocka_unit_test(a_cancel_leaves_fn_to_itself),
		cmocka_unit_test(a_deadline_leaves_fn_to_itself),
		cmocka_unit_test(drop_may_be_missing),
		cmocka_unit_test(err_is_told_when_ctx_tells_it),
		cmocka_unit_test(a_result_beats_the_end),
		cmocka_unit_test(drop_may_free_the_context),
		cmocka_unit_test(a_cancelled_caller_leaves_fn_to_itself),
		cmocka_unit_test(a_cancellation_does_not_cut_drop_short),
		cmocka_unit_test(a_cancelled_caller_gives_its_context_up),
		cmocka_unit_test(a_pending_cancellation_drops_once),
		cmocka_unit_test(a_cancelled_caller_waits_for_the_walk),
		cmocka_unit_test(a_thread_is_used_again),
		cmocka_unit_test(idle_threads_end),
		cmocka_unit_test(fn_may_end_its_thread),
		cmocka_unit_test(no_more_than_the_limit_run),
		cmocka_unit_test(without_memory_arg_is_the_callers),
		cmocka_unit_test(signals_do_not_end_it),
		cmocka_unit_test(a_child_has_threads_of_its_own),
		cmocka_unit_test(fork_does_not_hang),
		cmocka_unit_test(a_child_may_end_what_its_parent_waits_under),
		cmocka_unit_test(what_is_called_may_fork),
		cmocka_unit_test(every_arg_is_given_up_once),
		cmocka_unit_test(one_cancel_reaches_all),
	};
	int code;

	ctxfdi_call_idle = CTXFD_MSEC;
	code = run_all(tests);
	exit_ends_what_is_idle();
	return code;
}
