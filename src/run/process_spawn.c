/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_spawn: what stops the process at its context's end when nobody waits for it.
 *
 * A watch is made of contexts and after-funcs, which all have ctx's dispatcher. It runs one function at a time, so a
 * watch needs no lock:
 *
 *   ctx ends         begin_stop: stop_signal. `stop` is cancelled, and `grace` begins.
 *   grace ends       kill_now: SIGKILL.
 *   exited ends      finish: the process has ended. The watch is freed.
 *
 * The watch has a pidfd of its own, since the caller may close the other. It has no say in when the process is reaped.
 *
 * These functions run on the library's thread, which the program does not see, also while another thread forks. So what
 * they do in the tree they do inside (dispatcher.h), where a fork waits for them and they may not allocate or free
 * memory: what they need is made with the watch, and what is to be freed is freed afterwards.
 *
 * FORK. The child's copies of the contexts end, too, and call the functions there. They leave the process alone, and
 * the fds, whose numbers the child may have given to others.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "core/cancel.h"
#include "core/look.h"
#include "core/own.h"
#include "core/thread_cancel.h"
#include "dispatch/after.h"
#include "dispatch/library.h"
#include "run/process.h"

struct watch {
	struct child child;
	const struct ctxfd *ctx;             /* which `exited` keeps alive; fixed */
	struct ctxfd_dispatcher *dispatcher; /* ctx's */
	bool stopping;
	struct ctxfd *exited;
	struct ctxfd *stop, *grace; /* NULL: not made yet, or stop_signal is SIGKILL */
	struct ctxfd_after *at_end, *at_grace;
};

static bool is_foreign(const struct watch *w)
{
	return ctxfdi_child_is_foreign(&w->child);
}

/* In a function of a watch. Until go_out no memory is allocated or freed, and nothing is waited for. */
static void go_inside(const struct watch *w)
{
	dispatcher_lock(w->dispatcher);
	ctxfdi_dispatcher_step_out(w->dispatcher);
}

static void go_out(const struct watch *w, struct ctxfd *garbage)
{
	ctxfdi_dispatcher_step_in(w->dispatcher);
	dispatcher_unlock(w->dispatcher);
	ctxfdi_discard(garbage);
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
	struct ctxfd *garbage;

	if (is_foreign(w))
		return;
	w->stopping = true;
	ctxfdi_child_ask(&w->child);
	if (!w->stop)
		return;
	go_inside(w);
	garbage = ctxfdi_cancel(w->stop, 0);
	go_out(w, garbage);
}

/* Takes what belongs to the watch out of the tree. Its functions run on this thread, or not any more. */
static struct ctxfd *detach_all(struct watch *w)
{
	struct ctxfd *garbage = NULL;

	ctxfdi_after_take_back(w->at_end, &garbage);
	ctxfdi_after_take_back(w->at_grace, &garbage);
	ctxfdi_give_up(w->grace, &garbage);
	ctxfdi_give_up(w->stop, &garbage);
	ctxfdi_give_up(w->exited, &garbage);
	return garbage;
}

static void free_watch(struct watch *w)
{
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
	struct ctxfd *garbage;
	bool ended_late;

	go_inside(w);
	/* Inside, too: a look may have to make the done fd readable, under a lock of done.c. */
	ended_late = w->stopping || ctxfdi_look(node_of(w->ctx)) & CTX_DONE;
	garbage = detach_all(w);
	go_out(w, garbage);
	if (w->child.group && ended_late)
		kill_now(w);
	free_watch(w);
}

/* False: errno says why. */
static bool make_contexts(struct watch *w)
{
	const struct ctxfd *home = ctxfd_without_cancel(w->ctx); /* has the same dispatcher */
	bool gentle = w->child.stop_signal != SIGKILL;

	if (home)
		w->exited = ctxfd_with_process(home, w->child.pidfd, 0);
	if (w->exited && gentle)
		w->stop = ctxfd_with_cancel(home);
	if (w->stop)
		w->grace = ctxfd_with_grace(w->stop, w->child.grace, 0);
	ctxfd_unref(home);
	return gentle ? w->grace : w->exited;
}

/* Until the last of it succeeds the watch is ours to free; then it is finish's. 0 or -errno. */
static int begin_watch(struct watch *w)
{
	int err;

	w->child.pidfd = fcntl(w->child.pidfd, F_DUPFD_CLOEXEC, 3);
	if (w->child.pidfd < 0 || !make_contexts(w))
		return -errno;
	err = dispatcher_of(w->ctx, &w->dispatcher); /* 0: it runs already, for `exited` */
	claim(!err);
	if (w->grace)
		err = ctxfd_after_func(w->grace, kill_now, w, &w->at_grace);
	if (!err)
		err = ctxfd_after_func(w->ctx, begin_stop, w, &w->at_end);
	return err ? err : ctxfd_after_func(w->exited, finish, w, NULL);
}

/* Not the watch of a process that has ended: a watch that is half made. */
static void abandon(struct watch *w)
{
	ctxfd_after_stop(w->at_end);
	ctxfd_after_stop(w->at_grace);
	w->at_end = w->at_grace = NULL;
	ctxfdi_discard(detach_all(w));
	free_watch(w);
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
	err = begin_watch(w);
	if (err)
		abandon(w);
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
