/* SPDX-License-Identifier: MIT */
/*
 * Trying until it works or the context ends. No locks, no state but the thread's waiter.
 *
 * WHETHER TO POLL FIRST. A thread that had to wait for a descriptor, and then got what it wanted, most likely has to
 * wait for it the next time too. So it polls first then, which saves a call that would get nothing. If that is wrong it
 * costs a poll. One call in eight tries first, and if it need not wait those that follow do the same. The poll is
 * brief, and then comes a try, whether ctx is done or not: what has the descriptor's number by now may be something
 * that never polls ready. A wait that is longer would be cut in two by that; so where the last one was, one call in
 * eight polls first. Only for what comes in: most descriptors take bytes long before they poll writable.
 */
#include "calls/attempt.h"

#include <pthread.h>

#include "calls/poll.h"
#include "calls/waiter.h"

static bool is_expected(const struct waiter *w, const struct attempt *a)
{
	return w && w->expected.fd == a->fd && w->expected.events == a->events;
}

static bool expects_to_wait(const struct attempt *a)
{
	struct waiter *w = ctxfdi_own_waiter;

	return is_expected(w, a) && (++w->expected.calls % 8 == 0) == w->expected.long_waits;
}

static void await_expected(const struct ctxfd *ctx, const struct attempt *a)
{
	bool came = ctxfdi_await_fd_briefly(ctx, a->fd, a->events);

	ctxfdi_own_waiter->expected.long_waits = !came;
}

/* After a call that tried first, and succeeded. */
static void expect(const struct attempt *a, bool waited)
{
	struct waiter *w = ctxfdi_own_waiter;

	if (w && waited != is_expected(w, a))
		w->expected = (struct expected){ .fd = waited ? a->fd : -1, .events = a->events };
}

/*
 * After a try that would have to wait: returns when the next one is due. Some descriptors poll ready and still take
 * nothing. So ctx is asked whatever poll says, and after a few tries that got nothing the next one comes later. *vain
 * counts them, from 0.
 */
static int await_next(const struct ctxfd *ctx, const struct attempt *a, int *vain)
{
	int err = *vain < 8 ? ctxfd_err(ctx) : ctxfd_sleep(ctx, CTXFD_MSEC);

	*vain += *vain < 8;
	return err ? err : ctxfdi_await_fd(ctx, a->fd, a->events);
}

ssize_t ctxfdi_attempt(const struct ctxfd *ctx, const struct attempt *a)
{
	int saved = errno, err, vain = 0;
	bool expected;
	ssize_t n;

	pthread_testcancel();
	n = err = ctxfd_err(ctx);
	expected = !err && a->polls_first && expects_to_wait(a);
	if (expected)
		await_expected(ctx, a);
	while (!err) {
		n = a->now(a->call);
		if (n == -EINTR)
			n = err = ctxfd_err(ctx);
		else if (n != -EAGAIN || a->only_once)
			break;
		else
			n = err = await_next(ctx, a, &vain);
	}
	if (n >= 0 && a->polls_first && !expected)
		expect(a, vain);
	errno = saved;
	return n;
}
