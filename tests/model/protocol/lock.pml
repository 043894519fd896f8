/* SPDX-License-Identifier: MIT */
/* lock.h and lock.c. */

/* w: the word anew. Spins until something has changed, or sleeps. */
inline lock_pause(n) {
	if
	:: ctx[n].word != w || !ctx[n].alive
	:: true ->
		if
		:: !(w & CONTENDED) -> swap_word(n, w, w | CONTENDED)
		:: else -> ok = true
		fi;
		if
		:: ok -> until = FOREVER; futex_sleep(n, w | CONTENDED, WAKE_LOCK)
		:: else
		fi
	fi;
	load_word(n, w)
}

inline lock(n) {
	load_word(n, w);
	do
#if FREE_IGNORES_HOLD
	:: (w & LOCK) -> lock_pause(n)
#else
	:: (w & (LOCK | HELD)) -> lock_pause(n)
#endif
	:: else ->
		swap_word(n, w, (w & ~CONTENDED) | LOCK);
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
	:: !(w & DONE) && (w & LOCK) -> lock_pause(n)
#else
	:: (w & (PENDING | DONE)) -> ok = false; break
	:: !(w & (PENDING | DONE)) && (w & LOCK) -> lock_pause(n)
#endif
	:: else ->
		swap_word(n, w, (w & ~CONTENDED) | LOCK);
		if
		:: ok -> break
		:: else
		fi
	od;
	was = w
}

/* new: the word as it is then. `change` is that of CHILDREN and SHARDED. */
inline unlock(n) {
	update_word(n, w + change - LOCK);
	if
#if UNLOCK_FORGETS_LOCKERS
	:: false
#else
	:: (w & CONTENDED) -> futex_wake(n, WAKE_LOCK)
#endif
	:: else
	fi;
	change = 0
}
