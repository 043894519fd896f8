/* SPDX-License-Identifier: MIT */
/* Shadows: what is known of each context, and whether the library's answers follow from it. See shadow.h. */
#include "shadow.h"

#include <errno.h>
#include <inttypes.h>

#include "core/context.h"

/* Causes that cancels, levers, idle timeouts and deadlines give; each by number. */
#define CANCEL_CAUSE   1000
#define LEVER_CAUSE    900000
#define IDLE_CAUSE     950000
#define GRACE_CAUSE    970000
#define DEADLINE_CAUSE 1000000

static uint64_t verdict(int err, int cause)
{
	return (uint64_t)(uint32_t)err << 32 | (uint32_t)cause;
}

static int err_in(uint64_t v)
{
	return (int)(uint32_t)(v >> 32);
}

static int cause_in(uint64_t v)
{
	return (int)(uint32_t)v;
}

static int number(struct world *w, const struct shadow *s)
{
	return (int)(s - w->shadows);
}

bool may_fail(int err, int before)
{
	return refusals() > before && (err == -ENOMEM || err == -EMFILE || err == -EAGAIN || err == -ENOSPC);
}

/* ---- Looking upwards --------------------------------------------------------------------------------------------- */

/* What nothing above ends. */
static bool outlives(const struct shadow *s)
{
	return s->made == OP_WITHOUT || s->made == OP_GRACE;
}

/* Whether f holds for a node above s, or s's own. */
static bool any_above(struct world *w, int t, struct shadow *s, bool (*f)(struct shadow *s, void *arg), void *arg)
{
	uint32_t stamp = ++w->stamps[t];
	int n = 0;

	w->stack[t][n++] = s;
	while (n > 0) {
		struct shadow *at = w->stack[t][--n];

		for (; at && w->stamp[t][number(w, at)] != stamp; at = outlives(at) ? NULL : at->parent) {
			w->stamp[t][number(w, at)] = stamp;
			if (at->node == at && f(at, arg))
				return true;
			if (at->second)
				w->stack[t][n++] = at->second;
		}
	}
	return false;
}

static bool is_ended(struct shadow *s, void *arg)
{
	(void)arg;
	return atomic_load(&s->seen) || atomic_load(&s->cancelled);
}

static bool may_be_idle(struct shadow *s, void *arg)
{
	(void)arg;
	return s->timeout >= 0 && atomic_load(&s->touched) + s->timeout <= ctxfd_now();
}

bool must_be_idle(struct shadow *s)
{
	return s->timeout >= 0 && atomic_load(&s->untouched) + s->timeout <= ctxfd_now();
}

bool must_be_over(struct shadow *s)
{
	int64_t at;

	return s->grace >= 0 && ctxfd_deadline(s->ctx, &at) && at <= ctxfd_now();
}

/* By its lever or its timeout, too, sooner or later. */
static bool may_be_ended(struct shadow *s, void *world)
{
	struct world *w = world;

	return is_ended(s, NULL) || (s->lever >= 0 && atomic_load(&w->pulled[s->lever]));
}

bool must_be_done(struct world *w, int t, struct shadow *s)
{
	return s->node->deadline <= ctxfd_now() || any_above(w, t, s->node, is_ended, NULL);
}

struct set {
	struct shadow *const *members;
	int n;
};

static bool is_in(struct shadow *s, void *arg)
{
	const struct set *set = arg;

	for (int i = 0; i < set->n; i++)
		if (set->members[i]->node == s)
			return true;
	return false;
}

bool below_any(struct world *w, int t, struct shadow *s, struct shadow *const *set, int n)
{
	return any_above(w, t, s, is_in, &(struct set){ set, n });
}

/* A cancel without a cause, that began before `before`. */
static bool cancel_began(struct shadow *s, void *before)
{
	int64_t began = atomic_load(&s->cancel_began);

	return began && began < *(int64_t *)before;
}

struct expiry {
	int cause;
	int64_t now;
};

static bool has_expired(struct shadow *s, void *arg)
{
	const struct expiry *e = arg;

	return s->own_deadline && s->expiry == e->cause && s->deadline <= e->now;
}

static bool watches(struct shadow *s, void *cause)
{
	return s->lever >= 0 && LEVER_CAUSE + s->lever == *(int *)cause;
}

/* ---- Claims ------------------------------------------------------------------------------------------------------ */

#define CLAIM(ok, ...)                       \
	do {                                 \
		if (!(ok))                   \
			broken(__VA_ARGS__); \
	} while (0)

/* i is the number of the shadow whose timeout it should have been. */
static void check_idle(struct world *w, int t, struct shadow *n, int i)
{
	struct shadow *idle = &w->shadows[i];

	CLAIM(i < atomic_load_explicit(&w->made, memory_order_relaxed) && below_any(w, t, n, &idle, 1),
	      "#%d ended by the idle timeout of #%d, which is not above", number(w, n), i);
	CLAIM(may_be_idle(idle, NULL), "#%d ended by the idle timeout of #%d, which was touched in time", number(w, n),
	      i);
}

static bool is_of_grace(int cause)
{
	return cause >= GRACE_CAUSE && cause < GRACE_CAUSE + MAX_SHADOWS;
}

/*
 * i is the number of the shadow whose grace it should have been. Only n itself is sure to be there: a merge that was
 * born done does not keep its second parent.
 */
static void check_grace(struct world *w, int t, struct shadow *n, int i)
{
	struct shadow *g = &w->shadows[i];

	CLAIM(i < atomic_load_explicit(&w->made, memory_order_relaxed) && below_any(w, t, n, &g, 1),
	      "#%d ended by the grace of #%d, which is not above", number(w, n), i);
	CLAIM(n != g || ctxfd_err(g->parent->ctx), "#%d is over, but its parent is live", i);
	CLAIM(n != g || must_be_over(g), "#%d is over before its time", i);
}

/* Lowers `first` to a time that is not later than any end of s. */
static bool may_end_first(struct shadow *s, void *first)
{
	int64_t at = atomic_load(&s->end_began), told = atomic_load(&s->told);

	if (at > s->deadline)
		at = s->deadline;
	if (s->grace >= 0 && at > told)
		at = told;
	if (s->lever >= 0 || s->timeout >= 0)
		at = 0;
	if (at < *(int64_t *)first)
		*(int64_t *)first = at;
	return false;
}

/* What a grace context tells. */
static void ask_grace(struct world *w, int t, struct shadow *g)
{
	int ended = ctxfd_err(g->parent->ctx);
	int64_t at = INT64_MAX, was = 0, first = INT64_MAX, latest;

	if (!ctxfd_deadline(g->ctx, &at)) {
		CLAIM(!ended || g->grace == INT64_MAX, "#%d does not tell its deadline", number(w, g));
		return;
	}
	CLAIM(ctxfd_err(g->parent->ctx), "#%d tells a deadline, but its parent is live", number(w, g));
	if (!atomic_compare_exchange_strong(&g->told, &was, at))
		CLAIM(was == at, "#%d tells another deadline, later by %lld", number(w, g), (long long)(at - was));
	at -= g->grace;
	/* A parent whose deadline passed before g was there may be counted from any moment of the call that made g. */
	latest = g->parent->deadline > g->returned ? g->parent->deadline : g->returned;
	CLAIM(at <= latest, "#%d counts from %lld after the deadline of its parent", number(w, g),
	      (long long)(at - latest));
	any_above(w, t, g->parent, may_end_first, &first);
	CLAIM(at >= first, "#%d counts from %lld before the end of its parent", number(w, g), (long long)(first - at));
}

/* Somebody can have ended n so. */
static void check_reason(struct world *w, int t, struct shadow *n, uint64_t v)
{
	int err = err_in(v), cause = cause_in(v), i = cause - CANCEL_CAUSE;
	/* Seen live, it was not born done, and the first end, its own deadline's perhaps, was the one to stay. */
	int64_t before = atomic_load(&n->lived) ? n->deadline : INT64_MAX;
	struct expiry e = { cause, ctxfd_now() };

	if (err == -ETIMEDOUT && cause >= IDLE_CAUSE && cause < IDLE_CAUSE + MAX_SHADOWS) {
		check_idle(w, t, n, cause - IDLE_CAUSE);
		return;
	}
	if (err == -ETIMEDOUT && is_of_grace(cause)) {
		check_grace(w, t, n, cause - GRACE_CAUSE);
		return;
	}
	if (err == -ETIMEDOUT) {
		CLAIM(any_above(w, t, n, has_expired, &e), "#%d expired with cause %d, which no deadline gave",
		      number(w, n), cause);
		CLAIM(!atomic_load(&n->lived) || cause == n->expiry, "#%d expired with cause %d, not %d", number(w, n),
		      cause, n->expiry);
		return;
	}
	CLAIM(err == -ECANCELED, "#%d: err %d", number(w, n), err);
	if (cause == -ECANCELED) {
		CLAIM(any_above(w, t, n, cancel_began, &before), "#%d is cancelled, but nobody did it in time",
		      number(w, n));
		return;
	}
	if (cause >= LEVER_CAUSE && cause < LEVER_CAUSE + LEVERS) {
		CLAIM(atomic_load(&w->pulled[cause - LEVER_CAUSE]) && any_above(w, t, n, watches, &cause),
		      "#%d is cancelled by a lever that it does not watch, or nobody has pulled", number(w, n));
		return;
	}
	/* Relaxed: what was written before a cancel is seen by who sees its cause. */
	CLAIM(i >= 0 && i < atomic_load_explicit(&w->caused, memory_order_relaxed) && w->causes[i].target &&
	              below_any(w, t, n, &w->causes[i].target, 1),
	      "#%d has cause %d, which nobody gave above", number(w, n), cause);
	CLAIM(w->causes[i].began < before, "#%d: its deadline had passed when the cancel %d began", number(w, n), i);
}

/* Somebody has seen n done, with this verdict. */
static void note(struct world *w, int t, struct shadow *n, int err, int cause)
{
	uint64_t v = verdict(err, cause), was = 0;

	CLAIM(cause != 0, "#%d: err %d without a cause", number(w, n), err);
	check_reason(w, t, n, v);
	if (!atomic_compare_exchange_strong(&n->seen, &was, v))
		CLAIM(was == v, "#%d: was %d, %d and is %d, %d", number(w, n), err_in(was), cause_in(was), err, cause);
	CLAIM(!n->born || n->born == v, "#%d: born of %d, %d, is %d, %d", number(w, n), err_in(n->born),
	      cause_in(n->born), err, cause);
}

void look(struct world *w, int t, struct shadow *s)
{
	struct shadow *n = s->node;
	bool ended = any_above(w, t, n, is_ended, NULL), shown, shown_after;
	int64_t before = ctxfd_now(), after;
	int fd = atomic_load(&n->fd), err, cause;

	shown = fd >= 0 && shows(fd);
	after = ctxfd_now();
	err = ctxfd_err(s->ctx);
	shown_after = fd >= 0 && shows(fd);
	cause = ctxfd_cause(s->ctx);
	CLAIM(err || !shown, "#%d: fd readable, err 0", number(w, n));
	CLAIM(!err || fd < 0 || shown_after, "#%d: err %d, fd not readable", number(w, n), err);
	CLAIM(err || !ended, "#%d is live, but itself or an ancestor is not", number(w, n));
	/* Where the clock may have decided the kernel makes the fd readable, some microseconds later. */
	CLAIM(!ended || fd < 0 || shown || n->deadline <= after, "#%d: an end above does not show in its fd",
	      number(w, n));
	CLAIM(err || n->deadline > before, "#%d is live, but its deadline has passed", number(w, n));
	if (err)
		note(w, t, n, err, cause);
	else
		atomic_store(&n->lived, true);
	if (n->grace >= 0)
		ask_grace(w, t, n);
}

void look_at_rest(struct world *w, struct shadow *s)
{
	struct shadow *n = s->node;
	bool ended = any_above(w, 0, n, may_be_ended, w);
	int err;

	look(w, 0, s);
	err = ctxfd_err(s->ctx);
	CLAIM(!err || ended || n->deadline <= ctxfd_now() || any_above(w, 0, n, may_be_idle, NULL) ||
	              is_of_grace(ctxfd_cause(s->ctx)),
	      "#%d: err %d, but nobody ended it", number(w, n), err);
	look(w, 0, s);
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

static void destroyed(void *value)
{
	struct value *v = value;

	CLAIM(atomic_fetch_add(&v->destroyed, 1) == 0, "a value is destroyed twice");
}

static char keys[8];

/* What the first few numbers of a time stand for. */
static int64_t odd_time(const struct shadow *parent, int n, int64_t from, bool timeout)
{
	switch (n) {
	case 0:
		return timeout ? 0 : from - 1;
	case 1:
		return INT64_MIN;
	case 2:
		return INT64_MAX;
	case 3:
		return timeout ? -1 : parent->deadline;
	default:
		return timeout ? n * UNIT : from + n * UNIT;
	}
}

/* Every other one has a cause of its own. */
static struct ctxfd *make_timed(struct world *w, struct shadow *s, const struct op *op)
{
	const struct ctxfd *a = s->parent->ctx;
	bool timeout = op->what == OP_TIMEOUT;
	int64_t at = odd_time(s->parent, op->n, w->start, timeout), before = ctxfd_now(), after, got = INT64_MAX;
	int cause = DEADLINE_CAUSE + number(w, s);
	struct ctxfd *ctx;

	if (op->n & 1)
		ctx = timeout ? ctxfd_with_timeout_cause(a, at, cause) : ctxfd_with_deadline_cause(a, at, cause);
	else
		ctx = timeout ? ctxfd_with_timeout(a, at) : ctxfd_with_deadline(a, at);
	if (!ctx)
		return NULL;
	after = ctxfd_now();
	ctxfd_deadline(ctx, &got);
	if (ctx->graced) { /* an earlier one may have become known */
		CLAIM(got <= ctx->deadline, "#%d: deadline %" PRId64, number(w, s), got);
		got = ctx->deadline;
	}
	if (!timeout) {
		CLAIM(got == (at < s->deadline ? at : s->deadline), "#%d: deadline %" PRId64, number(w, s), got);
	} else if (at > INT64_MAX - after) {
		CLAIM(got == s->deadline, "#%d: a timeout of forever is %" PRId64, number(w, s), got);
	} else {
		CLAIM(got <= s->deadline && got <= after + at && (got == s->deadline || got >= before + at),
		      "#%d: a timeout gives the deadline %" PRId64, number(w, s), got);
	}
	if (got < s->deadline) {
		s->deadline = got;
		s->own_deadline = true;
		s->expiry = op->n & 1 ? cause : -ETIMEDOUT;
	}
	return ctx;
}

static void make_idle(struct world *w, struct shadow *s, const struct op *op)
{
	int64_t timeout = odd_time(s->parent, op->n, w->start, true);

	atomic_init(&s->touched, ctxfd_now());
	s->timeout = timeout == INT64_MAX ? -1 : timeout < 0 ? 0 : timeout;
	s->ctx = ctxfd_with_idle(s->parent->ctx, timeout, IDLE_CAUSE + number(w, s));
	atomic_init(&s->untouched, ctxfd_now());
	CLAIM(!s->ctx || s->timeout != 0 || ctxfd_err(s->ctx), "#%d is live, but its timeout is 0", number(w, s));
}

static void make_grace(struct world *w, struct shadow *s, const struct op *op)
{
	int64_t grace = odd_time(s->parent, op->n, w->start, true);

	s->deadline = INT64_MAX;
	s->expiry = 0;
	s->grace = grace < 0 ? 0 : grace;
	s->ctx = ctxfd_with_grace(s->parent->ctx, grace, GRACE_CAUSE + number(w, s));
	s->returned = ctxfd_now();
}

static void make_merge(struct shadow *s, const struct shadow *b)
{
	s->ctx = ctxfd_merge(s->parent->ctx, b->ctx);
	if (b->deadline < s->deadline) {
		s->deadline = b->deadline;
		s->expiry = b->expiry;
	}
}

/* NULL: the library's. */
static struct ctxfd_dispatcher *dispatcher(struct world *w, int n)
{
	n = (n & INT16_MAX) % (1 + LOOPS);
	return n ? w->loops[n - 1].dispatcher : NULL;
}

struct shadow *make_shadow(struct world *w, int t, const struct op *op, struct shadow *a, struct shadow *b)
{
	int i = atomic_fetch_add_explicit(&w->made, 1, memory_order_relaxed);
	struct shadow *s = &w->shadows[i];
	int pulled, before = refusals();
	uint64_t born;

	if (i >= MAX_SHADOWS)
		return NULL;
	*s = (struct shadow){ .parent = a,
		              .node = s,
		              .made = op->what,
		              .deadline = a->deadline,
		              .expiry = a->expiry,
		              .lever = -1,
		              .timeout = -1,
		              .grace = -1,
		              .end_began = INT64_MAX };
	atomic_init(&s->fd, -1);
	born = atomic_load(&a->node->seen);
	switch (op->what) {
	case OP_DEADLINE:
	case OP_TIMEOUT:
		s->ctx = make_timed(w, s, op);
		break;
	case OP_MERGE:
		s->second = b;
		make_merge(s, b);
		break;
	case OP_VALUE:
		s->node = a->node;
		s->value.key = op->n & 7;
		s->ctx = (struct ctxfd *)(uintptr_t)ctxfd_with_value(a->ctx, &keys[s->value.key], &s->value, destroyed);
		break;
	case OP_WATCH:
		s->lever = op->n & (LEVERS - 1);
		pulled = atomic_load(&w->pulled[s->lever]);
		s->ctx = ctxfd_with_fd(a->ctx, lever_fd(s->lever), POLLIN, LEVER_CAUSE + s->lever);
		CLAIM(!s->ctx || pulled < 2 || ctxfd_err(s->ctx), "#%d is live, but its lever is pulled", i);
		break;
	case OP_IDLE:
		make_idle(w, s, op);
		break;
	case OP_GRACE:
		born = 0;
		make_grace(w, s, op);
		break;
	case OP_LOOP:
		s->node = a->node;
		s->ctx = (struct ctxfd *)(uintptr_t)ctxfd_with_dispatcher(a->ctx, dispatcher(w, op->n));
		break;
	case OP_WITHOUT:
		s->node = &w->shadows[0];
		s->deadline = INT64_MAX;
		s->ctx = (struct ctxfd *)(uintptr_t)ctxfd_without_cancel(a->ctx);
		break;
	default:
		s->ctx = ctxfd_with_cancel(a->ctx);
	}
	(void)t;
	if (!s->ctx) {
		CLAIM(may_fail(-errno, before), "#%d is not made: %d", i, errno);
		destroyed(&s->value); /* it never will be */
		return NULL;
	}
	if (s->node == s)
		s->born = born;
	return s;
}

/* ---- Doing and asking -------------------------------------------------------------------------------------------- */

void cancel_shadow(struct world *w, int t, struct shadow *s, bool with_cause, bool close)
{
	int64_t now = ctxfd_now(), none = 0, began = atomic_load(&s->end_began);
	int i;

	(void)t;
	if (s->node != s || s->made == WHATS) { /* const, or never done */
		if (close)
			ctxfd_unref(s->ctx);
		return;
	}
	while (now < began && !atomic_compare_exchange_weak(&s->end_began, &began, now))
		continue;
	i = with_cause ? atomic_fetch_add_explicit(&w->caused, 1, memory_order_relaxed) : MAX_CAUSES;
	if (i < MAX_CAUSES) {
		w->causes[i].began = now;
		w->causes[i].target = s;
		ctxfd_cancel_cause(s->ctx, CANCEL_CAUSE + i);
	} else {
		atomic_compare_exchange_strong(&s->cancel_began, &none, now);
		if (close)
			ctxfd_close(s->ctx);
		else
			ctxfd_cancel(s->ctx);
	}
	atomic_store(&s->cancelled, true);
}

static void raise_to(_Atomic int64_t *time, int64_t at)
{
	int64_t was = atomic_load(time);

	while (was < at && !atomic_compare_exchange_weak(time, &was, at))
		continue;
}

/* What is no idle context is touched as well, and does not mind. */
void touch_shadow(struct world *w, int t, struct shadow *s)
{
	int64_t before = ctxfd_now();

	ctxfd_touch(s->ctx);
	raise_to(&s->untouched, ctxfd_now());
	if (!ctxfd_err(s->ctx))
		raise_to(&s->touched, before);
	look(w, t, s);
}

void ask_fd(struct world *w, int t, struct shadow *s)
{
	struct shadow *n = s->node;
	bool ended = any_above(w, t, n, is_ended, NULL);
	int before = refusals(), fd = ctxfd_done_fd(s->ctx), none = -1;

	if (fd < 0) {
		CLAIM(may_fail(fd, before), "#%d: no fd: %d", number(w, n), fd);
		return;
	}
	if (!atomic_compare_exchange_strong(&n->fd, &none, fd))
		CLAIM(none == fd, "#%d: fd was %d, is %d", number(w, n), none, fd);
	CLAIM(!ended || shows(fd), "#%d is done, but the fd it gives is not readable", number(w, n));
}

void ask_value(struct world *w, int t, struct shadow *s, int key)
{
	const struct shadow *at = s;
	const struct value *v = ctxfd_value(s->ctx, &keys[key & 7]);

	(void)t;
	while (at && !(at->made == OP_VALUE && at->value.key == (key & 7)))
		at = at->parent;
	CLAIM(v == (at ? &at->value : NULL), "#%d: another value", number(w, s));
	CLAIM(!v || !atomic_load(&v->destroyed), "#%d: its value is destroyed", number(w, s));
}

void wait_shadow(struct world *w, int t, struct shadow *s)
{
	int err = ctxfd_wait(s->ctx), fd = atomic_load(&s->node->fd);

	CLAIM(fd < 0 || shows(fd), "#%d: wait returned, fd not readable", number(w, s));
	note(w, t, s->node, err, ctxfd_cause(s->ctx));
}

/* 0 or err from a call that may last ns. */
static void check_result(struct world *w, int t, struct shadow *s, int result, bool ended, int64_t start, int64_t ns)
{
	int fd = atomic_load(&s->node->fd);

	if (result == 0) {
		CLAIM(ctxfd_now() - start >= ns, "#%d: slept too short", number(w, s));
		CLAIM(!ended && s->node->deadline > start, "#%d is done, sleeping on it is not", number(w, s));
	} else {
		CLAIM(fd < 0 || shows(fd), "#%d: a call was interrupted, fd not readable", number(w, s));
		note(w, t, s->node, result, ctxfd_cause(s->ctx));
	}
}

void sleep_shadow(struct world *w, int t, struct shadow *s, int64_t ns)
{
	bool ended = any_above(w, t, s->node, is_ended, NULL);
	int64_t start = ctxfd_now();

	check_result(w, t, s, ctxfd_sleep(s->ctx, ns), ended, start, ns);
}

/* On an fd that never shows anything. */
void poll_shadow(struct world *w, int t, struct shadow *s, int64_t ns)
{
	bool ended = any_above(w, t, s->node, is_ended, NULL);
	struct pollfd one = { .fd = ctxfd_done_fd(ctxfd_background()), .events = POLLIN };
	int64_t start = ctxfd_now();

	/* Without an fd it sleeps all the same. */
	check_result(w, t, s, ctxfd_poll(s->ctx, &one, 1, ns), ended, start, ns);
}
