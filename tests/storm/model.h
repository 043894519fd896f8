/* SPDX-License-Identifier: MIT */
/*
 * What contexts do, said as simply as it can be, for one thread: a tree in an array, and who has ended how. It knows
 * nothing of the library. The clock moves while a call is made, so every question comes with the time before and after
 * the call; where a deadline lies in between the model allows both answers, and believes the one it is told.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "script.h"

#define MAX_KNOWN 1024
#define NOBODY    (-1)

/* An end, or the next best one: few are ever possible at once. */
struct end {
	int err, cause;
};

struct ends {
	int n;
	struct end of[6];
};

struct known {
	enum what made;
	int parent, second;  /* NOBODY: none */
	int node;            /* whose end and deadline it has */
	int64_t deadline;    /* of a node; INT64_MAX: none */
	struct ends expiry;  /* the end that the deadline gives */
	struct ends ended;   /* n is 0: not, unless by the clock */
	int key;             /* of a value */
	int holders, maybes; /* who keeps it alive, and who may or may not */
};

struct model {
	int n;
	struct known of[MAX_KNOWN];
};

enum answer { LIVE, EITHER, DONE };

/* The time of a call: it began not before `from`, and ended not after `to`. */
struct span {
	int64_t from, to;
};

/* The first two are background and todo. */
void begin_model(struct model *m);

/* A new context, with one holder; its number. deadline: what DEADLINE asks for. cause: of its deadline; 0: none. */
int model_make(struct model *m, enum what what, int a, int b, int64_t deadline, int cause, struct span t);

void model_cancel(struct model *m, int i, int cause, struct span t);

/* Whether i is done. DONE: the ends that are possible are in its node's `ended`. */
enum answer model_is(struct model *m, int i, struct span t);

/* The library says that i is done (err, and cause unless 0) or live (0). False: it cannot be. */
bool model_saw(struct model *m, int i, int err, int cause, struct span t);

/* Which context binds the key that i sees, or NOBODY. */
int model_binding(const struct model *m, int i, int key);

void model_hold(struct model *m, int i);
void model_release(struct model *m, int i);

/* The holder that model_hold made may go from now on, and then has gone. */
void model_release_perhaps(struct model *m, int i);
void model_release_surely(struct model *m, int i);

#endif
