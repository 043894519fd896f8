/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_run: its caller's thread starts the process, waits for it, stops it and reaps it. pthread_cancel acts in
 * ctxfd_waitid, and nowhere else. No locks, no state.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "core/thread_cancel.h"
#include "run/process.h"

/* The status is left there until the process's group has been signalled: until then its number is nobody else's. */
static void stop_and_reap(void *arg)
{
	struct child *c = arg;

	ctxfdi_child_stop(c);
	ctxfdi_child_reap(c, NULL);
}

/* 0 when it has ended by itself, else err or -errno. */
static int await(const struct ctxfd *ctx, struct child *c)
{
	int err;

	pthread_cleanup_push(stop_and_reap, c);
	err = ctxfd_waitid(ctx, c->pidfd, NULL, WEXITED | WNOWAIT);
	pthread_cleanup_pop(false);
	return err;
}

int ctxfd_run(const struct ctxfd *ctx, const struct ctxfd_command *command, int *status)
{
	struct thread_cancel before;
	struct child c;
	int err, waited;

	pthread_testcancel();
	before = thread_cancel_off();
	err = ctxfdi_child_start(ctx, command, &c);
	thread_cancel_restore(before);
	if (err)
		return err;
	waited = await(ctx, &c);
	before = thread_cancel_off();
	if (waited && waited != -ECHILD)
		ctxfdi_child_stop(&c);
	else if (c.group && ctxfd_err(ctx)) /* the command may have heard of the end by itself */
		ctxfdi_child_signal(&c, SIGKILL);
	err = ctxfdi_child_reap(&c, status);
	thread_cancel_restore(before);
	return !err && waited && !ctxfd_err(ctx) ? waited : err;
}
