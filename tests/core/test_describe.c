/* SPDX-License-Identifier: MIT */
/* Contexts and errors in words. */
#include "harness.h"

#include <signal.h>

#define ASSERT_DESCRIBED(ctx, ...) assert_described(__LINE__, ctx, __VA_ARGS__)

/* That ctx describes itself so, in a buffer of every size. */
__attribute__((format(printf, 3, 4))) static void assert_described(int line, const struct ctxfd *ctx,
                                                                   const char *format, ...)
{
	char expected[400], got[400], part[400];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(expected, sizeof expected, format, args);
	va_end(args);
	memset(got, '#', sizeof got);
	assert_int_equal(ctxfd_describe(ctx, got, sizeof got), length);
	if (strcmp(got, expected) != 0)
		harness_fail(__FILE__, line, "described as %s", got);
	assert_int_equal(got[length + 1], '#');
	for (size_t size = 0; size <= (size_t)length + 1; size++) {
		memset(got, '#', sizeof got);
		memset(part, '#', sizeof part);
		snprintf(part, size, "%s", expected);
		assert_int_equal(ctxfd_describe(ctx, got, size), length);
		assert_memory_equal(got, part, sizeof part);
	}
	assert_int_equal(ctxfd_describe(ctx, NULL, 0), length);
}

static void each_kind_has_its_name(void **state)
{
	static const char key;
	struct ctxfd *a = ctxfd_with_cancel(ctxfd_background()), *b = ctxfd_with_deadline(a, INT64_C(1234567890123));
	struct ctxfd *c = ctxfd_with_timeout(ctxfd_todo(), 3600 * CTXFD_SEC), *past = ctxfd_with_deadline(a, INT64_MIN);
	const struct ctxfd *value = ctxfd_with_value(b, &key, NULL, NULL), *loose = ctxfd_without_cancel(value);
	struct ctxfd *merged = ctxfd_merge(loose, c);
	int64_t at;

	assert_true(ctxfd_deadline(c, &at));
	ASSERT_DESCRIBED(ctxfd_background(), "background");
	ASSERT_DESCRIBED(ctxfd_todo(), "todo");
	ASSERT_DESCRIBED(a, "background.with_cancel");
	ASSERT_DESCRIBED(b, "background.with_cancel.with_deadline(1234567890123)");
	ASSERT_DESCRIBED(past, "background.with_cancel.with_deadline(%" PRId64 ")", INT64_MIN);
	ASSERT_DESCRIBED(c, "todo.with_deadline(%" PRId64 ")", at);
	ASSERT_DESCRIBED(value, "background.with_cancel.with_deadline(1234567890123).with_value(%p)",
	                 (const void *)&key);
	ASSERT_DESCRIBED(loose, "background.with_cancel.with_deadline(1234567890123).with_value(%p).without_cancel",
	                 (const void *)&key);
	ASSERT_DESCRIBED(merged,
	                 "background.with_cancel.with_deadline(1234567890123).with_value(%p).without_cancel.merge",
	                 (const void *)&key);
	/* It tells where a context comes from, not how it fares. */
	ctxfd_cancel(a);
	ASSERT_DESCRIBED(b, "background.with_cancel.with_deadline(1234567890123)");
	ctxfd_unref(merged);
	ctxfd_unref(loose);
	ctxfd_unref(value);
	ctxfd_unref(past);
	ctxfd_unref(c);
	ctxfd_unref(b);
	ctxfd_unref(a);
}

static void a_long_chain_is_told_whole(void **state)
{
	enum { DEPTH = 10000 };
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *next;
	size_t length = strlen("background") + DEPTH * strlen(".with_cancel"), at = strlen("background");
	char *text = malloc(length + 1);

	for (int i = 1; i < DEPTH; i++) {
		next = ctxfd_with_cancel(ctx);
		ctxfd_unref(ctx);
		ctx = next;
	}
	assert_non_null(text);
	assert_int_equal(ctxfd_describe(ctx, text, length + 1), length);
	assert_int_equal(strlen(text), length);
	assert_memory_equal(text, "background", at);
	for (; at < length; at += strlen(".with_cancel"))
		assert_memory_equal(text + at, ".with_cancel", strlen(".with_cancel"));
	free(text);
	ctxfd_unref(ctx);
}

static void errors_have_words(void **state)
{
	assert_string_equal(ctxfd_strerror(0), "no error");
	assert_string_equal(ctxfd_strerror(-ECANCELED), "context canceled");
	assert_string_equal(ctxfd_strerror(-ETIMEDOUT), "context deadline exceeded");
	assert_string_equal(ctxfd_strerror(-ENOENT), strerror(ENOENT));
	assert_string_equal(ctxfd_strerror(-ECONNREFUSED), strerror(ECONNREFUSED));
	assert_string_equal(ctxfd_strerror(SIGINT), strsignal(SIGINT));
	assert_string_equal(ctxfd_strerror(SIGTERM), strsignal(SIGTERM));
}

static void errors_of_any_number_have_words(void **state)
{
	static const int odd[] = { INT_MIN, INT_MIN + 1, INT_MAX, -12345, 12345, -1, 1 };
	char expected[100];

	for (size_t i = 0; i < COUNT(odd); i++) {
		assert_non_null(ctxfd_strerror(odd[i]));
		assert_true(strlen(ctxfd_strerror(odd[i])) > 0);
	}
	/* Unknown ones are put together in a buffer that the next call uses again. */
	snprintf(expected, sizeof expected, "%s", strerror(12345));
	assert_string_equal(ctxfd_strerror(-12345), expected);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_has_its_name),
		cmocka_unit_test(a_long_chain_is_told_whole),
		cmocka_unit_test(errors_have_words),
		cmocka_unit_test(errors_of_any_number_have_words),
	};
	return run_all(tests);
}
