/* SPDX-License-Identifier: MIT */
/* The same, where A ends by its deadline: the dispatcher holds it, shards and all, when its last owner leaves. */
#define NODES   7
#define THREADS 5

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
proctype owner_of_both() { REGISTERS; unref(A); unref(B); thread_ends() }

init {
	atomic {
		d_step {
			plant(A, 0, PAST); plant_after(H, A); ctx[H].owned = false;
			plant_shards(A, S); plant_in_shard(B, A, S);
			ctx[B].word = TIMED | cause_of(ctx[A].word); ctx[B].deadline = PAST;
			ctx[A].word = ctx[A].word | ALARMED; ctx[A].alarm_set = true; running = 1
		};
		run dispatcher(H, H, A); run heir(); run owner_of_both();
		if
		:: plant_ref(A); running = 2; run owner_of_A()
		:: skip
		fi
	};
	running == 0 && !ctx[H].queued && !ctx[A].alarm_set;
	nothing_is_left()
}
