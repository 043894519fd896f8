/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher: where after-funcs run and fds and signals turn into cancels. dispatch.h says what its lock guards.
 *
 * It is one epoll set and one function, serve, that does what is due. The library's thread is a loop around it, and so
 * is the program's own loop once it has asked for the epoll set (ctxfd_dispatch_fd): then there is no thread.
 */
#include "dispatch.h"

#include <limits.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct dispatcher dispatcher = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
	.epoll = -1,
	.wake = -1,
	.timer = -1,
	.signals = -1,
	.armed = INT64_MAX,
	.due_end = &dispatcher.due,
};

/* Whoever changes dispatcher.mode has this, but for stop_thread; it comes before the dispatcher's lock. */
static pthread_mutex_t mode_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread;                        /* while mode is THREAD; under mode_lock */
static bool stopping, ended;                    /* the thread is to end, and has; under the dispatcher's lock */
static _Thread_local bool on_dispatcher_thread; /* the library's */

/* Of the stack of the library's thread, on which the program's functions run. */
#define STACK_SIZE (256 * 1024)

/* ---- Waking it --------------------------------------------------------------------------------------------------- */

/* Under the lock. */
static void wake(void)
{
	uint64_t one = 1;

	if (!dispatcher.woken && dispatcher.wake >= 0)
		dispatcher.woken = syscall(SYS_write, dispatcher.wake, &one, sizeof one) == sizeof one; /* see done.c */
}

void dispatcher_arm(void)
{
	int64_t at = dispatcher.alarms ? dispatcher.alarms->at : INT64_MAX;
	struct itimerspec alarm = { 0 };

	/* A timer that is too early costs one wake-up in vain; setting it at every change would cost a call at each. */
	if (at >= dispatcher.armed || dispatcher.timer < 0)
		return;
	alarm.it_value.tv_sec = (time_t)(at / CTXFD_SEC);
	alarm.it_value.tv_nsec = (long)(at % CTXFD_SEC);
	if ((int64_t)alarm.it_value.tv_sec != at / CTXFD_SEC)
		alarm.it_value.tv_sec = INT32_MAX;
	if (timerfd_settime(dispatcher.timer, TFD_TIMER_ABSTIME, &alarm, NULL) == 0)
		dispatcher.armed = at;
}

void dispatch(struct ctxfd_after *list)
{
	struct ctxfd_after *last = list;
	int saved = errno;

	while (last->next)
		last = last->next;
	pthread_mutex_lock(&dispatcher.lock);
	*dispatcher.due_end = list;
	dispatcher.due_end = &last->next;
	wake();
	pthread_mutex_unlock(&dispatcher.lock);
	errno = saved;
}

/* ---- One round --------------------------------------------------------------------------------------------------- */

static _Thread_local bool
        serving; /* this thread dispatches; a fork in a function that it runs ends that in the child */
static _Thread_local bool stepped_out; /* and is inside the library without the lock */

bool still_dispatching(void)
{
	return serving;
}

void dispatcher_step_out(void)
{
	stepped_out = serving;
	if (serving)
		dispatcher.inside = true;
	pthread_mutex_unlock(&dispatcher.lock);
}

void dispatcher_step_in(void)
{
	pthread_mutex_lock(&dispatcher.lock);
	stepped_out = false;
	if (!serving)
		return;
	dispatcher.inside = false;
	dispatcher.cancelling = NULL;
	pthread_cond_broadcast(&dispatcher.idle);
}

void run_destroy(void (*destroy)(void *value), void *value)
{
	bool from_inside = stepped_out;

	if (from_inside) {
		dispatcher_step_in();
		pthread_mutex_unlock(&dispatcher.lock);
	}
	destroy(value);
	if (from_inside) {
		pthread_mutex_lock(&dispatcher.lock);
		dispatcher.inside = serving;
		stepped_out = true;
		pthread_mutex_unlock(&dispatcher.lock);
	}
}

/*
 * Takes what the epoll set reports. Events are fetched under the lock, so that a source that is freed can withdraw its
 * own.
 */
static int take_events(int *taken)
{
	uint64_t count;
	int sources = 0, n = epoll_wait(dispatcher.epoll, dispatcher.events, EVENTS, 0);

	*taken = n;
	for (dispatcher.events_left = n > 0 ? n : 0; dispatcher.events_left > 0;) {
		void *data = dispatcher.events[--dispatcher.events_left].data.ptr;

		if (data == &dispatcher.wake) {
			if (read(dispatcher.wake, &count, sizeof count) == sizeof count)
				dispatcher.woken = false;
		} else if (data == &dispatcher.timer) {
			if (read(dispatcher.timer, &count, sizeof count) == sizeof count)
				dispatcher.armed = INT64_MAX;
		} else if (data) {
			sources += source_event(data);
		}
	}
	return sources;
}

/* What the round has not come to is due before what came after. */
static void give_back_batch(void)
{
	struct ctxfd_after **end = &dispatcher.batch;

	if (!dispatcher.batch)
		return;
	while (*end)
		end = &(*end)->next;
	*end = dispatcher.due;
	if (!dispatcher.due)
		dispatcher.due_end = end;
	dispatcher.due = dispatcher.batch;
	dispatcher.batch = NULL;
}

/*
 * Does what is due, and returns how much that was, or -EBUSY when another thread is at it, or a function that it runs.
 */
static int serve(void)
{
	int done = 0, taken;

	pthread_mutex_lock(&dispatcher.lock);
	if (dispatcher.dispatching) {
		pthread_mutex_unlock(&dispatcher.lock);
		return -EBUSY;
	}
	dispatcher.dispatching = true;
	dispatcher.thread = pthread_self();
	serving = true;
	do
		done += take_events(&taken);
	while (taken == EVENTS); /* all of them: somebody may wait for edges only */
	expire_alarms();
	dispatcher_arm();

	dispatcher.batch = dispatcher.due;
	dispatcher.due = NULL;
	dispatcher.due_end = &dispatcher.due;
	while (dispatcher.batch && !stopping) {
		struct ctxfd_after *h = dispatcher.batch;

		dispatcher.batch = h->next;
		done += run_after(h);
		if (!serving) { /* forked: the batch is in the child's list of what is due */
			pthread_mutex_unlock(&dispatcher.lock);
			return done;
		}
	}
	give_back_batch();
	dispatcher.dispatching = serving = false;
	pthread_mutex_unlock(&dispatcher.lock);
	return done;
}

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
	struct ctxfd_after *running = serving ? NULL : dispatcher.running;

	/* What forked in its fn runs on, in the child as well, and run_after will find out who dispatches by then. */
	dispatcher.forks++;
	for (struct ctxfd_after *h = running_here; h; h = h->outer)
		h->forks = dispatcher.forks;
	close_fds();
	pthread_cond_init(&dispatcher.idle, NULL);
	on_dispatcher_thread = serving = false;
	dispatcher.mode = NOBODY;
	stopping = ended = false;
	if (dispatcher.dispatching) {
		dispatcher.dispatching = dispatcher.inside = false;
		dispatcher.running = NULL;
		/* Its thread is not here to finish it. */
		if (running && !running->owned) {
			running->state = STOPPED;
			running->next = dispatcher.batch;
			dispatcher.batch = running;
		}
		give_back_batch();
	}
	pthread_mutex_unlock(&dispatcher.lock);
	pthread_mutex_unlock(&mode_lock);
}

/*
 * Before main, so that the handlers of a program, or of a library that uses this one, come before ours in a fork's
 * preparation: they may wait for a lock whose holder is on its way into the dispatcher. As in done.c it can fail for want
 * of memory.
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
		wake();
	dispatcher_arm();
	pthread_mutex_unlock(&dispatcher.lock);
	return err;
}

/* The thread is to end; or, forked in a function that it ran, it is no dispatcher any more. */
static bool is_over(void)
{
	bool over;

	pthread_mutex_lock(&dispatcher.lock);
	over = stopping || !on_dispatcher_thread;
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
		serve();
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
		stopping = true;
		wake();
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
		stopping = false;
		if (dispatcher.due)
			wake();
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
	result = serve();
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
		stopping = true;
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
