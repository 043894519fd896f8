/* SPDX-License-Identifier: MIT */
/*
 * Who dispatches: nobody yet, the library's thread, which is a loop around dispatcher_serve, or the program's own loop
 * once it has asked for the epoll set (ctxfd_dispatch_fd): then there is no thread. How one follows another, and what
 * fork and exit do.
 */
#include "dispatch.h"

#include <limits.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Whoever changes dispatcher.mode has this, but for stop_thread; it comes before the dispatcher's lock. */
static pthread_mutex_t mode_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread; /* set under mode_lock, before mode is THREAD; joined by whoever takes `ended` back */
static bool ended;       /* the thread has; under the dispatcher's lock */
static _Thread_local bool on_dispatcher_thread; /* the library's */

/* Of the stack of the library's thread, on which the program's functions run. */
#define STACK_SIZE (256 * 1024)

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Under the lock. */
static void close_fds(void)
{
	close_fd(&dispatcher.epoll);
	close_fd(&dispatcher.wake);
	close_fd(&dispatcher.timer);
	close_fd(&dispatcher.signals);
	dispatcher.woken = false;
	dispatcher.armed = INT64_MAX;
}

/*
 * The child has no dispatcher, and the parent's epoll set is not its to use. What was due or waited for is kept for the
 * dispatcher that the child starts with its first call that needs one. fork waits until the dispatcher is not inside
 * the library, so that no lock on a context is left behind.
 */
static void before_fork(void)
{
	struct entry entry;

	pthread_mutex_lock(&mode_lock);
	pthread_mutex_lock(&dispatcher.lock);
	entry = enter();
	while (dispatcher.inside && !pthread_equal(dispatcher.thread, pthread_self()))
		pthread_cond_wait(&dispatcher.idle, &dispatcher.lock);
	leave(entry);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&dispatcher.lock);
	pthread_mutex_unlock(&mode_lock);
}

static void after_fork_in_child(void)
{
	close_fds();
	pthread_cond_init(&dispatcher.idle, NULL);
	on_dispatcher_thread = false;
	dispatcher.mode = NOBODY;
	dispatcher.stopping = ended = false;
	dispatcher_forked();
	pthread_mutex_unlock(&dispatcher.lock);
	pthread_mutex_unlock(&mode_lock);
}

/*
 * Before main, so that the handlers of a program, or of a library that uses this one, come before ours in a fork's
 * preparation: they may wait for a lock whose holder is on its way into the dispatcher. As in done.c it can fail for
 * want of memory.
 */
__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- Starting, taking over, ending ------------------------------------------------------------------------------- */

static int watch(int fd, void *data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = data };

	return epoll_ctl(dispatcher.epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* Makes the epoll set and what is in it. What an earlier process left (see fork) is taken along. */
static int open_fds(void)
{
	int err = 0;

	pthread_mutex_lock(&dispatcher.lock);
	dispatcher.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (dispatcher.epoll >= 0)
		dispatcher.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (dispatcher.wake >= 0)
		dispatcher.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (dispatcher.timer < 0)
		err = -errno;
	if (!err)
		err = watch(dispatcher.wake, &dispatcher.wake);
	if (!err)
		err = watch(dispatcher.timer, &dispatcher.timer);
	if (!err)
		err = watch_sources();
	if (err)
		close_fds();
	else if (dispatcher.due)
		dispatcher_wake();
	dispatcher_arm();
	pthread_mutex_unlock(&dispatcher.lock);
	return err;
}

/* The thread is to end; or, forked in a function that it ran, it is no dispatcher any more. */
static bool is_over(void)
{
	bool over;

	pthread_mutex_lock(&dispatcher.lock);
	over = dispatcher.stopping || !on_dispatcher_thread;
	pthread_mutex_unlock(&dispatcher.lock);
	return over;
}

static void tell_end(void)
{
	pthread_mutex_lock(&dispatcher.lock);
	if (on_dispatcher_thread) {
		ended = true;
		pthread_cond_broadcast(&dispatcher.idle);
	}
	pthread_mutex_unlock(&dispatcher.lock);
}

static void *run(void *unused)
{
	struct epoll_event any;

	on_dispatcher_thread = true;
	prctl(PR_SET_NAME, "ctxfd");
	/* Asked before each sleep: serve may have taken the wake-up that was to tell. */
	while (!is_over()) {
		/* Only sleeps here: everything in the set stays ready until serve has dealt with it. */
		if (epoll_wait(dispatcher.epoll, &any, 1, -1) < 0 && errno != EINTR)
			break;
		dispatcher_serve();
	}
	tell_end();
	return unused;
}

/* The thread inherits the mask that all signals are blocked in: they are for the program's threads. */
static int start_thread(void)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int err = pthread_attr_init(&attr);

	if (err)
		return -err;
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, &attr, run, NULL);
	if (err == EINVAL) /* more thread-local storage than that in the program */
		err = pthread_create(&thread, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

/*
 * Under mode_lock, while mode is THREAD; then it is PROGRAM. The thread ends once the function that it is running has
 * returned, and what the program has it do at its end. Either may wait for a thread that forks, so no lock is held
 * meanwhile, and others may be here as well: the first to see that it ends joins it.
 */
static void stop_thread(void)
{
	pthread_mutex_lock(&dispatcher.lock);
	if (dispatcher.mode == THREAD) { /* still: another may have joined it meanwhile */
		dispatcher.stopping = true;
		dispatcher_wake();
	}
	pthread_mutex_unlock(&mode_lock);
	while (dispatcher.mode == THREAD && !ended)
		pthread_cond_wait(&dispatcher.idle, &dispatcher.lock);
	if (dispatcher.mode == THREAD) {
		ended = false;
		pthread_mutex_unlock(&dispatcher.lock);
		pthread_join(thread, NULL);
		pthread_mutex_lock(&dispatcher.lock);
		dispatcher.mode = PROGRAM;
		dispatcher.stopping = false;
		if (dispatcher.due)
			dispatcher_wake();
		pthread_cond_broadcast(&dispatcher.idle);
	}
	pthread_mutex_unlock(&dispatcher.lock);
	pthread_mutex_lock(&mode_lock);
}

static int start_locked(enum mode wanted)
{
	int err = open_fds();

	if (err || wanted == PROGRAM)
		return err;
	err = start_thread();
	if (err) {
		pthread_mutex_lock(&dispatcher.lock);
		close_fds();
		pthread_mutex_unlock(&dispatcher.lock);
	}
	return err;
}

int dispatcher_start(void)
{
	struct entry entry = enter();
	int err = 0;

	pthread_mutex_lock(&mode_lock);
	if (dispatcher.mode == NOBODY) {
		err = start_locked(THREAD);
		if (!err)
			atomic_store_explicit(&dispatcher.mode, THREAD, memory_order_release);
	}
	pthread_mutex_unlock(&mode_lock);
	leave(entry);
	return err;
}

int ctxfd_dispatch_fd(void)
{
	struct entry entry;
	int result = 0;

	if (on_dispatcher_thread)
		return -EDEADLK;
	entry = enter();
	pthread_mutex_lock(&mode_lock);
	if (dispatcher.mode == THREAD)
		stop_thread();
	if (dispatcher.mode == NOBODY)
		result = start_locked(PROGRAM);
	if (!result) {
		atomic_store_explicit(&dispatcher.mode, PROGRAM, memory_order_release);
		result = dispatcher.epoll;
	}
	pthread_mutex_unlock(&mode_lock);
	leave(entry);
	return result;
}

int ctxfd_dispatch(void)
{
	struct entry entry;
	int result;

	if (atomic_load_explicit(&dispatcher.mode, memory_order_acquire) != PROGRAM)
		return -EINVAL;
	entry = enter();
	result = dispatcher_serve();
	leave(entry);
	return result;
}

/*
 * At exit the thread ends, if it is idle, so that nothing is left for a leak checker to find; a busy one is left alone.
 */
__attribute__((destructor)) static void end_thread(void)
{
	bool idle;

	/* Whoever has mode_lock is about to change who dispatches: leave it to them. */
	if (on_dispatcher_thread || dispatcher.mode != THREAD || pthread_mutex_trylock(&mode_lock) != 0)
		return;
	pthread_mutex_lock(&dispatcher.lock);
	idle = dispatcher.mode == THREAD && !dispatcher.dispatching;
	if (dispatcher.mode == THREAD)
		dispatcher.stopping = true;
	pthread_mutex_unlock(&dispatcher.lock);
	if (idle) {
		stop_thread();
		dispatcher.mode = NOBODY;
		pthread_mutex_lock(&dispatcher.lock);
		close_fds();
		pthread_mutex_unlock(&dispatcher.lock);
	}
	pthread_mutex_unlock(&mode_lock);
}
