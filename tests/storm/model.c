/* SPDX-License-Identifier: MIT */
/* The model of contexts for one thread; see model.h. */
#include "model.h"

#include <errno.h>

static void add_end(struct ends *to, int err, int cause)
{
	for (int i = 0; i < to->n; i++)
		if (to->of[i].err == err && to->of[i].cause == cause)
			return;
	if (to->n < 6)
		to->of[to->n++] = (struct end){ err, cause };
}

static void add_ends(struct ends *to, const struct ends *from)
{
	for (int i = 0; i < from->n; i++)
		add_end(to, from->of[i].err, from->of[i].cause);
}

void begin_model(struct model *m)
{
	m->n = 2;
	for (int i = 0; i < 2; i++)
		m->of[i] = (struct known){ WHATS, NOBODY, NOBODY, i, INT64_MAX, { 0 }, { 0 }, 0, 1, 0 };
}

/* Lets the clock have its say about a node. */
static enum answer state(struct known *k, struct span t)
{
	if (!k->ended.n && k->deadline <= t.from)
		k->ended = k->expiry;
	return k->ended.n ? DONE : k->deadline > t.to ? LIVE : EITHER;
}

enum answer model_is(struct model *m, int i, struct span t)
{
	return state(&m->of[m->of[i].node], t);
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

static void make_deadline(struct known *k, struct known *parent, int64_t deadline, int cause, struct span t)
{
	enum answer is = state(parent, t);

	if (deadline >= parent->deadline)
		return;
	k->deadline = deadline;
	k->expiry.n = 0;
	add_end(&k->expiry, -ETIMEDOUT, cause ? cause : -ETIMEDOUT);
	/* The parent's end goes first, if it came in time. */
	if (is == EITHER)
		add_ends(&k->expiry, &parent->expiry);
}

static void make_merge(struct known *k, struct known *a, struct known *b, struct span t)
{
	enum answer a_is = state(a, t), b_is = state(b, t);

	if (b->deadline < a->deadline) {
		k->deadline = b->deadline;
		k->expiry = b->expiry;
	}
	if (a_is == EITHER && b_is == EITHER) {
		add_ends(&k->expiry, &a->expiry);
		add_ends(&k->expiry, &b->expiry);
	}
	if (a_is != DONE && b_is == DONE) {
		k->ended = b->ended;
		if (a_is == EITHER)
			add_ends(&k->ended, &a->expiry);
	}
}

int model_make(struct model *m, enum what what, int a, int b, int64_t deadline, int cause, struct span t)
{
	int i = m->n++;
	struct known *k = &m->of[i], *parent = &m->of[m->of[a].node];

	*k = (struct known){ .made = what, .parent = a, .second = NOBODY, .node = i, .holders = 1 };
	model_hold(m, a);
	state(parent, t);
	k->deadline = parent->deadline;
	k->expiry = parent->expiry;
	k->ended = parent->ended;
	if (what == OP_WITHOUT || what == OP_VALUE || what == OP_LOOP)
		k->node = what == OP_WITHOUT ? 0 : m->of[a].node;
	else if (what == OP_DEADLINE)
		make_deadline(k, parent, deadline, cause, t);
	else if (what == OP_MERGE) {
		k->second = b;
		m->of[b].maybes++;
		make_merge(k, parent, &m->of[m->of[b].node], t);
	}
	return i;
}

/* ---- Ending ------------------------------------------------------------------------------------------------------ */

void model_cancel(struct model *m, int i, int cause, struct span t)
{
	bool below[MAX_KNOWN] = { false };

	/* A parent is always made before its child. */
	for (int j = 2; j < m->n; j++) {
		struct known *k = &m->of[j];
		enum answer is;

		if (k->node != j)
			continue;
		below[j] = j == i || below[m->of[k->parent].node] || (k->second >= 0 && below[m->of[k->second].node]);
		if (!below[j])
			continue;
		is = state(k, t);
		if (is == DONE)
			continue;
		add_end(&k->ended, -ECANCELED, cause ? cause : -ECANCELED);
		if (is == EITHER)
			add_ends(&k->ended, &k->expiry);
	}
}

bool model_saw(struct model *m, int i, int err, int cause, struct span t)
{
	struct known *k = &m->of[m->of[i].node];
	struct ends left = { 0 };
	enum answer is = state(k, t);

	if (!err)
		return is != DONE;
	if (is == LIVE)
		return false;
	if (is == EITHER)
		k->ended = k->expiry;
	for (int j = 0; j < k->ended.n; j++)
		if (k->ended.of[j].err == err && (!cause || k->ended.of[j].cause == cause))
			left.of[left.n++] = k->ended.of[j];
	if (!left.n)
		return false;
	k->ended = left;
	return true;
}

/* ---- Values and lives -------------------------------------------------------------------------------------------- */

int model_binding(const struct model *m, int i, int key)
{
	while (i >= 0 && !(m->of[i].made == OP_VALUE && m->of[i].key == key))
		i = m->of[i].parent;
	return i;
}

void model_hold(struct model *m, int i)
{
	m->of[i].holders++;
}

/* A holder of i has become one that may be gone; or a perhaps one surely is. */
void model_release_perhaps(struct model *m, int i)
{
	for (; i >= 2; i = m->of[i].parent) {
		m->of[i].maybes++;
		if (--m->of[i].holders > 0)
			return;
	}
}

void model_release_surely(struct model *m, int i)
{
	for (; i >= 2; i = m->of[i].parent) {
		if (--m->of[i].maybes > 0 || m->of[i].holders > 0)
			return;
		if (m->of[i].second >= 0)
			model_release_surely(m, m->of[i].second);
	}
}

void model_release(struct model *m, int i)
{
	model_release_perhaps(m, i);
	model_release_surely(m, i);
}
