/* SPDX-License-Identifier: MIT */
/* Cancel against a passing deadline: A has one, which is B's too. */
#define NODES   4
#define THREADS 8
#include "protocol/protocol.pml"

#define R 1 /* R - A - B */
#define A 2
#define B 3

proctype canceller() { REGISTERS; cancel(R, 1); thread_ends() }
proctype onlooker() { REGISTERS; poll_then_err(A); err(B); thread_ends() }
proctype owner_of_B() { REGISTERS; done_fd(B); poll_then_err(B); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, SOON); plant(B, A, SOON);
			plant_far(A); plant_fd(A); running = 3
		};
		run canceller(); run onlooker(); run owner_of_B(); run ticking(SOON); run alarm(A); run alarm(B)
	};
	unref_all();
	nothing_is_left()
}
