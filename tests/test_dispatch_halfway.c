/* SPDX-License-Identifier: MIT */
/*
 * What others do while the dispatcher is in the middle of its work: free what it is about to come to, fork, exit. To be stopped
 * there it is made to make an fd readable, in the system call for which it waits for us (core.mk). Each test in a child of its own.
 */
#include "harness.h"

#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>

/* ---- A stop in the middle ------------------------------------------------------------------------------------------- */

/* The thread that makes one of these readable stops there, the first time. */
static _Atomic int stop_at[2] = { -1, -1 };
static sem_t there, go;

long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);

static void wait_for(sem_t *sem)
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

/* Dispatches once, in the program's own loop. */
static void *dispatch(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)ctxfd_dispatch();
}

static struct ctxfd *watching(const struct ctxfd *parent, int fd, int cause)
{
	struct ctxfd *ctx = ctxfd_with_fd(parent, fd, POLLIN, cause);

	require(ctx);
	return ctx;
}

struct note {
	_Atomic int runs;
};

static void count(void *arg)
{
	((struct note *)arg)->runs++;
}

/* ---- Freed before its event is come to ------------------------------------------------------------------------------ */

/* Both are reported in one round. While one is fired the other is freed, and must not be fired. */
static int an_event_is_withdrawn(void *arg)
{
	struct ctxfd *ctx[2];
	struct thread *dispatcher;
	int pipes[2][2], fds, first;

	require(ctxfd_dispatch_fd() >= 0);
	fds = count_fds();
	for (int i = 0; i < 2; i++) {
		make_pipe(pipes[i]);
		ctx[i] = watching(ctxfd_background(), pipes[i][0], -1 - i);
		stop_at[i] = ctxfd_done_fd(ctx[i]);
	}
	for (int i = 0; i < 2; i++)
		require(write(pipes[i][1], "x", 1) == 1);
	dispatcher = thread_start(dispatch, NULL);
	wait_for(&there);
	first = ctxfd_err(ctx[0]) ? 0 : 1;
	require(ctxfd_err(ctx[!first]) == 0);
	ctxfd_unref(ctx[!first]);
	require(sem_post(&go) == 0);
	require((intptr_t)thread_join(dispatcher) == 1);
	require(ctxfd_cause(ctx[first]) == -1 - first);
	ctxfd_unref(ctx[first]);
	close_pair(pipes[0]);
	close_pair(pipes[1]);
	require(count_fds() == fds);
	return 0;
}

static void *give_up(void *ctx)
{
	ctxfd_unref(ctx);
	return NULL;
}

/* What is being fired is freed only after that. */
static int a_source_is_not_freed_while_it_fires(void *arg)
{
	struct thread *dispatcher, *owner;
	struct ctxfd *ctx;
	int pipe[2];

	make_pipe(pipe);
	require(ctxfd_dispatch_fd() >= 0);
	ctx = watching(ctxfd_background(), pipe[0], -5);
	stop_at[0] = ctxfd_done_fd(ctx);
	require(write(pipe[1], "x", 1) == 1);
	dispatcher = thread_start(dispatch, NULL);
	wait_for(&there);
	owner = thread_start(give_up, ctx);
	thread_wait_asleep_in(owner, SYS_futex);
	require(live_allocations() == 1);
	require(sem_post(&go) == 0);
	require((intptr_t)thread_join(dispatcher) == 1);
	thread_join(owner);
	require(live_allocations() == 0);
	close_pair(pipe);
	return 0;
}

static void *cancel(void *ctx)
{
	ctxfd_cancel(ctx);
	return NULL;
}

static void *stop(void *handle)
{
	return ctxfd_after_stop(handle) ? handle : NULL;
}

/* It was live when stop looked, and a cancel is about to come to it: stop waits for that, and then it is due, and stopped. */
static int stop_meets_a_cancel(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *child;
	struct thread *canceller, *stopper;
	struct ctxfd_after *handle;
	struct note note = { 0 };

	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_after_func(ctx, count, &note, &handle) == 0);
	child = ctxfd_with_cancel(ctx);
	stop_at[0] = ctxfd_done_fd(child); /* a cancel comes to it first */
	canceller = thread_start(cancel, ctx);
	wait_for(&there);
	stopper = thread_start(stop, handle);
	thread_wait_asleep_in(stopper, SYS_futex);
	require(sem_post(&go) == 0);
	require(thread_join(stopper) == handle);
	thread_join(canceller);
	require(ctxfd_dispatch() == 0 && note.runs == 0);
	ctxfd_unref(child);
	ctxfd_unref(ctx);
	require(live_allocations() == 0);
	return 0;
}

/* ---- Forking -------------------------------------------------------------------------------------------------------- */

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

/* And stays as it is, so that the fork finds no lock of an allocator taken. */
static void *dispatch_and_stay(void *arg)
{
	struct inside *in = arg;

	require(ctxfd_dispatch() == 1);
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

static int fork_waits_for_a_cancel(void *arg)
{
	struct inside in = { .forker = getpid() };
	struct thread *dispatcher, *opener;
	int pipe[2];

	make_pipe(pipe);
	require(sem_init(&in.end, 0, 0) == 0);
	require(ctxfd_dispatch_fd() >= 0);
	in.ctx = watching(ctxfd_background(), pipe[0], -5);
	in.child = ctxfd_with_cancel(in.ctx);
	stop_at[0] = ctxfd_done_fd(in.child);
	require(write(pipe[1], "x", 1) == 1);
	dispatcher = thread_start(dispatch_and_stay, &in);
	wait_for(&there);
	require(ctxfd_err(in.ctx) == 0);
	opener = thread_start(let_go_when_it_waits, &in);
	require(in_child(finds_it_ended, &in) == 7);
	require(sem_post(&in.end) == 0 && sem_post(&in.end) == 0);
	thread_join(dispatcher);
	thread_join(opener);
	ctxfd_unref(in.child);
	ctxfd_unref(in.ctx);
	close_pair(pipe);
	return 0;
}

static pid_t signal_child;

static void fork_in_handler(int sig)
{
	signal_child = fork();
	if (signal_child == 0)
		_exit(7);
	require(signal_child > 0 && sem_post(&there) == 0);
}

/* The thread that forks in a signal's handler is the very one that is inside the library: it does not wait for itself. */
static int the_dispatching_thread_forks(void *arg)
{
	struct ctxfd *ctx;
	struct thread *dispatcher;
	int pipe[2], status;

	require(signal(SIGUSR1, fork_in_handler) != SIG_ERR);
	make_pipe(pipe);
	require(ctxfd_dispatch_fd() >= 0);
	ctx = watching(ctxfd_background(), pipe[0], -5);
	stop_at[0] = ctxfd_done_fd(ctx);
	require(write(pipe[1], "x", 1) == 1);
	dispatcher = thread_start(dispatch, NULL);
	wait_for(&there);
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

/* In the child it returns into a loop that dispatches no longer: what is behind it is left to the child's own dispatcher. */
static int return_into_the_loop(bool owned)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_after *handle = NULL;
	struct forker f = { .pid = -1 };
	int done;

	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_after_func(ctx, fork_and_return, &f, owned ? &handle : NULL) == 0);
	require(ctxfd_after_func(ctx, count, &f.behind, NULL) == 0);
	ctxfd_close(ctx);
	done = ctxfd_dispatch();
	require(!ctxfd_after_stop(handle));
	if (f.pid == 0) {
		require(done == 1 && f.behind.runs == 0);
		require(ctxfd_dispatch() == -EINVAL);
		require(ctxfd_dispatch_fd() >= 0);
		require(ctxfd_dispatch() == 1);
	} else {
		require(done == 2);
		require_child_is_well(&f);
	}
	require(f.behind.runs == 1);
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

static void stay(void *arg)
{
	struct forker *f = arg;

	f->behind.runs++;
	wait_for(&go);
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
	require(ctxfd_dispatch_fd() >= 0);
	new_dispatcher = thread_start(dispatch, NULL);
	wait_until(f->behind.runs == 1);
	thread_wait_asleep(new_dispatcher);
}

/* What ran on a thread that is not here is freed by whoever dispatches next. */
static int frees_what_was_running(void *arg)
{
	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_dispatch() == 0);
	return live_allocations() == 0 ? 7 : 1;
}

static int a_child_with_a_dispatcher_at_work(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct forker f = { .pid = -1 };
	int done;

	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_after_func(ctx, fork_and_have_dispatched, &f, NULL) == 0);
	require(ctxfd_after_func(ctx, stay, &f, NULL) == 0);
	ctxfd_close(ctx);
	done = ctxfd_dispatch();
	require(done == (f.pid ? 2 : 1));
	if (f.pid) {
		require_child_is_well(&f);
	} else {
		require(ctxfd_dispatch() == -EBUSY);
		require(in_child(frees_what_was_running, NULL) == 7);
		require(sem_post(&go) == 0);
		require((intptr_t)thread_join(new_dispatcher) == 1);
	}
	require(live_allocations() == 0);
	return 0;
}

static void only_in_the_parent(void *arg)
{
	struct forker *f = arg;

	require(f->pid > 0);
	f->behind.runs++;
}

/* The child's only thread was the library's: when the function returns the child ends, as any process does with its last. */
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

/* ---- A child that has no descriptors for a dispatcher --------------------------------------------------------------- */

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

/* Neither the set itself nor, the second time, what it needs to hear signals. What is waited for is kept for a better day. */
static int starts_when_it_can(void *arg)
{
	struct inherited *in = arg;
	int fd;

	exhaust_fds();
	require(ctxfd_after_func(in->timed, count, &in->late, NULL) == -EMFILE);
	require(ctxfd_dispatch_fd() == -EMFILE);
	free_fds();
	leave_three_fds();
	require(ctxfd_dispatch_fd() == -EMFILE);
	for (int i = 90; i < 100; i++)
		close(i);
	fd = ctxfd_dispatch_fd();
	require(fd >= 0);
	require(kill(getpid(), SIGUSR1) == 0);
	ctxfd_cancel(in->timed);
	while (in->late.runs == 0 || !ctxfd_err(in->signal)) {
		wait_readable(fd);
		require(ctxfd_dispatch() >= 0);
	}
	require(ctxfd_cause(in->signal) == SIGUSR1);
	require(ctxfd_err(in->fd) == 0 && ctxfd_cause(in->fired) == -1);
	return 7;
}

static int a_child_short_of_descriptors(void *arg)
{
	struct inherited in = { .timed = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC) };
	sigset_t set;
	int pipes[2][2];

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	make_pipe(pipes[0]);
	make_pipe(pipes[1]);
	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_after_func(in.timed, count, &in.late, NULL) == 0);
	in.fd = watching(ctxfd_background(), pipes[0][0], -2);
	in.fired = watching(ctxfd_background(), pipes[1][0], -1);
	in.signal = ctxfd_with_signals(ctxfd_background(), &set);
	require(in.signal);
	require(write(pipes[1][1], "x", 1) == 1);
	require(ctxfd_dispatch() == 1);
	require(in_child(starts_when_it_can, &in) == 7);
	require(in.late.runs == 0 && ctxfd_err(in.signal) == 0);
	return 0;
}

/* ---- The library's thread and the end of things --------------------------------------------------------------------- */

static void end_the_program(void *arg)
{
	exit(7);
}

static int exits(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctxfd_after_func(ctx, end_the_program, NULL, NULL) == 0);
	ctxfd_close(ctx);
	for (;;)
		pause();
}

static int a_function_may_exit(void *arg)
{
	return in_child(exits, NULL) == 7 ? 0 : 1;
}

static int exits_meanwhile(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct forker f = { .pid = -1 };

	require(ctxfd_after_func(ctx, stay, &f, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(f.behind.runs == 1);
	exit(7);
}

/* A function that never returns keeps no program from its end. */
static int a_program_may_exit_while_one_runs(void *arg)
{
	return in_child(exits_meanwhile, NULL) == 7 ? 0 : 1;
}

static void close_everything(void *arg)
{
	for (int fd = STDERR_FILENO + 1; fd < 100; fd++)
		close(fd);
	((struct note *)arg)->runs++;
}

/* As daemons do. The thread has nothing to wait for any more, and ends; it must not run in circles. */
static int ends_without_its_descriptors(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct note closed = { 0 };
	int threads = count_threads();

	require(ctxfd_after_func(ctx, close_everything, &closed, NULL) == 0);
	require(count_threads() == threads + 1);
	ctxfd_close(ctx);
	wait_until(closed.runs); /* before any is opened again */
	wait_until(count_threads() == threads);
	return 0;
}

/* What a sanitizer's runtime does not bear. */
static void need_no_sanitizer(void)
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

IN_CHILD(an_event_is_withdrawn)
IN_CHILD(a_source_is_not_freed_while_it_fires)
IN_CHILD(stop_meets_a_cancel)
IN_CHILD(fork_waits_for_a_cancel)
IN_CHILD(the_dispatching_thread_forks)
IN_CHILD(a_child_returns_into_the_loop)
IN_CHILD(a_child_that_stops_what_it_returns_from)
IN_CHILD(a_child_with_a_dispatcher_at_work)
IN_CHILD_IF(need_no_sanitizer(), a_child_returns_on_the_librarys_thread)
IN_CHILD(a_child_short_of_descriptors)
IN_CHILD(a_function_may_exit)
IN_CHILD(a_program_may_exit_while_one_runs)
IN_CHILD_IF(need_no_sanitizer(), ends_without_its_descriptors)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_is_withdrawn_),
		cmocka_unit_test(a_source_is_not_freed_while_it_fires_),
		cmocka_unit_test(stop_meets_a_cancel_),
		cmocka_unit_test(fork_waits_for_a_cancel_),
		cmocka_unit_test(the_dispatching_thread_forks_),
		cmocka_unit_test(a_child_returns_into_the_loop_),
		cmocka_unit_test(a_child_that_stops_what_it_returns_from_),
		cmocka_unit_test(a_child_with_a_dispatcher_at_work_),
		cmocka_unit_test(a_child_returns_on_the_librarys_thread_),
		cmocka_unit_test(a_child_short_of_descriptors_),
		cmocka_unit_test(a_function_may_exit_),
		cmocka_unit_test(a_program_may_exit_while_one_runs_),
		cmocka_unit_test(ends_without_its_descriptors_),
	};

	require(sem_init(&there, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
	return run_all_cold(tests);
}
