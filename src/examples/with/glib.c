/* SPDX-License-Identifier: MIT */
/*
 * glib MILLISECONDS: a context and a dispatcher in a main loop of GLib. GTK and GIO run on the same.
 *
 * - g_unix_fd_source_new watches an fd. The done fd stays readable for good, so its callback returns G_SOURCE_REMOVE.
 * - The source holds a reference on its context, and gives it up in its GDestroyNotify, which runs when the source has
 *   been removed.
 * - A loop needs one source for its dispatcher, however many contexts have their after-funcs there. Its callback
 *   returns G_SOURCE_CONTINUE.
 */
#include "job.h"

#include <glib-unix.h>

/* What on_done watches. */
struct watch {
	const struct ctxfd *ctx;
	GMainLoop *loop;
	struct job *job;
};

static void stop_if_over(const struct watch *w)
{
	if (job_is_over(w->job))
		g_main_loop_quit(w->loop);
}

static gboolean on_input(gint fd, GIOCondition condition, gpointer arg)
{
	struct watch *w = arg;

	(void)fd, (void)condition;
	job_read(w->job);
	stop_if_over(w);
	return G_SOURCE_REMOVE;
}

static gboolean on_dispatcher(gint fd, GIOCondition condition, gpointer arg)
{
	struct watch *w = arg;

	(void)fd, (void)condition;
	ctxfd_dispatcher_run(w->job->dispatcher);
	stop_if_over(w);
	return G_SOURCE_CONTINUE;
}

static gboolean on_done(gint fd, GIOCondition condition, gpointer arg)
{
	struct watch *w = arg;

	(void)fd, (void)condition;
	job_done(w->job);
	stop_if_over(w);
	return G_SOURCE_REMOVE;
}

static void watch_free(gpointer arg)
{
	struct watch *w = arg;

	ctxfd_unref(w->ctx);
	g_free(w);
}

/* Each source has a watch of its own, and with it a reference. Returns 0, or -errno: fd may be that already. */
static int watch(GMainLoop *loop, struct job *job, int fd, GUnixFDSourceFunc fn)
{
	struct watch *w;
	GSource *source;

	if (fd < 0)
		return fd;
	w = g_new(struct watch, 1);
	*w = (struct watch){ .ctx = ctxfd_ref(job->ctx), .loop = loop, .job = job };
	source = g_unix_fd_source_new(fd, G_IO_IN | G_IO_HUP);
	g_source_set_callback(source, G_SOURCE_FUNC(fn), w, watch_free);
	g_source_attach(source, g_main_loop_get_context(loop));
	g_source_unref(source);
	return 0;
}

static int run(struct job *job)
{
	GMainContext *sources = g_main_context_new();
	GMainLoop *loop = g_main_loop_new(sources, FALSE);
	int err = watch(loop, job, 0, on_input);

	if (!err)
		err = watch(loop, job, ctxfd_dispatcher_fd(job->dispatcher), on_dispatcher);
	if (!err)
		err = watch(loop, job, ctxfd_done_fd(job->ctx), on_done);
	if (!err)
		g_main_loop_run(loop);
	g_main_loop_unref(loop);
	g_main_context_unref(sources); /* removes the sources */
	return err ? err : job->err;
}

int main(int argc, char **argv)
{
	return job_main("glib", argc, argv, run);
}
