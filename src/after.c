/* SPDX-License-Identifier: MIT */
/*
 * After-funcs: functions that run once their context is done. dispatch.h says what one is and what guards it.
 *
 * WHO WINS, stop or run? stop takes the after-func out of its parent's list, if it is still LIVE: once it is out,
 * nothing can end it. If it is DONE it is on its way to the dispatcher's list, and `state` decides, under the
 * dispatcher's lock: if it has not started, stop leaves STOPPED, and the dispatcher frees it when it comes to it.
 */
#include "dispatch.h"
#include "shard.h"

/* ---- Expiry ------------------------------------------------------------------------------------------------------ */

/* The dispatcher learns of n's deadline, unless it knows of it already or n has ended. 0 or -ENOMEM. */
static int set_expiry(struct ctxfd *n)
{
	struct expiry *e;

	if (load_word(n) & (ALARMED | PENDING | DONE))
		return 0;
	e = malloc_quietly(sizeof *e);
	if (!e)
		return -ENOMEM;
	init_node(&e->node, n, EXPIRY);
	atomic_init(&e->node.word, DONE);
	if (hide_expiry(n, &e->node)) {
		pthread_mutex_lock(&dispatcher.lock);
		alarm_set(&dispatcher.alarms, &e->alarm, n->deadline);
		dispatcher_arm();
		pthread_mutex_unlock(&dispatcher.lock);
	} else {
		free(e);
	}
	return 0;
}

/* It is all that there is in ctx's list. */
void forget_expiry(struct ctxfd *ctx)
{
	struct expiry *e = (struct expiry *)(void *)ctx->children;

	pthread_mutex_lock(&dispatcher.lock);
	alarm_clear(&dispatcher.alarms, &e->alarm);
	pthread_mutex_unlock(&dispatcher.lock);
	free(e);
}

void expire_alarms(void)
{
	int64_t now = dispatcher.alarms ? ctxfd_now() : 0;

	while (dispatcher.alarms && dispatcher.alarms->at <= now) {
		struct expiry *e =
		        (struct expiry *)(void *)((char *)dispatcher.alarms - offsetof(struct expiry, alarm));

		alarm_clear(&dispatcher.alarms, &e->alarm);
		add_due(expire_after_funcs(e->node.parent, now));
	}
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

/* Under the lock: frees h, for which it steps out of the lock, since h may be the last thing that kept its context. */
static void free_after(struct ctxfd_after *h)
{
	dispatcher_step_out();
	reap(&h->ctx);
	dispatcher_step_in();
}

_Thread_local struct ctxfd_after *running_here;

/* Under the lock: runs h, which is due, unless it has been stopped. Returns how many functions that was. */
int run_after(struct ctxfd_after *h)
{
	if (h->state == STOPPED) {
		free_after(h);
		return 0;
	}
	h->state = RUNNING;
	h->thread = pthread_self();
	h->forks = dispatcher.forks;
	h->outer = running_here; /* in a child of a fork in its fn, a function may dispatch */
	dispatcher.running = running_here = h;
	pthread_mutex_unlock(&dispatcher.lock);
	/* fn may do with its context whatever an owner may, so it is one. A counted h makes it one already. */
	if (h->ctx.linked)
		own_from_below(list_owner(&h->ctx));
	h->fn(h->arg);
	/* Before h leaves the list: so there is always something that keeps the context. */
	if (h->ctx.linked)
		drop(list_owner(&h->ctx));
	pthread_mutex_lock(&dispatcher.lock);
	running_here = h->outer;
	if (still_dispatching())
		dispatcher.running = NULL;
	if (!h->owned) {
		free_after(h);
	} else {
		h->state = RAN;
		pthread_cond_broadcast(&dispatcher.idle);
	}
	return 1;
}

/* ---- Registering and stopping ------------------------------------------------------------------------------------ */

int ctxfd_after_func(const struct ctxfd *ctx, void (*fn)(void *arg), void *arg, struct ctxfd_after **handle)
{
	struct ctxfd_after *h;
	struct ctxfd *n;
	int err;

	if (!ctx || !fn)
		return -EINVAL;
	n = node_of(ctx);
	err = ensure_dispatcher();
	if (!err && n->deadline != INT64_MAX)
		err = set_expiry(n);
	if (err)
		return err;
	h = malloc_quietly(sizeof *h);
	if (!h)
		return -ENOMEM;
	h->fn = fn;
	h->arg = arg;
	h->next = NULL;
	h->state = WAITING;
	h->owned = handle;
	if (handle)
		*handle = h;
	/* Once it is linked it may run and be freed at any moment. */
	if (!adopt(&h->ctx, ctx, AFTER_FUNC, HOOK, INT64_MAX, 0)) {
		/* The context may only be marked: fn must find it done. */
		await_done(n, INT64_MAX);
		dispatch(h);
	}
	return 0;
}

static bool is_running(const struct ctxfd_after *h)
{
	return h->state == RUNNING && h->forks == dispatcher.forks;
}

/*
 * The slow side of stop: h has ended. Waits until its fn has returned, if that has started; else it never will: true.
 */
static bool stop_ended(struct ctxfd_after *h)
{
	bool never_ran = false, ours = true;
	struct entry entry = enter();

	pthread_mutex_lock(&dispatcher.lock);
	if (h->state == WAITING) {
		h->state = STOPPED;
		never_ran = true;
		ours = false;
	} else if (is_running(h) && pthread_equal(h->thread, pthread_self())) {
		h->owned = false;
		ours = false;
	}
	while (ours && is_running(h))
		pthread_cond_wait(&dispatcher.idle, &dispatcher.lock);
	pthread_mutex_unlock(&dispatcher.lock);
	leave(entry);
	if (ours)
		reap(&h->ctx);
	return never_ran;
}

bool ctxfd_after_stop(struct ctxfd_after *h)
{
	return h && (reap_live(&h->ctx) || stop_ended(h));
}
