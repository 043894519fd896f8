/* SPDX-License-Identifier: MIT */
/*
 * pthread_cond_wait under a context. The wait is libc's own, since whoever signals calls libc.
 *
 * A CANCEL BROADCASTS. The waiting thread is parked in the context's list, and the walk that ends the context rings it.
 * That takes no mutex, so it does not matter who has it. Other waiters that this wakes return 0, as from any wait.
 * glibc's broadcast may wait for threads that it woke earlier, and the cancel with it. There is no other way to wake a
 * thread that waits by libc's own call, so the header tells the user.
 *
 * THE GAP. A thread is parked before it is queued at the condition, and a broadcast reaches only what is queued. The
 * thread holds the mutex until it is queued, and the canceller cannot wait for that. So the canceller first moves the
 * wait's time limit into the past, then broadcasts. If the thread is queued by then, the broadcast wakes it; if not,
 * libc finds that the time is over. This takes a libc that reads the limit after it has queued the thread. musl does,
 * and so does glibc where a pointer has 64 bits: it hands the kernel the limit's address.
 *
 * A SLICE is as long as a wait lasts at most. It bounds how late a cancel in the gap is noticed where a libc copies the
 * limit first (glibc, 32 bits), or a weakly ordered machine reads it too early. A wait that is over must return: a
 * signal that came before the mutex was held again went to nobody, and only the caller can look whether there was one.
 *
 * A WAKE-UP IS PASSED ON when the call that took it returns err. If pthread_cancel ends a wait that has taken one, libc
 * itself passes it on. If such a wait times out, only glibc does: POSIX lets the wait keep the wake-up, and musl's may.
 */
#include "calls/waiter.h"
#include "core/clock.h"
#include "core/fork.h"
#include "core/wait.h"

#define SLICE (sizeof(void *) == 8 ? CTXFD_SEC : 100 * CTXFD_MSEC)

/* ---- Time -------------------------------------------------------------------------------------------------------- */

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 30)
#define HAS_CLOCKWAIT
#endif
#endif

#ifdef HAS_CLOCKWAIT

static struct timespec limit_for(const pthread_cond_t *cond, int64_t until)
{
	(void)cond;
	return timespec_of(until);
}

static int timed_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *limit, int64_t until)
{
	(void)until;
	return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, limit);
}

#else

/*
 * Nothing tells by which clock a condition goes. So a wait gives its limit by CLOCK_MONOTONIC. If it is over too early,
 * the condition goes by CLOCK_REALTIME, to which that limit was long past: then the call returns for no reason, and
 * notes the condition here. If the thread's next wait is at this one, its limit is by CLOCK_REALTIME. It forgets the
 * note in any case, since the next condition at this address may go by the other clock.
 */
static _Thread_local const pthread_cond_t *by_realtime;

static struct timespec limit_for(const pthread_cond_t *cond, int64_t until)
{
	bool realtime = cond == by_realtime;
	int64_t left = until - ctxfd_now();
	struct timespec now;

	by_realtime = NULL;
	if (!realtime || clock_gettime(CLOCK_REALTIME, &now) != 0)
		return timespec_of(until);
	return timespec_of((int64_t)now.tv_sec * CTXFD_SEC + now.tv_nsec + left);
}

static int timed_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *limit, int64_t until)
{
	int result = pthread_cond_timedwait(cond, mutex, limit);

	/* A wait that was rung ends early, too; its limit is 0. */
	if (result == ETIMEDOUT && *(const volatile time_t *)&limit->tv_sec != 0 && ctxfd_now() < until)
		by_realtime = cond;
	return result;
}

#endif

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

/*
 * A thread that a fork has not taken along cannot be woken, and libc's broadcast would wait for it to leave.
 *
 * The limit is libc's to read, at any time. Sequentially consistent: that it is over is there to be read before the
 * broadcast looks whether anyone is queued.
 */
void ctxfdi_ring_cond(struct ctxfd *n)
{
	struct waiter *w = container_of(n, struct waiter, node);

	if (w->wait_forks != ctxfdi_forks)
		return;
	*(volatile time_t *)&w->limit.tv_sec = 0;
	(void)__atomic_exchange_n(&w->rung, true, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(w->cond);
}

static void unpark_at_exit(void *w)
{
	ctxfdi_waiter_unpark(w);
}

/*
 * Returns what libc's waits do: 0, ETIMEDOUT or another error. If a cancel has rung, ctx is done when this returns.
 */
static int wait_parked(const struct ctxfd *ctx, struct waiter *w, pthread_cond_t *cond, pthread_mutex_t *mutex,
                       int64_t until)
{
	int result = ETIMEDOUT;
	bool ended;

	w->cond = cond;
	w->wait_forks = ctxfdi_forks;
	w->limit = limit_for(cond, until);
	ended = !waiter_park(w, ctx, KIND_COND_WAIT);
	if (!ended) {
		pthread_cleanup_push(unpark_at_exit, w);
		result = timed_wait(cond, mutex, &w->limit, until);
		pthread_cleanup_pop(1);
	}
	if (ended || w->rung) /* the walk commits ctx a moment later */
		ctxfdi_await_done(node_of(ctx), INT64_MAX);
	return result;
}

static int wait_a_slice(const struct ctxfd *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	struct waiter *w = ctxfdi_waiter();
	int64_t until = ctxfd_now() + (w ? SLICE : BLIND), deadline = node_of(ctx)->deadline;
	struct timespec limit;

	if (until > deadline)
		until = deadline;
	if (w)
		return wait_parked(ctx, w, cond, mutex, until);
	limit = limit_for(cond, until);
	return timed_wait(cond, mutex, &limit, until);
}

/* Whether a wait with this result may have taken a wake-up. */
static bool may_have_taken(int result)
{
#ifdef __GLIBC__
	return result == 0;
#else
	return result == 0 || result == ETIMEDOUT;
#endif
}

int ctxfd_cond_wait(const struct ctxfd *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	int saved = errno, result, err;

	pthread_testcancel();
	if (load_word(node_of(ctx)) & CTX_NEVER)
		return -pthread_cond_wait(cond, mutex);
	err = ctxfd_err(ctx);
	if (err)
		return err;
	result = wait_a_slice(ctx, cond, mutex);
	errno = saved;
	if (result && result != ETIMEDOUT)
		return -result;
	err = ctxfd_err(ctx);
	if (err && may_have_taken(result))
		pthread_cond_signal(cond);
	return err;
}
