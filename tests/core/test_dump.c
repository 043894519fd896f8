/* SPDX-License-Identifier: MIT */
/* ctxfd_dump: what it writes, where, and who may be at work in the tree meanwhile. */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "core/shard.h"

/* What a dump writes, for free. */
static char *dump(const struct ctxfd *ctx)
{
	int file = memfd_create("dump", MFD_CLOEXEC);
	off_t size;
	char *text;

	require(file >= 0);
	require(ctxfd_dump(ctx, file) == 0);
	size = lseek(file, 0, SEEK_END);
	text = calloc(1, (size_t)size + 1);
	require(text && pread(file, text, (size_t)size, 0) == size);
	close(file);
	return text;
}

#define ASSERT_DUMPED(ctx, ...) assert_dumped(__LINE__, ctx, __VA_ARGS__)

__attribute__((format(printf, 3, 4))) static void assert_dumped(int line, const struct ctxfd *ctx, const char *format,
                                                                ...)
{
	char *text = dump(ctx), expected[2000];
	va_list args;

	va_start(args, format);
	vsnprintf(expected, sizeof expected, format, args);
	va_end(args);
	if (strcmp(text, expected) != 0)
		harness_fail(__FILE__, line, "dumped as\n%s", text);
	free(text);
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

#define P(ctx) ((const void *)(ctx))

static void nothing(void *arg)
{
	(void)arg;
}

static void a_tree_in_the_order_of_making(void **state)
{
	struct ctxfd *a = ctxfd_with_cancel(ctxfd_background()), *b = ctxfd_with_cancel(a), *c = ctxfd_with_cancel(b);
	struct ctxfd *d = ctxfd_with_cancel(b), *e = ctxfd_with_cancel(a);
	struct ctxfd_after *handle;
	int fd = ctxfd_done_fd(d);

	assert_int_equal(ctxfd_after_func(c, nothing, NULL, &handle), 0);
	ctxfd_ref(e);
	ctxfd_unref(b);
	ASSERT_DUMPED(a,
	              "with_cancel %p: live, 1 reference\n"
	              "  with_cancel %p: live, 0 references\n"
	              "    with_cancel %p: live, 1 reference\n"
	              "      after_func %p: live\n"
	              "    with_cancel %p: live, 1 reference, done fd %d\n"
	              "  with_cancel %p: live, 2 references\n",
	              P(a), P(b), P(c), P(handle), P(d), fd, P(e));
	ASSERT_DUMPED(e, "with_cancel %p: live, 2 references\n", P(e));
	assert_true(ctxfd_after_stop(handle));
	ctxfd_unref(c);
	ctxfd_unref(d);
	ASSERT_DUMPED(a, "with_cancel %p: live, 1 reference\n  with_cancel %p: live, 2 references\n", P(a), P(e));
	ctxfd_unref(e);
	ctxfd_unref(e);
	ctxfd_unref(a);
}

static void how_each_has_ended(void **state)
{
	struct ctxfd *a = ctxfd_with_cancel(ctxfd_background()), *b = ctxfd_with_cancel(a);
	struct ctxfd *late = ctxfd_with_deadline_cause(a, ctxfd_now() - 1, -EPROTO), *same = ctxfd_with_cancel(b);

	ctxfd_cancel_cause(same, -ECANCELED); /* which is no news */
	ctxfd_cancel_cause(b, -ECONNRESET);
	ASSERT_DUMPED(a,
	              "with_cancel %p: live, 1 reference\n"
	              "  with_cancel %p: done: context canceled, cause %d: %s, 1 reference\n"
	              "    with_cancel %p: done: context canceled, 1 reference\n"
	              "  with_deadline %p: done: context deadline exceeded, cause %d: %s, 1 reference\n",
	              P(a), P(b), -ECONNRESET, strerror(ECONNRESET), P(same), P(late), -EPROTO, strerror(EPROTO));
	ctxfd_unref(same);
	ctxfd_unref(b);
	ctxfd_unref(late);
	ctxfd_cancel(a);
	ASSERT_DUMPED(a, "with_cancel %p: done: context canceled, 1 reference\n", P(a));
	ctxfd_unref(a);
}

/* It asks the clock, and changes nothing. */
static void a_deadline_by_the_clock(void **state)
{
	struct ctxfd *a = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC), *b = ctxfd_with_cancel(a);
	struct ctxfd *brief = ctxfd_with_timeout(a, CTXFD_MSEC);
	char *text;

	pass_time(2 * CTXFD_MSEC);
	text = dump(a);
	assert_int_equal(count(text, "live, 3599."), 2);
	assert_int_equal(count(text, " s left, 1 reference\n"), 2);
	assert_int_equal(count(text, "done: context deadline exceeded, 1 reference\n"), 1);
	free(text);
	ctxfd_unref(brief);
	ctxfd_unref(b);
	ctxfd_unref(a);
}

static void values_have_the_line_above(void **state)
{
	static const char key;
	struct ctxfd *a = ctxfd_with_cancel(ctxfd_background());
	const struct ctxfd *value = ctxfd_with_value(a, &key, NULL, NULL);
	struct ctxfd *b = ctxfd_with_cancel(value);

	ASSERT_DUMPED(value, "with_cancel %p: live, 2 references\n  with_cancel %p: live, 1 reference\n", P(a), P(b));
	ASSERT_DUMPED(ctxfd_background(), "background %p: never done; what is made from it is not listed\n",
	              P(ctxfd_background()));
	ctxfd_unref(b);
	ctxfd_unref(value);
	ctxfd_unref(a);
}

static void merges_are_below_their_first_parent(void **state)
{
	struct ctxfd *a = ctxfd_with_cancel(ctxfd_background()), *b = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *m = ctxfd_merge(a, b), *c = ctxfd_with_cancel(m);

	ASSERT_DUMPED(a,
	              "with_cancel %p: live, 1 reference\n"
	              "  merge %p: live, 1 reference\n"
	              "    with_cancel %p: live, 1 reference\n",
	              P(a), P(m), P(c));
	ASSERT_DUMPED(b, "with_cancel %p: live, 1 reference\n  merge %p: listed below its first parent\n", P(b), P(m));
	ctxfd_unref(c);
	ctxfd_unref(m);
	ctxfd_unref(a);
	ctxfd_unref(b);
}

static void *wait_there(void *ctx)
{
	require(ctxfd_poll(ctx, NULL, 0, -1) == -ECANCELED);
	return NULL;
}

static void threads_that_wait(void **state)
{
	struct ctxfd *a = ctxfd_with_cancel(ctxfd_background());
	struct thread *thread = thread_start(wait_there, a);

	thread_wait_asleep(thread);
	ASSERT_DUMPED(a, "with_cancel %p: live, 1 reference\n  a thread waits: polling\n", P(a));
	ctxfd_cancel(a);
	thread_join(thread);
	ctxfd_unref(a);
}

/* What is hidden from the program is hidden here: shards, and alarms. */
static void a_crowd_is_listed_as_any(void **state)
{
	struct ctxfd *a = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC), *children[40];
	struct ctxfd_after *handle;
	char *text;

	for (int i = 0; i < 20; i++)
		children[i] = ctxfd_with_cancel(a);
	assert_int_equal(ctxfd_after_func(a, nothing, NULL, &handle), 0);
	ctxfdi_split_children(a);
	for (int i = 20; i < 40; i++)
		children[i] = ctxfd_with_cancel(a);
	text = dump(a);
	assert_int_equal(count(text, "\n"), 42);
	assert_int_equal(count(text, "  with_cancel "), 40);
	assert_int_equal(count(text, "  after_func "), 1);
	free(text);
	ctxfd_after_stop(handle);
	for (int i = 0; i < 40; i++)
		ctxfd_unref(children[i]);
	text = dump(a);
	assert_int_equal(count(text, "\n"), 1);
	free(text);
	ctxfd_unref(a);
}

/* ---- Large trees ------------------------------------------------------------------------------------------------- */

enum { MANY = 20000 };

static void *dump_deep(void *arg)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *n = root;
	char *text;

	(void)arg;
	for (int i = 0; i < MANY; i++) {
		struct ctxfd *below = ctxfd_with_cancel(n);

		ctxfd_unref(n);
		n = below;
	}
	/* It has no owner: whoever knows of the last can still find it. */
	text = dump(n);
	require(count(text, "\n") == 1);
	free(text);
	text = dump(root);
	require(count(text, "\n") == MANY + 1);
	require(strstr(text, "\n                                                                (20000) with_cancel "));
	free(text);
	ctxfd_unref(n);
	return NULL;
}

static void a_deep_tree_needs_little_stack(void **state)
{
	thread_join(thread_start_stack(dump_deep, NULL, 64 * 1024));
}

/* Where each would climb up to the grace to know its deadline, it would take minutes. */
static void a_deep_tree_below_a_grace_takes_no_longer(void **state)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd *grace = ctxfd_with_grace(parent, 3600 * CTXFD_SEC, 0), *n = ctxfd_with_cancel(grace);
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	char *text;

	ctxfd_cancel(parent);
	text = dump(grace);
	assert_int_equal(count(text, "live, 3599."), 2);
	free(text);
	for (int i = 0; i < rounds(150000); i++) {
		struct ctxfd *below = ctxfd_with_cancel(n);

		ctxfd_unref(n);
		n = below;
	}
	assert_int_equal(ctxfd_dump(parent, null), 0);
	assert_int_equal(ctxfd_dump(grace, null), 0);
	close(null);
	ctxfd_unref(n);
	ctxfd_close(grace);
	ctxfd_close(parent);
}

static void a_wide_tree(void **state)
{
	static struct ctxfd *children[MANY];
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	char *text, line[64];

	for (int i = 0; i < MANY; i++)
		children[i] = ctxfd_with_cancel(root);
	text = dump(root);
	assert_int_equal(count(text, "\n"), MANY + 1);
	snprintf(line, sizeof line, "reference\n  with_cancel %p: live", P(children[0]));
	assert_non_null(strstr(text, line));
	assert_ptr_equal(strstr(text, line), strstr(text, "reference\n")); /* right behind the root */
	free(text);
	for (int i = 0; i < MANY; i++)
		ctxfd_unref(children[i]);
	ctxfd_unref(root);
}

/* Nothing is left behind, whenever there is no more. */
static void without_memory_it_says_so(void **state)
{
	static struct ctxfd *children[1000];
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background());
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), err = -ENOMEM;

	for (int i = 0; i < 1000; i++)
		children[i] = ctxfd_with_cancel(i < 500 ? root : children[i - 500]);
	for (int n = 1; err; n++) {
		assert_int_equal(err, -ENOMEM);
		fail_allocation(n);
		err = ctxfd_dump(root, null);
		assert_true(n > 1 || err);
	}
	close(null);
	for (int i = 0; i < 1000; i++)
		ctxfd_unref(children[i]);
	ctxfd_unref(root);
}

/* ---- Where it goes ----------------------------------------------------------------------------------------------- */

static void errors_are_told(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	void (*before)(int) = signal(SIGPIPE, SIG_IGN);
	int pipe[2], full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	make_pipe(pipe);
	errno = 0;
	assert_int_equal(ctxfd_dump(NULL, pipe[1]), -EINVAL);
	assert_int_equal(ctxfd_dump(ctx, -1), -EBADF);
	assert_int_equal(ctxfd_dump(ctx, pipe[0]), -EBADF);
	if (full >= 0)
		assert_int_equal(ctxfd_dump(ctx, full), -ENOSPC);
	close(pipe[0]);
	assert_int_equal(ctxfd_dump(ctx, pipe[1]), -EPIPE);
	assert_int_equal(errno, 0);
	close(pipe[1]);
	close(full);
	signal(SIGPIPE, before);
	ctxfd_unref(ctx);
}

static void *drain(void *arg)
{
	char part[1000];
	ssize_t n;
	size_t lines = 0;

	while ((n = read(*(int *)arg, part, sizeof part)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += part[i] == '\n';
	return (void *)lines;
}

/* Far more than a pipe takes. */
static void a_pipe_that_does_not_wait_is_waited_for(void **state)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *children[4000];
	struct thread *reader;
	int pipe[2];

	for (int i = 0; i < 4000; i++)
		children[i] = ctxfd_with_cancel(root);
	make_pipe(pipe);
	assert_int_equal(fcntl(pipe[1], F_SETFL, O_NONBLOCK), 0);
	reader = thread_start(drain, &pipe[0]);
	assert_int_equal(ctxfd_dump(root, pipe[1]), 0);
	close(pipe[1]);
	assert_int_equal((size_t)thread_join(reader), 4001);
	close(pipe[0]);
	for (int i = 0; i < 4000; i++)
		ctxfd_unref(children[i]);
	ctxfd_unref(root);
}

/* ---- Meanwhile --------------------------------------------------------------------------------------------------- */

struct crowd {
	struct ctxfd *root;
	_Atomic bool over;
};

static void *come_and_go(void *arg)
{
	struct crowd *c = arg;

	while (!c->over) {
		struct ctxfd *branch = ctxfd_with_cancel(c->root), *leaves[5];
		struct ctxfd *merged = ctxfd_merge(branch, c->root);
		struct ctxfd_after *handle;

		for (int i = 0; i < 5; i++)
			leaves[i] = ctxfd_with_timeout(i % 2 ? merged : branch, i ? 3600 * CTXFD_SEC : 1);
		ctxfd_unref(branch);
		require(ctxfd_after_func(merged, nothing, NULL, &handle) == 0);
		ctxfd_cancel(merged);
		ctxfd_unref(merged);
		ctxfd_after_stop(handle);
		for (int i = 0; i < 5; i++)
			ctxfd_close(leaves[i]);
	}
	return NULL;
}

static void others_come_and_go(void **state)
{
	struct crowd c = { .root = ctxfd_with_cancel(ctxfd_background()) };
	struct thread *threads[3];
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	for (int i = 0; i < 3; i++)
		threads[i] = thread_start(come_and_go, &c);
	for (int i = 0; i < rounds(3000); i++)
		assert_int_equal(ctxfd_dump(c.root, null), 0);
	c.over = true;
	for (int i = 0; i < 3; i++)
		thread_join(threads[i]);
	close(null);
	ctxfd_close(c.root);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tree_in_the_order_of_making),
		cmocka_unit_test(how_each_has_ended),
		cmocka_unit_test(a_deadline_by_the_clock),
		cmocka_unit_test(values_have_the_line_above),
		cmocka_unit_test(merges_are_below_their_first_parent),
		cmocka_unit_test(threads_that_wait),
		cmocka_unit_test(a_crowd_is_listed_as_any),
		cmocka_unit_test(a_deep_tree_needs_little_stack),
		cmocka_unit_test(a_deep_tree_below_a_grace_takes_no_longer),
		cmocka_unit_test(a_wide_tree),
		cmocka_unit_test(without_memory_it_says_so),
		cmocka_unit_test(errors_are_told),
		cmocka_unit_test(a_pipe_that_does_not_wait_is_waited_for),
		cmocka_unit_test(others_come_and_go),
	};

	start_dispatcher();
	return run_all(tests);
}
