/* SPDX-License-Identifier: MIT */
/*
 * Random scripts by one thread, against a model (storm/model.h): every answer of the library is compared. A script
 * whose answers differ is shrunk and printed.
 *
 *     STORM_SECONDS=n   goes on for so long
 *     STORM_SEED=n      another beginning than the usual one
 *     STORM_SCRIPT=...  plays only this
 *
 * Scripts are played in forked children, a few hundred in each, so that one that crashes or hangs can be found and
 * shrunk, too.
 */
#include "harness.h"
#include "storm/exact.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>

#define BATCH 200

static struct script script;
static bool silent;

void differs(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (!silent) {
		fprintf(stderr, "# ");
		vfprintf(stderr, format, args);
		fputc('\n', stderr);
	}
	va_end(args);
	_exit(1);
}

static uint64_t first_seed(void)
{
	const char *s = getenv("STORM_SEED");

	return s ? strtoull(s, NULL, 0) : 1;
}

static const struct climate climates[] = {
	{ .setup = 6,
	  .ops = 60,
	  .vars = 30,
	  .hot = 15,
	  .longest = 150,
	  .weight = { [OP_NEW] = 8,   [OP_DEADLINE] = 4, [OP_TIMEOUT] = 3, [OP_VALUE] = 4,  [OP_WITHOUT] = 1,
	              [OP_MERGE] = 4, [OP_REF] = 2,      [OP_FREE] = 6,    [OP_CANCEL] = 2, [OP_CAUSE] = 3,
	              [OP_CLOSE] = 2, [OP_FD] = 6,       [OP_LOOK] = 5,    [OP_WAIT] = 1,   [OP_SLEEP] = 1,
	              [OP_POLL] = 1,  [OP_GET] = 4,      [OP_SPLIT] = 1,   [OP_AFTER] = 4,  [OP_STOP] = 3,
	              [OP_SERVE] = 3, [OP_WATCH] = 2,    [OP_PULL] = 1,    [OP_READ] = 1,   [OP_WRITE] = 1,
	              [OP_TELL] = 2,  [OP_NULLS] = 1,    [OP_LOOP] = 1 } },
	{ .setup = 2,
	  .ops = 200,
	  .vars = 50,
	  .hot = 5,
	  .longest = 400,
	  .weight = { [OP_NEW] = 16,
	              [OP_DEADLINE] = 2,
	              [OP_VALUE] = 2,
	              [OP_MERGE] = 8,
	              [OP_FREE] = 10,
	              [OP_CAUSE] = 2,
	              [OP_FD] = 3,
	              [OP_LOOK] = 2,
	              [OP_SPLIT] = 2,
	              [OP_AFTER] = 1,
	              [OP_SERVE] = 1,
	              [OP_STOP] = 1 } },
	{ .setup = 2,
	  .ops = 60,
	  .vars = 12,
	  .hot = 0,
	  .longest = 200,
	  .weight = { [OP_NEW] = 3,
	              [OP_DEADLINE] = 10,
	              [OP_TIMEOUT] = 1,
	              [OP_MERGE] = 10,
	              [OP_FREE] = 2,
	              [OP_CAUSE] = 1,
	              [OP_FD] = 2,
	              [OP_LOOK] = 8,
	              [OP_WAIT] = 3,
	              [OP_CLOCK] = 1 } },
	/* After-funcs that have something to do. */
	{ .setup = 4,
	  .ops = 50,
	  .vars = 10,
	  .hot = 30,
	  .longest = 100,
	  .errand = 5,
	  .weight = { [OP_NEW] = 6,
	              [OP_DEADLINE] = 2,
	              [OP_VALUE] = 2,
	              [OP_MERGE] = 2,
	              [OP_FREE] = 8,
	              [OP_CAUSE] = 4,
	              [OP_CLOSE] = 3,
	              [OP_LOOK] = 2,
	              [OP_SPLIT] = 2,
	              [OP_AFTER] = 12,
	              [OP_STOP] = 3,
	              [OP_SERVE] = 3,
	              [OP_LOOP] = 2 } },
};

static void make_script(struct script *s, uint64_t seed)
{
	struct chance c = { seed };

	random_script(s, &climates[seed % 5 % COUNT(climates)], &c);
}

/* ---- In children ------------------------------------------------------------------------------------------------- */

struct batch {
	uint64_t first;
	int n;
};

static int play_batch(void *arg)
{
	const struct batch *b = arg;

	alarm((unsigned)(60 * slow()));
	for (int i = 0; i < b->n; i++) {
		make_script(&script, b->first + (uint64_t)i);
		play_exact(&script, (int)((b->first + (uint64_t)i) % 3));
	}
	return 0;
}

/* Whether fn ends well in a child. */
static bool goes_well(int (*fn)(void *arg), void *arg)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(fn(arg));
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int curiosity;

static int play_one(void *arg)
{
	signal(SIGALRM, SIG_DFL);
	alarm((unsigned)(5 * slow()));
	if (silent) {
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGABRT, SIG_DFL);
	}
	play_exact(arg, curiosity);
	return 0;
}

/* Now and then time makes a difference: what failed once may go well the next time. */
static bool fails(const struct script *s, void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++)
		if (!goes_well(play_one, (void *)(uintptr_t)s))
			return true;
	return false;
}

static void tell_failure(void)
{
	static char text[16384];

	silent = true;
	shrink_script(&script, fails, NULL);
	silent = false;
	print_script(&script, text, sizeof text);
	fprintf(stderr, "# STORM_SCRIPT='%s' STORM_CURIOUS=%d\n", text, curiosity);
	fails(&script, NULL);
	fail();
}

static void find_failure(const struct batch *b)
{
	for (uint64_t seed = b->first; seed < b->first + (uint64_t)b->n; seed++) {
		make_script(&script, seed);
		curiosity = (int)(seed % 3);
		if (fails(&script, NULL)) {
			fprintf(stderr, "# STORM_SEED=%llu, shrinking\n", (unsigned long long)seed);
			tell_failure();
		}
	}
	fail_msg("a script from seed %llu to %d more fails, but not again", (unsigned long long)b->first, b->n);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void random_scripts(void **state)
{
	const char *s = getenv("STORM_SECONDS");
	double seconds = s ? atof(s) : 5;
	int64_t until = now() + (int64_t)(seconds * 1e9);
	struct batch b = { first_seed(), rounds(BATCH) };

	set_time_limit(120 + (int)seconds);
	do {
		if (!goes_well(play_batch, &b))
			find_failure(&b);
		b.first += (uint64_t)b.n;
	} while (now() < until);
	if (getenv("STORM_TELL"))
		fprintf(stderr, "# %llu scripts\n", (unsigned long long)(b.first - first_seed()));
}

/* In this process, for its check of leaks. */
static void nothing_is_left(void **state)
{
	struct batch b = { first_seed(), rounds(BATCH) };

	play_batch(&b);
	alarm(0);
}

/* What the fuzzer has found worth keeping. */
static void corpus(void **state)
{
	DIR *dir = opendir("tests/fuzz/corpus");
	static uint8_t bytes[4096];
	struct dirent *e;
	int n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC);
		ssize_t size = e->d_name[0] == '.' ? -1 : read(fd, bytes, sizeof bytes);

		close(fd);
		if (size < 0)
			continue;
		decode_script(&script, &curiosity, bytes, (size_t)size);
		play_exact(&script, curiosity);
		n++;
	}
	closedir(dir);
	assert_true(n > 0);
}

static void given_script(void **state)
{
	assert_true(parse_script(&script, getenv("STORM_SCRIPT")));
	curiosity = getenv("STORM_CURIOUS") ? atoi(getenv("STORM_CURIOUS")) : 2;
	assert_false(fails(&script, NULL));
}

int main(void)
{
	static const struct CMUnitTest given[] = { cmocka_unit_test(given_script) };
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_scripts),
		cmocka_unit_test(nothing_is_left),
		cmocka_unit_test(corpus),
	};

	if (getenv("STORM_SCRIPT"))
		return run_all(given);
	return run_all(tests);
}
