/* SPDX-License-Identifier: MIT */
/* Cancel against after_stop: the function of H runs once after A's end, or is stopped and never runs. */
#define NODES   5
#define THREADS 5
#include "protocol/protocol.pml"

#define R 1 /* R - A - H, A - B */
#define A 2
#define H 3
#define B 4

proctype owner_of_R() { REGISTERS; cancel(R, 1); unref(R); thread_ends() }
proctype owner_of_A() { REGISTERS; unref(A); close(B, 2); thread_ends() }

proctype owner_of_H() {
	REGISTERS;
	bool stopped;

	after_stop(H);
	assert(stopped == (ran == 0));
	thread_ends()
}

init {
	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, FOREVER); plant(B, A, FOREVER); plant_after(H, A);
			running = 3
		};
		run owner_of_R(); run owner_of_A(); run owner_of_H(); run dispatcher(H, H, 0)
	};
	running == 0 && !ctx[H].queued;
	nothing_is_left()
}
