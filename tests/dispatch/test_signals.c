/* SPDX-License-Identifier: MIT */
/* Contexts that end by a signal: who hears it, and whose it is when nobody listens. */
#include "loop.h"

#include <signal.h>
#include <spawn.h>
#include <sys/signalfd.h>
#include <sys/time.h>

extern char **environ;

static sigset_t set_of(int a, int b)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, a);
	if (b)
		sigaddset(&set, b);
	return set;
}

static struct ctxfd *hears(const struct ctxfd *parent, int signal)
{
	sigset_t set = set_of(signal, 0);
	struct ctxfd *ctx = ctxfd_with_signals(parent, &set);

	require(ctx);
	return ctx;
}

static void send_signal(int signal)
{
	require(kill(getpid(), signal) == 0);
}

static _Atomic int handled;

static void handle(int signal)
{
	handled = signal;
}

/* The program's own handler, or SIG_DFL or SIG_IGN. */
static void dispose(int signal, void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	require(sigaction(signal, &action, NULL) == 0);
	handled = 0;
}

static _Atomic int sender;

static void handle_info(int signal, siginfo_t *info, void *context)
{
	sender = context ? (int)info->si_pid : -1;
	handled = signal;
}

static bool is_disposed(int signal, void (*handler)(int))
{
	struct sigaction action;

	require(sigaction(signal, NULL, &action) == 0);
	return !(action.sa_flags & SA_SIGINFO) && action.sa_handler == handler;
}

/* ---- What the linker leads through here: see dispatch.mk --------------------------------------------------------- */

static void (*_Atomic after_signal_read)(void); /* once, when the library has read a signal */

ssize_t __real_read(int fd, void *buf, size_t size);
ssize_t __wrap_read(int fd, void *buf, size_t size);
int __real_raise(int signal);
int __wrap_raise(int signal);

ssize_t __wrap_read(int fd, void *buf, size_t size)
{
	ssize_t n = __real_read(fd, buf, size);
	void (*call)(void) =
	        n == (ssize_t)sizeof(struct signalfd_siginfo) ? atomic_exchange(&after_signal_read, NULL) : NULL;

	if (call)
		call();
	return n;
}

int __wrap_raise(int signal)
{
	save_counts();
	return __real_raise(signal);
}

/* ---- Who hears it ------------------------------------------------------------------------------------------------ */

static void all_that_want_it_hear_it(void **state)
{
	sigset_t set = set_of(SIGUSR1, SIGUSR2), before, after;
	struct ctxfd *both, *one, *other;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	both = ctxfd_with_signals(ctxfd_background(), &set);
	one = hears(ctxfd_background(), SIGUSR1);
	other = hears(ctxfd_background(), SIGUSR2);
	send_signal(SIGUSR1);
	assert_int_equal(ctxfd_wait(both), -ECANCELED);
	assert_int_equal(ctxfd_wait(one), -ECANCELED);
	assert_int_equal(ctxfd_cause(both), SIGUSR1);
	assert_int_equal(ctxfd_cause(one), SIGUSR1);
	assert_string_equal(ctxfd_strerror(ctxfd_cause(one)), strsignal(SIGUSR1));
	assert_int_equal(ctxfd_err(other), 0);
	send_signal(SIGUSR2);
	assert_int_equal(ctxfd_wait(other), -ECANCELED);
	assert_int_equal(ctxfd_cause(both), SIGUSR1);
	assert_int_equal(ctxfd_cause(other), SIGUSR2);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int s = 1; s < NSIG; s++)
		assert_int_equal(sigismember(&after, s), sigismember(&before, s));
	ctxfd_close(both);
	ctxfd_close(one);
	ctxfd_close(other);
}

static void *stay_asleep(void *arg)
{
	return (void *)(intptr_t)ctxfd_wait(arg);
}

/* Threads that were there before, with no mask of their own; and a signal that a thread sends itself. */
static void whichever_threads_there_are(void **state)
{
	struct ctxfd *end = ctxfd_with_cancel(ctxfd_background()), *ctx;
	struct thread *threads[3];

	for (int i = 0; i < 3; i++)
		threads[i] = thread_start(stay_asleep, end);
	ctx = hears(ctxfd_background(), SIGUSR1);
	send_signal(SIGUSR1);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	ctxfd_close(ctx);
#ifndef __SANITIZE_THREAD__ /* which puts handlers off while a thread is asleep in a call that it does not know */
	ctx = hears(ctxfd_background(), SIGUSR1);
	assert_int_equal(pthread_kill(thread_pthread(threads[1]), SIGUSR1), 0);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	ctxfd_close(ctx);
#endif
	ctxfd_cancel(end);
	for (int i = 0; i < 3; i++)
		thread_join(threads[i]);
	ctxfd_unref(end);
}

/* Where every thread has it blocked: in a process of its own, since a sanitizer's thread has not. */
static int hears_what_is_blocked(void *arg)
{
	sigset_t set = set_of(SIGUSR1, 0);
	struct ctxfd *ctx;

	pthread_sigmask(SIG_BLOCK, &set, NULL);
	require(make_loop() >= 0);
	for (int i = 0; i < 2; i++) {
		ctx = hears(home, SIGUSR1);
		send_signal(SIGUSR1);
		while (!ctxfd_err(ctx)) {
			wait_readable(ctxfd_dispatcher_fd(loop));
			require(run_loop() >= 0);
		}
		require(ctxfd_cause(ctx) == SIGUSR1);
		ctxfd_unref(ctx);
	}
	/* Nobody listens: it stays pending. */
	send_signal(SIGUSR1);
	require(run_loop() == 0);
	require(sigwaitinfo(&set, NULL) == SIGUSR1);
	return 7;
}

/* Of two dispatchers, both of whose listeners have ended: the signal stays pending for the program. */
static int asks_nobody_again(void *arg)
{
	struct ctxfd_dispatcher *other = ctxfd_dispatcher_new();
	const struct ctxfd *there = ctxfd_with_dispatcher(ctxfd_background(), other);
	sigset_t set = set_of(SIGUSR1, 0);
	struct ctxfd *one, *two;

	require(make_loop() >= 0);
	one = hears(home, SIGUSR1);
	two = hears(there, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	ctxfd_cancel(one);
	ctxfd_cancel(two);
	send_signal(SIGUSR1);
	for (int i = 0; i < 2; i++) {
		require(run_loop() == 0);
		pass_time(10 * CTXFD_MSEC);
	}
	require(sigwaitinfo(&set, NULL) == SIGUSR1);
	return 7;
}

static struct ctxfd *to_cancel;

static void cancel_it(void)
{
	ctxfd_cancel(to_cancel);
}

/* The last listener ends when the library has taken the signal already: then the program gets it back. */
static int is_read_too_late(void *arg)
{
	sigset_t set = set_of(SIGUSR1, 0);

	pthread_sigmask(SIG_BLOCK, &set, NULL);
	require(make_loop() >= 0);
	to_cancel = hears(home, SIGUSR1);
	send_signal(SIGUSR1);
	/* The library reads it if it is still pending some milliseconds after the first look. */
	after_signal_read = cancel_it;
	while (after_signal_read) {
		wait_readable(ctxfd_dispatcher_fd(loop));
		require(run_loop() == 0);
	}
	require(ctxfd_cause(to_cancel) != SIGUSR1);
	require(sigwaitinfo(&set, NULL) == SIGUSR1);
	return 7;
}

static void what_nobody_wants_any_more_goes_back(void **state)
{
	assert_int_equal(in_child(is_read_too_late, NULL), 7);
}

static void nobody_is_asked_again_and_again(void **state)
{
	assert_int_equal(in_child(asks_nobody_again, NULL), 7);
}

static void also_where_it_is_blocked(void **state)
{
	assert_int_equal(in_child(hears_what_is_blocked, NULL), 7);
}

/* By the library's own thread; and other signals that come all the time do not put it off. */
static int the_library_hears_what_is_blocked(void *arg)
{
	sigset_t set = set_of(SIGUSR1, 0);
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } };
	struct ctxfd *ctx;

	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 2; i++) {
		if (i == 1) {
			require(signal(SIGALRM, handle) != SIG_ERR);
			require(setitimer(ITIMER_REAL, &often, NULL) == 0);
		}
		ctx = hears(ctxfd_background(), SIGUSR1);
		send_signal(SIGUSR1);
		require(ctxfd_wait(ctx) == -ECANCELED && ctxfd_cause(ctx) == SIGUSR1);
		ctxfd_close(ctx);
	}
	return 7;
}

static void also_by_the_librarys_thread(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer has a thread of its own, which has nothing blocked");
#endif
	assert_int_equal(in_child(the_library_hears_what_is_blocked, NULL), 7);
}

static void listeners_of_every_dispatcher(void **state)
{
	struct ctxfd *here, *there;

	assert_true(make_loop() >= 0);
	here = hears(home, SIGUSR1);
	there = hears(ctxfd_background(), SIGUSR1);
	send_signal(SIGUSR1);
	assert_int_equal(ctxfd_wait(there), -ECANCELED);
	assert_int_equal(ctxfd_err(here), 0);
	wait_readable(ctxfd_dispatcher_fd(loop));
	assert_int_equal(run_loop(), 1);
	assert_int_equal(ctxfd_cause(here), SIGUSR1);
	ctxfd_close(here);
	ctxfd_close(there);
	free_loop();
}

/* ---- Whose it is otherwise --------------------------------------------------------------------------------------- */

static void the_programs_handler_waits_its_turn(void **state)
{
	struct ctxfd *ctx;

	dispose(SIGUSR1, handle);
	ctx = hears(ctxfd_background(), SIGUSR1);
	send_signal(SIGUSR1);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	assert_int_equal(handled, 0);
	send_signal(SIGUSR1); /* the context is still there */
	assert_int_equal(handled, SIGUSR1);
	ctxfd_close(ctx);
	dispose(SIGUSR1, SIG_DFL);
}

/* Whoever sees the context done sees the disposition of before. */
static void the_disposition_comes_back_first(void **state)
{
	dispose(SIGUSR1, handle);
	for (int i = 0; i < rounds(300); i++) {
		struct ctxfd *ctx = hears(ctxfd_background(), SIGUSR1);

		send_signal(SIGUSR1);
		while (!ctxfd_err(ctx))
			continue;
		assert_true(is_disposed(SIGUSR1, handle));
		ctxfd_close(ctx);
	}
	dispose(SIGUSR1, SIG_DFL);
}

static void the_last_listener_gives_it_back(void **state)
{
	struct ctxfd *one, *two;

	dispose(SIGUSR1, handle);
	one = hears(ctxfd_background(), SIGUSR1);
	two = hears(ctxfd_background(), SIGUSR1);
	ctxfd_close(one);
	assert_false(is_disposed(SIGUSR1, handle));
	ctxfd_close(two);
	assert_true(is_disposed(SIGUSR1, handle));
	dispose(SIGUSR1, SIG_DFL);
}

/* It has ended by its parent; nobody has told the dispatcher, and nobody runs it. */
static void who_has_ended_does_not_listen(void **state)
{
	struct ctxfd *parent, *ctx, *timed;

	dispose(SIGUSR1, handle);
	assert_true(make_loop() >= 0);
	parent = ctxfd_with_cancel(home);
	ctx = hears(parent, SIGUSR1);
	ctxfd_cancel(parent);
	send_signal(SIGUSR1);
	assert_int_equal(handled, SIGUSR1);
	handled = 0;
	timed = ctxfd_with_timeout(home, CTXFD_MSEC);
	ctxfd_close(ctx);
	ctx = hears(timed, SIGUSR1);
	wait_until(ctxfd_remaining(timed) == 0);
	send_signal(SIGUSR1);
	assert_int_equal(handled, SIGUSR1);
	ctxfd_close(ctx);
	ctxfd_close(timed);
	ctxfd_close(parent);
	free_loop();
	dispose(SIGUSR1, SIG_DFL);
}

static void what_was_ignored_is_ignored_again(void **state)
{
	struct ctxfd *ctx;

	dispose(SIGUSR1, SIG_IGN);
	ctx = hears(ctxfd_background(), SIGUSR1);
	send_signal(SIGUSR1);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	send_signal(SIGUSR1); /* it does not end us */
	assert_true(is_disposed(SIGUSR1, SIG_IGN));
	ctxfd_close(ctx);
	ctx = hears(ctxfd_background(), SIGUSR1);
	ctxfd_cancel(ctx);
	send_signal(SIGUSR1); /* nor if the handler is still there */
	ctxfd_unref(ctx);
	dispose(SIGUSR1, SIG_DFL);
}

static int ignores_as_by_default(void *arg)
{
	static const int ignored[] = { SIGCHLD, SIGURG, SIGWINCH, SIGCONT };

	require(make_loop() >= 0);
	for (size_t i = 0; i < COUNT(ignored); i++) {
		struct ctxfd *ctx = hears(home, ignored[i]);

		ctxfd_cancel(ctx);
		send_signal(ignored[i]);
		require(!is_disposed(ignored[i], SIG_DFL)); /* it has come to our handler */
		ctxfd_unref(ctx);
		require(is_disposed(ignored[i], SIG_DFL));
	}
	return 7;
}

/* In a child, which has no thread of the library's: that would give the signal back when it finds the context ended. */
static void what_the_default_ignores_is_ignored(void **state)
{
	assert_int_equal(in_child(ignores_as_by_default, NULL), 7);
}

/* Children whose parent ignores SIGCHLD leave no zombie, also while a context hears of their end; all others do. */
static int reaps_who_is_to_be_reaped(void *arg)
{
	struct sigaction action = { .sa_sigaction = handle_info, .sa_flags = SA_SIGINFO };
	struct ctxfd *ctx;
	pid_t pid;

	for (int ignored = 0; ignored < 2; ignored++) {
		if (ignored)
			dispose(SIGCHLD, SIG_IGN);
		else
			require(sigaction(SIGCHLD, &action, NULL) == 0);
		ctx = hears(ctxfd_background(), SIGCHLD);
		pid = fork();
		require(pid >= 0);
		if (pid == 0)
			_exit(0);
		require(ctxfd_wait(ctx) == -ECANCELED && ctxfd_cause(ctx) == SIGCHLD);
		require(waitpid(pid, NULL, 0) == (ignored ? -1 : pid));
		ctxfd_close(ctx);
	}
	return 7;
}

static void ignored_children_leave_nothing(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	assert_int_equal(in_child(reaps_who_is_to_be_reaped, NULL), 7);
}

static void what_the_program_sets_meanwhile_stays(void **state)
{
	struct ctxfd *ctx = hears(ctxfd_background(), SIGUSR1);

	dispose(SIGUSR1, handle);
	send_signal(SIGUSR1);
	assert_int_equal(handled, SIGUSR1);
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_close(ctx);
	assert_true(is_disposed(SIGUSR1, handle));
	dispose(SIGUSR1, SIG_DFL);
}

static int is_told_in_child(void *arg)
{
	send_signal(SIGUSR1);
	return sender == getpid() ? 7 : 1;
}

static void a_handler_is_told_by_whom(void **state)
{
	struct sigaction action = { .sa_sigaction = handle_info, .sa_flags = SA_SIGINFO };
	struct ctxfd *ctx;

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	ctx = hears(ctxfd_background(), SIGUSR1);
	ctxfd_cancel(ctx);
	send_signal(SIGUSR1);
	assert_int_equal(handled, SIGUSR1);
	assert_int_equal(sender, getpid());
	assert_int_equal(in_child(is_told_in_child, NULL), 7);
	ctxfd_close(ctx);
	dispose(SIGUSR1, SIG_DFL);
}

static struct sigaction found;
static _Atomic int chained;

/* As a library does that sets a handler of its own: it calls what it found. */
static void handle_and_chain(int signal, siginfo_t *info, void *context)
{
	chained++;
	if (found.sa_flags & SA_SIGINFO)
		found.sa_sigaction(signal, info, context);
	else if (found.sa_handler != SIG_DFL && found.sa_handler != SIG_IGN)
		found.sa_handler(signal);
}

/* Its handler calls ours, which would call it. */
static void a_handler_may_call_what_it_found(void **state)
{
	struct sigaction action = { .sa_sigaction = handle_and_chain, .sa_flags = SA_SIGINFO };
	struct ctxfd *one, *two;

	dispose(SIGUSR1, handle);
	one = hears(ctxfd_background(), SIGUSR1);
	assert_int_equal(sigaction(SIGUSR1, &action, &found), 0);
	two = hears(ctxfd_background(), SIGUSR1);
	ctxfd_cancel(one);
	ctxfd_cancel(two);
	send_signal(SIGUSR1);
	assert_int_equal(chained, 1);
	assert_int_equal(handled, SIGUSR1);
	ctxfd_close(one);
	ctxfd_close(two);
	dispose(SIGUSR1, SIG_DFL);
}

/*
 * A context that has been cancelled while it listened; its signal has our handler, over `later`, over ours, over
 * handle.
 */
static struct ctxfd *dispose_twice(int signal, void (*later)(int signal, siginfo_t *info, void *context))
{
	struct sigaction action = { .sa_sigaction = later, .sa_flags = SA_SIGINFO };
	struct ctxfd *one, *two;

	dispose(signal, SIG_DFL);
	ctxfd_close(hears(ctxfd_background(), signal)); /* the library sees that, and forgets what came before */
	dispose(signal, handle);
	one = hears(ctxfd_background(), signal);
	require(sigaction(signal, &action, &found) == 0);
	two = hears(ctxfd_background(), signal);
	ctxfd_close(one);
	ctxfd_cancel(two);
	return two;
}

static sigjmp_buf out;

static void handle_and_jump(int signal, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	chained++;
	siglongjmp(out, 1);
}

static void a_handler_may_be_left_by_siglongjmp(void **state)
{
	struct ctxfd *ctx = dispose_twice(SIGUSR1, handle_and_jump);

	chained = 0;
	for (volatile int i = 1; i <= 3; i++) {
		if (sigsetjmp(out, 1) == 0)
			send_signal(SIGUSR1);
		assert_int_equal(chained, i);
	}
	assert_int_equal(handled, 0);
	ctxfd_close(ctx);
	dispose(SIGUSR1, SIG_DFL);
}

static void handle_and_send_another(int signal, siginfo_t *info, void *context)
{
	sigset_t another = set_of(SIGUSR2, 0);

	(void)info, (void)context;
	pthread_sigmask(SIG_UNBLOCK, &another, NULL);
	send_signal(SIGUSR2);
}

static void a_handler_may_be_interrupted_by_another(void **state)
{
	struct ctxfd *one, *two;

	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind does not extend the stack for a signal that comes in a handler");
	one = dispose_twice(SIGUSR1, handle_and_send_another);
	two = dispose_twice(SIGUSR2, handle_and_chain);
	chained = 0;
	send_signal(SIGUSR1);
	assert_int_equal(chained, 1);
	ctxfd_close(one);
	ctxfd_close(two);
	dispose(SIGUSR1, SIG_DFL);
	dispose(SIGUSR2, SIG_DFL);
}

#define HANDLER(n)                                                  \
	static struct sigaction found_##n;                          \
	static void handle_##n(int signal)                          \
	{                                                           \
		chained++;                                          \
		if (found_##n.sa_flags & SA_SIGINFO)                \
			found_##n.sa_sigaction(signal, NULL, NULL); \
		else                                                \
			found_##n.sa_handler(signal);               \
	}
HANDLER(1)
HANDLER(2)
HANDLER(3)
HANDLER(4)

static const struct {
	void (*handler)(int);
	struct sigaction *found;
} stack[] = { { handle_1, &found_1 }, { handle_2, &found_2 }, { handle_3, &found_3 }, { handle_4, &found_4 } };

/* Each of them calls the one below it, through ours. */
static void handlers_may_be_stacked(void **state)
{
	struct ctxfd *ctx[4];
	sigset_t set = set_of(SIGUSR1, 0);

	dispose(SIGUSR1, SIG_DFL);
	ctxfd_close(hears(ctxfd_background(), SIGUSR1));
	dispose(SIGUSR1, handle);
	for (int i = 0; i < 4; i++) {
		struct sigaction action = { .sa_handler = stack[i].handler };

		ctx[i] = hears(ctxfd_background(), SIGUSR1);
		assert_int_equal(sigaction(SIGUSR1, &action, stack[i].found), 0);
	}
	assert_null(ctxfd_with_signals(ctxfd_background(), &set));
	assert_int_equal(errno, EBUSY);
	for (int i = 0; i < 4; i++)
		ctxfd_close(ctx[i]);
	chained = 0;
	send_signal(SIGUSR1);
	assert_int_equal(chained, 4);
	assert_int_equal(handled, SIGUSR1);

	/* It takes its handlers down, one by one. */
	for (int i = 3; i >= 0; i--)
		assert_int_equal(sigaction(SIGUSR1, stack[i].found, NULL), 0);
	ctxfd_close(hears(ctxfd_background(), SIGUSR1));
	assert_true(is_disposed(SIGUSR1, handle));
	dispose(SIGUSR1, SIG_DFL);
}

#define ANOTHER(n)                          \
	static void another_##n(int signal) \
	{                                   \
		handled = -(n);             \
	}
ANOTHER(0)
ANOTHER(1)
ANOTHER(2)
ANOTHER(3)
ANOTHER(4)

static void a_program_may_change_its_mind_again_and_again(void **state)
{
	static void (*const handlers[])(int) = { another_0, another_1, another_2, another_3, another_4 };

	for (int i = 0; i < 5; i++) {
		dispose(SIGUSR1, handlers[i]);
		ctxfd_close(hears(ctxfd_background(), SIGUSR1));
		assert_true(is_disposed(SIGUSR1, handlers[i]));
	}
	dispose(SIGUSR1, SIG_DFL);
}

static void a_handler_that_comes_again_is_known(void **state)
{
	struct ctxfd *ctx[9];

	dispose(SIGUSR1, SIG_DFL);
	ctxfd_close(hears(ctxfd_background(), SIGUSR1));
	for (int i = 0; i < 9; i++) {
		dispose(SIGUSR1, i % 2 ? another_1 : another_2);
		ctx[i] = hears(ctxfd_background(), SIGUSR1);
	}
	for (int i = 0; i < 9; i++)
		ctxfd_close(ctx[i]);
	assert_true(is_disposed(SIGUSR1, another_2));
	dispose(SIGUSR1, SIG_DFL);
}

static void a_handler_for_once_is_called_once(void **state)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = (int)SA_RESETHAND };
	struct ctxfd *ctx;

	handled = 0;
	assert_int_equal(sigaction(SIGURG, &action, NULL), 0); /* which is ignored by default */
	ctx = hears(ctxfd_background(), SIGURG);
	ctxfd_cancel(ctx);
	send_signal(SIGURG);
	assert_int_equal(handled, SIGURG);
	handled = 0;
	send_signal(SIGURG);
	assert_int_equal(handled, 0);
	ctxfd_close(ctx);
	assert_true(is_disposed(SIGURG, SIG_DFL));
	assert_int_equal(sigaction(SIGURG, &action, NULL), 0);
	ctxfd_close(hears(ctxfd_background(), SIGURG)); /* not called, so it is still to come */
	assert_true(is_disposed(SIGURG, handle));
	dispose(SIGURG, SIG_DFL);
}

/* A context with a deadline, which has not passed. */
static void a_deadline_to_come_is_no_end(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC), *ctx = hears(parent, SIGUSR1);

	send_signal(SIGUSR1);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), SIGUSR1);
	ctxfd_close(ctx);
	ctxfd_close(parent);
}

/* ---- The second Ctrl-C ------------------------------------------------------------------------------------------- */

static pid_t start(void (*fn)(void))
{
	pid_t pid;

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer runs a handler when it sees fit");
#endif
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fn();
		_exit(1);
	}
	return pid;
}

static void assert_killed_by(pid_t pid, int signal)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), signal);
}

/* The loop hangs: after the first it does nothing any more. */
static void hang_after_the_first(void)
{
	struct ctxfd *ctx;

	dispose(SIGINT, SIG_DFL); /* a shell may have it ignored */
	require(make_loop() >= 0);
	ctx = hears(home, SIGINT);
	send_signal(SIGINT);
	require(run_loop() == 1 && ctxfd_cause(ctx) == SIGINT);
	send_signal(SIGINT);
}

static void a_second_one_ends_the_program(void **state)
{
	assert_killed_by(start(hang_after_the_first), SIGINT);
}

static volatile int *volatile nowhere;

/* The instruction would do it again and again, if the signal were taken for an end. */
static void crash(void)
{
	sigset_t all;

	sigfillset(&all);
	dispose(SIGSEGV, SIG_DFL);
	require(make_loop() >= 0);
	require(ctxfd_with_signals(home, &all));
	*nowhere = 1;
}

static void a_fault_is_a_fault(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_UNDEFINED__)
	skip_test("the sanitizer would report it");
#endif
	assert_killed_by(start(crash), SIGSEGV);
}

/* What one that ends otherwise was listening for. */
static void hang_after_a_cancel(void)
{
	struct ctxfd *ctx;

	require(make_loop() >= 0);
	ctx = hears(home, SIGTERM);
	ctxfd_cancel(ctx);
	send_signal(SIGTERM);
}

static void the_first_does_after_a_cancel(void **state)
{
	assert_killed_by(start(hang_after_a_cancel), SIGTERM);
}

/* Ctrl-Z, which nobody listens for any more: it stops the process each time. */
static void stop_twice(void)
{
	static const int stops[] = { SIGTSTP, SIGTTIN, SIGTTOU };

	require(make_loop() >= 0);
	for (size_t i = 0; i < COUNT(stops); i++) {
		struct ctxfd *ctx;

		dispose(stops[i], SIG_DFL);
		ctx = hears(home, stops[i]);
		ctxfd_cancel(ctx);
		for (int twice = 0; twice < 2; twice++)
			send_signal(stops[i]);
		ctxfd_unref(ctx);
	}
	free_loop();
	save_counts();
	_exit(7);
}

static void it_stops_and_goes_on(void **state)
{
	pid_t pid = start(stop_twice);
	int status;

	for (int i = 0; i < 6; i++) {
		assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
		assert_true(WIFSTOPPED(status));
		assert_int_equal(kill(pid, SIGCONT), 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
}

/* ---- Other processes --------------------------------------------------------------------------------------------- */

/* A child that executes a program: nothing is blocked there, and nothing ignored but what was. */
static void assert_clean(char *const argv[])
{
	int status;
	pid_t pid;

	assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_program_that_is_started_is_as_ever(void **state)
{
	char script[] =
	        "grep -q '^SigBlk:\t0*$' /proc/self/status && ! grep -q '^SigIgn:.*[2367abef]..$' /proc/self/status";
	char *const argv[] = { "sh", "-c", script, NULL };
	struct ctxfd *ctx = hears(ctxfd_background(), SIGUSR1); /* 10: bit 9 */

	assert_clean(argv);
	ctxfd_close(ctx);
}

static void one_that_a_child_starts_ignores_what_was_ignored(void **state)
{
	struct ctxfd *ctx;
	int status;
	pid_t pid;

	dispose(SIGUSR1, SIG_IGN);
	ctx = hears(ctxfd_background(), SIGUSR1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", "kill -USR1 $$; exit 7", (char *)NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7);
	ctxfd_close(ctx);
	dispose(SIGUSR1, SIG_DFL);
}

/* daemon() is a fork. What comes before the child has looked at anything is heard as well. */
static int hears_in_child(void *arg)
{
	send_signal(SIGTERM);
	require(ctxfd_wait(arg) == -ECANCELED);
	require(ctxfd_cause(arg) == SIGTERM);
	return 7;
}

static void a_child_hears_its_own(void **state)
{
	struct ctxfd *ctx;

#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer cannot follow threads of a threaded process's child");
#endif
	ctx = hears(ctxfd_background(), SIGTERM);
	assert_int_equal(in_child(hears_in_child, ctx), 7);
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_close(ctx);
}

/* ---- Input ------------------------------------------------------------------------------------------------------- */

static void refuses_no_signals(void **state)
{
	sigset_t set;

	sigemptyset(&set);
	assert_null(ctxfd_with_signals(ctxfd_background(), &set));
	assert_int_equal(errno, EINVAL);
	sigaddset(&set, SIGKILL);
	sigaddset(&set, SIGSTOP);
	assert_null(ctxfd_with_signals(ctxfd_background(), &set));
	assert_int_equal(errno, EINVAL);
	assert_null(ctxfd_with_signals(ctxfd_background(), NULL));
	assert_int_equal(errno, EINVAL);
	sigaddset(&set, SIGUSR1);
	assert_null(ctxfd_with_signals(NULL, &set));
	assert_int_equal(errno, EINVAL);
	fail_allocation(1);
	assert_null(ctxfd_with_signals(ctxfd_background(), &set));
	assert_int_equal(errno, ENOMEM);
	assert_true(is_disposed(SIGUSR1, SIG_DFL));
}

/* All there are, with those that cannot be had. */
static int hears_all(void *arg)
{
	sigset_t all;
	struct ctxfd *ctx;

	memset(&all, 0xff, sizeof all); /* the C library's own as well */
	ctx = ctxfd_with_signals(ctxfd_background(), &all);
	require(ctx);
	send_signal(SIGTERM);
	require(ctxfd_wait(ctx) == -ECANCELED && ctxfd_cause(ctx) == SIGTERM);
	ctxfd_close(ctx);
	require(is_disposed(SIGTERM, SIG_DFL));
	return 7;
}

static void the_full_set(void **state)
{
	assert_int_equal(in_child(hears_all, NULL), 7);
}

/* ---- All at once ------------------------------------------------------------------------------------------------- */

static _Atomic bool over;

static void *come_and_go(void *arg)
{
	while (!over) {
		struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background()), *ctx = hears(parent, SIGUSR1);

		if (arg)
			ctxfd_cancel(parent);
		ctxfd_unref(parent);
		ctxfd_close(ctx);
	}
	return NULL;
}

/* Listeners come and go while signals do. Nothing breaks, and none is left with the wrong disposition. */
static void listeners_come_and_go(void **state)
{
	struct thread *threads[2];

	dispose(SIGUSR1, handle);
	over = false;
	for (int i = 0; i < 2; i++)
		threads[i] = thread_start(come_and_go, i ? &over : NULL);
	for (int i = 0; i < rounds(3000); i++)
		send_signal(SIGUSR1);
	over = true;
	for (int i = 0; i < 2; i++)
		thread_join(threads[i]);
	assert_true(is_disposed(SIGUSR1, handle));
	dispose(SIGUSR1, SIG_DFL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_want_it_hear_it),
		cmocka_unit_test(whichever_threads_there_are),
		cmocka_unit_test(also_where_it_is_blocked),
		cmocka_unit_test(also_by_the_librarys_thread),
		cmocka_unit_test(listeners_of_every_dispatcher),
		cmocka_unit_test(the_programs_handler_waits_its_turn),
		cmocka_unit_test(the_disposition_comes_back_first),
		cmocka_unit_test(the_last_listener_gives_it_back),
		cmocka_unit_test(who_has_ended_does_not_listen),
		cmocka_unit_test(what_was_ignored_is_ignored_again),
		cmocka_unit_test(what_the_default_ignores_is_ignored),
		cmocka_unit_test(ignored_children_leave_nothing),
		cmocka_unit_test(what_the_program_sets_meanwhile_stays),
		cmocka_unit_test(a_handler_is_told_by_whom),
		cmocka_unit_test(a_handler_may_call_what_it_found),
		cmocka_unit_test(a_handler_may_be_left_by_siglongjmp),
		cmocka_unit_test(a_handler_may_be_interrupted_by_another),
		cmocka_unit_test(handlers_may_be_stacked),
		cmocka_unit_test(a_program_may_change_its_mind_again_and_again),
		cmocka_unit_test(a_handler_that_comes_again_is_known),
		cmocka_unit_test(a_handler_for_once_is_called_once),
		cmocka_unit_test(nobody_is_asked_again_and_again),
		cmocka_unit_test(what_nobody_wants_any_more_goes_back),
		cmocka_unit_test(a_deadline_to_come_is_no_end),
		cmocka_unit_test(a_second_one_ends_the_program),
		cmocka_unit_test(a_fault_is_a_fault),
		cmocka_unit_test(the_first_does_after_a_cancel),
		cmocka_unit_test(it_stops_and_goes_on),
		cmocka_unit_test(a_program_that_is_started_is_as_ever),
		cmocka_unit_test(one_that_a_child_starts_ignores_what_was_ignored),
		cmocka_unit_test(a_child_hears_its_own),
		cmocka_unit_test(refuses_no_signals),
		cmocka_unit_test(the_full_set),
		cmocka_unit_test(listeners_come_and_go),
	};
	sigset_t set = set_of(SIGUSR1, 0);

	/* The dispatcher, and the fd for signals, stay for good. */
	start_dispatcher();
	ctxfd_unref(ctxfd_with_signals(ctxfd_background(), &set));
	return run_all(tests);
}
