/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_spawn: what stops the process at its context's end when nobody waits for it.
 *
 * A watch is made of contexts and after-funcs, which all have ctx's dispatcher. It runs one function at a time, so a
 * watch needs no lock:
 *
 *   ctx ends         begin_stop: stop_signal. `grace`, below `exited`, begins.
 *   grace ends       kill_now: SIGKILL. By its timeout; or because the process has ended, and then it is for the group.
 *   exited ends      finish: the process has ended. The watch is freed.
 *
 * The watch has a pidfd of its own, since the caller may close the other. It has no say in when the process is reaped.
 *
 * FORK. The child's copies of the contexts end, too, and call the functions there. They leave the process alone, and
 * the fds, whose numbers the child may have given to others.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "core/context.h"
#include "core/thread_cancel.h"
#include "run/process.h"

struct watch {
	struct child child;
	const struct ctxfd *ctx; /* which `exited` keeps alive; fixed */
	bool stopping;
	struct ctxfd *exited;
	struct ctxfd *grace; /* NULL: not yet */
	struct ctxfd_after *at_end, *at_grace;
};

static bool is_foreign(const struct watch *w)
{
	return ctxfdi_child_is_foreign(&w->child);
}

static void kill_now(void *arg)
{
	struct watch *w = arg;

	if (!is_foreign(w))
		ctxfdi_child_signal(&w->child, SIGKILL);
}

static void begin_stop(void *arg)
{
	struct watch *w = arg;

	if (is_foreign(w))
		return;
	w->stopping = true;
	ctxfdi_child_ask(&w->child);
	if (w->child.stop_signal == SIGKILL)
		return;
	w->grace = ctxfd_with_timeout(w->exited, w->child.grace);
	if (!w->grace || ctxfd_after_func(w->grace, kill_now, w, &w->at_grace) != 0)
		kill_now(w);
}

/* A watch may be half made. When this returns, none of its functions runs any more, except the one that calls this. */
static void free_watch(struct watch *w)
{
	ctxfd_after_stop(w->at_end);
	ctxfd_after_stop(w->at_grace);
	ctxfd_close(w->grace);
	ctxfd_unref(w->exited);
	if (!is_foreign(w)) {
		ctxfdi_end_passed(w->child.pipe);
		if (w->child.pidfd >= 0)
			close(w->child.pidfd);
	}
	free(w);
}

static void finish(void *arg)
{
	struct watch *w = arg;

	if (w->child.group && (w->stopping || ctxfd_err(w->ctx)))
		kill_now(w);
	free_watch(w);
}

static struct ctxfd *with_exit(const struct ctxfd *ctx, int pidfd)
{
	const struct ctxfd *home = ctxfd_without_cancel(ctx); /* has the same dispatcher */
	struct ctxfd *exited = home ? ctxfd_with_process(home, pidfd, 0) : NULL;

	ctxfd_unref(home);
	return exited;
}

/* Until the last of it succeeds the watch is ours to free; then it is finish's. 0 or -errno. */
static int begin_watch(const struct ctxfd *ctx, struct watch *w)
{
	int err;

	w->child.pidfd = fcntl(w->child.pidfd, F_DUPFD_CLOEXEC, 3);
	if (w->child.pidfd < 0)
		return -errno;
	w->exited = with_exit(ctx, w->child.pidfd);
	if (!w->exited)
		return -errno;
	err = ctxfd_after_func(ctx, begin_stop, w, &w->at_end);
	return err ? err : ctxfd_after_func(w->exited, finish, w, NULL);
}

/* 0 or -errno. What is passed on is the watch's from here on. */
static int watch(const struct ctxfd *ctx, struct child *c)
{
	struct watch *w = malloc_quietly(sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	*w = (struct watch){ .child = *c, .ctx = ctx };
	c->pipe[0] = c->pipe[1] = -1;
	err = begin_watch(ctx, w);
	if (err)
		free_watch(w);
	return err;
}

int ctxfd_spawn(const struct ctxfd *ctx, const struct ctxfd_command *command, pid_t *pid)
{
	struct thread_cancel before = thread_cancel_off();
	struct child c;
	int err = ctxfdi_child_start(ctx, command, &c);

	if (!err && (c.pipe[1] >= 0 || !has_flag(node_of(ctx), CTX_NEVER))) {
		err = watch(ctx, &c);
		if (err)
			ctxfdi_child_kill(&c);
	}
	thread_cancel_restore(before);
	if (err)
		return err;
	if (pid)
		*pid = c.pid;
	return c.pidfd;
}
