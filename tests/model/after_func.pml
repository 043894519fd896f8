/* SPDX-License-Identifier: MIT */
/*
 * after_func against a cancel and a passing deadline of its context A: the function runs once, after A's end; or it is
 * stopped and never runs.
 */
#define NODES   5
#define THREADS 5
#include "protocol/protocol.pml"

#define R 1 /* R - A - B, A - H */
#define A 2
#define B 3
#define H 4

proctype owner_of_R_and_B() { REGISTERS; cancel(R, 1); unref(R); unref(B); thread_ends() }

proctype owner_of_A() {
	REGISTERS;
	bool stopped;

	if
	:: after_func(A, H, true); after_stop(H); assert(stopped == (ran == 0))
	:: after_func(A, H, false)
	fi;
	unref(A);
	thread_ends()
}

init {
	atomic {
		d_step { plant(R, 0, FOREVER); plant(A, R, SOON); plant(B, A, SOON); running = 2 };
		run owner_of_R_and_B(); run owner_of_A(); run dispatcher(H, H, A); run ticking(SOON)
	};
	running == 0 && !ctx[H].queued && !ctx[A].alarm_set;
	nothing_is_left()
}
