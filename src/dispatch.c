/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher: where after-funcs run and fds and signals turn into cancels. dispatch.h says what its lock guards.
 *
 * It is one epoll set and one function, dispatcher_serve, that does what is due. Who calls that is mode.c's to say.
 */
#include "dispatch.h"

#include <limits.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct dispatcher dispatcher = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
	.epoll = -1,
	.wake = -1,
	.timer = -1,
	.signals = -1,
	.armed = INT64_MAX,
	.due_end = &dispatcher.due,
};

/* ---- Waking it --------------------------------------------------------------------------------------------------- */

void dispatcher_wake(void)
{
	uint64_t one = 1;

	if (!dispatcher.woken && dispatcher.wake >= 0)
		dispatcher.woken = syscall(SYS_write, dispatcher.wake, &one, sizeof one) == sizeof one; /* see done.c */
}

void dispatcher_arm(void)
{
	int64_t at = dispatcher.alarms ? dispatcher.alarms->at : INT64_MAX;
	struct itimerspec alarm = { 0 };

	/* A timer that is too early costs one wake-up in vain; setting it at every change would cost a call at each. */
	if (at >= dispatcher.armed || dispatcher.timer < 0)
		return;
	alarm.it_value.tv_sec = (time_t)(at / CTXFD_SEC);
	alarm.it_value.tv_nsec = (long)(at % CTXFD_SEC);
	if ((int64_t)alarm.it_value.tv_sec != at / CTXFD_SEC)
		alarm.it_value.tv_sec = INT32_MAX;
	if (timerfd_settime(dispatcher.timer, TFD_TIMER_ABSTIME, &alarm, NULL) == 0)
		dispatcher.armed = at;
}

void add_due(struct ctxfd_after *list)
{
	*dispatcher.due_end = list;
	while (*dispatcher.due_end)
		dispatcher.due_end = &(*dispatcher.due_end)->next;
}

void dispatch(struct ctxfd_after *list)
{
	int saved = errno;

	pthread_mutex_lock(&dispatcher.lock);
	add_due(list);
	dispatcher_wake();
	pthread_mutex_unlock(&dispatcher.lock);
	errno = saved;
}

/* ---- One round --------------------------------------------------------------------------------------------------- */

static _Thread_local bool
        serving; /* this thread dispatches; a fork in a function that it runs ends that in the child */
static _Thread_local bool stepped_out; /* and is inside the library without the lock */

bool still_dispatching(void)
{
	return serving;
}

void dispatcher_step_out(void)
{
	stepped_out = serving;
	if (serving)
		dispatcher.inside = true;
	pthread_mutex_unlock(&dispatcher.lock);
}

void dispatcher_step_in(void)
{
	pthread_mutex_lock(&dispatcher.lock);
	stepped_out = false;
	if (!serving)
		return;
	dispatcher.inside = false;
	dispatcher.cancelling = NULL;
	pthread_cond_broadcast(&dispatcher.idle);
}

void run_destroy(void (*destroy)(void *value), void *value)
{
	bool from_inside = stepped_out;

	if (from_inside) {
		dispatcher_step_in();
		pthread_mutex_unlock(&dispatcher.lock);
	}
	destroy(value);
	if (from_inside) {
		pthread_mutex_lock(&dispatcher.lock);
		dispatcher.inside = serving;
		stepped_out = true;
		pthread_mutex_unlock(&dispatcher.lock);
	}
}

/*
 * Takes what the epoll set reports. Events are fetched under the lock, so that a source that is freed can withdraw its
 * own.
 */
static int take_events(int *taken)
{
	uint64_t count;
	int sources = 0, n = epoll_wait(dispatcher.epoll, dispatcher.events, EVENTS, 0);

	*taken = n;
	for (dispatcher.events_left = n > 0 ? n : 0; dispatcher.events_left > 0;) {
		void *data = dispatcher.events[--dispatcher.events_left].data.ptr;

		if (data == &dispatcher.wake) {
			if (read(dispatcher.wake, &count, sizeof count) == sizeof count)
				dispatcher.woken = false;
		} else if (data == &dispatcher.timer) {
			if (read(dispatcher.timer, &count, sizeof count) == sizeof count)
				dispatcher.armed = INT64_MAX;
		} else if (data) {
			sources += source_event(data);
		}
	}
	return sources;
}

/* What the round has not come to is due before what came after. */
static void give_back_batch(void)
{
	struct ctxfd_after **end = &dispatcher.batch;

	if (!dispatcher.batch)
		return;
	while (*end)
		end = &(*end)->next;
	*end = dispatcher.due;
	if (!dispatcher.due)
		dispatcher.due_end = end;
	dispatcher.due = dispatcher.batch;
	dispatcher.batch = NULL;
}

int dispatcher_serve(void)
{
	int done = 0, taken;

	pthread_mutex_lock(&dispatcher.lock);
	if (dispatcher.dispatching) {
		pthread_mutex_unlock(&dispatcher.lock);
		return -EBUSY;
	}
	dispatcher.dispatching = true;
	dispatcher.thread = pthread_self();
	serving = true;
	do
		done += take_events(&taken);
	while (taken == EVENTS); /* all of them: somebody may wait for edges only */
	expire_alarms();
	dispatcher_arm();

	dispatcher.batch = dispatcher.due;
	dispatcher.due = NULL;
	dispatcher.due_end = &dispatcher.due;
	while (dispatcher.batch && !dispatcher.stopping) {
		struct ctxfd_after *h = dispatcher.batch;

		dispatcher.batch = h->next;
		done += run_after(h);
		if (!serving) { /* forked: the batch is in the child's list of what is due */
			pthread_mutex_unlock(&dispatcher.lock);
			return done;
		}
	}
	give_back_batch();
	dispatcher.dispatching = serving = false;
	pthread_mutex_unlock(&dispatcher.lock);
	return done;
}

void dispatcher_forked(void)
{
	struct ctxfd_after *running = serving ? NULL : dispatcher.running;

	/* What forked in its fn runs on, in the child as well, and run_after will find out who dispatches by then. */
	dispatcher.forks++;
	for (struct ctxfd_after *h = running_here; h; h = h->outer)
		h->forks = dispatcher.forks;
	serving = false;
	if (!dispatcher.dispatching)
		return;
	dispatcher.dispatching = dispatcher.inside = false;
	dispatcher.running = NULL;
	/* Its thread is not here to finish it. */
	if (running && !running->owned) {
		running->state = STOPPED;
		running->next = dispatcher.batch;
		dispatcher.batch = running;
	}
	give_back_batch();
}
