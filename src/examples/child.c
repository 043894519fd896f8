/* SPDX-License-Identifier: MIT */
/*
 * child: a child process that is killed when its context ends. Go's exec.CommandContext.
 *
 * We wait for a context that ends when the process does; when the other one ends, the process is killed. Whatever
 * fails, a process that was started is killed and waited for.
 *
 * Output:
 *     true: exit code 0
 *     sleep: signal 9, context deadline exceeded
 */
#define _GNU_SOURCE
#include <ctxfd.h>

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void kill_child(void *pid)
{
	kill(*(pid_t *)pid, SIGKILL); /* nobody else can have the number: we have not waited for it yet */
}

/* Runs a command under ctx: 0 and its wait status, or -errno. */
static int run(const struct ctxfd *ctx, char *const argv[], int *status)
{
	struct ctxfd_after *after = NULL;
	struct ctxfd *exited = NULL;
	pid_t pid;
	int pidfd, err = -posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

	if (err)
		return err; /* there is no process, and pid is nothing to kill */
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || !(exited = ctxfd_with_process(ctxfd_background(), pidfd, -ESRCH)))
		err = -errno;
	else
		err = ctxfd_after_func(ctx, kill_child, &pid, &after);
	if (err)
		kill_child(&pid);
	else
		ctxfd_wait(exited);
	ctxfd_after_stop(after); /* before waitpid, which gives the number away */
	ctxfd_close(exited);
	if (pidfd >= 0)
		close(pidfd);
	while (waitpid(pid, status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return err;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 2 * CTXFD_SEC);
	int status, err = ctx ? run(ctx, (char *[]){ "true", NULL }, &status) : -errno;

	if (err == 0) {
		printf("true: exit code %d\n", WEXITSTATUS(status));
		err = run(ctx, (char *[]){ "sleep", "3600", NULL }, &status);
	}
	if (err == 0)
		printf("sleep: signal %d, %s\n", WTERMSIG(status), ctxfd_strerror(ctxfd_err(ctx)));
	else
		fprintf(stderr, "child: %s\n", ctxfd_strerror(err));
	return err == -ENOSYS ? 77 : err != 0;
}
