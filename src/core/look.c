/* SPDX-License-Identifier: MIT */
/*
 * What is seen of a context's end, by looking. All of it is in the word, but the thread that looks has two things to
 * do. The first to look after a deadline writes into the word that it has passed. And between an end and its signal
 * anyone may see DONE and UNSIGNALLED: a thread that does makes the fd readable before it answers. No locks.
 */
#include "core/look.h"

#include "core/clock.h"
#include "core/done.h"
#include "core/futex.h"
#include "core/lock.h"

/* Whether n is still TIMED and its deadline has passed. *w is n's word; it may be read anew here. */
static bool deadline_passed(struct ctxfd *n, uint64_t *w)
{
	if (*w & CTX_TIMED && !(*w & CTX_NEAR)) {
		if (ctxfdi_is_far(n->deadline))
			return false;
		*w = change_flags(n, 0, CTX_NEAR);
	}
	return *w & CTX_TIMED && n->deadline <= ctxfd_now();
}

uint64_t ctxfdi_look(struct ctxfd *n)
{
	uint64_t w = load_word(n), new;

	while (deadline_passed(n, &w)) {
		/*
		 * What a cancel has PENDING keeps the cancel's verdict: it is only made visible early. Below it, too,
		 * all deadlines have passed.
		 */
		new = (w & ~(CTX_TIMED | CTX_PENDING)) | CTX_DONE | (w & CTX_PENDING ? 0 : CTX_EXPIRED);
		if (swap_word(n, &w, new)) {
			w = new;
			if (w & CTX_WAITERS)
				ctxfdi_futex_wake(n, WAKE_DONE);
		}
	}
	if ((w & (CTX_DONE | CTX_UNSIGNALLED)) == (CTX_DONE | CTX_UNSIGNALLED))
		ctxfdi_signal_done(n);
	return w;
}

void (*_Atomic ctxfdi_first_look)(void);

/* Out of line, so that err itself is a few instructions. */
__attribute__((noinline)) static int err_by_clock(const struct ctxfd *ctx, uint64_t w)
{
	if ((w & (CTX_TIMED | CTX_NEAR)) == CTX_TIMED && ctxfdi_is_far(ctx->deadline))
		return 0;
	w = ctxfdi_look(node_of(ctx));
	return w & CTX_DONE ? err_of(w) : 0;
}

int ctxfd_err(const struct ctxfd *ctx)
{
	uint64_t w;

	look_first();
	w = load_word(ctx);
	if (w & CTX_DONE && !(w & CTX_UNSIGNALLED))
		return err_of(w);
	if (!(w & (CTX_DONE | CTX_TIMED | CTX_VALUE)))
		return 0;
	return err_by_clock(ctx, w);
}

int ctxfd_cause(const struct ctxfd *ctx)
{
	uint64_t w;
	int cause;

	look_first();
	w = ctxfdi_look(node_of(ctx));
	cause = (int)(uint32_t)(w >> CAUSE_SHIFT);
	if (!(w & CTX_DONE))
		return 0;
	return cause ? cause : err_of(w);
}

/*
 * The deadline of a graced context is known once the parent of the grace has ended. Of several graces above, only the
 * nearest counts, since nothing above ends that one.
 */
int64_t ctxfdi_deadline_of(const struct ctxfd *ctx)
{
	struct ctxfd *n = node_of(ctx);
	int64_t fixed = n->deadline, known;

	if (!n->graced)
		return fixed;
	while (!ctxfdi_kinds[n->kind].deadline)
		n = node_of(n->parent);
	known = ctxfdi_kinds[n->kind].deadline(n);
	return known < fixed ? known : fixed;
}

bool ctxfd_deadline(const struct ctxfd *ctx, int64_t *deadline)
{
	int64_t at = ctxfdi_deadline_of(ctx);

	if (at == INT64_MAX)
		return false;
	if (deadline)
		*deadline = at;
	return true;
}

int64_t ctxfd_remaining(const struct ctxfd *ctx)
{
	int64_t at = ctxfdi_deadline_of(ctx), now;

	if (at == INT64_MAX)
		return INT64_MAX;
	now = ctxfd_now();
	return at > now ? at - now : 0;
}

int ctxfd_done_fd(const struct ctxfd *ctx)
{
	/* What background, todo and without_cancel share. */
	static struct ctxfd never = { .word = CTX_NEVER, .fd = -1, .deadline = INT64_MAX };
	struct ctxfd *n = node_of(ctx);
	int saved = errno, fd;

	look_first();
	if (load_word(n) & CTX_NEVER)
		n = &never;
	fd = ctxfdi_published_fd(n);
	if (fd >= 0 && n != &never) {
		if (!(load_word(n) & CTX_HAS_FD))
			change_flags(n, 0, CTX_HAS_FD | CTX_UNSIGNALLED);
		ctxfdi_look(n);
	}
	errno = saved;
	return fd;
}
