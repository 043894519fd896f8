/* SPDX-License-Identifier: MIT */
/*
 * deadline: a job of several steps has one deadline, and the steps share the time that is left.
 *
 * A step may set a limit of its own. If that is later than the job's deadline, the job's deadline stays in effect.
 *
 * Output:
 *     connect: done
 *     query: it took too long
 *     answer: the job is out of time
 */
#include <ctxfd.h>

#include <errno.h>
#include <stdio.h>

/* The program's own causes: negative numbers that are not errnos of the system. */
enum { JOB_TOO_LATE = -10000, STEP_TOO_LATE };

/* Returns 0 if the step has finished or run out of time, otherwise -errno. */
static int step(const struct ctxfd *job, const char *name, int64_t takes, int64_t limit)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout_cause(job, limit, STEP_TOO_LATE);

	if (!ctx)
		return -errno;
	if (ctxfd_sleep(ctx, takes) == 0)
		printf("%s: done\n", name);
	else if (ctxfd_cause(ctx) == STEP_TOO_LATE)
		printf("%s: it took too long\n", name);
	else if (ctxfd_cause(ctx) == JOB_TOO_LATE)
		printf("%s: the job is out of time\n", name);
	else
		return ctxfd_err(ctx);
	return 0;
}

int main(void)
{
	int64_t deadline = ctxfd_now() + CTXFD_SEC;
	CTXFD_SCOPED struct ctxfd *job = ctxfd_with_deadline_cause(ctxfd_background(), deadline, JOB_TOO_LATE);
	int err = job ? step(job, "connect", 1 * CTXFD_MSEC, 10 * CTXFD_SEC) : -errno;

	if (!err)
		err = step(job, "query", 3600 * CTXFD_SEC, 50 * CTXFD_MSEC);
	if (!err)
		err = step(job, "answer", 3600 * CTXFD_SEC, 10 * CTXFD_SEC);
	if (err)
		fprintf(stderr, "deadline: %s\n", ctxfd_strerror(err));
	return err ? 1 : 0;
}
