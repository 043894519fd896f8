/* SPDX-License-Identifier: MIT */
/*
 * Cancel against with_deadline: a child with a deadline of its own, past or to come, is made while R is cancelled or
 * expires.
 */
#define NODES   3
#define THREADS 5
#include "protocol/protocol.pml"

#define R 1 /* R - A */
#define A 2

proctype canceller() { REGISTERS; cancel(R, 1); thread_ends() }
proctype maker() {
	REGISTERS;
	byte at;

	if
	:: at = PAST
	:: at = SOON
	fi;
	with_deadline(R, A, at);
	err(A);
	thread_ends()
}

proctype onlooker() { REGISTERS; err(R); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(R, 0, LATER); running = 3 };
		run canceller(); run maker(); run onlooker(); run ticking(LATER)
	};
	unref_all();
	nothing_is_left()
}
