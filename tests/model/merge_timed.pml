/* SPDX-License-Identifier: MIT */
/* A merge of P and Q, of which Q has a deadline, is made and given an fd while one of them is cancelled. */
#define NODES   5
#define THREADS 6
#include "protocol/protocol.pml"

#define P 1 /* P - M, Q - M */
#define Q 2
#define M 3

proctype canceller() {
	REGISTERS;

	if
	:: cancel(P, 1)
	:: cancel(Q, 2)
	fi;
	thread_ends()
}

proctype maker() { REGISTERS; merge(P, Q, M); done_fd(M); err(M); thread_ends() }
proctype onlooker() { REGISTERS; err(Q); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(P, 0, FOREVER); plant(Q, 0, SOON); running = 3 };
		run canceller(); run maker(); run onlooker(); run ticking(SOON); run alarm(M)
	};
	unref_all();
	nothing_is_left()
}
