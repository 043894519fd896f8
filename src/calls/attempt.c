/* SPDX-License-Identifier: MIT */
/*
 * Trying until it works or the context ends. No locks, no state but the thread's waiter.
 *
 * WHETHER TO POLL FIRST. A thread that had to wait for a descriptor will most likely have to wait for it again. So its
 * next call polls first, which saves a try in vain; if that is wrong, it costs a poll. One call in eight tries first
 * all the same, and if it need not wait, the calls after it try first too. The poll is brief, and a try follows it
 * whether ctx is done or not: by now the number may be that of a file that never polls ready. A longer wait is cut in
 * two by this; so after one, only one call in eight polls first. Only for what comes in: most descriptors take bytes
 * long before they poll writable.
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
	bool eighth;

	if (!is_expected(w, a))
		return false;
	eighth = ++w->expected.calls % 8 == 0;
	return w->expected.long_waits ? eighth : !eighth;
}

static void await_expected(const struct ctxfd *ctx, const struct attempt *a)
{
	bool came = ctxfdi_await_fd_briefly(ctx, a->fd, a->events);

	ctxfdi_own_waiter->expected.long_waits = !came;
}

/* Notes, after a call that tried first and succeeded, whether the next one is to poll first. */
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
