/* SPDX-License-Identifier: MIT */
/*
 * From pthread_cond_signal to the waiter's running again, under a context that nobody cancels. The floor waits by
 * pthread_cond_wait. The same for a word in memory; there the floor is a bare FUTEX_WAIT.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"
#include "ctxfd.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

struct place {
	const struct ctxfd *ctx; /* NULL on the floor */
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool there;
	atomic_uint word;
};

/* ---- A condition ------------------------------------------------------------------------------------------------- */

static void wait_cond(void *arg)
{
	struct place *p = arg;

	pthread_mutex_lock(&p->mutex);
	while (!p->there)
		if (p->ctx)
			bench_check(ctxfd_cond_wait(p->ctx, &p->cond, &p->mutex) == 0);
		else
			bench_check(pthread_cond_wait(&p->cond, &p->mutex) == 0);
	p->there = false;
	pthread_mutex_unlock(&p->mutex);
}

static void signal_cond(struct place *p)
{
	pthread_mutex_lock(&p->mutex);
	p->there = true;
	pthread_mutex_unlock(&p->mutex);
	pthread_cond_signal(&p->cond);
}

/* ---- A word ------------------------------------------------------------------------------------------------------ */

static void wait_word(void *arg)
{
	struct place *p = arg;

	while (!atomic_load(&p->word))
		if (p->ctx)
			bench_check(ctxfd_futex_wait(p->ctx, &p->word, 0, 0) == 0);
		else
			syscall(SYS_futex, &p->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	atomic_store(&p->word, 0);
}

static void signal_word(struct place *p)
{
	atomic_store(&p->word, 1);
	syscall(SYS_futex, &p->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

/* The waiter sleeps in another thread, under a context of its own as in a server: with a deadline. */
static void wake(struct bench *b, void (*wait)(void *), void (*signal)(struct place *), bool library)
{
	static struct place p = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	struct bench_partner *partner = bench_partner_new(wait);
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);

	p.ctx = library ? ctx : NULL;
	while (bench_more(b)) {
		bench_partner_arm(partner, &p);
		int64_t signalled = bench_now();

		signal(&p);
		int64_t woken = bench_partner_woken(partner);

		if (woken >= 0)
			bench_sample(b, (double)(woken - signalled));
		else
			bench_miss(b);
	}
	bench_check(ctxfd_err(ctx) == 0);
	bench_partner_free(partner);
	ctxfd_close(ctx);
}

#define ROW(what)                                           \
	static void what##_ctxfd(struct bench *b)           \
	{                                                   \
		wake(b, wait_##what, signal_##what, true);  \
	}                                                   \
	static void what##_floor(struct bench *b)           \
	{                                                   \
		wake(b, wait_##what, signal_##what, false); \
	}                                                   \
	BENCH("ctxfd", "signal/" #what, what##_ctxfd)       \
	BENCH("floor", "signal/" #what, what##_floor)       \
	BENCH("ctxfd", "signal-awake/" #what, what##_ctxfd) \
	BENCH("floor", "signal-awake/" #what, what##_floor)

ROW(cond)
ROW(word)
