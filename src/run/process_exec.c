/* SPDX-License-Identifier: MIT */
/*
 * Making a child process that executes a command.
 *
 * THE CHILD SHARES OUR MEMORY until exec, as vfork's does, and this thread is suspended meanwhile. So it costs no copy
 * of the page tables; nothing between clone and exec can fail for want of memory; and the child leaves exec's errno
 * where we find it. It has a stack of its own, all signals blocked until their handlers are gone, and makes nothing but
 * system calls: no function of libc that has locks or state, none that a sanitizer watches. That its errno is this
 * thread's does no harm. The pidfd comes from clone itself, since a number could be another process's by the time of
 * pidfd_open, when SIGCHLD is ignored or another thread waits for all children.
 *
 * posix_spawn does the same inside, but has no pidfd before glibc 2.39, and closes no fds.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/context.h"
#include "core/kernel.h"
#include "run/process.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef SYS_close_range
#define SYS_close_range 436 /* the same on every architecture */
#endif

/*
 * libc's clone, by a name that no sanitizer puts itself in front of: ThreadSanitizer takes what clone makes for a fork,
 * and would let go of its locks twice, in the child and here. Where there is no such name, there are no sanitizers.
 */
int __clone(int (*fn)(void *arg), void *stack, int flags, void *arg, ...) __attribute__((weak));

/* The same with what the child does to its signals, which a sanitizer would take for ours. */
int __sigaction(int sig, const struct sigaction *action, struct sigaction *before) __attribute__((weak));

/* The child is no thread that a sanitizer knows. */
#if defined(__has_attribute)
#if __has_attribute(disable_sanitizer_instrumentation)
#define IN_CHILD __attribute__((noinline, disable_sanitizer_instrumentation))
#endif
#endif
#ifndef IN_CHILD
#define IN_CHILD __attribute__((noinline, no_sanitize("address", "thread", "undefined")))
#endif

#define STACK       (32 * 1024)
#define KERNEL_SET  (_NSIG / 8) /* bytes of the kernel's sigset_t */
#define FIRST_EXTRA 3           /* the first fd that is none of the three */

/* What the child is to do, and how that goes. */
struct order {
	const struct ctxfd_command *command;
	char **envp;
	int fds[3];
	int pass;  /* stays open, too; or -1 */
	int error; /* the errno by which the child ended before exec, or 0 */
};

/* ---- In the child ------------------------------------------------------------------------------------------------ */

IN_CHILD static bool is_kept(const int *keep, int n, int fd)
{
	for (int i = 0; i < n; i++)
		if (keep[i] == fd)
			return true;
	return false;
}

/* Closes those that /proc lists as open. False: there is no such list. */
IN_CHILD static bool close_listed(const int *keep, int n)
{
	struct entry { /* linux_dirent64 */
		uint64_t inode;
		int64_t next;
		unsigned short size;
		unsigned char type;
		char name[];
	};
	_Alignas(struct entry) char list[1024];
	int dir = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long size;

	if (dir < 0)
		return false;
	while ((size = syscall(SYS_getdents64, dir, list, sizeof(list))) > 0)
		for (long at = 0; at < size;) {
			const struct entry *e = (const struct entry *)(list + at);
			int fd = 0;

			for (const char *digit = e->name; *digit; digit++)
				fd = 10 * fd + (*digit - '0'); /* "." and ".." come out negative */
			if (fd >= FIRST_EXTRA && fd != dir && !is_kept(keep, n, fd))
				syscall(SYS_close, fd);
			at += e->size;
		}
	syscall(SYS_close, dir);
	return size == 0;
}

/* The slow ways, where the kernel is older than 5.9, or a sandbox. */
IN_CHILD static void close_one_by_one(const int *keep, int n)
{
	struct rlimit limit = { .rlim_cur = 1024 };

	if (close_listed(keep, n))
		return;
	syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	for (unsigned fd = FIRST_EXTRA; fd < limit.rlim_cur; fd++)
		if (!is_kept(keep, n, (int)fd))
			syscall(SYS_close, fd);
}

/* Closes all fds except the three and those n. */
IN_CHILD static void close_others(const int *keep, int n)
{
	unsigned from = FIRST_EXTRA;

	for (;;) {
		unsigned next = UINT32_MAX; /* the first from there on that stays */

		for (int i = 0; i < n; i++)
			if (keep[i] >= (int)from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > from && syscall(SYS_close_range, from, next == UINT32_MAX ? next : next - 1, 0) != 0) {
			close_one_by_one(keep, n);
			return;
		}
		if (next == UINT32_MAX)
			return;
		from = next + 1;
	}
}

/*
 * Moves *fd, or opens /dev/null if that is -1, to a number that none of the three has. False, with errno: not possible.
 */
IN_CHILD static bool move_up(int *fd)
{
	bool is_new = *fd == -1;
	int from = is_new ? (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC) : *fd;

	*fd = from;
	if (from >= 0 && from < FIRST_EXTRA) {
		*fd = (int)syscall(SYS_fcntl, from, F_DUPFD_CLOEXEC, FIRST_EXTRA);
		if (is_new)
			syscall(SYS_close, from); /* which is to stay closed */
	}
	return *fd >= 0;
}

/* Leaves the child the fds that it is to have. False, with errno: not possible. */
IN_CHILD static bool set_fds(struct order *o)
{
	int keep[4] = { o->fds[0], o->fds[1], o->fds[2], o->pass };

	close_others(keep, 4); /* so that there is room */
	for (int i = 0; i < 3; i++)
		if (o->fds[i] != i && !move_up(&o->fds[i]))
			return false;
	for (int i = 0; i < 3; i++)
		if (o->fds[i] == i)
			syscall(SYS_fcntl, i, F_SETFD, 0); /* which may be closed, if it is inherited */
		else if (syscall(SYS_dup3, o->fds[i], i, 0) < 0)
			return false;
	if (o->pass >= 0)
		syscall(SYS_fcntl, o->pass, F_SETFD, 0);
	close_others(&o->pass, 1);
	return true;
}

/* Whether sig, by default, would suspend the child before exec, and us with it, until somebody sends SIGCONT. */
IN_CHILD static bool is_stop(int sig)
{
	return sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

IN_CHILD static void do_nothing(int sig)
{
	(void)sig;
}

/*
 * Sets all signals to their defaults, then unblocks them. So a signal that has come since the clone, when it had a
 * handler of ours, does what it does by default. But if the child has a group of its own, what was sent to ours is not
 * for it: such a signal is ignored for a moment, by which the kernel forgets that it is pending. Signals that would
 * suspend the child have a handler until exec, which replaces it by the default.
 */
IN_CHILD static void reset_signals(bool own_group)
{
	/* The kernel's struct sigaction, on any architecture (MIPS has no handler in front, and forgets nothing). */
	static const uintptr_t by_default[16], ignore[16] = { (uintptr_t)1 };
	static const struct sigaction go_on = { .sa_handler = do_nothing, .sa_flags = SA_RESTART };
	static const uint64_t none[2];

	for (int sig = 1; sig <= LAST_SIGNAL; sig++) {
		if (is_stop(sig)) {
			/* Libc's, which knows how to return from a handler; it takes a lock for SIGABRT alone. */
			(__sigaction ? __sigaction : sigaction)(sig, &go_on, NULL);
			continue;
		}
		if (own_group)
			syscall(SYS_rt_sigaction, sig, ignore, NULL, KERNEL_SET);
		syscall(SYS_rt_sigaction, sig, by_default, NULL, KERNEL_SET);
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, none, NULL, KERNEL_SET);
}

IN_CHILD static int run_child(void *arg)
{
	struct order *o = arg;
	const struct ctxfd_command *c = o->command;

	if (set_fds(o) && (!(c->flags & CTXFD_OWN_GROUP) || syscall(SYS_setpgid, 0, 0) == 0) &&
	    (!c->directory || syscall(SYS_chdir, c->directory) == 0)) {
		reset_signals(c->flags & CTXFD_OWN_GROUP);
		syscall(SYS_execve, c->argv[0], c->argv, o->envp);
	}
	o->error = errno;
	return (int)syscall(SYS_exit_group, 127);
}

/* ---- In the parent ----------------------------------------------------------------------------------------------- */

static size_t count(char *const *strings)
{
	size_t n = 0;

	while (strings && strings[n])
		n++;
	return n;
}

/*
 * Without the context that this process was passed, and with the one that the child is. to: room for one more, and
 * NULL.
 */
static void fill_environment(char **to, char *const *from, const char *variable)
{
	for (; from && *from; from++)
		if (strncmp(*from, CONTEXT_VARIABLE, sizeof(CONTEXT_VARIABLE) - 1) != 0)
			*to++ = *from;
	if (*variable)
		*to++ = (char *)(uintptr_t)variable;
	*to = NULL;
}

int ctxfdi_await_exit(int pidfd, siginfo_t *info, int options)
{
	siginfo_t ignored;
	int result;

	do
		result = waitid(PIDFD, (id_t)pidfd, info ? info : &ignored, WEXITED | options);
	while (result != 0 && errno == EINTR);
	return result == 0 ? 0 : -errno;
}

static int clone_child(struct order *o, char *stack, pid_t *pid, int *pidfd)
{
	static const uint64_t all[2] = { UINT64_MAX, UINT64_MAX };
	uint64_t before[2];
	int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
	int err;

	/* By the kernel's call, since libc's leaves out the signals that it uses itself. */
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, all, before, KERNEL_SET);
	*pid = (__clone ? __clone : clone)(run_child, stack + STACK, flags, o, pidfd, NULL, NULL);
	err = *pid < 0 ? -errno : -o->error;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, before, NULL, KERNEL_SET);
	if (*pid >= 0 && err) {
		ctxfdi_await_exit(*pidfd, NULL, 0);
		close(*pidfd);
	}
	return err;
}

/*
 * Whether the kernel has what we need, of which waitid came last, with 5.4. An older one would start a process and tell
 * no pidfd. There is no such fd, so this fails in any case.
 */
static int check_kernel(void)
{
	siginfo_t info;

	waitid(PIDFD, INT32_MAX, &info, WEXITED | WNOHANG);
	return errno == EBADF ? 0 : errno == EINVAL ? -ENOSYS : -errno;
}

int ctxfdi_exec(const struct ctxfd_command *c, const struct passed *passed, pid_t *pid, int *pidfd)
{
	char *const *environment = c->envp ? c->envp : environ;
	struct order o = { .command = c, .fds = { c->in, c->out, c->err }, .pass = passed->pipe[0] };
	int err = check_kernel();
	char *memory;

	if (err)
		return err;
	for (int i = 0; i < 3; i++)
		if (o.fds[i] == CTXFD_INHERIT)
			o.fds[i] = i;
	memory = malloc_quietly(STACK + (count(environment) + 2) * sizeof(char *));
	if (!memory)
		return -ENOMEM;
	o.envp = (char **)(void *)(memory + STACK);
	fill_environment(o.envp, environment, passed->variable);
	err = clone_child(&o, memory, pid, pidfd);
	free(memory);
	return err;
}
