/* SPDX-License-Identifier: MIT */
/*
 * The same when A has shards, with a child B in one of them that leaves at any time. The cancel is over: shards.pml is
 * about that.
 */
#define NODES   7
#define THREADS 6

#define A 1 /* A - B, A - H, A - S and T; X is below A, made by H's function */
#define S 2
#define T 3
#define H 4
#define B 5
#define X 6

#define FN                                               \
	if                                               \
	:: derive(A, X, FOREVER); leave_behind(X)        \
	:: ref(A); leave_behind(A)                       \
	fi

#include "protocol/protocol.pml"

proctype owner_of_A() { REGISTERS; unref(A); thread_ends() }
proctype owner_of_B() { REGISTERS; unref(B); thread_ends() }
proctype owner_of_both() { REGISTERS; unref(A); unref(B); thread_ends() }

init {
	atomic {
		d_step {
			plant(A, 0, FOREVER); plant_due(H, A); plant_shards(A, S); plant_in_shard(B, A, S);
			for (i : A .. B) { ctx[i].word = ctx[i].word | DONE };
			i = 0;
			running = 1
		};
		run dispatcher(H, H, 0); run heir();
		if
		:: plant_orphan(A); plant_orphan(S); ctx[S].orphaned = true; ctx[S].left = 1; run owner_of_B()
		:: running = 2; run owner_of_A(); run owner_of_B()
		:: plant_ref(A); running = 2; run owner_of_A(); run owner_of_both()
		fi
	};
	running == 0 && !ctx[H].queued;
	nothing_is_left()
}
