/* SPDX-License-Identifier: MIT */
/*
 * Done, but its fd does not show it yet: between the two steps of a cancel, and between a deadline and the kernel's
 * timer. Whoever learns that the context is done finds its fd readable.
 */
#include "gate.h"

enum look {
	ERR,
	CAUSE,
	WAIT,
	SLEEP,
	DONE_FD,
	POLL,
	READ,
	CANCEL,
	CANCEL_PARENT,
	CANCEL_GRANDPARENT,
	MERGE_WITH,
	LOOKS
};

/* Asks in one of the ways there are whether ctx has ended. */
static void look(enum look how, struct ctxfd *grandparent, struct ctxfd *parent, struct ctxfd *ctx)
{
	struct pollfd none = { .fd = -1 };
	struct ctxfd *merged;

	switch (how) {
	case ERR:
		assert_int_not_equal(ctxfd_err(ctx), 0);
		break;
	case CAUSE:
		assert_int_not_equal(ctxfd_cause(ctx), 0);
		break;
	case WAIT:
		assert_int_not_equal(ctxfd_wait(ctx), 0);
		break;
	case SLEEP:
		assert_int_not_equal(ctxfd_sleep(ctx, 3600 * CTXFD_SEC), 0);
		break;
	case DONE_FD:
		assert_true(ctxfd_done_fd(ctx) >= 0);
		break;
	case POLL:
		assert_int_not_equal(ctxfd_poll(ctx, &none, 1, -1), 0);
		break;
	case READ:
		assert_int_not_equal(ctxfd_read(ctx, -1, NULL, 0), -EBADF);
		break;
	case CANCEL:
		ctxfd_cancel(ctx);
		break;
	case CANCEL_PARENT:
		ctxfd_cancel(parent);
		break;
	case CANCEL_GRANDPARENT:
		ctxfd_cancel(grandparent);
		break;
	case MERGE_WITH:
		merged = ctxfd_merge(ctx, parent);
		assert_int_not_equal(ctxfd_err(merged), 0);
		assert_int_not_equal(ctxfd_err(ctx), 0);
		ctxfd_unref(merged);
		break;
	case LOOKS:
		break;
	}
}

static void whoever_sees_it_done_makes_its_fd_show_it(void **state)
{
	for (enum look how = 0; how < LOOKS; how++)
		for (int timed = 0; timed <= can_stop_timers(); timed++) {
			struct ctxfd *grandparent = child_of(ctxfd_background(), timed),
			             *parent = child_of(grandparent, timed);
			struct ctxfd *ctx = child_of(parent, timed);
			struct stop s;

			stop_at(&s, ctx, -EPIPE, ctx);
			assert_not_readable(s.fd);
			look(how, grandparent, parent, ctx);
			assert_readable(s.fd);
			go_on(&s);
			assert_readable(s.fd);
			assert_ended(ctx, -EPIPE);
			ctxfd_unref(ctx);
			ctxfd_unref(parent);
			ctxfd_unref(grandparent);
		}
}

/* With a deadline soon and an fd whose timer fires an hour after it: made in time, however slow the machine. */
static struct ctxfd *make_late(const struct ctxfd *parent, int *fd)
{
	for (int64_t timeout = 2 * CTXFD_MSEC;; timeout *= 2) {
		struct ctxfd *ctx = ctxfd_with_timeout_cause(parent, timeout, -ENETDOWN);

		late_timers = true;
		*fd = ctxfd_done_fd(ctx);
		assert_true(*fd >= 0);
		late_timers = false;
		if (ctxfd_remaining(ctx) > 0)
			return ctx;
		ctxfd_unref(ctx);
	}
}

/* The same after an expiry that the kernel's timer has not told yet. */
static void whoever_sees_it_expired_makes_its_fd_show_it(void **state)
{
	for (enum look how = 0; how < LOOKS; how++) {
		struct ctxfd *grandparent = child_of(ctxfd_background(), false), *parent = child_of(grandparent, false);
		int fd;
		struct ctxfd *ctx = make_late(parent, &fd);

		while (ctxfd_remaining(ctx) > 0)
			pass_time(ctxfd_remaining(ctx));
		assert_not_readable(fd);
		look(how, grandparent, parent, ctx);
		assert_readable(fd);
		assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
		assert_int_equal(ctxfd_cause(ctx), -ENETDOWN);
		ctxfd_unref(ctx);
		ctxfd_unref(parent);
		ctxfd_unref(grandparent);
	}
}

/* An fd that is first asked for after its deadline has passed. */
static void an_fd_made_after_the_deadline_is_readable_at_once(void **state)
{
	for (int seen = 0; seen < 2; seen++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), CTXFD_MSEC), *child = child_of(ctx, false);

		while (ctxfd_remaining(ctx) > 0)
			pass_time(ctxfd_remaining(ctx));
		if (seen)
			assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
		late_timers = true;
		assert_readable(ctxfd_done_fd(ctx));
		assert_readable(ctxfd_done_fd(child));
		late_timers = false;
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(whoever_sees_it_done_makes_its_fd_show_it),
		cmocka_unit_test(whoever_sees_it_expired_makes_its_fd_show_it),
		cmocka_unit_test(an_fd_made_after_the_deadline_is_readable_at_once),
	};
	return run_all(tests);
}
