/* SPDX-License-Identifier: MIT */
/* Cancel against close: of A's two owners one closes it, and the other makes a child of it and leaves. */
#define NODES   4
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A */
#define A 2
#define B 3

proctype owner_of_R() { REGISTERS; cancel(R, 1); thread_ends() }
proctype closer() { REGISTERS; close(A, 2); thread_ends() }
proctype maker() { REGISTERS; derive(A, B, FOREVER); unref(A); unref(B); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(R, 0, FOREVER); plant(A, R, FOREVER); plant_ref(A); plant_fd(A); running = 3 };
		run owner_of_R(); run closer(); run maker()
	};
	unref_all();
	nothing_is_left()
}
