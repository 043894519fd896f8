/* SPDX-License-Identifier: MIT */
/* R's deadline passes while a cancel is at work on R: who asks commits R early. Then A is cancelled, and B leaves. */
#define NODES   4
#define THREADS 6
#include "protocol/protocol.pml"

#define R 1 /* R - A - B */
#define A 2
#define B 3

proctype canceller(byte why) { REGISTERS; cancel(R, why); thread_ends() }
proctype onlooker() { REGISTERS; err(R); cancel(A, 2); thread_ends() }
proctype owner_of_B() { REGISTERS; unref(B); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(R, 0, SOON); plant(A, R, SOON); plant(B, A, SOON); plant_fd(R); running = 3 };
		run canceller(1); run onlooker(); run owner_of_B(); run ticking(SOON); run alarm(R)
	};
	unref_all();
	nothing_is_left()
}
