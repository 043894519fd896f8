/* SPDX-License-Identifier: MIT */
/*
 * What the protocol runs on: memory, atomic words, the futex, fds, the clock. And what is asserted all the time.
 *
 * A context is a small number, 0 is NULL, and ctx[n] is what struct ctxfd holds. Each access of the C code to memory
 * that threads share is one step here, and all threads see the steps in one order: sequential consistency. What this
 * does not cover is memory order, which is ThreadSanitizer's part.
 *
 * A scenario says how many contexts (NODES, 0 included) and threads (THREADS, init included) it has, and then includes
 * protocol.pml. Fields and variables that the C code does not have are marked "ghost": assertions read them, the
 * protocol does not.
 */

/* The word, as in context.h, but for the places of some flags and fewer bits of cause. No node has VALUE or NEVER. */
#define PENDING     1
#define DONE        2
#define EXPIRED     4
#define TIMED       8
#define HAS_FD      16
#define UNSIGNALLED 32
#define WAITERS     64
#define LOCK        128
#define HELD        256
#define WALK_WAITERS   512
#define CHILDREN    1024
#define ORPHAN      2048
#define NEAR        4096
#define HOOK        8192
#define MERGE       16384
#define LINK        32768
#define SHARDED     65536
#define SHARD       131072
#define ALARMED     262144
#define IDLE        524288 /* LISTED, and its kind; so is: */
#define GRACE       1048576
#define WATCH       2097152 /* RINGS: the watch of a grace */

#define CAUSE_SHIFT 22
#define FLAGS_MASK  ((1 << CAUSE_SHIFT) - 1)

#define cause_bits(cause) ((cause) << CAUSE_SHIFT)
#define cause_of(w)       ((w) & ~FLAGS_MASK)
#define verdict_of(w)     ((w) & (~FLAGS_MASK | EXPIRED))

/* What err answers. */
#define ECANCELED 1
#define ETIMEDOUT 2
#define err_of(w) (((w) & EXPIRED) -> ETIMEDOUT : ECANCELED)

/* Times. The clock starts at 1, since struct cancel takes 0 for "not read". */
#define PAST    0
#define SOON    2
#define LATER   3
#define FOREVER 9

/* States of an fd. */
#define NO_FD  0
#define OPEN   1
#define CLOSED 2

#define WAKE_DONE 1
#define WAKE_WALK 2

/*
 * struct ctxfd. `prev` points at a pointer: children_of(p) or next_of(sibling). The ctx of a struct merge is some n and
 * its link n + 1, in one piece of memory. So are the ctx of a struct grace and its watch; and a block of shards, which
 * starts at what its parent's `children` is.
 */
#define children_of(p)   (p)
#define next_of(sibling) (NODES + (sibling))
#define link_of(merge)   ((merge) + 1)
#define merge_of(link)   ((link) - 1)
#define watch_of(grace)  ((grace) + 1)
#define grace_of(watch)  ((watch) - 1)

#define SHARDS        2
#define shards_of(p)  (ctx[p].children)
#define last_in(p)    (shards_of(p) + SHARDS - 1)

/* States of a struct ctxfd_after. */
#define WAITING 0
#define STOPPED 1
#define RUNNING 2
#define RAN     3

/* In `touched` of what is IDLE, once it is not as the alarm has it; and of a GRACE when its parent's walk has rung. */
#define TOUCHED 1
#define OVER    2
#define RUNG    3

typedef context {
	int word;
	byte refs;
	byte fd;
	bool readable; /* the file behind fd */
	byte next;
	byte prev;
	byte children;
	byte deadline;
	byte parent;
	byte values;
	byte shard;
	bool linked;
	bool counted;
	byte entered_by; /* of a merge's ctx */
	byte left;       /* of a block of shards, in the first, and: */
	bool orphaned;
	byte state;      /* of an after-func, and: */
	bool owned;
	bool owns;       /* its parent, one of whose owners it is */
	byte after_next;
	bool queued;     /* the dispatcher has it in its list */
	bool alarm_set;  /* of a context that is ALARMED: so is its expiry among its alarms; or of what is LISTED */
	byte touched;    /* of what is LISTED */

	bool alive;  /* ghost: between malloc and free */
	byte locker; /* ghost: the thread that set LOCK, plus one */
	byte holder; /* ghost: the same of HELD */
	short above; /* ghost: a bit for each context that must not be seen done before this one is */
	bool known;  /* ghost: somebody has been told that it is done */
	bool handed; /* ghost: somebody has been given its fd */
};

context ctx[NODES];
byte open_fds; /* ghost */
byte clock = 1;
byte asleep[THREADS]; /* in futex_sleep, with these bits */
byte asleep_on[THREADS];
bool dispatcher_locked; /* for more than one step */
byte running; /* ghost: threads of the scenario that have not ended */
hidden byte i;
hidden int unused; /* a result that nobody looks at */

/* What a thread has in registers: the local variables and results of the C functions. */
#define REGISTERS                                                                                               \
	int w, new, seen, other, born, change, was_done, verdict;                                                    \
	byte node, child, below, root, due, began, now, until, head, before, after, list, dying, up, owns, e;        \
	bool ok, claimed, marked, late, last, gone, published, passed, was_ended, p_was_ended, b_was_ended, closing

/* At the end of a call they hold nothing any more; saying so keeps the number of states small. */
inline forget() {
	w = 0; new = 0; seen = 0; other = 0; born = 0; change = 0; was_done = 0; verdict = 0;
	node = 0; child = 0; below = 0; root = 0; due = 0; began = 0; now = 0; until = 0;
	head = 0; before = 0; after = 0; list = 0; dying = 0; up = 0; owns = 0;
	ok = false; marked = false; late = false; last = false; gone = false; was_ended = false; closing = false
}

/* ---- What must hold ---------------------------------------------------------------------------------------------- */

/* No use after free. Part of every access. */
#define touch(n) assert((n) > 0 && ctx[n].alive)

/*
 * The child list is touched by who holds the lock or the hold only: no data race. Broken variants run without this
 * assertion (CONSEQUENCES): what they break must show in what the header promises.
 */
#ifdef CONSEQUENCES
#define mine(p) touch(p)
#else
#define mine(p) touch(p); assert(((ctx[p].word & HELD) -> ctx[p].holder : ctx[p].locker) == _pid + 1)
#endif

/* Whether err says that n is done. */
#define ended(n) ((ctx[n].word & DONE) || ((ctx[n].word & TIMED) && clock >= ctx[n].deadline))

/* Its fd follows a deadline some time later, unless somebody asks err; else it must be readable at once. */
#define shown(n) (!ctx[n].handed || ctx[n].readable || clock >= ctx[n].deadline)

/* Children before parents: n is done for whoever looks, so all below it is too. After each step that ends n. */
inline all_below_ended(n) {
	for (i : 1 .. NODES - 1) {
		if
		:: ctx[i].alive && (ctx[i].above & (1 << (n))) -> assert(ended(i) && shown(i))
		:: else
		fi
	}
	i = 0
}

/* Somebody is being told that n is done: its fd, if anybody has it, is readable. Both stay so for good. */
inline answered(n) {
	ctx[n].known = true;
	assert(ctx[n].word & DONE);
	assert(!ctx[n].handed || ctx[n].readable);
	all_below_ended(n)
}

/* The word of n goes from `old` to `to`. */
inline changes(n, old, to) {
	/* The first end decides, once and for good; a mark decides already. Only the lock's owner changes a locked word. */
	assert(!((old) & DONE) || ((to) & DONE));
	assert(!((old) & (DONE | PENDING)) || (((to) & (DONE | PENDING)) && verdict_of(to) == verdict_of(old)));
#ifndef CONSEQUENCES
	assert(!((old) & LOCK) || ctx[n].locker == _pid + 1);
#endif
	ctx[n].locker = (((to) & LOCK) -> (((old) & LOCK) -> ctx[n].locker : _pid + 1) : 0);
	ctx[n].holder = (((to) & HELD) -> (((old) & HELD) -> ctx[n].holder : _pid + 1) : 0)
}

/* Ghost: n lies below p from now on. */
inline goes_below(n, p) {
	ctx[n].above = ctx[n].above | ctx[p].above | (1 << (p))
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

inline load_word(n, to) {
	d_step { touch(n); to = ctx[n].word }
}

/*
 * A compare-and-swap. ok: whether it was done; new: what was to be written; old, if it was not: what is there. That a
 * weak one may fail for no reason only makes its loop go round once more.
 */
inline compare_and_swap(n, old, to) {
	d_step {
		touch(n);
		new = to;
		if
		:: ctx[n].word == old -> changes(n, old, new); ctx[n].word = new; ok = true
		:: else -> old = ctx[n].word; ok = false
		fi
	}
}

inline store_word(n, to) {
	d_step { touch(n); new = to; changes(n, ctx[n].word, new); ctx[n].word = new }
}

/* malloc and init_node. No memory is used twice, so that a use after free is always seen. */
inline make(n, p) {
	assert(!ctx[n].alive);
	ctx[n].alive = true;
	ctx[n].refs = 1;
	ctx[n].fd = NO_FD;
	ctx[n].deadline = FOREVER;
	ctx[n].parent = p
}

/*
 * All that is left is made the same, to keep the number of states small; but for `queued` and `alarm_set`, by which the
 * dispatcher would come to it.
 */
inline free_one(n) {
	assert(ctx[n].alive); /* no double free */
	ctx[n].alive = false;
	ctx[n].word = 0; ctx[n].refs = 0; ctx[n].deadline = 0; ctx[n].parent = 0; ctx[n].values = 0; ctx[n].shard = 0;
	ctx[n].next = 0; ctx[n].prev = 0; ctx[n].children = 0; ctx[n].linked = false; ctx[n].counted = false;
	ctx[n].entered_by = 0; ctx[n].left = 0; ctx[n].orphaned = false;
	ctx[n].state = 0; ctx[n].after_next = 0; ctx[n].owned = false; ctx[n].owns = false;
	ctx[n].touched = 0;
	ctx[n].above = 0; ctx[n].locker = 0; ctx[n].holder = 0;
	ctx[n].known = false; ctx[n].handed = false; ctx[n].readable = false
}

inline free(n) {
	d_step {
		if
		:: (ctx[n].word & (MERGE | GRACE)) -> free_one(link_of(n)) /* or its watch */
		:: else
		fi;
		free_one(n)
	}
}

/* A pointer that `prev` can point at. */
inline load_pointer(at, to) {
	if
	:: at >= NODES -> touch(at - NODES); to = ctx[at - NODES].next
	:: else -> touch(at); to = ctx[at].children
	fi
}

inline store_pointer(at, what) {
	if
	:: at >= NODES -> touch(at - NODES); ctx[at - NODES].next = what
	:: else -> touch(at); ctx[at].children = what
	fi
}

/* ---- Futex ------------------------------------------------------------------------------------------------------- */

/* Sleeps until `until`. Nothing else wakes a sleeper but a wake: a missing one is not made up for by chance. */
inline futex_sleep(n, seen_as, bits) {
	d_step {
		touch(n);
		if
		:: (ctx[n].word & FLAGS_MASK) == ((seen_as) & FLAGS_MASK) -> asleep[_pid] = bits; asleep_on[_pid] = n
		:: else
		fi
	}
	atomic { (asleep[_pid] == 0 || clock >= until) -> asleep[_pid] = 0; asleep_on[_pid] = 0 }
}

/* n may be freed memory. */
inline futex_wake(n, bits) {
	d_step {
		for (i : 0 .. THREADS - 1) {
			if
			:: asleep_on[i] == n && asleep[i] == bits -> asleep[i] = 0; asleep_on[i] = 0
			:: else
			fi
		}
		i = 0
	}
}

/* ---- The clock, and the kernel's side of a timerfd --------------------------------------------------------------- */

proctype ticking(byte last_tick) {
end:	do
	:: atomic { clock < last_tick -> clock++ }
	od
}

/* The kernel makes the fd of a context with a deadline readable, some time after the deadline. */
proctype alarm(byte n) {
end:	atomic {
		(ctx[n].alive && ctx[n].fd == OPEN && !ctx[n].readable && clock >= ctx[n].deadline) ->
		d_step { assert(ended(n)); all_below_ended(n); ctx[n].readable = true };
		goto end
	}
}

/* ---- Beginning and end of a scenario ----------------------------------------------------------------------------- */

inline plant_below(n, p) {
	if
	:: (p) != 0 ->
		ctx[n].linked = true;
		ctx[n].next = ctx[p].children;
		ctx[n].prev = children_of(p);
		if
		:: ctx[n].next != 0 -> ctx[ctx[n].next].prev = next_of(n)
		:: else
		fi;
		ctx[p].children = n;
		ctx[p].word = ctx[p].word | CHILDREN;
		goes_below(n, p)
	:: else
	fi
}

/* A context as it was made before the threads started; without a parent it is a child of background. */
inline plant(n, p, at) {
	make(n, p);
	ctx[n].deadline = at;
	ctx[n].word = ((at) == FOREVER -> 0 : TIMED | NEAR | cause_bits(n)); /* every deadline has a cause of its own */
	plant_below(n, p)
}

/* Nobody has asked about its deadline yet. */
inline plant_far(n) {
	ctx[n].word = ctx[n].word & ~NEAR
}

inline plant_merge(n, p, q, at) {
	plant(n, p, at);
	ctx[n].word = ctx[n].word | MERGE;
	plant(link_of(n), q, FOREVER);
	ctx[link_of(n)].word = LINK;
	ctx[n].above = ctx[n].above | ctx[link_of(n)].above;
	ctx[link_of(n)].above = 0
}

/* An fd that somebody asked for before the threads started. */
inline plant_fd(n) {
	ctx[n].fd = OPEN;
	open_fds++;
	ctx[n].word = ctx[n].word | HAS_FD | UNSIGNALLED;
	ctx[n].handed = true
}

/* One more owner. */
inline plant_ref(n) {
	ctx[n].refs++
}

/* No owner any more; something below n keeps it. */
inline plant_orphan(n) {
	ctx[n].refs = 0;
	ctx[n].word = ctx[n].word | ORPHAN
}

inline thread_ends() {
	d_step { running-- }
}

/*
 * While the threads of a scenario run that is not about freeing, init keeps everything alive. Here it gives up a
 * reference on each context. `at` is a variable of its own.
 */
inline unref_all() {
	running == 0;
	do
	:: at < NODES - 1 ->
		at++;
		if
		:: ctx[at].alive && !(ctx[at].word & (LINK | SHARD | HOOK | ORPHAN)) -> unref(at)
		:: else
		fi
	:: else -> break
	od;
	skip
}

/* No leak: when all threads have ended and given up their references, there is nothing. */
inline nothing_is_left() {
	running == 0;
	d_step {
		for (i : 1 .. NODES - 1) {
			assert(!ctx[i].alive)
		}
		i = 0;
		assert(open_fds == 0)
	}
}
