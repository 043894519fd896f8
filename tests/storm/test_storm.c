/* SPDX-License-Identifier: MIT */
/*
 * The storm: random scripts (storm/script.h) by real threads, each claim of storm/shadow.h checked all the time; and
 * the known races (storm/scenarios.h) again and again. test_schedules is the same on a simulated machine; this is the
 * real one, with its memory order, its kernel, its clock.
 *
 *     STORM_SECONDS=n   goes on for so long
 *     STORM_SEED=n      another beginning than the usual one
 *     STORM_SCRIPT=...  plays only this, again and again
 *
 * What breaks a claim ends the program, after telling the seed, the claim and what each thread did last. The script
 * that a seed stands for is always the same; when its threads come to what is not.
 */
#include "harness.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "storm/scenarios.h"
#include "storm/shadow.h"

static struct world world;
static struct script script;
static uint64_t seed; /* of the script that is played */
static int threads;

/* ---- What the storm runs on -------------------------------------------------------------------------------------- */

void broken(const char *format, ...)
{
	static char text[16384];
	static atomic_flag said = ATOMIC_FLAG_INIT;
	va_list args;

	if (atomic_flag_test_and_set(&said))
		for (;;)
			pause();
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	fprintf(stderr, "# %s\n# STORM_SEED=%llu\n", text, (unsigned long long)seed);
	print_last(&world, 20);
	if (print_script(&script, text, sizeof text) < 2000 || getenv("STORM_TELL"))
		fprintf(stderr, "# STORM_SCRIPT='%s'\n", text);
	abort();
}

bool shows(int fd)
{
	return readable(fd);
}

void pass_until(int64_t at)
{
	struct timespec t = { (time_t)(at / CTXFD_SEC), (long)(at % CTXFD_SEC) };

	/* Sleeping takes some 50 us longer than it should. */
	if (at - now() > 100 * CTXFD_USEC)
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	while (now() < at)
		continue;
}

bool let_dispatch(int tries)
{
	pass_time(20 * CTXFD_USEC);
	return tries < 200000 * slow();
}

/* Made by main, for all rounds. */
static int levers[LEVERS];

int lever_fd(int lever)
{
	return levers[lever];
}

void pull_lever(int lever)
{
	uint64_t one = 1;

	require(write(levers[lever], &one, sizeof one) == sizeof one);
}

static void put_levers_back(void)
{
	uint64_t n;

	for (int l = 0; l < LEVERS; l++)
		require(read(levers[l], &n, sizeof n) == sizeof n || errno == EAGAIN);
}

int watch_edges(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int set = epoll_create1(EPOLL_CLOEXEC);

	require(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	return set;
}

bool take_edge(int set)
{
	struct epoll_event event;

	return epoll_wait(set, &event, 1, 0) > 0;
}

void forget_edges(int set)
{
	close(set);
}

int refusals(void)
{
	return 0;
}

static _Thread_local int number = DISPATCHER;

int who(void)
{
	return number;
}

void end_thread(void)
{
	pthread_exit(NULL);
}

/* ---- Threads that stay for all rounds ---------------------------------------------------------------------------- */

static pthread_barrier_t gate;
static bool over;

static void *play_rounds(void *arg)
{
	int t = (int)(intptr_t)arg;

	number = t;
	make_waiter();
	pthread_barrier_wait(&gate);
	for (;;) {
		pthread_barrier_wait(&gate);
		if (over)
			return NULL;
		play_list(&world, t);
		pthread_barrier_wait(&gate);
	}
}

static struct thread *started[MAX_THREADS];

/* The test's own thread is the first. */
static void start_threads(int n)
{
	threads = n;
	number = 1;
	over = false;
	pthread_barrier_init(&gate, NULL, (unsigned)n);
	for (int t = 2; t <= n; t++)
		started[t - 1] = thread_start(play_rounds, (void *)(intptr_t)t);
	pthread_barrier_wait(&gate);
}

static void stop_threads(void)
{
	over = true;
	pthread_barrier_wait(&gate);
	for (int t = 2; t <= threads; t++)
		thread_join(started[t - 1]);
	pthread_barrier_destroy(&gate);
}

static void play_round(void)
{
	long held = live_allocations();
	int64_t begun = now();

	put_levers_back();
	begin_world(&world, &script);
	world.start = ctxfd_now();
	pthread_barrier_wait(&gate);
	play_list(&world, 1);
	pthread_barrier_wait(&gate);
	end_world(&world);
	/* The dispatcher may have something left to free. */
	while (live_allocations() != held) {
		if (now() > begun + 20 * CTXFD_SEC * slow())
			broken("%ld blocks of memory are not freed", live_allocations() - held);
		pass_time(20 * CTXFD_USEC);
	}
}

/* ---- Climates ---------------------------------------------------------------------------------------------------- */

static const struct climate climates[] = {
	/* Everything, a little. */
	{ .threads = 4,
	  .setup = 20,
	  .ops = 200,
	  .vars = 40,
	  .hot = 10,
	  .longest = 300,
	  .weight = { [OP_NEW] = 12,  [OP_DEADLINE] = 3, [OP_TIMEOUT] = 2, [OP_VALUE] = 2,  [OP_WITHOUT] = 1,
	              [OP_MERGE] = 4, [OP_REF] = 2,      [OP_FREE] = 10,   [OP_CANCEL] = 1, [OP_CAUSE] = 3,
	              [OP_CLOSE] = 3, [OP_FD] = 5,       [OP_LOOK] = 6,    [OP_WAIT] = 2,   [OP_SLEEP] = 1,
	              [OP_POLL] = 1,  [OP_GET] = 2,      [OP_POST] = 5,    [OP_TAKE] = 5,   [OP_SPLIT] = 1,
	              [OP_AFTER] = 1, [OP_STOP] = 1 } },
	/* One hot parent: derive, free and cancel. */
	{ .threads = 2,
	  .setup = 4,
	  .ops = 60,
	  .vars = 12,
	  .hot = 70,
	  .longest = 100,
	  .weight = { [OP_NEW] = 20,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 12,
	              [OP_CAUSE] = 1,
	              [OP_CLOSE] = 3,
	              [OP_FD] = 3,
	              [OP_LOOK] = 5 } },
	{ .threads = 4,
	  .setup = 4,
	  .ops = 100,
	  .vars = 30,
	  .hot = 70,
	  .longest = 100,
	  .weight = { [OP_NEW] = 40,
	              [OP_MERGE] = 2,
	              [OP_FREE] = 25,
	              [OP_CAUSE] = 1,
	              [OP_CLOSE] = 3,
	              [OP_FD] = 3,
	              [OP_LOOK] = 5,
	              [OP_SPLIT] = 1 } },
	/* Long chains: every new one below the last, which is given up. */
	{ .threads = 3,
	  .setup = 50,
	  .ops = 60,
	  .vars = 3,
	  .hot = 30,
	  .longest = 100,
	  .weight = { [OP_NEW] = 30,
	              [OP_DEADLINE] = 1,
	              [OP_MERGE] = 2,
	              [OP_CAUSE] = 1,
	              [OP_FD] = 3,
	              [OP_LOOK] = 5,
	              [OP_POST] = 3,
	              [OP_TAKE] = 3 } },
	/* Deadlines, as many as there can be. */
	{ .threads = 4,
	  .setup = 10,
	  .ops = 60,
	  .vars = 20,
	  .hot = 20,
	  .longest = 400,
	  .weight = { [OP_NEW] = 5,
	              [OP_DEADLINE] = 10,
	              [OP_TIMEOUT] = 5,
	              [OP_MERGE] = 3,
	              [OP_FREE] = 6,
	              [OP_CAUSE] = 3,
	              [OP_FD] = 8,
	              [OP_LOOK] = 12,
	              [OP_WAIT] = 3,
	              [OP_SLEEP] = 1,
	              [OP_POLL] = 1,
	              [OP_CLOCK] = 1 } },
	/* Merges of merges. */
	{ .threads = 3,
	  .setup = 12,
	  .ops = 50,
	  .vars = 15,
	  .hot = 10,
	  .longest = 100,
	  .weight = { [OP_NEW] = 3,
	              [OP_MERGE] = 15,
	              [OP_FREE] = 8,
	              [OP_CAUSE] = 2,
	              [OP_FD] = 3,
	              [OP_LOOK] = 6,
	              [OP_POST] = 2,
	              [OP_TAKE] = 2 } },
	/* After-funcs. */
	{ .threads = 3,
	  .setup = 6,
	  .ops = 40,
	  .vars = 10,
	  .hot = 30,
	  .longest = 200,
	  .weight = { [OP_NEW] = 6,
	              [OP_DEADLINE] = 2,
	              [OP_FREE] = 5,
	              [OP_CAUSE] = 2,
	              [OP_CLOSE] = 1,
	              [OP_LOOK] = 2,
	              [OP_AFTER] = 10,
	              [OP_STOP] = 8 } },
	/* After-funcs that have something to do. */
	{ .threads = 3,
	  .setup = 6,
	  .ops = 40,
	  .vars = 10,
	  .hot = 30,
	  .longest = 200,
	  .errand = 5,
	  .weight = { [OP_NEW] = 6,
	              [OP_DEADLINE] = 2,
	              [OP_VALUE] = 1,
	              [OP_MERGE] = 1,
	              [OP_REF] = 1,
	              [OP_FREE] = 10,
	              [OP_CAUSE] = 3,
	              [OP_CLOSE] = 3,
	              [OP_LOOK] = 1,
	              [OP_AFTER] = 10,
	              [OP_STOP] = 6,
	              [OP_TAKE] = 3,
	              [OP_SPLIT] = 2 } },
	/* The same, on dispatchers of the program's. */
	{ .threads = 4,
	  .setup = 8,
	  .ops = 50,
	  .vars = 12,
	  .hot = 20,
	  .longest = 200,
	  .errand = 4,
	  .weight = { [OP_NEW] = 6,
	              [OP_DEADLINE] = 2,
	              [OP_VALUE] = 1,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 8,
	              [OP_CAUSE] = 4,
	              [OP_CLOSE] = 2,
	              [OP_AFTER] = 10,
	              [OP_STOP] = 6,
	              [OP_TAKE] = 2,
	              [OP_SPLIT] = 1,
	              [OP_LOOP] = 4,
	              [OP_SERVE] = 2,
	              [OP_EDGE] = 4 } },
	/* Idle timeouts, which often meet a touch. */
	{ .threads = 4,
	  .setup = 8,
	  .ops = 60,
	  .vars = 10,
	  .hot = 40,
	  .longest = 100,
	  .errand = 3,
	  .weight = { [OP_NEW] = 4,
	              [OP_DEADLINE] = 1,
	              [OP_VALUE] = 1,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 4,
	              [OP_CAUSE] = 1,
	              [OP_CLOSE] = 1,
	              [OP_FD] = 2,
	              [OP_LOOK] = 4,
	              [OP_CLOCK] = 3,
	              [OP_POST] = 2,
	              [OP_TAKE] = 2,
	              [OP_AFTER] = 2,
	              [OP_SPLIT] = 1,
	              [OP_LOOP] = 2,
	              [OP_SERVE] = 2,
	              [OP_EDGE] = 2,
	              [OP_IDLE] = 8,
	              [OP_TOUCH] = 20 } },
	/* Graces, which often meet the end of their parent. */
	{ .threads = 4,
	  .setup = 8,
	  .ops = 60,
	  .vars = 10,
	  .hot = 40,
	  .longest = 100,
	  .errand = 3,
	  .weight = { [OP_NEW] = 4,
	              [OP_DEADLINE] = 1,
	              [OP_VALUE] = 1,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 4,
	              [OP_CAUSE] = 4,
	              [OP_CLOSE] = 1,
	              [OP_FD] = 2,
	              [OP_LOOK] = 4,
	              [OP_CLOCK] = 3,
	              [OP_POST] = 2,
	              [OP_TAKE] = 2,
	              [OP_AFTER] = 2,
	              [OP_SPLIT] = 1,
	              [OP_LOOP] = 2,
	              [OP_SERVE] = 2,
	              [OP_EDGE] = 2,
	              [OP_GRACE] = 12 } },
	/* One thread alone. */
	{ .threads = 1,
	  .setup = 10,
	  .ops = 200,
	  .vars = 30,
	  .hot = 10,
	  .longest = 200,
	  .weight = { [OP_NEW] = 12,
	              [OP_DEADLINE] = 3,
	              [OP_TIMEOUT] = 2,
	              [OP_VALUE] = 2,
	              [OP_WITHOUT] = 1,
	              [OP_MERGE] = 4,
	              [OP_REF] = 2,
	              [OP_FREE] = 10,
	              [OP_CAUSE] = 3,
	              [OP_CLOSE] = 3,
	              [OP_FD] = 5,
	              [OP_LOOK] = 6,
	              [OP_GET] = 2,
	              [OP_SPLIT] = 1,
	              [OP_AFTER] = 1,
	              [OP_STOP] = 1 } },
};

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static uint64_t first_seed(void)
{
	const char *s = getenv("STORM_SEED");

	return s ? strtoull(s, NULL, 0) : 1;
}

/* That part of the time of all. */
static double seconds(double part)
{
	const char *s = getenv("STORM_SECONDS");

	return (s ? atof(s) : 8) * part;
}

static void tell_rounds(long n)
{
	if (getenv("STORM_TELL"))
		fprintf(stderr, "# %ld rounds\n", n);
}

static void all_against_all(void **state)
{
	const struct climate *climate = *state;
	int64_t until = now() + (int64_t)(seconds(0.6) / (double)COUNT(climates) * 1e9);
	struct chance c;
	long n = 0;

	set_time_limit(60 + (int)seconds(1));
	world.bold = false;
	start_threads(climate->threads);
	seed = first_seed();
	do {
		c.state = seed;
		random_script(&script, climate, &c);
		world.drop_early = seed & 1;
		play_round();
		seed++;
		n++;
	} while (now() < until);
	stop_threads();
	tell_rounds(n);
}

static void race(void **state)
{
	const struct scenario *s = *state;
	int64_t until = now() + (int64_t)(seconds(0.4) / (double)COUNT(scenarios) * 1e9);
	long n = 0;

	set_time_limit(60 + (int)seconds(1));
	assert_true(parse_script(&script, s->script));
	world.bold = s->name != NULL;
	start_threads(script.threads);
	do {
		seed = (uint64_t)n;
		world.drop_early = seed & 1;
		play_round();
		n++;
	} while (now() < until);
	stop_threads();
	tell_rounds(n);
}

static void given_script(void **state)
{
	static struct scenario given;

	given.script = getenv("STORM_SCRIPT");
	*state = &given;
	race(state);
}

int main(void)
{
	struct CMUnitTest tests[COUNT(scenarios) + COUNT(climates)];
	static const struct CMUnitTest given[] = { cmocka_unit_test(given_script) };
	size_t n = 0;

	for (int l = 0; l < LEVERS; l++)
		levers[l] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	start_dispatcher();
	if (getenv("STORM_SCRIPT"))
		return run_all(given);
	for (size_t i = 0; i < COUNT(climates); i++)
		tests[n++] = (struct CMUnitTest){ "all against all", all_against_all, NULL, NULL,
			                          (void *)(uintptr_t)&climates[i] };
	for (size_t i = 0; i < COUNT(scenarios); i++)
		tests[n++] =
		        (struct CMUnitTest){ scenarios[i].name, race, NULL, NULL, (void *)(uintptr_t)&scenarios[i] };
	return harness_run(__FILE__, tests, n, true);
}
