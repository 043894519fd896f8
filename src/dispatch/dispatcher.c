/* SPDX-License-Identifier: MIT */
/* What others do to a dispatcher under its lock: wake it, set its timer; and leave the lock for work in the tree. */
#include "dispatch/dispatcher.h"

#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/clock.h"

pthread_mutex_t ctxfdi_dispatchers_lock = PTHREAD_MUTEX_INITIALIZER;
struct link *ctxfdi_dispatchers;

void ctxfdi_dispatcher_wake(struct ctxfd_dispatcher *d)
{
	uint64_t one = 1;
	int wake = atomic_load_explicit(&d->wake, memory_order_relaxed);

	claim(dispatcher_is_locked(d));
	if (!d->woken && wake >= 0)
		d->woken = syscall(SYS_write, wake, &one, sizeof one) == sizeof one; /* see done.c */
}

void ctxfdi_dispatcher_arm(struct ctxfd_dispatcher *d)
{
	int64_t at = d->alarms && d->alarms->at < d->look ? d->alarms->at : d->look;
	struct itimerspec alarm = { .it_value = alarm_at(at) };

	claim(dispatcher_is_locked(d));
	/*
	 * A timer that is too early costs one wake-up for nothing; setting it at every change would cost a call at each.
	 * While a round goes on, it is set when that ends.
	 */
	if (at >= d->armed || d->timer < 0 || d->serving)
		return;
	if (timerfd_settime(d->timer, TFD_TIMER_ABSTIME, &alarm, NULL) == 0)
		d->armed = at;
}

void ctxfdi_dispatcher_step_out(struct ctxfd_dispatcher *d)
{
	claim(dispatcher_is_locked(d));
	d->inside = true;
	dispatcher_unlock(d);
}

void ctxfdi_dispatcher_step_in(struct ctxfd_dispatcher *d)
{
	dispatcher_lock(d);
	d->inside = false;
	pthread_cond_broadcast(&d->idle);
}
