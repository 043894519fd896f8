/* SPDX-License-Identifier: MIT */
/*
 * At the limits of the system: no descriptors left, no memory left, as many of both as there can be, ten thousand
 * deadlines at once. Running out is an ordinary error, and ending contexts and waiting for it go on without either.
 */
#include "harness.h"
#include "core/context.h"

#include <sys/epoll.h>
#include <sys/resource.h>

/* ---- No descriptors ---------------------------------------------------------------------------------------------- */

static void *wait_for_end(void *arg)
{
	return (void *)(intptr_t)ctxfd_wait(arg);
}

static void *sleep_long(void *arg)
{
	return (void *)(intptr_t)ctxfd_sleep(arg, 3600 * CTXFD_SEC);
}

static void contexts_end_without_descriptors(void **state)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *asked = ctxfd_with_cancel(root), *child, *timed, *merged;
	struct thread *waiter, *sleeper, *expiry;
	int fd = ctxfd_done_fd(asked);

	exhaust_fds();
	child = ctxfd_with_cancel(root);
	timed = ctxfd_with_timeout(child, 50 * CTXFD_MSEC);
	merged = ctxfd_merge(child, asked);
	assert_true(child && timed && merged);
	assert_int_equal(ctxfd_done_fd(child), -EMFILE);
	assert_int_equal(ctxfd_done_fd(timed), -EMFILE);
	assert_int_equal(ctxfd_done_fd(merged), -EMFILE);
	assert_int_equal(ctxfd_done_fd(asked), fd);
	assert_int_equal(ctxfd_err(child), 0);

	waiter = thread_start(wait_for_end, merged);
	sleeper = thread_start(sleep_long, child);
	expiry = thread_start(wait_for_end, timed);
	assert_int_equal((intptr_t)thread_join(expiry), -ETIMEDOUT);
	assert_int_equal(ctxfd_err(child), 0);
	ctxfd_cancel_cause(root, -9);
	assert_int_equal((intptr_t)thread_join(waiter), -ECANCELED);
	assert_int_equal((intptr_t)thread_join(sleeper), -ECANCELED);
	assert_int_equal(ctxfd_cause(merged), -9);
	assert_int_equal(ctxfd_err(timed), -ETIMEDOUT);
	assert_readable(fd);
	assert_int_equal(ctxfd_done_fd(child), -EMFILE);
	free_fds();

	/* What failed left nothing half made. */
	assert_readable(ctxfd_done_fd(child));
	assert_readable(ctxfd_done_fd(timed));
	assert_readable(ctxfd_done_fd(merged));
	ctxfd_unref(merged);
	ctxfd_unref(timed);
	ctxfd_unref(child);
	ctxfd_unref(asked);
	ctxfd_unref(root);
}

static void calls_need_no_descriptor(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct pollfd p = { .events = POLLIN };
	int pair[2];
	char byte = 'x';

	make_socketpair(pair);
	p.fd = pair[0];
	exhaust_fds();
	assert_int_equal(ctxfd_poll(ctx, &p, 1, 0), 0);
	assert_int_equal(ctxfd_poll(ctx, &p, 1, CTXFD_MSEC), 0);
	assert_int_equal(ctxfd_poll(ctx, NULL, 0, CTXFD_MSEC), 0);
	assert_int_equal(ctxfd_write(ctx, pair[1], &byte, 1), 1);
	assert_int_equal(ctxfd_poll(ctx, &p, 1, -1), 1);
	assert_int_equal(ctxfd_read(ctx, pair[0], &byte, 1), 1);
	free_fds();
	close_pair(pair);
	ctxfd_unref(ctx);
}

/* ---- As many descriptors as there may be ------------------------------------------------------------------------- */

enum { MANY = 20000 };

/* Raises the limit as far as it goes, and says how many more descriptors can be had, of those wanted. */
static int room_for_fds(int wanted, struct rlimit *before)
{
	struct rlimit most;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
	most = *before;
	if (most.rlim_cur != RLIM_INFINITY && most.rlim_cur < (rlim_t)wanted + 100)
		most.rlim_cur = most.rlim_max < (rlim_t)wanted + 100 ? most.rlim_max : (rlim_t)wanted + 100;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &most), 0);
	if (most.rlim_cur < (rlim_t)wanted + 100)
		wanted = (int)most.rlim_cur - 100;
	return wanted;
}

/*
 * Half of them eventfds, half timerfds, below one parent. What it cost on a 2-core virtual machine: to ask for an fd 1
 * us (eventfd) and 1.5 us (timerfd), to cancel 0.25 us a piece, to free 0.5 us.
 */
static void twenty_thousand_fds(void **state)
{
	static struct ctxfd *all[MANY];
	static struct pollfd polls[MANY];
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	struct rlimit before;
	int n = room_for_fds(rounds(MANY), &before);
	int64_t start = now(), made, cancelled;

	for (int i = 0; i < n; i++) {
		all[i] = i % 2 ? ctxfd_with_timeout(root, 3600 * CTXFD_SEC) : ctxfd_with_cancel(root);
		assert_non_null(all[i]);
		polls[i] = (struct pollfd){ .fd = ctxfd_done_fd(all[i]), .events = POLLIN };
		assert_true(polls[i].fd >= 0);
	}
	assert_int_equal(poll(polls, (nfds_t)n, 0), 0);
	made = now();
	ctxfd_cancel(root);
	cancelled = now();
	assert_elapsed(made, 0, 2 * CTXFD_SEC);
	assert_int_equal(poll(polls, (nfds_t)n, 0), n);
	for (int i = 0; i < n; i++) {
		assert_int_equal(ctxfd_err(all[i]), -ECANCELED);
		ctxfd_unref(all[i]);
	}
	print_message("# %d fds: %" PRId64 " us to make, %" PRId64 " us to cancel\n", n, (made - start) / 1000,
	              (cancelled - made) / 1000);
	ctxfd_unref(root);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* ---- Deadlines by the thousand ----------------------------------------------------------------------------------- */

enum { DEADLINES = 10000 };

/*
 * All within one millisecond, and none is early.
 */
static void ten_thousand_deadlines_in_a_millisecond(void **state)
{
	static struct ctxfd *all[DEADLINES];
	static struct epoll_event events[DEADLINES];
	struct rlimit before;
	int n = room_for_fds(rounds(DEADLINES), &before), epoll = epoll_create1(EPOLL_CLOEXEC);
	int64_t first = now() + CTXFD_SEC / 2, last = first + CTXFD_MSEC, done;

	assert_true(epoll >= 0);
	for (int i = 0; i < n; i++) {
		struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u32 = (uint32_t)i };

		all[i] = ctxfd_with_deadline(ctxfd_background(), first + i * CTXFD_MSEC / n);
		assert_non_null(all[i]);
		assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, ctxfd_done_fd(all[i]), &e), 0);
	}
	for (int told = 0; told < n;) {
		int got = epoll_wait(epoll, events, n, 30000 * slow());
		int64_t at = now();

		assert_true(got > 0);
		for (int i = 0; i < got; i++) {
			int64_t deadline;

			assert_true(ctxfd_deadline(all[events[i].data.u32], &deadline));
			assert_true(deadline <= at);
			assert_int_equal(ctxfd_err(all[events[i].data.u32]), -ETIMEDOUT);
		}
		told += got;
	}
	done = now();
	assert_elapsed(last, 0, 2 * CTXFD_SEC);
	print_message("# %d deadlines: all told %" PRId64 " us after the last\n", n, (done - last) / 1000);
	for (int i = 0; i < n; i++) {
		assert_readable(ctxfd_done_fd(all[i]));
		ctxfd_unref(all[i]);
	}
	close(epoll);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}
/* ---- A million contexts ------------------------------------------------------------------------------------------ */

enum { MILLION = 1000000 };

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SMALL_STACK ((size_t)512 * 1024)
#else
#define SMALL_STACK ((size_t)64 * 1024)
#endif

static struct ctxfd *million[MILLION];

static void cancel_and_tell(struct ctxfd *root, int n)
{
	int64_t start = now();

	ctxfd_cancel(root);
	require(now() - start < 5 * CTXFD_SEC * slow());
	print_message("# %d contexts: %" PRId64 " ns each to cancel\n", n, (now() - start) / n);
}

/* Value contexts are steps of the chain too, and merges are reached by their second parents as well. */
static void *live_and_die_deep(void *arg)
{
	int n = rounds(MILLION);
	struct ctxfd *side = ctxfd_with_cancel(ctxfd_background()), *last = NULL;

	for (int i = 0; i < n; i++) {
		const struct ctxfd *parent = i ? million[i - 1] : ctxfd_background(), *value = NULL;

		if (i % 16 == 8)
			parent = value = ctxfd_with_value(parent, &million, NULL, NULL);
		million[i] = i % 16 == 4 ? ctxfd_merge(parent, side) : ctxfd_with_cancel(parent);
		require(million[i]);
		ctxfd_unref(value);
	}
	last = million[n - 1];
	cancel_and_tell(million[0], n);
	require(ctxfd_err(last) == -ECANCELED);
	/* Each but the last is held by its child alone, and goes with it. */
	for (int i = 0; i < n - 1; i++)
		ctxfd_unref(million[i]);
	ctxfd_unref(last);
	ctxfd_unref(side);
	return arg;
}

static void a_chain_of_a_million_on_a_small_stack(void **state)
{
	/* Some machines have a larger minimum. */
	size_t least = (size_t)PTHREAD_STACK_MIN, size = least > SMALL_STACK ? least : SMALL_STACK;

	set_time_limit(120);
	thread_join(thread_start_stack(live_and_die_deep, NULL, size));
}

/* What the README says a context costs, on machines of 64 bits. */
static void a_million_children(void **state)
{
	int n = rounds(MILLION);
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());

	set_time_limit(120);
	for (int i = 0; i < n; i++)
		million[i] = ctxfd_with_cancel(root);
	cancel_and_tell(root, n);
	for (int i = 0; i < n; i++) {
		assert_int_equal(ctxfd_err(million[i]), -ECANCELED);
		ctxfd_unref(million[i]);
	}
	ctxfd_unref(root);
	if (sizeof(void *) == 8)
		assert_true(sizeof(struct ctxfd) <= 72);
}

/* ---- No memory --------------------------------------------------------------------------------------------------- */

/* Takes all memory there is under the limit, in contexts. */
static int without_memory(void *arg)
{
	struct rlimit limit;
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *middle = ctxfd_with_cancel(root);
	int fd = ctxfd_done_fd(middle), n = 0;
	char line[64];
	long pages;
	FILE *f = fopen("/proc/self/statm", "re");
	static const char key;

	require(f && fgets(line, sizeof line, f));
	fclose(f);
	pages = atol(line);
	limit.rlim_cur = limit.rlim_max = (rlim_t)(pages * sysconf(_SC_PAGESIZE) + (16 << 20));
	require(setrlimit(RLIMIT_AS, &limit) == 0);
	while (n < MILLION && (million[n] = ctxfd_with_cancel(middle)))
		n++;
	if (n == MILLION)
		return 77;
	require(errno == ENOMEM);
	require(!ctxfd_with_timeout(middle, CTXFD_SEC) && errno == ENOMEM);
	require(!ctxfd_with_value(middle, &key, NULL, NULL) && errno == ENOMEM);
	require(!ctxfd_without_cancel(middle) && errno == ENOMEM);
	/* It is larger, and some allocators have a few blocks left of that size. */
	while (n < MILLION && (million[n] = ctxfd_merge(middle, root)))
		n++;
	require(n < MILLION && errno == ENOMEM);
	require(ctxfd_sleep(middle, CTXFD_MSEC) == 0);
	ctxfd_cancel(root);
	require(ctxfd_wait(middle) == -ECANCELED && readable(fd));
	for (int i = 0; i < n; i++)
		require(ctxfd_err(million[i]) == -ECANCELED);
	for (int i = 0; i < n; i++)
		ctxfd_unref(million[i]);
	million[0] = ctxfd_with_cancel(root);
	require(million[0] && ctxfd_err(million[0]) == -ECANCELED);
	ctxfd_unref(million[0]);
	ctxfd_unref(middle);
	ctxfd_unref(root);
	return 0;
}

static void contexts_end_without_memory(void **state)
{
	int result;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	skip_test("sanitizers need more address space than a limit leaves them");
#endif
	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind does not live under a limit of its address space");
	result = in_child(without_memory, NULL);
	if (result == 77)
		skip_test("RLIMIT_AS does not hold here");
	assert_int_equal(result, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		/* First: it needs a heap without free memory. */
		cmocka_unit_test(contexts_end_without_memory),
		cmocka_unit_test(contexts_end_without_descriptors),
		cmocka_unit_test(calls_need_no_descriptor),
		cmocka_unit_test(twenty_thousand_fds),
		cmocka_unit_test(ten_thousand_deadlines_in_a_millisecond),
		cmocka_unit_test(a_chain_of_a_million_on_a_small_stack),
		cmocka_unit_test(a_million_children),
	};

	return run_all(tests);
}
