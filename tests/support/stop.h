/* SPDX-License-Identifier: MIT */
/*
 * Stops the dispatcher, or a cancel, in the middle of its work: in the system call by which it makes a done fd readable
 * (write, called by number; wrapped by the linker: see dispatch.mk). For one file of a program, whose main calls
 * make_stop.
 */
#ifndef STOP_H
#define STOP_H

#include <semaphore.h>

#include "loop.h"

/* The thread that makes one of these readable stops there, the first time. */
static _Atomic int stop_at[2] = { -1, -1 };
static sem_t there, go;

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);

static inline void wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		continue;
}

long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (nr == SYS_write && ((int)a == stop_at[0] || (int)a == stop_at[1])) {
		stop_at[0] = stop_at[1] = -1;
		require(sem_post(&there) == 0);
		wait_for(&go);
	}
	return __real_syscall(nr, a, b, c, d, e, f);
}

static inline struct ctxfd *watching(const struct ctxfd *parent, int fd, int cause)
{
	struct ctxfd *ctx = ctxfd_with_fd(parent, fd, POLLIN, cause);

	require(ctx);
	return ctx;
}

/*
 * A run of the loop, which finds that pipe is readable and so ends *ctx, stopped as it makes that one's fd readable.
 * The thread gives what ctxfd_dispatcher_run returned.
 */
static inline struct thread *stop_as_it_fires(struct ctxfd **ctx, int pipe[2])
{
	struct thread *dispatcher;

	make_pipe(pipe);
	require(make_loop() >= 0);
	*ctx = watching(home, pipe[0], -5);
	stop_at[0] = ctxfd_done_fd(*ctx);
	require(write(pipe[1], "x", 1) == 1);
	dispatcher = thread_start(run_loop_once, NULL);
	wait_for(&there);
	return dispatcher;
}

struct note {
	_Atomic int runs;
};

static inline void count(void *arg)
{
	((struct note *)arg)->runs++;
}

/* Does not return before it is let go. */
static inline void stay(void *arg)
{
	count(arg);
	wait_for(&go);
}

static inline void make_stop(void)
{
	require(sem_init(&there, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
}

/* What a sanitizer's runtime does not bear. */
static inline void need_no_sanitizer(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip_test("the sanitizer would report how the process ends");
#endif
}

#define IN_CHILD_IF(may_run, name)                         \
	static void name##_(void **state)                  \
	{                                                  \
		may_run;                                   \
		assert_int_equal(in_child(name, NULL), 0); \
	}
#define IN_CHILD(name) IN_CHILD_IF((void)0, name)

#endif
