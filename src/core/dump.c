/* SPDX-License-Identifier: MIT */
/*
 * The tree in words, for a person: ctxfd_dump. First a snapshot is made, then it is written, with no lock held and no
 * context owned.
 *
 * The snapshot is an array in which the children of a context stand side by side, the contexts of one level behind
 * those of the level above. So it needs neither recursion nor a stack. It is taken list by list:
 *
 *   A LIST is read under its lock, some contexts at a time; our place in it is held by a node of our own, the cursor,
 *   as that of a waiting call is. Other threads link and unlink meanwhile. What they do may be seen or not.
 *
 *   A CONTEXT WITH CHILDREN becomes ours as well until its list has been read (ctxfdi_own_parent). One without is not
 *   touched any more once the lock is given back.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/fork.h"
#include "core/futex.h"
#include "core/lock.h"
#include "core/look.h"
#include "core/own.h"
#include "core/shard.h"
#include "core/thread_cancel.h"

/* What was seen of a context. */
struct entry {
	struct ctxfd *ctx; /* only its address, unless it is owned */
	uint64_t word;
	int64_t deadline;             /* known by now */
	size_t parent, children, end; /* numbers of entries: the one above; those below are [children, end) */
	uint32_t refs;
	int fd;
	uint8_t kind;
	bool passed; /* the deadline in effect was over at the snapshot's time */
	bool owned;  /* by us, until its list has been read */
};

struct snapshot {
	struct entry *entries;
	size_t n, room;
	int64_t time;
};

/*
 * How many contexts are read under a lock at a time, and how long others get it in between. They nap while they wait
 * for it (lock.h), so they need that long to notice.
 */
#define AT_ONCE 256
#define PAUSE   (50 * CTXFD_USEC)

/* Makes room for AT_ONCE more entries. */
static bool reserve(struct snapshot *s)
{
	size_t room = s->n + AT_ONCE;
	struct entry *more;

	if (s->room >= room)
		return true;
	if (room < 2 * s->room)
		room = 2 * s->room;
	more = malloc_quietly(room * sizeof *more);
	if (!more)
		return false;
	if (s->n)
		memcpy(more, s->entries, s->n * sizeof *more);
	free(s->entries);
	s->entries = more;
	s->room = room;
	return true;
}

/* What ctxfdi_deadline_of returns. But that would climb, under a lock, to a grace that may be far above. */
static int64_t deadline_below(const struct entry *parent, const struct ctxfd *n)
{
	if (ctxfdi_kinds[n->kind].deadline)
		return ctxfdi_deadline_of(n);
	return n->graced && parent->deadline < n->deadline ? parent->deadline : n->deadline;
}

static void add_context(struct snapshot *s, struct ctxfd *n, size_t parent)
{
	bool first = !s->n;
	struct entry *e = &s->entries[s->n++];

	claim(s->n <= s->room);
	if (n->kind == KIND_GRACE_WATCH)
		n = &container_of(n, struct beside, watch)->ctx;
	*e = (struct entry){
		.ctx = n,
		.word = load_word(n),
		.deadline = first ? ctxfdi_deadline_of(n) : deadline_below(&s->entries[parent], n),
		.passed = n->deadline <= s->time,
		.parent = parent,
		.refs = atomic_load_explicit(&n->refs, memory_order_relaxed),
		.fd = atomic_load_explicit(&n->forks, memory_order_relaxed) == ctxfdi_forks
		              ? atomic_load_explicit(&n->fd, memory_order_relaxed)
		              : -1,
		.kind = n->kind,
	};
	if (e->word & CTX_LINK) /* of a merge, which is listed with its first parent */
		e->ctx = &container_of(n, struct merge, link)->ctx;
	else if (e->word & CTX_CHILDREN)
		e->owned = ctxfdi_own_parent(n);
}

/*
 * Adds what follows the cursor in the locked list, AT_ONCE contexts at most, and moves the cursor behind them. Takes
 * the LOCK of those that have children. True: the end of the list is reached.
 */
static bool add_some(struct snapshot *s, struct ctxfd *cursor, size_t parent)
{
	struct ctxfd *n = cursor, **place;

	for (int i = 0; i < AT_ONCE && n->next; i++) {
		n = n->next;
		if (n->kind != KIND_DUMP) /* another thread's cursor */
			add_context(s, n, parent);
	}
	if (n != cursor) {
		place = &n->next;
		list_take_out(cursor);
		list_insert(place, cursor);
	}
	return !cursor->next;
}

/*
 * Puts the cursor into the locked list, which is p's (shard 0) or that of p's shard of that number, behind what is
 * hidden. seen: the word of the list's node. False: the list is empty.
 */
static bool enter(struct ctxfd *p, struct ctxfd *list, uint64_t seen, struct ctxfd *cursor, int shard)
{
	if (!(seen & CTX_CHILDREN))
		return false;
	init_node(cursor, p, KIND_DUMP);
	atomic_init(&cursor->word, flags_of(KIND_DUMP));
	cursor->deadline = INT64_MAX;
	cursor->shard = (uint8_t)shard;
	cursor->linked = true;
	list_insert(list_head(list, seen), cursor);
	return true;
}

/* Reads the list that the cursor is in. 0 or -ENOMEM. */
static int read_list(struct snapshot *s, struct ctxfd *cursor, size_t parent)
{
	struct ctxfd *list = list_owner(cursor), *dead;
	bool all = false, room;

	while ((room = reserve(s)) && !all) {
		lock(list);
		all = add_some(s, cursor, parent);
		unlock(list, 0);
		if (!all)
			ctxfdi_nap(ctxfd_now() + PAUSE);
	}
	dead = ctxfdi_unpark(cursor);
	if (dead)
		ctxfdi_dispose(dead);
	return room ? 0 : -ENOMEM;
}

/* As enter, for a shard. Holds p's lock meanwhile, as well as the shard's: empty shards may go. */
static bool enter_shard(struct ctxfd *p, int number, struct ctxfd *cursor)
{
	uint64_t w = lock(p);
	bool entered = false;

	if (w & CTX_SHARDED) {
		struct ctxfd *shard = &shards_of(p)->shard[number - 1].node;

		entered = enter(p, shard, lock(shard), cursor, number);
		unlock(shard, 0);
	}
	unlock(p, 0);
	return entered;
}

/* Adds the children of the context of that number, which is ours, and gives it up. 0 or -ENOMEM. */
static int expand(struct snapshot *s, size_t number)
{
	struct ctxfd *p = s->entries[number].ctx, cursor;
	bool entered;
	int err = 0;

	s->entries[number].children = s->n;
	entered = enter(p, p, lock(p), &cursor, 0);
	unlock(p, 0);
	if (entered)
		err = read_list(s, &cursor, number);
	for (int shard = 1; shard <= SHARDS && !err; shard++)
		if (enter_shard(p, shard, &cursor))
			err = read_list(s, &cursor, number);
	s->entries[number].end = s->n;
	return err;
}

/* What is below node. 0 or -ENOMEM; all of it is given up. */
static int take_snapshot(struct snapshot *s, struct ctxfd *node)
{
	int err = reserve(s) ? 0 : -ENOMEM;

	s->time = ctxfd_now();
	if (err)
		return err;
	add_context(s, mutable(ctxfd_ref(node)), 0);
	s->entries[0].refs -= !(s->entries[0].word & CTX_NEVER);
	for (size_t i = 0; i < s->n; i++) {
		if (s->entries[i].owned && !err)
			err = expand(s, i);
		if (s->entries[i].owned)
			ctxfd_unref(s->entries[i].ctx);
	}
	ctxfd_unref(node);
	return err;
}

/* ---- In words ---------------------------------------------------------------------------------------------------- */

struct output {
	int fd, err;
	size_t used;
	char text[4096];
};

static void flush(struct output *o)
{
	struct pollfd room = { .fd = o->fd, .events = POLLOUT };

	for (size_t written = 0; written < o->used && !o->err;) {
		ssize_t n = write(o->fd, o->text + written, o->used - written);

		if (n >= 0)
			written += (size_t)n;
		else if (errno == EAGAIN)
			poll(&room, 1, -1);
		else if (errno != EINTR)
			o->err = -errno;
	}
	o->used = 0;
}

/* The longest that is said at once. */
#define PHRASE 256

__attribute__((format(printf, 2, 3))) static void say(struct output *o, const char *format, ...)
{
	va_list arguments;
	int n;

	if (o->used > sizeof o->text - PHRASE)
		flush(o);
	va_start(arguments, format);
	n = vsnprintf(o->text + o->used, PHRASE, format, arguments);
	va_end(arguments);
	o->used += (size_t)(n < PHRASE ? n : PHRASE - 1);
}

static void say_how_it_is(struct output *o, const struct entry *e, int64_t time)
{
	uint64_t w = e->word;
	bool passed = w & CTX_TIMED && e->passed;
	int err = w & (CTX_DONE | CTX_PENDING) ? err_of(w) : -ETIMEDOUT, cause = (int)(w >> CAUSE_SHIFT);

	if (w & CTX_DONE || passed) {
		say(o, "done: %s", ctxfd_strerror(err));
		if (cause && cause != err)
			say(o, ", cause %d: %s", cause, ctxfd_strerror(cause));
		return;
	}
	say(o, w & CTX_PENDING ? "being cancelled" : "live");
	if (e->deadline != INT64_MAX) {
		int64_t left = e->deadline > time ? (e->deadline - time) / CTXFD_MSEC : 0;

		say(o, ", %" PRId64 ".%03d s left", left / 1000, (int)(left % 1000));
	}
}

/* Depths beyond this are shown by their number: a chain may be a million deep. */
#define DEEPEST 32

static void say_entry(struct output *o, const struct entry *e, size_t depth, int64_t time)
{
	const char *name = ctxfdi_kinds[e->kind].name;

	say(o, "%*s", 2 * (int)(depth < DEEPEST ? depth : DEEPEST), "");
	if (depth > DEEPEST)
		say(o, "(%zu) ", depth);
	if (e->word & CTX_RINGS) {
		say(o, "a thread waits: %s\n", name);
		return;
	}
	say(o, "%s %p: ", name, (void *)e->ctx);
	if (e->word & CTX_LINK) {
		say(o, "listed below its first parent\n");
		return;
	}
	if (e->word & CTX_NEVER) {
		say(o, "never done; what is made from it is not listed\n");
		return;
	}
	say_how_it_is(o, e, time);
	if (!(e->word & CTX_HOOK))
		say(o, ", %" PRIu32 " reference%s", e->refs, e->refs == 1 ? "" : "s");
	if (e->fd >= 0)
		say(o, ", done fd %d", e->fd);
	say(o, "\n");
}

/*
 * The one below i, else the one beside it, else beside one above. Lists begin with the youngest, and are told from the
 * end.
 */
static size_t next_entry(const struct snapshot *s, size_t i, size_t *depth)
{
	const struct entry *e = s->entries;

	if (e[i].children < e[i].end) {
		++*depth;
		return e[i].end - 1;
	}
	while (i != 0 && i == e[e[i].parent].children) {
		--*depth;
		i = e[i].parent;
	}
	return i ? i - 1 : s->n;
}

int ctxfd_dump(const struct ctxfd *ctx, int fd)
{
	struct thread_cancel before = thread_cancel_off();
	struct output o = { .fd = fd };
	struct snapshot s = { 0 };
	size_t depth = 0;
	int saved = errno, err = ctx ? take_snapshot(&s, node_of(ctx)) : -EINVAL;

	for (size_t i = 0; !err && i < s.n; i = next_entry(&s, i, &depth)) {
		say_entry(&o, &s.entries[i], depth, s.time);
		err = o.err;
	}
	if (!err)
		flush(&o);
	free(s.entries);
	errno = saved;
	thread_cancel_restore(before);
	return err ? err : o.err;
}
