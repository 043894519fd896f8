/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into an example by example_faults.sh. FAULT="CALL N" makes the Nth call of CALL fail, the library's calls
 * and the example's counted together. The file FAULT_LOG gets a line for each thing worth knowing:
 *
 *     called CALL   it can fail, and was called
 *     failed CALL   the Nth call came, and failed
 *     killed PID    somebody was to be killed who is no child of the example; nobody was
 *
 * With FAULT_PROGRAM set, calls count only if the program's own file makes them, which has libctxfd.a in it: what other
 * libraries do when their memory ends is theirs.
 *
 * A call that the library makes for itself, and that cannot fail there, does not fail here: eight bytes are an
 * eventfd's. What only has to be tried again (EINTR) is injected where a program must do that itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
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

#define CALLER     __builtin_return_address(0)
#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static const char *wanted = "";
static int nth, log_fd = -1;
static atomic_int calls;
static volatile pid_t self;
static uintptr_t program_begin, program_end = UINTPTR_MAX;

static void note(const char *what, const char *name)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "%s %s\n", what, name);

	if (REAL(write)(log_fd, line, (size_t)n) != n)
		abort();
}

/* The first object is the program. */
static int find_program(struct dl_phdr_info *object, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	program_begin = UINTPTR_MAX;
	program_end = 0;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		uintptr_t begin = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr,
		          end = begin + object->dlpi_phdr[i].p_memsz;

		if (object->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		program_begin = begin < program_begin ? begin : program_begin;
		program_end = end > program_end ? end : program_end;
	}
	return 1;
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
	if (getenv("FAULT_PROGRAM"))
		dl_iterate_phdr(find_program, NULL);
	log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (log_fd >= 0) /* out of the way of the example's own numbers */
		log_fd = fcntl(log_fd, F_DUPFD_CLOEXEC, 200);
}

/* caller: the address that the call returns to. */
static bool fails(const char *name, atomic_bool *called, const void *caller)
{
	if (log_fd < 0 || getpid() != self || (uintptr_t)caller < program_begin || (uintptr_t)caller >= program_end)
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
		if ((when) && fails(#name, &called, CALLER)) {          \
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

	if (!fails("malloc", &called, CALLER))
		return __libc_malloc(size);
	errno = ENOMEM;
	return NULL;
}

void *calloc(size_t n, size_t size)
{
	static atomic_bool called;

	if (!fails("calloc", &called, CALLER))
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
CALL(FILE *, open_memstream, (char **body, size_t *size), (body, size), true, ENOMEM, NULL)
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
	if ((nr == SYS_pidfd_open || nr == SYS_preadv2 || nr == SYS_pwritev2) && fails("syscall", &called, CALLER)) {
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

/*
 * Calls of the libraries that src/examples/with uses, as far as they can fail. They take integers and pointers, and
 * return one; so they need none of those libraries' headers.
 */
#define THEIRS(name, value)                                                                                       \
	long name(long a, long b, long c, long d, long e, long f);                                                \
	long name(long a, long b, long c, long d, long e, long f)                                                 \
	{                                                                                                         \
		static atomic_bool called;                                                                        \
		static long (*_Atomic real)(long a, long b, long c, long d, long e, long f);                      \
                                                                                                                  \
		if (!real)                                                                                        \
			real = (long (*)(long a, long b, long c, long d, long e, long f))dlsym(RTLD_NEXT, #name); \
		if (fails(#name, &called, CALLER)) {                                                              \
			errno = ENOMEM;                                                                           \
			return value;                                                                             \
		}                                                                                                 \
		return real(a, b, c, d, e, f);                                                                    \
	}

THEIRS(ares_library_init, 15) /* ARES_ENOMEM */
THEIRS(ares_init_options, 15)
THEIRS(ares_set_servers_ports_csv, 15)

THEIRS(curl_global_init, 27) /* CURLE_OUT_OF_MEMORY */
THEIRS(curl_easy_init, 0)
THEIRS(curl_easy_setopt, 27)
THEIRS(curl_multi_init, 0)
THEIRS(curl_multi_add_handle, 3) /* CURLM_OUT_OF_MEMORY */
THEIRS(curl_multi_perform, 3)
THEIRS(curl_multi_poll, 3)

THEIRS(redisConnectFd, 0)
THEIRS(redisCommandArgv, 0)
THEIRS(redisAsyncConnect, 0)
THEIRS(redisAsyncCommandArgv, -1) /* REDIS_ERR */

THEIRS(event_base_new, 0)
THEIRS(event_new, 0)
THEIRS(event_add, -1)
THEIRS(event_base_dispatch, -1)

THEIRS(ev_loop_new, 0)

THEIRS(uv_loop_init, -ENOMEM)
THEIRS(uv_poll_init, -ENOMEM)
THEIRS(uv_poll_start, -ENOMEM)

THEIRS(sd_event_new, -ENOMEM)
THEIRS(sd_event_add_io, -ENOMEM)
THEIRS(sd_event_source_set_enabled, -ENOMEM)
THEIRS(sd_event_source_set_destroy_callback, -ENOMEM)
THEIRS(sd_event_loop, -ENOMEM)

THEIRS(MHD_start_daemon, 0)
THEIRS(MHD_create_response_from_buffer, 0)
THEIRS(MHD_queue_response, 0) /* MHD_NO */

THEIRS(PQconnectStart, 0)
THEIRS(PQconnectPoll, 0) /* PGRES_POLLING_FAILED */
THEIRS(PQsetnonblocking, -1)
THEIRS(PQsendQuery, 0)
THEIRS(PQflush, -1)
THEIRS(PQconsumeInput, 0)
THEIRS(PQgetCancel, 0)
THEIRS(PQcancel, 0)

THEIRS(BIO_get_new_index, -1)
THEIRS(BIO_meth_new, 0)
THEIRS(BIO_meth_set_read, 0)
THEIRS(BIO_meth_set_write, 0)
THEIRS(BIO_meth_set_ctrl, 0)
THEIRS(BIO_new, 0)
THEIRS(SSL_CTX_new, 0)
THEIRS(SSL_CTX_load_verify_locations, 0)
THEIRS(SSL_new, 0)
THEIRS(SSL_set1_host, 0)
THEIRS(SSL_ctrl, 0)
THEIRS(SSL_connect, -1)
THEIRS(SSL_read, -1)
THEIRS(SSL_write, -1)

THEIRS(sqlite3_open_v2, 7) /* SQLITE_NOMEM */
THEIRS(sqlite3_busy_handler, 7)
THEIRS(sqlite3_exec, 7)
