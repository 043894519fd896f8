/* SPDX-License-Identifier: MIT */
/*
 * What the library makes when it is first needed: by two threads at once, by a program that leaves little room, and
 * without any; and when it makes its thread anew. Each test in a child of its own. The first thread is stopped in the
 * call that makes it (dispatch.mk).
 */
#include "harness.h"

#include <semaphore.h>
#include <sys/timerfd.h>

/* More than the stack that the library gives to its thread; there is one of it in each thread. */
static _Thread_local volatile char large[1024 * 1024];

static atomic_bool to_stop;
static sem_t there, go;

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		continue;
}

static void stop_once(void)
{
	if (!atomic_exchange(&to_stop, false))
		return;
	require(sem_post(&there) == 0);
	wait_for(&go);
}

int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __real_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

int __wrap_epoll_create1(int flags)
{
	int fd = __real_epoll_create1(flags);

	stop_once();
	return fd;
}

int __wrap_timerfd_create(int clock, int flags)
{
	int fd = __real_timerfd_create(clock, flags);

	stop_once();
	return fd;
}

/* For the library's threads: whether this one stops when it has made the next. And whether it cannot make it. */
static _Thread_local bool stops_when_replaced;
static atomic_bool to_refuse;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	int err = stops_when_replaced && to_refuse ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);

	if (err)
		to_refuse = false;
	if (stops_when_replaced)
		stop_once();
	return err;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

struct first {
	struct ctxfd *ctx;
	_Atomic int runs;
	int fd;
};

static void count(void *arg)
{
	((struct first *)arg)->runs++;
	large[sizeof large - 1] = 1;
}

static void *start_it(void *arg)
{
	struct first *f = arg;

	require(ctxfd_after_func(f->ctx, count, f, NULL) == 0);
	return NULL;
}

/* Both find no dispatcher; one starts it, and there is one. */
static int one_dispatcher(void *arg)
{
	struct first f = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	int fds = count_fds(), threads = count_threads();
	struct thread *first, *second;

	to_stop = true;
	first = thread_start(start_it, &f);
	wait_for(&there);
	second = thread_start(start_it, &f);
	thread_wait_asleep(second);
	require(sem_post(&go) == 0);
	thread_join(first);
	thread_join(second);
	require(count_fds() == fds + 3);
	ctxfd_close(f.ctx);
	wait_until(f.runs == 2);
	wait_until(count_threads() == threads + 1);
	return 0;
}

static void *ask_background(void *arg)
{
	struct first *f = arg;

	f->fd = ctxfd_done_fd(ctxfd_background());
	return NULL;
}

/* One is late with the fd that it has made, and gets the other's. */
static int one_fd_that_is_never_ready(void *arg)
{
	struct first early = { .fd = -1 }, late = { .fd = -1 };
	int fds = count_fds();
	struct thread *thread;

	to_stop = true;
	thread = thread_start(ask_background, &late);
	wait_for(&there);
	ask_background(&early);
	require(early.fd >= 0);
	require(sem_post(&go) == 0);
	thread_join(thread);
	require(late.fd == early.fd);
	require(count_fds() == fds + 1);
	return 0;
}

static int no_fd_that_is_never_ready(void *arg)
{
	int fds = count_fds();

	exhaust_fds();
	errno = 0;
	require(ctxfd_done_fd(ctxfd_background()) == -EMFILE);
	require(errno == 0);
	free_fds();
	require(count_fds() == fds);
	require(ctxfd_done_fd(ctxfd_background()) >= 0);
	require(ctxfd_done_fd(ctxfd_todo()) == ctxfd_done_fd(ctxfd_background()));
	return 0;
}

/* The program has taken all that there are, so nothing can be kept for a thread that waits. */
static int a_wait_without_a_key(void *arg)
{
	int64_t start = now();
	struct ctxfd *brief = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);
	pthread_key_t key;

	while (pthread_key_create(&key, NULL) == 0)
		continue;
	require(ctxfd_poll(brief, NULL, 0, -1) == -ETIMEDOUT);
	require(now() - start >= 5 * CTXFD_MSEC);
	ctxfd_unref(brief);
	return 0;
}

static void end_thread(void *arg)
{
	stops_when_replaced = true;
	*(_Atomic pid_t *)arg = (pid_t)syscall(SYS_gettid);
	pthread_exit(NULL);
}

/* When close has returned, which would wait for a thread that is being made. */
static void end_thread_later(void *arg)
{
	wait_for(&go);
	end_thread(arg);
}

/* The second ends when the first has made it, and has not come to say so yet. There is a third one all the same. */
static int thread_ends_while_it_is_made(void *arg)
{
	struct first f = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	_Atomic pid_t first = 0, second = 0;

	require(ctxfd_after_func(f.ctx, end_thread_later, (void *)&first, NULL) == 0);
	require(ctxfd_after_func(f.ctx, end_thread, (void *)&second, NULL) == 0);
	require(ctxfd_after_func(f.ctx, count, &f, NULL) == 0);
	to_stop = true;
	ctxfd_close(f.ctx);
	require(sem_post(&go) == 0);
	wait_for(&there);
	wait_until(second != 0);
	tid_wait_asleep(second);
	require(sem_post(&go) == 0);
	wait_until(f.runs == 1);
	return 0;
}

/* The next look makes it, when the one that has ended does not count any more. */
static int thread_is_made_by_the_next_look(void *arg)
{
	struct first f = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	int threads = count_threads();
	_Atomic pid_t first = 0;

	require(ctxfd_after_func(f.ctx, end_thread_later, (void *)&first, NULL) == 0);
	require(ctxfd_after_func(f.ctx, count, &f, NULL) == 0);
	ctxfd_close(f.ctx);
	to_refuse = true;
	require(sem_post(&go) == 0);
	wait_until(!to_refuse);
	wait_until(count_threads() == threads);
	require(f.runs == 0);
	require(ctxfd_err(ctxfd_background()) == 0);
	wait_until(f.runs == 1);
	return 0;
}

#define IN_CHILD(name)                                     \
	static void name##_(void **state)                  \
	{                                                  \
		assert_int_equal(in_child(name, NULL), 0); \
	}

IN_CHILD(one_dispatcher)
IN_CHILD(one_fd_that_is_never_ready)
IN_CHILD(no_fd_that_is_never_ready)
IN_CHILD(a_wait_without_a_key)
IN_CHILD(thread_ends_while_it_is_made)
IN_CHILD(thread_is_made_by_the_next_look)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_dispatcher_),
		cmocka_unit_test(one_fd_that_is_never_ready_),
		cmocka_unit_test(no_fd_that_is_never_ready_),
		cmocka_unit_test(a_wait_without_a_key_),
		cmocka_unit_test(thread_ends_while_it_is_made_),
		cmocka_unit_test(thread_is_made_by_the_next_look_),
	};

	large[0] = 1;
	require(sem_init(&there, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
	return run_all_cold(tests);
}
