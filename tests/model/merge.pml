/* SPDX-License-Identifier: MIT */
/* Two walks that meet at a merge M of P and Q, with C below it, while M and C are given up. */
#define NODES   6
#define THREADS 4
#include "protocol/protocol.pml"

#define P 1 /* P - M - C, Q - M */
#define Q 2
#define M 3
#define L link_of(M)
#define C 5

proctype owner_of_P() { REGISTERS; cancel(P, 1); unref(P); thread_ends() }
proctype owner_of_Q() { REGISTERS; cancel(Q, 2); unref(Q); thread_ends() }
proctype owner_of_M_and_C() { REGISTERS; unref(M); unref(C); thread_ends() }

init {
	atomic {
		d_step {
			plant(P, 0, FOREVER); plant(Q, 0, FOREVER); plant_merge(M, P, Q, FOREVER); plant(C, M, FOREVER);
			running = 3
		};
		run owner_of_P(); run owner_of_Q(); run owner_of_M_and_C()
	};
	nothing_is_left()
}
