/* SPDX-License-Identifier: MIT */
/*
 * after.c and dispatch.c, as far as a context's end meets them: who has the last word about an after-func, stop or run?
 *
 * What happens under the dispatcher's lock is one step, but for after_func, which links a child meanwhile.
 */

bool dispatcher_locked; /* by after_func */
byte ran;               /* ghost: functions, there is one in a scenario */

/* An after-func of p that was made before the threads started, and that somebody has a handle of. */
inline plant_after(n, p) {
	plant(n, p, FOREVER);
	ctx[n].word = HOOK;
	ctx[n].owned = true
}

/* What a cancel has ended goes to the dispatcher. */
inline dispatch() {
	atomic {
		!dispatcher_locked ->
		d_step {
			do
			:: due != 0 ->
				touch(due);
				assert(!ctx[due].queued && ctx[due].state != RUNNING && ctx[due].state != RAN);
				ctx[due].queued = true;
				due = ctx[due].after_next
			:: else -> break
			od
		}
	}
}

/* ctxfd_after_func. with_handle: somebody will stop n; else nobody knows of n but the library. */
inline after_func(p, n, with_handle) {
	ctx[n].owned = with_handle;
	if
#if !ALARM_SET_UNLOCKED
	:: ctx[p].deadline != FOREVER -> atomic { !dispatcher_locked -> dispatcher_locked = true }
#endif
	:: else
	fi;
	adopt(p, n, FOREVER, HOOK);
	if
	:: ctx[p].deadline != FOREVER ->
		d_step {
			if
			:: (born & TIMED) -> touch(n); ctx[n].alarm_set = true
			:: else
			fi;
			dispatcher_locked = false
		}
	:: else
	fi;
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

/* In one step. n's alarm, which is set, has come. */
inline expire_alarm(n) {
	touch(n);
	ctx[n].alarm_set = false;
	if
	:: !(ctx[n].word & DONE) ->
		new = (ctx[n].word & ~TIMED) | DONE | EXPIRED;
		changes(n, ctx[n].word, new);
		ctx[n].word = new;
		ctx[n].queued = true;
		new = 0
	:: else
	fi
}

/* Runs n, which is due, unless it has been stopped. Its function must find its context done. */
inline run_after(n) {
	d_step {
		touch(n);
		ctx[n].alarm_set = false;
		gone = (ctx[n].state == STOPPED);
		if
		:: !gone -> ctx[n].state = RUNNING; ran++; touch(ctx[n].parent); assert(ended(ctx[n].parent))
		:: else
		fi
	};
	if
	:: gone -> reap(n)
	:: else ->
		d_step {
			touch(n);
			gone = !ctx[n].owned;
			if
			:: !gone -> ctx[n].state = RAN
			:: else
			fi
		};
		if
		:: gone -> reap(n)
		:: else
		fi
	fi;
	d_step { forget() }
}

/* The dispatcher, as far as it has to do with after-func n. */
proctype dispatcher(byte n) {
	REGISTERS;

end:	do
	:: atomic {
		!dispatcher_locked && ctx[n].alarm_set && clock >= ctx[n].deadline ->
		d_step { expire_alarm(n) }
	}
	:: atomic { !dispatcher_locked && ctx[n].queued -> ctx[n].queued = false; running++ };
		run_after(n);
		thread_ends()
	od
}

/* ctxfd_after_stop, with stop_ended. stopped: fn never ran and never will. */
inline after_stop(n) {
#if !STOP_LEAVES_THE_ALARM
	if
	:: ctx[n].deadline != FOREVER -> atomic { !dispatcher_locked -> touch(n); ctx[n].alarm_set = false }
	:: else
	fi;
#endif
	reap_live(n);
	stopped = gone;
	if
	:: !gone ->
		atomic {
			!dispatcher_locked;
			touch(n);
			if
			:: ctx[n].state == WAITING -> ctx[n].state = STOPPED; stopped = true
			:: else -> (ctx[n].state == RAN)
			fi
		};
		if
		:: !stopped -> reap(n)
		:: else
		fi
	:: else
	fi;
	d_step { forget() }
}
