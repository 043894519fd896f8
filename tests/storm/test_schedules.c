/* SPDX-License-Identifier: MIT */
/*
 * The library on a simulated machine (storm/sim.h), where we decide whose turn it is: the known races
 * (storm/scenarios.h) in all their schedules with a few preemptions and then in random ones, and random scripts in
 * random ones. A failure prints the script, shrunk, and every step. It is the same schedules every time.
 *
 *     STORM_SECONDS=n   goes on for so long
 *     STORM_SEED=n      another beginning than the usual one
 *     STORM_SCRIPT=...  plays only this
 */
#include "harness.h"
#include "storm/scenarios.h"
#include "storm/shadow.h"
#include "storm/sim.h"

static struct world world;
static struct script script;

/* ---- The storm on the machine ------------------------------------------------------------------------------------ */

void broken(const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	sim_fail("%s", text);
}

bool shows(int fd)
{
	return sim_shows(fd);
}

void pass_until(int64_t at)
{
	sim_clock_to(at);
}

bool let_dispatch(int tries)
{
	sim_rest();
	return tries < 8;
}

int who(void)
{
	return sim_turn() < SIM_DAEMONS ? sim_turn() : DISPATCHER;
}

void end_thread(void)
{
	sim_end_thread();
}

int watch_edges(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int set = sim_epoll_create1(0);

	sim_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	return set;
}

bool take_edge(int set)
{
	struct epoll_event event;

	return sim_epoll_wait(set, &event, 1, 0) > 0;
}

void forget_edges(int set)
{
	sim_close(set);
}

int refusals(void)
{
	return sim_refusals();
}

static int levers[LEVERS];

int lever_fd(int lever)
{
	return levers[lever];
}

void pull_lever(int lever)
{
	uint64_t one = 1;

	sim_write(levers[lever], &one, sizeof one);
}

static void begin(void *arg)
{
	for (int l = 0; l < LEVERS; l++)
		levers[l] = sim_eventfd(0, 0);
	begin_world(&world, arg);
}

static void play(int t, void *arg)
{
	(void)arg;
	play_list(&world, t);
}

static void end(void *arg)
{
	(void)arg;
	end_world(&world);
	for (int l = 0; l < LEVERS; l++)
		sim_close(levers[l]);
}

static struct sim_program program_of(struct script *s)
{
	return (struct sim_program){ s->threads, begin, play, end, s };
}

/* ---- Telling of a failure ---------------------------------------------------------------------------------------- */

static void check(struct sim_result r, struct script *s, const char *how)
{
	struct sim_program p = program_of(s);
	static char text[16384];

	if (!r.failed)
		return;
	print_script(s, text, sizeof text);
	fprintf(stderr, "# %s\n# after %ld schedules, %s, of\n#   %s\n", r.why, r.schedules, how, text);
	sim_explain(&p);
	fail();
}

static uint64_t seed(void)
{
	const char *s = getenv("STORM_SEED");

	return s ? strtoull(s, NULL, 0) : 1;
}

#define STEPS_PER_SECOND 4500000

/* What has been done so far, in nanoseconds: counted in steps, so that it is the same every time. */
static int64_t work(void)
{
	struct timespec t;

	if (!getenv("STORM_SECONDS"))
		return sim_steps() * CTXFD_SEC / STEPS_PER_SECOND;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * CTXFD_SEC + t.tv_nsec;
}

/* That part of all, in seconds. */
static double seconds(double part)
{
	const char *s = getenv("STORM_SECONDS");

	return (s ? atof(s) : 8.0 / slow()) * part;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static int64_t until;

static bool is_enough(void)
{
	return work() >= until;
}

/* With one preemption more each time, for half of the time; then by lot. */
static void explore(struct script *s, double time)
{
	struct sim_program p = program_of(s);
	int64_t half = (int64_t)(time * 5e8);
	struct chance c = { seed() };
	struct sim_result r = { 0 };
	long n = 0;
	char how[64];

	until = work() + half;
	for (int preemptions = 0; preemptions < 6 && !is_enough(); preemptions++) {
		snprintf(how, sizeof how, "with up to %d preemptions", preemptions);
		r = sim_all(&p, preemptions, is_enough);
		check(r, s, how);
		if (getenv("STORM_TELL"))
			fprintf(stderr, "# %d preemptions: %ld schedules%s\n", preemptions, r.schedules,
			        r.complete ? "" : ", and more");
	}
	for (until = work() + half; !is_enough(); n += r.schedules) {
		r = sim_random(&p, draw(&c), 10);
		check(r, s, "by lot");
	}
	if (getenv("STORM_TELL"))
		fprintf(stderr, "# by lot: %ld schedules\n", n);
}

static void scenario(void **state)
{
	const struct scenario *s = *state;

	set_time_limit(60 + (int)seconds(1));
	assert_true(parse_script(&script, s->script));
	world.bold = true;
	explore(&script, seconds(0.6) / (double)COUNT(scenarios));
}

/* From here the schedules are drawn that showed a failure, and until then it may be shrunk. */
static uint64_t failing;

static bool fails(const struct script *s, void *arg)
{
	static struct script copy;
	struct sim_program p;

	(void)arg;
	copy = *s;
	p = program_of(&copy);
	return !is_enough() && sim_random(&p, failing, 2000).failed;
}

static void shrink_and_tell(struct sim_result r)
{
	struct sim_program p = program_of(&script);

	fprintf(stderr, "# %s\n# shrinking, for half a minute at most\n", r.why);
	until = work() + 30 * CTXFD_SEC;
	shrink_script(&script, fails, NULL);
	p = program_of(&script);
	check(sim_random(&p, failing, 2000), &script, "by lot");
}

static const struct climate climates[] = {
	{ .threads = 2,
	  .setup = 4,
	  .ops = 5,
	  .vars = 8,
	  .hot = 40,
	  .longest = 20,
	  .weight = { [OP_NEW] = 6,
	              [OP_DEADLINE] = 1,
	              [OP_MERGE] = 2,
	              [OP_FREE] = 4,
	              [OP_CANCEL] = 2,
	              [OP_CAUSE] = 3,
	              [OP_FD] = 3,
	              [OP_LOOK] = 4 } },
	{ .threads = 3,
	  .setup = 5,
	  .ops = 5,
	  .vars = 8,
	  .hot = 30,
	  .longest = 20,
	  .weight = { [OP_NEW] = 4,
	              [OP_DEADLINE] = 2,
	              [OP_MERGE] = 2,
	              [OP_FREE] = 4,
	              [OP_CAUSE] = 3,
	              [OP_FD] = 3,
	              [OP_LOOK] = 4,
	              [OP_CLOCK] = 2 } },
	{ .threads = 3,
	  .setup = 6,
	  .ops = 12,
	  .vars = 12,
	  .hot = 20,
	  .longest = 30,
	  .weight = { [OP_NEW] = 6,   [OP_DEADLINE] = 2, [OP_TIMEOUT] = 1, [OP_VALUE] = 2,  [OP_WITHOUT] = 1,
	              [OP_MERGE] = 2, [OP_REF] = 1,      [OP_FREE] = 5,    [OP_CANCEL] = 1, [OP_CAUSE] = 2,
	              [OP_CLOSE] = 2, [OP_FD] = 3,       [OP_LOOK] = 4,    [OP_WAIT] = 2,   [OP_SLEEP] = 1,
	              [OP_POLL] = 1,  [OP_GET] = 1,      [OP_CLOCK] = 1,   [OP_POST] = 2,   [OP_TAKE] = 2 } },
	{ .threads = 3,
	  .setup = 4,
	  .ops = 6,
	  .vars = 6,
	  .hot = 40,
	  .longest = 20,
	  .weight = { [OP_NEW] = 3,
	              [OP_DEADLINE] = 1,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 3,
	              [OP_CAUSE] = 3,
	              [OP_CLOSE] = 1,
	              [OP_LOOK] = 1,
	              [OP_CLOCK] = 1,
	              [OP_AFTER] = 8,
	              [OP_STOP] = 6,
	              [OP_SPLIT] = 1,
	              [OP_WATCH] = 2,
	              [OP_PULL] = 1,
	              [OP_SERVE] = 1 } },
	{ .threads = 3,
	  .setup = 4,
	  .ops = 8,
	  .vars = 8,
	  .hot = 60,
	  .longest = 20,
	  .weight = { [OP_NEW] = 8,
	              [OP_DEADLINE] = 1,
	              [OP_MERGE] = 2,
	              [OP_REF] = 2,
	              [OP_FREE] = 8,
	              [OP_CAUSE] = 2,
	              [OP_CLOSE] = 1,
	              [OP_LOOK] = 2,
	              [OP_FD] = 1,
	              [OP_CLOCK] = 1,
	              [OP_SPLIT] = 4 } },
	/* After-funcs that have something to do. */
	{ .threads = 3,
	  .setup = 4,
	  .ops = 5,
	  .vars = 5,
	  .hot = 50,
	  .longest = 20,
	  .errand = 3,
	  .weight = { [OP_NEW] = 3,
	              [OP_DEADLINE] = 1,
	              [OP_VALUE] = 1,
	              [OP_MERGE] = 1,
	              [OP_REF] = 1,
	              [OP_FREE] = 8,
	              [OP_CAUSE] = 4,
	              [OP_CLOSE] = 3,
	              [OP_CLOCK] = 1,
	              [OP_AFTER] = 8,
	              [OP_STOP] = 4,
	              [OP_TAKE] = 2,
	              [OP_SPLIT] = 2,
	              [OP_QUIT] = 1 } },
	{ .threads = 3,
	  .setup = 5,
	  .ops = 6,
	  .vars = 6,
	  .hot = 40,
	  .longest = 20,
	  .errand = 3,
	  .weight = { [OP_NEW] = 3,
	              [OP_DEADLINE] = 1,
	              [OP_FREE] = 6,
	              [OP_CAUSE] = 4,
	              [OP_CLOSE] = 2,
	              [OP_AFTER] = 8,
	              [OP_STOP] = 4,
	              [OP_TAKE] = 1,
	              [OP_CLOCK] = 1,
	              [OP_WATCH] = 1,
	              [OP_PULL] = 1,
	              [OP_LOOP] = 4,
	              [OP_SERVE] = 3,
	              [OP_EDGE] = 3 } },
	/* Idle timeouts. */
	{ .threads = 3,
	  .setup = 4,
	  .ops = 7,
	  .vars = 6,
	  .hot = 40,
	  .longest = 20,
	  .errand = 2,
	  .weight = { [OP_NEW] = 2,
	              [OP_DEADLINE] = 1,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 3,
	              [OP_CAUSE] = 1,
	              [OP_CLOSE] = 1,
	              [OP_FD] = 1,
	              [OP_LOOK] = 3,
	              [OP_WAIT] = 1,
	              [OP_CLOCK] = 4,
	              [OP_AFTER] = 1,
	              [OP_LOOP] = 2,
	              [OP_SERVE] = 3,
	              [OP_EDGE] = 1,
	              [OP_IDLE] = 6,
	              [OP_TOUCH] = 8 } },
	/* Graces. */
	{ .threads = 3,
	  .setup = 4,
	  .ops = 7,
	  .vars = 6,
	  .hot = 40,
	  .longest = 20,
	  .errand = 2,
	  .weight = { [OP_NEW] = 2,
	              [OP_DEADLINE] = 1,
	              [OP_MERGE] = 1,
	              [OP_FREE] = 3,
	              [OP_CAUSE] = 3,
	              [OP_CLOSE] = 1,
	              [OP_FD] = 1,
	              [OP_LOOK] = 3,
	              [OP_WAIT] = 1,
	              [OP_CLOCK] = 4,
	              [OP_AFTER] = 1,
	              [OP_LOOP] = 2,
	              [OP_SERVE] = 3,
	              [OP_EDGE] = 1,
	              [OP_GRACE] = 8 } },
	/* Graces, idle timeouts and dumps together, on all that they can be below. */
	{ .threads = 3,
	  .setup = 5,
	  .ops = 8,
	  .vars = 8,
	  .hot = 40,
	  .longest = 20,
	  .errand = 3,
	  .weight = { [OP_NEW] = 3,   [OP_DEADLINE] = 2, [OP_VALUE] = 1, [OP_WITHOUT] = 1, [OP_MERGE] = 3,
	              [OP_REF] = 1,   [OP_FREE] = 6,     [OP_CAUSE] = 3, [OP_CLOSE] = 2,   [OP_FD] = 1,
	              [OP_LOOK] = 2,  [OP_WAIT] = 1,     [OP_POLL] = 1,  [OP_CLOCK] = 3,   [OP_POST] = 1,
	              [OP_TAKE] = 1,  [OP_SPLIT] = 2,    [OP_AFTER] = 3, [OP_STOP] = 1,    [OP_LOOP] = 2,
	              [OP_SERVE] = 3, [OP_EDGE] = 2,     [OP_WATCH] = 1, [OP_PULL] = 1,    [OP_TELL] = 4,
	              [OP_IDLE] = 4,  [OP_TOUCH] = 3,    [OP_GRACE] = 6 } },
	{ .threads = 4,
	  .setup = 12,
	  .ops = 40,
	  .vars = 30,
	  .hot = 10,
	  .longest = 100,
	  .weight = { [OP_NEW] = 8,
	              [OP_DEADLINE] = 2,
	              [OP_TIMEOUT] = 1,
	              [OP_VALUE] = 1,
	              [OP_MERGE] = 3,
	              [OP_REF] = 1,
	              [OP_FREE] = 8,
	              [OP_CAUSE] = 3,
	              [OP_CLOSE] = 2,
	              [OP_FD] = 3,
	              [OP_LOOK] = 4,
	              [OP_WAIT] = 1,
	              [OP_SLEEP] = 1,
	              [OP_CLOCK] = 1,
	              [OP_POST] = 3,
	              [OP_TAKE] = 3 } },
};

static void random_scripts(void **state)
{
	const struct climate *climate = *state;
	struct chance c = { seed() };
	struct sim_result r = { 0 };
	long n = 0;

	set_time_limit(120 + (int)seconds(1));
	world.bold = false;
	for (until = work() + (int64_t)(seconds(0.4) / (double)COUNT(climates) * 1e9); !is_enough() && !r.failed;) {
		struct sim_program p = program_of(&script);

		random_script(&script, climate, &c);
		failing = draw(&c);
		r = sim_random(&p, failing, 50);
		n += r.schedules;
	}
	if (getenv("STORM_TELL"))
		fprintf(stderr, "# %ld schedules\n", n);
	if (r.failed)
		shrink_and_tell(r);
}

static void given_script(void **state)
{
	set_time_limit(60 + (int)seconds(1));
	assert_true(parse_script(&script, getenv("STORM_SCRIPT")));
	world.bold = false;
	explore(&script, seconds(1));
}

int main(void)
{
	struct CMUnitTest tests[COUNT(scenarios) + COUNT(climates)];
	static const struct CMUnitTest given[] = { cmocka_unit_test(given_script) };
	const char *variant = getenv("VARIANT");
	size_t n = 0;

	if (variant && strcmp(variant, "plain") != 0 && strcmp(variant, "clang") != 0) {
		puts("it would be the same: the library runs on a machine that checks each of its accesses itself");
		return 77;
	}
	sim_catch_crashes();
	if (getenv("STORM_SCRIPT"))
		return run_all_cold(given);
	for (size_t i = 0; i < COUNT(scenarios); i++)
		tests[n++] = (struct CMUnitTest){ scenarios[i].name, scenario, NULL, NULL,
			                          (void *)(uintptr_t)&scenarios[i] };
	for (size_t i = 0; i < COUNT(climates); i++)
		tests[n++] = (struct CMUnitTest){ "random scripts", random_scripts, NULL, NULL,
			                          (void *)(uintptr_t)&climates[i] };
	return harness_run(__FILE__, tests, n, false);
}
