/* SPDX-License-Identifier: MIT */
/*
 * A script by one thread, on the library and on the model at once: every answer is compared. All contexts are below a
 * dispatcher of ours, so that after-funcs and watched fds are part of the script, too.
 */
#ifndef EXACT_H
#define EXACT_H

#include "script.h"

/*
 * Plays list 0. `curious`: how much is asked beyond the script; 0: nothing, 1: all fds after each operation, 2: all
 * there is.
 */
void play_exact(const struct script *s, int curious);

/* Where an answer is wrong; supplied by the program. */
void differs(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
