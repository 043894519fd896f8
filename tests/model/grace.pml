/* SPDX-License-Identifier: MIT */
/* The end of a grace G after P against the cancel and the free of P, and the free of G, or of what is below it. */
#define NODES   5
#define THREADS 5
#define HAS_LISTED
#include "protocol/protocol.pml"

#define P 1 /* P - the watch of G; G - B */
#define G 2
#define B 4

proctype owner_of_P() { REGISTERS; cancel(P, 1); unref(P); thread_ends() }

proctype owner_of_G() {
	REGISTERS;
	bool parent_lives;

	err(G);
	parent_lives = (e == ETIMEDOUT && !ended(P));
	assert(!parent_lives);
	unref(G);
	thread_ends()
}

proctype owner_of_B() { REGISTERS; unref(B); thread_ends() }

init {
	atomic {
		d_step { plant(P, 0, FOREVER); plant_grace(G, P); plant(B, G, FOREVER); running = 3 };
		run owner_of_P(); run owner_of_G(); run owner_of_B(); run ending(G, P, 3)
	};
	running == 0 && !ctx[G].alarm_set;
	nothing_is_left()
}
