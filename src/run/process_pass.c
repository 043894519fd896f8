/* SPDX-License-Identifier: MIT */
/*
 * Contexts from process to process. The process that passes one on has a pipe, whose end for reading the child gets. At
 * the context's end it writes a byte and closes the pipe. Closing alone would do where nobody forks: a child of ours
 * that has not called exec has our end for writing, too, and as long as it lives the pipe does not hang up. We keep an
 * end for reading ourselves, so that the byte cannot bring us SIGPIPE. No locks, no state.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/context.h"
#include "run/process.h"

/* ---- In the process that passes one on --------------------------------------------------------------------------- */

static void close_pipe(int pipe[2])
{
	for (int i = 0; i < 2; i++) {
		if (pipe[i] >= 0)
			close(pipe[i]);
		pipe[i] = -1;
	}
}

/* Moves *fd away if it is 0, 1 or 2, as it is where the program has closed one of these. 0 or -errno. */
static int leave_standard_fds(int *fd)
{
	int moved = *fd, err;

	if (*fd > 2)
		return 0;
	moved = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
	err = moved < 0 ? -errno : 0;
	if (!err) {
		close(*fd);
		*fd = moved;
	}
	return err;
}

int ctxfdi_pass(const struct ctxfd *ctx, struct passed *p)
{
	int64_t deadline = INT64_MAX;
	struct stat st;
	int err = pipe2(p->pipe, O_CLOEXEC) == 0 ? 0 : -errno;

	if (err)
		return err;
	for (int i = 0; i < 2 && !err; i++)
		err = leave_standard_fds(&p->pipe[i]);
	/* The child can open its end for writing (/proc/self/fd). If it fills the pipe, that must not block us. */
	if (!err && fcntl(p->pipe[1], F_SETFL, O_NONBLOCK) != 0)
		err = -errno;
	if (!err && fstat(p->pipe[0], &st) != 0)
		err = -errno;
	if (err) {
		close_pipe(p->pipe);
		return err;
	}
	ctxfd_deadline(ctx, &deadline);
	snprintf(p->variable, sizeof(p->variable), CONTEXT_VARIABLE "%d,%" PRId64 ",%" PRIu64, p->pipe[0], deadline,
	         (uint64_t)st.st_ino);
	return 0;
}

void ctxfdi_end_passed(int pipe[2])
{
	if (pipe[1] >= 0)
		(void)!write(pipe[1], "", 1);
	close_pipe(pipe);
}

/* ---- In the process that it is passed on to ---------------------------------------------------------------------- */

/* Reads a number, which must be followed by `end`, and moves behind that. */
static bool read_number(const char **at, char end, uint64_t max, uint64_t *number)
{
	const char *digit = *at;
	uint64_t n = 0;

	for (; *digit >= '0' && *digit <= '9'; digit++) {
		uint64_t d = (uint64_t)(*digit - '0');

		if (n > (max - d) / 10)
			return false;
		n = 10 * n + d;
	}
	if (digit == *at || *digit != end)
		return false;
	*at = digit + 1;
	*number = n;
	return true;
}

/* Whether fd is still the pipe that was passed on. If not, sets errno. */
static bool is_open(int fd, uint64_t inode)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return false;
	errno = EBADF;
	return S_ISFIFO(st.st_mode) && st.st_ino == inode;
}

struct ctxfd *ctxfd_inherited(void)
{
	const char *variable = getenv("CTXFD_CONTEXT");
	uint64_t fd, deadline, inode;
	struct ctxfd *timed, *ctx;

	if (!variable) {
		errno = ENOENT;
		return NULL;
	}
	if (!read_number(&variable, ',', INT32_MAX, &fd) || !read_number(&variable, ',', INT64_MAX, &deadline) ||
	    !read_number(&variable, '\0', UINT64_MAX, &inode)) {
		errno = EINVAL;
		return NULL;
	}
	if (!is_open((int)fd, inode))
		return NULL;
	timed = ctxfd_with_deadline(ctxfd_background(), (int64_t)deadline);
	ctx = timed ? ctxfd_with_fd(timed, (int)fd, POLLIN, 0) : NULL;
	ctxfd_unref(timed);
	return ctx;
}
