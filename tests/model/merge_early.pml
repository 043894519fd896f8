/* SPDX-License-Identifier: MIT */
/* A merge M has its deadline from Q. It passes while P's walk is at work on M: M is committed early, and C leaves. */
#define NODES   6
#define THREADS 5
#include "protocol/protocol.pml"

#define P 1 /* P - M - C, Q - M */
#define Q 2
#define M 3
#define C 5

proctype owner_of_P() { REGISTERS; cancel(P, 1); thread_ends() }
proctype owner_of_Q() { REGISTERS; cancel(Q, 2); thread_ends() }
proctype owner_of_C() { REGISTERS; unref(C); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(P, 0, FOREVER); plant(Q, 0, SOON); plant_merge(M, P, Q, SOON);
			plant(C, M, SOON); running = 3
		};
		run owner_of_P(); run owner_of_Q(); run owner_of_C(); run ticking(SOON)
	};
	unref_all();
	nothing_is_left()
}
