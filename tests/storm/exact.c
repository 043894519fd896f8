/* SPDX-License-Identifier: MIT */
/* Playing a script on the library and on the model. See exact.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exact_parts.h"
#include "core/shard.h"

#define PATIENT (2 * CTXFD_MSEC) /* to wait for a deadline */

/* Causes of deadlines, and the context's number. */
#define DEADLINE_CAUSE 10000
#define CANCEL_CAUSE   20000

struct model model;
struct context contexts[MAX_KNOWN];

/* A script's contexts by letter, or an errand's, whose first is its own context. NOBODY: none. */
static int vars_of_script[MAX_VARS], *vars = vars_of_script, first = 2;
static const struct script *script;
static int sockets[2], bytes; /* in the socket */
static int64_t start;
static char keys[8];

static bool shows(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

/* Whether only a cancel can have ended i: then its fd shows it without being asked. */
static bool is_cancelled_for_sure(int i)
{
	const struct ends *e = &model.of[model.of[i].node].ended;

	for (int j = 0; j < e->n; j++)
		if (e->of[j].err != -ECANCELED)
			return false;
	return e->n > 0;
}

static void look_at_fd(int i)
{
	int64_t from = ctxfd_now();
	int n = model.of[i].node;
	bool shown;
	enum answer is;

	if (contexts[n].fd < 0)
		return;
	shown = shows(contexts[n].fd);
	is = model_is(&model, i, since(from));
	SAME(!shown || is != LIVE, "#%d: fd readable, it should be live", i);
	SAME(shown || !contexts[n].asked, "#%d: fd not readable, it is known to be done", i);
	SAME(shown || is != DONE || !is_cancelled_for_sure(i), "#%d: fd not readable, it is cancelled", i);
	if (shown)
		SAME(ctxfd_err(of(i)) != 0, "#%d: fd readable, err 0", i);
}

/* The library has said that i has ended so; 0: that it is live. cause 0: not asked. */
static void said(int i, int err, int cause, int64_t from)
{
	int n = model.of[i].node;

	SAME(model_saw(&model, i, err, cause, since(from)), "#%d: err %d, cause %d; deadline in %lld ns", i, err, cause,
	     (long long)(model.of[n].deadline - from));
	if (err) {
		contexts[n].asked = true;
		SAME(contexts[n].fd < 0 || shows(contexts[n].fd), "#%d: err %d, fd not readable", i, err);
	}
}

void look(int i)
{
	int64_t from = ctxfd_now();
	int cause;

	look_at_fd(i);
	said(i, ctxfd_err(of(i)), 0, from);
	from = ctxfd_now();
	cause = ctxfd_cause(of(i));
	said(i, cause ? ctxfd_err(of(i)) : 0, cause, from);
	look_at_fd(i);
}

static void look_at_values(void)
{
	for (int i = 2; i < model.n; i++) {
		const struct known *k = &model.of[i];

		if (k->made != OP_VALUE)
			continue;
		SAME(contexts[i].destroyed <= (k->holders == 0), "#%d: its value is destroyed too early, or twice", i);
		SAME(contexts[i].destroyed || k->holders || k->maybes, "#%d: its value is not destroyed", i);
	}
}

static void look_at_all(int curious)
{
	for (int v = 0; v < MAX_VARS; v++)
		if (vars[v] != NOBODY && curious == 1)
			look_at_fd(vars[v]);
		else if (vars[v] != NOBODY && curious == 2)
			look(vars[v]);
}

/* ---- Contexts ---------------------------------------------------------------------------------------------------- */

static void give_up(int *var)
{
	int i = *var;

	*var = NOBODY;
	if (i == NOBODY)
		return;
	ctxfd_unref(of(i));
	model_release(&model, i);
}

static void destroy(void *value)
{
	struct context *c = value;

	c->destroyed++;
}

static int64_t odd_time(int n, int a, bool timeout)
{
	const int64_t odd[] = { timeout ? 0 : start - 1, INT64_MIN, INT64_MAX,
		                timeout ? -1 : model.of[model.of[a].node].deadline };

	return n >= 0 && n < 4 ? odd[n] : n * CTXFD_USEC + (timeout ? 0 : start);
}

static struct ctxfd *make_timed(const struct op *op, int a, int cause)
{
	bool timeout = op->what == OP_TIMEOUT;
	int64_t at = odd_time(op->n, a, timeout);

	if (timeout)
		return cause ? ctxfd_with_timeout_cause(of(a), at, cause) : ctxfd_with_timeout(of(a), at);
	return cause ? ctxfd_with_deadline_cause(of(a), at, cause) : ctxfd_with_deadline(of(a), at);
}

/* What a timeout of n gave, between from and now, is a deadline that it can have given. */
static int64_t check_timeout(const struct op *op, int a, struct ctxfd *ctx, int64_t from)
{
	int64_t at = odd_time(op->n, a, true), to = ctxfd_now(), above = model.of[model.of[a].node].deadline,
	        got = INT64_MAX;

	ctxfd_deadline(ctx, &got);
	if (at > INT64_MAX - to)
		SAME(got == above, "a timeout of forever");
	else
		SAME(got <= above && got <= to + at && (got == above || got >= from + at), "a timeout of %lld ns",
		     (long long)at);
	return got;
}

static void make(const struct op *op, int a, int b)
{
	int i = model.n, cause = op->n & 1 ? DEADLINE_CAUSE + i : 0, lever = op->n & (LEVERS - 1);
	enum what what = op->what;
	struct context *c = &contexts[i];
	int64_t from = ctxfd_now(), at = 0;
	const struct ctxfd *ctx;

	if (i == MAX_KNOWN)
		return;
	*c = (struct context){ .fd = -1, .lever = op->what == OP_WATCH ? lever : NOBODY };
	if (op->what == OP_DEADLINE || op->what == OP_TIMEOUT)
		ctx = make_timed(op, a, cause);
	else if (op->what == OP_VALUE)
		ctx = ctxfd_with_value(of(a), &keys[op->n & 7], c, destroy);
	else if (op->what == OP_WITHOUT)
		ctx = ctxfd_without_cancel(of(a));
	else if (op->what == OP_MERGE)
		ctx = ctxfd_merge(of(a), of(b));
	else if (op->what == OP_LOOP)
		ctx = ctxfd_with_dispatcher(of(a), loops[op->n & (LOOPS - 1)]);
	else if (op->what == OP_WATCH)
		ctx = ctxfd_with_fd(of(a), levers[lever].fd, POLLIN, LEVER_CAUSE + lever);
	else if (op->what == OP_IDLE) /* not within this script */
		ctx = ctxfd_with_idle(of(a), 3600 * CTXFD_SEC, 0);
	else
		ctx = ctxfd_with_cancel(of(a));
	SAME(ctx, "no context: errno %d", errno);
	c->ctx = (struct ctxfd *)(uintptr_t)ctx;
	if (op->what == OP_TIMEOUT) {
		at = check_timeout(op, a, c->ctx, from);
		what = OP_DEADLINE;
	} else if (op->what == OP_DEADLINE) {
		at = odd_time(op->n, a, false);
	}
	model_make(&model, what, a, b, at, cause, since(from));
	model.of[i].key = op->n & 7;
	if (op->what == OP_WATCH && levers[lever].up)
		model_cancel(&model, i, LEVER_CAUSE + lever, since(from));
	give_up(&vars[op->x]);
	vars[op->x] = i;
}

static void ask_fd(int i)
{
	int64_t from = ctxfd_now();
	int fd = ctxfd_done_fd(of(i)), n = model.of[i].node;

	SAME(fd >= 0, "#%d: no fd: %d", i, fd);
	SAME(contexts[n].fd < 0 || contexts[n].fd == fd, "#%d: another fd", i);
	contexts[n].fd = fd;
	/* Asking lets the clock have its say. */
	if (model_is(&model, i, (struct span){ from, from }) == DONE)
		contexts[n].asked = true;
	look_at_fd(i);
}

void cancel(int i, int cause, bool close)
{
	int64_t from = ctxfd_now();

	if (model.of[i].node != i || i < 2)
		return;
	if (close)
		ctxfd_close(of(i));
	else if (cause)
		ctxfd_cancel_cause(of(i), cause);
	else
		ctxfd_cancel(of(i));
	model_cancel(&model, i, cause, since(from));
}

static void ask_value(int i, int key)
{
	int binding = model_binding(&model, i, key & 7);

	SAME(ctxfd_value(of(i), &keys[key & 7]) == (binding == NOBODY ? NULL : &contexts[binding]),
	     "#%d: another value", i);
	SAME(ctxfd_value(of(i), NULL) == NULL, "#%d: a value for no key", i);
}

static void tell(int i)
{
	char whole[8192], part[32];
	int64_t at = INT64_MAX, before = ctxfd_now(), left = ctxfd_remaining(of(i)), after = ctxfd_now();
	int64_t deadline = model.of[model.of[i].node].deadline;
	int n = ctxfd_describe(of(i), whole, sizeof whole), m = ctxfd_describe(of(i), part, sizeof part);

	SAME(n > 0 && n == m && (n >= (int)sizeof whole || (int)strlen(whole) == n), "#%d: describe says %d, %d", i, n,
	     m);
	SAME(!strncmp(whole, part, n < 31 ? (size_t)n + 1 : 31) && strlen(part) == (n < 31 ? (size_t)n : 31),
	     "#%d: describe, cut: %s", i, part);
	SAME(ctxfd_dump(of(i), -1) == -EBADF, "#%d: dump goes anywhere", i);
	SAME(ctxfd_deadline(of(i), &at) == (deadline != INT64_MAX) && at == deadline, "#%d: another deadline", i);
	if (deadline == INT64_MAX)
		SAME(left == INT64_MAX, "#%d: time is left without a deadline", i);
	else if (deadline <= before)
		SAME(left == 0, "#%d: time is left after the deadline", i);
	else
		SAME(left <= deadline - before && (left >= deadline - after || deadline <= after), "#%d: time left", i);
}

/* ---- Calls that wait --------------------------------------------------------------------------------------------- */

static bool ends_soon(int i)
{
	int64_t now = ctxfd_now();

	return model_is(&model, i, (struct span){ now, now }) == DONE ||
	       model.of[model.of[i].node].deadline < now + PATIENT;
}

/*
 * A call under i gave `result`: `done`, if it came to that before i ended, or i's err. ns: how long it waited for it.
 */
static void check_call(int i, int result, int done, int64_t from, int64_t ns)
{
	if (result == done) {
		SAME(ctxfd_now() - from >= ns, "#%d: a call was too short", i);
		/* It looked at i at its beginning. */
		SAME(model_is(&model, i, (struct span){ from, ctxfd_now() }) != DONE,
		     "#%d is done, a call under it succeeds", i);
	} else {
		said(i, result, 0, from);
	}
}

static void wait_for(int i)
{
	int64_t from = ctxfd_now();

	if (ends_soon(i))
		said(i, ctxfd_wait(of(i)), 0, from);
}

static void sleep_under(int i, int64_t ns)
{
	int64_t from = ctxfd_now();

	check_call(i, ctxfd_sleep(of(i), ns), 0, from, ns);
}

static void poll_under(int i, int64_t ns)
{
	struct pollfd p = { .fd = sockets[1], .events = POLLIN };
	int64_t from = ctxfd_now();

	check_call(i, ctxfd_poll(of(i), &p, 1, ns), bytes ? 1 : 0, from, bytes ? 0 : ns);
}

static void transfer(int i, bool in)
{
	int64_t from = ctxfd_now();
	char byte = 'x';
	int n;

	if (in ? !bytes && !ends_soon(i) : bytes > 1000)
		return;
	n = (int)(in ? ctxfd_read(of(i), sockets[1], &byte, 1) : ctxfd_write(of(i), sockets[0], &byte, 1));
	SAME(n != 1 || !in || bytes, "a byte out of nothing");
	check_call(i, n, 1, from, 0);
	if (n == 1)
		bytes += in ? -1 : 1;
}

/* ---- One script -------------------------------------------------------------------------------------------------- */

/* What is said of NULL. */
static void try_nulls(int i)
{
	ctxfd_unref(ctxfd_ref(NULL));
	ctxfd_cancel(NULL);
	ctxfd_cancel_cause(NULL, 1);
	ctxfd_close(NULL);
	SAME(!ctxfd_after_stop(NULL), "stop of NULL");
	SAME(ctxfd_after_func(of(i), NULL, NULL, NULL) == -EINVAL, "an after-func of NULL");
	errno = 0;
	SAME(!ctxfd_with_cancel(NULL) && errno == EINVAL, "a child of NULL");
	errno = 0;
	SAME(!ctxfd_merge(of(i), NULL) && errno == EINVAL, "a merge with NULL");
	errno = 0;
	SAME(!ctxfd_with_value(of(i), NULL, NULL, NULL) && errno == EINVAL, "a value under no key");
}

static bool play_maker(const struct op *op)
{
	int a = vars[op->a], b = op->what == OP_MERGE ? vars[op->b] : a;

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
	case OP_GRACE: /* as if it were a child */
		if (op->x >= first && a != NOBODY && b != NOBODY)
			make(op, a, b);
		return true;
	case OP_REF:
		if (op->x >= first && a != NOBODY) {
			ctxfd_ref(of(a));
			model_hold(&model, a);
			give_up(&vars[op->x]);
			vars[op->x] = a;
		}
		return true;
	default:
		return false;
	}
}

static bool play_other(const struct op *op)
{
	switch (op->what) {
	case OP_CLOCK:
		while (ctxfd_now() < start + op->n * CTXFD_USEC)
			continue;
		return true;
	case OP_STOP:
		stop(op->n);
		return true;
	case OP_SERVE:
	case OP_EDGE:
		dispatch_due();
		return true;
	case OP_PULL:
		pull(op->n & (LEVERS - 1));
		return true;
	case OP_TAKE:
		return true;
	default:
		return false;
	}
}

static void play_user(const struct op *op, int i)
{
	switch (op->what) {
	case OP_FREE:
		give_up(&vars[op->x]);
		break;
	case OP_CANCEL:
	case OP_CAUSE:
		cancel(i, op->what == OP_CAUSE ? CANCEL_CAUSE + i : 0, false);
		break;
	case OP_CLOSE:
		if (model.of[i].node != i || i < 2) /* a value context, which is const, or a root */
			break;
		if (op->x < first) {
			ctxfd_ref(of(i));
			cancel(i, 0, true);
			break;
		}
		cancel(i, 0, true);
		model_release(&model, i);
		vars[op->x] = NOBODY;
		break;
	case OP_TOUCH:
		ctxfd_touch(of(i));
		break;
	case OP_FD:
		ask_fd(i);
		break;
	case OP_LOOK:
		look(i);
		break;
	case OP_WAIT:
		wait_for(i);
		break;
	case OP_SLEEP:
		sleep_under(i, op->n * CTXFD_USEC);
		break;
	case OP_POLL:
		poll_under(i, op->n * CTXFD_USEC);
		break;
	case OP_GET:
		ask_value(i, op->n);
		break;
	case OP_SPLIT:
		if (model.of[i].node == i && i >= 2)
			ctxfdi_split_children(of(i));
		break;
	case OP_AFTER:
		arm(i, op);
		break;
	case OP_READ:
	case OP_WRITE:
		transfer(i, op->what == OP_READ);
		break;
	case OP_TELL:
		tell(i);
		break;
	case OP_NULLS:
		try_nulls(i);
		break;
	default:
		break;
	}
}

static void begin(void)
{
	const struct ctxfd *roots[] = { ctxfd_background(), ctxfd_todo() };

	begin_model(&model);
	begin_errands();
	for (int v = 0; v < MAX_VARS; v++)
		vars[v] = v < 2 ? v : NOBODY;
	for (int i = 0; i < 2; i++) {
		contexts[i] = (struct context){ .fd = -1, .lever = NOBODY };
		contexts[i].ctx = (struct ctxfd *)(uintptr_t)ctxfd_with_dispatcher(roots[i], loops[0]);
		SAME(of(i), "no context: errno %d", errno);
	}
	SAME(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0, "no sockets");
	bytes = 0;
	start = ctxfd_now();
}

static void end(void)
{
	for (int v = 0; v < MAX_VARS; v++)
		if (vars[v] != NOBODY)
			look(vars[v]);
	end_errands();
	for (int v = 2; v < MAX_VARS; v++)
		give_up(&vars[v]);
	look_at_values();
	for (int i = 0; i < 2; i++)
		ctxfd_unref(of(i));
	for (int l = 0; l < LOOPS; l++)
		ctxfd_dispatcher_free(loops[l]);
	close(sockets[0]);
	close(sockets[1]);
}

static void play(const struct op *op)
{
	int least = op->what == OP_FREE ? first : op->what == OP_CLOSE ? 2 : 0;

	errno = 77;
	if (!play_maker(op) && !play_other(op) && vars[op->x] != NOBODY && op->x >= least)
		play_user(op, vars[op->x]);
	SAME(errno == 77 || op->what == OP_NULLS, "errno is changed to %d", errno);
	look_at_values();
}

/* What it has left in its hands goes to the script, where that has room. */
void play_errand(int list, int i)
{
	int mine[MAX_VARS] = { 0, 1, i }, *before = vars, before_first = first;

	for (int v = 3; v < MAX_VARS; v++)
		mine[v] = NOBODY;
	vars = mine;
	first = 3;
	for (int n = 0; n < script->count[list]; n++)
		play(&script->ops[list][n]);
	for (int v = 3; v < MAX_VARS; v++)
		if (vars_of_script[v] == NOBODY)
			vars_of_script[v] = mine[v];
		else
			give_up(&mine[v]);
	vars = before;
	first = before_first;
}

void play_exact(const struct script *s, int curious)
{
	script = s;
	begin();
	for (int n = 0; n < s->count[0]; n++) {
		play(&s->ops[0][n]);
		look_at_all(curious);
	}
	end();
}
