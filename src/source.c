/* SPDX-License-Identifier: MIT */
/*
 * Contexts that end because of something outside: an fd, a signal, a process. dispatch.h says what guards a source.
 *
 * An fd is registered in an epoll set of the source's own, and that set in the dispatcher's. So the caller's number is
 * used once: taking the watch away is closing our set, and cannot hit whoever has the number by then; and two sources
 * can watch one fd. A source is in the dispatcher's care from its birth until it has fired or is freed, whichever comes
 * first.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dispatch.h"

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424 /* the same on every architecture */
#endif

static struct source *source_of(struct ctxfd *n)
{
	return (struct source *)((char *)n - offsetof(struct source, ctx));
}

/* ---- Under the dispatcher's lock --------------------------------------------------------------------------------- */

/* Makes the signals that the dispatcher takes those that some source still waits for. */
static int set_signals(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = &dispatcher.signals };
	sigset_t wanted;
	int fd;

	sigemptyset(&wanted);
	for (struct source *s = dispatcher.sources; s; s = s->next)
		for (int i = 1; s->watched && s->epoll < 0 && i < NSIG; i++)
			if (sigismember(&s->signals, i) == 1)
				sigaddset(&wanted, i);
	fd = signalfd(dispatcher.signals, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (dispatcher.signals < 0 && epoll_ctl(dispatcher.epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
		int err = -errno;
		close(fd);
		return err;
	}
	dispatcher.signals = fd;
	return 0;
}

static int watch_source(struct source *s)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = s };
	int err;

	s->watched = true;
	if (s->epoll < 0)
		err = set_signals();
	else
		err = epoll_ctl(dispatcher.epoll, EPOLL_CTL_ADD, s->epoll, &event) == 0 ? 0 : -errno;
	s->watched = !err;
	return err;
}

static void unwatch_source(struct source *s)
{
	if (!s->watched)
		return;
	s->watched = false;
	if (dispatcher.epoll < 0) /* after fork, before the child has a dispatcher */
		return;
	if (s->epoll < 0)
		set_signals();
	else
		epoll_ctl(dispatcher.epoll, EPOLL_CTL_DEL, s->epoll, NULL);
	/* It may have been reported already, in this round of the dispatcher. */
	for (int i = 0; i < dispatcher.events_left; i++)
		if (dispatcher.events[i].data.ptr == s)
			dispatcher.events[i].data.ptr = NULL;
}

int watch_sources(void)
{
	int err = 0;

	for (struct source *s = dispatcher.sources; s && !err; s = s->next)
		if (s->watched) {
			err = watch_source(s);
			s->watched = true; /* whatever came of it: there will be another try */
		}
	return err;
}

/* On the dispatching thread. While it is out of the lock nobody can free s. */
static int fire(struct source *s)
{
	unwatch_source(s);
	dispatcher.cancelling = s;
	dispatcher_step_out();
	ctxfd_cancel_cause(&s->ctx, s->cause);
	dispatcher_step_in();
	return 1;
}

/* A context that has ended otherwise does not take a signal from others, nor from the program. */
static void forget_done_listeners(void)
{
	bool any = false;

	for (struct source *s = dispatcher.sources; s; s = s->next)
		if (s->epoll < 0 && s->watched && settle(&s->ctx) & DONE) {
			s->watched = false;
			any = true;
		}
	if (any)
		set_signals();
}

/*
 * Every source that waits for a signal hears it, and only then is the next one read: after its first a source wants no
 * more.
 */
static int take_signals(void)
{
	struct signalfd_siginfo info;
	struct source *s;
	int fired = 0;

	for (;;) {
		forget_done_listeners();
		if (read(dispatcher.signals, &info, sizeof info) != sizeof info)
			return fired;
		for (s = dispatcher.sources; s; s = s->next) {
			s->ready = s->epoll < 0 && s->watched && sigismember(&s->signals, (int)info.ssi_signo) == 1;
			if (s->ready)
				s->cause = (int)info.ssi_signo;
		}
		do {
			for (s = dispatcher.sources; s && !s->ready; s = s->next)
				continue;
			if (s) {
				s->ready = false;
				fired += fire(s);
			}
		} while (s);
	}
}

int source_event(void *data)
{
	return data == &dispatcher.signals ? take_signals() : fire(data);
}

/* ---- From outside ------------------------------------------------------------------------------------------------ */

/* Not under the lock. A source that the dispatcher is cancelling is waited for. */
void forget_source(struct ctxfd *ctx)
{
	struct source *s = source_of(ctx);
	struct entry entry = enter();

	pthread_mutex_lock(&dispatcher.lock);
	while (dispatcher.cancelling == s)
		pthread_cond_wait(&dispatcher.idle, &dispatcher.lock);
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	unwatch_source(s);
	pthread_mutex_unlock(&dispatcher.lock);
	if (s->epoll >= 0)
		close(s->epoll);
	leave(entry);
}

/* Memory for a source, and somebody to dispatch it. 0 or -errno. */
static int new_source(const struct ctxfd *parent, struct source **s)
{
	int err = parent ? ensure_dispatcher() : -EINVAL;

	*s = err ? NULL : malloc(sizeof **s);
	if (*s)
		**s = (struct source){ .epoll = -1 };
	return *s ? 0 : err ? err : -ENOMEM;
}

/* Makes s a child of parent, in the dispatcher's care. On failure, -errno, s is freed. */
static int begin(struct source *s, const struct ctxfd *parent, enum kind kind)
{
	int err;

	adopt(&s->ctx, parent, kind, SOURCE, INT64_MAX, 0);
	pthread_mutex_lock(&dispatcher.lock);
	s->next = dispatcher.sources;
	s->prev = &dispatcher.sources;
	if (s->next)
		s->next->prev = &s->next;
	dispatcher.sources = s;
	err = watch_source(s);
	pthread_mutex_unlock(&dispatcher.lock);
	if (err)
		ctxfd_unref(&s->ctx);
	return err == -EINVAL ? -ENOSPC : err; /* the kernel's limit on ways through epoll sets */
}

/* Puts fd into an epoll set of the source's own. On failure, -errno, s is freed. */
static int hold_fd(struct source *s, int fd, short events)
{
	struct epoll_event event = { .events = (uint16_t)events };
	int err;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll >= 0 && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
		return 0;
	err = -errno;
	if (s->epoll >= 0)
		close(s->epoll);
	free(s);
	return err;
}

/* What a constructor returns. */
static struct ctxfd *made(struct source *s, int err)
{
	if (!err)
		return &s->ctx;
	errno = -err;
	return NULL;
}

static struct ctxfd *with_fd(const struct ctxfd *parent, int fd, short events, int cause, enum kind kind)
{
	struct entry entry = enter();
	struct epoll_event now;
	struct source *s = NULL;
	/* Before we open anything, which could get the number of an fd that the caller has closed. */
	int err = parent && fcntl(fd, F_GETFD) < 0 ? -EBADF : new_source(parent, &s);

	if (!err)
		err = hold_fd(s, fd, events);
	if (!err) {
		s->cause = cause;
		err = begin(s, parent, kind);
	}
	if (!err && epoll_wait(s->epoll, &now, 1, 0) > 0)
		ctxfd_cancel_cause(&s->ctx, cause);
	leave(entry);
	return made(s, err);
}

struct ctxfd *ctxfd_with_fd(const struct ctxfd *parent, int fd, short events, int cause)
{
	return with_fd(parent, fd, events, cause, WITH_FD);
}

struct ctxfd *ctxfd_with_process(const struct ctxfd *parent, int pidfd, int cause)
{
	struct ctxfd *ctx;

	/* Signal 0 tells a pidfd (0, ESRCH, EPERM, or ENOSYS from a sandbox) from any other fd (EBADF). */
	if (parent && syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) != 0 && errno == EBADF) {
		if (fcntl(pidfd, F_GETFD) >= 0)
			errno = EINVAL;
		return NULL;
	}
	ctx = with_fd(parent, pidfd, POLLIN, cause, WITH_PROCESS);
	if (!ctx && errno == EPERM) /* a process's directory in /proc, which can be signalled but not polled */
		errno = EINVAL;
	return ctx;
}

struct ctxfd *ctxfd_with_signals(const struct ctxfd *parent, const sigset_t *set)
{
	struct entry entry = enter();
	struct source *s = NULL;
	sigset_t before;
	int err = -EINVAL;

	for (int i = 1; set && i < NSIG; i++)
		if (sigismember(set, i) == 1)
			err = 0;
	if (!err)
		err = new_source(parent, &s);
	if (!err) {
		s->signals = *set;
		/* First, so that what comes from here on is kept for us. */
		pthread_sigmask(SIG_BLOCK, set, &before);
		err = begin(s, parent, WITH_SIGNALS);
		if (err)
			pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	leave(entry);
	return made(s, err);
}
