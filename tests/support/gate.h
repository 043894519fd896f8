/* SPDX-License-Identifier: MIT */
/*
 * Stops the library in the middle of its work: in the system call by which it makes a done fd readable (write, which it
 * calls by number, or ioctl; wrapped by the linker: see core.mk). For one file of a program.
 */
#ifndef GATE_H
#define GATE_H

#include <malloc.h>
#include <semaphore.h>
#include <sys/timerfd.h>

#include "harness.h"

/*
 * From now on freed memory is filled with nonsense, or not any more: who goes on with it stumbles. Where malloc can do
 * that.
 */
static inline void spoil_freed_memory(bool on)
{
#ifdef M_PERTURB
	mallopt(M_PERTURB, on ? 0x5a : 0);
#endif
}

struct stop {
	struct ctxfd *ctx; /* to be cancelled, with cause */
	int cause;
	int fd; /* where to stop: in the call that makes it readable */
	sem_t there, go;
	struct thread *thread;
};

static _Thread_local struct stop *to_stop;
/* From now on timers fire an hour late. */
static atomic_bool late_timers;

static void gate(int fd)
{
	struct stop *s = to_stop;

	if (!s || s->fd != fd)
		return;
	to_stop = NULL;
	require(sem_post(&s->there) == 0);
	while (sem_wait(&s->go) != 0)
		continue;
}

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);
int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);
int __real_timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *was);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *was);

long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (nr == SYS_write)
		gate((int)a);
	return __real_syscall(nr, a, b, c, d, e, f);
}

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	gate(fd);
	return __real_ioctl(fd, request, arg);
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *was)
{
	struct itimerspec late = *to;

	if (to->it_value.tv_sec == 0 && to->it_value.tv_nsec == 1) /* in place of the ioctl, where that is refused */
		gate(fd);
	if (late_timers)
		late.it_value.tv_sec += 3600;
	return __real_timerfd_settime(fd, flags, &late, was);
}

static void *cancel_and_stop(void *arg)
{
	struct stop *s = arg;

	to_stop = s;
	ctxfd_cancel_cause(s->ctx, s->cause);
	require(!to_stop); /* else it never came by */
	return NULL;
}

/* Returns when a thread that cancels ctx stands where it makes the fd of `at` readable. */
static void stop_at(struct stop *s, struct ctxfd *ctx, int cause, const struct ctxfd *at)
{
	*s = (struct stop){ .ctx = ctx, .cause = cause, .fd = ctxfd_done_fd(at) };
	assert_true(s->fd >= 0);
	assert_int_equal(sem_init(&s->there, 0, 0), 0);
	assert_int_equal(sem_init(&s->go, 0, 0), 0);
	s->thread = thread_start(cancel_and_stop, s);
	while (sem_wait(&s->there) != 0)
		continue;
}

static void go_on(struct stop *s)
{
	assert_int_equal(sem_post(&s->go), 0);
	thread_join(s->thread);
	sem_destroy(&s->there);
	sem_destroy(&s->go);
}

/*
 * Without SET_TICKS who makes a timerfd readable has a lock meanwhile: stopped there, it stops whoever does the same.
 */
static inline bool can_stop_timers(void)
{
	return has_set_ticks();
}

/* With `timed` every context has a deadline, far away, so that done fds are timerfds. */
static inline struct ctxfd *child_of(const struct ctxfd *parent, bool timed)
{
	struct ctxfd *ctx = timed ? ctxfd_with_timeout(parent, 3600 * CTXFD_SEC) : ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static void assert_ended(const struct ctxfd *ctx, int cause)
{
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), cause);
}

/* Somebody who comes in between. */
struct caller {
	struct ctxfd *ctx;
	int result;
	atomic_bool returned;
};

static inline void *call_cancel(void *arg)
{
	struct caller *c = arg;

	ctxfd_cancel_cause(c->ctx, -ENOENT);
	c->returned = true;
	return NULL;
}

#endif
