/* SPDX-License-Identifier: MIT */
/*
 * What ends contexts by an fd or a process; with.c makes them. source.h says what guards a source.
 *
 * An fd is registered in an epoll set of the source's own, and that set in its dispatcher's. So the caller's number is
 * used only once: the watch is taken away by closing our set, which cannot hit a file that has got the caller's number
 * since. And two sources can watch one fd. A source is in one of its dispatcher's lists from its birth until it is
 * cancelled or freed, whichever comes first. The thread that cancels it owns it meanwhile.
 */
#include "dispatch/source.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/fork.h"
#include "core/own.h"
#include "core/thread_cancel.h"
#include "core/tree.h"

static struct source *source_at(struct ctxfd *n)
{
	return container_of(n, struct source, ctx);
}

/* ---- Under the dispatcher's lock --------------------------------------------------------------------------------- */

int ctxfdi_source_watch(struct source *s)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = s };

	claim(dispatcher_is_locked(s->dispatcher));
	if (s->epoll < 0 || s->dispatcher->epoll < 0) /* signals; or it will be watched when there is a set */
		return 0;
	return epoll_ctl(s->dispatcher->epoll, EPOLL_CTL_ADD, s->epoll, &event) == 0 ? 0 : -errno;
}

/*
 * A mark by which the child of a fork recognises a set that it has inherited: the number may be another file's by then.
 * The mark is the signal for asynchronous I/O, which nobody uses on an epoll set. Sets that the child makes get another
 * mark.
 */
static int mark_of(const struct source *s)
{
	return (int)(1 + s->forks % 64);
}

bool ctxfdi_source_is_lost(const struct source *s)
{
	claim(dispatcher_is_locked(s->dispatcher));
	return s->epoll >= 0 && s->forks != ctxfdi_forks && fcntl(s->epoll, F_GETSIG) != mark_of(s);
}

static void unwatch(struct source *s)
{
	claim(dispatcher_is_locked(s->dispatcher));
	list_remove(&s->link);
	if (s->epoll >= 0 && s->dispatcher->epoll >= 0)
		epoll_ctl(s->dispatcher->epoll, EPOLL_CTL_DEL, s->epoll, NULL);
}

void ctxfdi_source_is_ready(struct source *s)
{
	unwatch(s);
	list_push(&s->dispatcher->ready, &s->link);
}

int ctxfdi_source_cancel(struct source *s)
{
	int cause = atomic_load_explicit(&s->cause, memory_order_relaxed);

	if (load_word(&s->ctx) & (CTX_PENDING | CTX_DONE)) /* it has ended otherwise, and does not count */
		return 0;
	return ctxfdi_dispatcher_end(s->dispatcher, &s->ctx, cause_bits(cause));
}

/* ---- From outside ------------------------------------------------------------------------------------------------ */

void ctxfdi_forget_fd(struct ctxfd *n)
{
	struct source *s = source_at(n);
	struct thread_cancel before = thread_cancel_off();
	bool lost;

	dispatcher_lock(s->dispatcher);
	unwatch(s);
	lost = ctxfdi_source_is_lost(s);
	dispatcher_unlock(s->dispatcher);
	if (!lost)
		close(s->epoll);
	thread_cancel_restore(before);
}

void ctxfdi_source_give_up(struct source *s)
{
	ctxfd_unref(&s->ctx);
}

int ctxfdi_source_begin(struct source *s, const struct ctxfd *parent, enum kind kind)
{
	struct ctxfd_dispatcher *d = s->dispatcher;
	int err;

	ctxfdi_adopt(&s->ctx, parent, kind, INT64_MAX, 0);
	dispatcher_lock(d);
	list_push(&d->sources, &s->link);
	err = ctxfdi_source_watch(s);
	dispatcher_unlock(d);
	if (err)
		ctxfdi_source_give_up(s);
	return err == -EINVAL ? -ENOSPC : err; /* the kernel's limit on ways through epoll sets */
}

int ctxfdi_source_hold(struct source **s, int fd, short events)
{
	struct epoll_event event = { .events = (uint16_t)events };
	int epoll = epoll_create1(EPOLL_CLOEXEC), err;

	if (epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0) {
		*s = malloc(sizeof **s);
		if (*s) {
			**s = (struct source){ .epoll = epoll, .forks = ctxfdi_forks };
			fcntl(epoll, F_SETSIG, mark_of(*s)); /* if this fails, a child does not use the set */
			return 0;
		}
		errno = ENOMEM;
	}
	err = -errno;
	if (epoll >= 0)
		close(epoll);
	return err;
}
