/* SPDX-License-Identifier: MIT */
/* done.c, but for fork. A timerfd and an eventfd are the same here, but for the alarm in machine.pml. */

inline signal_done(n) {
#if FLAG_CLEARED_BEFORE_POST
	change_flags(n, UNSIGNALLED, 0, unused);
#endif
	d_step {
		touch(n);
		assert(ctx[n].fd == OPEN); /* the number is ours, and still is */
		assert((ctx[n].word & DONE) || closing); /* err says so before the fd does */
		ctx[n].readable = true
	};
#if !FLAG_CLEARED_BEFORE_POST
	change_flags(n, UNSIGNALLED, 0, unused)
#endif
}

inline close_done_fd(n) {
	d_step { touch(n); assert(ctx[n].fd == OPEN); ctx[n].fd = CLOSED; open_fds-- }
}

/* published: somebody else's fd is there. */
inline published_fd(n) {
	d_step { touch(n); published = (ctx[n].fd == OPEN) };
	if
	:: !published ->
		open_fds++;
		d_step { /* a compare-and-swap of the number */
			touch(n);
			if
			:: ctx[n].fd == NO_FD -> ctx[n].fd = OPEN
			:: else -> published = true; open_fds--
			fi
		}
	:: else
	fi
}

/* ctxfd_done_fd. */
inline done_fd(n) {
#if FD_PUBLISHED_AFTER_LOOK
	look(n);
#endif
#if FLAG_BEFORE_NUMBER
	change_flags(n, 0, HAS_FD | UNSIGNALLED, w);
#endif
	published_fd(n);
#if LOSER_DOES_NOT_LOOK
	if
	:: published
	:: else
#endif
	load_word(n, w);
	if
	:: !(w & HAS_FD) -> change_flags(n, 0, HAS_FD | UNSIGNALLED, w)
	:: else
	fi;
#if !FD_PUBLISHED_AFTER_LOOK
	look(n);
#endif
#if LOSER_DOES_NOT_LOOK
	fi;
#endif
	d_step {
		touch(n);
		published = false;
		ctx[n].handed = true;
		assert(!ctx[n].known || ctx[n].readable);
		forget()
	}
}

/* Polls n's fd and asks err if it is readable: the other half of "err if and only if done". */
inline poll_then_err(n) {
	d_step { touch(n); assert(ctx[n].fd == OPEN); published = ctx[n].readable };
	err(n);
	d_step { assert(!published || e != 0); published = false }
}
