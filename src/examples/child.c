/* SPDX-License-Identifier: MIT */
/*
 * child: a command gets a time limit, and so does all that it has started. Go's exec.CommandContext.
 *
 * The second command is a shell that starts a helper and waits for it. Both are in one process group, which gets
 * SIGTERM when the context ends. The shell cleans up, and its helper, which ignores SIGTERM, is killed when the shell
 * is gone.
 *
 * Output:
 *     true: exit code 0
 *     shell: cleans up
 *     shell: exit code 3, context deadline exceeded
 */
#include <ctxfd_process.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

static const char script[] = "(trap '' TERM; exec sleep 3600) & trap 'echo shell: cleans up; exit 3' TERM; wait";

/* Runs a command under ctx, and tells how it ended. Returns 0, or -errno if it was not run. */
static int run(const struct ctxfd *ctx, const char *name, char *const argv[])
{
	const struct ctxfd_command command = {
		.argv = argv,
		.in = -1, /* /dev/null; its output goes where ours goes */
		.stop_signal = SIGTERM,
		.grace = 60 * CTXFD_SEC,
		.flags = CTXFD_OWN_GROUP,
	};
	int status, err = ctxfd_run(ctx, &command, &status);

	if (err)
		return err;
	if (WIFEXITED(status))
		printf("%s: exit code %d", name, WEXITSTATUS(status));
	else
		printf("%s: signal %d", name, WTERMSIG(status));
	printf("%s%s\n", ctxfd_err(ctx) ? ", " : "", ctxfd_err(ctx) ? ctxfd_strerror(ctxfd_err(ctx)) : "");
	return fflush(stdout) == 0 ? 0 : -EIO;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 2 * CTXFD_SEC);
	int err = ctx ? run(ctx, "true", (char *[]){ "/bin/true", NULL }) : -errno;

	if (err == 0)
		err = run(ctx, "shell", (char *[]){ "/bin/sh", "-c", (char *)script, NULL });
	if (err != 0)
		fprintf(stderr, "child: %s\n", ctxfd_strerror(err));
	return err == -ENOSYS ? 77 : err != 0; /* 77: the kernel is too old, and the tests skip this */
}
