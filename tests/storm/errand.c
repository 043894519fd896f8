/* SPDX-License-Identifier: MIT */
/*
 * After-funcs in the storm. What must hold of each: it runs at most once, only when its context is done, after those
 * that were registered before it on the same live context; after a stop that says true, never; a stop that says false
 * returns after it has run. At rest it has run if and only if its context is done and nobody stopped it: by the
 * library's thread, or by who goes by the edges of its dispatcher's fd.
 */
#include "shadow.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static struct world *world_of_errands;

static int number(const struct world *w, const struct errand *e)
{
	return (int)(e - w->errands);
}

static bool quits(const struct script *s, const struct errand *e)
{
	for (int i = 0; e->does && i < s->count[e->does]; i++)
		if (s->ops[e->does][i].what == OP_QUIT)
			return true;
	return false;
}

static void run_errand(void *arg)
{
	struct world *w = world_of_errands;
	struct errand *e = arg;
	bool is_last = quits(w->script, e) && who() == DISPATCHER;

	if (atomic_fetch_add(&e->ran, 1) != 0)
		broken("after-func %d runs twice", number(w, e));
	if (atomic_load(&e->stopped))
		broken("after-func %d runs, but was stopped", number(w, e));
	if (!ctxfd_err(e->on->ctx))
		broken("after-func %d runs, but its context is live", number(w, e));
	look(w, who(), e->on);
	for (int i = 0; i < atomic_load(&w->errands_made) && i < MAX_ERRANDS; i++) {
		struct errand *other = &w->errands[i];

		if (atomic_load(&e->registered) && atomic_load(&other->registered) && other->registered < e->began &&
		    other->on == e->on && !atomic_load(&other->stopping) && !atomic_load(&other->ran))
			broken("after-func %d runs before %d, which was registered before it", number(w, e), i);
	}
	if (e->does) {
		play_errand(w, e);
		look(w, who(), e->on);
	}
	atomic_store(&e->ended, 1);
	if (is_last)
		end_thread();
}

/* ---- Dispatchers ------------------------------------------------------------------------------------------------- */

void begin_loops(struct world *w)
{
	memset(w->loops, 0, sizeof w->loops);
	for (int i = 0; i < LOOPS && uses(w->script, OP_LOOP); i++) {
		struct loop *l = &w->loops[i];

		l->dispatcher = ctxfd_dispatcher_new();
		if (!l->dispatcher)
			broken("no dispatcher");
		l->edges = watch_edges(ctxfd_dispatcher_fd(l->dispatcher));
	}
}

void end_loops(struct world *w)
{
	for (int i = 0; i < LOOPS && w->loops[i].dispatcher; i++) {
		forget_edges(w->loops[i].edges);
		ctxfd_dispatcher_free(w->loops[i].dispatcher);
	}
}

/* The library's own is none of ours: for 0 it is the first. */
static struct loop *loop_of(struct world *w, int n)
{
	n = (n & INT16_MAX) % (1 + LOOPS);
	return &w->loops[n ? n - 1 : 0];
}

void serve(struct world *w, int n)
{
	struct loop *l = loop_of(w, n);
	int done = l->dispatcher ? ctxfd_dispatcher_run(l->dispatcher) : 0;

	if (done < 0 && done != -EBUSY)
		broken("a dispatcher's run says %d", done);
}

void serve_edge(struct world *w, int n)
{
	struct loop *l = loop_of(w, n);

	if (l->dispatcher && take_edge(l->edges))
		serve(w, n);
}

static void give_time(struct world *w, int tries)
{
	for (int n = 1; n <= LOOPS; n++)
		serve_edge(w, n);
	ctxfd_err(ctxfd_background()); /* makes the library try again, if a thread could not be made */
	if (!let_dispatch(tries))
		broken("a dispatcher does not do what it has to");
}

void let_run(struct world *w, _Atomic int *what)
{
	for (int tries = 0; !atomic_load(what); tries++)
		give_time(w, tries);
}

void let_end(struct world *w, struct shadow *s)
{
	for (int tries = 0; !ctxfd_err(s->ctx); tries++)
		give_time(w, tries);
}

/* ---- Registering and stopping ------------------------------------------------------------------------------------ */

void begin_errands(struct world *w)
{
	for (int i = 0; i < MAX_ERRANDS && i < w->errands_made; i++)
		w->errands[i] = (struct errand){ .on = NULL };
	w->errands_made = w->ticks = 0;
	world_of_errands = w;
}

/* Whether something may end s when nobody calls a function of ours. */
static bool ends_by_itself(const struct world *w, const struct shadow *s)
{
	return s->node->deadline != INT64_MAX || uses(w->script, OP_WATCH) || uses(w->script, OP_IDLE) ||
	       uses(w->script, OP_GRACE);
}

/* It is not registered, and will never run. */
static void forget(struct errand *e)
{
	atomic_store(&e->stopping, true);
	atomic_store(&e->stopped, true);
	atomic_store(&e->ended, 1);
}

void add_errand(struct world *w, struct hands *h, struct shadow *s, const struct op *op)
{
	int box = op->n & (MAX_MAIL - 1), i, err, before;
	struct errand *e;

	/* What frees itself must run one day. */
	if (box ? h->handle[box] != NULL : s->node->made == WHATS)
		return;
	i = atomic_fetch_add(&w->errands_made, 1);
	if (i >= MAX_ERRANDS)
		return;
	e = &w->errands[i];
	e->on = s;
	e->depth = h->in ? h->in->depth + 1 : 0;
	e->does = op->b && e->depth < 2 ? list_of_errand(op->b) : 0;
	e->held = !box && ends_by_itself(w, s);
	if (e->held)
		ctxfd_ref(s->ctx);
	e->began = atomic_fetch_add(&w->ticks, 1) + 1;
	before = refusals();
	err = ctxfd_after_func(s->ctx, run_errand, e, box ? &e->handle : NULL);
	if (err && (!may_fail(err, before) || e->handle))
		broken("no after-func: %d", err);
	if (err) {
		forget(e);
		return;
	}
	if (!ctxfd_err(s->ctx))
		atomic_store(&e->registered, atomic_fetch_add(&w->ticks, 1) + 1);
	if (box)
		h->handle[box] = e;
}

static void stop(struct world *w, struct errand *e)
{
	atomic_store(&e->stopping, true);
	if (ctxfd_after_stop(e->handle)) {
		atomic_store(&e->stopped, true);
		if (atomic_load(&e->ran))
			broken("after-func %d is stopped, but has run", number(w, e));
	} else if (!atomic_load(&e->ended)) {
		broken("after-func %d could not be stopped, but has not ended", number(w, e));
	}
}

void stop_errand(struct world *w, struct hands *h, int handle)
{
	struct errand **box = &h->handle[handle & (MAX_MAIL - 1)], *e = *box;

	*box = NULL;
	if (e)
		stop(w, e);
}

/* What frees itself is made to run. It holds its context until then, or we do. */
static void end_unowned(struct world *w, struct errand *e)
{
	if (!atomic_load(&e->ended))
		cancel_shadow(w, 0, e->on->node, false, false);
	let_run(w, &e->ended);
	if (e->held)
		ctxfd_unref(e->on->ctx);
}

static int made(struct world *w)
{
	int n = atomic_load(&w->errands_made);

	return n < MAX_ERRANDS ? n : MAX_ERRANDS;
}

/* Errands come behind the one that registers them, and are there when that has ended. */
void end_errands(struct world *w)
{
	int from = 0, to;

	while ((to = made(w)) > from) {
		for (int i = from; i < to; i++) {
			struct errand *e = &w->errands[i];

			if (!atomic_load(&e->stopping) && must_be_done(w, 0, e->on))
				let_run(w, &e->ended);
			if (!e->handle)
				end_unowned(w, e);
		}
		for (int i = from; i < to; i++)
			if (w->errands[i].handle && !atomic_load(&w->errands[i].stopping))
				stop(w, &w->errands[i]);
		from = to;
	}
}
