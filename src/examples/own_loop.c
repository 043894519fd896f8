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

/* Adds the dispatcher to the program's epoll set, in which its sockets are. */
static bool add_dispatcher(int epoll, struct ctxfd_dispatcher *dispatcher)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = dispatcher };
	int fd = ctxfd_dispatcher_fd(dispatcher);

	return fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Everything that is made below `loop` is served by the loop's dispatcher. */
static bool start(const struct ctxfd *loop, struct job *timeout, struct job *pipe_job, int fd)
{
	timeout->ctx = ctxfd_with_timeout(loop, CTXFD_SEC / 10);
	pipe_job->ctx = ctxfd_with_fd(loop, fd, POLLIN, -ECANCELED);
	return timeout->ctx && ctxfd_after_func(timeout->ctx, on_end, timeout, NULL) == 0 && pipe_job->ctx &&
	       ctxfd_after_func(pipe_job->ctx, on_end, pipe_job, NULL) == 0;
}

int main(void)
{
	struct job timeout = { .name = "timeout", .loop = gettid() }, pipe_job = { .name = "pipe", .loop = gettid() };
	struct ctxfd_dispatcher *dispatcher = ctxfd_dispatcher_new();
	const struct ctxfd *loop = dispatcher ? ctxfd_with_dispatcher(ctxfd_background(), dispatcher) : NULL;
	int epoll = epoll_create1(EPOLL_CLOEXEC), fds[2];
	struct epoll_event event;

	if (!loop || epoll < 0 || pipe(fds) < 0 || !add_dispatcher(epoll, dispatcher) ||
	    !start(loop, &timeout, &pipe_job, fds[0])) {
		perror("own_loop");
		return 1;
	}
	while (!pipe_job.ended) {
		if (epoll_wait(epoll, &event, 1, -1) == 1 && event.data.ptr == dispatcher)
			ctxfd_dispatcher_run(dispatcher);
		if (timeout.ended && write(fds[1], "x", 1) != 1) {
			perror("write");
			return 1;
		}
	}
	ctxfd_unref(timeout.ctx);
	ctxfd_unref(pipe_job.ctx);
	ctxfd_unref(loop);
	ctxfd_dispatcher_free(dispatcher);
	close(fds[0]);
	close(fds[1]);
	close(epoll);
	return 0;
}
