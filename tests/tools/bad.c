/* SPDX-License-Identifier: MIT */
/*
 * Tests that must fail, each in its own way, for runner.sh to see that they do. The program's name says which:
 * test_leaks, test_crash and so on.
 */
#include "harness.h"

#include <signal.h>
#include <sys/mman.h>

static void fine(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	assert_not_readable(ctxfd_done_fd(ctx));
	ctxfd_close(ctx);
}

static void leaks_fd(void **state)
{
	assert_true(dup(STDIN_FILENO) > 0);
}

static void closes_fd(void **state)
{
	assert_int_equal(close(STDIN_FILENO), 0);
}

static void swaps_fd(void **state)
{
	assert_int_equal(dup2(STDOUT_FILENO, STDIN_FILENO), STDIN_FILENO);
}

static void leaks_memory(void **state)
{
	assert_non_null(ctxfd_with_cancel(ctxfd_background()));
}

static void *sleep_on(void *arg)
{
	pause();
	return arg;
}

static void leaks_thread(void **state)
{
	assert_non_null(thread_start(sleep_on, NULL));
}

static void asserts(void **state)
{
	assert_int_equal(1, 2);
}

static void waits_in_vain(void **state)
{
	assert_elapsed(now(), CTXFD_SEC, 2 * CTXFD_SEC);
}

static void crashes(void **state)
{
	raise(SIGSEGV);
}

static void hangs(void **state)
{
	set_time_limit(1);
	for (;;)
		pause();
}

/* Not even the time limit's signal comes through. */
static void is_stuck(void **state)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (;;)
		pause();
}

static void leaves_a_process(void **state)
{
	if (fork() == 0) {
		sleep(600);
		_exit(0);
	}
}

static void *assert_wrong(void *arg)
{
	asserts(NULL);
	return arg;
}

static void asserts_in_thread(void **state)
{
	thread_join(thread_start(assert_wrong, NULL));
}

static void is_skipped(void **state)
{
	skip_test("for the sake of it");
}

/* What only a sanitizer or valgrind sees. */
static int shared;

static void *change_shared(void *arg)
{
	*(volatile int *)&shared += 1;
	return arg;
}

static void races(void **state)
{
	struct thread *a = thread_start(change_shared, NULL), *b = thread_start(change_shared, NULL);

	thread_join(a);
	thread_join(b);
}

static void reads_freed_memory(void **state)
{
	char *volatile p = malloc(1);
	volatile char byte;

	assert_non_null(p);
	*p = 1;
	free(p);
	byte = *p;
	(void)byte;
}

static void *volatile lost;

static void loses_memory(void **state)
{
	lost = malloc(100);
	lost = NULL;
}

static void overflows(void **state)
{
	volatile int n = INT_MAX;

	assert_true(n + slow() < INT_MAX);
}

#define SET(name, ...)                                                    \
	if (!strcmp(which, name)) {                                       \
		static const struct CMUnitTest tests[] = { __VA_ARGS__ }; \
		return run_all(tests);                                    \
	}

int main(int argc, char **argv)
{
	const char *which = strrchr(argv[0], '/') + 1;

	SET("test_leaks", cmocka_unit_test(fine), cmocka_unit_test(leaks_fd), cmocka_unit_test(swaps_fd),
	    cmocka_unit_test(closes_fd), cmocka_unit_test(leaks_thread), cmocka_unit_test(leaks_memory),
	    cmocka_unit_test(fine))
	SET("test_asserts", cmocka_unit_test(fine), cmocka_unit_test(asserts), cmocka_unit_test(waits_in_vain))
	SET("test_crash", cmocka_unit_test(fine), cmocka_unit_test(crashes), cmocka_unit_test(fine))
	SET("test_hang", cmocka_unit_test(fine), cmocka_unit_test(hangs))
	SET("test_stuck", cmocka_unit_test(fine), cmocka_unit_test(is_stuck), cmocka_unit_test(fine))
	SET("test_orphan", cmocka_unit_test(leaves_a_process))
	SET("test_thread", cmocka_unit_test(asserts_in_thread), cmocka_unit_test(fine))
	SET("test_skip", cmocka_unit_test(fine), cmocka_unit_test(is_skipped))
	SET("test_race", cmocka_unit_test(races))
	SET("test_freed", cmocka_unit_test(reads_freed_memory))
	SET("test_lost", cmocka_unit_test(loses_memory))
	SET("test_overflow", cmocka_unit_test(overflows))
	if (!strcmp(which, "test_all_skipped")) {
		puts("there is no such thing here");
		return 77;
	}
	return 0; /* test_none */
}
