/* SPDX-License-Identifier: MIT */
/* wait.c. ctxfd_sleep is not here: it differs by a time limit of its own. */

/* w: the word, DONE. */
inline await_done(n) {
	do
	:: look(n);
		if
		:: (w & DONE) -> break
		:: else
		fi;
		if
		:: !(w & (DONE | WAITERS)) -> swap_word(n, w, w | WAITERS)
		:: (w & (DONE | WAITERS)) == WAITERS -> ok = true
		fi;
		if
		:: ok -> until = ctx[n].deadline; futex_sleep(n, w | WAITERS, WAKE_DONE)
		:: else
		fi
	od;
	skip
}

/* ctxfd_wait. */
inline wait_for(n) {
	await_done(n);
	d_step { touch(n); answered(n); forget() }
}
