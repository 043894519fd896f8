/* SPDX-License-Identifier: MIT */
/*
 * A storm on groups: threads start functions at random, and the functions start others, fail, end their threads, sleep
 * under the group's context, and leave data behind whose destructors take their time; meanwhile the group is cancelled
 * or its deadline passes. Whatever the schedule, no more threads exist than the limit says, a function runs once if go
 * has returned 0 and else never, and wait returns the result that has ended the group, when all threads are gone.
 */
#include "harness.h"

#include "ctxfd_group.h"

#define GOERS  3
#define JOBS   48 /* in one round */
#define FAILED 1000
#define CAUSE  77 /* of a cancel */

struct storm {
	struct ctxfd_group *group;
	const struct ctxfd *ctx; /* the group's, with a reference of ours */
	int limit;
	_Atomic int exist; /* threads, as far as we can see them: to the end of their last destructor */
	_Atomic int begun; /* jobs */
	_Atomic bool over; /* one of the jobs has ended the group */
	struct job {
		struct storm *storm;
		uint64_t random;
		_Atomic int runs, result;
		bool started; /* go has returned 0 */
		bool left_before;
	} job[JOBS];
};

struct goer {
	struct storm *storm;
	uint64_t random;
};

static uint32_t draw(uint64_t *random, uint32_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*random >> 33) % below;
}

/* ---- Threads that take their time -------------------------------------------------------------------------------- */

static pthread_key_t key;

static void leave(void *arg)
{
	struct job *j = arg;

	if (!j->left_before && draw(&j->random, 4) == 0) {
		j->left_before = true;
		require(pthread_setspecific(key, j) == 0); /* calls this once more */
		return;
	}
	if (draw(&j->random, 2))
		pass_time(draw(&j->random, 300) * CTXFD_USEC);
	j->storm->exist--;
}

static void enter(struct job *j)
{
	require(pthread_setspecific(key, j) == 0);
	require(++j->storm->exist <= j->storm->limit);
	require(++j->runs == 1);
	require(!j->storm->over || j->storm->limit != 1); /* else it may have begun before */
}

/* ---- Jobs -------------------------------------------------------------------------------------------------------- */

static void go(struct storm *s, uint64_t *random, bool inside);

/* Noted before the group can know it. */
static int result(struct job *j, int value)
{
	j->result = value;
	j->storm->over = true;
	return value;
}

static int work(const struct ctxfd *ctx, void *arg)
{
	struct job *j = arg;
	uint32_t dice = draw(&j->random, 100);

	enter(j);
	require(ctx == j->storm->ctx);
	if (dice < 40)
		for (uint32_t n = draw(&j->random, 4); n > 0; n--)
			go(j->storm, &j->random, true);
	else if (dice < 70)
		ctxfd_sleep(ctx, draw(&j->random, 200) * CTXFD_USEC);
	dice = draw(&j->random, 100);
	if (dice < 2)
		return result(j, -FAILED - (int)(j - j->storm->job));
	if (dice < 3)
		return result(j, FAILED + (int)(j - j->storm->job));
	if (dice < 4) {
		ctxfd_group_cancel(j->storm->group, CAUSE);
		j->storm->over = true;
	}
	if (dice < 5) {
		result(j, -ECANCELED);
		pthread_exit(NULL);
	}
	if (dice < 6) {
		result(j, -ECANCELED);
		pthread_cancel(pthread_self());
		pthread_testcancel();
	}
	return 0;
}

static void go(struct storm *s, uint64_t *random, bool inside)
{
	int i = s->begun++, ended = ctxfd_err(s->ctx), err;
	struct job *j;

	if (i >= JOBS)
		return;
	j = &s->job[i];
	j->storm = s;
	j->random = *random + (uint64_t)i;
	err = ctxfd_group_go(s->group, work, j);
	j->started = err == 0;
	require(!ended || err == ended);
	if (err == -EDEADLK)
		require(inside && s->limit != INT_MAX);
	else if (err)
		require(err == ctxfd_err(s->ctx));
}

static void *send_all(void *arg)
{
	struct goer *g = arg;

	for (int n = 0; n < JOBS / GOERS; n++) {
		go(g->storm, &g->random, false);
		if (draw(&g->random, 100) == 0)
			ctxfd_group_cancel(g->storm->group, CAUSE);
	}
	return NULL;
}

/* ---- Rounds ------------------------------------------------------------------------------------------------------ */

/* The first result has ended the group, unless something else was faster. */
static void check_result(const struct storm *s, int first)
{
	int cause = ctxfd_cause(s->ctx), results = 0;
	bool found = first == 0;

	for (int i = 0; i < JOBS; i++) {
		const struct job *j = &s->job[i];

		require(j->runs == j->started);
		results += j->result != 0;
		found |= j->result == first;
	}
	require(found && (first == 0) == (results == 0));
	if (cause <= -FAILED)
		require(cause == first);
	else
		require(cause == -ECANCELED || cause == -ETIMEDOUT || cause == CAUSE);
}

static void round_of(unsigned seed)
{
	uint64_t random = seed;
	uint32_t limit = draw(&random, GOERS + 2), dice = draw(&random, 4);
	struct ctxfd *parent = dice ? ctxfd_with_cancel(ctxfd_background())
	                            : ctxfd_with_timeout(ctxfd_background(), draw(&random, 4000) * CTXFD_USEC);
	struct storm s = { .group = ctxfd_group_new(parent, limit), .limit = limit ? (int)limit : INT_MAX };
	struct goer goer[GOERS];
	struct thread *thread[GOERS];

	require(s.group);
	s.ctx = ctxfd_ref(ctxfd_group_ctx(s.group));
	for (unsigned i = 0; i < GOERS; i++) {
		goer[i] = (struct goer){ &s, seed * 1000 + i };
		thread[i] = thread_start(send_all, &goer[i]);
	}
	if (dice == 1) {
		pass_time(draw(&random, 2000) * CTXFD_USEC);
		ctxfd_cancel(parent);
	}
	for (int i = 0; i < GOERS; i++)
		thread_join(thread[i]);
	check_result(&s, ctxfd_group_wait(s.group));
	require(s.exist == 0);
	ctxfd_unref(s.ctx);
	ctxfd_close(parent);
}

static void each_runs_once_within_the_limit(void **state)
{
	int n = rounds(600);

	(void)state;
	for (int i = 0; i < n; i++)
		round_of((unsigned)i);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_runs_once_within_the_limit),
	};

	require(pthread_key_create(&key, leave) == 0);
	return run_all(tests);
}
