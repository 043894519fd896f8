/* SPDX-License-Identifier: MIT */
/* A merge of P and Q, or of P and P, is made and freed while both are cancelled, and all are given up. */
#define NODES   5
#define THREADS 4
#include "protocol/protocol.pml"

#define P 1 /* P - M, Q - M */
#define Q 2
#define M 3

proctype owner_of_P() { REGISTERS; cancel(P, 1); unref(P); thread_ends() }
proctype owner_of_Q() { REGISTERS; cancel(Q, 2); unref(Q); thread_ends() }
proctype maker() {
	REGISTERS;
	byte second;

	if
	:: second = Q
	:: second = P
	fi;
	merge(P, second, M);
	unref(P);
	unref(Q);
	err(M);
	unref(M);
	thread_ends()
}

init {
	atomic {
		d_step { plant(P, 0, FOREVER); plant(Q, 0, FOREVER); plant_ref(P); plant_ref(Q); running = 3 };
		run owner_of_P(); run owner_of_Q(); run maker()
	};
	nothing_is_left()
}
