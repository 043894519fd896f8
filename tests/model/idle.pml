/* SPDX-License-Identifier: MIT */
/* A's idle timeout against a touch, a passing deadline, and those who derive from A. */
#define NODES   5
#define THREADS 5
#define HAS_LISTED
#include "protocol/protocol.pml"

#define R 1 /* R - A - B */
#define A 2
#define B 3
#define X 4

proctype user() { REGISTERS; bool was_lost; touch_idle(A); err(A); thread_ends() }
proctype maker() { REGISTERS; derive(A, X, FOREVER); err(X); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(R, 0, SOON); plant_idle(A, R); plant(B, A, SOON);
			running = 2
		};
		run user(); run maker(); run ending(A, 0, 3); run ticking(SOON)
	};
	running == 0 && !is_time(A, 0);
	unref_all();
	nothing_is_left()
}
