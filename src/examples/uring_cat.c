/* SPDX-License-Identifier: MIT */
/*
 * uring_cat [-t MILLISECONDS] [FILE...]: cat that gives up after a time, even while it reads from a terminal or writes
 * to a full pipe. Its exit code is then 124, as with timeout(1).
 *
 * The program has no loop. Each operation is one call under the context of the whole run.
 */
#define _GNU_SOURCE
#include <ctxfd_uring.h>

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct io_uring ring;

/* Offset -1: at the current position of the descriptor. */
static int read_some(const struct ctxfd *ctx, int fd, char *buf, unsigned size)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_read(sqe, fd, buf, size, (uint64_t)-1);
	return ctxfd_uring_call(ctx, &ring, sqe);
}

static int write_some(const struct ctxfd *ctx, int fd, const char *buf, unsigned size)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_write(sqe, fd, buf, size, (uint64_t)-1);
	return ctxfd_uring_call(ctx, &ring, sqe);
}

/* Copies fd to standard output until its end. Returns 0 or a negative errno. */
static int copy(const struct ctxfd *ctx, int fd)
{
	static char buf[65536];
	int got, put;

	while ((got = read_some(ctx, fd, buf, sizeof(buf))) > 0)
		for (int done = 0; done < got; done += put) {
			put = write_some(ctx, STDOUT_FILENO, buf + done, (unsigned)(got - done));
			if (put < 0)
				return put;
		}
	return got;
}

/* Reports the error and returns main's exit code. */
static int fail(const char *what, int err)
{
	fprintf(stderr, "uring_cat: %s: %s\n", what, ctxfd_strerror(err));
	return err == -ETIMEDOUT ? 124 : 1;
}

int main(int argc, char **argv)
{
	int64_t timeout = INT64_MAX;
	CTXFD_SCOPED struct ctxfd *ctx = NULL;
	int option, err;

	while ((option = getopt(argc, argv, "t:")) != -1) {
		if (option != 't') {
			fprintf(stderr, "Usage: uring_cat [-t MILLISECONDS] [FILE...]\n");
			return 2;
		}
		timeout = atoi(optarg) * CTXFD_MSEC;
	}
	err = io_uring_queue_init(4, &ring, 0);
	if (err)
		return fail("io_uring", err);
	ctx = ctxfd_with_timeout(ctxfd_background(), timeout);
	if (!ctx)
		return fail("context", -errno);
	if (optind == argc && (err = copy(ctx, STDIN_FILENO)) < 0)
		return fail("standard input", err);
	for (; optind < argc; optind++) {
		int fd = open(argv[optind], O_RDONLY | O_CLOEXEC);

		err = fd < 0 ? -errno : copy(ctx, fd);
		if (fd >= 0)
			close(fd);
		if (err < 0)
			return fail(argv[optind], err);
	}
	io_uring_queue_exit(&ring);
	return 0;
}
