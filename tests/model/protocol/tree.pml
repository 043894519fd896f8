/* SPDX-License-Identifier: MIT */
/* tree.c, without values, and without parents that are never done but for that of a root. */

/* ---- Making ------------------------------------------------------------------------------------------------------ */

/* ctxfd_ref. */
inline ref(n) {
	d_step { touch(n); ctx[n].refs++ }
}

inline count_on(n, p) {
	ctx[n].counted = true;
	ref(p)
}

/*
 * at_list, whose word was `was`, is p or one of its shards; change: what changes in that word. What goes below p is
 * `whose`: n, or the merge that n is the link of.
 */
inline link_child(at_list, was, n, p, whose) {
	d_step {
		mine(at_list);
		head = ((was & SHARDED) -> next_of(last_in(at_list)) : children_of(at_list));
		change = (ctx[at_list].children != 0 -> 0 : CHILDREN);
		load_pointer(head, after);
		ctx[n].linked = true;
		ctx[n].next = after;
		ctx[n].prev = head
	};
	if
	:: after != 0 -> d_step { touch(after); ctx[after].prev = next_of(n) }
	:: else
	fi;
	d_step { mine(at_list); store_pointer(head, n); head = 0; after = 0; goes_below(whose, p) }
}

/* Ghost: what is asked before something is made below p, and what must hold when it has been. */
inline about_to_make(p) {
	d_step { touch(p); was_done = ((ctx[p].word & DONE) -> ctx[p].word : 0); was_ended = ended(p) }
}

inline has_made(p, n) {
	d_step {
		touch(p);
		touch(n);
		goes_below(n, p);
		assert(!was_ended || ended(n));
		assert(was_done == 0 || ((ctx[n].word & DONE) && verdict_of(ctx[n].word) == verdict_of(was_done)));
		forget()
	}
}

/* up: the list that a child of p goes into, locked, if ok; seen: p's word. */
inline lock_list(p, flags) {
	if
#if SHARDS_ASKED_BEFORE_THE_END
	:: (seen & SHARDED) && !((flags) & HOOK) -> lock_shard(p)
#else
	:: (seen & (SHARDED | PENDING | DONE)) == SHARDED && !((flags) & HOOK) -> lock_shard(p)
#endif
	:: else -> up = p; lock_live(p, seen)
	fi
}

/* n becomes a child of p. born: the word that it is born with. */
inline adopt(p, n, at, flags) {
	d_step {
		make(n, p);
		ctx[n].deadline = ((at) < ctx[p].deadline -> (at) : ctx[p].deadline)
	};
	load_word(p, seen);
	lock_list(p, flags);
	if
	:: ok ->
		d_step {
#if CHILD_FORGETS_THE_DEADLINE
			born = (flags) | ((at) == FOREVER -> 0 : TIMED | cause_bits(n));
#else
			born = (flags) | ((at) == FOREVER -> (seen & TIMED) | cause_of(seen) : TIMED | cause_bits(n));
#endif
			ctx[n].word = born;
			ctx[n].shard = (up == p -> 0 : 1 + up - shards_of(p));
			seen = (up == p -> seen : 0)
		};
		link_child(up, seen, n, p, n);
		unlock(up)
	:: else ->
		d_step {
			born = (flags) | DONE | (seen & EXPIRED) | cause_of(seen);
			ctx[n].word = born;
			/* Its end is p's, whether or not that shows yet. */
			assert((ctx[p].word & (PENDING | DONE)) && verdict_of(ctx[n].word) == verdict_of(ctx[p].word))
		};
		count_on(n, p)
	fi
}

inline derive(p, n, at) {
	about_to_make(p);
	adopt(p, n, at, 0);
	has_made(p, n)
}

/* ctxfd_with_deadline, for a deadline earlier than p's. */
inline with_deadline(p, n, at) {
	d_step { passed = (clock >= (at)); p_was_ended = (passed && ended(p)) };
#if !CLOCK_SKIPS_THE_PARENT
	if
	:: passed -> look(p)
	:: else
	fi;
#endif
	derive(p, n, at);
	if
	:: passed -> look(n)
	:: else
	fi;
	d_step {
		/* The parent's end went first. */
		assert(!p_was_ended || verdict_of(ctx[n].word) == verdict_of(ctx[p].word));
		passed = false;
		p_was_ended = false;
		forget()
	}
}

inline inherit_end(n, verdict) {
	d_step { /* as update_word */
		!(ctx[n].word & LOCK) -> touch(n);
		w = ctx[n].word;
		new = MERGE | DONE | (verdict & EXPIRED) | cause_of(verdict);
		if
		:: !(w & DONE) -> changes(n, w, new); ctx[n].word = new
		:: else
		fi
	}
}

/* ctxfd_merge: n becomes a child of a, and link_of(n) one of b. */
inline merge(a, b, n) {
	about_to_make(a);
	d_step { b_was_ended = ended(b) };
	d_step {
		make(n, a);
		make(link_of(n), b);
		ctx[link_of(n)].word = LINK;
		ctx[n].deadline = (ctx[a].deadline <= ctx[b].deadline -> ctx[a].deadline : ctx[b].deadline)
	};
	look(a);
	seen = w;
	look(b);
	other = w;
	d_step {
#if MERGE_TAKES_THE_FIRST_DEADLINE
		ctx[n].word = MERGE | (seen & TIMED) | cause_of(seen)
#else
		ctx[n].word = MERGE | (ctx[a].deadline <= ctx[b].deadline -> (seen & TIMED) | cause_of(seen) :
		                                                             (other & TIMED) | cause_of(other))
#endif
	};
	if
	:: (seen & (PENDING | DONE)) -> inherit_end(n, seen)
	:: else ->
		lock_live(b, other);
		if
		:: ok ->
			link_child(b, other, link_of(n), b, n);
			unlock(b)
		:: else -> inherit_end(n, other)
		fi
	fi;
	lock_live(a, seen);
	if
	:: ok ->
		link_child(a, seen, n, a, n);
		unlock(a)
	:: else ->
#if MERGE_DOES_NOT_INHERIT
		skip;
#else
		inherit_end(n, seen);
#endif
		count_on(n, a)
	fi;
	has_made(a, n);
	d_step { goes_below(n, b); assert(!b_was_ended || ended(n)); b_was_ended = false }
}

/* ---- Owning ------------------------------------------------------------------------------------------------------ */

/* Under the lock of n, whose word was w: the only owner leaves, if it still is the only one. */
inline drop_under_lock(n) {
#if LAST_OWNER_LEAVES_UNLOCKED
	unlock(n);
#endif
	d_step {
		touch(n);
		ctx[n].refs--;
		gone = (ctx[n].refs == 0);
#if LAST_OWNER_STAYS_THE_LAST
		gone = true;
#endif
		claimed = false;
		change = 0;
		if
		:: gone -> change = ORPHAN; claim_shards(n)
		:: else
		fi
	};
#if LAST_OWNER_LEAVES_UNLOCKED
	if
	:: gone -> change = 0; change_flags(n, 0, ORPHAN, w)
	:: else
	fi;
#else
	unlock(n);
#endif
	if
	:: claimed -> claimed = false; orphan_shards(n)
	:: else
	fi
}

/* last: n has nobody below it, and still no other owner. */
inline look_again(n) {
#if OWNER_LOOKS_ONCE
	last = true
#else
	d_step {
		touch(n);
		last = (ctx[n].refs == 1);
		if
#if LISTED_IS_LEFT_TO_OTHERS
		:: false
#else
		:: last && (ctx[n].word & (IDLE | GRACE)) -> ctx[n].refs = 0
#endif
		:: else
		fi
	}
#endif
}

/* A loop around a compare-and-swap. gone: there is only one owner, who stays. */
inline drop_one_of_many(n) {
#if OWNERS_LEAVE_AFTER_LOOK
	d_step { touch(n); gone = (ctx[n].refs == 1) };
	if
	:: !gone -> d_step { touch(n); ctx[n].refs-- }
	:: else
	fi
#else
	d_step {
		touch(n);
		assert(ctx[n].refs > 0);
		gone = (ctx[n].refs == 1);
		if
		:: !gone -> ctx[n].refs--
		:: else
		fi
	}
#endif
}

/*
 * Gives up one owner of n; with drop_last. last: there is no other and nothing below n, so the caller is the one to
 * free it.
 *
 * Why two looks at refs do, around one at the list: others become owners from below only when n has ended, and then
 * nobody can come into its list any more.
 */
inline drop(n) {
	last = false;
	do
	:: drop_one_of_many(n);
		if
		:: !gone -> break
		:: else
		fi;
		load_word(n, w);
		do
		:: (w & CHILDREN) ->
#if ORPHAN_SET_WITHOUT_LOOK
			update_word(n, w | LOCK);
			ok = true;
#else
			swap_word(n, w, w | LOCK);
#endif
			if
			:: ok -> break
			:: else
			fi
		:: else -> ok = false; break
		od;
		if
		:: ok -> drop_under_lock(n); break
		:: else -> look_again(n)
		fi;
		if
		:: last -> break
		:: else
		fi
	od;
	gone = false
}

/*
 * Makes the caller an owner of n, which may have none. n has ended and the caller has a node in its list that stays, or n is
 * LISTED and the caller has the dispatcher's lock. ok: n is not being freed. With own_parent.
 */
inline own(n) {
	d_step {
		touch(n);
		ok = (ctx[n].refs > 0);
		if
		:: ok -> ctx[n].refs++
		:: else
		fi
	};
	if
	:: !ok ->
#if OWN_DOES_NOT_LOCK
		d_step { touch(n); ctx[n].refs++ };
		load_word(n, w);
		if
		:: (w & ORPHAN) -> change_flags(n, ORPHAN, 0, w)
		:: else
		fi
#else
		update_word(n, w | LOCK);
		d_step {
			touch(n);
			last = !(w & CHILDREN);
			if
			:: !last -> ctx[n].refs++
			:: else
			fi;
#if !OWN_LEAVES_AN_ORPHAN
			change = (!last && (w & ORPHAN) -> -ORPHAN : 0)
#endif
		};
		unlock(n);
		ok = !last
#endif
	:: else
	fi
}

/* ---- Freeing ----------------------------------------------------------------------------------------------------- */

/* Puts n on the list of what is to be freed. */
inline push(n) {
	d_step { touch(n); ctx[n].values = list; list = n }
}

/* gone: whether n has left p's list. */
inline leave_list(n, p, if_live) {
#if !LEAVES_UNLOCKED
	lock(p);
#endif
	gone = true;
	if
#if STOP_LOOKS_BEFORE_THE_LOCK
	:: false
#else
	:: if_live -> d_step { touch(n); gone = !(ctx[n].word & DONE) }
#endif
	:: else
	fi;
	if
	:: gone ->
		d_step { mine(p); touch(n); before = ctx[n].prev; after = ctx[n].next };
		/* Ghost: nobody is left who could look at what is being freed. */
		d_step { store_pointer(before, after); ctx[dying].above = 0 };
		if
		:: after != 0 -> d_step { touch(after); ctx[after].prev = before }
		:: else
		fi;
		d_step { mine(p); before = 0; after = 0; change = (ctx[p].children != 0 -> 0 : -CHILDREN) }
	:: else
	fi;
#if LEAVES_UNLOCKED
	change = change + LOCK;
#endif
	unlock(p);
	if
	:: gone && (new & (CHILDREN | ORPHAN)) == ORPHAN -> push(p)
	:: else
	fi
}

inline dispose_one() {
#ifdef HAS_LISTED /* by the scenario: others would be too long for spin */
	if
	:: (ctx[dying].word & (IDLE | GRACE)) -> forget_listed(dying)
	:: else
	fi;
#endif
	if
	:: (ctx[dying].word & ALARMED) -> forget_expiry(dying)
	:: else
	fi;
#if FD_CLOSED_BEFORE_LEAVING
	if
	:: (ctx[dying].word & HAS_FD) -> close_done_fd(dying)
	:: else
	fi;
#endif
	if
	:: ctx[dying].linked -> d_step { list_owner(dying, up) }; leave_list(dying, up, false)
	:: else
	fi;
#if !MERGE_LEAVES_ONE_LIST
	if
	:: (ctx[dying].word & MERGE) && ctx[link_of(dying)].linked ->
		up = ctx[link_of(dying)].parent;
		leave_list(link_of(dying), up, false)
	:: else
	fi;
#endif
#if !FD_CLOSED_BEFORE_LEAVING
	if
	:: (ctx[dying].word & HAS_FD) -> close_done_fd(dying)
	:: else
	fi;
#endif
	if
	:: ctx[dying].counted ->
		up = ctx[dying].parent;
		drop(up);
		if
		:: last -> push(up)
		:: else
		fi
	:: else
	fi;
	free(dying)
}

inline dispose_shard() {
	d_step { up = ctx[dying].parent; touch(up); head = shards_of(up) };
	last_shard(up);
	if
	:: last ->
		leave_shards(up);
		if
		:: last -> push(up)
		:: else
		fi;
		free_block(head)
	:: else
	fi;
	head = 0
}

inline dispose_all() {
	do
	:: list != 0 ->
		d_step { dying = list; touch(dying); list = ctx[dying].values };
		if
		:: (ctx[dying].word & SHARD) -> dispose_shard()
		:: else -> dispose_one()
		fi;
		d_step { dying = 0; up = 0 }
	:: else -> break
	od;
	skip
}

inline dispose(n) {
	d_step { touch(n); ctx[n].values = 0; list = n };
	dispose_all()
}

/* gone: n, an after-func's, is freed, and never will be DONE. Else it is DONE, and stays. */
inline dispose_live(n) {
	load_word(n, w);
	gone = !(w & DONE);
	if
	:: gone && ctx[n].linked -> d_step { dying = n; list_owner(n, up) }; leave_list(n, up, true)
	:: else
	fi;
	if
	:: gone ->
		if
		:: ctx[n].counted ->
			up = ctx[n].parent;
			drop(up);
			if
			:: last -> push(up)
			:: else
			fi
		:: else
		fi;
		free(n);
		dispose_all();
		gone = true
	:: else
	fi
}

/* ctxfd_unref. */
inline unref(n) {
	drop(n);
	if
	:: last -> dispose(n)
	:: else
	fi;
	d_step { forget() }
}

/* The same for close. */
inline look_again_to_close(n) {
#if !CLOSE_LOOKS_ONCE
	d_step { touch(n); last = (ctx[n].refs == 1) }
#else
	skip
#endif
}

/* ctxfd_close. */
inline close(n, why) {
#if CLOSE_LOOKS_FOR_CHILDREN_FIRST
	load_word(n, w);
	d_step { touch(n); last = (ctx[n].refs == 1) };
#else
	d_step { touch(n); last = (ctx[n].refs == 1) };
	load_word(n, w);
#endif
	if
	:: last && !(w & CHILDREN) -> look_again_to_close(n)
	:: else -> last = false
	fi;
	if
	:: last ->
		load_word(n, w);
		if
		:: (w & UNSIGNALLED) -> closing = true; signal_done(n); closing = false
		:: else
		fi;
		dispose(n);
		d_step { forget() }
	:: else -> cancel(n, why); unref(n)
	fi
}
