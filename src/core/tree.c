/* SPDX-License-Identifier: MIT */
/*
 * The tree: how contexts come into it. context.h says what guards what; how they end is in cancel.c, and how they leave
 * it in own.c.
 */
#include <stdlib.h>

#include "core/clock.h"
#include "core/lock.h"
#include "core/look.h"
#include "core/shard.h"
#include "core/tree.h"

/* Their words must be what flags_of returns for their kinds; C does not let that stand in an initializer. */
static struct ctxfd background = { .word = CTX_NEVER, .fd = -1, .deadline = INT64_MAX, .kind = KIND_BACKGROUND };
static struct ctxfd todo = { .word = CTX_NEVER, .fd = -1, .deadline = INT64_MAX, .kind = KIND_TODO };

const struct ctxfd *ctxfd_background(void)
{
	return &background;
}

const struct ctxfd *ctxfd_todo(void)
{
	return &todo;
}

/* Under p's lock. Apart from LOCK, p's word is `seen`. Returns what changes in it. */
static uint64_t link_child(struct ctxfd *p, uint64_t seen, struct ctxfd *child)
{
	struct ctxfd **head = list_head(p, seen);
	uint64_t change = has_children(p, seen) ? 0 : CTX_CHILDREN;

	claim(has_flag(p, CTX_LOCK));
	child->linked = true;
	list_insert(head, child);
	return change;
}

/* Makes n one of parent's owners, where no place in parent's list keeps it alive. */
static void count_on(struct ctxfd *n, const struct ctxfd *parent)
{
	n->counted = true;
	ctxfd_ref(parent);
}

/* How often threads must have met at a parent's lock before it gets shards. */
#define CROWDED 16

/*
 * Locks the list that a child of p with these flags goes into: p's own, or a shard's. NULL: p is not LIVE. *seen is p's
 * word: as the caller has read it, then as it is under the lock.
 */
static struct ctxfd *lock_list(struct ctxfd *p, uint64_t flags, uint64_t *seen)
{
	/* The shards of what has ended may be gone. */
	if ((*seen & (CTX_SHARDED | CTX_PENDING | CTX_DONE)) == CTX_SHARDED && !(flags & CTX_HOOK))
		return ctxfdi_lock_shard(p, seen);
	return lock_live(p, seen) ? p : NULL;
}

/*
 * Puts n into the locked list, p's or a shard's, and gives the lock back. seen: p's word. Inline, since the cost of a
 * call shows in the benchmark of make.
 */
__attribute__((always_inline)) static inline void link_and_unlock(struct ctxfd *p, struct ctxfd *list, uint64_t seen,
                                                                  struct ctxfd *n)
{
	bool crowded = list == p && p->meetings >= CROWDED && !(seen & CTX_SHARDED);

	if (list != p)
		n->shard = shard_number(list);
	unlock(list, link_child(list, list == p ? seen : 0, n));
	if (crowded)
		ctxfdi_split_children(p);
}

bool ctxfdi_adopt(struct ctxfd *n, const struct ctxfd *parent, enum kind kind, int64_t deadline, int cause)
{
	struct ctxfd *p = node_of(parent), *list;
	uint64_t seen, flags = flags_of(kind),
	               word = flags | (deadline == INT64_MAX ? 0 : CTX_TIMED | cause_bits(cause));

	init_node(n, parent, kind);
	n->deadline = deadline < p->deadline ? deadline : p->deadline;
	seen = load_word(p);
	if (seen & CTX_NEVER) {
		atomic_init(&n->word, word);
		count_on(n, parent);
	} else if ((list = lock_list(p, flags, &seen))) {
		if (deadline == INT64_MAX)
			word |= (seen & CTX_TIMED) | cause_of(seen);
		atomic_init(&n->word, word);
		/*
		 * A value context above has no list for n. So n becomes one of its owners, before others can know n.
		 */
		if (parent != p)
			count_on(n, parent);
		link_and_unlock(p, list, seen, n);
	} else {
		/* Born done, with the parent's verdict, and in no list. */
		atomic_init(&n->word, flags | CTX_DONE | (seen & CTX_EXPIRED) | cause_of(seen));
		count_on(n, parent);
		return false;
	}
	return true;
}

void ctxfdi_adopt_beside(struct ctxfd *n, const struct ctxfd *parent, enum kind kind)
{
	init_node(n, parent, kind);
	n->graced = ctxfdi_kinds[kind].deadline;
	n->deadline = INT64_MAX;
	atomic_init(&n->word, flags_of(kind));
	count_on(n, parent);
}

bool ctxfdi_park(struct ctxfd *n, const struct ctxfd *ctx, enum kind kind)
{
	struct ctxfd *p = node_of(ctx), *list;
	uint64_t seen = load_word(p), flags = flags_of(kind);

	init_node(n, p, kind);
	n->deadline = INT64_MAX;
	atomic_init(&n->word, flags);
	list = lock_list(p, flags, &seen);
	if (list)
		link_and_unlock(p, list, seen, n);
	return list;
}

static struct ctxfd *derive(const struct ctxfd *parent, enum kind kind, int64_t deadline, int cause)
{
	struct ctxfd *n = malloc(sizeof *n);

	if (n)
		ctxfdi_adopt(n, parent, kind, deadline, cause);
	return n;
}

static bool parent_is_null(const void *parent)
{
	if (!parent)
		errno = EINVAL;
	return !parent;
}

struct ctxfd *ctxfd_with_cancel(const struct ctxfd *parent)
{
	if (parent_is_null(parent))
		return NULL;
	return derive(parent, KIND_CANCEL, INT64_MAX, 0);
}

struct ctxfd *ctxfd_with_deadline(const struct ctxfd *parent, int64_t deadline)
{
	return ctxfd_with_deadline_cause(parent, deadline, 0);
}

struct ctxfd *ctxfd_with_timeout(const struct ctxfd *parent, int64_t timeout)
{
	return ctxfd_with_timeout_cause(parent, timeout, 0);
}

static struct ctxfd *with_deadline(const struct ctxfd *parent, int64_t deadline, int cause, bool passed)
{
	struct ctxfd *p = node_of(parent), *n;

	if (deadline >= p->deadline)
		return derive(parent, KIND_CANCEL, INT64_MAX, 0);
	/* The parent's end, if it has come, beats this deadline: so let the clock end the parent first. */
	if (passed)
		ctxfdi_look(p);
	n = derive(parent, KIND_DEADLINE, deadline, cause);
	if (n && passed)
		ctxfdi_look(n);
	return n;
}

struct ctxfd *ctxfd_with_deadline_cause(const struct ctxfd *parent, int64_t deadline, int cause)
{
	if (parent_is_null(parent))
		return NULL;
	return with_deadline(parent, deadline, cause, !ctxfdi_is_far(deadline) && deadline <= ctxfd_now());
}

struct ctxfd *ctxfd_with_timeout_cause(const struct ctxfd *parent, int64_t timeout, int cause)
{
	int64_t now;

	if (parent_is_null(parent))
		return NULL;
	now = ctxfd_now();
	return with_deadline(parent, timeout > INT64_MAX - now ? INT64_MAX : now + timeout, cause, timeout <= 0);
}

/*
 * Ends a merge that is being made, by the verdict of one of its parents, unless the walk of its second parent, which
 * alone can know it yet, was faster.
 */
static void inherit_end(struct ctxfd *n, uint64_t verdict)
{
	uint64_t w = load_word(n);

	while (!(w & CTX_DONE) &&
	       !swap_word(n, &w, flags_of(KIND_MERGED) | CTX_DONE | (verdict & CTX_EXPIRED) | cause_of(verdict)))
		continue;
}

/* Fills in a merge of a and b, whose nodes' words are seen and other: all but its places in the two lists. */
static void init_merge(struct merge *m, const struct ctxfd *a, uint64_t seen, const struct ctxfd *b, uint64_t other)
{
	struct ctxfd *first = node_of(a), *second = node_of(b);
	bool second_is_earlier = second->deadline < first->deadline;
	uint64_t timed = second_is_earlier ? other : seen; /* whose deadline and cause are in effect */

	init_node(&m->ctx, a, KIND_MERGED);
	m->ctx.deadline = second_is_earlier ? second->deadline : first->deadline;
	atomic_init(&m->ctx.word, flags_of(KIND_MERGED) | (timed & CTX_TIMED) | cause_of(timed));
	init_node(&m->link, second, KIND_LINK);
	m->link.deadline = INT64_MAX; /* a dump reads it */
	atomic_init(&m->link.word, flags_of(KIND_LINK));
}

struct ctxfd *ctxfd_merge(const struct ctxfd *a, const struct ctxfd *b)
{
	struct ctxfd *first, *second, *n;
	struct merge *m;
	uint64_t seen, other;

	if (parent_is_null(a) || parent_is_null(b))
		return NULL;
	m = malloc(sizeof *m);
	if (!m)
		return NULL;
	n = &m->ctx;
	first = node_of(a);
	second = node_of(b);
	seen = ctxfdi_look(first);
	other = ctxfdi_look(second);
	init_merge(m, a, seen, b, other);

	/* The second parent first: its walk may end n from here on, before n is in the first one's list. */
	if (seen & (CTX_PENDING | CTX_DONE)) {
		inherit_end(n, seen);
	} else if (!(other & CTX_NEVER)) {
		if (lock_live(second, &other))
			unlock(second, link_child(second, other, &m->link));
		else
			inherit_end(n, other);
	}
	if (seen & CTX_NEVER || !lock_live(first, &seen)) {
		if (!(seen & CTX_NEVER))
			inherit_end(n, seen);
		count_on(n, a);
		return n;
	}
	if (a != first)
		count_on(n, a);
	unlock(first, link_child(first, seen, n));
	return n;
}
