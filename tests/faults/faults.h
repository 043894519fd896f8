/* SPDX-License-Identifier: MIT */
/* Making calls of the library fail, for test_faults.c; what can fail, and how, is in faults.def. */
#ifndef FAULTS_H
#define FAULTS_H

#include "harness.h"

struct fault {
	const char *name;
	enum { SHOWN, HIDDEN, LATE } fate;
	int errnos[6]; /* up to the first 0 */
};

extern const struct fault faults[];
extern const int fault_count;

/* From now on the call in faults[id] fails with `error` at its nth occurrence and the `times` - 1 after it. */
void fault_arm(int id, int error, int nth, int times);

/* Whether it has. */
bool fault_hit(void);

/* The errno that this thread was dealt by a SHOWN fault since the last call of this; else 0. */
int fault_shown(void);

/* From now on a timerfd that is set to the past takes this long to fire, as it can on a busy machine. */
void fault_slow_alarms(int64_t ns);

/* From now on this thread passes contexts to other processes, for which fstat must not fail. */
void fault_passing(bool now_on);

/*
 * Calls fn before the next write to an eventfd, where another thread could come in between. If it says so it is
 * refused.
 */
void fault_before_write(bool (*refuse)(void));

#endif
