/* SPDX-License-Identifier: MIT */
/* Nothing is hidden: no fd, thread or signal handler exists until a call that says that it makes one. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>

#define FAR (3600 * CTXFD_SEC)

struct signals {
	struct sigaction actions[65];
	sigset_t mask;
};

static void look_at_signals(struct signals *s)
{
	memset(s, 0, sizeof *s);
	for (int sig = 1; sig < 65; sig++)
		sigaction(sig, NULL, &s->actions[sig]);
	assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &s->mask), 0);
}

static void assert_same_signals(const struct signals *before)
{
	struct signals after;

	look_at_signals(&after);
	for (int sig = 1; sig < 65; sig++)
		assert_true(before->actions[sig].sa_handler == after.actions[sig].sa_handler);
	assert_memory_equal(&before->mask, &after.mask, sizeof after.mask);
}

/* The whole life of contexts, except what needs an fd. */
static void live_and_die(void)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *timed = ctxfd_with_timeout(root, FAR);
	struct ctxfd *late = ctxfd_with_deadline(timed, 1), *merged = ctxfd_merge(timed, ctxfd_todo());
	const struct ctxfd *value = ctxfd_with_value(merged, &root, NULL, NULL), *loose = ctxfd_without_cancel(value);
	char text[100];

	assert_int_equal(ctxfd_err(value), 0);
	assert_int_equal(ctxfd_wait(late), -ETIMEDOUT);
	assert_int_equal(ctxfd_sleep(merged, CTXFD_MSEC), 0);
	assert_true(ctxfd_describe(loose, text, sizeof text) > 0);
	ctxfd_cancel(root);
	assert_int_equal(ctxfd_wait(value), -ECANCELED);
	ctxfd_unref(loose);
	ctxfd_unref(value);
	ctxfd_close(merged);
	ctxfd_close(late);
	ctxfd_close(timed);
	ctxfd_close(root);
}

static void contexts_live_and_die_alone(void **state)
{
	int fds = count_fds(), threads = count_threads();
	struct signals signals;

	look_at_signals(&signals);
	for (int i = 0; i < 3; i++) {
		live_and_die();
		assert_int_equal(count_fds(), fds);
		assert_int_equal(count_threads(), threads);
		assert_same_signals(&signals);
	}
}

static void a_done_fd_is_all_that_asking_for_it_makes(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *timed = ctxfd_with_timeout(ctx, FAR);
	int fds = count_fds(), threads = count_threads();
	struct signals signals;

	look_at_signals(&signals);
	assert_true(ctxfd_done_fd(timed) >= 0);
	assert_int_equal(count_fds(), fds + 1);
	assert_true(ctxfd_done_fd(ctx) >= 0);
	assert_int_equal(count_fds(), fds + 2);
	ctxfd_cancel(ctx);
	assert_int_equal(count_threads(), threads);
	assert_same_signals(&signals);
	ctxfd_unref(timed);
	ctxfd_unref(ctx);
	assert_int_equal(count_fds(), fds);
}

static void *wait_under_two_contexts(void *unused)
{
	struct ctxfd *one = ctxfd_with_cancel(ctxfd_background()), *two = ctxfd_with_timeout(one, FAR);
	int fds = count_fds();

	require(ctxfd_poll(one, NULL, 0, CTXFD_MSEC) == 0);
	require(count_fds() == fds + 1);
	require(ctxfd_poll(two, NULL, 0, CTXFD_MSEC) == 0);
	ctxfd_unref(two);
	ctxfd_unref(one);
	require(count_fds() == fds + 1);
	return unused;
}

static void a_thread_that_waits_has_one_fd_until_it_ends(void **state)
{
	int fds = count_fds();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, wait_under_two_contexts, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(count_fds(), fds);
}

/* In a child, since what it makes stays for good. */
static int ask_those_that_never_end(void *arg)
{
	int before = count_fds(), fd;

	fd = ctxfd_done_fd(ctxfd_background());
	require(fd >= 0 && count_fds() == before + 1);
	require(ctxfd_done_fd(ctxfd_todo()) == fd && count_fds() == before + 1);
	return 0;
}

static void those_that_never_end_have_one_only_when_asked(void **state)
{
	assert_int_equal(in_child(ask_those_that_never_end, NULL), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(contexts_live_and_die_alone),
		cmocka_unit_test(a_done_fd_is_all_that_asking_for_it_makes),
		cmocka_unit_test(a_thread_that_waits_has_one_fd_until_it_ends),
		cmocka_unit_test(those_that_never_end_have_one_only_when_asked),
	};
	return run_all_cold(tests);
}
