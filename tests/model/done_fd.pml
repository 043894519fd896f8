/* SPDX-License-Identifier: MIT */
/* Cancel against done_fd: two threads ask for A's fd and poll it while R is cancelled. */
#define NODES   3
#define THREADS 5
#include "protocol/protocol.pml"

#define R 1 /* R - A */
#define A 2

proctype canceller() { REGISTERS; cancel(R, 1); thread_ends() }
proctype asker() { REGISTERS; done_fd(A); poll_then_err(A); thread_ends() }
proctype onlooker() { REGISTERS; err(A); err(R); thread_ends() }
proctype asker_above() { REGISTERS; err(R); done_fd(A); poll_then_err(A); thread_ends() }

init {
	REGISTERS;
	byte at;

	atomic {
		d_step { plant(R, 0, FOREVER); plant(A, R, FOREVER); running = 4 };
		run canceller(); run asker(); run asker_above(); run onlooker()
	};
	unref_all();
	nothing_is_left()
}
