/* SPDX-License-Identifier: MIT */
/*
 * libevent MILLISECONDS: a context and a dispatcher in a loop of libevent.
 *
 * - The event of a done fd has no EV_PERSIST: the fd stays readable for good, so one event is all there is to hear.
 * - libevent keeps its events by the number of the fd. So the event holds a reference on its context until it is freed;
 *   otherwise the number could go to another context, whose end the loop would never hear of.
 * - The event of a dispatcher has EV_PERSIST. The loop needs one, however many contexts have their after-funcs there,
 *   and needs no evthread_use_pthreads for it.
 */
#include "job.h"

#include <event2/event.h>

struct watches {
	struct event_base *base;
	struct event *input, *dispatcher, *done;
	const struct ctxfd *ctx; /* what done watches */
	struct job *job;
};

static void stop_if_over(struct watches *w)
{
	if (job_is_over(w->job))
		event_base_loopbreak(w->base);
}

static void on_input(evutil_socket_t fd, short events, void *arg)
{
	struct watches *w = arg;

	(void)fd, (void)events;
	job_read(w->job);
	stop_if_over(w);
}

static void on_dispatcher(evutil_socket_t fd, short events, void *arg)
{
	struct watches *w = arg;

	(void)fd, (void)events;
	ctxfd_dispatcher_run(w->job->dispatcher);
	stop_if_over(w);
}

static void on_done(evutil_socket_t fd, short events, void *arg)
{
	struct watches *w = arg;

	(void)fd, (void)events;
	job_done(w->job);
	stop_if_over(w);
}

/* Returns NULL on failure. A negative fd is one: libevent would take it for an event without an fd. */
static struct event *watch(struct watches *w, int fd, short events, event_callback_fn fn)
{
	struct event *event = fd < 0 ? NULL : event_new(w->base, fd, events, fn, w);

	if (event && event_add(event, NULL) < 0) {
		event_free(event);
		return NULL;
	}
	return event;
}

static void unwatch(struct event *event)
{
	if (event)
		event_free(event); /* and takes it out of the loop */
}

static int run(struct job *job)
{
	struct watches w = { .base = event_base_new(), .ctx = ctxfd_ref(job->ctx), .job = job };
	int err = -ENOMEM;

	if (w.base) {
		w.input = watch(&w, 0, EV_READ | EV_PERSIST, on_input);
		w.dispatcher = watch(&w, ctxfd_dispatcher_fd(job->dispatcher), EV_READ | EV_PERSIST, on_dispatcher);
		w.done = watch(&w, ctxfd_done_fd(job->ctx), EV_READ, on_done);
	}
	if (w.input && w.dispatcher && w.done)
		err = event_base_dispatch(w.base) < 0 ? -EIO : job->err;
	unwatch(w.input);
	unwatch(w.dispatcher);
	unwatch(w.done);
	ctxfd_unref(w.ctx);
	if (w.base)
		event_base_free(w.base);
	return err;
}

int main(int argc, char **argv)
{
	return job_main("libevent", argc, argv, run);
}
