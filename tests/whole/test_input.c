/* SPDX-License-Identifier: MIT */
/* Bad input: NULL and numbers at the ends of their ranges do what the header says, and nothing crashes. */
#include "harness.h"

static const int64_t extremes[] = { INT64_MIN, INT64_MIN + 1, -CTXFD_SEC, -1, 0, 1, INT64_MAX - 1, INT64_MAX };

#define assert_refused(call)                       \
	do {                                       \
		errno = 0;                         \
		assert_null(call);                 \
		assert_int_equal(errno, EINVAL);   \
		assert_false(allocation_failed()); \
	} while (0)

static void no_parent_is_refused(void **state)
{
	const struct ctxfd *root = ctxfd_background();

	fail_allocation(1); /* it does not even try */
	assert_refused(ctxfd_with_cancel(NULL));
	assert_refused(ctxfd_with_deadline(NULL, 1));
	assert_refused(ctxfd_with_deadline(NULL, INT64_MAX));
	assert_refused(ctxfd_with_deadline_cause(NULL, 1, 1));
	assert_refused(ctxfd_with_timeout(NULL, 1));
	assert_refused(ctxfd_with_timeout(NULL, INT64_MIN));
	assert_refused(ctxfd_with_timeout_cause(NULL, 1, 1));
	assert_refused(ctxfd_with_value(NULL, &root, NULL, NULL));
	assert_refused(ctxfd_with_value(root, NULL, NULL, NULL));
	assert_refused(ctxfd_with_value(NULL, NULL, NULL, NULL));
	assert_refused(ctxfd_without_cancel(NULL));
	assert_refused(ctxfd_merge(NULL, root));
	assert_refused(ctxfd_merge(root, NULL));
	assert_refused(ctxfd_merge(NULL, NULL));
}

static void no_context_is_fine_where_it_says_so(void **state)
{
	assert_null(ctxfd_ref(NULL));
	ctxfd_unref(NULL);
	ctxfd_cancel(NULL);
	ctxfd_cancel_cause(NULL, 1);
	ctxfd_close(NULL);
}

static void no_memory_is_told(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	static const char key;
	long before = live_allocations();

	for (int i = 0; i < 6; i++) {
		const struct ctxfd *made;

		fail_allocation(1);
		errno = 0;
		made = i == 0   ? ctxfd_with_cancel(ctx)
		       : i == 1 ? ctxfd_with_deadline(ctx, 1)
		       : i == 2 ? ctxfd_with_timeout(ctx, CTXFD_SEC)
		       : i == 3 ? ctxfd_with_value(ctx, &key, NULL, NULL)
		       : i == 4 ? ctxfd_without_cancel(ctx)
		                : ctxfd_merge(ctx, ctx);
		assert_null(made);
		assert_int_equal(errno, ENOMEM);
		assert_true(allocation_failed());
		fail_allocation(0);
	}
	assert_int_equal(live_allocations(), before);
	ctxfd_cancel(ctx);
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	ctxfd_unref(ctx);
}

/* Every pair of a parent's and a child's deadline: the earlier is in effect, and what is past is done. */
static void any_deadline_will_do(void **state)
{
	for (size_t i = 0; i < COUNT(extremes); i++)
		for (size_t j = 0; j < COUNT(extremes); j++) {
			struct ctxfd *parent = ctxfd_with_deadline(ctxfd_background(), extremes[i]);
			struct ctxfd *ctx = ctxfd_with_deadline_cause(parent, extremes[j], INT_MIN);
			int64_t expected = extremes[i] < extremes[j] ? extremes[i] : extremes[j], told = 0;
			bool past = expected <= 1;

			assert_int_equal(ctxfd_deadline(ctx, &told), expected != INT64_MAX);
			if (expected != INT64_MAX)
				assert_true(told == expected);
			assert_int_equal(ctxfd_err(ctx), past ? -ETIMEDOUT : 0);
			assert_true(past ? ctxfd_remaining(ctx) == 0 : ctxfd_remaining(ctx) > INT64_MAX / 2);
			assert_int_equal(readable(ctxfd_done_fd(ctx)), past);
			assert_int_equal(ctxfd_sleep(ctx, 0), past ? -ETIMEDOUT : 0);
			assert_true(ctxfd_describe(ctx, NULL, 0) > 0);
			ctxfd_close(ctx);
			ctxfd_close(parent);
		}
}

static void any_timeout_will_do(void **state)
{
	for (size_t i = 0; i < COUNT(extremes); i++) {
		int64_t before = now(), told = 0, timeout = extremes[i];
		struct ctxfd *ctx = ctxfd_with_timeout_cause(ctxfd_background(), timeout, INT_MAX);

		if (timeout <= 0) {
			assert_int_equal(ctxfd_err(ctx), -ETIMEDOUT);
			assert_int_equal(ctxfd_cause(ctx), INT_MAX);
			assert_true(ctxfd_remaining(ctx) == 0);
		} else if (timeout > INT64_MAX / 2) {
			assert_false(ctxfd_deadline(ctx, NULL));
			assert_int_equal(ctxfd_err(ctx), 0);
		} else {
			assert_true(ctxfd_deadline(ctx, &told) && told >= before + timeout);
		}
		ctxfd_close(ctx);
	}
	/* The last that does not overflow, give or take the time that this takes. */
	for (int64_t less = CTXFD_SEC; less < 100 * CTXFD_SEC; less *= 10) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), INT64_MAX - now() - less);
		int64_t left = ctxfd_remaining(ctx);

		assert_true(left < INT64_MAX && left > INT64_MAX / 2);
		assert_int_equal(ctxfd_err(ctx), 0);
		assert_int_equal(ctxfd_sleep(ctx, CTXFD_USEC), 0);
		assert_not_readable(ctxfd_done_fd(ctx));
		ctxfd_close(ctx);
	}
}

static void any_cause_will_do(void **state)
{
	static const int causes[] = { INT_MIN, -4096, -1, 1, 64, INT_MAX };

	for (size_t i = 0; i < COUNT(causes); i++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd *late = ctxfd_with_deadline_cause(ctx, 0, causes[i]);

		ctxfd_cancel_cause(ctx, causes[i]);
		assert_int_equal(ctxfd_cause(ctx), causes[i]);
		assert_int_equal(ctxfd_cause(late), causes[i]);
		assert_non_null(ctxfd_strerror(causes[i]));
		ctxfd_unref(late);
		ctxfd_unref(ctx);
	}
}

/* Who casts const away, from what was const at its birth, cancels nothing. */
static void what_is_born_const_cannot_be_cancelled(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	const struct ctxfd *value = ctxfd_with_value(ctx, &ctx, NULL, NULL), *loose = ctxfd_without_cancel(value);
	const struct ctxfd *const contexts[] = { ctxfd_background(), ctxfd_todo(), value, loose };

	for (size_t i = 0; i < COUNT(contexts); i++) {
		ctxfd_cancel((struct ctxfd *)(uintptr_t)contexts[i]);
		assert_int_equal(ctxfd_err(contexts[i]), 0);
	}
	assert_int_equal(ctxfd_err(ctx), 0);
	ctxfd_unref(loose);
	ctxfd_unref(value);
	ctxfd_close(ctx);
}

static void bad_fds_and_no_fds(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct pollfd bad = { .fd = INT_MAX, .events = POLLIN }, ignored = { .fd = INT_MIN, .events = POLLIN };
	struct sockaddr_in addr = { .sin_family = AF_INET };
	char byte = 0;

	assert_int_equal(ctxfd_poll(ctx, NULL, 0, 0), 0);
	assert_int_equal(ctxfd_poll(ctx, NULL, 0, 1), 0);
	assert_int_equal(ctxfd_poll(ctx, &ignored, 1, 1), 0);
	assert_int_equal(ctxfd_poll(ctx, &bad, 1, -1), 1);
	assert_int_equal(bad.revents, POLLNVAL);
	for (int fd = -2; fd < 0; fd++) {
		assert_int_equal(ctxfd_read(ctx, fd, &byte, 1), -EBADF);
		assert_int_equal(ctxfd_read(ctx, fd, NULL, 0), -EBADF);
		assert_int_equal(ctxfd_write(ctx, fd, &byte, 1), -EBADF);
		assert_int_equal(ctxfd_write(ctx, fd, NULL, 0), -EBADF);
		assert_int_equal(ctxfd_recv(ctx, fd, &byte, 1, 0), -EBADF);
		assert_int_equal(ctxfd_send(ctx, fd, &byte, 1, 0), -EBADF);
		assert_int_equal(ctxfd_accept(ctx, fd, NULL, NULL, 0), -EBADF);
		assert_int_equal(ctxfd_connect(ctx, fd, (struct sockaddr *)&addr, sizeof addr), -EBADF);
	}
	ctxfd_close(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_parent_is_refused),
		cmocka_unit_test(no_context_is_fine_where_it_says_so),
		cmocka_unit_test(no_memory_is_told),
		cmocka_unit_test(any_deadline_will_do),
		cmocka_unit_test(any_timeout_will_do),
		cmocka_unit_test(any_cause_will_do),
		cmocka_unit_test(what_is_born_const_cannot_be_cancelled),
		cmocka_unit_test(bad_fds_and_no_fds),
	};
	return run_all(tests);
}
