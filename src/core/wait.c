/* SPDX-License-Identifier: MIT */
/*
 * Sleeping until a context is done or a time has come. No fd, no locks: sleepers set WAITERS in the word and sleep on
 * its low half; whoever makes it DONE finds the flag in the same compare-and-swap and wakes them. A deadline needs no
 * waker: it is the sleep's own limit.
 */
#include "core/wait.h"

#include "core/futex.h"
#include "core/lock.h"
#include "core/look.h"

/*
 * By how much the kernel lets a sleep run over: the default of a thread's timer slack. So a sleep ends that much too
 * early at first, and a second one takes the rest.
 */
#define SLACK (50 * CTXFD_USEC)

bool ctxfdi_prepare_sleep(struct ctxfd *n, int64_t until, struct sleep *s)
{
	int64_t limit = n->deadline < until ? n->deadline : until;

	for (;;) {
		uint64_t w = ctxfdi_look(n);
		int64_t now = limit == INT64_MAX ? 0 : ctxfd_now();

		s->word = w | CTX_WAITERS;
		if (w & CTX_DONE || until <= now)
			return false;
		s->limit = limit != INT64_MAX && limit - SLACK > now ? limit - SLACK : limit;
		/*
		 * Acquire-release pairs with the compare-and-swap that makes n DONE: it sees WAITERS, or we see DONE.
		 */
		if (w & CTX_WAITERS || swap_word(n, &w, w | CTX_WAITERS))
			return true;
	}
}

uint64_t ctxfdi_await_done(struct ctxfd *n, int64_t until)
{
	struct sleep s;

	while (ctxfdi_prepare_sleep(n, until, &s))
		ctxfdi_futex_sleep(n, s.word, s.limit, WAKE_DONE);
	return s.word;
}

int ctxfd_wait(const struct ctxfd *ctx)
{
	look_first();
	return err_of(ctxfdi_await_done(node_of(ctx), INT64_MAX));
}

int ctxfd_sleep(const struct ctxfd *ctx, int64_t ns)
{
	int64_t now = ctxfd_now();
	uint64_t w;

	look_first();
	w = ctxfdi_await_done(node_of(ctx), ns > INT64_MAX - now ? INT64_MAX : ns < 0 ? now : now + ns);
	return w & CTX_DONE ? err_of(w) : 0;
}
