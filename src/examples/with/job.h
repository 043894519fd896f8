/* SPDX-License-Identifier: MIT */
/*
 * What the programs with a loop share. A job waits for a line on standard input, unless its context ends first. The end
 * is told twice: by the done fd, which the loop watches, and by an after-func, which the dispatcher runs on the loop's
 * thread.
 */
#ifndef JOB_H
#define JOB_H

#include "command.h"

#include <pthread.h>
#include <unistd.h>

struct job {
	struct ctxfd_dispatcher *dispatcher;
	struct ctxfd *ctx;
	struct ctxfd_after *after;
	pthread_t loop;
	bool finished, done, called;
	int err;
};

/* Runs on the loop's thread, inside ctxfd_dispatcher_run. */
static inline void job_called(void *arg)
{
	struct job *job = arg;

	job->called = true;
	printf("after-func: %s, on %s thread\n", ctxfd_strerror(ctxfd_err(job->ctx)),
	       pthread_equal(pthread_self(), job->loop) ? "the loop's" : "another");
}

/* To be called when the done fd has become readable. */
static inline void job_done(struct job *job)
{
	job->done = true;
	job->err = ctxfd_err(job->ctx);
	printf("done fd: %s\n", ctxfd_strerror(job->err));
}

/* To be called when standard input is readable. */
static inline void job_read(struct job *job)
{
	char line[64];
	ssize_t n = read(0, line, sizeof(line));

	job->finished = true;
	job->err = n < 0 ? -errno : 0;
	if (n > 0)
		printf("line: %.*s", (int)n, line);
}

/* Whether the loop may stop. */
static inline bool job_is_over(const struct job *job)
{
	return job->finished || (job->done && job->called);
}

/* Makes a context below that of the command, whose callbacks come to this thread's loop. Returns 0 or -errno. */
static inline int job_open(struct job *job, const char *milliseconds)
{
	struct ctxfd *command = command_context(milliseconds);
	const struct ctxfd *here;
	int err;

	*job = (struct job){ .loop = pthread_self(), .dispatcher = ctxfd_dispatcher_new() };
	here = job->dispatcher ? ctxfd_with_dispatcher(command, job->dispatcher) : NULL;
	job->ctx = here ? ctxfd_with_cancel(here) : NULL;
	err = job->ctx ? ctxfd_after_func(job->ctx, job_called, job, &job->after) : -errno;
	ctxfd_unref(here);
	ctxfd_unref(command);
	return err;
}

/* The whole command, with a function that runs the loop until the job is over. Returns the exit code. */
static inline int job_main(const char *name, int argc, char **argv, int (*run)(struct job *))
{
	struct job job;
	int err = job_open(&job, argc > 1 ? argv[1] : "10000");

	if (!err)
		err = run(&job);
	ctxfd_after_stop(job.after);
	ctxfd_close(job.ctx);
	ctxfd_dispatcher_free(job.dispatcher);
	return command_end(name, err);
}

#endif
