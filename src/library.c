/* SPDX-License-Identifier: MIT */
/*
 * The library's own dispatcher: the thread that runs it, and what fork and exit do.
 *
 * `state` and `thread` are guarded by the dispatcher's lock. The thread starts with the first thing that is registered
 * where no dispatcher of the program's is named, and lives as long as the process. A child of a fork has no such thread;
 * it starts one of its own with the first look at any context (context.h, first_look), if something waits for it, or
 * with the first cancel that makes something due.
 */
#include <limits.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "dispatcher.h"
#include "signals.h"

struct ctxfd_dispatcher library = {
	.refs = 1,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
	.epoll = -1,
	.wake = -1,
	.timer = -1,
	.armed = INT64_MAX,
	.look = INT64_MAX,
	.due_end = &library.due,
};

_Atomic bool library_runs;

static enum { NONE, STARTING, RUNS, ENDING } state;
static pthread_t thread;
static _Thread_local bool is_library_thread;

/* ---- The thread -------------------------------------------------------------------------------------------------- */

/* A function of the program has ended the thread: the next one takes over, at once if there is something to do. */
static void thread_ends(void *unused)
{
	bool again;

	(void)unused;
	pthread_mutex_lock(&library.lock);
	again = state == RUNS;
	if (again) {
		pthread_detach(pthread_self());
		state = NONE;
		atomic_store_explicit(&library_runs, false, memory_order_relaxed);
	}
	pthread_mutex_unlock(&library.lock);
	if (again)
		library_resume();
}

static bool is_over(unsigned forks)
{
	bool over;

	pthread_mutex_lock(&library.lock);
	over = state == ENDING || forks != dispatcher_forks;
	pthread_mutex_unlock(&library.lock);
	return over;
}

/* Only sleeps here: everything in the set stays ready until run has dealt with it. */
static void *serve(void *unused)
{
	unsigned forks =
	        dispatcher_forks; /* in a function that it runs: then the thread ends with that, in the child */
	struct epoll_event any;

	is_library_thread = true;
	prctl(PR_SET_NAME, "ctxfd");
	pthread_cleanup_push(thread_ends, NULL);
	while (!is_over(forks)) {
		if (epoll_wait(library.epoll, &any, 1, -1) < 0 && errno != EINTR)
			break;
		ctxfd_dispatcher_run(&library);
	}
	pthread_cleanup_pop(false);
	return unused;
}

/*
 * Signals are for the program's threads, so this one inherits a mask that has all of them, except those by which the
 * kernel answers what the thread does itself: a crash handler is to see a crash in fn.
 */
static int create_thread(void)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };
	sigset_t set, before;
	int err;

	sigfillset(&set);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(&set, own[i]);
	pthread_sigmask(SIG_SETMASK, &set, &before);
	err = pthread_create(&thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

/* No lock is held while the thread is made, which takes memory: others wait until state is no longer STARTING. */
int library_start(void)
{
	struct entry entry = enter();
	int err = 0;

	pthread_mutex_lock(&library.lock);
	while (state == STARTING)
		pthread_cond_wait(&library.idle, &library.lock);
	if (state == NONE) {
		state = STARTING;
		pthread_mutex_unlock(&library.lock);
		err = dispatcher_open(&library);
		if (err >= 0)
			err = create_thread();
		pthread_mutex_lock(&library.lock);
		state = err ? NONE : RUNS;
		if (err && library.epoll >= 0)
			dispatcher_close_fds(&library);
		pthread_cond_broadcast(&library.idle);
	}
	if (!err) {
		atomic_store_explicit(&first_look, NULL, memory_order_relaxed);
		atomic_store_explicit(&library_runs, true, memory_order_release);
	}
	pthread_mutex_unlock(&library.lock);
	leave(entry);
	return err;
}

static void start_again(void)
{
	library_start();
}

void library_resume(void)
{
	if (library_ensure() != 0)
		atomic_store_explicit(&first_look, start_again, memory_order_relaxed);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

/*
 * fork waits until the library's thread is not in the tree, so that no lock of a context is left behind in the child.
 * What it waits for waits neither for memory nor for the program, so the order in which fork handlers run does not
 * matter. All dispatchers' locks are taken, since their threads may be in functions of the program.
 */
static void before_fork(void)
{
	pthread_mutex_lock(&dispatchers_lock);
	pthread_mutex_lock(&library.lock);
	while (library.inside) {
		struct entry entry = enter();

		pthread_cond_wait(&library.idle, &library.lock);
		leave(entry);
	}
	for (struct link *l = dispatchers; l; l = l->next)
		pthread_mutex_lock(&container_of(l, struct ctxfd_dispatcher, all)->lock);
	signals_lock();
}

static void unlock_all(void)
{
	signals_unlock();
	for (struct link *l = dispatchers; l; l = l->next)
		pthread_mutex_unlock(&container_of(l, struct ctxfd_dispatcher, all)->lock);
	pthread_mutex_unlock(&library.lock);
	pthread_mutex_unlock(&dispatchers_lock);
}

static void after_fork_in_child(void)
{
	dispatcher_forks++;
	for (struct ctxfd_after *h = running_here; h; h = h->outer)
		h->forks = dispatcher_forks;
	signals_forked();
	for (struct link *l = dispatchers; l; l = l->next)
		dispatcher_forked(container_of(l, struct ctxfd_dispatcher, all));
	if (state != NONE) {
		dispatcher_forked(&library);
		if (library.sources || library.ready || library.alarms || library.due)
			atomic_store_explicit(&first_look, start_again, memory_order_relaxed);
	}
	state = NONE;
	is_library_thread = false;
	atomic_store_explicit(&library_runs, false, memory_order_relaxed);
	unlock_all();
}

/*
 * Before main, so that the handlers of a program, or of a library that uses this one, come before ours in a fork's
 * preparation: they may wait for a lock whose holder is on its way into the dispatcher. It can fail for want of memory
 * at program start; then a forked child shares its parent's fds.
 */
__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, unlock_all, after_fork_in_child);
}

/* ---- Exit -------------------------------------------------------------------------------------------------------- */

/*
 * At exit the thread ends, if it is idle, so that nothing is left for a leak checker to find; a busy one is left alone.
 */
__attribute__((destructor)) static void end_thread(void)
{
	bool idle;

	if (is_library_thread)
		return;
	pthread_mutex_lock(&library.lock);
	idle = state == RUNS && !library.serving;
	if (idle) {
		state = ENDING;
		library.woken = false; /* whatever it has taken: it is to look at `state` */
		dispatcher_wake(&library);
	}
	pthread_mutex_unlock(&library.lock);
	if (!idle)
		return;
	pthread_join(thread, NULL);
	pthread_mutex_lock(&library.lock);
	dispatcher_close_fds(&library);
	state = NONE;
	atomic_store_explicit(&library_runs, false, memory_order_relaxed);
	pthread_mutex_unlock(&library.lock);
}
