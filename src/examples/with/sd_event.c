/* SPDX-License-Identifier: MIT */
/*
 * sd_event MILLISECONDS: a context and a dispatcher in an sd-event loop.
 *
 * - The source of a done fd is SD_EVENT_ONESHOT: the fd stays readable for good, so one event is all there is to hear.
 * - The source holds a reference on its context. Its destroy callback gives it up, and with it the fd, when sd-event
 *   has let go of it. The fd itself is the context's: no sd_event_source_set_io_fd_own.
 * - A loop needs one source for its dispatcher, however many contexts have their after-funcs there.
 */
#include "job.h"

#include <sys/epoll.h>
#include <systemd/sd-event.h>

static int stop_if_over(sd_event_source *source, const struct job *job)
{
	return job_is_over(job) ? sd_event_exit(sd_event_source_get_event(source), 0) : 0;
}

static int on_input(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	(void)fd, (void)events;
	job_read(arg);
	return stop_if_over(source, arg);
}

static int on_dispatcher(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct job *job = arg;

	(void)fd, (void)events;
	ctxfd_dispatcher_run(job->dispatcher);
	return stop_if_over(source, job);
}

static int on_done(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	(void)fd, (void)events;
	job_done(arg);
	return stop_if_over(source, arg);
}

static void give_up(void *arg)
{
	struct job *job = arg;

	ctxfd_unref(job->ctx); /* the source's reference: the job has its own */
}

/* Returns 0 or -errno. */
static int watch_done(sd_event *loop, sd_event_source **source, struct job *job)
{
	int fd = ctxfd_done_fd(job->ctx), err = fd < 0 ? fd : 0;

	if (!err)
		err = sd_event_add_io(loop, source, fd, EPOLLIN, on_done, job);
	if (err < 0)
		return err;
	ctxfd_ref(job->ctx);
	err = sd_event_source_set_destroy_callback(*source, give_up);
	if (err < 0)
		ctxfd_unref(job->ctx);
	else
		err = sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
	return err < 0 ? err : 0;
}

static int run(struct job *job)
{
	sd_event_source *input = NULL, *dispatcher = NULL, *done = NULL;
	sd_event *loop = NULL;
	int err = sd_event_new(&loop), fd = ctxfd_dispatcher_fd(job->dispatcher);

	if (err >= 0)
		err = sd_event_add_io(loop, &input, 0, EPOLLIN, on_input, job);
	if (err >= 0)
		err = fd < 0 ? fd : sd_event_add_io(loop, &dispatcher, fd, EPOLLIN, on_dispatcher, job);
	if (err >= 0)
		err = watch_done(loop, &done, job);
	if (err >= 0)
		err = sd_event_loop(loop);
	sd_event_source_disable_unref(input);
	sd_event_source_disable_unref(dispatcher);
	sd_event_source_disable_unref(done);
	sd_event_unref(loop);
	return err < 0 ? err : job->err;
}

int main(int argc, char **argv)
{
	return job_main("sd_event", argc, argv, run);
}
