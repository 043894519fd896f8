/* SPDX-License-Identifier: MIT */
/*
 * libev MILLISECONDS: a context and a dispatcher in a loop of libev.
 *
 * - The done fd stays readable for good, so call ev_io_stop when its watcher has fired, or it fires for ever.
 * - The watcher holds a reference on its context until after ev_io_stop. libev takes the fd out of its epoll set only
 *   in its next round, but finds out by itself if the number has gone to another file by then.
 * - A loop needs one watcher for its dispatcher, however many contexts have their after-funcs there. It needs no
 *   ev_async.
 */
#include "job.h"

#include <ev.h>

struct watches {
	ev_io input, dispatcher, done;
	const struct ctxfd *ctx; /* what done watches */
	struct job *job;
};

/* Gives up the context once nothing watches its fd. */
static void unwatch_done(struct ev_loop *loop, struct watches *w)
{
	ev_io_stop(loop, &w->done);
	ctxfd_unref(w->ctx);
	w->ctx = NULL;
}

static void on_ready(struct ev_loop *loop, ev_io *watcher, int events)
{
	struct watches *w = watcher->data;

	(void)events;
	if (watcher == &w->input)
		job_read(w->job);
	if (watcher == &w->dispatcher)
		ctxfd_dispatcher_run(w->job->dispatcher);
	if (watcher == &w->done) {
		job_done(w->job);
		unwatch_done(loop, w);
	}
	if (job_is_over(w->job))
		ev_break(loop, EVBREAK_ALL);
}

static void watch(struct ev_loop *loop, ev_io *watcher, int fd, struct watches *w)
{
	ev_init(watcher, on_ready);
	ev_io_set(watcher, fd, EV_READ);
	watcher->data = w;
	ev_io_start(loop, watcher);
}

static int run(struct job *job)
{
	struct watches w = { .job = job };
	int dispatcher = ctxfd_dispatcher_fd(job->dispatcher), done = ctxfd_done_fd(job->ctx);
	struct ev_loop *loop;

	if (dispatcher < 0 || done < 0) /* libev aborts at a negative fd */
		return dispatcher < 0 ? dispatcher : done;
	loop = ev_loop_new(EVFLAG_AUTO);
	if (!loop)
		return -ENOMEM;
	w.ctx = ctxfd_ref(job->ctx);
	watch(loop, &w.input, 0, &w);
	watch(loop, &w.dispatcher, dispatcher, &w);
	watch(loop, &w.done, done, &w);
	ev_run(loop, 0);
	ev_io_stop(loop, &w.input);
	ev_io_stop(loop, &w.dispatcher);
	unwatch_done(loop, &w);
	ev_loop_destroy(loop);
	return job->err;
}

int main(int argc, char **argv)
{
	return job_main("libev", argc, argv, run);
}
