/* SPDX-License-Identifier: MIT */
/*
 * Child processes that end with a context: process_exec.c makes one, process_pass.c passes a context on to it,
 * process_stop.c starts and stops it. process_run.c and process_spawn.c are built on that. All functions here are
 * called with pthread_cancel kept off, change errno, and need no lock.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include "ctxfd_process.h"

/* Signals have the numbers from 1 to this. */
#define LAST_SIGNAL 64

/* How a context is passed on: a pipe, and what the child's environment says of it. */
struct passed {
	int pipe[2]; /* the child keeps [0], under the same number; -1: nothing is passed on */
	char variable[80];
};

/* A child process. Its pid names it until somebody reaps it, which may be the program; its pidfd names it for good. */
struct child {
	pid_t pid;
	int pidfd;
	int pipe[2]; /* as in struct passed; -1 also once the child has been told of the end */
	int stop_signal;
	int64_t grace;
	bool group;     /* it leads one */
	uint32_t forks; /* ctxfdi_forks of the process that made it */
};

/* process_exec.c */

/* Makes a child that executes the command. 0, or -errno and there is none. */
int ctxfdi_exec(const struct ctxfd_command *command, const struct passed *passed, pid_t *pid, int *pidfd);

/* Waits for its end (WNOHANG: only looks), and reaps it (not with WNOWAIT). 0 or -errno; info may be NULL. */
int ctxfdi_await_exit(int pidfd, siginfo_t *info, int options);

/* process_pass.c */
#define CONTEXT_VARIABLE "CTXFD_CONTEXT="
int ctxfdi_pass(const struct ctxfd *ctx, struct passed *p); /* 0 or -errno */
void ctxfdi_end_passed(int pipe[2]);                        /* the child's context ends, if one was passed on */

/* process_stop.c */
bool ctxfdi_child_is_foreign(const struct child *c); /* a parent process has started it: this one leaves it alone */
int ctxfdi_child_start(const struct ctxfd *ctx, const struct ctxfd_command *command,
                       struct child *c);                  /* 0, err, -errno */
void ctxfdi_child_signal(const struct child *c, int sig); /* it, or its group */
void ctxfdi_child_ask(struct child *c);                   /* to end: its context ends, and stop_signal comes */
void ctxfdi_child_stop(struct child *c);                  /* the same, then waits for its end, which grace bounds */
int ctxfdi_child_reap(struct child *c, int *status);      /* waits for its end; our fds are closed. 0 or -errno */
void ctxfdi_child_kill(struct child *c);                  /* SIGKILL, and reaps it, without telling the status */

#endif
