/* SPDX-License-Identifier: MIT */
/*
 * lock: waits for the lock on a file, but not for ever. Nothing interrupts flock, so it waits on a thread of the
 * library's.
 *
 * When the time is up that thread is left to itself. Should it get the lock in the end, drop closes the descriptor, and
 * with that gives the lock back. So the descriptor is in memory of its own, and whoever has that last frees it.
 *
 * Output:
 *     while somebody has it: context deadline exceeded
 *     afterwards: locked
 */
#define _GNU_SOURCE
#include <ctxfd.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static int lock(void *arg)
{
	return flock(*(int *)arg, LOCK_EX) < 0 ? -errno : 0;
}

static void drop(void *arg)
{
	close(*(int *)arg);
	free(arg);
}

/* A descriptor that has the lock on the file, or -errno. */
static int open_locked(const struct ctxfd *ctx, const char *name)
{
	int *fd = malloc(sizeof(*fd)), result, err;

	if (!fd)
		return -ENOMEM;
	*fd = open(name, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		err = -errno;
		free(fd);
		return err;
	}
	err = ctxfd_call(ctx, lock, fd, drop, &result);
	if (err == -ECANCELED || err == -ETIMEDOUT)
		return err; /* fd is the thread's */
	if (err == 0 && result == 0) {
		result = *fd;
		free(fd);
		return result;
	}
	drop(fd);
	return err ? err : result;
}

/* The same, within a time. */
static int open_locked_in(int64_t timeout, const char *name)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), timeout);

	return ctx ? open_locked(ctx, name) : -errno;
}

int main(void)
{
	char name[] = "/tmp/ctxfd-lock-XXXXXX";
	int other = mkstemp(name), late, fd;

	if (other < 0 || flock(other, LOCK_EX) < 0) {
		perror("lock");
		if (other >= 0)
			unlink(name);
		return 1;
	}
	late = open_locked_in(CTXFD_SEC / 10, name);
	close(other);
	fd = late == -ETIMEDOUT ? open_locked_in(10 * CTXFD_SEC, name) : late;
	unlink(name);
	if (fd < 0) {
		fprintf(stderr, "lock: %s\n", ctxfd_strerror(fd));
		return 1;
	}
	printf("while somebody has it: %s\n", ctxfd_strerror(late));
	printf("afterwards: locked\n");
	close(fd);
	return 0;
}
