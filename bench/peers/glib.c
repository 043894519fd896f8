/* SPDX-License-Identifier: MIT */
/*
 * GLib's GCancellable. It has no tree: a child is connected to its parent's signal, as g_cancellable_connect is meant
 * for.
 */
#include "bench.h"

#include <gio/gio.h>
#include <malloc.h>
#include <poll.h>
#include <unistd.h>

struct child {
	GCancellable *parent, *own;
	gulong id;
};

static void stop_child(GCancellable *parent, gpointer own)
{
	(void)parent;
	g_cancellable_cancel(own);
}

static struct child child(GCancellable *parent)
{
	struct child c = { parent, g_cancellable_new(), 0 };

	c.id = g_cancellable_connect(parent, G_CALLBACK(stop_child), c.own, NULL);
	return c;
}

static void drop(struct child c)
{
	g_cancellable_disconnect(c.parent, c.id);
	g_object_unref(c.own);
}

static void make(struct bench *b, bool fd)
{
	GCancellable *parent = g_cancellable_new();

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			struct child c = child(parent);

			if (fd)
				bench_use(g_cancellable_get_fd(c.own));
			g_cancellable_cancel(c.own);
			if (fd)
				g_cancellable_release_fd(c.own);
			drop(c);
		}
		bench_stop(b, b->n);
		struct child c = child(parent);

		bench_check(!g_cancellable_is_cancelled(c.own));
		g_cancellable_cancel(c.own);
		bench_check(g_cancellable_is_cancelled(c.own) && !g_cancellable_is_cancelled(parent));
		drop(c);
	}
	g_object_unref(parent);
}

static void make_plain(struct bench *b)
{
	make(b, false);
}
BENCH("glib", "make/plain", make_plain)
BENCH("glib", "make/apart", make_plain)

static void make_plain_fd(struct bench *b)
{
	make(b, true);
}
BENCH("glib", "make/plain+fd", make_plain_fd)

static void err(struct bench *b, bool cancelled)
{
	GCancellable *c = g_cancellable_new();

	if (cancelled)
		g_cancellable_cancel(c);
	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			wrong |= g_cancellable_is_cancelled(c) != cancelled;
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
	g_object_unref(c);
}

static void err_live(struct bench *b)
{
	err(b, false);
}
BENCH("glib", "err/live", err_live)

static void err_done(struct bench *b)
{
	err(b, true);
}
BENCH("glib", "err/done", err_done)
BENCH("glib", "go/check-canceled-err", err_done)

static void ask_in_thread(void *c, int thread, long n)
{
	(void)thread;
	for (long i = 0; i < n; i++)
		bench_use(g_cancellable_is_cancelled(c));
}

static void err_all(struct bench *b)
{
	GCancellable *c = g_cancellable_new();

	bench_parallel(b, (int)sysconf(_SC_NPROCESSORS_ONLN), ask_in_thread, c);
	g_object_unref(c);
}
BENCH("glib", "err-all-cpus/live", err_all)

#define NODES 2000

static void children(struct bench *b)
{
	long count = b->smoke || b->arg >= NODES ? 1 : NODES / b->arg, n = count * b->arg;
	GCancellable **roots = calloc((size_t)count, sizeof(GCancellable *));
	struct child *all = calloc((size_t)n, sizeof(*all));

	bench_check(roots && all);
	while (bench_more(b)) {
		for (long i = 0; i < n; i++) {
			if (i % b->arg == 0)
				roots[i / b->arg] = g_cancellable_new();
			all[i] = child(roots[i / b->arg]);
		}
		bench_start(b);
		for (long i = 0; i < count; i++)
			g_cancellable_cancel(roots[i]);
		bench_stop(b, n);
		for (long i = 0; i < n; i++) {
			bench_check(g_cancellable_is_cancelled(all[i].own));
			drop(all[i]);
		}
		for (long i = 0; i < count; i++)
			g_object_unref(roots[i]);
	}
	free(all);
	free(roots);
}
BENCH("glib", "cancel/children", children)

static void wait_poll(void *c)
{
	struct pollfd p = { .fd = g_cancellable_get_fd(c), .events = POLLIN };

	bench_check(poll(&p, 1, -1) == 1);
	g_cancellable_release_fd(c);
}

static void wake(struct bench *b)
{
	struct bench_partner *p = bench_partner_new(wait_poll);

	while (bench_more(b)) {
		GCancellable *c = g_cancellable_new();

		bench_partner_arm(p, c);
		int64_t signalled = bench_now();

		g_cancellable_cancel(c);
		int64_t woken = bench_partner_woken(p);

		if (woken >= 0)
			bench_sample(b, (double)(woken - signalled));
		else
			bench_miss(b);
		g_object_unref(c);
	}
	bench_partner_free(p);
}
BENCH("glib", "wake/poll", wake)
BENCH("glib", "wake-awake/poll", wake)

static void make_in_thread(void *parent, int thread, long n)
{
	(void)thread;
	for (long i = 0; i < n; i++) {
		struct child c = child(parent);

		g_cancellable_cancel(c.own);
		drop(c);
	}
}

static void threads_shared(struct bench *b)
{
	GCancellable *parent = g_cancellable_new();

	bench_parallel(b, (int)b->arg, make_in_thread, parent);
	g_object_unref(parent);
}
BENCH("glib", "threads/shared", threads_shared)

static void nothing(GCancellable *c, gpointer arg)
{
	(void)c;
	(void)arg;
}

static void connect_disconnect(struct bench *b)
{
	GCancellable *c = g_cancellable_new();

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			g_cancellable_disconnect(c, g_cancellable_connect(c, G_CALLBACK(nothing), NULL, NULL));
		bench_stop(b, b->n);
		bench_check(!g_cancellable_is_cancelled(c));
	}
	g_object_unref(c);
}
BENCH("glib", "after/stop", connect_disconnect)

/* What bench/request.c does. The deadline is a source of the main loop's, which cancels. */
struct request {
	struct child child;
	gulong after;
	GSource *deadline;
};

static void count_call(GCancellable *c, gpointer calls)
{
	(void)c;
	++*(int *)calls;
}

static gboolean cancel_late(gpointer c)
{
	g_cancellable_cancel(c);
	return G_SOURCE_REMOVE;
}

static void begin(struct request *r, GCancellable *server, GMainContext *loop, int *calls)
{
	r->child = child(server);
	r->deadline = g_timeout_source_new(60000);
	g_source_set_callback(r->deadline, cancel_late, r->child.own, NULL);
	g_source_attach(r->deadline, loop);
	r->after = g_cancellable_connect(r->child.own, G_CALLBACK(count_call), calls, NULL);
}

static bool end(struct request *r)
{
	bool live = true;

	for (int i = 0; i < 3; i++)
		live &= !g_cancellable_is_cancelled(r->child.own);
	g_cancellable_disconnect(r->child.own, r->after);
	g_source_destroy(r->deadline);
	g_source_unref(r->deadline);
	drop(r->child);
	return live;
}

static void request_life(struct bench *b)
{
	struct request *all = calloc((size_t)b->arg, sizeof(*all));
	GMainContext *loop = g_main_context_new();
	GCancellable *server = g_cancellable_new();
	long oldest = 0;
	bool live = true;
	int calls = 0;

	bench_check(all);
	for (long i = 0; i < b->arg; i++)
		begin(&all[i], server, loop, &calls);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			live &= end(&all[oldest]);
			begin(&all[oldest], server, loop, &calls);
			if (++oldest == b->arg)
				oldest = 0;
		}
		bench_stop(b, b->n);
		bench_check(live && calls == 0);
	}
	for (long i = 0; i < b->arg; i++)
		end(&all[i]);
	g_object_unref(server);
	g_main_context_unref(loop);
	free(all);
}
BENCH("glib", "request", request_life)
