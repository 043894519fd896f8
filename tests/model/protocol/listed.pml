/* SPDX-License-Identifier: MIT */
/*
 * idle.c and grace.c: contexts that a dispatcher ends because time is up, though no deadline of theirs has passed. Both are
 * LISTED, by their alarm. How long a timeout or a grace is, is not here: an alarm that is set may ring at any time.
 */

/* What is IDLE, and was made before the threads started. */
inline plant_idle(n, p) {
	plant(n, p, ctx[p].deadline);
	ctx[n].word = IDLE | (ctx[p].word & TIMED) | cause_of(ctx[p].word);
	ctx[n].alarm_set = true
}

/* The same for a grace after p. Nobody looks at its watch, so it need not be seen done before p. */
inline plant_grace(n, p) {
	make(n, p);
	ctx[n].word = GRACE;
	ctx[n].counted = true;
	ctx[p].refs++;
	plant(watch_of(n), p, FOREVER);
	ctx[watch_of(n)].word = WATCH;
	ctx[watch_of(n)].above = 0;
	ctx[n].alarm_set = (ctx[p].deadline != FOREVER)
}

/* By the walk that ends the parent. */
inline begin_grace(watch) {
	atomic {
		!dispatcher_locked ->
		touch(grace_of(watch));
		ctx[grace_of(watch)].touched = RUNG;
		ctx[grace_of(watch)].alarm_set = true
	}
}

/* Whether the alarm of n can ring now: that of a grace after p not before p has ended, or is marked. */
#define is_time(n, p) (ctx[n].alarm_set && ((p) == 0 || ctx[n].touched == RUNG || clock >= ctx[p].deadline))

/* ctxfdi_dispatcher_end_after, with the dispatcher's lock, which this gives back. */
inline end_after(first, n, why) {
	own(n);
	dispatcher_locked = false;
	if
	:: ok ->
#if !GRACE_DOES_NOT_WAIT
		if
		:: (first) != 0 -> await_done(first)
		:: else
		fi;
#endif
		d_step { root = n; verdict = cause_bits(why) | EXPIRED; began = clock };
		cancel_root();
		unref(n)
	:: else
	fi
}

/* ok: time is up, and no touch has come. */
inline idle_rings(n) {
	d_step { touch(n); e = ctx[n].touched };
	load_word(n, w);
	if
	:: (w & (PENDING | DONE)) -> ok = false
	:: !(w & (PENDING | DONE)) && e == TOUCHED ->
		d_step { touch(n); ctx[n].touched = 0; ctx[n].alarm_set = true; ok = false }
	:: else -> /* a compare-and-swap; if it fails there is a touch, as above */
		d_step {
			touch(n);
			ok = (ctx[n].touched == e);
			ctx[n].touched = (ok -> OVER : 0);
			ctx[n].alarm_set = !ok
		}
	fi
}

/* ctxfd_touch. Either n is done when it returns, or its timeout has begun anew. */
inline touch_idle(n) {
	d_step {
		touch(n);
		late = (ctx[n].touched == OVER);
		if
		:: !late -> ctx[n].touched = TOUCHED
		:: else
		fi
	};
#if !TOUCH_DOES_NOT_WAIT
	if
	:: late -> await_done(n); late = true
	:: else
	fi;
#endif
	d_step { touch(n); was_lost = (late && !(ctx[n].word & DONE)); assert(!was_lost); forget() }
}

/* In before_free. We own the parent of a grace, so it cannot be free now. */
inline forget_listed(n) {
	if
	:: (ctx[n].word & GRACE) && ctx[watch_of(n)].linked ->
#if GRACE_LEAVES_ITS_WATCH
		skip
#else
		d_step { list_owner(watch_of(n), up) };
		leave_list(watch_of(n), up, false)
#endif
	:: else
	fi;
#if LISTED_LEAVES_ITS_ALARM
	skip
#else
	atomic { !dispatcher_locked -> ctx[n].alarm_set = false }
#endif
}
