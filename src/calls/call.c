/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_call: a function that nothing can interrupt runs on a thread of the library's, so that its caller need not stay
 * for it.
 *
 * A WORKER is such a thread and its record. Either it is in the pool's list of idle ones; or one call has it, from
 * `take_worker` to `release`, until fn has returned; or fn still runs and the call has left it: it is abandoned, and
 * the thread itself releases it. The worker's state decides, under its lock, who was first: the call that leaves, or fn
 * as it begins and as it returns.
 *
 * THE CALLER waits on a condition variable, so that pthread_cancel reaches it. What wakes it is the thread, when fn has
 * returned; the deadline, as the wait's own limit; or a cancel of ctx, which rings the node that is parked below ctx
 * meanwhile. The node lies in the worker's record, and is out of the tree before that goes to the next call. The thread
 * itself never touches the tree: an abandoned one knows fn, arg and drop, and holds nothing that the program may free.
 *
 * LOCKS. pool.lock guards the pool, except `stuck`. A worker's lock guards its state, result, gone and rung. What is
 * called the job's is written by the call before the state says READY. Nobody holds two locks. None is held while
 * memory is allocated, a thread is made, something is done in the tree, or a function of the program runs; so a fork
 * can take pool.lock.
 */
#include "calls/call.h"

#include <sys/prctl.h>

#include "core/clock.h"
#include "core/fork.h"
#include "core/own.h"
#include "core/thread.h"
#include "core/thread_cancel.h"
#include "core/tree.h"

struct worker {
	struct ctxfd node;   /* the call's, below its ctx */
	struct worker *next; /* in one of the pool's lists */
	pthread_t thread;    /* fixed */
	uint32_t forks;      /* ctxfdi_forks of the process that made it; fixed */
	pthread_mutex_t lock;
	pthread_cond_t wake;   /* for the thread: there is a job */
	pthread_cond_t caller; /* fn has returned, or a cancel has rung */
	enum state {
		NO_JOB,    /* idle; or a call has it, before it gives it a job or when it leaves */
		READY,     /* there is a job, and the thread has not seen it yet */
		RUNNING,   /* fn runs, and its call waits for it */
		FINISHED,  /* fn has returned, and the call has not seen it yet */
		ABANDONED, /* fn runs, and nobody waits for it */
		ENDING,    /* exit ends the thread */
	} state;
	bool parked; /* the node is; the call's alone */
	bool rung;   /* a cancel has come to the node */
	bool gone;   /* fn has ended the thread */
	int result;
	int (*fn)(void *arg);    /* the job's */
	void (*drop)(void *arg); /* the job's */
	void *arg;               /* the job's */
};

static struct {
	pthread_mutex_t lock;
	struct worker *idle;  /* last in, first out, so that those that are not needed stay idle, and end */
	struct worker *spare; /* records whose threads stayed behind in the parent of a fork */
	struct worker *stuck; /* which have not ended in time at exit; exit's alone. Only so that they are not leaks */
	unsigned jobs;        /* workers that are taken or abandoned */
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

_Atomic int64_t ctxfdi_call_idle = 5 * CTXFD_SEC;

/* ---- The pool ---------------------------------------------------------------------------------------------------- */

/* Whether this is the child of a fork that came later than w: nobody waits here, and w is nobody's. */
static bool is_elsewhere(const struct worker *w)
{
	return w->forks != ctxfdi_forks;
}

/*
 * On the thread on which the job has come to its end, whichever that is. With pthread_cancel off (fn may have switched
 * it on, on the library's thread too): if it cut drop short, arg and the worker would be lost.
 */
static void call_drop(void (*drop)(void *arg), void *arg)
{
	struct thread_cancel before = thread_cancel_off();

	if (drop)
		drop(arg);
	thread_cancel_restore(before);
}

/* Gives back a worker that has no job. */
static void release(struct worker *w)
{
	bool gone = w->gone;

	if (is_elsewhere(w))
		return;
	pthread_mutex_lock(&pool.lock);
	pool.jobs--;
	if (!gone) {
		w->next = pool.idle;
		pool.idle = w;
	}
	pthread_mutex_unlock(&pool.lock);
	if (gone)
		free(w);
}

/* Drops the job of a worker, which nobody waits for any more, and gives the worker back. */
static void drop_job(struct worker *w)
{
	call_drop(w->drop, w->arg);
	release(w);
}

/* Takes w out of the idle list. False: a call has it. */
static bool leave_pool(struct worker *w)
{
	struct worker **p = &pool.idle;
	bool found;

	pthread_mutex_lock(&pool.lock);
	while (*p && *p != w)
		p = &(*p)->next;
	found = *p;
	if (found)
		*p = w->next;
	pthread_mutex_unlock(&pool.lock);
	return found;
}

/* ---- The thread -------------------------------------------------------------------------------------------------- */

/* Under w's lock, which is given back meanwhile. False: for a while nothing has come, and w is out of the pool. */
static bool await_wake(struct worker *w)
{
	struct timespec limit =
	        timespec_of(ctxfd_now() + atomic_load_explicit(&ctxfdi_call_idle, memory_order_relaxed));
	bool left;

	if (pthread_cond_timedwait(&w->wake, &w->lock, &limit) == 0)
		return true;
	pthread_mutex_unlock(&w->lock);
	left = leave_pool(w);
	if (!left)
		pthread_mutex_lock(&w->lock);
	return !left;
}

/* False: there will be no job any more. */
static bool await_job(struct worker *w)
{
	bool job;

	pthread_mutex_lock(&w->lock);
	while (w->state != READY && w->state != ENDING)
		if (!await_wake(w)) {
			pthread_detach(pthread_self());
			free(w);
			return false;
		}
	job = w->state == READY;
	if (job)
		w->state = RUNNING;
	pthread_mutex_unlock(&w->lock);
	return job;
}

static void job_ends(struct worker *w, int result, bool gone)
{
	bool abandoned;

	pthread_mutex_lock(&w->lock);
	abandoned = w->state == ABANDONED;
	w->state = abandoned ? NO_JOB : FINISHED;
	w->result = result;
	w->gone = gone;
	pthread_cond_signal(&w->caller);
	pthread_mutex_unlock(&w->lock); /* from here on w is the call's, unless it has abandoned it */
	if (abandoned)
		drop_job(w);
}

static void thread_ends(void *arg)
{
	struct worker *w = arg;

	if (is_elsewhere(w))
		return;
	pthread_detach(pthread_self());
	job_ends(w, -ECANCELED, true);
}

static void *run_jobs(void *arg)
{
	struct worker *w = arg;
	int result;

	prctl(PR_SET_NAME, "ctxfd-call");
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	while (!is_elsewhere(w) && await_job(w)) {
		pthread_cleanup_push(thread_ends, w);
		result = w->fn(w->arg);
		pthread_cleanup_pop(false);
		if (!is_elsewhere(w))
			job_ends(w, result, false);
	}
	return NULL;
}

/* ---- Taking one -------------------------------------------------------------------------------------------------- */

static _Atomic bool calls_end_at_exit;

static void end_threads(void);

static int start_thread(struct worker *w)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, &attr);
	pthread_cond_init(&w->caller, &attr);
	pthread_condattr_destroy(&attr);
	w->state = NO_JOB;
	w->gone = false;
	w->forks = ctxfdi_forks;
	ctxfdi_at_exit(&calls_end_at_exit, end_threads);
	return ctxfdi_thread_create(&w->thread, run_jobs, w);
}

/* Makes a worker of a spare record, or of a new one if that is NULL, for a job that is counted. 0 or -errno. */
static int make_worker(struct worker *spare, struct worker **made)
{
	struct worker *w = spare ? spare : malloc_quietly(sizeof *w);
	int err = w ? start_thread(w) : -ENOMEM;

	if (!err) {
		*made = w;
		return 0;
	}
	pthread_mutex_lock(&pool.lock);
	pool.jobs--;
	pthread_mutex_unlock(&pool.lock);
	free(w);
	return err;
}

static struct worker *pop(struct worker **list)
{
	struct worker *w = *list;

	if (w)
		*list = w->next;
	return w;
}

/* A worker that waits for its job: 0 or -errno. */
static int take_worker(struct worker **taken)
{
	struct worker *spare = NULL;
	bool full;

	*taken = NULL;
	pthread_mutex_lock(&pool.lock);
	full = pool.jobs == CTXFD_CALL_MAX;
	if (!full) {
		pool.jobs++;
		*taken = pop(&pool.idle);
		if (!*taken)
			spare = pop(&pool.spare);
	}
	pthread_mutex_unlock(&pool.lock);
	return full ? -EAGAIN : *taken ? 0 : make_worker(spare, taken);
}

/* ---- The call ---------------------------------------------------------------------------------------------------- */

void ctxfdi_ring_call(struct ctxfd *n)
{
	struct worker *w = container_of(n, struct worker, node);

	if (is_elsewhere(w))
		return;
	pthread_mutex_lock(&w->lock);
	w->rung = true;
	pthread_cond_signal(&w->caller);
	pthread_mutex_unlock(&w->lock);
}

/* False: ctx has ended, or is about to. */
static bool park(struct worker *w, const struct ctxfd *ctx)
{
	bool never = has_flag(node_of(ctx), CTX_NEVER);

	w->rung = false;
	w->parked = !never && ctxfdi_park(&w->node, ctx, KIND_CALLING);
	return w->parked || never;
}

/* When this returns, a cancel that rings w has done so. */
static void unpark(struct worker *w)
{
	struct ctxfd *dead = w->parked ? ctxfdi_unpark(&w->node) : NULL;

	if (dead)
		ctxfdi_dispose(dead);
}

static void start_job(struct worker *w, int (*fn)(void *arg), void *arg, void (*drop)(void *arg))
{
	pthread_mutex_lock(&w->lock);
	w->fn = fn;
	w->arg = arg;
	w->drop = drop;
	w->state = READY;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

/* The call leaves. Returns the state that it found. RUNNING: w and arg are the thread's now; else the call's. */
static enum state leave_job(struct worker *w)
{
	enum state state;

	pthread_mutex_lock(&w->lock);
	state = w->state;
	w->state = state == RUNNING ? ABANDONED : NO_JOB;
	pthread_mutex_unlock(&w->lock);
	return state;
}

/* pthread_cancel has ended the wait, which has w's lock. */
static void caller_ends(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_unlock(&w->lock);
	unpark(w);
	if (leave_job(w) != RUNNING)
		drop_job(w);
}

/* Waits until fn has returned (true), ctx is cancelled, or its deadline has come. */
static bool await_end(struct worker *w, int64_t deadline)
{
	struct timespec limit = timespec_of(deadline);
	bool finished;
	int err = 0;

	pthread_mutex_lock(&w->lock);
	pthread_cleanup_push(caller_ends, w);
	while (w->state != FINISHED && !w->rung && !err)
		err = deadline == INT64_MAX ? pthread_cond_wait(&w->caller, &w->lock)
		                            : pthread_cond_timedwait(&w->caller, &w->lock, &limit);
	pthread_cleanup_pop(false);
	finished = w->state == FINISHED;
	pthread_mutex_unlock(&w->lock);
	return finished;
}

/* ctx has ended, or is about to, and fn will not run. */
static int refuse(const struct ctxfd *ctx, void *arg, void (*drop)(void *arg))
{
	int err = ctxfd_wait(ctx);

	call_drop(drop, arg);
	return err;
}

int ctxfd_call(const struct ctxfd *ctx, int (*fn)(void *arg), void *arg, void (*drop)(void *arg), int *result)
{
	struct worker *w;
	bool finished;
	int err;

	if (ctxfd_err(ctx) != 0)
		return refuse(ctx, arg, drop);
	err = take_worker(&w);
	if (err)
		return err;
	if (!park(w, ctx)) {
		release(w);
		return refuse(ctx, arg, drop);
	}
	start_job(w, fn, arg, drop);
	finished = await_end(w, node_of(ctx)->deadline);
	unpark(w);
	/* While arg is still the call's: drop may give up what keeps ctx. */
	err = finished ? 0 : ctxfd_wait(ctx);
	switch (leave_job(w)) {
	case FINISHED:
		if (result)
			*result = w->result;
		release(w);
		return 0;
	case READY:
		drop_job(w);
		return err;
	default:
		return err;
	}
}

/* ---- Fork and exit ----------------------------------------------------------------------------------------------- */

void ctxfdi_calls_before_fork(void)
{
	pthread_mutex_lock(&pool.lock);
}

void ctxfdi_calls_after_fork(void)
{
	pthread_mutex_unlock(&pool.lock);
}

/* The threads are the parent's. The records of those that were idle are nobody's. */
void ctxfdi_calls_after_fork_in_child(void)
{
	struct worker *w;

	pool.jobs = 0;
	while ((w = pop(&pool.idle))) {
		w->next = pool.spare;
		pool.spare = w;
	}
	pthread_mutex_unlock(&pool.lock);
}

/* At exit: see core/thread.h. What is at work is left alone. */
static void end_threads(void)
{
	struct timespec limit = ctxfdi_join_limit(EXIT_WAITS);
	struct worker *idle, *w;

	atomic_store_explicit(&calls_end_at_exit, false, memory_order_relaxed); /* a handler may start another */
	pthread_mutex_lock(&pool.lock);
	idle = pool.idle;
	pool.idle = NULL;
	pthread_mutex_unlock(&pool.lock);
	for (w = idle; w; w = w->next) {
		pthread_mutex_lock(&w->lock);
		w->state = ENDING;
		pthread_cond_signal(&w->wake);
		pthread_mutex_unlock(&w->lock);
	}
	while ((w = pop(&idle)))
		if (ctxfdi_thread_join(w->thread, &limit)) {
			free(w);
		} else {
			w->next = pool.stuck;
			pool.stuck = w;
		}
}
