/* SPDX-License-Identifier: MIT */
/*
 * The child of a process that has dispatchers: whatever it does with after-funcs and sources that it inherited, the
 * parent's run and end as if there were no child. And in the child they work as well.
 */
#include "loop.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

struct note {
	_Atomic int runs;
};

/* What is registered is the library's thread's to serve, or the loop's. */
static bool on_loop;

static const struct ctxfd *base(void)
{
	return on_loop ? home : ctxfd_background();
}

static bool turn(void)
{
	require(!on_loop || run_loop() >= 0);
	return true;
}

#define eventually(condition) wait_until(turn() && (condition))

struct parent {
	struct ctxfd *root, *timed, *fd, *signal;
	int trigger[2];
	struct note plain, late;
	struct ctxfd_after *handle, *late_handle;
};

static void count_run(void *arg)
{
	((struct note *)arg)->runs++;
}

static void make_parent(struct parent *p)
{
	sigset_t set;

	memset(p, 0, sizeof *p);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	make_pipe(p->trigger);
	p->root = ctxfd_with_cancel(base());
	p->timed = ctxfd_with_timeout(p->root, 3600 * CTXFD_SEC);
	p->fd = ctxfd_with_fd(base(), p->trigger[0], POLLIN, -5);
	p->signal = ctxfd_with_signals(base(), &set);
	assert_true(p->root && p->timed && p->fd && p->signal);
	assert_int_equal(ctxfd_after_func(p->root, count_run, &p->plain, &p->handle), 0);
	assert_int_equal(ctxfd_after_func(p->timed, count_run, &p->late, &p->late_handle), 0);
}

static void assert_undisturbed_and_working(struct parent *p)
{
	struct ctxfd *all[] = { p->root, p->timed, p->fd, p->signal };
	struct note more = { 0 };
	struct ctxfd *ctx = ctxfd_with_cancel(base());

	for (size_t i = 0; i < COUNT(all); i++)
		assert_int_equal(ctxfd_err(all[i]), 0);
	/* After a round of the dispatcher what the child did would have been heard. */
	assert_int_equal(ctxfd_after_func(ctx, count_run, &more, NULL), 0);
	ctxfd_close(ctx);
	eventually(more.runs == 1);
	for (size_t i = 0; i < COUNT(all); i++)
		assert_int_equal(ctxfd_err(all[i]), 0);
	assert_int_equal(p->plain.runs + p->late.runs, 0);

	assert_int_equal(write(p->trigger[1], "x", 1), 1);
	eventually(ctxfd_err(p->fd));
	assert_int_equal(ctxfd_cause(p->fd), -5);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	eventually(ctxfd_err(p->signal));
	assert_int_equal(ctxfd_cause(p->signal), SIGUSR1);
	ctxfd_cancel(p->root);
	eventually(p->plain.runs == 1 && p->late.runs == 1);
}

static void free_parent(struct parent *p)
{
	assert_false(ctxfd_after_stop(p->handle));
	assert_false(ctxfd_after_stop(p->late_handle));
	assert_int_equal(p->plain.runs + p->late.runs, 2);
	ctxfd_unref(p->root);
	ctxfd_unref(p->timed);
	ctxfd_unref(p->fd);
	ctxfd_unref(p->signal);
	close_pair(p->trigger);
}

/* The library's thread. */
static pid_t dispatcher_tid;

/* When it sleeps, a fork finds it in no lock of a sanitizer's allocator, which do not all survive one. */
static int in_child_at_rest(int (*fn)(void *arg), void *arg)
{
	tid_wait_asleep(dispatcher_tid);
	return in_child(fn, arg);
}

/* ---- What the child does ----------------------------------------------------------------------------------------- */

static int does_nothing(void *arg)
{
	return 0;
}

static int runs_exit_handlers(void *arg)
{
	exit(0);
}

static int cancels(void *arg)
{
	struct parent *p = arg;
	struct ctxfd *all[] = { p->root, p->timed, p->fd, p->signal };

	for (size_t i = 0; i < COUNT(all); i++) {
		ctxfd_cancel(all[i]);
		require(ctxfd_wait(all[i]) == -ECANCELED);
		require(readable(ctxfd_done_fd(all[i])));
	}
	return 0;
}

/* What is due the child's own thread may have run, up to the moment that it is stopped. */
static void stop(struct ctxfd_after *handle, const struct note *note)
{
	bool never_ran = ctxfd_after_stop(handle);

	require(never_ran == (note->runs == 0));
}

static int stops_and_frees(void *arg)
{
	struct parent *p = arg;

	stop(p->handle, &p->plain);
	stop(p->late_handle, &p->late);
	ctxfd_unref(p->timed);
	ctxfd_unref(p->root);
	ctxfd_unref(p->fd);
	ctxfd_unref(p->signal);
	return 0;
}

static int cancels_stops_and_frees(void *arg)
{
	struct parent *p = arg;

	cancels(p);
	return stops_and_frees(p);
}

static int works(void *arg)
{
	struct parent *p = arg;

	turn();
	ctxfd_cancel(p->root);
	eventually(p->plain.runs == 1 && p->late.runs == 1);
	return 0;
}

/* What comes due while it has no descriptors for a dispatcher runs when it has some. */
static int works_when_it_can(void *arg)
{
	struct parent *p = arg;

	exhaust_fds();
	ctxfd_cancel(p->root);
	free_fds();
	require(p->plain.runs == 0 && p->late.runs == 0);
	eventually(ctxfd_err(p->root) && p->plain.runs == 1 && p->late.runs == 1);
	return 0;
}

/* The child's own signals and its own descriptors end its contexts. */
static int hears_its_own(void *arg)
{
	struct parent *p = arg;
	struct ctxfd *own;
	int pipe[2];

	require(kill(getpid(), SIGUSR1) == 0);
	eventually(ctxfd_err(p->signal));
	require(ctxfd_cause(p->signal) == SIGUSR1);
	make_pipe(pipe);
	own = ctxfd_with_fd(p->fd, pipe[0], POLLIN, -9);
	require(own);
	require(write(pipe[1], "x", 1) == 1);
	eventually(ctxfd_err(own));
	require(ctxfd_cause(own) == -9 && ctxfd_err(p->fd) == 0);
	ctxfd_unref(own);
	return stops_and_frees(p);
}

/* Before its dispatcher has descriptors. */
static int registers_at_once(void *arg)
{
	struct note late = { 0 };
	struct ctxfd *fd, *signal, *timed;
	sigset_t set;
	int pipe[2];

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	make_pipe(pipe);
	fd = ctxfd_with_fd(base(), pipe[0], POLLIN, -9);
	signal = ctxfd_with_signals(base(), &set);
	timed = ctxfd_with_timeout(base(), CTXFD_MSEC);
	require(fd && signal && timed);
	require(ctxfd_after_func(timed, count_run, &late, NULL) == 0);
	require(write(pipe[1], "x", 1) == 1);
	require(kill(getpid(), SIGUSR2) == 0);
	eventually(ctxfd_cause(fd) == -9 && ctxfd_cause(signal) == SIGUSR2 && late.runs == 1);
	ctxfd_unref(fd);
	ctxfd_unref(signal);
	ctxfd_unref(timed);
	close_pair(pipe);
	return stops_and_frees(arg);
}

static int looks_and_dies(void *arg)
{
	struct parent *p = arg;

	turn();
	require(ctxfd_err(p->signal) == 0);
	return 0;
}

static int forks_again(void *arg)
{
	require(in_child(works, arg) == 0);
	return works(arg);
}

static int execs(void *arg)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

struct deed {
	int (*fn)(void *parent);
	bool loop; /* the program's; else the child starts a thread */
};

static void parent_is_undisturbed_by(void **state)
{
	const struct deed *deed = *state;
	struct parent p;

#ifdef __SANITIZE_THREAD__
	if (!deed->loop)
		skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	on_loop = deed->loop;
	if (on_loop)
		assert_true(make_loop() >= 0);
	make_parent(&p);
	assert_int_equal(in_child_at_rest(deed->fn, &p), 0);
	assert_undisturbed_and_working(&p);
	free_parent(&p);
	if (on_loop)
		free_loop();
	on_loop = false;
}

/* A descriptor that both have is heard by both. */
static int hears_what_it_inherited(void *arg)
{
	require(ctxfd_wait(arg) == -ECANCELED);
	return ctxfd_cause(arg) == -5 ? 7 : 1;
}

static void a_child_hears_what_it_inherited(void **state)
{
	struct ctxfd *ctx;
	int pipe[2];

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	make_pipe(pipe);
	ctx = ctxfd_with_fd(ctxfd_background(), pipe[0], POLLIN, -5);
	tid_wait_asleep(dispatcher_tid);
	assert_int_equal(write(pipe[1], "x", 1), 1);
	assert_int_equal(in_child(hears_what_it_inherited, ctx), 7);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	ctxfd_unref(ctx);
	close_pair(pipe);
}

/* As a daemon does: what has the inherited numbers next is neither watched nor closed. */
static int closes_all(void *arg)
{
	struct ctxfd *ctx = arg, *own;
	int strangers[16], pipe[2];

	for (int fd = STDERR_FILENO + 1; fd < 100; fd++)
		close(fd);
	for (size_t i = 0; i < COUNT(strangers); i++)
		strangers[i] = epoll_create1(EPOLL_CLOEXEC);
	make_pipe(pipe);
	own = ctxfd_with_fd(ctxfd_background(), pipe[0], POLLIN, -9);
	require(own);
	require(ctxfd_err(ctx) == 0);
	ctxfd_close(ctx);
	for (size_t i = 0; i < COUNT(strangers); i++)
		require(fcntl(strangers[i], F_GETFD) >= 0);
	require(write(pipe[1], "x", 1) == 1);
	require(ctxfd_wait(own) == -ECANCELED && ctxfd_cause(own) == -9);
	return 7;
}

static void a_child_may_close_what_it_inherited(void **state)
{
	struct ctxfd *ctx;
	int pipe[2];

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	skip_test("the sanitizer needs its descriptors, or cannot follow the child's threads");
#endif
	make_pipe(pipe);
	ctx = ctxfd_with_fd(ctxfd_background(), pipe[0], POLLIN, -5);
	assert_int_equal(in_child_at_rest(closes_all, ctx), 7);
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(write(pipe[1], "x", 1), 1);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	ctxfd_close(ctx);
	close_pair(pipe);
}

/* ---- Forking from inside an after-func --------------------------------------------------------------------------- */

struct forker {
	struct ctxfd *ctx;
	_Atomic int done, status;
};

static int cancels_and_exits(void *arg)
{
	struct forker *f = arg;

	ctxfd_cancel(f->ctx);
	require(ctxfd_err(f->ctx) == -ECANCELED);
	return 7;
}

static void fork_inside(void *arg)
{
	struct forker *f = arg;

	f->status = in_child(cancels_and_exits, f);
	f->done = 1;
}

static void an_after_func_can_fork(void **state)
{
	struct forker f = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	assert_int_equal(ctxfd_after_func(ctx, fork_inside, &f, NULL), 0);
	ctxfd_close(ctx);
	wait_until(f.done);
	assert_int_equal(f.status, 7);
	assert_int_equal(ctxfd_err(f.ctx), 0);
	ctxfd_close(f.ctx);
}

/* ---- Forking while an after-func runs ---------------------------------------------------------------------------- */

struct busy {
	struct ctxfd *ctx;
	struct ctxfd_after *handle, *behind;
	struct note note;
	_Atomic bool running;
	long allocations; /* before */
	int gate[2];
};

static void wait_at_gate(void *arg)
{
	struct busy *b = arg;
	char byte;

	b->running = true;
	require(read(b->gate[0], &byte, 1) == 1);
}

/* Its thread is the parent's: here it is as good as over, and what was behind it is the child's to run. */
static int carries_on(void *arg)
{
	struct busy *b = arg;

	if (b->handle)
		require(!ctxfd_after_stop(b->handle));
	require(ctxfd_err(b->ctx) == -ECANCELED); /* the first look */
	eventually(b->note.runs == 1);
	require(!ctxfd_after_stop(b->behind));
	ctxfd_unref(b->ctx);
	if (on_loop)
		free_loop();
	/* All is gone, what fn of a thread that is not here owned too. */
	require(!on_loop || live_allocations() == b->allocations);
	return 0;
}

static void *run_until_idle(void *arg)
{
	struct busy *b = arg;

	eventually(b->note.runs == 1);
	return NULL;
}

static void fork_while_one_runs(bool owned, bool in_loop)
{
	struct busy b = { .allocations = live_allocations() };
	struct thread *runner = NULL;

#ifdef __SANITIZE_THREAD__
	if (!in_loop)
		skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	on_loop = in_loop;
	if (on_loop)
		assert_true(make_loop() >= 0);
	b.ctx = ctxfd_with_cancel(base());
	make_pipe(b.gate);
	assert_int_equal(ctxfd_after_func(b.ctx, wait_at_gate, &b, owned ? &b.handle : NULL), 0);
	assert_int_equal(ctxfd_after_func(b.ctx, count_run, &b.note, &b.behind), 0);
	ctxfd_cancel(b.ctx);
	if (on_loop)
		runner = thread_start(run_until_idle, &b);
	wait_until(b.running);
	assert_int_equal(in_child_at_rest(carries_on, &b), 0);
	assert_int_equal(b.note.runs, 0);
	assert_int_equal(write(b.gate[1], "x", 1), 1);
	wait_until(b.note.runs == 1);
	if (runner)
		thread_join(runner);
	if (b.handle)
		assert_false(ctxfd_after_stop(b.handle));
	assert_false(ctxfd_after_stop(b.behind));
	ctxfd_unref(b.ctx);
	close_pair(b.gate);
	if (on_loop)
		free_loop();
	on_loop = false;
}

static void a_child_does_not_wait_for_what_runs(void **state)
{
	fork_while_one_runs(true, false);
}

static void nor_for_what_nobody_will_stop(void **state)
{
	fork_while_one_runs(false, false);
}

static void a_child_does_not_wait_for_what_a_loop_runs(void **state)
{
	fork_while_one_runs(true, true);
}

static void nor_for_what_nobody_will_stop_there(void **state)
{
	fork_while_one_runs(false, true);
}

static int ends(void *arg)
{
	return 7;
}

/* The program's own code runs on the thread as long as it lives: here it forks after the last function. */
static pthread_key_t at_its_end;

static void fork_at_its_end(void *note)
{
	((struct note *)note)->runs = in_child(ends, NULL);
}

static void end_with_a_fork(void *arg)
{
	struct busy *b = arg;

	require(pthread_setspecific(at_its_end, &b->note) == 0);
	b->running = true;
	pthread_exit(NULL);
}

static int ends_the_thread_with_a_fork(void *arg)
{
	struct busy b = { .ctx = ctxfd_with_cancel(ctxfd_background()) };

	require(pthread_key_create(&at_its_end, fork_at_its_end) == 0);
	require(ctxfd_after_func(b.ctx, end_with_a_fork, &b, NULL) == 0);
	ctxfd_close(b.ctx);
	wait_until(b.running);
	wait_until(b.note.runs == 7);
	require(pthread_key_delete(at_its_end) == 0);
	return 0;
}

static void the_thread_may_fork_at_its_end(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	assert_int_equal(in_child_at_rest(ends_the_thread_with_a_fork, NULL), 0);
}

/* The first thread of a process stays a zombie. (Not every libc can join a thread that has forked, in the child.) */
static bool first_thread_has_ended(void)
{
	char stat[256] = "", *end;
	FILE *f = fopen("/proc/self/stat", "r");

	require(f && fgets(stat, sizeof stat, f) && fclose(f) == 0);
	end = strrchr(stat, ')');
	return end && end[1] && end[2] == 'Z';
}

/* arg: how many threads there were before, with the one that the child's library has made. No other took over. */
static void count_after_the_end(void *arg)
{
	while (!first_thread_has_ended())
		pass_time(100 * CTXFD_USEC);
	_exit(count_threads() <= *(int *)arg ? 0 : 1);
}

struct ending {
	bool alone;
	struct note note;
};

/* The thread is not the child's library's, even if it was the parent's. */
static void end_the_child(const struct ending *e)
{
	static int threads;
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	if (!e->alone) {
		require(ctxfd_after_func(ctx, count_after_the_end, &threads, NULL) == 0);
		threads = count_threads();
	}
	ctxfd_close(ctx);
	pthread_exit(NULL);
}

static void fork_and_end_the_child(void *arg)
{
	struct ending *e = arg;
	pid_t pid = fork();
	int status;

	require(pid >= 0);
	if (pid == 0)
		end_the_child(e);
	require(waitpid(pid, &status, 0) == pid);
	e->note.runs = WIFEXITED(status) ? 1 + WEXITSTATUS(status) : -1;
}

static int ends_the_thread_in_the_child(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ending e = { .alone = *(bool *)arg };

	require(ctxfd_after_func(ctx, fork_and_end_the_child, &e, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(e.note.runs != 0);
	return e.note.runs == 1 ? 0 : 1;
}

static void skip_where_such_an_end_is_reported(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip_test("the sanitizer would report how the child ends");
#endif
	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind would report how the child ends");
}

/* In the child it is the only thread, whose end is the process's: nothing takes over. */
static void the_thread_may_end_in_a_child(void **state)
{
	skip_where_such_an_end_is_reported();
	assert_int_equal(in_child_at_rest(ends_the_thread_in_the_child, &(bool){ true }), 0);
}

static void the_thread_may_end_in_a_child_that_has_its_own(void **state)
{
	skip_where_such_an_end_is_reported();
	assert_int_equal(in_child_at_rest(ends_the_thread_in_the_child, &(bool){ false }), 0);
}

/* ---- Forking in a function, and again in one of the child's ------------------------------------------------------ */

struct nested {
	struct ctxfd_after *outer;
	struct forker inner;
};

/* The thread that was in the outer function when it forked is in neither this process nor its parent's dispatcher. */
static int stops_the_outer(void *arg)
{
	struct nested *n = arg;

	return ctxfd_after_stop(n->outer) ? 1 : 7;
}

static void fork_again(void *arg)
{
	struct nested *n = arg;

	n->inner.status = in_child(stops_the_outer, n);
	n->inner.done = 1;
}

static int goes_on_with_a_dispatcher(void *arg)
{
	struct nested *n = arg;
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctxfd_after_func(ctx, fork_again, n, NULL) == 0);
	ctxfd_close(ctx);
	wait_until(n->inner.done);
	return n->inner.status;
}

static void fork_twice(void *arg)
{
	struct nested *n = arg;
	int status = in_child(goes_on_with_a_dispatcher, n);

	n->inner.status = status;
	n->inner.done = 1;
}

static void a_grandchild_does_not_wait_for_what_ran_when_its_parent_was_made(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct nested n = { .outer = NULL };

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	assert_int_equal(ctxfd_after_func(ctx, fork_twice, &n, &n.outer), 0);
	ctxfd_cancel(ctx);
	wait_until(n.inner.done);
	assert_int_equal(n.inner.status, 7);
	assert_false(ctxfd_after_stop(n.outer));
	ctxfd_unref(ctx);
}

/*
 * In the child of a fork in its function one dispatches another, whose function forks: the grandchild is in both of
 * them, and comes out of both.
 */
struct twice {
	struct ctxfd_after *outer;
	bool grandchild;
	int out[2]; /* a pipe: the grandchild has come out */
};

static bool fork_and_wait(void)
{
	pid_t pid = fork();

	require(pid >= 0);
	if (pid == 0)
		return false;
	require(waitpid(pid, NULL, 0) == pid);
	return true;
}

static void run_inner(void *arg)
{
	struct twice *t = arg;

	if (fork_and_wait())
		return;
	t->grandchild = true;
	require(!ctxfd_after_stop(t->outer));
}

static void dispatch_one(void (*fn)(void *arg), struct twice *t, struct ctxfd_after **handle)
{
	struct ctxfd *ctx = ctxfd_with_cancel(home);

	require(ctxfd_after_func(ctx, fn, t, handle) == 0);
	ctxfd_cancel(ctx);
	require(run_loop() == 1);
	ctxfd_unref(ctx);
}

static void run_outer(void *arg)
{
	if (!fork_and_wait())
		dispatch_one(run_inner, arg, NULL);
}

static int come_out_of_both(void *arg)
{
	struct twice t = { .outer = NULL };
	pid_t first = getpid();
	char byte;

	make_pipe(t.out);
	require(make_loop() >= 0);
	dispatch_one(run_outer, &t, &t.outer);
	if (t.grandchild)
		require(write(t.out[1], "x", 1) == 1);
	else
		require(!ctxfd_after_stop(t.outer));
	close(t.out[1]);
	if (getpid() == first)
		require(read(t.out[0], &byte, 1) == 1);
	close(t.out[0]);
	return 0;
}

static void a_grandchild_may_stop_what_it_is_in(void **state)
{
	assert_int_equal(in_child_at_rest(come_out_of_both, NULL), 0);
}

/* ---- Beside a program's own handlers ----------------------------------------------------------------------------- */

static pthread_mutex_t programs_lock = PTHREAD_MUTEX_INITIALIZER;

static void lock_program(void)
{
	pthread_mutex_lock(&programs_lock);
}

static void unlock_program(void)
{
	pthread_mutex_unlock(&programs_lock);
}

struct locker {
	struct ctxfd *ctx;
	_Atomic bool working, over;
};

static void *call_under_lock(void *arg)
{
	struct locker *l = arg;
	struct ctxfd_after *after;

	while (!l->over) {
		lock_program();
		require(ctxfd_after_func(l->ctx, count_run, NULL, &after) == 0);
		require(ctxfd_after_stop(after));
		unlock_program();
		l->working = true;
	}
	return NULL;
}

/* A fork takes the program's lock, by a handler that was there before the dispatcher, and then the dispatcher's. */
static void a_lock_of_the_programs_comes_first(void **state)
{
	struct locker l = { .ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC) };
	struct thread *thread = thread_start(call_under_lock, &l);

	wait_until(l.working);
	for (int i = 0; i < rounds(300); i++)
		assert_int_equal(in_child(ends, NULL), 7);
	l.over = true;
	thread_join(thread);
	ctxfd_close(l.ctx);
}

#define NAMED(name, what, loop)                                            \
	{                                                                  \
		name, parent_is_undisturbed_by, NULL, NULL, &(struct deed) \
		{                                                          \
			what, loop                                         \
		}                                                          \
	}
#define BY(what)                                                  \
	NAMED("undisturbed_by_a_child_that_" #what, what, false), \
	        NAMED("with_a_loop_undisturbed_by_a_child_that_" #what, what, true)

static const struct CMUnitTest tests[] = {
	BY(does_nothing),
	BY(runs_exit_handlers),
	BY(cancels),
	BY(stops_and_frees),
	BY(cancels_stops_and_frees),
	BY(works),
	BY(works_when_it_can),
	BY(hears_its_own),
	BY(registers_at_once),
	BY(looks_and_dies),
	BY(forks_again),
	BY(execs),
	cmocka_unit_test(a_child_hears_what_it_inherited),
	cmocka_unit_test(a_child_may_close_what_it_inherited),
	cmocka_unit_test(an_after_func_can_fork),
	cmocka_unit_test(a_child_does_not_wait_for_what_runs),
	cmocka_unit_test(nor_for_what_nobody_will_stop),
	cmocka_unit_test(a_child_does_not_wait_for_what_a_loop_runs),
	cmocka_unit_test(nor_for_what_nobody_will_stop_there),
	cmocka_unit_test(the_thread_may_fork_at_its_end),
	cmocka_unit_test(the_thread_may_end_in_a_child),
	cmocka_unit_test(the_thread_may_end_in_a_child_that_has_its_own),
	cmocka_unit_test(a_grandchild_does_not_wait_for_what_ran_when_its_parent_was_made),
	cmocka_unit_test(a_grandchild_may_stop_what_it_is_in),
	cmocka_unit_test(a_lock_of_the_programs_comes_first),
};

int main(void)
{
	sigset_t set;

	require(pthread_atfork(lock_program, unlock_program, unlock_program) == 0);
	start_dispatcher();
	/* The signalfd stays. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ctxfd_unref(ctxfd_with_signals(ctxfd_background(), &set));
	wait_until((dispatcher_tid = find_library_thread()) != 0);
	return run_all(tests);
}
