/* SPDX-License-Identifier: MIT */
/* Contexts that end by an fd, a signal or a process. On the library's own thread, but where a test says otherwise. */
#include <signal.h>
#include <sys/epoll.h>

#include "harness.h"

#define CAUSE (-1234)

/* ---- An fd ------------------------------------------------------------------------------------------------------- */

static void ends_when_the_fd_is_ready(void **state)
{
	int pipes[2];
	struct ctxfd *ctx, *child;

	(void)state;
	make_pipe(pipes);
	ctx = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, CAUSE);
	assert_non_null(ctx);
	child = ctxfd_with_cancel(ctx);
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(write(pipes[1], "x", 1), 1);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), CAUSE);
	assert_int_equal(ctxfd_cause(child), CAUSE);
	assert_readable(pipes[0]); /* never read */
	ctxfd_close(child);
	ctxfd_close(ctx);
	close_pair(pipes);
}

static void hangup_and_error_always_count(void **state)
{
	int pipes[2], socks[2];
	struct ctxfd *hung, *rdhup;

	(void)state;
	make_pipe(pipes);
	make_socketpair(socks);
	hung = ctxfd_with_fd(ctxfd_background(), pipes[0], 0, CAUSE);
	rdhup = ctxfd_with_fd(ctxfd_background(), socks[0], POLLRDHUP, CAUSE);
	assert_non_null(hung);
	assert_non_null(rdhup);
	assert_int_equal(write(socks[1], "unread", 6), 6);
	close(pipes[1]);
	assert_int_equal(ctxfd_wait(hung), -ECANCELED);
	assert_int_equal(ctxfd_err(rdhup), 0);
	close(socks[1]);
	assert_int_equal(ctxfd_wait(rdhup), -ECANCELED);
	ctxfd_close(hung);
	ctxfd_close(rdhup);
	close(pipes[0]);
	close(socks[0]);
}

static void done_at_once_when_ready(void **state)
{
	int pipes[2];
	struct ctxfd *ctx;

	(void)state;
	make_pipe(pipes);
	assert_int_equal(write(pipes[1], "x", 1), 1);
	for (int i = 0; i < 100; i++) {
		ctx = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, CAUSE);
		assert_int_equal(ctxfd_err(ctx), -ECANCELED);
		assert_int_equal(ctxfd_cause(ctx), CAUSE);
		ctxfd_close(ctx);
	}
	close_pair(pipes);
}

static void two_contexts_watch_one_fd(void **state)
{
	int pipes[2];
	struct ctxfd *a, *b;

	(void)state;
	make_pipe(pipes);
	a = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, -1);
	b = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, -2);
	assert_int_equal(write(pipes[1], "x", 1), 1);
	assert_int_equal(ctxfd_wait(a), -ECANCELED);
	assert_int_equal(ctxfd_wait(b), -ECANCELED);
	assert_int_equal(ctxfd_cause(a), -1);
	assert_int_equal(ctxfd_cause(b), -2);
	ctxfd_close(a);
	ctxfd_close(b);
	close_pair(pipes);
}

/* Its fd makes the dispatcher ready, for which run then has nothing to do. */
static void what_has_ended_already_does_not_count(void **state)
{
	struct ctxfd_dispatcher *d = ctxfd_dispatcher_new();
	const struct ctxfd *on_d = ctxfd_with_dispatcher(ctxfd_background(), d);
	struct ctxfd *cancelled, *born_done, *live;
	int pipes[2];

	(void)state;
	make_pipe(pipes);
	cancelled = ctxfd_with_fd(on_d, pipes[0], POLLIN, CAUSE);
	live = ctxfd_with_fd(on_d, pipes[0], POLLIN, CAUSE);
	ctxfd_cancel(cancelled);
	assert_int_equal(write(pipes[1], "x", 1), 1);
	born_done = ctxfd_with_fd(on_d, pipes[0], POLLIN, CAUSE);
	assert_int_equal(ctxfd_err(born_done), -ECANCELED);
	wait_readable(ctxfd_dispatcher_fd(d));
	assert_int_equal(ctxfd_dispatcher_run(d), 1);
	assert_int_equal(ctxfd_cause(live), CAUSE);
	assert_int_equal(ctxfd_cause(cancelled), -ECANCELED);
	assert_not_readable(ctxfd_dispatcher_fd(d));
	ctxfd_close(cancelled);
	ctxfd_close(born_done);
	ctxfd_close(live);
	ctxfd_unref(on_d);
	ctxfd_dispatcher_free(d);
	close_pair(pipes);
}

/* The kernel counts the ways from a file to those who poll it, and allows some hundred. */
static void too_many_contexts_watch_one_fd(void **state)
{
	struct ctxfd *watchers[1000];
	size_t n = 0;
	int pipes[2], error = 0;

	(void)state;
	make_pipe(pipes);
	while (n < COUNT(watchers) && (watchers[n] = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, -1)))
		n++;
	error = errno;
	assert_true(n > 100 && n < COUNT(watchers));
	assert_int_equal(write(pipes[1], "x", 1), 1);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(ctxfd_wait(watchers[i]), -ECANCELED);
		ctxfd_close(watchers[i]);
	}
	assert_int_equal(error, ENOSPC);
	close_pair(pipes);
}

/* Waits until the dispatcher has dealt with all that has happened so far. */
static void drain(void)
{
	int pipes[2];
	struct ctxfd *ctx;

	make_pipe(pipes);
	ctx = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, CAUSE);
	require(write(pipes[1], "x", 1) == 1);
	ctxfd_wait(ctx);
	ctxfd_close(ctx);
	close_pair(pipes);
}

/*
 * Closed early, the watch is over, and whatever has the number next is not watched, nor touched when the context goes.
 */
static void a_reused_number_is_left_alone(void **state)
{
	int old[2], new[2], set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	struct ctxfd *ctx;

	(void)state;
	make_pipe(old);
	ctx = ctxfd_with_fd(ctxfd_background(), old[0], POLLIN, CAUSE);
	close_pair(old);
	make_pipe(new);
	assert_int_equal(new[0], old[0]);
	assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, new[0], &event), 0);
	assert_int_equal(write(new[1], "x", 1), 1);
	drain();
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_close(ctx);
	assert_int_equal(epoll_wait(set, &event, 1, 0), 1);
	close_pair(new);
	close(set);
}

static void ends_with_its_parent(void **state)
{
	int pipes[2];
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background()), *ctx, *born;

	(void)state;
	make_pipe(pipes);
	ctx = ctxfd_with_fd(parent, pipes[0], POLLIN, CAUSE);
	ctxfd_cancel_cause(parent, -7);
	born = ctxfd_with_fd(parent, pipes[0], POLLIN, CAUSE);
	assert_int_equal(ctxfd_cause(ctx), -7);
	assert_int_equal(ctxfd_cause(born), -7);
	assert_int_equal(write(pipes[1], "x", 1), 1); /* heard, and too late */
	drain();
	assert_int_equal(ctxfd_cause(ctx), -7);
	ctxfd_close(ctx);
	ctxfd_close(born);
	ctxfd_close(parent);
	close_pair(pipes);
}

static void refuses_what_cannot_be_polled(void **state)
{
	FILE *file = tmpfile();
	int fds = count_fds();

	(void)state;
	assert_non_null(file);
	errno = 0;
	assert_null(ctxfd_with_fd(ctxfd_background(), -1, POLLIN, CAUSE));
	assert_int_equal(errno, EBADF);
	assert_null(ctxfd_with_fd(ctxfd_background(), fileno(file), POLLIN, CAUSE));
	assert_int_equal(errno, EPERM);
	assert_null(ctxfd_with_fd(NULL, 0, POLLIN, CAUSE));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(count_fds(), fds);
	fclose(file);
}

/* The kernel allows a few epoll sets to watch one another, one above the other. */
static void refuses_sets_that_watch_too_deep(void **state)
{
	int sets[8], made = 0;
	struct ctxfd *ctx;

	(void)state;
	do {
		struct epoll_event event = { .events = EPOLLIN };

		assert_true(made < 8);
		sets[made] = epoll_create1(EPOLL_CLOEXEC);
		assert_true(sets[made] >= 0);
		if (made > 0)
			assert_int_equal(epoll_ctl(sets[made], EPOLL_CTL_ADD, sets[made - 1], &event), 0);
		errno = 0;
		ctx = ctxfd_with_fd(ctxfd_background(), sets[made++], POLLIN, CAUSE);
		ctxfd_close(ctx);
	} while (ctx);
	assert_int_equal(errno, ELOOP);
	while (made > 0)
		assert_int_equal(close(sets[--made]), 0);
}

static void no_fd_or_memory_is_an_error(void **state)
{
	int pipes[2];

	(void)state;
	make_pipe(pipes);
	exhaust_fds();
	assert_null(ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, CAUSE));
	assert_int_equal(errno, EMFILE);
	free_fds();
	fail_allocation(1);
	assert_null(ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, CAUSE));
	assert_int_equal(errno, ENOMEM);
	close_pair(pipes);
}

/*
 * Freed at the moment that it fires: whoever is first, nothing breaks. Under ASan and valgrind this shows what was
 * freed.
 */
static void freed_while_it_fires(void **state)
{
	(void)state;
	for (int i = 0; i < rounds(3000); i++) {
		int pipes[2];
		struct ctxfd *a, *b;

		make_pipe(pipes);
		a = ctxfd_with_fd(ctxfd_background(), pipes[0], POLLIN, CAUSE);
		b = ctxfd_with_fd(a, pipes[0], POLLIN, CAUSE);
		assert_int_equal(write(pipes[1], "x", 1), 1);
		if (i % 3 == 0)
			ctxfd_wait(i & 1 ? a : b);
		ctxfd_unref(a);
		ctxfd_unref(b);
		close_pair(pipes);
	}
}

/* ---- A process --------------------------------------------------------------------------------------------------- */

static int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static void ends_with_a_process(void **state)
{
	int pipes[2], pidfd, status;
	struct ctxfd *ctx, *late;
	pid_t pid;

	(void)state;
	make_pipe(pipes);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char c;
		close(pipes[1]);
		_exit(read(pipes[0], &c, 1) == 0 ? 42 : 1);
	}
	close(pipes[0]);
	pidfd = pidfd_of(pid);
	if (pidfd < 0) {
		close(pipes[1]);
		waitpid(pid, &status, 0);
		skip_test("no pidfd_open here: %s", strerror(errno));
	}
	ctx = ctxfd_with_process(ctxfd_background(), pidfd, CAUSE);
	assert_non_null(ctx);
	assert_int_equal(ctxfd_err(ctx), 0);
	close(pipes[1]);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), CAUSE);
	late = ctxfd_with_process(ctxfd_background(), pidfd, CAUSE);
	assert_int_equal(ctxfd_err(late), -ECANCELED);
	assert_int_equal(waitpid(pid, &status, 0), pid); /* ours to reap */
	assert_int_equal(WEXITSTATUS(status), 42);
	ctxfd_close(ctx);
	ctxfd_close(late);
	close(pidfd);
}

static void refuses_what_is_no_process(void **state)
{
	int pipes[2], dir = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	if (syscall(SYS_pidfd_send_signal, -1, 0, NULL, 0) != 0 && errno == ENOSYS)
		skip_test("no pidfd_send_signal here, which tells a pidfd from other fds");
	make_pipe(pipes);
	assert_null(ctxfd_with_process(ctxfd_background(), pipes[0], CAUSE));
	assert_int_equal(errno, EINVAL);
	assert_null(ctxfd_with_process(ctxfd_background(), -1, CAUSE));
	assert_int_equal(errno, EBADF);
	assert_null(ctxfd_with_process(NULL, pipes[0], CAUSE));
	assert_int_equal(errno, EINVAL);
	/* Which can be signalled, but not waited for. */
	assert_true(dir >= 0);
	assert_null(ctxfd_with_process(ctxfd_background(), dir, CAUSE));
	assert_int_equal(errno, EINVAL);
	close(dir);
	close_pair(pipes);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_when_the_fd_is_ready),
		cmocka_unit_test(hangup_and_error_always_count),
		cmocka_unit_test(done_at_once_when_ready),
		cmocka_unit_test(two_contexts_watch_one_fd),
		cmocka_unit_test(what_has_ended_already_does_not_count),
		cmocka_unit_test(too_many_contexts_watch_one_fd),
		cmocka_unit_test(a_reused_number_is_left_alone),
		cmocka_unit_test(ends_with_its_parent),
		cmocka_unit_test(refuses_what_cannot_be_polled),
		cmocka_unit_test(refuses_sets_that_watch_too_deep),
		cmocka_unit_test(no_fd_or_memory_is_an_error),
		cmocka_unit_test(freed_while_it_fires),
		cmocka_unit_test(ends_with_a_process),
		cmocka_unit_test(refuses_what_is_no_process),
	};

	start_dispatcher();
	return run_all(tests);
}
