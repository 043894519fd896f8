/* SPDX-License-Identifier: MIT */
/*
 * after.c and dispatcher.c, as far as a context's end meets them: who has the last word about an after-func, stop or
 * run?
 *
 * What happens under the dispatcher's lock is one step, but for the ends of an expiry. A context's expiry is in no list
 * here: the flag ALARMED and alarm_set stand for it.
 */

byte ran; /* ghost: functions */

/* An after-func of p that was made before the threads started, and that somebody has a handle of. */
inline plant_after(n, p) {
	plant(n, p, ctx[p].deadline);
	ctx[n].word = HOOK | (ctx[p].word & TIMED) | cause_of(ctx[p].word);
	ctx[n].owned = true
}

/* The same, without a handle: p has ended, and the dispatcher has it. */
inline plant_due(n, p) {
	plant(n, p, ctx[p].deadline);
	ctx[n].word = HOOK | DONE;
	ctx[n].queued = true
}

/* In a d_step. */
inline add_due() {
	do
	:: due != 0 ->
		touch(due);
		assert(!ctx[due].queued && ctx[due].state != RUNNING && ctx[due].state != RAN);
		ctx[due].queued = true;
		due = ctx[due].after_next
	:: else -> break
	od;
	skip
}

/* What a cancel has ended goes to the dispatcher. */
inline dispatch() {
	atomic { !dispatcher_locked -> d_step { add_due() } }
}

inline set_expiry(n) {
	load_word(n, w);
	if
	:: !(w & ALARMED) ->
		lock_live(n, seen);
		if
		:: ok ->
			d_step { last = !(seen & ALARMED); change = (last -> ALARMED : 0) };
			unlock(n);
			if
			:: last -> atomic { !dispatcher_locked -> touch(n); ctx[n].alarm_set = true }
			:: else
			fi
		:: else
		fi
	:: else
	fi
}

inline forget_expiry(n) {
#if FREE_LEAVES_THE_ALARM
	skip
#else
	atomic { !dispatcher_locked -> ctx[n].alarm_set = false }
#endif
}

/* ctxfd_after_func. with_handle: somebody will stop n; else nobody knows of n but the library. */
inline after_func(p, n, with_handle) {
	ctx[n].owned = with_handle;
	if
	:: ctx[p].deadline != FOREVER -> set_expiry(p)
	:: else
	fi;
	adopt(p, n, FOREVER, HOOK);
	if
	:: (born & DONE) ->
#if !AFTER_FUNC_DOES_NOT_WAIT
		await_done(p);
#endif
		due = n;
		dispatch()
	:: else
	fi;
	d_step { forget() }
}

/* In cancel.c. due: the after-funcs that n's deadline has ended. Out of the dispatcher's lock meanwhile. */
inline expire_after_funcs(n) {
	look(n);
	do
#if !EXPIRY_IGNORES_THE_WALK
	:: (w & HELD) || !(w & CHILDREN) -> ok = false; break
	:: !(w & HELD) && (w & CHILDREN) ->
#else
	:: !(w & CHILDREN) -> ok = false; break
	:: (w & CHILDREN) ->
#endif
		swap_word(n, w, w | HELD);
		if
		:: ok -> break
		:: else
		fi
	od;
	if
	:: ok ->
#if EXPIRY_WITHOUT_HOLD
		update_word(n, w & ~HELD);
#endif
		dispatcher_locked = false;
		d_step { mine(n); now = clock; child = ctx[n].children };
		do
		:: child != 0 ->
			if
			:: (ctx[child].word & HOOK) -> mark(child, false)
			:: else
			fi;
			d_step { mine(n); touch(child); child = ctx[child].next }
		:: else -> break
		od;
		atomic { !dispatcher_locked -> dispatcher_locked = true };
		commit(n)
	:: else
	fi
}

/* Frees n, which is DONE, and then gives up what its function owned. */
inline free_after(n) {
	owns = (ctx[n].owns -> ctx[n].parent : 0);
	dispose(n);
	if
	:: owns != 0 -> unref(owns)
	:: else
	fi;
	d_step { forget() }
}

/* ctxfd_after_stop, with stop_ended. stopped: fn never ran and never will. */
inline after_stop(n) {
	dispose_live(n);
	stopped = gone;
	if
	:: !gone ->
		atomic {
			!dispatcher_locked;
			touch(n);
			if
			:: ctx[n].state == WAITING ->
				stopped = true;
				gone = ctx[n].queued;
				if
#if !STOP_LEAVES_IT_QUEUED
				:: gone -> ctx[n].queued = false
#endif
				/* In C the cancel that has it frees it then, here the dispatcher. */
				:: !gone -> ctx[n].state = STOPPED
				:: else
				fi
			:: else -> (ctx[n].state == RAN); gone = true
			fi
		};
		if
#if STOP_FORGETS_THE_REFERENCE
		:: gone -> dispose(n)
#else
		:: gone -> free_after(n)
#endif
		:: else
		fi
	:: else
	fi;
	d_step { forget() }
}

/* What the function of an after-func does, an owner of its context: a scenario may say it before it includes this. */
#ifndef FN
#define FN skip
#endif

/* What a function leaves behind for another thread to give up. */
byte legacy;

inline leave_behind(n) {
	d_step { assert(legacy == 0); legacy = n; running++; forget() }
}

proctype heir() {
	REGISTERS;

end:	do
	:: legacy != 0 -> unref(legacy); legacy = 0; thread_ends()
	od
}

/* Runs n, which is due, unless it has been stopped. Its function must find its context done. */
inline run_after(n, has_errands) {
	d_step {
		touch(n);
		gone = (ctx[n].state == STOPPED);
		if
		:: !gone -> ctx[n].state = RUNNING
		:: else
		fi
	};
	if
	:: gone
	:: else ->
#if !FN_IS_NO_OWNER
		if
		:: !ctx[n].counted -> d_step { touch(n); ctx[n].owns = true; owns = ctx[n].parent }; own(owns)
		:: else
		fi;
#endif
#if FN_LEAVES_BEFORE_IT_RETURNS
		if
		:: ctx[n].owns -> ctx[n].owns = false; unref(owns)
		:: else
		fi;
#endif
		d_step { ran++; touch(ctx[n].parent); assert(ended(ctx[n].parent)); forget() };
		if
		:: has_errands -> FN
		:: else
		fi;
		d_step {
			touch(n);
			gone = !ctx[n].owned;
			if
			:: !gone -> ctx[n].state = RAN
			:: else
			fi
		}
	fi;
	if
	:: gone -> free_after(n)
	:: else
	fi;
	d_step { forget() }
}

/*
 * The dispatcher, as far as it has to do with after-funcs one and more, which may be the same, and with the expiry of p
 * unless that is 0. The function of `more` does nothing.
 */
proctype dispatcher(byte one, more, p) {
	REGISTERS;
	byte h;
	bool stopped;

end:	do
	:: atomic {
		p != 0 && !dispatcher_locked && ctx[p].alarm_set && clock >= ctx[p].deadline ->
		ctx[p].alarm_set = false;
		dispatcher_locked = true;
		running++
	};
		expire_after_funcs(p);
		d_step { add_due(); dispatcher_locked = false; forget() };
		thread_ends()
	:: atomic {
		!dispatcher_locked && (ctx[one].queued || ctx[more].queued) ->
		h = (ctx[one].queued -> one : more);
		ctx[h].queued = false;
		running++
	};
		run_after(h, h == one);
		d_step { h = 0; stopped = false; running-- }
	od
}

/* The dispatcher, as far as it ends n, which is IDLE if p is 0, and else a grace after p. */
proctype ending(byte n; byte p; byte why) {
	REGISTERS;

end:	do
	:: atomic {
		!dispatcher_locked && is_time(n, p) ->
		ctx[n].alarm_set = false;
		dispatcher_locked = true;
		running++
	};
		if
		:: p == 0 -> idle_rings(n)
		:: else -> load_word(n, w); ok = !(w & (PENDING | DONE))
		fi;
		if
		:: ok -> end_after(p, n, why)
		:: else -> dispatcher_locked = false
		fi;
		d_step { forget(); e = 0 };
		thread_ends()
	od
}
