/* SPDX-License-Identifier: MIT */
/*
 * A storm on after-funcs: threads register, stop, cancel, derive and free at random in one tree. Whatever the schedule,
 * each function ran at most once and with its context done, ran if stop did not win, and did not run after stop
 * returned. Every other context has a dispatcher of the program's, which two threads run that sleep in one epoll set,
 * edge-triggered: the library's thread has the rest.
 */
#include "harness.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#define THREADS 4
#define SERVERS 2
#define PLACES  48  /* contexts that all threads work on */
#define RECORDS 600 /* after-funcs of one thread in one round */

struct record {
	const struct ctxfd *ctx; /* kept alive by the after-func itself until it has run */
	struct ctxfd_after *handle;
	_Atomic int runs;
	_Atomic bool stopped;
	bool owned;
};

struct storm {
	pthread_mutex_t lock; /* guards place */
	struct ctxfd *place[PLACES];
};

struct worker {
	struct storm *storm;
	uint64_t random;
	struct record record[RECORDS];
	int records;
};

static uint32_t next(struct worker *w, uint32_t below)
{
	w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(w->random >> 33) % below;
}

static void ran(void *arg)
{
	struct record *r = arg;

	require(!r->stopped);
	require(ctxfd_err(r->ctx) != 0);
	require(++r->runs == 1);
	if ((uintptr_t)r / sizeof *r % 5 == 0) {
		struct ctxfd *child = ctxfd_with_cancel(r->ctx);

		require(child && ctxfd_err(child) != 0);
		ctxfd_close(child);
	}
}

/* A context from some place, with a reference of our own; the pointer may be cancelled through. */
static struct ctxfd *take(struct worker *w)
{
	struct ctxfd *ctx;

	pthread_mutex_lock(&w->storm->lock);
	ctx = w->storm->place[next(w, PLACES)];
	ctxfd_ref(ctx);
	pthread_mutex_unlock(&w->storm->lock);
	return ctx;
}

static void put(struct worker *w, struct ctxfd *ctx)
{
	uint32_t i = 1 + next(w, PLACES - 1); /* the root stays */
	struct ctxfd *old;

	pthread_mutex_lock(&w->storm->lock);
	old = w->storm->place[i];
	w->storm->place[i] = ctx;
	pthread_mutex_unlock(&w->storm->lock);
	if (next(w, 2))
		ctxfd_close(old);
	else
		ctxfd_unref(old);
}

static void reg(struct worker *w, const struct ctxfd *ctx)
{
	struct record *r = &w->record[w->records++];

	r->ctx = ctx;
	r->owned = next(w, 3) != 0;
	require(ctxfd_after_func(ctx, ran, r, r->owned ? &r->handle : NULL) == 0);
}

static void stop(struct record *r)
{
	if (!r->owned)
		return;
	r->owned = false;
	if (ctxfd_after_stop(r->handle)) {
		require(r->runs == 0);
		r->stopped = true;
	} else {
		require(r->runs == 1);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (w->records < RECORDS) {
		struct ctxfd *ctx = take(w);
		uint32_t dice = next(w, 100);

		if (dice < 45)
			reg(w, ctx);
		else if (dice < 70 && w->records)
			stop(&w->record[next(w, (uint32_t)w->records)]);
		else if (dice < 80)
			put(w, ctxfd_with_cancel(ctx));
		else if (dice < 88)
			put(w, ctxfd_with_timeout(ctx, next(w, 2000) * CTXFD_USEC));
		else if (dice < 92)
			put(w, ctxfd_merge(ctx, w->storm->place[0]));
		else if (dice < 98 && ctx != w->storm->place[0])
			ctxfd_cancel(ctx);
		ctxfd_unref(ctx);
	}
	return NULL;
}

/* ---- The program's dispatcher ------------------------------------------------------------------------------------ */

static struct loop {
	struct ctxfd_dispatcher *dispatcher;
	int set, quit;
	struct thread *server[SERVERS];
} loop;

static void *serve(void *arg)
{
	struct loop *l = arg;
	struct epoll_event event;

	for (;;) {
		int n;

		while (epoll_wait(l->set, &event, 1, -1) != 1)
			require(errno == EINTR);
		if (event.data.fd == l->quit)
			return NULL;
		n = ctxfd_dispatcher_run(l->dispatcher);
		require(n >= 0 || n == -EBUSY);
	}
}

static void start_loop(struct loop *l)
{
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET }, level = { .events = EPOLLIN };

	l->dispatcher = ctxfd_dispatcher_new();
	l->set = epoll_create1(EPOLL_CLOEXEC);
	l->quit = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	require(l->dispatcher && l->set >= 0 && l->quit >= 0);
	level.data.fd = l->quit;
	edge.data.fd = ctxfd_dispatcher_fd(l->dispatcher);
	require(epoll_ctl(l->set, EPOLL_CTL_ADD, level.data.fd, &level) == 0);
	require(epoll_ctl(l->set, EPOLL_CTL_ADD, edge.data.fd, &edge) == 0);
	for (int i = 0; i < SERVERS; i++)
		l->server[i] = thread_start(serve, l);
}

static void stop_loop(struct loop *l)
{
	uint64_t one = 1;

	require(write(l->quit, &one, sizeof one) == sizeof one);
	for (int i = 0; i < SERVERS; i++)
		thread_join(l->server[i]);
	/* What was stopped when it was due is freed when somebody comes to it. */
	require(ctxfd_dispatcher_run(l->dispatcher) == 0);
	ctxfd_dispatcher_free(l->dispatcher);
	close(l->set);
	close(l->quit);
}

/* A child of parent; with the library's dispatcher, or with ours. */
static struct ctxfd *place_below(const struct ctxfd *parent, bool ours)
{
	const struct ctxfd *v = ctxfd_with_dispatcher(parent, ours ? loop.dispatcher : NULL);
	struct ctxfd *ctx = ctxfd_with_cancel(v);

	require(ctx);
	ctxfd_unref(v);
	return ctx;
}

/* ---- Rounds ------------------------------------------------------------------------------------------------------ */

static void round_of(unsigned seed)
{
	static struct worker worker[THREADS];
	struct thread *thread[THREADS];
	struct storm storm = { .lock = PTHREAD_MUTEX_INITIALIZER };

	for (int i = 0; i < PLACES; i++)
		storm.place[i] = place_below(i ? storm.place[i / 2] : ctxfd_background(), i & 1);
	for (unsigned i = 0; i < THREADS; i++) {
		memset(&worker[i], 0, sizeof worker[i]);
		worker[i].storm = &storm;
		worker[i].random = seed * 1000 + i;
		thread[i] = thread_start(work, &worker[i]);
	}
	for (int i = 0; i < THREADS; i++)
		thread_join(thread[i]);
	for (int i = PLACES - 1; i > 0; i--)
		ctxfd_unref(storm.place[i]);
	ctxfd_close(storm.place[0]);
	for (int i = 0; i < THREADS; i++) {
		for (struct record *r = worker[i].record; r < worker[i].record + RECORDS; r++) {
			wait_until(r->stopped || r->runs == 1);
			stop(r);
		}
	}
}

static void at_most_once_and_never_after_stop(void **state)
{
	int n = rounds(1000);

	(void)state;
	start_loop(&loop);
	for (int i = 0; i < n; i++)
		round_of((unsigned)i);
	stop_loop(&loop);
	/* What the last stop left to the dispatcher to free is gone when it comes round once more. */
	for (int i = 0; i < 2; i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct record last = { .ctx = ctx };

		require(ctxfd_after_func(ctx, ran, &last, NULL) == 0);
		ctxfd_cancel(ctx);
		wait_until(last.runs == 1);
		ctxfd_unref(ctx);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_most_once_and_never_after_stop),
	};

	start_dispatcher();
	return run_all(tests);
}
