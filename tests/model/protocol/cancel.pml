/* SPDX-License-Identifier: MIT */
/* cancel.c. */

/* ---- Looking ----------------------------------------------------------------------------------------------------- */

/* late: whether it is the clock that ends n, whose word is w. While the deadline has not passed, is_far may be true. */
inline deadline_passed(n) {
	if
	:: (w & TIMED) && !(w & NEAR) ->
		if
		:: clock < ctx[n].deadline -> late = false
		:: true ->
			change_flags(n, 0, NEAR, w);
#if EXPIRY_LOOKS_ONCE
			late = (clock >= ctx[n].deadline)
#else
			late = ((w & TIMED) && clock >= ctx[n].deadline)
#endif
		fi
	:: else -> late = ((w & TIMED) && clock >= ctx[n].deadline)
	fi
}

/* w: the word. */
inline look(n) {
	load_word(n, w);
	do
	:: deadline_passed(n);
		if
		:: late ->
#if EARLY_COMMIT_ENDS_THE_HOLD
			swap_word(n, w, (w & ~(TIMED | PENDING | HELD)) | DONE | ((w & PENDING) -> 0 : EXPIRED));
#elif EARLY_COMMIT_OVERRULES
			swap_word(n, w, (w & ~(TIMED | PENDING)) | DONE | EXPIRED);
#elif EARLY_COMMIT_MAKES_IT_A_CANCEL
			swap_word(n, w, (w & ~(TIMED | PENDING | EXPIRED)) | DONE | ((w & PENDING) -> 0 : EXPIRED));
#else
			swap_word(n, w, (w & ~(TIMED | PENDING)) | DONE | ((w & PENDING) -> 0 : EXPIRED));
#endif
			if
			:: ok ->
				d_step { w = new; all_below_ended(n) };
				if
				:: (w & WAITERS) -> futex_wake(n, WAKE_DONE)
				:: else
				fi;
#if LATCH_WITHOUT_SIGNAL
				w = w & ~UNSIGNALLED
#endif
			:: else
			fi
		:: else -> break
		fi
	od;
	if
	:: (w & (DONE | UNSIGNALLED)) == (DONE | UNSIGNALLED) -> signal_done(n)
	:: else
	fi
}

/* ctxfd_err. e: what it answers. */
inline err(n) {
	load_word(n, w);
	if
#if ERR_IGNORES_UNSIGNALLED
	:: (w & DONE) -> e = err_of(w)
#else
	:: (w & DONE) && !(w & UNSIGNALLED) -> e = err_of(w)
#endif
	:: !(w & (DONE | TIMED)) -> e = 0
	:: else -> look(n); e = ((w & DONE) -> err_of(w) : 0)
	fi;
	d_step {
		if
		:: e != 0 -> touch(n); answered(n)
		:: else
		fi;
		forget()
	}
}

/* ---- Ending ------------------------------------------------------------------------------------------------------ */

inline announce(n) {
	d_step { all_below_ended(n) };
	if
	:: (new & HOOK) -> d_step { touch(n); ctx[n].after_next = due; due = n }
	:: else
	fi;
	if
	:: (new & WATCH) -> begin_grace(n)
	:: else
	fi;
	if
	:: (new & UNSIGNALLED) -> signal_done(n)
	:: else
	fi;
	if
#if ANNOUNCE_FORGETS_SLEEPERS
	:: false
#else
	:: (new & WAITERS) -> futex_wake(n, WAKE_DONE)
#endif
	:: else
	fi
}

/* Which PENDING node a broken mark does not wait for. by_link: the walk came to it by a link. */
#if SECOND_CANCEL_DOES_NOT_WAIT
#define overlooks_pending(n, by_link) ((n) == root)
#elif FOREIGN_NOT_WAITED_FOR
#define overlooks_pending(n, by_link) ((n) != root && !(by_link))
#elif FOREIGN_BELOW_NOT_WAITED_FOR
#define overlooks_pending(n, by_link) ((n) != root && ctx[n].parent != root && !(by_link))
#elif MERGE_NOT_WAITED_FOR
#define overlooks_pending(n, by_link) (by_link)
#else
#define overlooks_pending(n, by_link) false
#endif

#if MARK_IGNORES_LOCK
#define swap_in_mark compare_and_swap
#else
#define swap_in_mark swap_word
#endif

/* marked: n is PENDING and HELD by us. Else it is DONE, with all below it, and its fd shows it. */
inline mark(n, by_link) {
	load_word(n, w);
	do
	:: (w & DONE) ->
		if
#if DONE_UNSIGNALLED_IGNORED
		:: false
#else
		:: (w & UNSIGNALLED) -> signal_done(n)
#endif
		:: else
		fi;
		marked = false;
		break
	:: !(w & DONE) && (w & PENDING) ->
		if
		:: overlooks_pending(n, by_link) -> marked = false; break
		:: else -> await_done(n)
		fi
	:: !(w & (DONE | PENDING)) ->
		if
		:: (w & TIMED) && now == 0 -> now = clock
		:: else
		fi;
		if
#if EXPIRED_TAKES_THE_CANCEL
		:: false
#else
		:: (w & TIMED) && ctx[n].deadline <= now -> swap_in_mark(n, w, (w & ~TIMED) | DONE | EXPIRED)
#endif
		:: else ->
			if
#if PARENT_COMMITTED_FIRST
			:: (w & CHILDREN) ->
				swap_in_mark(n, w, (w & FLAGS_MASK & ~TIMED) | DONE | HELD | verdict)
#else
			:: (w & CHILDREN) -> swap_in_mark(n, w, (w & FLAGS_MASK) | PENDING | HELD | verdict)
#endif
			:: else -> swap_in_mark(n, w, (w & FLAGS_MASK & ~TIMED) | DONE | verdict)
			fi;
			/* A deadline that had passed before the cancel began wins. */
			assert(!ok || ctx[n].deadline > began)
		fi;
		if
		:: ok && (new & HELD) -> marked = true; break
		:: ok && !(new & HELD) -> announce(n); marked = false; break
		:: else
		fi
	od;
	skip
}

inline commit(n) {
	update_word(n, (w & ~(PENDING | HELD | WALK_WAITERS | TIMED)) | DONE);
	if
#if COMMIT_FORGETS_LOCKERS
	:: false
#else
	:: (w & WALK_WAITERS) -> futex_wake(n, WAKE_WALK)
#endif
	:: else
	fi;
	announce(n)
}

inline walk() {
	node = root;
	d_step { mine(node); child = ctx[node].children };
	do
	:: child != 0 ->
		/* LINK and MERGE are fixed. */
		d_step { touch(child); below = ((ctx[child].word & LINK) -> merge_of(child) : child) };
		mark(below, below != child);
		if
		:: !marked -> d_step { mine(node); touch(child); child = ctx[child].next }
		:: else ->
			/* The C code has this for a merge only: for any other child it would be the child itself. */
			d_step { mine(below); ctx[below].entered_by = child };
			node = below;
			d_step { mine(node); child = ctx[node].children }
		fi
	:: else ->
		commit(node);
		if
		:: node == root -> break
		:: else
		fi;
#if RETURNS_BY_FIRST_PARENT
		child = node;
#else
		d_step { touch(node); child = ctx[node].entered_by };
#endif
		d_step { touch(child); list_owner(child, node) };
		d_step { mine(node); touch(child); child = ctx[child].next }
	od;
	skip
}

/* ctxfdi_cancel. */
inline cancel_root() {
	mark(root, false);
	if
	:: marked -> walk()
	:: else
	fi;
	if
	:: due != 0 -> dispatch()
	:: else
	fi;
	d_step { touch(root); answered(root); forget() }
}

/* ctxfd_cancel_cause. */
inline cancel(n, why) {
	d_step { root = n; verdict = cause_bits(why); began = clock };
	cancel_root()
}
