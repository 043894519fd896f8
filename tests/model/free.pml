/* SPDX-License-Identifier: MIT */
/* Cancel against free: while R is cancelled, the owners of all below leave, B's with a cancel of its own; A has two. */
#define NODES   5
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A - B, R - C */
#define A 2
#define B 3
#define C 4

proctype owner_of_R() { REGISTERS; cancel(R, 1); unref(R); thread_ends() }
proctype owner_of_A_and_C() { REGISTERS; unref(A); close(C, 3); thread_ends() }
proctype owner_of_A_and_B() { REGISTERS; unref(A); close(B, 2); thread_ends() }

init {
	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, FOREVER); plant(B, A, FOREVER); plant(C, R, FOREVER);
			plant_fd(B); plant_ref(A); running = 3
		};
		run owner_of_A_and_C(); run owner_of_A_and_B(); run owner_of_R()
	};
	nothing_is_left()
}
