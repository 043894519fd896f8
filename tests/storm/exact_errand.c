/* SPDX-License-Identifier: MIT */
/* What the dispatcher does, in the exact player (exact.h): after-funcs, and contexts that watch an fd. */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "exact_parts.h"

#define SLOTS 16

struct lever levers[LEVERS];
struct ctxfd_dispatcher *loops[LOOPS];

static struct errand {
	struct ctxfd_after *handle;
	int on; /* NOBODY: this one is free */
	enum { ARMED, RUNNING, RAN, GONE } state;
	bool owned, in_order, stops_itself;
	int number; /* in the order of registration */
	int does, depth;
} errands[SLOTS], *running;

static int made;

static void run_errand(void *arg)
{
	struct errand *e = arg, *outer = running;
	int64_t from = ctxfd_now();

	SAME(e->on != NOBODY && e->state == ARMED, "an after-func runs, but not now");
	e->state = RUNNING;
	running = e;
	SAME(model_is(&model, e->on, (struct span){ from, from }) != LIVE, "#%d is live, its after-func runs", e->on);
	look(e->on);
	for (int j = 0; j < SLOTS; j++)
		SAME(errands[j].on != e->on || errands[j].state != ARMED || !errands[j].in_order || !e->in_order ||
		             errands[j].number > e->number,
		     "#%d: its after-funcs run in another order", e->on);
	if (e->does)
		play_errand(e->does, e->on);
	if (e->owned && e->stops_itself) {
		SAME(!ctxfd_after_stop(e->handle), "an after-func stops itself");
		e->owned = false;
	}
	look(e->on);
	running = outer;
	e->state = RAN;
	/* Its context is held until after we return, or until it is stopped. */
	model_release_perhaps(&model, e->on);
}

static void forget(struct errand *e)
{
	model_release_surely(&model, e->on);
	e->on = NOBODY;
}

void arm(int i, const struct op *op)
{
	struct errand *e = &errands[op->n & (SLOTS - 1)];
	int64_t from = ctxfd_now();
	int err;

	if (e->on != NOBODY)
		return;
	*e = (struct errand){ .on = i, .state = ARMED, .number = made++, .depth = running ? running->depth + 1 : 0 };
	e->owned = op->n & SLOTS || model.of[i].node == 0 || model.of[i].node == 1;
	e->stops_itself = op->n & (2 * SLOTS);
	e->does = op->b && e->depth < 2 ? list_of_errand(op->b) : 0;
	err = ctxfd_after_func(of(i), run_errand, e, e->owned ? &e->handle : NULL);
	SAME(err == 0, "no after-func: %d", err);
	e->in_order = model_is(&model, i, since(from)) == LIVE;
	model_hold(&model, i);
}

void stop(int n)
{
	struct errand *e = &errands[n & (SLOTS - 1)];
	bool armed = e->state == ARMED;

	if (e->on == NOBODY || !e->owned)
		return;
	SAME(ctxfd_after_stop(e->handle) == armed, "stop says %d", !armed);
	e->owned = false;
	if (e->state == RUNNING) /* we are in it */
		return;
	e->state = GONE;
	if (armed)
		model_release_perhaps(&model, e->on);
	/* If it was due already, the dispatcher frees it when it comes to it. */
}

/* How many things the dispatchers did. In an errand those that are at one do nothing. */
static int run_loops(void)
{
	int sum = 0;

	for (int l = 0; l < LOOPS; l++) {
		int n = ctxfd_dispatcher_run(loops[l]);

		SAME(n >= 0 || (n == -EBUSY && running), "run: %d", n);
		sum += n > 0 ? n : 0;
	}
	return sum;
}

/* Does what is due, until there is no more. */
void dispatch_due(void)
{
	int64_t from = ctxfd_now();
	bool due[SLOTS];

	for (int j = 0; j < SLOTS; j++)
		due[j] = errands[j].on != NOBODY && errands[j].state == ARMED &&
		         model_is(&model, errands[j].on, (struct span){ from, from }) == DONE;
	while (run_loops())
		continue;
	if (running)
		return;
	for (int j = 0; j < SLOTS; j++) {
		struct errand *e = &errands[j];

		SAME(!due[j] || e->state != ARMED, "#%d is done, its after-func did not run", e->on);
		if (e->on != NOBODY && e->state != ARMED && !e->owned)
			forget(e);
	}
}

/* Makes a lever's fd readable, or no longer. */
void pull(int lever)
{
	int64_t from = ctxfd_now();
	struct lever *l = &levers[lever];
	uint64_t n = 1;

	l->up = !l->up;
	SAME((l->up ? write(l->fd, &n, sizeof n) : read(l->fd, &n, sizeof n)) == sizeof n, "a lever");
	if (!l->up)
		return;
	for (int i = 2; i < model.n; i++)
		if (contexts[i].lever == lever && model_is(&model, i, (struct span){ from, from }) != DONE)
			model_cancel(&model, i, LEVER_CAUSE + lever, (struct span){ from, from + CTXFD_SEC });
	dispatch_due();
}

void begin_errands(void)
{
	made = 0;
	running = NULL;
	for (int j = 0; j < SLOTS; j++)
		errands[j].on = NOBODY;
	for (int l = 0; l < LEVERS; l++) {
		levers[l] = (struct lever){ eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), false };
		SAME(levers[l].fd >= 0, "no eventfd");
	}
	for (int l = 0; l < LOOPS; l++) {
		loops[l] = ctxfd_dispatcher_new();
		SAME(loops[l], "no dispatcher");
	}
}

static bool any_left(void)
{
	for (int j = 0; j < SLOTS; j++)
		if (errands[j].on != NOBODY)
			return true;
	return false;
}

/* What frees itself must run for it; it keeps its context alive. Errands may leave others behind, up to a depth. */
void end_errands(void)
{
	for (int depth = 0; depth < 4; depth++) {
		dispatch_due();
		for (int j = 0; j < SLOTS; j++)
			if (errands[j].on != NOBODY && !errands[j].owned)
				cancel(model.of[errands[j].on].node, 0, false);
		for (int j = 0; j < SLOTS; j++)
			stop(j);
		dispatch_due();
	}
	SAME(!any_left(), "an after-func is left");
	for (int l = 0; l < LEVERS; l++)
		close(levers[l].fd);
}
