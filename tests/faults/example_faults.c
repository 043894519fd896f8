/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into an example by example_faults.sh. FAULT="CALL N" makes the Nth call of CALL fail, the library's calls
 * and the example's counted together. The file FAULT_LOG gets a line for each thing worth knowing:
 *
 *     called CALL   it can fail, and was called
 *     failed CALL   the Nth call came, and failed
 *     killed PID    somebody was to be killed who is no child of the example; nobody was
 *
 * A call that the library makes for itself, and that cannot fail there, does not fail here: eight bytes are an eventfd's.
 * What only has to be tried again (EINTR) is injected where a program must do that itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static const char *wanted = "";
static int nth, log_fd = -1;
static atomic_int calls;
static volatile pid_t self;

static void note(const char *what, const char *name)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "%s %s\n", what, name);

	if (REAL(write)(log_fd, line, (size_t)n) != n)
		abort();
}

/* Before anything of the example runs. What it executes is not to be disturbed. */
__attribute__((constructor)) static void start(void)
{
	static char name[32];
	const char *log = getenv("FAULT_LOG"), *fault = getenv("FAULT");

	unsetenv("LD_PRELOAD");
	self = getpid();
	if (!log)
		return;
	if (fault && sscanf(fault, "%31s %d", name, &nth) == 2)
		wanted = name;
	log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (log_fd >= 0) /* out of the way of the example's own numbers */
		log_fd = fcntl(log_fd, F_DUPFD_CLOEXEC, 200);
}

static bool fails(const char *name, atomic_bool *called)
{
	if (log_fd < 0 || getpid() != self)
		return false;
	if (!atomic_exchange(called, true))
		note("called", name);
	if (strcmp(name, wanted) != 0 || atomic_fetch_add(&calls, 1) + 1 != nth)
		return false;
	note("failed", name);
	return true;
}

/* A function that fails with `value` after `errno` is set, if `when` is true of the call. */
#define CALL(type, name, params, args, when, error, value)              \
	type name params                                                \
	{                                                               \
		static atomic_bool called;                              \
		static type(*_Atomic real) params;                      \
                                                                        \
		if (!real)                                              \
			real = (type(*) params)dlsym(RTLD_NEXT, #name); \
		if ((when) && fails(#name, &called)) {                  \
			errno = (error);                                \
			return value;                                   \
		}                                                       \
		return real args;                                       \
	}

/* malloc is called by dlsym, or before there is anything to look up: glibc has a second name for it. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);

void *malloc(size_t size)
{
	static atomic_bool called;

	if (!fails("malloc", &called))
		return __libc_malloc(size);
	errno = ENOMEM;
	return NULL;
}

void *calloc(size_t n, size_t size)
{
	static atomic_bool called;

	if (!fails("calloc", &called))
		return __libc_calloc(n, size);
	errno = ENOMEM;
	return NULL;
}

/* The string functions of libc do not come through the malloc above. */
char *strdup(const char *s)
{
	char *copy = malloc(strlen(s) + 1);

	return copy ? strcpy(copy, s) : NULL;
}

CALL(pid_t, fork, (void), (), true, EAGAIN, -1)
CALL(int, posix_spawnp,
     (pid_t *restrict pid, const char *restrict file, const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attr, char *const argv[restrict], char *const envp[restrict]),
     (pid, file, actions, attr, argv, envp), true, 0, ENOENT)
CALL(int, pthread_create,
     (pthread_t *restrict thread, const pthread_attr_t *restrict attr, void *(*fn)(void *), void *restrict arg),
     (thread, attr, fn, arg), true, 0, EAGAIN)
CALL(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), true, EINTR, -1)

CALL(int, pipe, (int fds[2]), (fds), true, EMFILE, -1)
CALL(int, socket, (int family, int type, int protocol), (family, type, protocol), true, EMFILE, -1)
CALL(int, socketpair, (int family, int type, int protocol, int fds[2]), (family, type, protocol, fds), true, EMFILE, -1)
CALL(FILE *, fdopen, (int fd, const char *mode), (fd, mode), true, ENOMEM, NULL)
CALL(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size), (fd, level, name, value, size),
     true, ENOBUFS, -1)
CALL(int, bind, (int fd, const struct sockaddr *addr, socklen_t size), (fd, addr, size), true, EADDRINUSE, -1)
CALL(int, listen, (int fd, int backlog), (fd, backlog), true, EADDRINUSE, -1)
CALL(int, getsockname, (int fd, struct sockaddr *restrict addr, socklen_t *restrict size), (fd, addr, size), true,
     ENOBUFS, -1)
CALL(int, connect, (int fd, const struct sockaddr *addr, socklen_t size), (fd, addr, size), true, ECONNREFUSED, -1)
CALL(int, accept4, (int fd, struct sockaddr *restrict addr, socklen_t *restrict size, int flags),
     (fd, addr, size, flags), true, EMFILE, -1)

CALL(int, getaddrinfo,
     (const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
      struct addrinfo **restrict result),
     (node, service, hints, result), true, 0, EAI_AGAIN)
CALL(int, mkstemp, (char *name), (name), true, EACCES, -1)
CALL(int, flock, (int fd, int op), (fd, op), true, ENOLCK, -1)

CALL(int, eventfd, (unsigned count, int flags), (count, flags), true, EMFILE, -1)
CALL(int, timerfd_create, (clockid_t clock, int flags), (clock, flags), true, EMFILE, -1)
CALL(int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags), fd < 0, EMFILE, -1)
CALL(int, epoll_create1, (int flags), (flags), true, EMFILE, -1)
CALL(int, epoll_ctl, (int epoll, int op, int fd, struct epoll_event *event), (epoll, op, fd, event),
     op == EPOLL_CTL_ADD, ENOSPC, -1)
CALL(int, epoll_wait, (int epoll, struct epoll_event *events, int n, int timeout), (epoll, events, n, timeout), true,
     EINTR, -1)
CALL(int, poll, (struct pollfd * fds, nfds_t n, int timeout), (fds, n, timeout), timeout < 0, ENOMEM, -1)
CALL(int, ppoll, (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask),
     (fds, n, timeout, mask), true, ENOMEM, -1)

CALL(ssize_t, read, (int fd, void *buf, size_t size), (fd, buf, size),
     size != 8 && size != sizeof(struct signalfd_siginfo), EIO, -1)
CALL(ssize_t, write, (int fd, const void *buf, size_t size), (fd, buf, size), size != 8, EIO, -1)
CALL(ssize_t, recv, (int fd, void *buf, size_t size, int flags), (fd, buf, size, flags), true, ECONNRESET, -1)
CALL(ssize_t, send, (int fd, const void *buf, size_t size, int flags), (fd, buf, size, flags), true, ECONNRESET, -1)

/* pidfd_open, preadv2 and pwritev2; the rest is the library's own: futexes, and the writes that wake. */
long syscall(long nr, ...)
{
	static atomic_bool called;
	static long (*_Atomic real)(long nr, ...);
	long a[6];
	va_list args;

	va_start(args, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if ((nr == SYS_pidfd_open || nr == SYS_preadv2 || nr == SYS_pwritev2) && fails("syscall", &called)) {
		errno = nr == SYS_pidfd_open ? EMFILE : EIO;
		return -1;
	}
	if (!real)
		real = REAL(syscall);
	return real(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Kills nobody but a child. */
int kill(pid_t pid, int sig)
{
	char number[16];
	siginfo_t info;

	if (pid > 0 && waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
		return REAL(kill)(pid, sig);
	snprintf(number, sizeof(number), "%d", (int)pid);
	note("killed", number);
	errno = EPERM;
	return -1;
}
