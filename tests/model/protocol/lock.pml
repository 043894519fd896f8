/* SPDX-License-Identifier: MIT */
/* lock.h and lock.c. */

/* to: the word anew, without LOCK. A nap may end too early, but not last for ever: it comes to the same. */
inline await_unlock(n, to) {
	d_step { !(ctx[n].word & LOCK) -> touch(n); to = ctx[n].word }
}

/* ok, new and old as of compare_and_swap. */
inline swap_word(n, old, to) {
	if
	:: ((old) & LOCK) -> await_unlock(n, old); ok = false
	:: else -> compare_and_swap(n, old, to)
	fi
}

/* What a loop around swap_word comes to that does nothing else. `to` is made of w, the word before. */
inline update_word(n, to) {
	d_step { !(ctx[n].word & LOCK) -> touch(n); w = ctx[n].word; new = to; changes(n, w, new); ctx[n].word = new }
}

/* Of flags that neither end a context nor lock it. to: the word as it is then. */
inline change_flags(n, clear, set, to) {
	d_step {
#if !FLAGS_IGNORE_LOCK
		!(ctx[n].word & LOCK) ->
#endif
		touch(n);
		to = (ctx[n].word & ~(clear)) | (set);
		changes(n, ctx[n].word, to);
		ctx[n].word = to
	}
}

/* w: the word anew. */
inline await_walk(n) {
	if
	:: !(w & WALK_WAITERS) -> swap_word(n, w, w | WALK_WAITERS)
	:: else -> ok = true
	fi;
	if
	:: ok -> until = FOREVER; futex_sleep(n, w | WALK_WAITERS, WAKE_WALK)
	:: else
	fi;
	load_word(n, w)
}

inline lock(n) {
	load_word(n, w);
	do
#if !FREE_IGNORES_HOLD
	:: (w & HELD) -> await_walk(n)
	:: !(w & HELD) ->
#else
	:: true ->
#endif
		swap_word(n, w, w | LOCK);
		if
		:: ok -> break
		:: else
		fi
	od;
	skip
}

/* ok: whether it was taken; was: the word before. */
inline lock_live(n, was) {
	load_word(n, w);
	do
#if LINKS_BELOW_PENDING
	:: (w & DONE) -> ok = false; break
	:: !(w & DONE) ->
#else
	:: (w & (PENDING | DONE)) -> ok = false; break
	:: !(w & (PENDING | DONE)) ->
#endif
		swap_word(n, w, w | LOCK);
		if
		:: ok -> break
		:: else
		fi
	od;
	was = w
}

/* new: the word as it is then. `change` is that of CHILDREN and SHARDED. */
inline unlock(n) {
	load_word(n, w);
	store_word(n, w + change - LOCK);
	change = 0
}
