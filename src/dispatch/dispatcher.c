/* SPDX-License-Identifier: MIT */
/*
 * What others do to a dispatcher under its lock: wake it, set its timer; and leave the lock for work in the tree, such
 * as an end.
 */
#include "dispatch/dispatcher.h"

#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/cancel.h"
#include "core/clock.h"
#include "core/own.h"
#include "core/wait.h"

pthread_mutex_t ctxfdi_dispatchers_lock = PTHREAD_MUTEX_INITIALIZER;
struct link *ctxfdi_dispatchers;

static bool write_wake(struct ctxfd_dispatcher *d)
{
	uint64_t one = 1;
	int wake = atomic_load_explicit(&d->wake, memory_order_relaxed);

	return syscall(SYS_write, wake, &one, sizeof one) == sizeof one; /* see done.c */
}

/*
 * Under the lock. `woken` alone is not enough: a thread that has set it may have yet to write, and `waking` counts it.
 * Acquire pairs with that thread's release after its write: once `waking` is 0, the epoll set has what `woken` says.
 */
static bool needs_wake(struct ctxfd_dispatcher *d)
{
	return atomic_load_explicit(&d->wake, memory_order_relaxed) >= 0 &&
	       (atomic_load_explicit(&d->waking, memory_order_acquire) ||
	        !atomic_load_explicit(&d->woken, memory_order_relaxed));
}

void ctxfdi_dispatcher_wake(struct ctxfd_dispatcher *d)
{
	claim(dispatcher_is_locked(d));
	if (needs_wake(d))
		atomic_store_explicit(&d->woken, write_wake(d), memory_order_relaxed);
}

void ctxfdi_dispatcher_unlock_and_wake(struct ctxfd_dispatcher *d)
{
	bool needed = needs_wake(d);

	claim(dispatcher_is_locked(d));
	if (needed) {
		atomic_store_explicit(&d->woken, true, memory_order_relaxed);
		atomic_fetch_add_explicit(&d->waking, 1, memory_order_relaxed);
	}
	dispatcher_unlock(d);
	if (!needed)
		return;
	if (!write_wake(d))
		atomic_store_explicit(&d->woken, false, memory_order_relaxed);
	atomic_fetch_sub_explicit(&d->waking, 1, memory_order_release);
}

void ctxfdi_dispatcher_arm(struct ctxfd_dispatcher *d)
{
	int64_t at = d->alarms && d->alarms->at < d->look ? d->alarms->at : d->look;
	struct itimerspec alarm = { .it_value = alarm_at(at) };

	claim(dispatcher_is_locked(d));
	/*
	 * A timer that is too early costs one wake-up for nothing; setting it at every change would cost a call at
	 * each. While a round goes on, it is set when that ends.
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
	dispatcher_tell(d);
}

void ctxfdi_dispatcher_discard(struct ctxfd_dispatcher *d, struct ctxfd *garbage)
{
	claim(dispatcher_is_locked(d));
	if (!garbage)
		return;
	dispatcher_unlock(d);
	ctxfdi_discard(garbage);
	dispatcher_lock(d);
}

int ctxfdi_dispatcher_end_after(struct ctxfd_dispatcher *d, struct ctxfd *first, struct ctxfd *n, uint64_t verdict)
{
	struct ctxfd *garbage;

	claim(dispatcher_is_locked(d));
	if (!ctxfdi_own(n)) /* it is being freed, and waits for our lock */
		return 0;
	ctxfdi_dispatcher_step_out(d);
	if (first)
		ctxfdi_await_done(first, INT64_MAX);
	garbage = ctxfdi_cancel(n, verdict);
	ctxfdi_give_up(n, &garbage);
	ctxfdi_dispatcher_step_in(d);
	ctxfdi_dispatcher_discard(d, garbage);
	return 1;
}

int ctxfdi_dispatcher_end(struct ctxfd_dispatcher *d, struct ctxfd *n, uint64_t verdict)
{
	return ctxfdi_dispatcher_end_after(d, NULL, n, verdict);
}
