/* SPDX-License-Identifier: MIT */
/* What the dispatcher does, in the exact player (exact.h): after-funcs, and contexts that watch an fd. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "exact_parts.h"

#define ERRANDS 16

struct lever levers[LEVERS];

static struct errand {
	struct ctxfd_after *handle;
	int on; /* NOBODY: this one is free */
	enum { ARMED, RAN, GONE } state;
	bool owned, in_order, stops_itself;
	int number; /* in the order of registration */
} errands[ERRANDS];

static int made;

static void run_errand(void *arg)
{
	struct errand *e = arg;
	int64_t from = ctxfd_now();

	SAME(e->on != NOBODY && e->state == ARMED, "an after-func runs, but not now");
	e->state = RAN;
	SAME(model_is(&model, e->on, (struct span){ from, from }) != LIVE, "#%d is live, its after-func runs", e->on);
	look(e->on);
	for (int j = 0; j < ERRANDS; j++)
		SAME(errands[j].on != e->on || errands[j].state != ARMED || !errands[j].in_order || !e->in_order ||
		             errands[j].number > e->number,
		     "#%d: its after-funcs run in another order", e->on);
	if (e->owned && e->stops_itself) {
		SAME(!ctxfd_after_stop(e->handle), "an after-func stops itself");
		e->owned = false;
	}
	/* Its context is held until after we return, or until it is stopped. */
	model_release_perhaps(&model, e->on);
}

static void forget(struct errand *e)
{
	model_release_surely(&model, e->on);
	e->on = NOBODY;
}

void arm(int i, int n)
{
	struct errand *e = &errands[n & (ERRANDS - 1)];
	int64_t from = ctxfd_now();
	int err;

	if (e->on != NOBODY)
		return;
	*e = (struct errand){ .on = i, .state = ARMED, .number = made++ };
	e->owned = n & ERRANDS || model.of[i].node == 0 || model.of[i].node == 1;
	e->stops_itself = n & (2 * ERRANDS);
	err = ctxfd_after_func(of(i), run_errand, e, e->owned ? &e->handle : NULL);
	SAME(err == 0, "no after-func: %d", err);
	e->in_order = model_is(&model, i, since(from)) == LIVE;
	model_hold(&model, i);
}

void stop(int n)
{
	struct errand *e = &errands[n & (ERRANDS - 1)];
	bool armed = e->state == ARMED;

	if (e->on == NOBODY || !e->owned)
		return;
	SAME(ctxfd_after_stop(e->handle) == armed, "stop says %d", !armed);
	e->owned = false;
	e->state = GONE;
	if (armed)
		model_release_perhaps(&model, e->on);
	/* If it was due already, the dispatcher frees it when it comes to it. */
}

/* Does what is due, until there is no more. */
void dispatch_due(void)
{
	int64_t from = ctxfd_now();
	bool due[ERRANDS];
	int n;

	for (int j = 0; j < ERRANDS; j++)
		due[j] = errands[j].on != NOBODY && errands[j].state == ARMED &&
		         model_is(&model, errands[j].on, (struct span){ from, from }) == DONE;
	do {
		n = ctxfd_dispatch();
		SAME(n >= 0, "dispatch: %d", n);
	} while (n > 0);
	for (int j = 0; j < ERRANDS; j++) {
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
	SAME(ctxfd_dispatch_fd() >= 0, "no dispatcher");
	made = 0;
	for (int j = 0; j < ERRANDS; j++)
		errands[j].on = NOBODY;
	for (int l = 0; l < LEVERS; l++) {
		levers[l] = (struct lever){ eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), false };
		SAME(levers[l].fd >= 0, "no eventfd");
	}
}

void end_errands(void)
{
	dispatch_due();
	/* What frees itself must run for it; it keeps its context alive. */
	for (int j = 0; j < ERRANDS; j++)
		if (errands[j].on != NOBODY && !errands[j].owned)
			cancel(model.of[errands[j].on].node, 0, false);
	for (int j = 0; j < ERRANDS; j++)
		stop(j);
	dispatch_due();
	for (int j = 0; j < ERRANDS; j++)
		SAME(errands[j].on == NOBODY, "an after-func is left");
	for (int l = 0; l < LEVERS; l++)
		close(levers[l].fd);
}
