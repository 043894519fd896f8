/* SPDX-License-Identifier: MIT */
/* Contexts that end by a signal: what constructors, rounds and forks need of them. See signals.c. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include "dispatch/source.h"

struct listener {
	struct source source;          /* its cause is the first signal that came, 0 before */
	uint64_t set;                  /* of the signals that it wants, a bit each; fixed */
	struct listener *_Atomic next; /* in the list of all; handlers read it */
	bool listed;                   /* in that list; under the signals' lock */
};

static inline uint64_t signal_bit(int sig)
{
	return UINT64_C(1) << (sig - 1);
}

/* Under the dispatcher's lock: from here on l hears its signals. 0 or -errno. */
int ctxfdi_signals_listen(struct listener *l);

/*
 * Under d's lock: makes those of d's contexts ready for which handlers have noted a signal; with `pending`, also reads
 * the signals that came to no handler, for the contexts of all dispatchers.
 */
void ctxfdi_signals_take(struct ctxfd_dispatcher *d, bool pending);

/* How long a signal must have been there to count as one that no handler comes to. */
#define SIGNALS_DELAY (5 * CTXFD_MSEC)

/* Under d's lock, when d's epoll set is new: puts the signalfd there if d needs it. 0 or -errno. */
int ctxfdi_signals_watch(struct ctxfd_dispatcher *d);

/* Its address is the data of the signalfd's events in an epoll set. */
extern char ctxfdi_signals_event;

/* Waits until no handler is at work that was at work when this was called. */
void ctxfdi_await_handlers(void);

void ctxfdi_forget_signals(struct ctxfd *n);

/* Around a fork, after and before the dispatchers' locks; in the child, with all locks. */
void ctxfdi_signals_lock(void);
void ctxfdi_signals_unlock(void);
void ctxfdi_signals_forked(void);

#endif
