/* SPDX-License-Identifier: MIT */
/*
 * Threads that end together.
 *
 * ROOM. In a group with a limit, go takes one of `limit` rooms before it starts a thread. When fn has ended, its thread
 * hands the room to the first of those who wait for one, or gives it up. A go that has to wait makes a context below
 * the group's and waits for that. It ends with the group's context, or by a cancel from the thread that hands over its
 * room. So the end of the group ends the wait, no wake-up is lost, and no thread wakes up for nothing.
 *
 * JOINING. A thread that has left fn keeps its stack until it is joined, and may take its time: it runs the destructors
 * of its data first. `threads` counts those that are not joined yet, and those that a go is about to start. Each go
 * first joins what has ended. If the limit is reached even so, it waits for a thread that has left fn. There is one for
 * each go that waits so, since each of these has one of the `limit` rooms, and no thread. So go waits for destructors
 * only at the limit, and never without one. ctxfd_group_wait joins the rest.
 *
 * LOCKING. The lock covers what the struct says. Nobody sleeps, ends a context or runs the program's code while holding
 * it. ctxfd_group_wait frees the group when no room is taken, so a thread that gives up its room does not touch the
 * group after unlocking.
 *
 * FORK. The child does not take the lock, because a thread that the child does not have may hold it.
 */
#include <limits.h>
#include <pthread.h>

#include "core/context.h"
#include "core/fork.h"
#include "core/list.h"
#include "core/thread.h"
#include "core/thread_cancel.h"
#include "ctxfd_group.h"

#define UNLIMITED UINT_MAX

struct ctxfd_group {
	struct ctxfd *ctx;    /* fixed */
	unsigned limit;       /* or UNLIMITED; fixed */
	uint32_t forks;       /* ctxfdi_forks of the process that made it; fixed */
	pthread_mutex_t lock; /* covers all below */
	pthread_cond_t empty; /* no room is taken */
	unsigned taken;       /* rooms */
	unsigned stuck;       /* how many of the threads in them wait for another one */
	unsigned threads;     /* see JOINING */
	struct queue waiting; /* for room: struct guest */
	struct link *working; /* struct member */
	struct link *left;    /* struct member, to be joined; who left last comes first */
	int result;           /* the first that was not 0 */
};

/* A thread of a group, or what will be one. */
struct member {
	struct link link; /* in working or left; under the lock */
	struct ctxfd_group *group;
	int (*fn)(const struct ctxfd *ctx, void *arg);
	void *arg;
	int result;
	pthread_t thread; /* written by the thread itself: pthread_create's caller may learn it only after fn */
};

/* A thread that waits for room, inside go. */
struct guest {
	struct link link;   /* in waiting; under the lock */
	struct ctxfd *room; /* ends when there is room for it */
	bool inside;        /* it is an fn of the group itself; fixed */
	bool served;        /* it has room; under the lock */
};

/* The group in whose fn this thread is. */
static _Thread_local struct ctxfd_group *inside;

/* Whether a parent process has made it. */
static bool is_foreign_group(const struct ctxfd_group *g)
{
	return g->forks != ctxfdi_forks;
}

/* ---- Room -------------------------------------------------------------------------------------------------------- */

/* With the lock, which it unlocks. Waits until somebody hands room over: 0, err, or -errno. */
static int wait_for_room(struct ctxfd_group *g)
{
	struct guest guest = { .room = ctxfd_with_cancel(g->ctx), .inside = inside == g };

	if (guest.room) {
		queue_append(&g->waiting, &guest.link);
		g->stuck += guest.inside;
	}
	pthread_mutex_unlock(&g->lock);
	if (!guest.room)
		return -ENOMEM;
	ctxfd_wait(guest.room);
	pthread_mutex_lock(&g->lock);
	if (!guest.served) {
		queue_remove(&g->waiting, &guest.link);
		g->stuck -= guest.inside;
	}
	pthread_mutex_unlock(&g->lock);
	ctxfd_unref(guest.room);
	return guest.served ? 0 : ctxfd_wait(g->ctx); /* children end first: the group's may be a moment away */
}

/* 0, err, or -errno: -EDEADLK if the caller is an fn of g, and nobody would ever give room up. */
static int take_room(struct ctxfd_group *g)
{
	int err = 0;

	pthread_mutex_lock(&g->lock);
	if (g->taken == g->limit && !(inside == g && g->stuck + 1 == g->taken))
		return wait_for_room(g);
	if (g->taken == g->limit)
		err = -EDEADLK;
	else
		g->taken++;
	pthread_mutex_unlock(&g->lock);
	return err;
}

/* With the lock, which it unlocks: hands the caller's room over, or gives it up. g may be gone when this returns. */
static void give_room(struct ctxfd_group *g)
{
	struct ctxfd *room = NULL;

	if (g->waiting.first) {
		struct guest *guest = container_of(g->waiting.first, struct guest, link);

		queue_remove(&g->waiting, &guest->link);
		g->stuck -= guest->inside;
		guest->served = true;
		room = guest->room;
		ctxfd_ref(room);
	} else if (--g->taken == 0) {
		pthread_cond_broadcast(&g->empty);
	}
	pthread_mutex_unlock(&g->lock);
	ctxfd_close(room);
}

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

static void end_by(struct ctxfd_group *g, int result)
{
	bool first;

	pthread_mutex_lock(&g->lock);
	first = g->result == 0;
	if (first)
		g->result = result;
	pthread_mutex_unlock(&g->lock);
	if (first)
		ctxfd_cancel_cause(g->ctx, result < 0 ? result : -ECANCELED);
}

/*
 * Runs however fn ended. The context ends first, and then the room goes to the next go, which therefore sees the end.
 */
static void leave_group(void *arg)
{
	struct member *m = arg;
	struct ctxfd_group *g = m->group;

	inside = NULL;
	if (is_foreign_group(g))
		return;
	if (m->result)
		end_by(g, m->result);
	pthread_mutex_lock(&g->lock);
	list_remove(&m->link);
	list_push(&g->left, &m->link);
	give_room(g);
}

static void *work(void *arg)
{
	struct member *m = arg;

	m->thread = pthread_self();
	inside = m->group;
	pthread_cleanup_push(leave_group, m);
	m->result = m->fn(m->group->ctx, m->arg);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL); /* fn may have made it asynchronous */
	pthread_cleanup_pop(1);
	return NULL;
}

static struct member *member_of(struct link *l)
{
	return container_of(l, struct member, link);
}

/* With the lock: joins those threads that have ended. */
static void join_ended(struct ctxfd_group *g)
{
	struct link *next;

	for (struct link *l = g->left; l; l = next) {
		next = l->next;
		if (pthread_tryjoin_np(member_of(l)->thread, NULL) != 0)
			continue;
		list_remove(l);
		g->threads--;
		free(member_of(l));
	}
}

/*
 * How late a go that waits for the destructors of a thread's data notices the end of the group, or of another thread.
 */
#define JOIN_SLICE (10 * CTXFD_MSEC)

/*
 * Waits a while for a thread that has left fn: for the one that left last, since the others seem to take their time.
 * With the lock, which it gives back meanwhile. Returns 0, or err.
 */
static int join_last(struct ctxfd_group *g)
{
	struct timespec limit = ctxfdi_join_limit(JOIN_SLICE);
	struct member *m = member_of(g->left);
	int err = 0;
	bool ended;

	list_remove(&m->link);
	pthread_mutex_unlock(&g->lock);
	ended = ctxfdi_thread_join(m->thread, &limit);
	if (!ended)
		err = ctxfd_err(g->ctx);
	pthread_mutex_lock(&g->lock);
	if (ended) {
		g->threads--;
		free(m);
	} else {
		list_push(&g->left, &m->link);
	}
	return err;
}

/* With room taken: 0 when m may get its thread; or err, and the room is given back. See JOINING. */
static int let_in(struct ctxfd_group *g, struct member *m)
{
	int err = 0;

	pthread_mutex_lock(&g->lock);
	join_ended(g);
	while (!err && g->threads == g->limit) {
		err = join_last(g);
		join_ended(g);
	}
	if (err) {
		give_room(g);
		return err;
	}
	g->threads++;
	list_push(&g->working, &m->link);
	pthread_mutex_unlock(&g->lock);
	return 0;
}

/* With room taken. Once this has succeeded, m is the thread's. */
static int start(struct member *m)
{
	int err = ctxfd_err(m->group->ctx);
	pthread_t thread;

	return err ? err : ctxfdi_thread_result(pthread_create(&thread, NULL, work, m));
}

static int find_room_and_start(struct ctxfd_group *g, struct member *m)
{
	int err = take_room(g);

	if (!err)
		err = let_in(g, m);
	if (err)
		return err;
	err = start(m);
	if (err) {
		pthread_mutex_lock(&g->lock);
		list_remove(&m->link);
		g->threads--;
		give_room(g);
	}
	return err;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

struct ctxfd_group *ctxfd_group_new(const struct ctxfd *parent, unsigned limit)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);
	struct ctxfd_group *g = ctx ? malloc(sizeof *g) : NULL;

	if (!g) {
		ctxfd_close(ctx);
		return NULL;
	}
	*g = (struct ctxfd_group){ .ctx = ctx, .limit = limit ? limit : UNLIMITED, .forks = ctxfdi_forks };
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->empty, NULL);
	queue_init(&g->waiting);
	return g;
}

const struct ctxfd *ctxfd_group_ctx(const struct ctxfd_group *g)
{
	return g ? g->ctx : NULL;
}

int ctxfd_group_go(struct ctxfd_group *g, int (*fn)(const struct ctxfd *ctx, void *arg), void *arg)
{
	struct member *m;
	struct thread_cancel e;
	int err;

	if (!g || !fn)
		return -EINVAL;
	if (is_foreign_group(g))
		return -ECHILD;
	err = ctxfd_err(g->ctx);
	if (err)
		return err;
	m = malloc_quietly(sizeof *m);
	if (!m)
		return -ENOMEM;
	*m = (struct member){ .group = g, .fn = fn, .arg = arg, .result = -ECANCELED };
	e = thread_cancel_off();
	err = find_room_and_start(g, m);
	thread_cancel_restore(e);
	if (err)
		free(m);
	return err;
}

void ctxfd_group_cancel(struct ctxfd_group *g, int cause)
{
	if (g)
		ctxfd_cancel_cause(g->ctx, cause);
}

static int join_all(struct ctxfd_group *g)
{
	struct member *m;

	pthread_mutex_lock(&g->lock);
	while (g->taken)
		pthread_cond_wait(&g->empty, &g->lock);
	pthread_mutex_unlock(&g->lock);
	while (g->left) {
		m = member_of(g->left);
		list_remove(&m->link);
		pthread_join(m->thread, NULL);
		free(m);
	}
	pthread_cond_destroy(&g->empty);
	pthread_mutex_destroy(&g->lock);
	return g->result;
}

static void forget_members(struct link **list)
{
	while (*list) {
		struct member *m = member_of(*list);

		list_remove(&m->link);
		free(m);
	}
}

/* In the child of a fork: frees what the group has of its threads, which are in the parent process. */
static int forget_all(struct ctxfd_group *g)
{
	forget_members(&g->left);
	forget_members(&g->working);
	return -ECHILD;
}

int ctxfd_group_wait(struct ctxfd_group *g)
{
	struct thread_cancel e;
	int result;

	if (!g)
		return -EINVAL;
	if (inside == g)
		return -EDEADLK;
	e = thread_cancel_off();
	result = is_foreign_group(g) ? forget_all(g) : join_all(g);
	thread_cancel_restore(e);
	ctxfd_close(g->ctx);
	free(g);
	return result;
}
