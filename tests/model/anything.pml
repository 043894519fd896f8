/* SPDX-License-Identifier: MIT */
/* Two threads do anything, one of them twice, to any of R - A - B, where A and B have a deadline. */
#define NODES   6
#define THREADS 5
#include "protocol/protocol.pml"

#define R 1 /* R - A - B */
#define A 2
#define B 3

proctype anybody(byte why; byte made; byte todo) {
	REGISTERS;
	byte which;

	do
	:: todo > 0 ->
		todo--;
		if
		:: which = R
		:: which = A
		:: which = B
		fi;
		if
		:: cancel(which, why)
		:: err(which)
		:: done_fd(which)
		:: !ctx[made].alive -> derive(which, made, FOREVER)
		fi
	:: else -> break
	od;
	thread_ends()
}

init {
	REGISTERS;
	byte at;

	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, SOON); plant(B, A, SOON);
			running = 2
		};
		run anybody(1, 4, 2); run anybody(2, 5, 1); run ticking(SOON)
	};
	unref_all();
	nothing_is_left()
}
