/* SPDX-License-Identifier: MIT */
/* A loop of the program's: a thread that has a dispatcher's fd in its epoll set, and runs it when that is readable. */
#ifndef LOOP_H
#define LOOP_H

#include "bench.h"
#include "ctxfd.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

struct loop {
	struct ctxfd_dispatcher *dispatcher;
	const struct ctxfd *home; /* what is registered below it is served here */
	bool ends;
	pthread_t thread;
};

static inline void *loop_main(void *arg)
{
	struct loop *l = arg;
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC);

	prctl(PR_SET_NAME, "loop");
	bench_check(epoll_ctl(set, EPOLL_CTL_ADD, ctxfd_dispatcher_fd(l->dispatcher), &event) == 0);
	while (!l->ends)
		if (epoll_wait(set, &event, 1, -1) == 1)
			ctxfd_dispatcher_run(l->dispatcher);
	close(set);
	return NULL;
}

static inline void loop_start(struct loop *l)
{
	l->ends = false;
	l->dispatcher = ctxfd_dispatcher_new();
	l->home = ctxfd_with_dispatcher(ctxfd_background(), l->dispatcher);
	bench_check(l->home);
	l->thread = bench_thread(0, loop_main, l);
}

static inline void loop_note_end(void *arg)
{
	((struct loop *)arg)->ends = true;
}

static inline void loop_end(struct loop *l)
{
	struct ctxfd *last = ctxfd_with_cancel(l->home);

	bench_check(ctxfd_after_func(last, loop_note_end, l, NULL) == 0);
	ctxfd_close(last);
	pthread_join(l->thread, NULL);
	ctxfd_unref(l->home);
	ctxfd_dispatcher_free(l->dispatcher);
}

#endif
