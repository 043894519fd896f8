/* SPDX-License-Identifier: MIT */
/* A context that an fd, a process or a signal ends. source.c is for fds and processes, signals.c for signals. */
#ifndef SOURCE_H
#define SOURCE_H

#include "dispatch/dispatcher.h"

/*
 * Guarded by its dispatcher's lock, where not fixed. It is LISTED: in one of its dispatcher's lists, until it is
 * cancelled.
 */
struct source {
	struct ctxfd ctx;
	struct ctxfd_dispatcher *dispatcher; /* fixed; ctx keeps it alive */
	struct link link;                    /* in its dispatcher's `sources`, or `ready` */
	int epoll;                           /* a set of the caller's fd and nothing else; -1: for signals; fixed */
	unsigned forks;                      /* ctxfdi_forks of the process that made epoll; fixed */
	_Atomic int cause;                   /* fixed; for signals: the first that came */
};

static inline struct source *source_of(struct link *l)
{
	return container_of(l, struct source, link);
}

/* Memory for a source, with fd in an epoll set of its own. 0 or -errno. */
int ctxfdi_source_hold(struct source **s, int fd, short events);

/* Makes s, with its epoll and cause set, a child of parent, and has it watched. On failure, -errno, s is freed. */
int ctxfdi_source_begin(struct source *s, const struct ctxfd *parent, enum kind kind);

/* Gives up the constructor's reference, after a failure. (Where gcc sees the malloc, it objects to ctxfd_unref.) */
void ctxfdi_source_give_up(struct source *s);

/* Under the dispatcher's lock. In the child of a fork: whether the program has closed what it inherited. */
bool ctxfdi_source_is_lost(const struct source *s);

/* Under the dispatcher's lock. */
int ctxfdi_source_watch(struct source *s);     /* puts it into the epoll set: 0 or -errno */
void ctxfdi_source_is_ready(struct source *s); /* it is to be cancelled, and watched no longer */

/*
 * Under the dispatcher's lock, by the thread that runs it: cancels s, which is in no list any more. Returns 1, or 0 if
 * s has ended otherwise or is being freed.
 */
int ctxfdi_source_cancel(struct source *s);

/* Kinds: before a source is freed. */
void ctxfdi_forget_fd(struct ctxfd *n);

#endif
