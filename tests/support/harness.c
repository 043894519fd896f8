/* SPDX-License-Identifier: MIT */
/*
 * Runs a program's tests one by one, each with a time limit, and fails those that leave something behind.
 *
 * Every test is handed to cmocka in a wrapper: our setup takes the inventory (open fds, threads, memory that the
 * library holds) before the test's own, our teardown compares after the test's own. What goes away late (a joined
 * thread's entry in /proc, what the dispatcher frees) gets a moment to do so.
 *
 * A crash or a hang ends the program, after gdb, if there is one, has printed all backtraces: tests/tools/run counts
 * the tests that are missing as failed. cmocka would go on instead, with whatever locks the crash left behind.
 */
#include "harness.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>

/* ---- Memory: the library's calls of malloc and its kin are renamed to these when the tests are linked ---------- */

void *counted_malloc(size_t size);
void *counted_calloc(size_t n, size_t size);
void *counted_realloc(void *old, size_t size);
void *counted_aligned_alloc(size_t align, size_t size);
void counted_free(void *p);

/* Relaxed throughout, so that counting orders nothing that TSan would otherwise find unordered. */
static atomic_long live, fail_in;

static bool must_fail(void)
{
	return atomic_load_explicit(&fail_in, memory_order_relaxed) > 0 &&
	       atomic_fetch_sub_explicit(&fail_in, 1, memory_order_relaxed) == 1;
}

static void *counted(void *p)
{
	if (p)
		atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
	return p;
}

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

void *counted_malloc(size_t size)
{
	return must_fail() ? no_memory() : counted(malloc(size));
}

void *counted_calloc(size_t n, size_t size)
{
	return must_fail() ? no_memory() : counted(calloc(n, size));
}

void *counted_aligned_alloc(size_t align, size_t size)
{
	return must_fail() ? no_memory() : counted(aligned_alloc(align, size));
}

void *counted_realloc(void *old, size_t size)
{
	if (must_fail())
		return no_memory();
	return old ? realloc(old, size) : counted(malloc(size));
}

void counted_free(void *p)
{
	if (p)
		atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
	free(p);
}

long live_allocations(void)
{
	return atomic_load_explicit(&live, memory_order_relaxed);
}

/*
 * fail_in counts down to 0 as the chosen one fails, below it as others follow; so `failing` tells 0 = none from 0 =
 * happened.
 */
static bool failing;

void fail_allocation(int n)
{
	failing = n > 0;
	atomic_store_explicit(&fail_in, n, memory_order_relaxed);
}

bool allocation_failed(void)
{
	return failing && atomic_load_explicit(&fail_in, memory_order_relaxed) <= 0;
}

/* ---- The inventory --------------------------------------------------------------------------------------------- */

struct item {
	int number;    /* fd or tid */
	char name[60]; /* what the fd is, or what the thread is called */
};

struct inventory {
	struct item *fds, *threads;
	int nfds, nthreads;
	long memory;
};

static void add(struct item **list, int *n, int number, const char *name)
{
	if ((*n & (*n - 1)) == 0) {
		*list = realloc(*list, (size_t)(*n ? 2 * *n : 1) * sizeof **list);
		require(*list);
	}
	(*list)[*n].number = number;
	snprintf((*list)[*n].name, sizeof(*list)[*n].name, "%s", name);
	++*n;
}

static int by_number(const void *a, const void *b)
{
	return ((const struct item *)a)->number - ((const struct item *)b)->number;
}

static void list_fds(struct inventory *inv)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	require(dir);
	while ((e = readdir(dir))) {
		char target[sizeof inv->fds->name];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof target - 1);

		if (n < 0 || atoi(e->d_name) == dirfd(dir))
			continue;
		target[n] = 0;
		add(&inv->fds, &inv->nfds, atoi(e->d_name), target);
	}
	closedir(dir);
}

static void list_threads(struct inventory *inv)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;

	require(dir);
	while ((e = readdir(dir))) {
		char path[64], name[32] = "";
		FILE *f;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", e->d_name);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof name, f))
			add(&inv->threads, &inv->nthreads, atoi(e->d_name), strtok(name, "\n"));
		if (f)
			fclose(f);
	}
	closedir(dir);
}

static void take_inventory(struct inventory *inv)
{
	memset(inv, 0, sizeof *inv);
	list_threads(inv);
	list_fds(inv);
	if (inv->nfds)
		qsort(inv->fds, (size_t)inv->nfds, sizeof *inv->fds, by_number);
	inv->memory = live_allocations();
}

static void drop_inventory(struct inventory *inv)
{
	free(inv->fds);
	free(inv->threads);
	memset(inv, 0, sizeof *inv);
}

static bool contains(const struct item *list, int n, const struct item *item)
{
	for (int i = 0; i < n; i++)
		if (list[i].number == item->number && !strcmp(list[i].name, item->name))
			return true;
	return false;
}

/* The dispatcher, and io_uring's workers, which the kernel keeps for a while after their ring is gone. */
static bool may_stay(const struct item *thread)
{
	return !strcmp(thread->name, "ctxfd") || !strncmp(thread->name, "iou-", 4);
}

/* How many differences there are; tells each if `tell`. */
static int compare(const struct inventory *before, const struct inventory *after, bool tell)
{
	int n = 0;

	for (int i = 0; i < after->nfds; i++)
		if (!contains(before->fds, before->nfds, &after->fds[i]) && ++n && tell)
			printf("# leaked: fd %d, %s\n", after->fds[i].number, after->fds[i].name);
	for (int i = 0; i < before->nfds; i++)
		if (!contains(after->fds, after->nfds, &before->fds[i]) && ++n && tell)
			printf("# closed, and was not the test's: fd %d, %s\n", before->fds[i].number,
			       before->fds[i].name);
	for (int i = 0; i < after->nthreads; i++)
		if (!contains(before->threads, before->nthreads, &after->threads[i]) && !may_stay(&after->threads[i]) &&
		    ++n && tell)
			printf("# leaked: thread %d, \"%s\"\n", after->threads[i].number, after->threads[i].name);
	if (before->memory != after->memory && ++n && tell)
		printf("# leaked: %ld of the library's blocks of memory\n", after->memory - before->memory);
	return n;
}

int count_fds(void)
{
	struct inventory inv;
	int n;

	take_inventory(&inv);
	n = inv.nfds;
	drop_inventory(&inv);
	return n;
}

int count_threads(void)
{
	struct inventory inv;
	int n;

	take_inventory(&inv);
	n = inv.nthreads;
	drop_inventory(&inv);
	return n;
}

/* ---- Crashes and hangs ----------------------------------------------------------------------------------------- */

static const struct CMUnitTest *current;
static bool passed; /* it came to its end, and no assertion jumped out of it */
static pid_t self;

static void say(const char *text)
{
	ssize_t n = write(STDOUT_FILENO, text, strlen(text));

	(void)n;
}

static void backtrace(void)
{
	const char *preload = getenv("LD_PRELOAD");
	char pid[16];
	pid_t child;

	if (preload && strstr(preload, "valgrind"))
		return;
	snprintf(pid, sizeof pid, "%d", (int)self);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	child = vfork();
	if (child == 0) {
		dup2(STDOUT_FILENO, STDERR_FILENO);
		execlp("gdb", "gdb", "-p", pid, "-batch", "-nx", "-ex", "thread apply all bt", (char *)NULL);
		_exit(127);
	}
	waitpid(child, NULL, 0);
}

static void on_fatal(int sig)
{
	signal(sig, SIG_DFL);
	if (getpid() == self) {
		say(sig == SIGALRM ? "# its time is up: " : "# crashed: ");
		say(current ? current->name : "between two tests");
		say("\n");
		backtrace();
	}
	raise(sig == SIGALRM ? SIGKILL : sig);
}

/* Signals that a sanitizer has taken are left to it. */
static void catch_crashes(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS };
	struct sigaction was;

	for (size_t i = 0; i < COUNT(signals); i++)
		if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler == SIG_DFL)
			signal(signals[i], on_fatal);
	signal(SIGALRM, on_fatal);
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

static struct inventory before;

/* cmocka takes the signals of a crash for itself while a test runs; this gives them back to whoever had them. */
static void take_back_crashes(bool remember)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS };
	static struct sigaction had[COUNT(signals)];

	for (size_t i = 0; i < COUNT(signals); i++)
		sigaction(signals[i], remember ? NULL : &had[i], remember ? &had[i] : NULL);
}

void set_time_limit(int seconds)
{
	alarm((unsigned)(seconds * slow()));
}

/* What a failed assertion of cmocka's does on another thread; its message is lost. */
static void on_exit_early(void)
{
	if (current && getpid() == self)
		printf("# %s ended the program: did an assertion fail on another thread? require tells which\n",
		       current->name);
}

static int set_up(void **state)
{
	take_back_crashes(false);
	current = *state;
	*state = current->initial_state;
	passed = false;
	take_inventory(&before);
	set_time_limit(60);
	return current->setup_func ? current->setup_func(state) : 0;
}

static void run_one(void **state)
{
	take_back_crashes(false);
	current->test_func(state);
	passed = true;
}

/* Waits a little for what goes away by itself, then tells what did not. */
static int check_leaks(void)
{
	int64_t until = now() + 2 * CTXFD_SEC * slow();
	struct inventory after;
	int leaks;

	for (;;) {
		take_inventory(&after);
		leaks = compare(&before, &after, now() > until);
		drop_inventory(&after);
		if (leaks == 0 || now() > until)
			return leaks;
		pass_time(CTXFD_MSEC);
	}
}

static int tear_down(void **state)
{
	int failed;

	take_back_crashes(false);
	fail_allocation(0);
	failed = current->teardown_func ? current->teardown_func(state) : 0;
	if (passed && !failed)
		failed = check_leaks() ? -1 : 0;
	alarm(0);
	drop_inventory(&before);
	current = NULL;
	return failed;
}

static void *nothing(void *arg)
{
	return arg;
}

void harness_nothing(void *arg)
{
	(void)arg;
}

void make_waiter(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

	require(ctx && ctxfd_poll(ctx, NULL, 0, 1) == 0);
	ctxfd_unref(ctx);
}

/*
 * What the library keeps for good once it was asked for, and a sanitizer's own thread, which comes with the first
 * one.
 */
static void warm_up(bool library)
{
	struct ctxfd *ctx;

	thread_join(thread_start(nothing, NULL));
	if (!library)
		return;
	require(ctxfd_done_fd(ctxfd_background()) >= 0);
	ctx = ctxfd_with_cancel(ctxfd_background());
	require(ctx);
	ctxfd_cancel(ctx);
	require(ctxfd_done_fd(ctx) >= 0);
	ctxfd_unref(ctx);
	make_waiter();
}

int harness_run(const char *file, const struct CMUnitTest *tests, size_t n, bool warm)
{
	struct CMUnitTest *wrapped = calloc(n, sizeof *wrapped);
	int failed;

	require(wrapped);
	for (size_t i = 0; i < n; i++)
		wrapped[i] =
		        (struct CMUnitTest){ tests[i].name, run_one, set_up, tear_down, (void *)(uintptr_t)&tests[i] };
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	self = getpid();
	atexit(on_exit_early);
	catch_crashes();
	take_back_crashes(true);
	warm_up(warm);
	failed = _cmocka_run_group_tests(file, wrapped, n, NULL, NULL);
	free(wrapped);
	return failed ? 1 : 0;
}

void harness_say_skip(const char *format, ...)
{
	va_list args;

	printf("# skipped: %s: ", current ? current->name : "");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

void harness_fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	_fail(file, line);
}

void harness_require_failed(const char *what, const char *file, int line)
{
	printf("# %s:%d: required: %s\n", file, line, what);
	fflush(stdout);
	_exit(1);
}

int slow(void)
{
	const char *factor = getenv("CTXFD_SLOW");

	return factor && atoi(factor) > 0 ? atoi(factor) : 1;
}

int rounds(int n)
{
	return n / slow() > 0 ? n / slow() : 1;
}
