/* SPDX-License-Identifier: MIT */
/*
 * The library's own dispatcher: the thread that runs it, and what fork and exit do.
 *
 * The thread starts with the first thing that is registered where no dispatcher of the program's is named, and lives
 * until exit. A child of a fork has no such thread, nor has a program whose exit has ended it: there another starts
 * with the first look at any context (look.h, ctxfdi_first_look), if something waits for it, or with the first cancel
 * that makes something due.
 *
 * `state` is guarded by the dispatcher's lock. `thread` belongs to whoever has set `state` to STARTING or EXITING.
 * ctxfdi_library_runs is written under the lock and read without it. is_library_thread is each thread's own.
 */
#include <sys/prctl.h>
#include <time.h>

#include "core/fork.h"
#include "core/look.h"
#include "core/thread.h"
#include "core/thread_cancel.h"
#include "dispatch/library.h"
#include "dispatch/round.h"
#include "dispatch/signals.h"

struct ctxfd_dispatcher ctxfdi_library = {
	.refs = 1,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.epoll = -1,
	.wake = -1,
	.timer = -1,
	.armed = INT64_MAX,
	.look = INT64_MAX,
	.due = { .end = &ctxfdi_library.due.first },
	.batch = { .end = &ctxfdi_library.batch.first },
};

_Atomic bool ctxfdi_library_runs;

static enum { NO_THREAD, STARTING, RUNS, EXITING } state;
static pthread_t thread;
static _Thread_local bool is_library_thread;

/* ---- The thread -------------------------------------------------------------------------------------------------- */

/*
 * A function of the program has ended the thread: starts the next one. While state is STARTING, the thread that made
 * this one has yet to note that it runs. In a child that the function has forked, this is no thread of the library's
 * any more.
 */
static void library_thread_ends(void *unused)
{
	bool again;

	(void)unused;
	dispatcher_lock(&ctxfdi_library);
	while (is_library_thread && state == STARTING)
		dispatcher_wait(&ctxfdi_library);
	again = is_library_thread && state == RUNS;
	if (again) {
		pthread_detach(pthread_self());
		state = NO_THREAD;
		atomic_store_explicit(&ctxfdi_library_runs, false, memory_order_relaxed);
	}
	dispatcher_unlock(&ctxfdi_library);
	if (again)
		ctxfdi_library_resume();
}

static bool is_over(unsigned forks)
{
	bool over;

	dispatcher_lock(&ctxfdi_library);
	over = state == EXITING || forks != ctxfdi_forks;
	dispatcher_unlock(&ctxfdi_library);
	return over;
}

/* The poll only sleeps: what is in the set stays ready until ctxfd_dispatcher_run has dealt with it. */
static void *library_thread(void *unused)
{
	/* If a function of the program forks, the child's copy of this thread ends after that function. */
	unsigned forks = ctxfdi_forks;
	static const struct timespec brief = { 0, CTXFD_MSEC };
	struct pollfd set;

	is_library_thread = true;
	prctl(PR_SET_NAME, "ctxfd");
	pthread_cleanup_push(library_thread_ends, NULL);
	while (!is_over(forks)) {
		set = (struct pollfd){ .fd = ctxfdi_library.epoll, .events = POLLIN };
		if (poll(&set, 1, -1) < 0) {
			if (errno != EINTR) /* the kernel has no memory, but may have some later */
				nanosleep(&brief, NULL);
			continue;
		}
		if (set.revents & POLLNVAL) /* somebody has closed it */
			break;
		ctxfd_dispatcher_run(&ctxfdi_library);
	}
	pthread_cleanup_pop(false);
	return unused;
}

static _Atomic bool library_ends_at_exit;

static void end_thread(void);

/* Making the thread takes memory, so no lock is held meanwhile: others wait until state is no longer STARTING. */
int ctxfdi_library_start(void)
{
	struct thread_cancel before = thread_cancel_off();
	int err = 0;

	dispatcher_lock(&ctxfdi_library);
	while (state == STARTING)
		dispatcher_wait(&ctxfdi_library);
	if (state == NO_THREAD) {
		state = STARTING;
		dispatcher_unlock(&ctxfdi_library);
		err = ctxfdi_dispatcher_open(&ctxfdi_library);
		ctxfdi_at_exit(&library_ends_at_exit, end_thread);
		if (err >= 0)
			err = ctxfdi_thread_create(&thread, library_thread, NULL);
		dispatcher_lock(&ctxfdi_library);
		state = err ? NO_THREAD : RUNS;
		if (err && ctxfdi_library.epoll >= 0)
			ctxfdi_dispatcher_close_fds(&ctxfdi_library);
		dispatcher_tell(&ctxfdi_library);
	}
	if (!err) {
		atomic_store_explicit(&ctxfdi_first_look, NULL, memory_order_relaxed);
		atomic_store_explicit(&ctxfdi_library_runs, true, memory_order_release);
	}
	dispatcher_unlock(&ctxfdi_library);
	thread_cancel_restore(before);
	return err;
}

static void start_again(void)
{
	ctxfdi_library_start();
}

void ctxfdi_library_resume_later(void)
{
	if (!atomic_load_explicit(&ctxfdi_library_runs, memory_order_relaxed))
		atomic_store_explicit(&ctxfdi_first_look, start_again, memory_order_relaxed);
}

void ctxfdi_library_resume(void)
{
	if (library_ensure() != 0)
		atomic_store_explicit(&ctxfdi_first_look, start_again, memory_order_relaxed);
}

/* Under the lock: the thread has gone, or is about to. If it leaves work undone, the next look starts another. */
static void lose_thread(void)
{
	claim(dispatcher_is_locked(&ctxfdi_library));
	state = NO_THREAD;
	atomic_store_explicit(&ctxfdi_library_runs, false, memory_order_relaxed);
	if (ctxfdi_library.sources || ctxfdi_library.ready || ctxfdi_library.alarms || ctxfdi_library.due.first)
		atomic_store_explicit(&ctxfdi_first_look, start_again, memory_order_relaxed);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

/*
 * A fork waits until the library's thread is not in the tree, so that no lock of a context is left behind in the child.
 * That thread waits neither for memory nor for the program while it is there, so the order in which fork handlers run
 * does not matter. All dispatchers' locks are taken, since their threads may be in functions of the program.
 */
void ctxfdi_dispatch_before_fork(void)
{
	pthread_mutex_lock(&ctxfdi_dispatchers_lock);
	dispatcher_lock(&ctxfdi_library);
	while (ctxfdi_library.inside) {
		/* The thread in there may give up a dispatcher's last reference, and need this lock to free it. */
		pthread_mutex_unlock(&ctxfdi_dispatchers_lock);
		dispatcher_wait(&ctxfdi_library);
		dispatcher_unlock(&ctxfdi_library);
		pthread_mutex_lock(&ctxfdi_dispatchers_lock);
		dispatcher_lock(&ctxfdi_library);
	}
	for (struct link *l = ctxfdi_dispatchers; l; l = l->next)
		dispatcher_lock(container_of(l, struct ctxfd_dispatcher, all));
	ctxfdi_signals_lock();
}

void ctxfdi_dispatch_after_fork(void)
{
	ctxfdi_signals_unlock();
	for (struct link *l = ctxfdi_dispatchers; l; l = l->next)
		dispatcher_unlock(container_of(l, struct ctxfd_dispatcher, all));
	dispatcher_unlock(&ctxfdi_library);
	pthread_mutex_unlock(&ctxfdi_dispatchers_lock);
}

void ctxfdi_dispatch_after_fork_in_child(void)
{
	ctxfdi_running_forked();
	ctxfdi_signals_forked();
	for (struct link *l = ctxfdi_dispatchers; l; l = l->next)
		ctxfdi_dispatcher_forked(container_of(l, struct ctxfd_dispatcher, all));
	ctxfdi_dispatcher_forked(&ctxfdi_library);
	lose_thread();
	is_library_thread = false;
	ctxfdi_dispatch_after_fork();
}

/* ---- Exit -------------------------------------------------------------------------------------------------------- */

/* Called by exit: ends the thread if it is idle (core/thread.h says why). A busy one is left alone. */
static void end_thread(void)
{
	struct timespec limit = ctxfdi_join_limit(EXIT_WAITS);
	bool idle, gone;

	atomic_store_explicit(&library_ends_at_exit, false, memory_order_relaxed); /* a handler may start another */
	if (is_library_thread)
		return;
	dispatcher_lock(&ctxfdi_library);
	idle = state == RUNS && !ctxfdi_library.serving;
	if (idle) {
		state = EXITING;
		ctxfdi_library.closed = true; /* a function that came due now could wait for the thread that exits */
		/* So that the wake is not left out: the thread is to look at `state`. */
		atomic_store_explicit(&ctxfdi_library.woken, false, memory_order_relaxed);
		ctxfdi_dispatcher_wake(&ctxfdi_library);
	}
	dispatcher_unlock(&ctxfdi_library);
	if (!idle)
		return;
	gone = ctxfdi_thread_join(thread, &limit);
	dispatcher_lock(&ctxfdi_library);
	if (gone)
		ctxfdi_dispatcher_close_fds(&ctxfdi_library);
	ctxfdi_library.closed = false;
	lose_thread();
	dispatcher_unlock(&ctxfdi_library);
}
