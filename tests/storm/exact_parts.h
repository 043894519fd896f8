/* SPDX-License-Identifier: MIT */
/* What the parts of the exact player share; see exact.h. */
#ifndef EXACT_PARTS_H
#define EXACT_PARTS_H

#include "ctxfd.h"
#include "exact.h"
#include "model.h"

#define LEVERS      4
#define LEVER_CAUSE 30000 /* and the lever's number */

#define SAME(ok, ...)                         \
	do {                                  \
		if (!(ok))                    \
			differs(__VA_ARGS__); \
	} while (0)

extern struct model model;

/* What the model does not know of a context: how to reach it. */
struct context {
	struct ctxfd *ctx;
	int fd;     /* -1: not asked for */
	bool asked; /* something has said that it is done, and so made its fd show it */
	int lever;  /* NOBODY: none */
	int destroyed;
};

extern struct context contexts[MAX_KNOWN];

/* An eventfd for contexts to watch; it is readable when up. */
struct lever {
	int fd;
	bool up;
};

extern struct lever levers[LEVERS];

static inline struct ctxfd *of(int i)
{
	return contexts[i].ctx;
}

static inline struct span since(int64_t from)
{
	return (struct span){ from, ctxfd_now() };
}

#define LOOPS 2

extern struct ctxfd_dispatcher *loops[LOOPS];

void look(int i);
void cancel(int i, int cause, bool close);

/* What the script's list says, by the after-func on context i. */
void play_errand(int list, int i);

/* exact_errand.c: after-funcs, and what else a dispatcher does. */
void begin_errands(void);
void arm(int i, const struct op *op);
void stop(int n);
void dispatch_due(void);
void pull(int lever);
void end_errands(void);

#endif
