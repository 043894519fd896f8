/* SPDX-License-Identifier: MIT */
/*
 * After-funcs: functions that run once their context is done. dispatch.h says what one is and what guards it.
 *
 * WHO WINS, stop or run? stop clears the alarm and then takes the after-func out of its parent's list, if it is still
 * LIVE: once it is out, nothing can end it. If it is DONE it is on its way to the dispatcher's list, and `state`
 * decides, under the dispatcher's lock: if it has not started, stop leaves STOPPED, and the dispatcher frees it when it
 * comes to it.
 */
#include "dispatch.h"
#include "lock.h"

int ctxfd_after_func(const struct ctxfd *ctx, void (*fn)(void *arg), void *arg, struct ctxfd_after **handle)
{
	struct ctxfd_after *h;
	uint64_t born;
	bool timed;
	int err;

	if (!ctx || !fn)
		return -EINVAL;
	err = ensure_dispatcher();
	if (err)
		return err;
	h = malloc_quietly(sizeof *h);
	if (!h)
		return -ENOMEM;
	h->fn = fn;
	h->arg = arg;
	h->next = NULL;
	h->alarm.set = false;
	h->state = WAITING;
	h->owned = handle;
	if (handle)
		*handle = h;

	/* Once it is linked it may run and be freed at any moment, unless we keep the dispatcher from it. */
	timed = node_of(ctx)->deadline != INT64_MAX;
	if (timed)
		pthread_mutex_lock(&dispatcher.lock);
	born = adopt(&h->ctx, ctx, AFTER_FUNC, HOOK, INT64_MAX, 0);
	if (timed) {
		if (born & TIMED) {
			alarm_set(&dispatcher.alarms, &h->alarm, h->ctx.deadline, dispatcher.alarms_set++);
			dispatcher_arm();
		}
		pthread_mutex_unlock(&dispatcher.lock);
	}
	if (born & DONE) {
		/* The context may only be marked: fn must find it done. */
		await_done(node_of(ctx), INT64_MAX);
		dispatch(h);
	}
	return 0;
}

/* Makes h DONE by its deadline. False: it was DONE already. */
static bool expire(struct ctxfd_after *h)
{
	uint64_t w = load_word(&h->ctx);

	while (!(w & DONE))
		if (swap_word(&h->ctx, &w, (w & ~TIMED) | DONE | EXPIRED))
			return true;
	return false;
}

/* Under the lock: what has come to its deadline becomes due. */
void expire_alarms(void)
{
	int64_t now = dispatcher.alarms ? ctxfd_now() : 0;

	while (dispatcher.alarms && dispatcher.alarms->at <= now) {
		struct ctxfd_after *h = alarm_owner(dispatcher.alarms);

		alarm_clear(&dispatcher.alarms, &h->alarm);
		if (expire(h)) {
			h->next = NULL;
			*dispatcher.due_end = h;
			dispatcher.due_end = &h->next;
		}
	}
}

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
	alarm_clear(&dispatcher.alarms, &h->alarm);
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
	h->fn(h->arg);
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
	if (!h)
		return false;
	if (h->ctx.deadline != INT64_MAX) {
		pthread_mutex_lock(&dispatcher.lock);
		alarm_clear(&dispatcher.alarms, &h->alarm);
		pthread_mutex_unlock(&dispatcher.lock);
	}
	return reap_live(&h->ctx) || stop_ended(h);
}
