/* SPDX-License-Identifier: MIT */
/*
 * What every test program is made with: cmocka, and after each test a check that nothing leaked.
 *
 *     static void cancel_wakes_a_waiter(void **state)
 *     {
 *             struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
 *             struct thread *waiter = thread_start(wait_for_end, ctx);
 *
 *             thread_wait_asleep(waiter);
 *             ctxfd_cancel(ctx);
 *             thread_join(waiter);
 *             ctxfd_unref(ctx);
 *     }
 *
 *     int main(void)
 *     {
 *             static const struct CMUnitTest tests[] = {
 *                     cmocka_unit_test(cancel_wakes_a_waiter),
 *             };
 *             return run_all(tests);
 *     }
 *
 * A test fails when at its end, and a moment later, there are other open fds than before it, more threads, or memory
 * that the library took and did not give back; and when it takes longer than its limit, a minute. What the library
 * keeps for the life of the process is made before the first test, and so is not taken for a leak: the fd of contexts
 * that are never done and, in programs whose main calls start_dispatcher, the dispatcher with its fds.
 *
 * Assertions, and the wait_ helpers below, are for the thread that runs the test. Other threads and forked children use
 * require, which ends the process.
 *
 * Timing: the lower bounds of what is measured are exact, the upper ones generous and multiplied by slow().
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#undef stop /* cmocka's, of no use here; the name is the tests' */

#include "ctxfd.h"

/* Tests give up one pointer as often as there are references. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic ignored "-Wuse-after-free"
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- Running --------------------------------------------------------------------------------------------------- */

/* Runs an array of struct CMUnitTest and returns main's exit code. */
#define run_all(tests) harness_run(__FILE__, tests, COUNT(tests), true)

/* The same, with nothing made in advance: for tests of what is made when. */
#define run_all_cold(tests) harness_run(__FILE__, tests, COUNT(tests), false)

/* For main, before run_all: this program's tests use the dispatcher, so its thread and fds are no leak. */
static inline void start_dispatcher(void);

/* Gives the running test `seconds` (times slow()) in all, in place of a minute. */
void set_time_limit(int seconds);

/* Ends the running test as skipped; the line says why, and is shown with the results. */
#define skip_test(...) (harness_say_skip(__VA_ARGS__), skip())

/*
 * How much slower than a plain run this one is: environment variable CTXFD_SLOW, 1 when unset, 5 under sanitizers, 20
 * under valgrind.
 */
int slow(void);

/* How often to do what a plain run does n times: n / slow(), but at least once. */
int rounds(int n);

/* Ends the process with a message unless ok: the assertion of forked children and other threads. */
#define require(ok) ((ok) ? (void)0 : harness_require_failed(#ok, __FILE__, __LINE__))

/* Makes what the library keeps for a thread that has waited for an fd, until it ends: memory and an fd. */
void make_waiter(void);

/* In place of cmocka's assert_in_range, which version 2 warns of, and whose successors version 1 lacks. */
#define assert_between(value, least, most) harness_between(value, least, most, __FILE__, __LINE__)

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

/* How many blocks of memory the library holds now. */
long live_allocations(void);

/*
 * From now on the n-th allocation of the library fails, only that one; 0: none. The end of the test puts it back to
 * none.
 */
void fail_allocation(int n);

/* Whether that has happened. */
bool allocation_failed(void);

/* ---- Time ------------------------------------------------------------------------------------------------------ */

/* CLOCK_MONOTONIC in nanoseconds, without asking the library. */
int64_t now(void);

/* What has passed since start = now() is at least `least` ns, and at most `most` ns times slow(). */
#define assert_elapsed(start, least, most) harness_elapsed(start, least, most, __FILE__, __LINE__)

/* Sleeps through EINTR. Only for work that takes time, never to wait for something. */
void pass_time(int64_t ns);

/* ---- Descriptors ----------------------------------------------------------------------------------------------- */

/* Whether poll finds POLLIN now. */
bool readable(int fd);
#define assert_readable(fd)     assert_true(readable(fd))
#define assert_not_readable(fd) assert_false(readable(fd))

/* Waits until poll finds `events`. */
#define wait_readable(fd)     harness_wait_poll(fd, POLLIN, __FILE__, __LINE__)
#define wait_poll(fd, events) harness_wait_poll(fd, events, __FILE__, __LINE__)

/* How many descriptors are open, and how many threads there are: to compare, since TSan has a thread of its own. */
int count_fds(void);
int count_threads(void);

/* All close-on-exec and blocking. [0] is the end to read from. */
void make_pipe(int fds[2]);
void make_socketpair(int fds[2]);
void close_pair(const int fds[2]);

/* A TCP connection over loopback. */
void make_connection(int fds[2]);

/* A listening TCP socket on loopback, on a free port that addr tells. */
int make_listener(struct sockaddr_in *addr);

/* A bound socket that does not listen: connecting to addr is refused as long as it is open. */
int make_refuser(struct sockaddr_in *addr);

/* A listener whose queue is full: connecting to addr hangs. Closed with close_stuck. */
struct stuck {
	struct sockaddr_in addr;
	int listener, queued[16];
};
void make_stuck(struct stuck *s);
void close_stuck(const struct stuck *s);

/*
 * Writes until the next write would block; returns how many bytes that took. The descriptor's flags are left as they
 * were.
 */
size_t fill(int fd);

/* From here until free_fds, opening any descriptor fails with EMFILE. */
void exhaust_fds(void);
void free_fds(void);

/* Whether the kernel knows TFD_IOC_SET_TICKS. If not, a timerfd is made readable by setting it to the past. */
bool has_set_ticks(void);

/* ---- Threads and processes ------------------------------------------------------------------------------------- */

struct thread;

struct thread *thread_start(void *(*fn)(void *arg), void *arg);

/* The same on a stack of that many bytes. */
struct thread *thread_start_stack(void *(*fn)(void *arg), void *arg, size_t stack);

/* Waits for its end, and returns what fn returned. */
void *thread_join(struct thread *t);
pid_t thread_tid(const struct thread *t);
pthread_t thread_pthread(const struct thread *t);

/* The library's thread, by its name; 0: there is none yet. */
pid_t find_library_thread(void);

/* Waits until the thread sleeps in the kernel, and goes on sleeping; with _in, in that system call (SYS_futex, ...). */
#define thread_wait_asleep(t)        harness_wait_asleep(thread_tid(t), -1, __FILE__, __LINE__)
#define thread_wait_asleep_in(t, nr) harness_wait_asleep(thread_tid(t), nr, __FILE__, __LINE__)
#define tid_wait_asleep(tid)         harness_wait_asleep(tid, -1, __FILE__, __LINE__)

/* Waits until cond holds, looking again and again. */
#define wait_until(cond)                                                    \
	do {                                                                \
		int64_t until_ = harness_patience();                        \
		while (!(cond))                                             \
			harness_patient(until_, #cond, __FILE__, __LINE__); \
	} while (0)

/* Runs fn in a forked child, which ends with what fn returns, and returns that; fails if the child dies otherwise. */
#define in_child(fn, arg) harness_in_child(fn, arg, __FILE__, __LINE__)

/* For a process about to die by a signal or _exit: else what it has run would not count in `make coverage`. */
void save_counts(void);

/* ---- What the macros above stand for --------------------------------------------------------------------------- */

int harness_run(const char *file, const struct CMUnitTest *tests, size_t n, bool warm);
void harness_say_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void harness_require_failed(const char *what, const char *file, int line) __attribute__((noreturn));
void harness_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void harness_between(int64_t value, int64_t least, int64_t most, const char *file, int line);
void harness_elapsed(int64_t start, int64_t least, int64_t most, const char *file, int line);
void harness_wait_poll(int fd, short events, const char *file, int line);
void harness_wait_asleep(pid_t tid, long nr, const char *file, int line);
int64_t harness_patience(void);
void harness_patient(int64_t until, const char *what, const char *file, int line);
int harness_in_child(int (*fn)(void *arg), void *arg, const char *file, int line);
void harness_nothing(void *arg);

static inline void start_dispatcher(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_after *after;

	require(ctxfd_after_func(ctx, harness_nothing, NULL, &after) == 0);
	require(ctxfd_after_stop(after));
	ctxfd_close(ctx);
}

#endif
