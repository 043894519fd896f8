/* SPDX-License-Identifier: MIT */
/* What was consumed beats an end that comes at the same time: no byte is lost, and none told of that was not given. */
#include "kinds.h"
#include "race.h"

#define FAR (3600 * CTXFD_SEC)

struct transfer {
	struct meeting start, end;
	struct ctxfd *ctx;
	int fd, rounds;
	ssize_t result;
	char buf[8];
};

static void *keep_reading(void *arg)
{
	struct transfer *t = arg;

	for (int r = 0; r < t->rounds; r++) {
		meet(&t->start, 2);
		dither((unsigned)(r * 37) % 3000);
		t->result = ctxfd_read(t->ctx, t->fd, t->buf, sizeof t->buf);
		meet(&t->end, 2);
	}
	return NULL;
}

/* In each round eight bytes come and the context ends, in either order. They are read or still there. */
static void race_a_read(const struct kind *kind, bool blocking)
{
	struct transfer t = { .rounds = rounds(400) };
	struct thread *thread;
	int fds[2];

	make_kind(kind, fds, blocking);
	t.fd = fds[0];
	thread = thread_start(keep_reading, &t);
	for (int r = 0; r < t.rounds; r++) {
		t.ctx = ctxfd_with_timeout(ctxfd_background(), r % 5 ? FAR : INT64_MAX);
		meet(&t.start, 2);
		dither((unsigned)(r * 61) % 5000);
		if (r % 2)
			ctxfd_cancel(t.ctx);
		assert_int_equal(write(fds[1], &eight, sizeof eight), sizeof eight);
		if (r % 2 == 0)
			ctxfd_cancel(t.ctx);
		meet(&t.end, 2);
		if (t.result == -ECANCELED) {
			wait_readable(fds[0]);
			assert_int_equal(drain(fds[0]), sizeof eight);
		} else {
			assert_int_equal(t.result, sizeof eight);
			assert_memory_equal(t.buf, &eight, sizeof eight);
			assert_not_readable(fds[0]);
		}
		ctxfd_unref(t.ctx);
	}
	thread_join(thread);
	close_kind(kind, fds);
}

static void no_byte_is_lost_when_a_read_ends(void **state)
{
	with_all_kinds(race_a_read);
}

struct stream {
	struct ctxfd *ctx;
	int fd;
	size_t size;
	atomic_size_t given;
};

/* Writes until its context ends. */
static void *keep_writing(void *arg)
{
	static const char zeros[20000];
	struct stream *s = arg;
	ssize_t n;

	while ((n = ctxfd_write(s->ctx, s->fd, zeros, s->size)) > 0)
		s->given += (size_t)n;
	require(n == -ECANCELED);
	return NULL;
}

/* What the writer was told that it gave is what arrives, to the byte, wherever the end caught it. */
static void race_a_write(const struct kind *kind, bool blocking)
{
	if (kind->one_fd || (kind->no_nowait && blocking))
		return;
	for (int r = 0; r < rounds(60); r++) {
		struct stream s = { .ctx = ctxfd_with_cancel(ctxfd_background()), .size = r % 2 ? 20000 : 100 };
		struct thread *thread;
		int fds[2];
		size_t taken = 0;

		make_kind(kind, fds, blocking);
		s.fd = fds[1];
		thread = thread_start(keep_writing, &s);
		for (int i = 0; i < r % 50; i++)
			taken += take(fds[0]);
		ctxfd_cancel(s.ctx);
		thread_join(thread);
		while (taken < s.given) {
			wait_readable(fds[0]);
			taken += drain(fds[0]);
		}
		assert_int_equal(taken, s.given);
		assert_not_readable(fds[0]);
		close_kind(kind, fds);
		ctxfd_unref(s.ctx);
	}
}

static void no_byte_is_untold_when_a_write_ends(void **state)
{
	with_all_kinds(race_a_write);
}

/* Several threads share one descriptor in blocking mode: only one gets the data, and the context reaches the others. */
enum { READERS = 4 };

struct sharing {
	const struct ctxfd *ctx;
	int fd;
	atomic_int got;
};

static void *share(void *arg)
{
	struct sharing *s = arg;
	char buf[8];
	ssize_t n = ctxfd_read(s->ctx, s->fd, buf, sizeof buf);

	require(n == -ECANCELED || n == sizeof buf);
	if (n > 0)
		s->got++;
	return NULL;
}

static void share_a_read(const struct kind *kind, bool blocking)
{
	if (kind->no_nowait)
		return; /* the header says so */
	for (int r = 0; r < 30; r++) {
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct sharing s = { .ctx = ctx };
		struct thread *threads[READERS];
		int fds[2];

		make_kind(kind, fds, blocking);
		s.fd = fds[0];
		for (int i = 0; i < READERS; i++)
			threads[i] = thread_start(share, &s);
		if (r % 10 == 0)
			for (int i = 0; i < READERS; i++)
				thread_wait_asleep(threads[i]);
		assert_int_equal(write(fds[1], &eight, sizeof eight), sizeof eight);
		wait_until(s.got == 1);
		ctxfd_cancel(ctx);
		for (int i = 0; i < READERS; i++)
			thread_join(threads[i]);
		assert_int_equal(s.got, 1);
		close_kind(kind, fds);
		ctxfd_unref(ctx);
	}
}

static void readers_share_a_descriptor(void **state)
{
	with_all_kinds(share_a_read);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_byte_is_lost_when_a_read_ends),
		cmocka_unit_test(no_byte_is_untold_when_a_write_ends),
		cmocka_unit_test(readers_share_a_descriptor),
	};
	return run_all(tests);
}
