/* SPDX-License-Identifier: MIT */
/* Cancel against derive and free, where R's children are in shards. The owners of R leave one after the other. */
#define NODES   7
#define THREADS 4
#include "protocol/protocol.pml"

#define R 1 /* R - A, R - S and T */
#define A 2
#define S 3
#define B 5
#define C 6

proctype owner_of_R() { REGISTERS; cancel(R, 1); unref(R); thread_ends() }
proctype maker_of_B() { REGISTERS; derive(R, B, FOREVER); unref(R); unref(B); thread_ends() }
proctype maker_of_C() { REGISTERS; derive(R, C, FOREVER); unref(R); thread_ends() }

init {
	REGISTERS;
	byte at = R; /* which the threads give up */

	atomic {
		d_step {
			plant(R, 0, FOREVER); plant(A, R, FOREVER); plant_shards(R, S);
			plant_ref(R); plant_ref(R); running = 3
		};
		run owner_of_R(); run maker_of_B(); run maker_of_C()
	};
	unref_all();
	nothing_is_left()
}
