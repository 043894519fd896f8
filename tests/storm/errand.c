/* SPDX-License-Identifier: MIT */
/*
 * After-funcs in the storm. What must hold of each: it runs at most once, only when its context is done, after those
 * that were registered before it on the same live context; after a stop that says true, never; a stop that says false
 * returns after it has run. At rest it has run if and only if its context is done and nobody stopped it.
 */
#include "shadow.h"

#include <errno.h>
#include <stddef.h>

static struct world *world_of_errands;

static int number(const struct world *w, const struct errand *e)
{
	return (int)(e - w->errands);
}

static void run_errand(void *arg)
{
	struct world *w = world_of_errands;
	struct errand *e = arg;

	if (atomic_fetch_add(&e->ran, 1) != 0)
		broken("after-func %d runs twice", number(w, e));
	if (atomic_load(&e->stopped))
		broken("after-func %d runs, but was stopped", number(w, e));
	if (!ctxfd_err(e->on->ctx))
		broken("after-func %d runs, but its context is live", number(w, e));
	look(w, DISPATCHER, e->on);
	for (int i = 0; i < atomic_load(&w->errands_made) && i < MAX_ERRANDS; i++) {
		struct errand *other = &w->errands[i];

		if (atomic_load(&e->registered) && atomic_load(&other->registered) && other->registered < e->began &&
		    other->on == e->on && !atomic_load(&other->stopping) && !atomic_load(&other->ran))
			broken("after-func %d runs before %d, which was registered before it", number(w, e), i);
	}
	atomic_store(&e->ended, 1);
}

void serve_errands(struct world *w)
{
	int n;

	if (!may_serve())
		return;
	if (ctxfd_dispatch_fd() < 0)
		broken("the dispatcher cannot be taken over");
	w->serving = true;
	n = ctxfd_dispatch();
	if (n < 0 && n != -EBUSY)
		broken("dispatch says %d", n);
}

static void give_time(struct world *w, int tries)
{
	if (w->serving)
		serve_errands(w);
	if (!let_dispatch(tries))
		broken("the dispatcher does not do what it has to");
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

void begin_errands(struct world *w)
{
	for (int i = 0; i < MAX_ERRANDS && i < w->errands_made; i++)
		w->errands[i] = (struct errand){ .on = NULL };
	w->errands_made = w->ticks = 0;
	w->serving = false;
	world_of_errands = w;
}

void add_errand(struct world *w, int t, struct shadow *s, int handle)
{
	int box = handle & (MAX_MAIL - 1), i, err;
	struct errand *e;

	/* What frees itself must run one day. */
	if (box ? w->handle[t][box] != NULL : s->node->made == WHATS)
		return;
	i = atomic_fetch_add(&w->errands_made, 1);
	if (i >= MAX_ERRANDS)
		return;
	e = &w->errands[i];
	e->on = s;
	e->held = !box && s->node->deadline != INT64_MAX;
	if (e->held)
		ctxfd_ref(s->ctx);
	e->began = atomic_fetch_add(&w->ticks, 1) + 1;
	err = ctxfd_after_func(s->ctx, run_errand, e, box ? &e->handle : NULL);
	if (err)
		broken("no after-func: %d", err);
	if (!ctxfd_err(s->ctx))
		atomic_store(&e->registered, atomic_fetch_add(&w->ticks, 1) + 1);
	if (box)
		w->handle[t][box] = e;
}

void stop_errand(struct world *w, int t, int handle)
{
	struct errand **box = &w->handle[t][handle & (MAX_MAIL - 1)], *e = *box;

	if (!e)
		return;
	*box = NULL;
	atomic_store(&e->stopping, true);
	if (ctxfd_after_stop(e->handle)) {
		atomic_store(&e->stopped, true);
		if (atomic_load(&e->ran))
			broken("after-func %d is stopped, but has run", number(w, e));
	} else if (!atomic_load(&e->ended)) {
		broken("after-func %d could not be stopped, but has not ended", number(w, e));
	}
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

void end_errands(struct world *w)
{
	int made = atomic_load(&w->errands_made);

	for (int i = 0; i < made && i < MAX_ERRANDS; i++) {
		struct errand *e = &w->errands[i];

		if (!atomic_load(&e->stopping) && must_be_done(w, 0, e->on))
			let_run(w, &e->ended);
		if (!e->handle)
			end_unowned(w, e);
	}
	for (int t = 0; t <= MAX_THREADS; t++)
		for (int i = 0; i < MAX_MAIL; i++)
			stop_errand(w, t, i);
}
