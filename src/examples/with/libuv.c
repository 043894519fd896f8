/* SPDX-License-Identifier: MIT */
/*
 * libuv MILLISECONDS: a context and a dispatcher in a loop of libuv.
 *
 * - A uv_poll_t watches an fd. The done fd stays readable for good, so stop the watch when it has fired, or it fires
 *   for ever.
 * - The watch holds a reference on its context until after uv_poll_stop. That is enough: libuv has then let go of the
 *   fd, though the memory of the uv_poll_t is libuv's until the callback of uv_close.
 * - A loop needs one watch for its dispatcher, however many contexts have their after-funcs there. It needs no
 *   uv_async_t.
 */
#include "job.h"

#include <uv.h>

struct watches {
	uv_poll_t input, dispatcher, done;
	const struct ctxfd *ctx; /* what done watches */
	struct job *job;
};

/* Gives up the context once nothing watches its fd. */
static void unwatch_done(struct watches *w)
{
	uv_poll_stop(&w->done);
	ctxfd_unref(w->ctx);
	w->ctx = NULL;
}

static void on_ready(uv_poll_t *handle, int status, int events)
{
	struct watches *w = handle->data;

	(void)events;
	if (status < 0)
		fprintf(stderr, "libuv: %s\n", uv_strerror(status));
	if (handle == &w->input)
		job_read(w->job);
	if (handle == &w->dispatcher)
		ctxfd_dispatcher_run(w->job->dispatcher);
	if (handle == &w->done) {
		job_done(w->job);
		unwatch_done(w);
	}
	if (job_is_over(w->job))
		uv_stop(handle->loop);
}

/*
 * fd may be -errno, from ctxfd_done_fd or ctxfd_dispatcher_fd, which is an error of libuv's too. Returns 0 or -errno.
 */
static int watch(uv_loop_t *loop, uv_poll_t *handle, int fd, struct watches *w)
{
	int err = fd < 0 ? fd : uv_poll_init(loop, handle, fd);

	if (err)
		return err;
	handle->data = w;
	return uv_poll_start(handle, UV_READABLE, on_ready);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	(void)arg;
	uv_close(handle, NULL);
}

static int run(struct job *job)
{
	struct watches w = { .ctx = ctxfd_ref(job->ctx), .job = job };
	uv_loop_t loop;
	int err = uv_loop_init(&loop);

	if (err) {
		ctxfd_unref(w.ctx);
		return err;
	}
	err = watch(&loop, &w.input, 0, &w);
	if (!err)
		err = watch(&loop, &w.dispatcher, ctxfd_dispatcher_fd(job->dispatcher), &w);
	if (!err)
		err = watch(&loop, &w.done, ctxfd_done_fd(job->ctx), &w);
	if (!err)
		uv_run(&loop, UV_RUN_DEFAULT);
	uv_walk(&loop, close_handle, NULL); /* stops what still watches */
	ctxfd_unref(w.ctx);
	uv_run(&loop, UV_RUN_DEFAULT); /* until the handles are closed */
	uv_loop_close(&loop);
	return err ? err : job->err;
}

int main(int argc, char **argv)
{
	return job_main("libuv", argc, argv, run);
}
