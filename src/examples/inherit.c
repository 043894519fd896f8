/* SPDX-License-Identifier: MIT */
/*
 * inherit: a context goes on in another process, deadline and all.
 *
 * The program starts itself a second time and passes its context on. There ctxfd_inherited makes a context from it.
 * When the parent cancels its own, the work in the other process ends, too. It ends by itself, as a function would; no
 * signal is needed. It would also end if the parent died.
 *
 * Output:
 *     child: works, less than an hour is left
 *     child: context canceled
 *     parent: the child's exit code is 0
 */
#include <ctxfd_process.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOUR (3600 * CTXFD_SEC)

static int fail(const char *who, int err)
{
	fprintf(stderr, "inherit: %s: %s\n", who, ctxfd_strerror(err));
	return err == -ENOSYS ? 77 : 1; /* 77: the kernel is too old, and the tests skip this */
}

/* The other process. */
static int work(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_inherited();

	if (!ctx)
		return fail("child", -errno);
	printf("child: works, %s than an hour is left\n", ctxfd_remaining(ctx) < HOUR ? "less" : "more");
	if (fflush(stdout) != 0)
		return fail("child", -errno);
	printf("child: %s\n", ctxfd_strerror(ctxfd_sleep(ctx, INT64_MAX))); /* stands for the work */
	return fflush(stdout) == 0 ? 0 : fail("child", -errno);
}

/* Prints a piece of what the child says: how long it was, 0 at the end, or -errno. */
static int repeat(const struct ctxfd *ctx, int fd)
{
	char text[256];
	ssize_t n = ctxfd_read(ctx, fd, text, sizeof(text));

	if (n > 0)
		fwrite(text, 1, (size_t)n, stdout);
	return (int)n;
}

int main(int argc, char *argv[])
{
	CTXFD_SCOPED struct ctxfd *ctx = NULL;
	struct ctxfd_command command = {
		.argv = (char *[]){ argv[0], "work", NULL },
		.stop_signal = SIGCONT, /* which does nothing: the end of its context is enough */
		.flags = CTXFD_PASS_CONTEXT,
	};
	int out[2], pidfd, heard, err;
	siginfo_t info;

	if (argc > 1 && strcmp(argv[1], "work") == 0)
		return work();
	ctx = ctxfd_with_timeout(ctxfd_background(), HOUR);
	if (!ctx || pipe(out) != 0)
		return fail("parent", -errno);
	command.out = out[1];
	pidfd = ctxfd_spawn(ctx, &command, NULL);
	close(out[1]);
	if (pidfd < 0)
		return fail("parent", pidfd);
	heard = repeat(ctx, out[0]);
	ctxfd_cancel(ctx);
	while (heard > 0)
		heard = repeat(ctxfd_background(), out[0]);
	err = ctxfd_waitid(ctxfd_background(), pidfd, &info, WEXITED);
	if (heard < 0 || err < 0)
		return fail("parent", heard < 0 ? heard : err);
	printf("parent: the child's %s is %d\n", info.si_code == CLD_EXITED ? "exit code" : "signal", info.si_status);
	return info.si_status != 0;
}
