/* SPDX-License-Identifier: MIT */
/*
 * Contexts that end once nobody has touched them for some time; with.c makes them.
 *
 * A touch only notes the time, in `touched`. The alarm is set anew when it rings, for the end as the last touch has it.
 *
 * WHO WINS, touch or timeout? Both change `touched` by compare-and-swap. The dispatcher changes it from the time that
 * it has judged by to IDLE_OVER, and then ends the context. A touch that comes first makes this swap fail, and counts.
 * A touch that comes later finds IDLE_OVER, and waits until the end is visible. So if a context is still live after a
 * touch, the touch has counted. `touched` orders nothing else, so it is relaxed throughout.
 *
 * The alarm, and the dispatcher's use of a context that may be freed at any time, are as a source's (source.c): who
 * frees the context takes the alarm away under the dispatcher's lock, and who ends it owns it meanwhile.
 */
#include "dispatch/idle.h"

#include <stdlib.h>

#include "core/cancel.h"
#include "core/tree.h"
#include "core/wait.h"

/* In `touched`: time is up. As the latest time of all it ends the loop of every later touch. */
#define IDLE_OVER INT64_MAX

static struct idle *idle_of(struct ctxfd *n)
{
	return container_of(n, struct idle, ctx);
}

static uint64_t idle_verdict(const struct idle *i)
{
	return cause_bits(i->cause) | CTX_EXPIRED;
}

/*
 * When time is up. Does not overflow: with.c has checked the constructor's sum, and later ones are asked for when the
 * alarm has rung, so the clock has come past `timeout`.
 */
static int64_t idle_end(const struct idle *i, int64_t touched)
{
	return touched + i->timeout;
}

static void set_idle_alarm(struct idle *i, int64_t at)
{
	claim(dispatcher_is_locked(i->dispatcher));
	ctxfdi_heap_add(&i->dispatcher->alarms, &i->alarm, at);
}

struct ctxfd *ctxfdi_idle_new(const struct ctxfd *parent, struct ctxfd_dispatcher *d, int64_t now, int64_t timeout,
                              int cause)
{
	struct idle *i = malloc(sizeof *i);

	if (!i)
		return NULL;
	i->dispatcher = d;
	i->alarm = (struct heap_node){ .kind = KIND_IDLE };
	i->timeout = timeout;
	i->cause = cause;
	atomic_init(&i->touched, d ? now : IDLE_OVER);
	if (!d) {
		ctxfdi_adopt(&i->ctx, parent, KIND_IDLE, INT64_MAX, 0);
		ctxfdi_cancel(&i->ctx, idle_verdict(i));
	} else if (ctxfdi_adopt(&i->ctx, parent, KIND_IDLE, INT64_MAX, 0)) {
		dispatcher_lock(d);
		set_idle_alarm(i, idle_end(i, now));
		ctxfdi_dispatcher_arm(d);
		dispatcher_unlock(d);
	}
	return &i->ctx;
}

int ctxfdi_idle_rings(struct heap_node *alarm, int64_t now)
{
	struct idle *i = container_of(alarm, struct idle, alarm);
	int64_t touched = atomic_load_explicit(&i->touched, memory_order_relaxed);

	do {
		if (load_word(&i->ctx) & (CTX_PENDING | CTX_DONE))
			return 0;
		if (idle_end(i, touched) > now) {
			set_idle_alarm(i, idle_end(i, touched));
			return 0;
		}
	} while (!atomic_compare_exchange_weak_explicit(&i->touched, &touched, IDLE_OVER, memory_order_relaxed,
	                                                memory_order_relaxed));
	return ctxfdi_dispatcher_end(i->dispatcher, &i->ctx, idle_verdict(i));
}

void ctxfdi_forget_idle(struct ctxfd *n)
{
	struct idle *i = idle_of(n);

	if (!i->dispatcher)
		return;
	dispatcher_lock(i->dispatcher);
	ctxfdi_heap_remove(&i->dispatcher->alarms, &i->alarm);
	dispatcher_unlock(i->dispatcher);
}

void ctxfd_touch(struct ctxfd *ctx)
{
	int64_t now, touched;
	struct idle *i;

	if (!ctx || ctx->kind != KIND_IDLE)
		return;
	i = idle_of(ctx);
	now = ctxfd_now();
	touched = atomic_load_explicit(&i->touched, memory_order_relaxed);
	while (touched < now) /* else another thread's touch is later, and serves both */
		if (atomic_compare_exchange_weak_explicit(&i->touched, &touched, now, memory_order_relaxed,
		                                          memory_order_relaxed))
			return;
	if (touched == IDLE_OVER)
		ctxfdi_await_done(ctx, INT64_MAX);
}
