/* SPDX-License-Identifier: MIT */
/*
 * Starting and stopping child processes, as ctxfd_run and ctxfd_spawn both do. No locks, no state.
 *
 * WHO IS SIGNALLED. A pidfd is always its own process, and since Linux 6.9 also the group that this leads, even when
 * the process is reaped: the kernel keeps its record of the number as long as we have the pidfd. Before that a group
 * can only be named by its number. That is ours as long as the leader is not reaped, and also after that while there is
 * a group, but no process, of that number.
 *
 * FORK. A signal's handler may fork while ctxfd_run sleeps, and its child goes on in the call. To that one the process
 * is foreign: it is not signalled or waited for there, and what was passed on to it does not end. Its fds are left
 * alone too, since the child may have given their numbers to others.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/context.h"
#include "core/fork.h"
#include "core/kernel.h"
#include "run/process.h"

#define TO_GROUP (1U << 2) /* PIDFD_SIGNAL_PROCESS_GROUP */

#define DEFAULT_GRACE (5 * CTXFD_SEC)

bool ctxfdi_child_is_foreign(const struct child *c)
{
	return c->forks != ctxfdi_forks;
}

/* ---- Starting ---------------------------------------------------------------------------------------------------- */

static bool is_valid(const struct ctxfd *ctx, const struct ctxfd_command *c)
{
	return ctx && c && c->argv && c->argv[0] && !(c->flags & ~(CTXFD_OWN_GROUP | CTXFD_PASS_CONTEXT)) &&
	       c->grace >= 0 && c->stop_signal >= 0 && c->stop_signal <= LAST_SIGNAL;
}

/* Before we open anything, which could get the number of an fd that is closed. */
static bool are_open(const struct ctxfd_command *c)
{
	const int fds[3] = { c->in, c->out, c->err };

	for (int i = 0; i < 3; i++)
		if (fds[i] != CTXFD_INHERIT && fds[i] != -1 && fcntl(fds[i], F_GETFD) < 0)
			return false;
	return true;
}

int ctxfdi_child_start(const struct ctxfd *ctx, const struct ctxfd_command *command, struct child *c)
{
	struct passed passed = { .pipe = { -1, -1 } };
	int err;

	if (!is_valid(ctx, command))
		return -EINVAL;
	err = ctxfd_err(ctx);
	if (!err && !are_open(command))
		err = -EBADF;
	if (!err && command->flags & CTXFD_PASS_CONTEXT)
		err = ctxfdi_pass(ctx, &passed);
	if (err)
		return err;
	*c = (struct child){
		.pidfd = -1,
		.pipe = { passed.pipe[0], passed.pipe[1] },
		.stop_signal = command->stop_signal ? command->stop_signal : SIGKILL,
		.grace = command->grace ? command->grace : DEFAULT_GRACE,
		.group = command->flags & CTXFD_OWN_GROUP,
		.forks = ctxfdi_forks,
	};
	err = ctxfdi_exec(command, &passed, &c->pid, &c->pidfd);
	if (err)
		ctxfdi_end_passed(c->pipe);
	return err;
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

static bool send_by_pidfd(const struct child *c, int sig, unsigned flags)
{
	return syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, flags) == 0;
}

static bool is_reaped(const struct child *c)
{
	return ctxfdi_await_exit(c->pidfd, NULL, WNOWAIT | WNOHANG) != 0;
}

/* False: there is nobody in it. */
static bool signal_group(const struct child *c, int sig)
{
	if (send_by_pidfd(c, sig, TO_GROUP))
		return true;
	if (errno == ESRCH || (is_reaped(c) && (kill(c->pid, 0) == 0 || errno != ESRCH)))
		return false;
	return kill(-c->pid, sig) == 0;
}

void ctxfdi_child_signal(const struct child *c, int sig)
{
	if (ctxfdi_child_is_foreign(c))
		return;
	/* The leader may have moved to another group, and left others behind. */
	if (c->group && signal_group(c, sig) && sig != SIGKILL && getpgid(c->pid) == c->pid)
		return;
	if (!send_by_pidfd(c, sig, 0) && errno != ESRCH && !is_reaped(c))
		kill(c->pid, sig); /* a sandbox forbids the other */
}

/* ---- Stopping ---------------------------------------------------------------------------------------------------- */

void ctxfdi_child_ask(struct child *c)
{
	ctxfdi_end_passed(c->pipe);
	ctxfdi_child_signal(c, c->stop_signal);
	if (c->stop_signal != SIGKILL)
		ctxfdi_child_signal(c, SIGCONT); /* a process that is suspended does not hear the other */
}

static bool has_ended(const struct child *c)
{
	siginfo_t info = { 0 };

	return ctxfdi_await_exit(c->pidfd, &info, WNOWAIT | WNOHANG) != 0 || info.si_pid != 0;
}

/* Whether it ends within its grace. */
static bool ends_in_time(const struct child *c)
{
	const struct ctxfd *never = ctxfd_background();
	struct pollfd end = { .fd = c->pidfd, .events = POLLIN };
	int64_t now = ctxfd_now(), until = c->grace > INT64_MAX - now ? INT64_MAX : now + c->grace;
	int ready;

	do {
		ready = ctxfd_poll(never, &end, 1, until == INT64_MAX ? -1 : until - now);
		if (ready < 0) { /* no memory, or RLIMIT_NOFILE forbids it */
			ctxfd_sleep(never, CTXFD_MSEC);
			ready = has_ended(c) ? 1 : ready;
		}
		now = ctxfd_now();
	} while (ready < 0 && now < until);
	return ready > 0;
}

void ctxfdi_child_stop(struct child *c)
{
	if (ctxfdi_child_is_foreign(c))
		return;
	ctxfdi_child_ask(c);
	if (c->stop_signal != SIGKILL && !ends_in_time(c))
		ctxfdi_child_signal(c, SIGKILL);
	ctxfdi_await_exit(c->pidfd, NULL, WNOWAIT);
	if (c->group)
		ctxfdi_child_signal(c, SIGKILL);
}

/* As waitpid tells it. */
static int status_of(const siginfo_t *info)
{
	if (info->si_code == CLD_EXITED)
		return (info->si_status & 0xff) << 8;
	return info->si_status | (info->si_code == CLD_DUMPED ? 0x80 : 0);
}

int ctxfdi_child_reap(struct child *c, int *status)
{
	siginfo_t info;
	int err;

	if (ctxfdi_child_is_foreign(c))
		return -ECHILD;
	err = ctxfdi_await_exit(c->pidfd, &info, 0);
	ctxfdi_end_passed(c->pipe);
	close(c->pidfd);
	if (!err && status)
		*status = status_of(&info);
	return err;
}

void ctxfdi_child_kill(struct child *c)
{
	ctxfdi_child_signal(c, SIGKILL);
	ctxfdi_child_reap(c, NULL);
}
