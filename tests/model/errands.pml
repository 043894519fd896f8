/* SPDX-License-Identifier: MIT */
/*
 * A function on A, which has ended, works on A while A's owners leave: none, because they have left before, one or two.
 * It registers another one and stops it, derives, refs, and leaves things behind that outlive it.
 */
#define NODES   5
#define THREADS 5

#define A 1 /* A - H; G and X are below A, made by H's function */
#define H 2
#define G 3
#define X 4

#define FN                                               \
	if                                               \
	:: after_func(A, G, true); after_stop(G)         \
	:: after_func(A, G, false)                       \
	:: derive(A, X, FOREVER); close(X, 2)            \
	:: derive(A, X, FOREVER); leave_behind(X)        \
	:: ref(A); leave_behind(A)                       \
	:: ref(A); unref(A)                              \
	fi

#include "protocol/protocol.pml"

proctype owner_of_A() { REGISTERS; unref(A); thread_ends() }
proctype closer_of_A() { REGISTERS; close(A, 2); thread_ends() }

init {
	atomic {
		d_step { plant(A, 0, FOREVER); plant_due(H, A); ctx[A].word = ctx[A].word | DONE };
		run dispatcher(H, G, 0); run heir();
		if
		:: plant_orphan(A)
		:: running = 1; run closer_of_A()
		:: plant_ref(A); running = 2; run owner_of_A(); run closer_of_A()
		fi
	};
	running == 0 && !ctx[H].queued && !ctx[G].queued;
	nothing_is_left()
}
