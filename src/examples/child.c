/* SPDX-License-Identifier: MIT */
/*
 * child: a child process is killed when its context ends. This is Go's exec.CommandContext.
 *
 * `exited` is a context that ends when the process does, and run waits for it. If ctx ends first, an after-func kills
 * the process. If anything fails, run kills the process too, and in every case it waits for the process.
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
	kill(*(pid_t *)pid, SIGKILL); /* the number is still the child's, since we have not waited for it yet */
}

/* Runs a command under ctx. Returns 0 and stores its wait status, or returns -errno. */
static int run(const struct ctxfd *ctx, char *const argv[], int *status)
{
	struct ctxfd_after *after = NULL;
	struct ctxfd *exited = NULL;
	pid_t pid;
	int pidfd, err = -posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

	if (err)
		return err; /* no process was started */
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || !(exited = ctxfd_with_process(ctxfd_background(), pidfd, -ESRCH)))
		err = -errno;
	else
		err = ctxfd_after_func(ctx, kill_child, &pid, &after);
	if (err)
		kill_child(&pid);
	else
		ctxfd_wait(exited);
	ctxfd_after_stop(after); /* before waitpid, after which another process can get the number */
	ctxfd_close(exited);
	if (pidfd >= 0)
		close(pidfd);
	while (waitpid(pid, status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return err;
}

static void report(const struct ctxfd *ctx, const char *name, int status)
{
	if (WIFEXITED(status))
		printf("%s: exit code %d\n", name, WEXITSTATUS(status));
	else
		printf("%s: signal %d, %s\n", name, WTERMSIG(status), ctxfd_strerror(ctxfd_err(ctx)));
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 2 * CTXFD_SEC);
	int status, err = ctx ? run(ctx, (char *[]){ "true", NULL }, &status) : -errno;

	if (err == 0) {
		report(ctx, "true", status);
		err = run(ctx, (char *[]){ "sleep", "3600", NULL }, &status);
	}
	if (err == 0)
		report(ctx, "sleep", status);
	else
		fprintf(stderr, "child: %s\n", ctxfd_strerror(err));
	return err == -ENOSYS ? 77 : err != 0; /* 77: the kernel has no pidfds, and the tests skip this */
}
