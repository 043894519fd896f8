/* SPDX-License-Identifier: MIT */
/* Dispatchers: their fds, their rounds, and contexts that name one. dispatcher.h says what the lock guards. */
#include "dispatch/dispatcher.h"

#include <limits.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "dispatch/signals.h"
#include "dispatch/source.h"

/* Comes before all ctxfdi_dispatchers' locks. */
pthread_mutex_t ctxfdi_dispatchers_lock = PTHREAD_MUTEX_INITIALIZER;
struct link *ctxfdi_dispatchers;
unsigned ctxfdi_dispatcher_forks;

/* ---- Its fds ----------------------------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void ctxfdi_dispatcher_close_fds(struct ctxfd_dispatcher *d)
{
	int wake = atomic_exchange_explicit(&d->wake, -1, memory_order_relaxed);

	if (wake >= 0)
		ctxfdi_signals_leave(); /* a handler may have read the number */
	close_fd(&d->epoll);
	close_fd(&wake);
	close_fd(&d->timer);
	d->woken = d->listening = false;
	d->armed = d->look = INT64_MAX;
}

static int watch(struct ctxfd_dispatcher *d, int fd, void *data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = data };

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

/* Under the lock, without fds. What an earlier process left (see fork) is taken along. */
static int open_fds(struct ctxfd_dispatcher *d)
{
	int wake = -1, err = 0;

	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll >= 0)
		wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (wake >= 0)
		d->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (d->timer < 0)
		err = -errno;
	atomic_store_explicit(&d->wake, wake, memory_order_relaxed);
	if (!err)
		err = watch(d, wake, &d->wake);
	if (!err)
		err = watch(d, d->timer, &d->timer);
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

	pthread_mutex_lock(&d->lock);
	result = d->epoll < 0 ? open_fds(d) : 0;
	if (!result)
		result = d->epoll;
	pthread_mutex_unlock(&d->lock);
	return result;
}

void ctxfdi_dispatcher_wake(struct ctxfd_dispatcher *d)
{
	uint64_t one = 1;
	int wake = atomic_load_explicit(&d->wake, memory_order_relaxed);

	if (!d->woken && wake >= 0)
		d->woken = syscall(SYS_write, wake, &one, sizeof one) == sizeof one; /* see done.c */
}

void ctxfdi_dispatcher_arm(struct ctxfd_dispatcher *d)
{
	int64_t at = d->alarms && d->alarms->at < d->look ? d->alarms->at : d->look;
	struct itimerspec alarm = { 0 };

	/*
	 * A timer that is too early costs one wake-up for nothing; setting it at every change would cost a call at each.
	 * While a round goes on, it is set when that ends.
	 */
	if (at >= d->armed || d->timer < 0 || d->serving)
		return;
	alarm.it_value.tv_sec = (time_t)(at / CTXFD_SEC);
	alarm.it_value.tv_nsec = (long)(at % CTXFD_SEC);
	if ((int64_t)alarm.it_value.tv_sec != at / CTXFD_SEC)
		alarm.it_value.tv_sec = INT32_MAX;
	if (timerfd_settime(d->timer, TFD_TIMER_ABSTIME, &alarm, NULL) == 0)
		d->armed = at;
}

/* ---- Making and freeing ------------------------------------------------------------------------------------------ */

struct ctxfd_dispatcher *ctxfd_dispatcher_new(void)
{
	struct ctxfd_dispatcher *d = malloc(sizeof *d);
	struct entry entry;
	int fd;

	if (!d)
		return NULL;
	*d = (struct ctxfd_dispatcher){
		.refs = 1, .epoll = -1, .wake = -1, .timer = -1, .armed = INT64_MAX, .look = INT64_MAX
	};
	queue_init(&d->due);
	queue_init(&d->batch);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->idle, NULL);
	entry = enter();
	pthread_mutex_lock(&ctxfdi_dispatchers_lock);
	list_push(&ctxfdi_dispatchers, &d->all);
	pthread_mutex_unlock(&ctxfdi_dispatchers_lock);
	fd = ctxfdi_dispatcher_open(d);
	leave(entry);
	if (fd >= 0)
		return d;
	ctxfd_dispatcher_free(d);
	errno = -fd;
	return NULL;
}

void ctxfdi_dispatcher_ref(struct ctxfd_dispatcher *d)
{
	/* Relaxed: whoever calls has a reference already, or is promised one. */
	atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
}

void ctxfd_dispatcher_free(struct ctxfd_dispatcher *d)
{
	struct entry entry;

	/* Acquire and release: the last one is behind all who have used it. */
	if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
		return;
	entry = enter();
	pthread_mutex_lock(&ctxfdi_dispatchers_lock);
	list_remove(&d->all);
	pthread_mutex_unlock(&ctxfdi_dispatchers_lock);
	ctxfdi_dispatcher_close_fds(d);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->idle);
	leave(entry);
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
	struct ctxfd *v = ctxfdi_with_value(parent, WITH_DISPATCHER, &dispatcher_key, d, give_up);

	if (v && d)
		ctxfdi_dispatcher_ref(d);
	return v;
}

struct ctxfd_dispatcher *ctxfdi_dispatcher_above(const struct ctxfd *ctx)
{
	return ctxfd_value(ctx, &dispatcher_key);
}

/* ---- One round --------------------------------------------------------------------------------------------------- */

void ctxfdi_dispatcher_step_out(struct ctxfd_dispatcher *d)
{
	d->inside = true;
	pthread_mutex_unlock(&d->lock);
}

void ctxfdi_dispatcher_step_in(struct ctxfd_dispatcher *d)
{
	pthread_mutex_lock(&d->lock);
	d->inside = false;
	pthread_cond_broadcast(&d->idle);
}

static void take_event(struct ctxfd_dispatcher *d, void *data)
{
	uint64_t count;

	if (data == &d->wake) {
		if (read(d->wake, &count, sizeof count) == sizeof count)
			d->woken = false;
	} else if (data == &d->timer) {
		if (read(d->timer, &count, sizeof count) == sizeof count)
			d->armed = INT64_MAX;
	} else if (data == &ctxfdi_signals_event) {
		if (d->look == INT64_MAX) /* others that come meanwhile do not put it off */
			d->look = ctxfd_now() + SIGNALS_DELAY;
	} else {
		ctxfdi_source_is_ready(data);
	}
}

/* Under the lock, whoever runs d: puts what is ready into the queues. */
static void collect(struct ctxfd_dispatcher *d)
{
	struct epoll_event events[32];
	bool pending;
	int n;

	do {
		n = epoll_wait(d->epoll, events, 32, 0);
		for (int i = 0; i < n; i++)
			take_event(d, events[i].data.ptr);
	} while (n == 32); /* all of them: somebody may wait for edges only */
	pending = d->look != INT64_MAX && d->look <= ctxfd_now();
	if (pending)
		d->look = INT64_MAX;
	/* Acquire pairs with the release of the handler that made the note. */
	if (atomic_exchange_explicit(&d->signalled, false, memory_order_acquire) || pending)
		ctxfdi_signals_take(d, pending);
}

/* What the round has not come to is due before what came after. */
static void give_back_batch(struct ctxfd_dispatcher *d)
{
	queue_move(&d->batch, &d->due);
	queue_move(&d->due, &d->batch);
}

/* A round of d, by this thread. */
struct round {
	struct ctxfd_dispatcher *d;
	struct entry entry;
	unsigned forks; /* as it began: a fork in a function of the program ends it in the child */
};

/*
 * Under the lock. Also when a function of the program leaves the round by pthread_exit or an exception of C++: then the
 * rest is left to the next one.
 */
static void end_round(void *arg)
{
	struct round *r = arg;
	struct ctxfd_dispatcher *d = r->d;

	if (r->forks == ctxfdi_dispatcher_forks) {
		give_back_batch(d);
		d->serving = false;
		if (d->due.first || d->ready)
			ctxfdi_dispatcher_wake(d);
		ctxfdi_dispatcher_arm(d);
	}
	pthread_mutex_unlock(&d->lock);
	ctxfd_dispatcher_free(d);
	leave(r->entry);
}

/* Under the lock: does what is due, in one go, so that what comes due meanwhile cannot keep us here. */
static int serve(struct round *r)
{
	struct ctxfd_dispatcher *d = r->d;
	int64_t now = d->alarms ? ctxfd_now() : 0;
	struct link *l;
	int done = 0;

	while (r->forks == ctxfdi_dispatcher_forks && (l = d->ready)) {
		list_remove(l);
		done += ctxfdi_source_fire(source_of(l));
	}
	while (r->forks == ctxfdi_dispatcher_forks && d->alarms && d->alarms->at <= now) {
		struct expiry *e = container_of(d->alarms, struct expiry, alarm);

		ctxfdi_alarm_clear(&d->alarms, &e->alarm);
		ctxfdi_expire(d, e);
	}
	if (r->forks == ctxfdi_dispatcher_forks)
		queue_move(&d->batch, &d->due);
	while (r->forks == ctxfdi_dispatcher_forks && d->batch.first) {
		struct ctxfd_after *h = container_of(d->batch.first, struct ctxfd_after, link);

		queue_remove(&d->batch, &h->link);
		done += ctxfdi_run_after(d, h);
	}
	return done;
}

int ctxfd_dispatcher_run(struct ctxfd_dispatcher *d)
{
	struct round r = { .d = d, .entry = enter(), .forks = ctxfdi_dispatcher_forks };
	int result;

	pthread_mutex_lock(&d->lock);
	result = d->epoll < 0 ? open_fds(d) : 0;
	if (!result) {
		collect(d);
		result = d->serving || d->closed ? -EBUSY : 0;
	}
	if (result) {
		pthread_mutex_unlock(&d->lock);
		leave(r.entry);
		return result;
	}
	d->serving = true;
	d->thread = pthread_self();
	ctxfdi_dispatcher_ref(d); /* its last holder may go in a function that we run */
	pthread_cleanup_push(end_round, &r);
	result = serve(&r);
	pthread_cleanup_pop(true);
	return result;
}

int ctxfd_dispatcher_fd(struct ctxfd_dispatcher *d)
{
	struct entry entry = enter();
	int fd = ctxfdi_dispatcher_open(d);

	leave(entry);
	return fd;
}

void ctxfdi_dispatcher_forked(struct ctxfd_dispatcher *d)
{
	struct ctxfd_after *running = d->running;

	ctxfdi_dispatcher_close_fds(d);
	pthread_cond_init(&d->idle, NULL);
	d->closed = false;
	if (!d->serving)
		return;
	d->serving = d->inside = false;
	d->running = NULL;
	if (!pthread_equal(d->thread, pthread_self())) {
		/* Another thread, which is not here to finish it; who forked in a function that it runs goes on. */
		atomic_fetch_sub_explicit(&d->refs, 1, memory_order_relaxed);
		if (running)
			ctxfdi_abandon_after(d, running);
	}
	give_back_batch(d);
}
