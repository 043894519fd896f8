/* SPDX-License-Identifier: MIT */
/*
 * What the tests of ctxfd_uring.h share: each runs once on every kind of ring that the kernel grants.
 *
 * A test finds `ring` made, with 64 entries (remake_ring makes another one), and need not close it. Where there is no
 * io_uring the program ends with exit code 77 and says why.
 */
#ifndef TEST_URING_H
#define TEST_URING_H

#include "harness.h"

#include <liburing.h>

#include "ctxfd_uring.h"

/* What liburing 2.3 does not have. */
enum { OP_FUTEX_WAIT = 51 };

struct ring_kind {
	const char *name;
	unsigned flags;
};

static const struct ring_kind ring_kinds[] = {
	{ "default", 0 },
	{ "COOP_TASKRUN", IORING_SETUP_COOP_TASKRUN },
	{ "SINGLE_ISSUER", IORING_SETUP_SINGLE_ISSUER },
	{ "SINGLE_ISSUER|DEFER_TASKRUN", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN },
	{ "SQPOLL", IORING_SETUP_SQPOLL },
};

static struct io_uring ring;
static const struct ring_kind *ring_kind;

static inline int make_ring_of(unsigned flags, unsigned entries, unsigned cq_entries)
{
	struct io_uring_params p = { .flags = flags | (cq_entries ? IORING_SETUP_CQSIZE : 0),
		                     .cq_entries = cq_entries };

	return io_uring_queue_init_params(entries, &ring, &p);
}

/* Another ring of the test's kind; cq_entries 0 means twice as many. */
static inline void remake_ring(unsigned extra_flags, unsigned entries, unsigned cq_entries)
{
	io_uring_queue_exit(&ring);
	assert_int_equal(make_ring_of(ring_kind->flags | extra_flags, entries, cq_entries), 0);
}

static inline int ring_set_up(void **state)
{
	ring_kind = *state;
	return make_ring_of(ring_kind->flags, 64, 0);
}

static inline int ring_tear_down(void **state)
{
	(void)state;
	io_uring_queue_exit(&ring);
	return 0;
}

static inline bool ring_supports(int opcode)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
	bool yes = probe && io_uring_opcode_supported(probe, opcode);

	io_uring_free_probe(probe);
	return yes;
}

/* Whether the kernel is one of before 5.19, as the ring tells it; ctxfd_uring_open says -EOPNOTSUPP there. */
static inline bool too_old_for_scopes(void)
{
	return !(ring.features & IORING_FEAT_CQE_SKIP) || !ring_supports(IORING_OP_SOCKET);
}

/* Says so, and returns what main then returns; 0 if it is not. */
static inline int no_scopes(void)
{
	if (!too_old_for_scopes())
		return 0;
	printf("io_uring is too old here: Linux 5.19 is needed\n");
	return 77;
}

/* Prints why there is no io_uring here, and returns what main then returns. */
static inline int no_uring(int err)
{
	char disabled[8] = "?";
	int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t n = read(fd, disabled, sizeof disabled - 1);

		close(fd);
		disabled[n > 0 ? n - 1 : 0] = 0;
	}
	printf("io_uring is not to be had: %s (kernel.io_uring_disabled=%s)\n", strerror(-err), disabled);
	return 77;
}

/* Under valgrind (3.19) no other thread runs while one sleeps in io_uring_enter. */
static inline void need_threads(void)
{
	const char *preload = getenv("LD_PRELOAD");

	if (preload && strstr(preload, "valgrind"))
		skip_test("valgrind stops all threads while one sleeps in io_uring_enter");
}

#define run_ring_tests(tests) run_ring_tests_of(__FILE__, tests, COUNT(tests))

static inline int run_ring_tests_of(const char *file, const struct CMUnitTest *tests, size_t n)
{
	static struct CMUnitTest all[COUNT(ring_kinds) * 64];
	static char names[COUNT(all)][100];
	size_t used = 0;

	require(n <= 64);
	for (size_t k = 0; k < COUNT(ring_kinds); k++) {
		int err = make_ring_of(ring_kinds[k].flags, 64, 0);

		if (err && ring_kinds[k].flags == 0)
			return no_uring(err);
		if (err) {
			printf("# skipped: rings of kind %s: %s\n", ring_kinds[k].name, strerror(-err));
			continue;
		}
		err = no_scopes();
		io_uring_queue_exit(&ring);
		if (err)
			return err;
		for (size_t i = 0; i < n; i++, used++) {
			snprintf(names[used], sizeof names[used], "%s (%s)", tests[i].name, ring_kinds[k].name);
			all[used] = (struct CMUnitTest){ names[used], tests[i].test_func, ring_set_up, ring_tear_down,
				                         (void *)(uintptr_t)&ring_kinds[k] };
		}
	}
	return harness_run(file, all, used, true);
}

/* A small generator of our own, so that a seed means the same everywhere. */
static uint64_t seed;

static inline unsigned dice(unsigned n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % n;
}

/*
 * The part of n rounds that this kind of ring does: all kinds alike, but for SQPOLL, whose thread must get a turn of
 * its own in each round and competes for the processors.
 */
static inline int share(int n)
{
	return rounds(ring_kind->flags & IORING_SETUP_SQPOLL ? n / 100 : n / 4);
}

/*
 * ---- Operations ---------------------------------------------------------------------------------------------------
 */

/* An operation and what became of it. */
struct tracked {
	struct ctxfd_uring_op op;
	int more, last; /* how many completions of each kind it had */
	int first;      /* the first result; a zero-copy send has another when its buffer is free */
	int res;        /* the latest */
	unsigned flags;
};

static inline struct tracked *tracked_of(struct ctxfd_uring_op *op)
{
	return (struct tracked *)((char *)op - offsetof(struct tracked, op));
}

static inline struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring))) {
		assert_true(io_uring_submit(&ring) >= 0);
		io_uring_sqring_wait(&ring);
	}
	return sqe;
}

static inline void open_scope(struct ctxfd_uring_scope *scope, const struct ctxfd *ctx)
{
	memset(scope, 0xa5, sizeof *scope);
	assert_int_equal(ctxfd_uring_open(scope, &ring, ctx), 0);
}

/* Starts what was prepared, as a new operation; returns what ctxfd_uring_start does. */
static inline int try_start(struct ctxfd_uring_scope *scope, struct tracked *t, struct io_uring_sqe *sqe)
{
	memset(t, 0xa5, sizeof *t);
	t->more = t->last = 0;
	return ctxfd_uring_start(scope, &t->op, sqe);
}

#define start(scope, t, sqe) assert_int_equal(try_start(scope, t, sqe), 0)

/* Keeps the books of a completion. */
static inline void note(int what, struct ctxfd_uring_op *op)
{
	struct tracked *t = tracked_of(op);

	assert_int_equal(t->last, 0);
	if (!t->more)
		t->first = op->res;
	t->more += what == CTXFD_URING_MORE;
	t->last += what == CTXFD_URING_LAST;
	t->res = op->res;
	t->flags = op->flags;
}

/* Takes all CQEs that are there. Returns how many were the program's own. */
static inline int take_all(void)
{
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	int others = 0;

	while (io_uring_peek_cqe(&ring, &cqe) == 0) {
		int what = ctxfd_uring_complete(cqe, &op);

		if (what == CTXFD_URING_MORE || what == CTXFD_URING_LAST)
			note(what, op);
		others += what == CTXFD_URING_OTHER;
		io_uring_cqe_seen(&ring, cqe);
	}
	return others;
}

/* One turn of a program's loop: submits, waits for a CQE, and takes all. */
static inline int turn(void)
{
	int ret;

	do
		ret = io_uring_submit_and_wait(&ring, 1);
	while (ret == -EINTR);
	assert_true(ret >= 0);
	return take_all();
}

/* Turns it until so many completions of the program's own have come, and no more. */
static inline void turn_until(int others)
{
	while (others > 0)
		others -= turn();
	assert_int_equal(others, 0);
}

/* Turns the loop until the operation has ended, and returns its result. */
static inline int finish(struct tracked *t)
{
	while (!t->last)
		turn();
	return t->res;
}

/* Submits, and gives the kernel its chance to run the ring's work; takes nothing out of the queue. */
static inline void submit_and_run(void)
{
	assert_true(io_uring_submit(&ring) >= 0);
	if (ring_kind->flags & IORING_SETUP_SQPOLL)
		wait_until(io_uring_sq_ready(&ring) == 0);
	assert_true(io_uring_get_events(&ring) >= 0);
}

/* Closes the scope; the ring must hold nothing of it, so its storage can be scribbled on. */
static inline void close_scope(struct ctxfd_uring_scope *scope)
{
	assert_int_equal(ctxfd_uring_close(scope, NULL), 0);
	memset(scope, 0xa5, sizeof *scope);
}

/* False: somebody, as SQPOLL's thread, has the ring's lock, and nothing is told. */
static inline bool read_armed_polls(int *n)
{
	char path[64], line[256];
	bool told = false, polls = false;
	FILE *f;

	*n = 0;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ring.ring_fd);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		if (line[0] != ' ')
			polls = !strncmp(line, "PollList:", 9);
		else
			*n += polls;
		told |= polls;
	}
	fclose(f);
	return told;
}

/* How many polls are armed in the ring, by its own account. */
static inline int armed_polls(void)
{
	int n;

	wait_until(read_armed_polls(&n));
	return n;
}

static inline void prep_recv_from(struct io_uring_sqe *sqe, int fd, void *buf, size_t size)
{
	memset(buf, 0, size); /* valgrind does not know that the kernel will write here */
	io_uring_prep_recv(sqe, fd, buf, size, 0);
}

#endif
