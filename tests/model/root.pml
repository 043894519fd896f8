/* SPDX-License-Identifier: MIT */
/* Cancel against a second cancel of the root, and a thread that sleeps until R or A is done. */
#define NODES   4
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A - B */
#define A 2
#define B 3

proctype canceller(byte why) { REGISTERS; cancel(R, why); thread_ends() }

proctype sleeper() {
	REGISTERS;
	byte which;

	if
	:: which = R
	:: which = A
	fi;
	wait_for(which);
	thread_ends()
}

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, FOREVER); plant(B, A, FOREVER);
			plant_fd(B); running = 3
		};
		run canceller(1); run canceller(2); run sleeper()
	};
	unref_all();
	nothing_is_left()
}
