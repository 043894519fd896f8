/* SPDX-License-Identifier: MIT */
/*
 * Forking while the dispatcher is in the middle of its work, and children that return into it, or have no descriptors
 * for one of their own. Each test in a child.
 */
#include "stop.h"

#include <signal.h>
#include <sys/resource.h>

#include "dispatch/dispatcher.h"

/* ---- While it is inside the library ------------------------------------------------------------------------------ */

struct inside {
	struct ctxfd *ctx, *child;
	pid_t forker;
	sem_t end;
};

static void *let_go_when_it_waits(void *arg)
{
	struct inside *in = arg;

	tid_wait_asleep(in->forker);
	require(sem_post(&go) == 0);
	wait_for(&in->end);
	return NULL;
}

/* Had it been halfway, nobody would end it here. */
static int finds_it_ended(void *arg)
{
	struct inside *in = arg;

	require(ctxfd_err(in->child) == -ECANCELED && ctxfd_err(in->ctx) == -ECANCELED);
	ctxfd_unref(in->child);
	ctxfd_unref(in->ctx);
	return 7;
}

/* By the library's thread: what it is at is not for the program to know. */
static int fork_waits_for_a_cancel(void *arg)
{
	struct inside in = { .forker = getpid() };
	struct thread *opener;
	int pipe[2];

	make_pipe(pipe);
	require(sem_init(&in.end, 0, 0) == 0);
	in.ctx = watching(ctxfd_background(), pipe[0], -5);
	in.child = ctxfd_with_cancel(in.ctx);
	stop_at[0] = ctxfd_done_fd(in.child);
	require(write(pipe[1], "x", 1) == 1);
	wait_for(&there);
	require(ctxfd_err(in.ctx) == 0);
	opener = thread_start(let_go_when_it_waits, &in);
	require(in_child(finds_it_ended, &in) == 7);
	require(sem_post(&in.end) == 0);
	thread_join(opener);
	ctxfd_unref(in.child);
	ctxfd_unref(in.ctx);
	close_pair(pipe);
	return 0;
}

static int finds_ctx_ended(void *arg)
{
	struct inside *in = arg;

	require(ctxfd_err(in->ctx) == -ECANCELED);
	ctxfd_unref(in->ctx);
	return 7;
}

static void fork_in_destroy(void *value)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	require(waitpid(pid, NULL, 0) == pid);
	require(sem_post(value) == 0);
}

/*
 * The library's thread has ended an after-func that is stopped before it comes to it, and frees what only that kept. A
 * fork does not wait for the program's part of that.
 */
static int a_fork_in_destroy_waits_for_nothing(void *arg)
{
	struct ctxfd_after *h;
	struct note note = { 0 };
	struct ctxfd *ctx;
	const struct ctxfd *v;
	sem_t done;
	int pipe[2];

	make_pipe(pipe);
	require(sem_init(&done, 0, 0) == 0);
	ctx = watching(ctxfd_background(), pipe[0], -5);
	v = ctxfd_with_value(ctx, &pipe, &done, fork_in_destroy);
	require(v && ctxfd_after_func(v, count, &note, &h) == 0);
	stop_at[0] = ctxfd_done_fd(ctx);
	require(write(pipe[1], "x", 1) == 1);
	wait_for(&there);
	require(ctxfd_after_stop(h));
	ctxfd_unref(v);
	require(sem_post(&go) == 0);
	wait_for(&done);
	ctxfd_unref(ctx);
	close_pair(pipe);
	return 0;
}

/* The library's thread is about to wake a dispatcher, and by then the only one that still owns it. */
static int fork_waits_for_a_dispatcher_to_go(void *arg)
{
	struct inside in = { .forker = getpid() };
	struct thread *opener;
	struct note note = { 0 };
	int pipe[2];

	make_pipe(pipe);
	require(sem_init(&in.end, 0, 0) == 0);
	loop = ctxfd_dispatcher_new();
	in.ctx = watching(ctxfd_background(), pipe[0], -5);
	home = ctxfd_with_dispatcher(in.ctx, loop);
	require(loop && home && ctxfd_after_func(home, count, &note, NULL) == 0);
	stop_at[0] = loop->wake;
	require(write(pipe[1], "x", 1) == 1);
	wait_for(&there);
	require(run_loop() == 1 && note.runs == 1);
	free_loop();
	opener = thread_start(let_go_when_it_waits, &in);
	require(in_child(finds_ctx_ended, &in) == 7);
	require(sem_post(&in.end) == 0);
	thread_join(opener);
	ctxfd_unref(in.ctx);
	close_pair(pipe);
	return 0;
}

static int exits(void *arg)
{
	return 7;
}

static pid_t signal_child;

static void fork_in_handler(int sig)
{
	signal_child = fork();
	if (signal_child == 0)
		_exit(7);
	require(signal_child > 0 && sem_post(&there) == 0);
}

/*
 * The thread that forks in a signal's handler is the very one that is inside the library: it does not wait for itself.
 */
static int the_dispatching_thread_forks(void *arg)
{
	struct ctxfd *ctx;
	struct thread *dispatcher;
	int pipe[2], status;

	require(signal(SIGUSR1, fork_in_handler) != SIG_ERR);
	dispatcher = stop_as_it_fires(&ctx, pipe);
	thread_wait_asleep(dispatcher);
	require(pthread_kill(thread_pthread(dispatcher), SIGUSR1) == 0);
	wait_for(&there);
	require(waitpid(signal_child, &status, 0) == signal_child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	require(sem_post(&go) == 0);
	require((intptr_t)thread_join(dispatcher) == 1);
	require(ctxfd_cause(ctx) == -5);
	ctxfd_unref(ctx);
	close_pair(pipe);
	return 0;
}

/* ---- While a thread that waits is stalled ------------------------------------------------------------------------ */

static sem_t handler_there, handler_go;

static void stall_and_fork(int sig)
{
	require(sem_post(&handler_there) == 0);
	wait_for(&handler_go);
	fork_in_handler(sig);
}

struct holding {
	sem_t runs, go;
	struct ctxfd_after *handle;
};

static void hold(void *arg)
{
	struct holding *h = arg;

	require(sem_post(&h->runs) == 0);
	wait_for(&h->go);
}

static void *stop_it(void *arg)
{
	require(!ctxfd_after_stop(((struct holding *)arg)->handle));
	return NULL;
}

/*
 * A thread in ctxfd_after_stop is woken, but cannot go on: it is in a signal's handler, or its CPU is another's. Those
 * who wait there later, cancels, and forks, of others and in the handler itself, do not wait for it.
 */
static int nobody_waits_for_a_stalled_waiter(void *arg)
{
	/* Not in registers: those of this thread are not in the child, where valgrind looks for pointers. */
	struct ctxfd *volatile ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *volatile other = ctxfd_with_cancel(ctxfd_background());
	struct thread *stalled, *second;
	struct holding h[2];
	struct note note = { 0 };
	int status;

	require(sem_init(&handler_there, 0, 0) == 0 && sem_init(&handler_go, 0, 0) == 0);
	require(signal(SIGUSR1, stall_and_fork) != SIG_ERR);
	for (int i = 0; i < 2; i++) {
		require(sem_init(&h[i].runs, 0, 0) == 0 && sem_init(&h[i].go, 0, 0) == 0);
		require(ctxfd_after_func(ctx, hold, &h[i], &h[i].handle) == 0);
	}
	ctxfd_cancel(ctx);
	wait_for(&h[0].runs);
	stalled = thread_start(stop_it, &h[0]);
	thread_wait_asleep(stalled);
	require(pthread_kill(thread_pthread(stalled), SIGUSR1) == 0);
	wait_for(&handler_there);
	require(sem_post(&h[0].go) == 0);
	wait_for(&h[1].runs); /* the first has returned, and its waiter was woken */
	second = thread_start(stop_it, &h[1]);
	thread_wait_asleep(second);
	require(sem_post(&h[1].go) == 0);
	thread_join(second);
	require(ctxfd_after_func(other, count, &note, NULL) == 0);
	ctxfd_cancel(other);
	wait_until(note.runs == 1);
	require(in_child(exits, NULL) == 7);
	require(sem_post(&handler_go) == 0);
	thread_join(stalled);
	require(waitpid(signal_child, &status, 0) == signal_child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	ctxfd_close(other);
	ctxfd_close(ctx);
	return 0;
}

/* ---- Children that return from the function ---------------------------------------------------------------------- */

struct forker {
	struct note behind;
	_Atomic pid_t pid; /* as fork returned it; the child's own is 0 */
	_Atomic bool returned;
};

static void fork_and_return(void *arg)
{
	struct forker *f = arg;

	f->pid = fork();
	require(f->pid >= 0);
	f->returned = true;
}

static void require_child_is_well(const struct forker *f)
{
	int status;

	require(waitpid(f->pid, &status, 0) == f->pid);
	/* Under valgrind the harness kills a child that has no more to say. */
	require(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
}

/*
 * In the child it returns into a run that is over: what is behind it is left to the child's next one.
 */
static int return_into_the_loop(bool owned)
{
	struct ctxfd_after *handle = NULL;
	struct forker f = { .pid = -1 };
	struct ctxfd *ctx;
	int done;

	require(make_loop() >= 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, fork_and_return, &f, owned ? &handle : NULL) == 0);
	require(ctxfd_after_func(ctx, count, &f.behind, NULL) == 0);
	ctxfd_close(ctx);
	done = run_loop();
	require(!ctxfd_after_stop(handle));
	if (f.pid == 0) {
		require(done == 1 && f.behind.runs == 0);
		require(run_loop() == 1);
	} else {
		require(done == 2);
		require_child_is_well(&f);
	}
	require(f.behind.runs == 1);
	free_loop();
	require(live_allocations() == 0);
	return 0;
}

static int a_child_returns_into_the_loop(void *arg)
{
	return return_into_the_loop(false);
}

static int a_child_that_stops_what_it_returns_from(void *arg)
{
	return return_into_the_loop(true);
}

/* Of a context whose deadline has passed: the round does not go on with the deadlines either. */
static int a_child_returns_into_a_loop_with_deadlines(void *arg)
{
	struct forker f = { .pid = -1 };
	struct ctxfd *first, *second;
	int done;

	require(make_loop() >= 0);
	first = ctxfd_with_timeout(home, CTXFD_MSEC);
	second = ctxfd_with_timeout(home, 2 * CTXFD_MSEC);
	require(ctxfd_after_func(first, fork_and_return, &f, NULL) == 0);
	require(ctxfd_after_func(second, count, &f.behind, NULL) == 0);
	wait_until(ctxfd_remaining(second) == 0);
	done = run_loop();
	require(done == (f.pid ? 2 : 1));
	if (f.pid == 0)
		require(run_loop() == 1);
	else
		require_child_is_well(&f);
	require(f.behind.runs == 1);
	ctxfd_unref(first);
	ctxfd_unref(second);
	free_loop();
	return 0;
}

struct noticing {
	struct forker forker;
	int pipe[2];
};

/* Another run, which is refused, has taken the edge already. */
static void notice_and_fork(void *arg)
{
	struct noticing *n = arg;

	require(write(n->pipe[1], "x", 1) == 1);
	require(run_loop() == -EBUSY);
	fork_and_return(&n->forker);
}

/* What the dispatcher has been told of, and has not done yet, both processes do. */
static int a_child_has_what_was_ready(void *arg)
{
	struct noticing n = { .forker = { .pid = -1 } };
	struct ctxfd *ctx, *watched;

	make_pipe(n.pipe);
	require(make_loop() >= 0);
	watched = watching(home, n.pipe[0], -2);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, notice_and_fork, &n, NULL) == 0);
	ctxfd_close(ctx);
	require(run_loop() == 1);
	require(ctxfd_err(watched) == 0);
	wait_readable(ctxfd_dispatcher_fd(loop));
	require(run_loop() == 1 && ctxfd_cause(watched) == -2);
	if (n.forker.pid)
		require_child_is_well(&n.forker);
	ctxfd_unref(watched);
	free_loop();
	close_pair(n.pipe);
	return 0;
}

static struct thread *new_dispatcher;

/* In the child another thread dispatches when the function returns, and is in the middle of one. */
static void fork_and_have_dispatched(void *arg)
{
	struct forker *f = arg;

	fork_and_return(f);
	if (f->pid) {
		require(sem_post(&go) == 0);
		return;
	}
	new_dispatcher = thread_start(run_loop_once, NULL);
	wait_until(f->behind.runs == 1);
	thread_wait_asleep(new_dispatcher);
}

/* What ran on a thread that is not here is freed by whoever dispatches next. */
static int frees_what_was_running(void *arg)
{
	require(run_loop() == 0);
	free_loop();
	return live_allocations() == 0 ? 7 : 1;
}

static int a_child_with_a_dispatcher_at_work(void *arg)
{
	struct forker f = { .pid = -1 };
	struct ctxfd *ctx;
	int done;

	require(make_loop() >= 0);
	ctx = ctxfd_with_cancel(home);
	require(ctxfd_after_func(ctx, fork_and_have_dispatched, &f, NULL) == 0);
	require(ctxfd_after_func(ctx, stay, &f.behind, NULL) == 0);
	ctxfd_close(ctx);
	done = run_loop();
	require(done == (f.pid ? 2 : 1));
	if (f.pid) {
		require_child_is_well(&f);
	} else {
		require(run_loop() == -EBUSY);
		require(in_child(frees_what_was_running, NULL) == 7);
		require(sem_post(&go) == 0);
		require((intptr_t)thread_join(new_dispatcher) == 1);
	}
	free_loop();
	require(live_allocations() == 0);
	return 0;
}

static void only_in_the_parent(void *arg)
{
	struct forker *f = arg;

	require(f->pid > 0);
	f->behind.runs++;
}

/*
 * The child's only thread was the library's: when the function returns the child ends, as any process does with its
 * last.
 */
static int a_child_returns_on_the_librarys_thread(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct forker f = { .pid = -1 };

	require(ctxfd_after_func(ctx, fork_and_return, &f, NULL) == 0);
	require(ctxfd_after_func(ctx, only_in_the_parent, &f, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(f.behind.runs == 1);
	require_child_is_well(&f);
	return 0;
}

/* ---- A child that has no descriptors for a dispatcher ------------------------------------------------------------ */

struct inherited {
	struct ctxfd *timed, *fired, *fd, *signal;
	struct note late;
};

/* From here on three more can be had. */
static void leave_three_fds(void)
{
	struct rlimit limit;
	int fd;

	do
		fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
	while (fd >= 0 && fd < 100);
	require(fd == 100);
	close(fd);
	require(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = 103;
	require(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/*
 * Neither the set itself nor, the second time, what it needs to hear signals. What is waited for is kept for a better
 * day.
 */
static int starts_when_it_can(void *arg)
{
	struct inherited *in = arg;
	int fd;

	exhaust_fds();
	require(ctxfd_dispatcher_fd(loop) == -EMFILE);
	require(run_loop() == -EMFILE);
	free_fds();
	leave_three_fds();
	require(ctxfd_dispatcher_fd(loop) == -EMFILE);
	for (int i = 90; i < 100; i++)
		close(i);
	fd = ctxfd_dispatcher_fd(loop);
	require(fd >= 0);
	require(kill(getpid(), SIGUSR1) == 0);
	ctxfd_cancel(in->timed);
	while (in->late.runs == 0 || !ctxfd_err(in->signal)) {
		wait_readable(fd);
		require(run_loop() >= 0);
	}
	require(ctxfd_cause(in->signal) == SIGUSR1);
	require(ctxfd_err(in->fd) == 0 && ctxfd_cause(in->fired) == -1);
	return 7;
}

static int a_child_short_of_descriptors(void *arg)
{
	struct inherited in = { .timed = NULL };
	sigset_t set;
	int pipes[2][2];

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	make_pipe(pipes[0]);
	make_pipe(pipes[1]);
	require(make_loop() >= 0);
	in.timed = ctxfd_with_timeout(home, 3600 * CTXFD_SEC);
	require(ctxfd_after_func(in.timed, count, &in.late, NULL) == 0);
	in.fd = watching(home, pipes[0][0], -2);
	in.fired = watching(home, pipes[1][0], -1);
	in.signal = ctxfd_with_signals(home, &set);
	require(in.signal);
	require(write(pipes[1][1], "x", 1) == 1);
	require(run_loop() == 1);
	require(in_child(starts_when_it_can, &in) == 7);
	require(in.late.runs == 0 && ctxfd_err(in.signal) == 0);
	return 0;
}

IN_CHILD(fork_waits_for_a_cancel)
IN_CHILD(a_fork_in_destroy_waits_for_nothing)
IN_CHILD(fork_waits_for_a_dispatcher_to_go)
IN_CHILD(the_dispatching_thread_forks)
#ifdef __SANITIZE_THREAD__
#define NEED_HANDLERS skip_test("ThreadSanitizer puts a handler off until the call that waits has returned")
#else
#define NEED_HANDLERS (void)0
#endif
IN_CHILD_IF(NEED_HANDLERS, nobody_waits_for_a_stalled_waiter)
IN_CHILD(a_child_returns_into_the_loop)
IN_CHILD(a_child_that_stops_what_it_returns_from)
IN_CHILD(a_child_returns_into_a_loop_with_deadlines)
IN_CHILD(a_child_has_what_was_ready)
IN_CHILD(a_child_with_a_dispatcher_at_work)
IN_CHILD_IF(need_no_sanitizer(), a_child_returns_on_the_librarys_thread)
IN_CHILD(a_child_short_of_descriptors)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(fork_waits_for_a_cancel_),
		cmocka_unit_test(a_fork_in_destroy_waits_for_nothing_),
		cmocka_unit_test(fork_waits_for_a_dispatcher_to_go_),
		cmocka_unit_test(the_dispatching_thread_forks_),
		cmocka_unit_test(nobody_waits_for_a_stalled_waiter_),
		cmocka_unit_test(a_child_returns_into_the_loop_),
		cmocka_unit_test(a_child_that_stops_what_it_returns_from_),
		cmocka_unit_test(a_child_returns_into_a_loop_with_deadlines_),
		cmocka_unit_test(a_child_has_what_was_ready_),
		cmocka_unit_test(a_child_with_a_dispatcher_at_work_),
		cmocka_unit_test(a_child_returns_on_the_librarys_thread_),
		cmocka_unit_test(a_child_short_of_descriptors_),
	};

	make_stop();
	return run_all_cold(tests);
}
