/* SPDX-License-Identifier: MIT */
/* Cancel against derive: children are made below R and below A while R is cancelled. */
#define NODES   6
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A */
#define A 2
#define B 3
#define C 4
#define D 5

proctype canceller() { REGISTERS; done_fd(A); cancel(R, 1); thread_ends() }
proctype below_R() { REGISTERS; derive(R, B, FOREVER); done_fd(B); err(R); err(B); thread_ends() }
proctype below_A() {
	REGISTERS;

	derive(A, C, FOREVER);
	derive(C, D, FOREVER);
	unref(C);
	err(D);
	unref(D);
	thread_ends()
}

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(R, 0, FOREVER); plant(A, R, FOREVER); running = 3 };
		run canceller(); run below_R(); run below_A()
	};
	unref_all();
	nothing_is_left()
}
