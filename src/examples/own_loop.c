/* SPDX-License-Identifier: MIT */
/*
 * own_loop: the program's own epoll loop runs after-funcs and watches fds. The library starts no thread.
 *
 * Everything that is made below `loop` is served by the loop's dispatcher.
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

/* Adds the dispatcher to the program's epoll set, beside its sockets. Returns 0 or -errno. */
static int add_dispatcher(int epoll, struct ctxfd_dispatcher *dispatcher)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = dispatcher };
	int fd = ctxfd_dispatcher_fd(dispatcher);

	if (fd < 0)
		return fd;
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* The loop's dispatcher calls on_end, since job->ctx is below the loop's context. Returns 0 or -errno. */
static int watch(struct job *job, struct ctxfd *ctx)
{
	if (!ctx)
		return -errno;
	job->ctx = ctx;
	return ctxfd_after_func(ctx, on_end, job, NULL);
}

/* Serves what is due until the job has ended. Returns 0 or -errno. */
static int run_until_end(int epoll, struct ctxfd_dispatcher *dispatcher, const struct job *job)
{
	struct epoll_event event;
	int n, err;

	while (!job->ended) {
		n = epoll_wait(epoll, &event, 1, -1);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 1 && event.data.ptr == dispatcher) {
			err = ctxfd_dispatcher_run(dispatcher);
			if (err < 0)
				return err;
		}
	}
	return 0;
}

int main(void)
{
	struct job timeout = { .name = "timeout", .loop = gettid() }, watched = { .name = "pipe", .loop = gettid() };
	struct ctxfd_dispatcher *dispatcher = ctxfd_dispatcher_new();
	const struct ctxfd *loop = dispatcher ? ctxfd_with_dispatcher(ctxfd_background(), dispatcher) : NULL;
	int epoll = loop ? epoll_create1(EPOLL_CLOEXEC) : -1, fds[2], err;

	if (epoll < 0 || pipe(fds) < 0) {
		perror("own_loop");
		return 1;
	}
	err = add_dispatcher(epoll, dispatcher);
	if (!err)
		err = watch(&timeout, ctxfd_with_timeout(loop, CTXFD_SEC / 10));
	if (!err)
		err = watch(&watched, ctxfd_with_fd(loop, fds[0], POLLIN, -ECANCELED));
	if (!err)
		err = run_until_end(epoll, dispatcher, &timeout);
	if (!err && write(fds[1], "x", 1) != 1)
		err = -errno;
	if (!err)
		err = run_until_end(epoll, dispatcher, &watched);
	if (err)
		fprintf(stderr, "own_loop: %s\n", ctxfd_strerror(err));
	ctxfd_unref(timeout.ctx);
	ctxfd_unref(watched.ctx);
	ctxfd_unref(loop);
	ctxfd_dispatcher_free(dispatcher);
	close(fds[0]);
	close(fds[1]);
	close(epoll);
	return err ? 1 : 0;
}
