/* SPDX-License-Identifier: MIT */
/* Two merges of P and Q, one each way round: do walks that come from both sides ever wait for each other? */
#define NODES   9
#define THREADS 4
#include "protocol/protocol.pml"

#define P 1 /* P - M - C, Q - M; Q - N - D, P - N */
#define Q 2
#define M 3
#define N 5
#define C 7
#define D 8

proctype owner_of_P() { REGISTERS; cancel(P, 1); thread_ends() }
proctype owner_of_Q() { REGISTERS; cancel(Q, 2); thread_ends() }
proctype owner_of_M() { REGISTERS; cancel(M, 3); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(P, 0, FOREVER); plant(Q, 0, FOREVER);
			plant_merge(M, P, Q, FOREVER); plant_merge(N, Q, P, FOREVER);
			plant(C, M, FOREVER); plant(D, N, FOREVER); running = 3
		};
		run owner_of_P(); run owner_of_Q(); run owner_of_M()
	};
	unref_all();
	nothing_is_left()
}
