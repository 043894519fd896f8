/* SPDX-License-Identifier: MIT */
/* Which schedules are played: all in order, by lot, or the last one again. See sim.h. */
#include "sim.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define MOST_CHOICES 65536

/* ---- Choices ----------------------------------------------------------------------------------------------------- */

static struct choice {
	uint8_t taken, of;
} choices[MOST_CHOICES];

static int made, known;    /* choices made in this schedule, and how many of them are given */
static bool by_lot, again; /* else all in order; the one that was played last */
static int bound, preemptions_left, switchiness;
static int refuses; /* one of so many requests; 0: none */
static int refusals;
static uint64_t seed, choice_lots,
        chance_lots; /* apart, so that a schedule that is played again has the same chances */
static bool explaining;
static char why[SIM_WHY];

static int lot(uint64_t *lots, int n)
{
	*lots = *lots * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (int)((uint32_t)(*lots >> 33) % (uint32_t)n);
}

bool sim_chance(int n)
{
	return by_lot && sim_running() && lot(&chance_lots, n) == 0;
}

bool sim_refuses(void)
{
	return refuses && sim_chance(refuses);
}

void sim_refused(const char *what)
{
	refusals++;
	if (explaining)
		sim_tell("is refused %s", what);
}

int sim_refusals(void)
{
	return refusals;
}

bool sim_explaining(void)
{
	return explaining;
}

bool sim_may_preempt(void)
{
	return preemptions_left > 0;
}

void sim_preempted(void)
{
	preemptions_left--;
}

/* One of n. The first is what happens when nothing is forced. */
int sim_choose(int n, bool rarely)
{
	struct choice *c = &choices[made];

	if (n < 2)
		return 0;
	if (made == MOST_CHOICES)
		sim_fail("too many choices");
	if (made++ < known)
		return c->taken < n ? c->taken : 0;
	c->of = (uint8_t)n;
	c->taken = 0;
	if (by_lot && !again && !(rarely && lot(&choice_lots, switchiness)))
		c->taken = (uint8_t)lot(&choice_lots, n);
	return c->taken;
}

/* The next schedule, in order. False: that was the last. */
static bool advance(void)
{
	while (made > 0 && choices[made - 1].taken + 1 >= choices[made - 1].of)
		made--;
	if (made == 0)
		return false;
	choices[made - 1].taken++;
	known = made;
	return true;
}

/* ---- Playing ----------------------------------------------------------------------------------------------------- */

static bool play(const struct sim_program *p)
{
	made = refusals = 0;
	preemptions_left = bound;
	chance_lots = ~seed;
	*why = 0;
	return sim_play(p, why);
}

static struct sim_result result(long schedules, bool complete)
{
	struct sim_result r = { .schedules = schedules, .complete = complete, .failed = *why != 0 };

	memcpy(r.why, why, sizeof r.why);
	return r;
}

struct sim_result sim_all(const struct sim_program *p, int preemptions, bool (*enough)(void))
{
	long n = 0;

	by_lot = again = false;
	bound = preemptions;
	known = 0;
	do {
		n++;
		if (!play(p) || enough())
			return result(n, false);
	} while (advance());
	return result(n, true);
}

struct sim_result sim_random(const struct sim_program *p, uint64_t first, long schedules)
{
	static const int how_often[] = { 2, 4, 8, 16, 64 };
	long n = 0;

	by_lot = true;
	again = false;
	bound = INT_MAX;
	known = 0;
	while (n < schedules) {
		seed = choice_lots = first + (uint64_t)n * UINT64_C(0x9e3779b97f4a7c15);
		switchiness = how_often[lot(&choice_lots, 5)];
		refuses = lot(&choice_lots, 4) ? 0 : how_often[lot(&choice_lots, 5)];
		n++;
		if (!play(p))
			break;
	}
	return result(n, false);
}

void sim_explain(const struct sim_program *p)
{
	struct sim_result r;

	known = made;
	again = explaining = true;
	play(p);
	explaining = false;
	r = result(1, false);
	fprintf(stderr, "  %s\n", r.failed ? r.why : "(this time it did not fail)");
}
