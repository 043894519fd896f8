/* SPDX-License-Identifier: MIT */
/*
 * own_loop: after-funcs and watched fds served by the program's own epoll loop, on its own thread; the library starts
 * none.
 *
 * Output:
 *     timeout: context deadline exceeded, on the loop's thread
 *     pipe: context canceled, on the loop's thread
 */
#define _GNU_SOURCE
#include <ctxfd.h>

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

struct job {
	const char *name;
	struct ctxfd *ctx;
	pid_t loop;
	bool ended;
};

static void on_end(void *arg)
{
	struct job *job = arg;

	printf("%s: %s, on %s thread\n", job->name, ctxfd_strerror(ctxfd_err(job->ctx)),
	       gettid() == job->loop ? "the loop's" : "another");
	job->ended = true;
}

int main(void)
{
	struct job timeout = { .name = "timeout", .loop = gettid() }, pipe_job = { .name = "pipe", .loop = gettid() };
	int dispatch = ctxfd_dispatch_fd(), epoll = epoll_create1(EPOLL_CLOEXEC), fds[2];
	struct epoll_event event = { .events = EPOLLIN, .data.fd = dispatch };

	/* Beside it in the set: the program's sockets. */
	if (dispatch < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, dispatch, &event) < 0 || pipe(fds) < 0)
		return 1;
	timeout.ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_SEC / 10);
	pipe_job.ctx = ctxfd_with_fd(ctxfd_background(), fds[0], POLLIN, -ECANCELED);
	if (!timeout.ctx || ctxfd_after_func(timeout.ctx, on_end, &timeout, NULL) < 0 || !pipe_job.ctx ||
	    ctxfd_after_func(pipe_job.ctx, on_end, &pipe_job, NULL) < 0)
		return 1;

	while (!pipe_job.ended) {
		if (epoll_wait(epoll, &event, 1, -1) == 1 && event.data.fd == dispatch)
			ctxfd_dispatch();
		if (timeout.ended && write(fds[1], "x", 1) != 1)
			return 1;
	}
	ctxfd_unref(timeout.ctx);
	ctxfd_unref(pipe_job.ctx);
	close(fds[0]);
	close(fds[1]);
	close(epoll);
	return 0;
}
