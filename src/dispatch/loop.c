/* SPDX-License-Identifier: MIT */
/*
 * Dispatchers: their fds, their making and freeing, and contexts that name one. dispatcher.h says what the lock guards.
 */
#include "dispatch/loop.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/futex.h"
#include "core/thread_cancel.h"
#include "core/value.h"
#include "dispatch/signals.h"
#include "dispatch/source.h"

/* ---- Its fds ----------------------------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void ctxfdi_dispatcher_close_fds(struct ctxfd_dispatcher *d)
{
	/*
	 * Sequentially consistent, as are a handler's counting of itself, its look at `wake` after that, and our look
	 * at that count below: either the handler finds no number, or we find the handler counted, and wait.
	 */
	int wake = atomic_exchange(&d->wake, -1);

	claim(dispatcher_is_locked(d) || !atomic_load_explicit(&d->refs, memory_order_relaxed));
	if (wake >= 0)
		ctxfdi_await_handlers(); /* a handler may have read the number */
	/* Another thread may be about to write to it. Acquire pairs with the release when it has. */
	for (int i = 0; atomic_load_explicit(&d->waking, memory_order_acquire); i++)
		if (i < 100)
			sched_yield();
		else
			ctxfdi_nap(INT64_MAX);
	close_fd(&d->epoll);
	close_fd(&wake);
	close_fd(&d->timer);
	atomic_store_explicit(&d->woken, false, memory_order_relaxed);
	d->listening = false;
	d->armed = d->look = INT64_MAX;
}

/* Edge-triggered: so a round need not read from an fd of which it has been told. */
static int watch_fd(struct ctxfd_dispatcher *d, int fd, void *data)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = data };

	return epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static int watch_sources(struct ctxfd_dispatcher *d)
{
	int err = ctxfdi_signals_watch(d);

	for (struct link *l = d->sources, *next; l && !err; l = next) {
		next = l->next;
		if (ctxfdi_source_is_lost(source_of(l)))
			list_remove(l);
		else
			err = ctxfdi_source_watch(source_of(l));
	}
	return err;
}

/* In the child of a fork, what the parent had registered is taken along (ctxfdi_dispatcher_forked). */
int ctxfdi_dispatcher_open_fds(struct ctxfd_dispatcher *d)
{
	int wake = -1, err = 0;

	claim(dispatcher_is_locked(d));
	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll >= 0)
		wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (wake >= 0)
		d->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (d->timer < 0)
		err = -errno;
	atomic_store_explicit(&d->wake, wake, memory_order_relaxed);
	if (!err)
		err = watch_fd(d, wake, &d->wake);
	if (!err)
		err = watch_fd(d, d->timer, &d->timer);
	if (!err)
		err = watch_sources(d);
	if (err) {
		ctxfdi_dispatcher_close_fds(d);
		return err;
	}
	if (d->due.first || d->ready || atomic_load_explicit(&d->signalled, memory_order_relaxed))
		ctxfdi_dispatcher_wake(d);
	ctxfdi_dispatcher_arm(d);
	return 0;
}

int ctxfdi_dispatcher_open(struct ctxfd_dispatcher *d)
{
	int result;

	dispatcher_lock(d);
	result = d->epoll < 0 ? ctxfdi_dispatcher_open_fds(d) : 0;
	if (!result)
		result = d->epoll;
	dispatcher_unlock(d);
	return result;
}

int ctxfd_dispatcher_fd(struct ctxfd_dispatcher *d)
{
	struct thread_cancel before = thread_cancel_off();
	int fd = ctxfdi_dispatcher_open(d);

	thread_cancel_restore(before);
	return fd;
}

/* ---- Making and freeing ------------------------------------------------------------------------------------------ */

struct ctxfd_dispatcher *ctxfd_dispatcher_new(void)
{
	struct ctxfd_dispatcher *d = malloc(sizeof *d);
	struct thread_cancel before;
	int fd;

	if (!d)
		return NULL;
	*d = (struct ctxfd_dispatcher){
		.refs = 1, .epoll = -1, .wake = -1, .timer = -1, .armed = INT64_MAX, .look = INT64_MAX
	};
	queue_init(&d->due);
	queue_init(&d->batch);
	pthread_mutex_init(&d->lock, NULL);
	before = thread_cancel_off();
	pthread_mutex_lock(&ctxfdi_dispatchers_lock);
	list_push(&ctxfdi_dispatchers, &d->all);
	pthread_mutex_unlock(&ctxfdi_dispatchers_lock);
	fd = ctxfdi_dispatcher_open(d);
	thread_cancel_restore(before);
	if (fd >= 0)
		return d;
	ctxfd_dispatcher_free(d);
	errno = -fd;
	return NULL;
}

void ctxfd_dispatcher_free(struct ctxfd_dispatcher *d)
{
	struct thread_cancel before;

	/* Acquire and release: the last one is behind all who have used it. */
	if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
		return;
	claim(!d->serving && !d->inside); /* who runs it owns it, until its round has ended */
	before = thread_cancel_off();
	pthread_mutex_lock(&ctxfdi_dispatchers_lock);
	list_remove(&d->all);
	pthread_mutex_unlock(&ctxfdi_dispatchers_lock);
	ctxfdi_dispatcher_close_fds(d);
	pthread_mutex_destroy(&d->lock);
	thread_cancel_restore(before);
	free(d);
}

/* ---- Contexts that name one -------------------------------------------------------------------------------------- */

static const char dispatcher_key;

static void give_up(void *d)
{
	ctxfd_dispatcher_free(d);
}

const struct ctxfd *ctxfd_with_dispatcher(const struct ctxfd *parent, struct ctxfd_dispatcher *d)
{
	struct ctxfd *v = ctxfdi_with_value(parent, KIND_WITH_DISPATCHER, &dispatcher_key, d, give_up);

	if (v && d)
		dispatcher_ref(d);
	return v;
}

struct ctxfd_dispatcher *ctxfdi_dispatcher_above(const struct ctxfd *ctx)
{
	return ctxfd_value(ctx, &dispatcher_key);
}
