/* SPDX-License-Identifier: MIT */
/* Cancel against a second cancel in the subtree, A's or B's, while a third thread asks. */
#define NODES   5
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A - B - C */
#define A 2
#define B 3
#define C 4

proctype owner_of_R() { REGISTERS; cancel(R, 1); thread_ends() }

proctype owner_of_A_and_B() {
	REGISTERS;
	byte which;

	if
	:: which = A
	:: which = B
	fi;
	cancel(which, 2);
	thread_ends()
}

proctype onlooker() { REGISTERS; err(R); done_fd(C); err(B); err(C); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, FOREVER); plant(B, A, FOREVER); plant(C, B, FOREVER);
			plant_fd(B); plant_fd(A); running = 3
		};
		run owner_of_R(); run owner_of_A_and_B(); run onlooker()
	};
	unref_all();
	nothing_is_left()
}
