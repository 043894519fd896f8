/* SPDX-License-Identifier: MIT */
/*
 * Makes calls of the library fail on demand: the wrappers that the table in faults.def describes, and the one fault
 * that is armed at a time. A wrapped call of the library comes here, its plain name leads to the system.
 */
#include "faults.h"

#include <linux/futex.h>
#include <netdb.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

/* ---- Which fault is armed ---------------------------------------------------------------------------------------- */

static _Atomic int armed_id = -1, armed_errno;
static _Atomic long to_go, left;
static _Atomic bool hit;

static _Thread_local int shown; /* to this thread since it last asked */

const struct fault faults[] = {
#define CALL(type, name, parameters, arguments, failure, ...) __VA_ARGS__
#define FAULT(id, fate, when, ...)                            { #id, fate, { __VA_ARGS__ } },
#define SAFE(name, why)
#include "faults.def"
#undef FAULT
#undef CALL
};
const int fault_count = COUNT(faults);

void fault_arm(int id, int error, int nth, int times)
{
	armed_id = id;
	armed_errno = error;
	to_go = nth;
	left = times;
	hit = false;
}

bool fault_hit(void)
{
	return hit;
}

int fault_shown(void)
{
	int e = shown;

	shown = 0;
	return e;
}

static bool (*before_write)(void);

void fault_before_write(bool (*refuse)(void))
{
	before_write = refuse;
}

/* The number of a system call that is about to be made. */
static long announced(long nr)
{
	bool (*refuse)(void) = before_write;

	if (nr != SYS_write || !refuse)
		return nr;
	before_write = NULL;
	return refuse() ? -1 : nr;
}

static int64_t alarm_delay;

void fault_slow_alarms(int64_t ns)
{
	alarm_delay = ns;
}

static const struct itimerspec *slowed(const struct itimerspec *alarm)
{
	static _Thread_local struct itimerspec slow_one;
	int64_t at = now() + alarm_delay;

	if (!alarm_delay || alarm->it_value.tv_sec > 0 || alarm->it_value.tv_nsec != 1)
		return alarm;
	slow_one = *alarm;
	slow_one.it_value.tv_sec = (time_t)(at / CTXFD_SEC);
	slow_one.it_value.tv_nsec = (long)(at % CTXFD_SEC);
	return &slow_one;
}

/* The errno that this call must fail with, or 0. */
static int fault_now(int id)
{
	if (id != armed_id || atomic_fetch_sub(&to_go, 1) > 1 || atomic_fetch_sub(&left, 1) <= 0)
		return 0;
	hit = true;
	if (faults[id].fate == SHOWN)
		shown = armed_errno;
	return armed_errno;
}

/* ---- The wrappers ------------------------------------------------------------------------------------------------ */

enum {
#define CALL(type, name, parameters, arguments, failure, ...) __VA_ARGS__
#define FAULT(id, fate, when, ...)                            FAULT_##id,
#include "faults.def"
#undef FAULT
#undef CALL
};

static bool is_futex_wait(long nr, long op)
{
#ifdef SYS_futex_time64
	if (nr == SYS_futex_time64)
		return (op & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
#endif
#ifdef SYS_futex
	if (nr == SYS_futex)
		return (op & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
#endif
	return false;
}

/* What a child process does before it executes a program, and what can fail there. */
static bool is_list_of_fds(long nr, long arg)
{
	return nr == SYS_openat && strcmp((const char *)arg, "/proc/self/fd") == 0;
}

static bool is_before_exec(long nr, long arg)
{
	if (is_list_of_fds(nr, arg))
		return false;
	return nr == SYS_execve || nr == SYS_dup3 || nr == SYS_openat || nr == SYS_setpgid || nr == SYS_chdir ||
	       (nr == SYS_fcntl && arg == F_DUPFD_CLOEXEC);
}

static _Thread_local bool passing;

void fault_passing(bool now_on)
{
	passing = now_on;
}

/* See process_exec.c. */
int __clone(int (*fn)(void *arg), void *stack, int flags, void *arg, ...) __attribute__((weak));
#define __clone (__clone ? __clone : clone)

/* The harness counts these. */
void *counted_malloc(size_t size);
void counted_free(void *p);
void __wrap_free(void *p);

void __wrap_free(void *p)
{
	counted_free(p);
}

void *__wrap_calloc(size_t n, size_t size);

#define malloc counted_malloc
#define CALL(type, name, parameters, arguments, failure, ...) \
	type __wrap_##name parameters;                        \
	type __wrap_##name parameters                         \
	{                                                     \
		int e = 0;                                    \
		bool late = false;                            \
		__VA_ARGS__                                   \
		if (late)                                     \
			(void)!(name arguments);              \
		return e ? failure : name arguments;          \
	}
#define FAULT(id, fate, when, ...)          \
	if (!e && (when)) {                 \
		e = fault_now(FAULT_##id);  \
		late = e && (fate) == LATE; \
	}
#include "faults.def"

/* What some compilers make of malloc and memset: one more malloc that can fail. */
void *__wrap_calloc(size_t n, size_t size)
{
	void *p = __wrap_malloc(n * size);

	return p ? memset(p, 0, n * size) : NULL;
}
