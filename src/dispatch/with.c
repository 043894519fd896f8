/* SPDX-License-Identifier: MIT */
/*
 * The constructors of contexts that a dispatcher ends: by an fd, a process or a signal, for want of a touch, or some
 * time after their parent. They check their arguments and find the dispatcher; what guards the rest is said in the
 * files that they call.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/kernel.h"
#include "core/thread_cancel.h"
#include "dispatch/grace.h"
#include "dispatch/idle.h"
#include "dispatch/library.h"
#include "dispatch/signals.h"
#include "dispatch/source.h"

/* What a constructor returns. */
static struct ctxfd *made(struct ctxfd *ctx, int err)
{
	if (!err)
		return ctx;
	errno = -err;
	return NULL;
}

static struct ctxfd *with_fd(const struct ctxfd *parent, int fd, short events, int cause, enum kind kind)
{
	struct thread_cancel before = thread_cancel_off();
	struct ctxfd_dispatcher *d;
	struct source *s = NULL;
	struct epoll_event now;
	int err = parent ? 0 : -EINVAL;

	/* Before we open anything, which could get the number of an fd that the caller has closed. */
	if (!err && fcntl(fd, F_GETFD) < 0)
		err = -EBADF;
	if (!err)
		err = dispatcher_of(parent, &d);
	if (!err)
		err = ctxfdi_source_hold(&s, fd, events);
	if (!err) {
		s->dispatcher = d;
		s->cause = cause;
		err = ctxfdi_source_begin(s, parent, kind);
	}
	if (!err && epoll_wait(s->epoll, &now, 1, 0) > 0)
		ctxfd_cancel_cause(&s->ctx, cause);
	thread_cancel_restore(before);
	return made(s ? &s->ctx : NULL, err);
}

struct ctxfd *ctxfd_with_fd(const struct ctxfd *parent, int fd, short events, int cause)
{
	return with_fd(parent, fd, events, cause, KIND_WITH_FD);
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
	ctx = with_fd(parent, pidfd, POLLIN, cause, KIND_WITH_PROCESS);
	if (!ctx && errno == EPERM) /* a process's directory in /proc, which can be signalled but not polled */
		errno = EINVAL;
	return ctx;
}

/* Of the signals that can be heard. */
static uint64_t bits_of(const sigset_t *set)
{
	uint64_t bits = 0;

	for (int sig = 1; set && sig < NSIG; sig++)
		if (sigismember(set, sig) == 1 && sig != SIGKILL && sig != SIGSTOP)
			bits |= signal_bit(sig);
	return bits;
}

static int begin(struct listener *l, const struct ctxfd *parent)
{
	struct ctxfd_dispatcher *d = l->source.dispatcher;
	int err = ctxfdi_source_begin(&l->source, parent, KIND_WITH_SIGNALS);

	if (!err) {
		dispatcher_lock(d);
		err = ctxfdi_signals_listen(l);
		dispatcher_unlock(d);
		if (err)
			ctxfdi_source_give_up(&l->source);
	}
	return err;
}

struct ctxfd *ctxfd_with_signals(const struct ctxfd *parent, const sigset_t *set)
{
	struct thread_cancel before = thread_cancel_off();
	uint64_t bits = bits_of(set);
	struct ctxfd_dispatcher *d;
	struct listener *l = NULL;
	int err = parent && bits ? dispatcher_of(parent, &d) : -EINVAL;

	if (!err && !(l = malloc(sizeof *l)))
		err = -ENOMEM;
	if (!err) {
		*l = (struct listener){ .set = bits, .source = { .dispatcher = d, .epoll = -1 } };
		err = begin(l, parent);
	}
	thread_cancel_restore(before);
	return made(l ? &l->source.ctx : NULL, err);
}

/* The clock first, since the timeout counts from the call. */
struct ctxfd *ctxfd_with_idle(const struct ctxfd *parent, int64_t timeout, int cause)
{
	int64_t now = ctxfd_now();
	struct ctxfd_dispatcher *d = NULL;
	int err = parent ? 0 : -EINVAL;

	if (timeout > INT64_MAX - now)
		return ctxfd_with_cancel(parent);
	if (!err && timeout > 0)
		err = dispatcher_of(parent, &d);
	return err ? made(NULL, err) : ctxfdi_idle_new(parent, d, now, timeout, cause);
}

struct ctxfd *ctxfd_with_grace(const struct ctxfd *parent, int64_t grace, int cause)
{
	int64_t now = ctxfd_now();
	struct ctxfd_dispatcher *d = NULL;
	int err = parent ? 0 : -EINVAL;

	if (!err && grace != INT64_MAX && !(load_word(node_of(parent)) & CTX_NEVER))
		err = dispatcher_of(parent, &d);
	return err ? made(NULL, err) : ctxfdi_grace_new(parent, d, now, grace, cause);
}
