/* SPDX-License-Identifier: MIT */
/*
 * Schedules and calls in an order that nobody would choose, each of which has broken a promise of the dispatcher or of
 * the sources once. Each runs in a process of its own, in which the library has not been used before.
 */
#include "loop.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

static void nothing(void *arg)
{
}

static void set_flag(void *arg)
{
	*(_Atomic bool *)arg = true;
}

struct work {
	int (*fn)(void *arg);
	void *arg;
};

static int work_with_limit(void *arg)
{
	struct work *work = arg;

	alarm(10 * (unsigned)slow()); /* ends a process that hangs in fork or exit */
	return work->fn(work->arg);
}

static void in_fresh_process(int (*fn)(void *arg), void *arg)
{
	struct work work = { fn, arg };

	assert_int_equal(in_child(work_with_limit, &work), 0);
}

/* An after-func is due once this has returned. */
static void make_due(void (*fn)(void *arg), void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctx && ctxfd_after_func(ctx, fn, arg, NULL) == 0);
	ctxfd_close(ctx);
}

/* ---- A number that is not open ----------------------------------------------------------------------------------- */

static int lowest_free(void)
{
	int fd = dup(0);

	require(fd >= 0 && close(fd) == 0);
	return fd;
}

/* The library's own descriptors take the lowest free numbers, of which the one that the caller has closed is one. */
static int watch_closed(void *arg)
{
	int fd = lowest_free() + *(int *)arg;

	require(fcntl(fd, F_GETFD) < 0);
	require(!ctxfd_with_fd(ctxfd_background(), fd, POLLIN, -5) && errno == EBADF);
	require(!ctxfd_with_fd(ctxfd_background(), lowest_free(), POLLIN, -5) && errno == EBADF);
	return 0;
}

static void refuses_a_closed_number(void **state)
{
	for (int above = 0; above < 5; above++)
		in_fresh_process(watch_closed, &above);
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

static sigset_t only(int signal)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	return set;
}

static _Atomic int handled;

static void handle(int signal)
{
	handled = signal;
}

/* Before the dispatcher has found out, and nobody runs it any more. */
static int signal_after_the_end(void *arg)
{
	struct sigaction action = { .sa_handler = handle };
	struct ctxfd *parent, *ctx;
	sigset_t set = only(SIGUSR1);

	require(sigaction(SIGUSR1, &action, NULL) == 0);
	require(make_loop() >= 0);
	parent = ctxfd_with_cancel(home);
	ctx = ctxfd_with_signals(parent, &set);
	require(ctx);
	ctxfd_cancel(parent);
	require(ctxfd_err(ctx) == -ECANCELED);
	require(raise(SIGUSR1) == 0);
	require(handled == SIGUSR1);
	ctxfd_unref(ctx);
	ctxfd_unref(parent);
	return 0;
}

static void a_signal_for_nobody_alive_is_the_programs(void **state)
{
	in_fresh_process(signal_after_the_end, NULL);
}

/* Only the signalfd does not fit, so that what a dispatcher begins with is made in part. */
static int fails_once(void *arg)
{
	struct ctxfd *ctx = *(struct ctxfd **)arg;
	struct rlimit limit, low;

	require(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	low = limit;
	low.rlim_cur = (rlim_t)lowest_free() + 3;
	require(setrlimit(RLIMIT_NOFILE, &low) == 0);
	require(ctxfd_dispatcher_fd(loop) == -EMFILE);
	require(run_loop() == -EMFILE);
	require(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	require(ctxfd_dispatcher_fd(loop) >= 0);
	require(kill(getpid(), SIGUSR1) == 0);
	require(run_loop() == 1);
	require(ctxfd_cause(ctx) == SIGUSR1);
	return 0;
}

static int fork_one_that_fails(void *arg)
{
	sigset_t set = only(SIGUSR1);
	struct ctxfd *ctx;

	require(make_loop() >= 0);
	ctx = ctxfd_with_signals(home, &set);
	require(ctx);
	require(in_child(fails_once, &ctx) == 0);
	return 0;
}

static void a_failed_start_loses_no_source(void **state)
{
	in_fresh_process(fork_one_that_fails, NULL);
}

/* ---- More than fits in one round --------------------------------------------------------------------------------- */

/* Edge-triggered, a second call would have no reason to come. */
static int dispatch_many(void *arg)
{
	struct ctxfd *ctx[80];
	int fd = make_loop(), event = eventfd(0, EFD_CLOEXEC), epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };

	require(fd >= 0 && event >= 0 && epoll >= 0);
	require(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &edge) == 0);
	for (size_t i = 0; i < COUNT(ctx); i++)
		require((ctx[i] = ctxfd_with_fd(home, event, POLLIN, -5)));
	require(eventfd_write(event, 1) == 0);
	require(epoll_wait(epoll, &edge, 1, -1) == 1);
	require(run_loop() == COUNT(ctx));
	for (size_t i = 0; i < COUNT(ctx); i++) {
		require(ctxfd_cause(ctx[i]) == -5);
		ctxfd_unref(ctx[i]);
	}
	return 0;
}

static void one_dispatch_runs_all_that_is_due(void **state)
{
	in_fresh_process(dispatch_many, NULL);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

struct forker {
	int (*child)(void *arg);
	_Atomic bool done;
};

static void fork_inside(void *arg)
{
	struct forker *f = arg;

	require(in_child(f->child, NULL) == 0);
	f->done = true;
}

static int fork_in_an_after_func(void *arg)
{
	struct forker f = { .child = (int (*)(void *))(uintptr_t)arg };

	make_due(fork_inside, &f);
	wait_until(f.done);
	return 0;
}

/* As a worker that a server forks from inside an after-func, and that never returns from it. */
static int works_on(void *arg)
{
	_Atomic bool ran = false;

	make_due(set_flag, &ran);
	wait_until(ran);
	return 0;
}

static void a_child_of_an_after_func_has_a_dispatcher(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	in_fresh_process(fork_in_an_after_func, (void *)(uintptr_t)works_on);
}

static struct {
	pthread_mutex_t lock;
	_Atomic bool entered, left;
} destroying = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void destroy_under_lock(void *value)
{
	destroying.entered = true;
	pthread_mutex_lock(&destroying.lock);
	pthread_mutex_unlock(&destroying.lock);
	destroying.left = true;
}

static int returns_at_once(void *arg)
{
	return 0;
}

/* The forking thread has a lock that destroy, on the dispatcher, waits for. */
static int fork_during_destroy(void *arg)
{
	static char key;
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	const struct ctxfd *value = ctxfd_with_value(ctx, &key, &key, destroy_under_lock);

	require(ctxfd_after_func(value, nothing, NULL, NULL) == 0);
	ctxfd_unref(value);
	pthread_mutex_lock(&destroying.lock);
	ctxfd_close(ctx);
	wait_until(destroying.entered);
	require(in_child(returns_at_once, NULL) == 0);
	pthread_mutex_unlock(&destroying.lock);
	wait_until(destroying.left);
	return 0;
}

static void fork_does_not_wait_for_a_destroy(void **state)
{
	in_fresh_process(fork_during_destroy, NULL);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(refuses_a_closed_number),
	cmocka_unit_test(a_signal_for_nobody_alive_is_the_programs),
	cmocka_unit_test(a_failed_start_loses_no_source),
	cmocka_unit_test(one_dispatch_runs_all_that_is_due),
	cmocka_unit_test(a_child_of_an_after_func_has_a_dispatcher),
	cmocka_unit_test(fork_does_not_wait_for_a_destroy),
};

int main(void)
{
	return run_all_cold(tests);
}
