/* SPDX-License-Identifier: MIT */
/* The same when A ends by its deadline, or is cancelled at that time. */
#define NODES   5
#define THREADS 7

#define A 1 /* A - H; G and X are below A, made by H's function */
#define H 2
#define G 3
#define X 4

#define FN                                               \
	if                                               \
	:: after_func(A, G, true); after_stop(G)         \
	:: after_func(A, G, false)                       \
	:: derive(A, X, FOREVER); leave_behind(X)        \
	:: ref(A); leave_behind(A)                       \
	fi

#include "protocol/protocol.pml"

proctype owner_of_A() { REGISTERS; unref(A); thread_ends() }
proctype closer_of_A() { REGISTERS; close(A, 2); thread_ends() }

init {
	atomic {
		d_step {
			plant(A, 0, SOON); plant_after(H, A); ctx[H].owned = false;
			ctx[A].word = ctx[A].word | ALARMED; ctx[A].alarm_set = true
		};
		run dispatcher(H, G, A); run heir(); run ticking(SOON);
		if
		:: plant_orphan(A)
		:: running = 1; run closer_of_A()
		:: plant_ref(A); running = 2; run owner_of_A(); run owner_of_A()
		fi
	};
	running == 0 && !ctx[H].queued && !ctx[G].queued && !ctx[A].alarm_set;
	nothing_is_left()
}
