/* SPDX-License-Identifier: MIT */
/*
 * What contexts cost: heap, stack and system calls. (test_limits.c has the time, and what happens when something runs
 * out.)
 */
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(thread_sanitizer) || \
        HAS_FEATURE(address_sanitizer)
#define SANITIZED   1
#define SMALL_STACK (512 * 1024) /* theirs is not ours to judge */
#else
#define SANITIZED   0
#define SMALL_STACK (64 * 1024)
#endif

enum { MILLION = 1000000 };

static struct ctxfd *node[MILLION];

static struct ctxfd *child_of(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	require(ctx);
	return ctx;
}

static bool under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "valgrind");
}

/* ---- Heap -------------------------------------------------------------------------------------------------------- */

/* What malloc has given out, with what it needs itself; 0 where it cannot tell. */
static size_t heap_in_use(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
	return SANITIZED || under_valgrind() ? 0 : mallinfo2().uordblks;
#else
	return 0;
#endif
}

/* At most 96 bytes each. */
static void a_context_takes_96_bytes_of_heap(void **state)
{
	enum { N = 10000 };
	struct ctxfd *root;
	size_t before;

	if (heap_in_use() == 0)
		skip_test("this malloc does not tell what it has given out");
	free(malloc(N * 96)); /* a heap that need not grow */
	root = child_of(ctxfd_background());
	for (int kind = 0; kind < 4; kind++) {
		before = heap_in_use();
		for (int i = 0; i < N; i++)
			node[i] = kind == 0   ? child_of(root)
			          : kind == 1 ? child_of(i ? node[i - 1] : root)
			          : kind == 2 ? ctxfd_with_timeout(root, 3600 * CTXFD_SEC)
			                      : (struct ctxfd *)(uintptr_t)ctxfd_with_value(root, &root, NULL, NULL);
		assert_true(heap_in_use() - before <= N * 96);
		for (int i = 0; i < N; i++)
			ctxfd_unref(node[i]);
	}
	ctxfd_close(root);
}

/* ---- Stack: nothing recurses ------------------------------------------------------------------------------------- */

static void on_a_small_stack(void *(*fn)(void *), void *arg)
{
	/* Some machines have a larger minimum. */
	size_t least = (size_t)PTHREAD_STACK_MIN;

	thread_join(thread_start_stack(fn, arg, least > SMALL_STACK ? least : SMALL_STACK));
}

/* Live when they go, all at once: the last reference is that on the deepest one. */
static void *free_a_live_chain(void *arg)
{
	int n = rounds(MILLION);

	for (int i = 0; i < n; i++)
		node[i] = child_of(i ? node[i - 1] : ctxfd_background());
	for (int i = 0; i < n; i++)
		ctxfd_unref(node[i]);
	require(live_allocations() == *(long *)arg);
	return NULL;
}

static void *free_a_chain_from_its_end(void *arg)
{
	int n = rounds(MILLION);

	for (int i = 0; i < n; i++)
		node[i] = ctxfd_with_timeout(i ? node[i - 1] : ctxfd_background(), 3600 * CTXFD_SEC);
	while (n > 0)
		ctxfd_close(node[--n]);
	require(live_allocations() == *(long *)arg);
	return NULL;
}

static void *expire_a_chain(void *arg)
{
	int n = rounds(MILLION);
	struct ctxfd *root = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC);

	for (int i = 0; i < n; i++)
		node[i] = child_of(i ? node[i - 1] : root);
	require(ctxfd_wait(node[n - 1]) == -ETIMEDOUT);
	ctxfd_cancel(root);
	for (int i = 0; i < n; i++)
		ctxfd_unref(node[i]);
	ctxfd_unref(root);
	require(live_allocations() == *(long *)arg);
	return NULL;
}

static long destroyed;

static void count_destroy(void *value)
{
	require(value == &destroyed);
	destroyed++;
}

/* Values alone, and by turns with nodes. */
static void *free_a_chain_of_values(void *arg)
{
	int n = rounds(MILLION);

	for (int mixed = 0; mixed < 2; mixed++) {
		const struct ctxfd *ctx = ctxfd_background(), *next;

		destroyed = 0;
		for (int i = 0; i < n; i++) {
			next = mixed && i % 2 ? child_of(ctx)
			                      : ctxfd_with_value(ctx, &node[i], &destroyed, count_destroy);
			require(next);
			ctxfd_unref(ctx);
			ctx = next;
		}
		require(destroyed == 0);
		require(ctxfd_value(ctx, &node[0]) == &destroyed);
		require(ctxfd_describe(ctx, NULL, 0) > 10 * n);
		ctxfd_unref(ctx);
		require(destroyed == (mixed ? (n + 1) / 2 : n));
	}
	require(live_allocations() == *(long *)arg);
	return NULL;
}

/* Each merged of the one before and the root: a deep tree that is wide as well. */
static void *cancel_a_chain_of_merges(void *arg)
{
	int n = rounds(MILLION / 4);
	struct ctxfd *root = child_of(ctxfd_background()), *other = child_of(ctxfd_background());

	for (int i = 0; i < n; i++)
		node[i] = ctxfd_merge(i ? node[i - 1] : other, root);
	ctxfd_cancel(root);
	for (int i = 0; i < n; i++)
		require(ctxfd_err(node[i]) == -ECANCELED);
	require(ctxfd_err(other) == 0);
	for (int i = 0; i < n; i++)
		ctxfd_unref(node[i]);
	ctxfd_unref(other);
	ctxfd_unref(root);
	require(live_allocations() == *(long *)arg);
	return NULL;
}

static void a_million_on_a_small_stack(void **state)
{
	static void *(*const lives[])(void *) = {
		free_a_live_chain,      free_a_chain_from_its_end, expire_a_chain,
		free_a_chain_of_values, cancel_a_chain_of_merges,
	};
	long before = live_allocations();

	set_time_limit(120);
	for (size_t i = 0; i < COUNT(lives); i++)
		on_a_small_stack(lives[i], &before);
}

/* ---- System calls ------------------------------------------------------------------------------------------------ */

#ifdef SYS_clock_gettime64
#define CLOCK_CALL SYS_clock_gettime64
#else
#define CLOCK_CALL SYS_clock_gettime
#endif

/* From here on any system call but exit_group, and the clock's where it is one, kills. */
static void forbid_system_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLOCK_CALL, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { COUNT(filter), filter };

	require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		_exit(77);
}

/* Make, ask, cancel, free, of all kinds, without an fd; and touch what is there. */
static void live_and_die(struct ctxfd *idle)
{
	enum { N = 100 };
	struct ctxfd *root = child_of(ctxfd_background());
	const struct ctxfd *value = ctxfd_with_value(root, &root, NULL, NULL), *loose = ctxfd_without_cancel(value);

	for (int i = 0; i < N; i++)
		node[i] = i % 4 == 0   ? ctxfd_merge(root, i ? node[i - 1] : value)
		          : i % 4 == 1 ? ctxfd_with_timeout(value, 3600 * CTXFD_SEC)
		          : i % 4 == 2 ? ctxfd_with_timeout(node[i - 1], 0)
		                       : child_of(node[i - 2]);
	require(ctxfd_err(node[1]) == 0 && ctxfd_cause(node[2]) == -ETIMEDOUT && ctxfd_remaining(node[1]) > 0);
	require(ctxfd_sleep(node[1], 0) == 0 && ctxfd_value(node[1], &value) == NULL);
	for (int i = 0; i < N; i++)
		ctxfd_touch(idle);
	require(ctxfd_err(idle) == 0);
	ctxfd_cancel(node[50]);
	ctxfd_close(child_of(root));
	ctxfd_close(child_of(node[50]));
	ctxfd_cancel(root);
	for (int i = 0; i < N; i++) {
		require(ctxfd_wait(node[i]) != 0);
		ctxfd_unref(node[i]);
	}
	require(ctxfd_err(loose) == 0);
	ctxfd_unref(loose);
	ctxfd_unref(value);
	ctxfd_unref(root);
}

static int without_system_calls(void *arg)
{
	struct ctxfd *idle = ctxfd_with_idle(ctxfd_background(), 3600 * CTXFD_SEC, 0);
	int n = *(int *)arg;

	live_and_die(idle); /* so that malloc has got its memory */
	forbid_system_calls();
	for (int i = 0; i < n; i++)
		live_and_die(idle);
	if (n == 0)
		getppid();
	return 0;
}

static void make_cancel_touch_and_free_make_no_system_call(void **state)
{
	int n = 100, status;
	pid_t pid;

	if (SANITIZED || under_valgrind())
		skip_test("sanitizers and valgrind make system calls of their own");
	for (int zero = 0; zero < 2; zero++) {
		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			int none = 0;

			signal(SIGSYS, SIG_DFL);
			syscall(SYS_exit_group, without_system_calls(zero ? &none : &n));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip_test("no seccomp filters here");
		/* The second child makes one, to show that it would not go by unseen. */
		if (zero)
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
		else
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_context_takes_96_bytes_of_heap),
		cmocka_unit_test(a_million_on_a_small_stack),
		cmocka_unit_test(make_cancel_touch_and_free_make_no_system_call),
	};
	return run_all(tests);
}
