/* SPDX-License-Identifier: MIT */
/*
 * The child of a process whose dispatcher is running: whatever it does with after-funcs and sources that it inherited,
 * the parent's run and end as if there were no child.
 */
#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

struct note {
	_Atomic int runs;
};

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
	p->root = ctxfd_with_cancel(ctxfd_background());
	p->timed = ctxfd_with_timeout(p->root, 3600 * CTXFD_SEC);
	p->fd = ctxfd_with_fd(ctxfd_background(), p->trigger[0], POLLIN, -5);
	p->signal = ctxfd_with_signals(ctxfd_background(), &set);
	assert_true(p->root && p->timed && p->fd && p->signal);
	assert_int_equal(ctxfd_after_func(p->root, count_run, &p->plain, &p->handle), 0);
	assert_int_equal(ctxfd_after_func(p->timed, count_run, &p->late, &p->late_handle), 0);
}

static void assert_undisturbed_and_working(struct parent *p)
{
	struct ctxfd *all[] = { p->root, p->timed, p->fd, p->signal };
	struct note more = { 0 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	for (size_t i = 0; i < COUNT(all); i++)
		assert_int_equal(ctxfd_err(all[i]), 0);
	/* After a round of the dispatcher what the child did would have been heard. */
	assert_int_equal(ctxfd_after_func(ctx, count_run, &more, NULL), 0);
	ctxfd_close(ctx);
	wait_until(more.runs == 1);
	for (size_t i = 0; i < COUNT(all); i++)
		assert_int_equal(ctxfd_err(all[i]), 0);
	assert_int_equal(p->plain.runs + p->late.runs, 0);

	assert_int_equal(write(p->trigger[1], "x", 1), 1);
	assert_int_equal(ctxfd_wait(p->fd), -ECANCELED);
	assert_int_equal(ctxfd_cause(p->fd), -5);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	assert_int_equal(ctxfd_wait(p->signal), -ECANCELED);
	assert_int_equal(ctxfd_cause(p->signal), SIGUSR1);
	ctxfd_cancel(p->root);
	wait_until(p->plain.runs == 1 && p->late.runs == 1);
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

static pid_t find_dispatcher(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	pid_t found = 0;

	require(dir);
	while (!found && (e = readdir(dir))) {
		char path[64], name[16] = "";
		int fd;

		snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, name, sizeof name) == 6 && !memcmp(name, "ctxfd\n", 6))
			found = (pid_t)atoi(e->d_name);
		close(fd);
	}
	closedir(dir);
	return found;
}

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

static int stops_and_frees(void *arg)
{
	struct parent *p = arg;

	require(ctxfd_after_stop(p->handle));
	require(ctxfd_after_stop(p->late_handle));
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
	/* Due, but no dispatcher has run them. */
	return stops_and_frees(p);
}

/* Without a thread, so that ThreadSanitizer can follow. */
static int dispatches(void *arg)
{
	struct parent *p = arg;
	int fd = ctxfd_dispatch_fd();

	require(fd >= 0);
	require(ctxfd_dispatch() == 0);
	ctxfd_cancel(p->root);
	require(readable(fd));
	require(ctxfd_dispatch() == 2);
	require(p->plain.runs == 1 && p->late.runs == 1);
	return 0;
}

/* The child's own signals and its own descriptors end its contexts, after it has begun to dispatch. */
static int hears_its_own(void *arg)
{
	struct parent *p = arg;
	int fd = ctxfd_dispatch_fd(), pipe[2];
	struct ctxfd *own;

	require(fd >= 0);
	require(kill(getpid(), SIGUSR1) == 0);
	while (!ctxfd_err(p->signal)) {
		wait_readable(fd);
		require(ctxfd_dispatch() >= 0);
	}
	require(ctxfd_cause(p->signal) == SIGUSR1);
	make_pipe(pipe);
	own = ctxfd_with_fd(p->fd, pipe[0], POLLIN, -9);
	require(own);
	require(write(pipe[1], "x", 1) == 1);
	while (!ctxfd_err(own)) {
		wait_readable(fd);
		require(ctxfd_dispatch() >= 0);
	}
	require(ctxfd_cause(own) == -9 && ctxfd_err(p->fd) == 0);
	ctxfd_unref(own);
	return stops_and_frees(p);
}

static int starts_a_thread(void *arg)
{
	struct parent *p = arg;
	struct note own = { 0 };

	require(ctxfd_after_func(p->timed, count_run, &own, NULL) == 0);
	ctxfd_cancel(p->root);
	wait_until(p->plain.runs == 1 && p->late.runs == 1 && own.runs == 1);
	exit(0);
}

static int forks_again(void *arg)
{
	require(in_child(dispatches, arg) == 0);
	return dispatches(arg);
}

static int execs(void *arg)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

struct deed {
	int (*fn)(void *parent);
	bool thread;
};

static void parent_is_undisturbed_by(void **state)
{
	const struct deed *deed = *state;
	struct parent p;

#ifdef __SANITIZE_THREAD__
	if (deed->thread)
		skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	make_parent(&p);
	assert_int_equal(in_child_at_rest(deed->fn, &p), 0);
	assert_undisturbed_and_working(&p);
	free_parent(&p);
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
	require(ctxfd_dispatch_fd() >= 0);
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
	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_dispatch() == 1);
	require(b->note.runs == 1);
	require(!ctxfd_after_stop(b->behind));
	ctxfd_unref(b->ctx);
	return 0;
}

static void fork_while_one_runs(bool owned)
{
	struct busy b = { .ctx = ctxfd_with_cancel(ctxfd_background()) };

	make_pipe(b.gate);
	assert_int_equal(ctxfd_after_func(b.ctx, wait_at_gate, &b, owned ? &b.handle : NULL), 0);
	assert_int_equal(ctxfd_after_func(b.ctx, count_run, &b.note, &b.behind), 0);
	ctxfd_cancel(b.ctx);
	wait_until(b.running);
	assert_int_equal(in_child_at_rest(carries_on, &b), 0);
	assert_int_equal(b.note.runs, 0);
	assert_int_equal(write(b.gate[1], "x", 1), 1);
	wait_until(b.note.runs == 1);
	if (b.handle)
		assert_false(ctxfd_after_stop(b.handle));
	assert_false(ctxfd_after_stop(b.behind));
	ctxfd_unref(b.ctx);
	close_pair(b.gate);
}

static void a_child_does_not_wait_for_what_runs(void **state)
{
	fork_while_one_runs(true);
}

static void nor_for_what_nobody_will_stop(void **state)
{
	fork_while_one_runs(false);
}

/* ---- Forking while a thread takes over --------------------------------------------------------------------------- */

static int ends(void *arg)
{
	return 7;
}

static void *take_over(void *arg)
{
	return (void *)(intptr_t)ctxfd_dispatch_fd();
}

/* The takeover waits for a function, which waits for the thread that forks. So fork must not wait for the takeover. */
static int forks_during_a_takeover(void *arg)
{
	struct busy b = { .ctx = ctxfd_with_cancel(ctxfd_background()) };
	struct thread *takers[2];

	make_pipe(b.gate);
	require(ctxfd_after_func(b.ctx, wait_at_gate, &b, NULL) == 0);
	ctxfd_close(b.ctx);
	wait_until(b.running);
	for (int i = 0; i < 2; i++) {
		takers[i] = thread_start(take_over, NULL);
		thread_wait_asleep(takers[i]);
	}
	require(in_child(ends, NULL) == 7);
	require(write(b.gate[1], "x", 1) == 1);
	for (int i = 0; i < 2; i++)
		require((intptr_t)thread_join(takers[i]) >= 0);
	require(ctxfd_dispatch() == 0);
	close_pair(b.gate);
	return 0;
}

static void fork_does_not_wait_for_a_takeover(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	assert_int_equal(in_child_at_rest(forks_during_a_takeover, NULL), 0);
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
}

static int takes_over_what_ends_with_a_fork(void *arg)
{
	struct busy b = { .ctx = ctxfd_with_cancel(ctxfd_background()) };

	require(pthread_key_create(&at_its_end, fork_at_its_end) == 0);
	require(ctxfd_after_func(b.ctx, end_with_a_fork, &b, NULL) == 0);
	ctxfd_close(b.ctx);
	wait_until(b.running);
	require(ctxfd_dispatch_fd() >= 0);
	require(b.note.runs == 7);
	require(pthread_key_delete(at_its_end) == 0);
	return 0;
}

static void the_thread_may_fork_at_its_end(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	assert_int_equal(in_child_at_rest(takes_over_what_ends_with_a_fork, NULL), 0);
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
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctxfd_dispatch_fd() >= 0);
	require(ctxfd_after_func(ctx, fn, t, handle) == 0);
	ctxfd_cancel(ctx);
	require(ctxfd_dispatch() == 1);
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

#define BY(what, ...)                                                                                      \
	{                                                                                                  \
		"undisturbed_by_a_child_that_" #what, parent_is_undisturbed_by, NULL, NULL, &(struct deed) \
		{                                                                                          \
			what, __VA_ARGS__                                                                  \
		}                                                                                          \
	}

static const struct CMUnitTest tests[] = {
	BY(does_nothing, false),
	BY(runs_exit_handlers, false),
	BY(cancels, false),
	BY(stops_and_frees, false),
	BY(cancels_stops_and_frees, false),
	BY(dispatches, false),
	BY(hears_its_own, false),
	BY(starts_a_thread, true),
	BY(forks_again, false),
	BY(execs, false),
	cmocka_unit_test(an_after_func_can_fork),
	cmocka_unit_test(a_child_does_not_wait_for_what_runs),
	cmocka_unit_test(nor_for_what_nobody_will_stop),
	cmocka_unit_test(fork_does_not_wait_for_a_takeover),
	cmocka_unit_test(the_thread_may_fork_at_its_end),
	cmocka_unit_test(a_grandchild_does_not_wait_for_what_ran_when_its_parent_was_made),
	cmocka_unit_test(a_grandchild_may_stop_what_it_is_in),
	cmocka_unit_test(a_lock_of_the_programs_comes_first),
};

int main(void)
{
	sigset_t set;

	require(pthread_atfork(lock_program, unlock_program, unlock_program) == 0);
	start_dispatcher();
	/* Blocks it before any other thread starts, and has the dispatcher make the signalfd that it keeps. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ctxfd_unref(ctxfd_with_signals(ctxfd_background(), &set));
	wait_until((dispatcher_tid = find_dispatcher()) != 0);
	return run_all(tests);
}
