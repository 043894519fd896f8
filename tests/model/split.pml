/* SPDX-License-Identifier: MIT */
/*
 * Cancel against the making of shards: while R gets them, perhaps by two threads at once, it is cancelled and given
 * children.
 */
#define NODES   8
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A */
#define A 2
#define S 3
#define T 5
#define B 7

proctype canceller() { REGISTERS; cancel(R, 1); thread_ends() }
proctype splitter() { REGISTERS; split_children(R, S); thread_ends() }
proctype maker() { REGISTERS; split_children(R, T); derive(R, B, FOREVER); err(B); unref(B); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(R, 0, FOREVER); plant(A, R, FOREVER); running = 3 };
		run canceller(); run splitter(); run maker()
	};
	unref_all();
	nothing_is_left()
}
