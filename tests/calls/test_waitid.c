/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_waitid: a process's end under a context; no status is lost, and none is taken by a call that does not tell it.
 */
#include "signal_storm.h"

#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#ifndef PTRACE_SEIZE
#define PTRACE_SEIZE 0x4206
#endif

/* A child process that exits with `code` once there is a byte in its pipe. */
struct child {
	pid_t pid;
	int pidfd, pipe[2];
};

static void make_child(struct child *c, int code)
{
	char byte;

	make_pipe(c->pipe);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
		while (read(c->pipe[0], &byte, 1) < 0)
			continue;
		_exit(code);
	}
	c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	assert_true(c->pidfd >= 0);
}

static void let_go(const struct child *c)
{
	assert_int_equal(write(c->pipe[1], "x", 1), 1);
}

static void drop_child(const struct child *c)
{
	close(c->pidfd);
	close_pair(c->pipe);
}

/* It has ended, and its status is there. */
static void end_child(const struct child *c)
{
	let_go(c);
	wait_readable(c->pidfd);
}

/* Whether there is a status; it is taken. */
static bool is_reaped(const struct child *c)
{
	return waitpid(c->pid, NULL, 0) < 0 && errno == ECHILD;
}

static bool can_wait(void)
{
	struct child c = { .pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0) };
	int err;

	if (c.pidfd < 0)
		return false;
	close(c.pidfd);
	make_child(&c, 0);
	end_child(&c);
	err = ctxfd_waitid(ctxfd_background(), c.pidfd, NULL, WEXITED);
	if (err)
		waitpid(c.pid, NULL, 0);
	drop_child(&c);
	return err == 0;
}

#define NEED_P_PIDFD()   \
	if (!can_wait()) \
	skip_test("the kernel has no waitid for pidfds")

static void a_status_is_told_and_taken(void **state)
{
	struct ctxfd *ctx;
	siginfo_t info;
	struct child c;

	NEED_P_PIDFD();
	ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	for (int waits = 0; waits < 2; waits++) {
		make_child(&c, 42);
		if (!waits)
			end_child(&c);
		else
			let_go(&c);
		errno = 4711;
		assert_int_equal(ctxfd_waitid(ctx, c.pidfd, &info, WEXITED), 0);
		assert_int_equal(errno, 4711);
		assert_int_equal(info.si_pid, c.pid);
		assert_int_equal(info.si_signo, SIGCHLD);
		assert_int_equal(info.si_code, CLD_EXITED);
		assert_int_equal(info.si_status, 42);
		assert_true(is_reaped(&c));
		drop_child(&c);
	}
	make_child(&c, 0);
	assert_int_equal(kill(c.pid, SIGKILL), 0);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, &info, WEXITED), 0);
	assert_int_equal(info.si_code, CLD_KILLED);
	assert_int_equal(info.si_status, SIGKILL);
	drop_child(&c);
	make_child(&c, 0);
	let_go(&c);
	assert_int_equal(ctxfd_waitid(ctx, c.pidfd, NULL, WEXITED), 0);
	assert_true(is_reaped(&c));
	drop_child(&c);
	ctxfd_close(ctx);
}

static void wnowait_leaves_it_there(void **state)
{
	siginfo_t info;
	struct child c;

	NEED_P_PIDFD();
	make_child(&c, 7);
	let_go(&c);
	for (int i = 0; i < 3; i++) {
		info.si_status = 0;
		assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, &info, WEXITED | WNOWAIT), 0);
		assert_int_equal(info.si_status, 7);
	}
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, &info, WEXITED), 0);
	assert_true(is_reaped(&c));
	drop_child(&c);
}

static void wnohang_does_not_wait(void **state)
{
	siginfo_t info = { .si_pid = 4711 };
	struct ctxfd *ctx;
	struct child c;

	NEED_P_PIDFD();
	ctx = ctxfd_with_cancel(ctxfd_background());
	make_child(&c, 7);
	assert_int_equal(ctxfd_waitid(ctx, c.pidfd, &info, WEXITED | WNOHANG), 0);
	assert_int_equal(info.si_pid, 0);
	assert_int_equal(ctxfd_waitid(ctx, c.pidfd, NULL, WEXITED | WNOHANG), 0);
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_waitid(ctx, c.pidfd, &info, WEXITED | WNOHANG), -ECANCELED);
	end_child(&c);
	assert_int_equal(ctxfd_waitid(ctx, c.pidfd, &info, WEXITED | WNOHANG), 0);
	assert_int_equal(info.si_pid, c.pid);
	drop_child(&c);
	ctxfd_close(ctx);
}

static void a_status_beats_a_done_context(void **state)
{
	static const int errs[] = { -ECANCELED, -ETIMEDOUT };
	struct ctxfd *done[2];
	siginfo_t info;
	struct child c;

	NEED_P_PIDFD();
	done[0] = ctxfd_with_cancel(ctxfd_background());
	done[1] = ctxfd_with_timeout(ctxfd_background(), 0);
	ctxfd_cancel(done[0]);
	for (size_t i = 0; i < COUNT(done); i++) {
		make_child(&c, 7);
		info.si_pid = 4711;
		assert_int_equal(ctxfd_waitid(done[i], c.pidfd, &info, WEXITED), errs[i]);
		assert_int_equal(info.si_pid, 4711);
		end_child(&c);
		assert_int_equal(ctxfd_waitid(done[i], c.pidfd, &info, WEXITED), 0);
		assert_int_equal(info.si_status, 7);
		drop_child(&c);
		ctxfd_close(done[i]);
	}
}

struct waiting {
	const struct ctxfd *ctx;
	int pidfd, err;
	bool pending;
	siginfo_t info;
};

static void *wait_for_it(void *arg)
{
	struct waiting *w = arg;

	if (w->pending)
		pthread_cancel(pthread_self());
	w->info.si_pid = 4711;
	w->err = ctxfd_waitid(w->ctx, w->pidfd, &w->info, WEXITED);
	return NULL;
}

static void a_cancel_ends_the_wait(void **state)
{
	NEED_P_PIDFD();
	for (int way = 0; way < 3; way++) {
		struct ctxfd *top = ctxfd_with_cancel(ctxfd_background());
		const struct ctxfd *ctx = way == 0   ? ctxfd_ref(top)
		                          : way == 1 ? ctxfd_with_value(top, &way, NULL, NULL)
		                                     : ctxfd_merge(ctxfd_background(), top);
		struct waiting w = { .ctx = ctx };
		struct thread *thread;
		struct child c;

		make_child(&c, 7);
		w.pidfd = c.pidfd;
		thread = thread_start(wait_for_it, &w);
		thread_wait_asleep(thread);
		ctxfd_cancel(top);
		thread_join(thread);
		assert_int_equal(w.err, -ECANCELED);
		assert_int_equal(w.info.si_pid, 4711);
		let_go(&c);
		assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
		drop_child(&c);
		ctxfd_unref(ctx);
		ctxfd_close(top);
	}
}

static void a_deadline_ends_the_wait_through_signals(void **state)
{
	struct signal_storm storm;
	int64_t deadline = 0;
	struct ctxfd *ctx;
	struct child c;
	int err;

	NEED_P_PIDFD();
	make_child(&c, 7);
	start_signals(&storm);
	ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	err = ctxfd_waitid(ctx, c.pidfd, NULL, WEXITED);
	stop_signals(&storm);
	assert_int_equal(err, -ETIMEDOUT);
	assert_true(ctxfd_deadline(ctx, &deadline));
	assert_elapsed(deadline, 0, CTXFD_SEC);
	let_go(&c);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, NULL, WEXITED), 0);
	drop_child(&c);
	ctxfd_close(ctx);
}

static void what_it_cannot_do_it_says(void **state)
{
	static const int options[] = {
		0, WNOHANG, WSTOPPED, WEXITED | WSTOPPED, WEXITED | WCONTINUED, WEXITED | 1 << 30
	};
	struct sigaction ignore = { .sa_handler = SIG_IGN }, old;
	int self, fds[2];
	struct child c;

	NEED_P_PIDFD();
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	make_pipe(fds);
	make_child(&c, 7);
	for (size_t i = 0; i < COUNT(options); i++)
		assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, NULL, options[i]), -EINVAL);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), -1, NULL, WEXITED), -EINVAL);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), fds[0], NULL, WEXITED), -EBADF);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), 9999, NULL, WEXITED), -EBADF);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), self, NULL, WEXITED), -ECHILD);
	end_child(&c);
	assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, NULL, WEXITED), -ECHILD);
	drop_child(&c);

	assert_int_equal(sigaction(SIGCHLD, &ignore, &old), 0);
	make_child(&c, 7);
	let_go(&c);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, NULL, WEXITED), -ECHILD);
	assert_int_equal(sigaction(SIGCHLD, &old, NULL), 0);
	drop_child(&c);
	close(self);
	close_pair(fds);
}

static void a_nonblocking_pidfd_is_waited_for(void **state)
{
	struct waiting w = { .ctx = ctxfd_background() };
	struct thread *thread;
	struct child c;

	NEED_P_PIDFD();
	make_child(&c, 7);
	if (fcntl(c.pidfd, F_SETFL, O_NONBLOCK) != 0)
		print_message("no O_NONBLOCK for pidfds\n");
	w.pidfd = c.pidfd;
	thread = thread_start(wait_for_it, &w);
	thread_wait_asleep(thread);
	let_go(&c);
	thread_join(thread);
	assert_int_equal(w.err, 0);
	assert_int_equal(w.info.si_status, 7);
	drop_child(&c);
}

/* As clone3 makes them for programs that have a pidfd and want no SIGCHLD. */
static void a_child_without_exit_signal_is_a_child(void **state)
{
	siginfo_t info;
	int pidfd;
	pid_t pid;

	NEED_P_PIDFD();
	pid = (pid_t)syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L); /* all zero: the order of arguments does not matter */
	if (pid == 0)
		syscall(SYS_exit_group, 7);
	if (pid < 0)
		skip_test("no clone here");
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(pidfd >= 0);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), pidfd, &info, WEXITED), 0);
	assert_int_equal(info.si_status, 7);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), pidfd, &info, WEXITED), -ECHILD);
	close(pidfd);
}

/* Where it begins, and while it waits; the status stays for somebody else. */
static void it_is_a_cancellation_point(void **state)
{
	NEED_P_PIDFD();
	for (int pending = 0; pending < 2; pending++) {
		struct waiting w = { .ctx = ctxfd_background(), .pending = pending };
		struct thread *thread;
		struct child c;

		make_child(&c, 7);
		w.pidfd = c.pidfd;
		if (pending)
			end_child(&c);
		thread = thread_start(wait_for_it, &w);
		if (!pending) {
			thread_wait_asleep(thread);
			assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
		}
		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
		if (!pending)
			let_go(&c);
		assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
		drop_child(&c);
	}
}

/* In another process: traces c, tells so, and has its status until there is a byte in its own pipe. */
static pid_t trace(const struct child *c, int told, int pipe)
{
	pid_t pid = fork();
	bool traces;
	char byte;

	if (pid == 0) {
		traces = ptrace(PTRACE_SEIZE, c->pid, 0, 0) == 0;
		require(write(told, traces ? "y" : "n", 1) == 1);
		while (traces && read(pipe, &byte, 1) < 0)
			continue;
		_exit(0);
	}
	return pid;
}

/* A process that ended while another one traces it polls ready, and has no status yet. */
static void a_tracer_is_waited_for(void **state)
{
	struct ctxfd *ctx;
	int told[2], go[2];
	siginfo_t info;
	pid_t tracer;
	struct child c;
	char answer;

	NEED_P_PIDFD();
	make_child(&c, 7);
	make_pipe(told);
	make_pipe(go);
	tracer = trace(&c, told[1], go[0]);
	assert_int_equal(read(told[0], &answer, 1), 1);
	end_child(&c);
	if (answer == 'y') {
		ctx = ctxfd_with_timeout(ctxfd_background(), 10 * CTXFD_MSEC);
		assert_int_equal(ctxfd_waitid(ctx, c.pidfd, &info, WEXITED), -ETIMEDOUT);
		ctxfd_close(ctx);
	}
	assert_int_equal(write(go[1], "x", 1), 1);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, &info, WEXITED), 0);
	assert_int_equal(info.si_status, 7);
	assert_int_equal(waitpid(tracer, NULL, 0), tracer);
	drop_child(&c);
	close_pair(told);
	close_pair(go);
	if (answer != 'y')
		skip_test("ptrace is forbidden");
}

static int wait_in_child(void *arg)
{
	struct child *foreign = arg, c;
	siginfo_t info;

	require(ctxfd_waitid(ctxfd_background(), foreign->pidfd, &info, WEXITED) == -ECHILD);
	make_child(&c, 8);
	let_go(&c);
	require(ctxfd_waitid(ctxfd_background(), c.pidfd, &info, WEXITED) == 0 && info.si_status == 8);
	drop_child(&c);
	return 0;
}

static void a_forked_child_waits_for_its_own(void **state)
{
	struct child c;

	NEED_P_PIDFD();
	make_child(&c, 7);
	assert_int_equal(in_child(wait_in_child, &c), 0);
	let_go(&c);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), c.pidfd, NULL, WEXITED), 0);
	drop_child(&c);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_status_is_told_and_taken),
		cmocka_unit_test(wnowait_leaves_it_there),
		cmocka_unit_test(wnohang_does_not_wait),
		cmocka_unit_test(a_status_beats_a_done_context),
		cmocka_unit_test(a_cancel_ends_the_wait),
		cmocka_unit_test(a_deadline_ends_the_wait_through_signals),
		cmocka_unit_test(what_it_cannot_do_it_says),
		cmocka_unit_test(a_nonblocking_pidfd_is_waited_for),
		cmocka_unit_test(a_child_without_exit_signal_is_a_child),
		cmocka_unit_test(it_is_a_cancellation_point),
		cmocka_unit_test(a_tracer_is_waited_for),
		cmocka_unit_test(a_forked_child_waits_for_its_own),
	};

	return run_all(tests);
}
