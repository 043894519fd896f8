/* SPDX-License-Identifier: MIT */
/*
 * The time limits of the servers that have a loop: one for a connection that is silent, one for each request. The loop
 * calls limits_run when it has dealt with the events at hand; that calls connection_idle and request_late, which may
 * end any connection.
 */
#ifndef LIMITS_H
#define LIMITS_H

#include "http.h"

struct limits;
static void connection_idle(struct limits *l);
static void request_late(struct limits *l);

#ifdef CONTEXTS

#include <ctxfd.h>

#define LIMITS_ASK false /* whether limits_run is to be called in every turn of the loop */

struct limits {
	struct ctxfd *connection, *request;
	struct ctxfd_after *when_idle, *when_late;
};

static struct ctxfd_dispatcher *dispatcher;
static const struct ctxfd *loop;
static struct ctxfd *server;

static void call_idle(void *l)
{
	connection_idle(l);
}

static void call_late(void *l)
{
	request_late(l);
}

static inline void limits_setup(void)
{
	dispatcher = ctxfd_dispatcher_new();
	loop = dispatcher ? ctxfd_with_dispatcher(ctxfd_background(), dispatcher) : NULL;
	server = loop ? ctxfd_with_cancel(loop) : NULL;
	if (!server || ctxfd_dispatcher_fd(dispatcher) < 0)
		die("dispatcher");
}

/* Becomes readable when limits_run has something to do. */
static inline int limits_fd(void)
{
	return ctxfd_dispatcher_fd(dispatcher);
}

static inline void limits_run(void)
{
	ctxfd_dispatcher_run(dispatcher);
}

static inline void request_end(struct limits *l)
{
	ctxfd_after_stop(l->when_late);
	ctxfd_close(l->request);
	l->when_late = NULL;
	l->request = NULL;
}

static inline bool request_begin(struct limits *l)
{
	l->request = ctxfd_with_timeout(l->connection, request_limit);
	return l->request && ctxfd_after_func(l->request, call_late, l, &l->when_late) == 0;
}

static inline bool request_is_on(const struct limits *l)
{
	return l->request;
}

static inline void limits_touch(struct limits *l)
{
	ctxfd_touch(l->connection);
}

static inline void limits_close(struct limits *l)
{
	request_end(l);
	ctxfd_after_stop(l->when_idle);
	ctxfd_close(l->connection);
}

/* If this fails, call limits_close. */
static inline bool limits_open(struct limits *l)
{
	*l = (struct limits){ .connection = ctxfd_with_idle(server, idle_limit, 0) };
	return l->connection && ctxfd_after_func(l->connection, call_idle, l, &l->when_idle) == 0;
}

#else

#define LIMITS_ASK true

/* All limits of a kind have the same length. So in a list to whose end each goes, the first is due first. */
struct limit {
	struct limit *next, *prev; /* NULL: not in its list */
	int64_t due;
};

struct limits {
	struct limit connection, request;
};

static struct limit idle_list = { &idle_list, &idle_list, 0 }, request_list = { &request_list, &request_list, 0 };
static int64_t now; /* read once for each turn of the loop */

static inline void limit_stop(struct limit *limit)
{
	if (!limit->next)
		return;
	limit->next->prev = limit->prev;
	limit->prev->next = limit->next;
	limit->next = NULL;
}

static inline void limit_start(struct limit *limit, struct limit *list, int64_t length)
{
	limit_stop(limit);
	limit->due = now + length;
	limit->next = list;
	limit->prev = list->prev;
	limit->prev->next = limit;
	list->prev = limit;
}

static inline void limits_setup(void)
{
	now = read_clock();
}

/* How long the loop may sleep: nanoseconds, or -1. */
static inline int64_t limits_wait(void)
{
	int64_t first = INT64_MAX;

	if (idle_list.next != &idle_list)
		first = idle_list.next->due;
	if (request_list.next != &request_list && request_list.next->due < first)
		first = request_list.next->due;
	return first == INT64_MAX ? -1 : first > now ? first - now : 0;
}

static inline void limits_run(void)
{
	while (request_list.next != &request_list && request_list.next->due <= now) {
		struct limit *limit = request_list.next;

		limit_stop(limit);
		request_late((struct limits *)((char *)limit - offsetof(struct limits, request)));
	}
	while (idle_list.next != &idle_list && idle_list.next->due <= now) {
		struct limit *limit = idle_list.next;

		limit_stop(limit);
		connection_idle((struct limits *)((char *)limit - offsetof(struct limits, connection)));
	}
}

static inline void request_end(struct limits *l)
{
	limit_stop(&l->request);
}

static inline bool request_begin(struct limits *l)
{
	limit_start(&l->request, &request_list, request_limit);
	return true;
}

static inline bool request_is_on(const struct limits *l)
{
	return l->request.next;
}

static inline void limits_touch(struct limits *l)
{
	limit_start(&l->connection, &idle_list, idle_limit);
}

static inline void limits_close(struct limits *l)
{
	limit_stop(&l->request);
	limit_stop(&l->connection);
}

static inline bool limits_open(struct limits *l)
{
	*l = (struct limits){ 0 };
	limits_touch(l);
	return true;
}

#endif
#endif
