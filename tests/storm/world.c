/* SPDX-License-Identifier: MIT */
/*
 * Playing a script. Each thread has its own references, one for each letter; what the script names in two lists is
 * shared at the beginning. New contexts reach other threads through mailboxes, with the reference that they hold. An
 * errand has no reference on its first letter, which is its own context: that it is one of its owners is what it tests.
 */
#include "shadow.h"
#include "core/shard.h"

#include <stdio.h>
#include <string.h>

static void give_up(struct shadow **slot)
{
	if (*slot)
		ctxfd_unref((*slot)->ctx);
	*slot = NULL;
}

static void put(struct shadow **slot, struct shadow *s)
{
	struct shadow *old = *slot;

	*slot = s;
	give_up(&old);
}

static struct shadow *ref(struct shadow *s)
{
	ctxfd_ref(s->ctx);
	return s;
}

/* For a reference on s, what was there before. */
static struct shadow *swap_mail(struct world *w, int box, struct shadow *s)
{
	return atomic_exchange(&w->mail[(unsigned)box % MAX_MAIL], s);
}

/* Waiting must end: by a promise, which thread 1 keeps and so cannot wait for, or soon by itself. */
static bool may_wait(struct world *w, int t, struct shadow *s)
{
	if (w->bold || ctxfd_err(s->ctx))
		return true;
	if (s->node->deadline < ctxfd_now() + 5 * CTXFD_MSEC)
		return true;
	return t > 1 && below_any(w, t, s, w->promised, w->promises);
}

static int first_letter(const struct hands *h)
{
	return h->in ? 3 : 2;
}

static void make(struct world *w, int t, struct hands *h, const struct op *op)
{
	struct shadow **x = &h->has[op->x], *a = h->has[op->a], *b = op->what == OP_MERGE ? h->has[op->b] : a, *s;

	if (a && b && op->x >= first_letter(h)) {
		s = make_shadow(w, t, op, a, b);
		if (s)
			put(x, s);
	}
}

static void pull(struct world *w, int lever)
{
	int never = 0;

	atomic_compare_exchange_strong(&w->pulled[lever], &never, 1);
	pull_lever(lever);
	atomic_store(&w->pulled[lever], 2);
}

/* What needs no context in x, or makes it. False: something else. */
static bool play_maker(struct world *w, int t, struct hands *h, const struct op *op)
{
	struct shadow **x = &h->has[op->x], *a = h->has[op->a], *s;

	switch (op->what) {
	case OP_NEW:
	case OP_DEADLINE:
	case OP_TIMEOUT:
	case OP_VALUE:
	case OP_WITHOUT:
	case OP_MERGE:
	case OP_WATCH:
	case OP_LOOP:
	case OP_IDLE:
	case OP_GRACE:
		make(w, t, h, op);
		return true;
	case OP_REF:
		if (a && op->x >= first_letter(h))
			put(x, ref(a));
		return true;
	case OP_TAKE:
		s = op->x >= 2 ? swap_mail(w, op->n, NULL) : NULL;
		if (s)
			put(x, s);
		return true;
	case OP_STOP:
		stop_errand(w, h, op->n);
		return true;
	case OP_SERVE:
		serve(w, op->n);
		return true;
	case OP_EDGE:
		serve_edge(w, op->n);
		return true;
	case OP_PULL:
		pull(w, op->n & (LEVERS - 1));
		return true;
	case OP_CLOCK:
		pass_until(w->start + op->n * UNIT);
		return true;
	default:
		return false;
	}
}

static void play_user(struct world *w, int t, struct hands *h, const struct op *op)
{
	struct shadow **x = &h->has[op->x], *s;

	switch (op->what) {
	case OP_FREE:
		give_up(x);
		break;
	case OP_CANCEL:
	case OP_CAUSE:
		cancel_shadow(w, t, *x, op->what == OP_CAUSE, false);
		break;
	case OP_CLOSE:
		s = *x;
		if (op->x < first_letter(h))
			ref(s);
		else
			*x = NULL;
		cancel_shadow(w, t, s, false, true);
		break;
	case OP_FD:
		ask_fd(w, t, *x);
		break;
	case OP_LOOK:
		look(w, t, *x);
		break;
	case OP_WAIT:
		if (may_wait(w, t, *x))
			wait_shadow(w, t, *x);
		break;
	case OP_SLEEP:
		sleep_shadow(w, t, *x, op->n * UNIT);
		break;
	case OP_POLL:
		poll_shadow(w, t, *x, op->n * UNIT);
		break;
	case OP_GET:
		ask_value(w, t, *x, op->n);
		break;
	case OP_TOUCH:
		touch_shadow(w, t, *x);
		break;
	case OP_POST:
		s = swap_mail(w, op->n, ref(*x));
		give_up(&s);
		break;
	case OP_SPLIT:
		if ((*x)->node == *x && (*x)->made != WHATS)
			ctxfdi_split_children((*x)->ctx);
		break;
	case OP_TELL: /* nowhere: what counts is how it goes through the tree */
		ctxfd_dump((*x)->ctx, -1);
		break;
	case OP_AFTER:
		add_errand(w, h, *x, op);
		break;
	case OP_PROMISE:
		if (w->promises < 4)
			w->promised[w->promises++] = ref(*x);
		break;
	default:
		break;
	}
}

static void play_op(struct world *w, int t, struct hands *h, const struct op *op)
{
	int least = op->what == OP_FREE ? first_letter(h) : op->what == OP_CLOSE ? 2 : 0;

	if (!play_maker(w, t, h, op) && h->has[op->x] && op->x >= least)
		play_user(w, t, h, op);
}

static void give_up_all(struct hands *h)
{
	for (int v = first_letter(h); v < MAX_VARS; v++)
		give_up(&h->has[v]);
}

void play_list(struct world *w, int t)
{
	struct hands *h = &w->hands[t];

	for (int i = 0; i < w->script->count[t]; i++) {
		atomic_store_explicit(&w->at[t], i, memory_order_relaxed);
		play_op(w, t, h, &w->script->ops[t][i]);
	}
	for (int i = 0; t == 1 && i < w->promises; i++)
		cancel_shadow(w, t, w->promised[i], i & 1, false);
	if (t > 0 && w->drop_early)
		give_up_all(h);
}

/* What it has left in its hands goes at once, but for handles: those are stopped at the end. */
void play_errand(struct world *w, struct errand *e)
{
	struct hands h = { .has = { &w->shadows[0], &w->shadows[1], e->on }, .in = e };

	for (int i = 0; i < w->script->count[e->does]; i++)
		play_op(w, who(), &h, &w->script->ops[e->does][i]);
	give_up_all(&h);
}

/* Whether a list names v. */
static bool names(const struct script *script, int t, int v)
{
	for (int i = 0; i < script->count[t]; i++) {
		const struct op *op = &script->ops[t][i];

		for (const char *o = operands(op->what); *o; o++)
			if ((*o == 'x' && op->x == v) || (*o == 'a' && op->a == v) || (*o == 'b' && op->b == v))
				return true;
	}
	return false;
}

void begin_world(struct world *w, const struct script *script)
{
	const struct ctxfd *roots[] = { ctxfd_background(), ctxfd_todo() };
	bool named;

	memset(w->hands, 0, sizeof w->hands);
	w->script = script;
	w->caused = w->promises = 0;
	for (int l = 0; l < LEVERS; l++)
		w->pulled[l] = 0;
	begin_errands(w);
	begin_loops(w);
	w->made = 2;
	w->start = ctxfd_now();
	for (int i = 0; i < MAX_MAIL; i++)
		w->mail[i] = NULL;
	for (int i = 0; i < 2; i++) {
		w->shadows[i] = (struct shadow){ .made = WHATS,
			                         .deadline = INT64_MAX,
			                         .lever = -1,
			                         .timeout = -1,
			                         .grace = -1,
			                         .end_began = INT64_MAX };
		w->shadows[i].ctx = (struct ctxfd *)(uintptr_t)roots[i];
		w->shadows[i].node = &w->shadows[i];
		w->shadows[i].fd = -1;
		for (int t = 0; t <= MAX_THREADS; t++)
			w->hands[t].has[i] = &w->shadows[i];
	}
	play_list(w, 0);
	for (int v = 2; v < MAX_VARS; v++) {
		named = false;
		for (int t = 1; w->hands[0].has[v] && t <= script->threads; t++)
			if (names(script, t, v)) {
				w->hands[t].has[v] = ref(w->hands[0].has[v]);
				named = true;
			}
		if (named)
			give_up(&w->hands[0].has[v]);
	}
	/* What list 0 has armed is thread 2's to stop. */
	for (int i = 0; i < MAX_MAIL && script->threads > 1; i++) {
		w->hands[2].handle[i] = w->hands[0].handle[i];
		w->hands[0].handle[i] = NULL;
	}
}

static void look_at_all(struct world *w, const struct hands *h)
{
	for (int v = 0; v < MAX_VARS; v++) {
		struct shadow *s = h->has[v];

		if (s && ((s->lever >= 0 && atomic_load(&w->pulled[s->lever])) || must_be_idle(s) || must_be_over(s)))
			let_end(w, s);
		if (s)
			look_at_rest(w, s);
	}
}

static void give_up_hands(struct world *w)
{
	for (int t = 0; t <= MAX_THREADS; t++)
		give_up_all(&w->hands[t]);
}

void end_world(struct world *w)
{
	struct shadow *s;
	int made;

	for (int t = 0; t <= MAX_THREADS; t++)
		look_at_all(w, &w->hands[t]);
	if (w->drop_early)
		give_up_hands(w);
	end_errands(w);
	give_up_hands(w);
	for (int i = 0; i < MAX_MAIL; i++) {
		s = swap_mail(w, i, NULL);
		if (s) {
			look_at_rest(w, s);
			give_up(&s);
		}
	}
	while (w->promises > 0)
		give_up(&w->promised[--w->promises]);
	/* Some may be kept by an after-func that its dispatcher has not yet freed. */
	made = atomic_load(&w->made);
	for (int i = 2; i < made && i < MAX_SHADOWS; i++)
		if (w->shadows[i].made == OP_VALUE)
			let_run(w, &w->shadows[i].value.destroyed);
	/* What was stopped when it was due already is the dispatchers' to free. */
	for (int n = 1; n <= LOOPS; n++)
		serve_edge(w, n);
	end_loops(w);
}

void print_last(struct world *w, int n)
{
	char text[64];

	for (int t = 1; t <= w->script->threads; t++) {
		int at = atomic_load_explicit(&w->at[t], memory_order_relaxed);

		fprintf(stderr, "thread %d, at operation %d:", t, at);
		for (int i = at < n ? 0 : at - n; i <= at && i < w->script->count[t]; i++) {
			print_op(&w->script->ops[t][i], text, sizeof text);
			fprintf(stderr, "%s %s", i == at ? " >>" : "", text);
			fprintf(stderr, ";");
		}
		fprintf(stderr, "\n");
	}
}
