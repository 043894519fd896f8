/* SPDX-License-Identifier: MIT */
/* A merge of two contexts that have one ancestor: R's walk comes to M by two ways, Q's by one. */
#define NODES   8
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - P - M - C, R - Q - M */
#define P 2
#define Q 3
#define M 4
#define C 6
#define S 7 /* Q - S */

proctype owner_of_R() { REGISTERS; cancel(R, 1); thread_ends() }
proctype owner_of_Q() { REGISTERS; cancel(Q, 2); thread_ends() }
proctype owner_of_the_rest() { REGISTERS; unref(M); err(C); unref(C); unref(P); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(P, R, FOREVER); plant(Q, R, FOREVER); plant(S, Q, FOREVER);
			plant_merge(M, P, Q, FOREVER); plant(C, M, FOREVER); running = 3
		};
		run owner_of_R(); run owner_of_Q(); run owner_of_the_rest()
	};
	unref_all();
	nothing_is_left()
}
