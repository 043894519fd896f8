/* SPDX-License-Identifier: MIT */
/* Commands for tests: scripts of the shell that write to a pipe, and threads that run them. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include <signal.h>
#include <sys/prctl.h>

#include "ctxfd_process.h"
#include "harness.h"

#define HOUR (3600 * CTXFD_SEC)

/* A script, whose output goes to the pipe. */
struct script {
	struct ctxfd_command command;
	char *argv[4];
	int pipe[2];
};

static inline void make_script(struct script *s, const char *text)
{
	*s = (struct script){ .argv = { "/bin/sh", "-c", (char *)(uintptr_t)text, NULL } };
	make_pipe(s->pipe);
	s->command = (struct ctxfd_command){ .argv = s->argv, .in = -1, .out = s->pipe[1] };
}

/* Waits for a byte of its output, in the thread that runs the test. */
static inline char hear(const struct script *s)
{
	char byte;

	wait_readable(s->pipe[0]);
	require(read(s->pipe[0], &byte, 1) == 1);
	return byte;
}

/* All that it has written, when it and all that it has started have ended. */
static inline const char *output(struct script *s)
{
	static char text[4096];
	size_t size = 0;
	ssize_t n;

	close(s->pipe[1]);
	s->pipe[1] = -1;
	while ((n = read(s->pipe[0], text + size, sizeof text - 1 - size)) > 0 || (n < 0 && errno == EINTR))
		size += n > 0 ? (size_t)n : 0;
	text[size] = 0;
	return text;
}

static inline void drop_script(struct script *s)
{
	close(s->pipe[0]);
	if (s->pipe[1] >= 0)
		close(s->pipe[1]);
}

/* Runs a command that is expected to exit. */
static inline int exit_code(const struct ctxfd *ctx, const struct ctxfd_command *command)
{
	int status = -1;

	require(ctxfd_run(ctx, command, &status) == 0);
	require(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/*
 * Runs a command under a context whose deadline passes meanwhile: a later one, if it has passed before the command has
 * started. Returns the context.
 */
static inline struct ctxfd *run_to_deadline(const struct ctxfd_command *command, int *err, int *status)
{
	struct ctxfd *ctx = NULL;

	for (int64_t timeout = 20 * CTXFD_MSEC; !ctx || *err == -ETIMEDOUT; timeout *= 2) {
		ctxfd_close(ctx);
		ctx = ctxfd_with_timeout(ctxfd_background(), timeout);
		*err = ctxfd_run(ctx, command, status);
	}
	require(ctxfd_err(ctx) == -ETIMEDOUT);
	return ctx;
}

/* The same with ctxfd_spawn, below parent, with the first timeout given. Returns the pidfd. */
static inline int spawn_to_deadline(const struct ctxfd *parent, int64_t timeout, const struct ctxfd_command *command,
                                    struct ctxfd **ctx, pid_t *pid)
{
	int pidfd;

	for (*ctx = NULL; !*ctx || pidfd == -ETIMEDOUT; timeout *= 2) {
		ctxfd_close(*ctx);
		*ctx = ctxfd_with_timeout(parent, timeout);
		pidfd = ctxfd_spawn(*ctx, command, pid);
	}
	require(pidfd >= 0);
	return pidfd;
}

/* A thread that runs a command. */
struct running {
	const struct ctxfd *ctx;
	const struct ctxfd_command *command;
	int err, status;
	_Atomic bool over;
	struct thread *thread;
};

static inline void *run_command(void *arg)
{
	struct running *r = arg;

	r->err = ctxfd_run(r->ctx, r->command, &r->status);
	r->over = true;
	return NULL;
}

static inline void start_running(struct running *r, const struct ctxfd *ctx, const struct ctxfd_command *command)
{
	*r = (struct running){ .ctx = ctx, .command = command, .status = -1 };
	r->thread = thread_start(run_command, r);
}

/* How the command has ended. */
static inline int end_of_running(struct running *r)
{
	thread_join(r->thread);
	require(r->err == 0);
	return r->status;
}

/* Whether this process has children, living or not. What its children leave behind counts, after adopt_orphans. */
static inline bool has_children(void)
{
	siginfo_t info;

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* Whether one of them has ended, and is to be reaped. */
static inline bool has_zombies(void)
{
	siginfo_t info = { 0 };

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

/* Waits until a child has been suspended; it may not have been started yet. */
static inline void wait_suspended(void)
{
	siginfo_t info;

	wait_until(waitid(P_ALL, 0, &info, WSTOPPED | WNOWAIT) == 0);
}

static inline void adopt_orphans(void)
{
	require(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
}

/* Waits for one of the children to end, and returns its status. */
static inline int next_status(void)
{
	int status = -1;

	while (waitpid(-1, &status, 0) < 0)
		require(errno == EINTR);
	return status;
}

/* From here on what they leave behind is not ours any more; what is left by now has to end. */
static inline void bury_orphans(void)
{
	require(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
	while (has_children())
		next_status();
}

static inline bool can_run(void)
{
	struct ctxfd_command command = { .argv = (char *[]){ "/bin/true", NULL } };

	return ctxfd_run(ctxfd_background(), &command, NULL) == 0;
}

#define NEED_PROCESSES() \
	if (!can_run())  \
	skip_test("the kernel or the emulator cannot make a process with its pidfd")

/* Where a child that shares its parent's memory is a fork, it cannot tell what went wrong in it. */
static inline bool tells_exec_errors(void)
{
	struct ctxfd_command command = { .argv = (char *[]){ "/nonexistent", NULL } };
	int status = 0;

	return ctxfd_run(ctxfd_background(), &command, &status) != 0;
}

#endif
