/* SPDX-License-Identifier: MIT */
/* ctxfd_poll: what poll does, until the context ends. */
#include "harness.h"
#include "race.h"
#include "ticks.h"

#include <sys/eventfd.h>
#include <sys/resource.h>

#define FAR (3600 * CTXFD_SEC)

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	assert_non_null(ctx);
	return ctx;
}

static int make_event(unsigned count)
{
	int fd = eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

/* ---- Ready fds --------------------------------------------------------------------------------------------------- */

static void a_ready_fd_is_told(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	int full = make_event(1), empty = make_event(0), pipe[2];
	struct pollfd fds[] = { { .fd = full, .events = POLLIN | POLLPRI },
		                { .fd = empty, .events = POLLIN, .revents = 99 },
		                { .fd = -1, .events = POLLIN, .revents = 99 },
		                { .events = 0 },
		                { .fd = empty, .events = POLLOUT } };

	make_pipe(pipe);
	close(pipe[1]);
	fds[3].fd = pipe[0];
	for (int timeout = -1; timeout <= 1; timeout++) {
		assert_int_equal(ctxfd_poll(ctx, fds, COUNT(fds), timeout), 3);
		assert_int_equal(fds[0].revents, POLLIN);
		assert_int_equal(fds[1].revents, 0);
		assert_int_equal(fds[2].revents, 0);
		assert_int_equal(fds[3].revents, POLLHUP);
		assert_int_equal(fds[4].revents, POLLOUT);
		assert_int_equal(fds[0].events, POLLIN | POLLPRI);
		assert_int_equal(fds[0].fd, full);
	}
	close(pipe[0]);
	close(full);
	close(empty);
	ctxfd_close(ctx);
}

static void a_bad_fd_is_told(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	struct pollfd fds[] = { { .fd = -1, .events = POLLIN }, { .fd = 9999, .events = POLLIN } };

	assert_int_equal(ctxfd_poll(ctx, fds, COUNT(fds), -1), 1);
	assert_int_equal(fds[0].revents, 0);
	assert_int_equal(fds[1].revents, POLLNVAL);
	ctxfd_close(ctx);
}

static void *make_readable(void *arg)
{
	uint64_t one = 1;

	require(write(*(int *)arg, &one, sizeof one) == sizeof one);
	return NULL;
}

struct polling {
	const struct ctxfd *ctx;
	struct pollfd *fds;
	nfds_t n;
	int64_t timeout;
};

static void *poll_it(void *arg)
{
	struct polling *p = arg;

	return (void *)(intptr_t)ctxfd_poll(p->ctx, p->fds, p->n, p->timeout);
}

static int result(struct thread *thread)
{
	return (int)(intptr_t)thread_join(thread);
}

static void it_waits_for_the_fd(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	int fd = make_event(0);
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN } };
	struct polling p = { ctx, fds, 1, -1 };
	struct thread *thread = thread_start(poll_it, &p);

	thread_wait_asleep(thread);
	make_readable(&fd);
	assert_int_equal(result(thread), 1);
	assert_int_equal(fds[0].revents, POLLIN);
	close(fd);
	ctxfd_close(ctx);
}

/* More than fit on its stack; each in its place. */
static void many_fds(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());

	for (nfds_t n = 1; n < 40; n++) {
		struct pollfd fds[40];
		struct polling p = { ctx, fds, n, -1 };
		struct thread *thread;
		size_t ready = n / 2;

		for (size_t i = 0; i < COUNT(fds); i++)
			fds[i] = (struct pollfd){ .fd = i < n ? make_event(0) : -1, .events = POLLIN, .revents = 99 };
		thread = thread_start(poll_it, &p);
		if (n % 13 == 0)
			thread_wait_asleep(thread);
		make_readable(&fds[ready].fd);
		assert_int_equal(result(thread), 1);
		for (size_t i = 0; i < COUNT(fds); i++) {
			assert_int_equal(fds[i].revents, i == ready ? POLLIN : i < n ? 0 : 99);
			if (i < n)
				close(fds[i].fd);
		}
	}
	ctxfd_close(ctx);
}

static void more_fds_than_the_limit(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	struct pollfd fds[64];
	struct rlimit before, low;

	for (size_t i = 0; i < COUNT(fds); i++)
		fds[i] = (struct pollfd){ .fd = -1 };
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	if (!getenv("LD_PRELOAD") || !strstr(getenv("LD_PRELOAD"), "valgrind")) { /* which keeps limits to itself */
		/* Of few the kernel counts them, and the waker's place with them. */
		low.rlim_cur = 5;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
		assert_int_equal(ctxfd_poll(ctx, fds, 4, 0), 0);
		assert_int_equal(ctxfd_poll(ctx, fds, 5, 0), -EINVAL);
	}
	low.rlim_cur = COUNT(fds);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(ctxfd_poll(ctx, fds, COUNT(fds) - 1, 1), 0);
	assert_int_equal(ctxfd_poll(ctx, fds, COUNT(fds), 1), -EINVAL);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	/* Far more than there can be in memory: refused before it looks. */
	assert_int_equal(ctxfd_poll(ctx, fds, INT_MAX / 2, 0), -EINVAL);
	assert_int_equal(ctxfd_poll(ctx, fds, INT_MAX, -1), -EINVAL);
	assert_int_equal(ctxfd_poll(ctx, fds, (nfds_t)-1, -1), -EINVAL);
	ctxfd_close(ctx);
}

static void no_memory_for_many(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	struct pollfd fds[40];

	for (size_t i = 0; i < COUNT(fds); i++)
		fds[i] = (struct pollfd){ .fd = -1, .revents = 99 };
	fail_allocation(1);
	assert_int_equal(ctxfd_poll(ctx, fds, COUNT(fds), 1), -ENOMEM);
	assert_true(allocation_failed());
	assert_int_equal(fds[0].revents, 99);
	ctxfd_close(ctx);
}

/* ---- Timeouts ---------------------------------------------------------------------------------------------------- */

static void timeouts_are_kept(void **state)
{
	static const int64_t times[] = { 1, CTXFD_USEC, 900 * CTXFD_USEC, CTXFD_MSEC + 1, 10 * CTXFD_MSEC };
	struct ctxfd *ctx = child_of(ctxfd_background()), *timed = ctxfd_with_timeout(ctx, FAR);
	const struct ctxfd *contexts[] = { ctx, timed, ctxfd_background() };
	int fd = make_event(0);

	for (size_t i = 0; i < COUNT(times) * COUNT(contexts); i++)
		for (nfds_t n = 0; n < 2; n++) {
			struct pollfd fds[] = { { .fd = fd, .events = POLLIN, .revents = 99 } };
			int64_t start = now();

			assert_int_equal(ctxfd_poll(contexts[i % COUNT(contexts)], fds, n, times[i / COUNT(contexts)]),
			                 0);
			assert_elapsed(start, times[i / COUNT(contexts)], CTXFD_SEC);
			assert_int_equal(fds[0].revents, n ? 0 : 99);
		}
	close(fd);
	ctxfd_close(timed);
	ctxfd_close(ctx);
}

static void zero_does_not_wait(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	int fd = make_event(0);
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN } };
	int64_t start = now();

	for (int i = 0; i < 10; i++) {
		assert_int_equal(ctxfd_poll(ctx, fds, 1, 0), 0);
		assert_int_equal(ctxfd_poll(ctx, NULL, 0, 0), 0);
	}
	assert_elapsed(start, 0, CTXFD_SEC / 2);
	close(fd);
	ctxfd_close(ctx);
}

/* Negative ones are none at all, and so are those beyond the clock's end. */
static void some_never_pass(void **state)
{
	static const int64_t times[] = { -1, -CTXFD_SEC, INT64_MIN, INT64_MAX, INT64_MAX - 1, FAR * 24 * 365 * 200 };

	for (size_t i = 0; i < COUNT(times); i++)
		for (nfds_t n = 0; n < 2; n++) {
			struct ctxfd *ctx = child_of(ctxfd_background());
			struct pollfd fds[] = { { .fd = -1 } };
			struct polling p = { ctx, fds, n, times[i] };
			struct thread *thread = thread_start(poll_it, &p);

			thread_wait_asleep(thread);
			ctxfd_cancel(ctx);
			assert_int_equal(result(thread), -ECANCELED);
			ctxfd_unref(ctx);
		}
}

static void signals_change_nothing(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	int fd = make_event(0);
	int64_t start, at;

	start_ticks(200 * CTXFD_USEC, 0);
	for (nfds_t n = 0; n < 2; n++) {
		struct pollfd fds[] = { { .fd = fd, .events = POLLIN } };
		struct ctxfd *timed;

		start = now();
		assert_int_equal(ctxfd_poll(ctx, fds, n, 30 * CTXFD_MSEC), 0);
		assert_elapsed(start, 30 * CTXFD_MSEC, CTXFD_SEC);
		at = now() + 30 * CTXFD_MSEC;
		timed = ctxfd_with_deadline(ctx, at);
		assert_int_equal(ctxfd_poll(timed, fds, n, -1), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		ctxfd_close(timed);
	}
	stop_ticks();
	close(fd);
	ctxfd_close(ctx);
}

/* ---- The context ends -------------------------------------------------------------------------------------------- */

static void a_done_context_comes_first(void **state)
{
	struct ctxfd *cancelled = child_of(ctxfd_background()), *late = ctxfd_with_timeout(ctxfd_background(), 0);
	int fd = make_event(1);
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN, .revents = 99 } };

	ctxfd_cancel(cancelled);
	for (nfds_t n = 0; n < 2; n++)
		for (int timeout = -1; timeout < 2; timeout++) {
			assert_int_equal(ctxfd_poll(cancelled, fds, n, timeout), -ECANCELED);
			assert_int_equal(ctxfd_poll(late, fds, n, timeout), -ETIMEDOUT);
		}
	assert_int_equal(fds[0].revents, 99);
	close(fd);
	ctxfd_unref(cancelled);
	ctxfd_unref(late);
}

static void its_end_ends_the_wait(void **state)
{
	int fd = make_event(0);

	for (nfds_t n = 0; n < 2; n++)
		for (int above = 0; above < 2; above++) {
			struct ctxfd *root = ctxfd_with_timeout(ctxfd_background(), above ? FAR : INT64_MAX),
			             *ctx = child_of(root);
			const struct ctxfd *value = ctxfd_with_value(ctx, &fd, NULL, NULL);
			struct pollfd fds[] = { { .fd = fd, .events = POLLIN, .revents = 99 } };
			struct polling p = { value, fds, n, FAR };
			struct thread *thread = thread_start(poll_it, &p);

			thread_wait_asleep(thread);
			ctxfd_cancel(above ? root : ctx);
			assert_int_equal(result(thread), -ECANCELED);
			assert_int_equal(fds[0].revents, 99);
			ctxfd_unref(value);
			ctxfd_unref(ctx);
			ctxfd_unref(root);
		}
	close(fd);
}

static void its_deadline_ends_the_wait(void **state)
{
	int fd = make_event(0);

	for (nfds_t n = 0; n < 2; n++) {
		int64_t at = now() + 10 * CTXFD_MSEC;
		struct ctxfd *ctx = ctxfd_with_deadline(ctxfd_background(), at);
		struct pollfd fds[] = { { .fd = fd, .events = POLLIN, .revents = 99 } };

		assert_int_equal(ctxfd_poll(ctx, fds, n, -1), -ETIMEDOUT);
		assert_elapsed(at, 0, CTXFD_SEC);
		assert_int_equal(fds[0].revents, 99);
		ctxfd_unref(ctx);
	}
	close(fd);
}

/* The handler keeps the thread from looking while an fd gets ready and the context ends: poll finds both. */
static atomic_bool held, let_go;

static void hold(int sig)
{
	held = true;
	while (!let_go)
		sched_yield();
}

static void a_ready_fd_beats_the_end(void **state)
{
	struct sigaction act = { .sa_handler = hold }, was;

	assert_int_equal(sigaction(SIGUSR1, &act, &was), 0);
	for (int timed = 0; timed < 2; timed++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), timed ? FAR : INT64_MAX);
		int fd = make_event(0);
		struct pollfd fds[] = { { .fd = fd, .events = POLLIN } };
		struct polling p = { ctx, fds, 1, -1 };
		struct thread *thread;

		held = let_go = false;
		thread = thread_start(poll_it, &p);
		thread_wait_asleep(thread);
		assert_int_equal(pthread_kill(thread_pthread(thread), SIGUSR1), 0);
		wait_until(held);
		make_readable(&fd);
		ctxfd_cancel(ctx);
		let_go = true;
		assert_int_equal(result(thread), 1);
		assert_int_equal(fds[0].revents, POLLIN);
		close(fd);
		ctxfd_unref(ctx);
	}
	assert_int_equal(sigaction(SIGUSR1, &was, NULL), 0);
}

/* ---- No fd where none is needed ---------------------------------------------------------------------------------- */

static void no_fd_is_made(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background());
	int ready = make_event(1), empty = make_event(0), before = count_fds();
	struct pollfd fds[] = { { .fd = ready, .events = POLLIN }, { .fd = empty, .events = POLLIN } };

	assert_int_equal(ctxfd_poll(ctx, fds, 2, -1), 1);
	assert_int_equal(ctxfd_poll(ctx, fds, 2, FAR), 1);
	assert_int_equal(ctxfd_poll(ctx, fds + 1, 1, 0), 0);
	assert_int_equal(ctxfd_poll(ctx, NULL, 0, 0), 0);
	assert_int_equal(count_fds(), before);
	assert_int_equal(ctxfd_poll(ctx, fds + 1, 1, CTXFD_MSEC), 0);
	assert_int_equal(count_fds(), before);
	close(ready);
	close(empty);
	ctxfd_close(ctx);
}

static void it_needs_no_free_number(void **state)
{
	struct ctxfd *ctx = child_of(ctxfd_background()), *timed;
	int ready = make_event(1), empty = make_event(0);
	struct pollfd fds[] = { { .fd = ready, .events = POLLIN }, { .fd = empty, .events = POLLIN, .revents = 99 } };

	exhaust_fds();
	assert_int_equal(ctxfd_poll(ctx, fds + 1, 1, CTXFD_MSEC), 0);
	assert_int_equal(ctxfd_poll(ctx, fds, 2, -1), 1);
	assert_int_equal(ctxfd_poll(ctx, fds + 1, 1, 0), 0);
	assert_int_equal(ctxfd_poll(ctx, NULL, 0, 5 * CTXFD_MSEC), 0);
	timed = ctxfd_with_timeout(ctx, 5 * CTXFD_MSEC);
	assert_int_equal(ctxfd_poll(timed, NULL, 0, -1), -ETIMEDOUT);
	ctxfd_close(timed);
	free_fds();
	assert_int_equal(ctxfd_poll(ctx, fds + 1, 1, CTXFD_MSEC), 0);
	close(ready);
	close(empty);
	ctxfd_close(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ready_fd_is_told),
		cmocka_unit_test(a_bad_fd_is_told),
		cmocka_unit_test(it_waits_for_the_fd),
		cmocka_unit_test(many_fds),
		cmocka_unit_test(more_fds_than_the_limit),
		cmocka_unit_test(no_memory_for_many),
		cmocka_unit_test(timeouts_are_kept),
		cmocka_unit_test(zero_does_not_wait),
		cmocka_unit_test(some_never_pass),
		cmocka_unit_test(signals_change_nothing),
		cmocka_unit_test(a_done_context_comes_first),
		cmocka_unit_test(its_end_ends_the_wait),
		cmocka_unit_test(its_deadline_ends_the_wait),
		cmocka_unit_test(a_ready_fd_beats_the_end),
		cmocka_unit_test(no_fd_is_made),
		cmocka_unit_test(it_needs_no_free_number),
	};
	return run_all(tests);
}
