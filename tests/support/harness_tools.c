/* SPDX-License-Identifier: MIT */
/*
 * The helpers of harness.h: time, descriptors, threads, processes. Every wait has a limit, a little below that of a
 * test, so that a test that waits in vain says for what.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND   0
#define VALGRIND_COUNT_ERRORS 0
#endif

/* ---- Time ------------------------------------------------------------------------------------------------------ */

int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * CTXFD_SEC + ts.tv_nsec;
}

void pass_time(int64_t ns)
{
	struct timespec ts = { (time_t)(ns / CTXFD_SEC), (long)(ns % CTXFD_SEC) };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

void harness_between(int64_t value, int64_t least, int64_t most, const char *file, int line)
{
	if (value < least || value > most)
		harness_fail(file, line, "%" PRId64 " is not from %" PRId64 " to %" PRId64, value, least, most);
}

void harness_elapsed(int64_t start, int64_t least, int64_t most, const char *file, int line)
{
	int64_t took = now() - start;

	if (took < least || took > most * slow())
		harness_fail(file, line, "took %" PRId64 " us, must be %" PRId64 " to %" PRId64, took / 1000,
		             least / 1000, most * slow() / 1000);
}

int64_t harness_patience(void)
{
	return now() + 40 * CTXFD_SEC * slow();
}

void harness_patient(int64_t until, const char *what, const char *file, int line)
{
	if (now() > until)
		harness_fail(file, line, "waited in vain for %s", what);
	pass_time(100 * CTXFD_USEC);
}

/* ---- Descriptors ----------------------------------------------------------------------------------------------- */

bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && p.revents & POLLIN;
}

void harness_wait_poll(int fd, short events, const char *file, int line)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t until = harness_patience(), left;

	while ((left = until - now()) > 0) {
		int n = poll(&p, 1, (int)(left / CTXFD_MSEC) + 1);

		if (n == 1 && p.revents & events)
			return;
		if (n == 1 || (n < 0 && errno != EINTR))
			break;
	}
	harness_fail(file, line, "waited in vain for events 0x%x of fd %d; it has 0x%x", (unsigned)events, fd,
	             (unsigned)p.revents);
}

void make_pipe(int fds[2])
{
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
}

void make_socketpair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

void close_pair(const int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

int make_refuser(struct sockaddr_in *addr)
{
	socklen_t size = sizeof *addr;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	*addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(fd, (struct sockaddr *)addr, size), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)addr, &size), 0);
	return fd;
}

int make_listener(struct sockaddr_in *addr)
{
	int fd = make_refuser(addr);

	assert_int_equal(listen(fd, SOMAXCONN), 0);
	return fd;
}

void make_connection(int fds[2])
{
	struct sockaddr_in addr;
	int listener = make_listener(&addr);

	fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fds[1] >= 0);
	assert_int_equal(connect(fds[1], (struct sockaddr *)&addr, sizeof addr), 0);
	fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[0] >= 0);
	close(listener);
}

/*
 * A backlog of 0 takes one connection. Those that come after it stay in SYN_SENT; the first that does shows that the
 * queue is full.
 */
void make_stuck(struct stuck *s)
{
	size_t n = 0;

	s->listener = make_refuser(&s->addr);
	assert_int_equal(listen(s->listener, 0), 0);
	for (bool full = false; n < COUNT(s->queued); n++) {
		struct pollfd p = { .events = POLLOUT };

		s->queued[n] = -1;
		if (full)
			continue;
		p.fd = s->queued[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_true(p.fd >= 0);
		if (connect(p.fd, (struct sockaddr *)&s->addr, sizeof s->addr) < 0)
			assert_int_equal(errno, EINPROGRESS);
		full = poll(&p, 1, 50) == 0;
	}
}

void close_stuck(const struct stuck *s)
{
	close(s->listener);
	for (size_t n = 0; n < COUNT(s->queued); n++)
		if (s->queued[n] >= 0)
			close(s->queued[n]);
}

size_t fill(int fd)
{
	static const char zeros[4096];
	int flags = fcntl(fd, F_GETFL);
	size_t total = 0;

	assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
	/* The second round, byte by byte, finds what is left when a whole block does not fit. */
	for (size_t block = sizeof zeros; block; block = block > 1 ? 1 : 0) {
		ssize_t n;

		while ((n = write(fd, zeros, block)) > 0)
			total += (size_t)n;
		assert_int_equal(errno, EAGAIN);
	}
	assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
	return total;
}

static struct rlimit rlimit_before;
static int fillers[1024], nfillers;

/* Lowers the limit first: the fewer numbers there are, the fewer it takes to use them up. */
void exhaust_fds(void)
{
	struct rlimit low;
	int fd;

	assert_int_equal(nfillers, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &rlimit_before), 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	fillers[nfillers++] = fd;
	low = rlimit_before;
	low.rlim_cur = (rlim_t)fd + 8;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	while (nfillers < (int)COUNT(fillers) && (fd = fcntl(fillers[0], F_DUPFD_CLOEXEC, 0)) >= 0)
		fillers[nfillers++] = fd;
	assert_true(fd < 0);
	assert_int_equal(errno, EMFILE);
}

void free_fds(void)
{
	while (nfillers)
		close(fillers[--nfillers]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &rlimit_before), 0);
}

bool has_set_ticks(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t one = 1;
	bool has = ioctl(fd, TFD_IOC_SET_TICKS, &one) == 0;

	close(fd);
	return has;
}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

struct thread {
	pthread_t thread;
	void *(*fn)(void *);
	void *arg;
	_Atomic pid_t tid;
};

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	t->tid = (pid_t)syscall(SYS_gettid);
	return t->fn(t->arg);
}

struct thread *thread_start_stack(void *(*fn)(void *arg), void *arg, size_t stack)
{
	struct thread *t = calloc(1, sizeof *t);
	pthread_attr_t attr;

	require(t);
	t->fn = fn;
	t->arg = arg;
	require(pthread_attr_init(&attr) == 0);
	if (stack)
		require(pthread_attr_setstacksize(&attr, stack) == 0);
	require(pthread_create(&t->thread, &attr, thread_main, t) == 0);
	pthread_attr_destroy(&attr);
	while (!t->tid)
		pass_time(10 * CTXFD_USEC);
	return t;
}

struct thread *thread_start(void *(*fn)(void *arg), void *arg)
{
	return thread_start_stack(fn, arg, 0);
}

void *thread_join(struct thread *t)
{
	void *result;

	require(pthread_join(t->thread, &result) == 0);
	free(t);
	return result;
}

pid_t thread_tid(const struct thread *t)
{
	return t->tid;
}

pthread_t thread_pthread(const struct thread *t)
{
	return t->thread;
}

static bool read_task(pid_t tid, const char *file, char *buf, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)tid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* By the directory: a thread's number may be far from its process's, and lower when the numbers begin anew. */
pid_t find_library_thread(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	pid_t found = 0;

	require(dir);
	while (!found && (e = readdir(dir))) {
		pid_t tid = (pid_t)atoi(e->d_name);
		char name[32];

		if (tid > 0 && read_task(tid, "comm", name, sizeof name) && strcmp(name, "ctxfd\n") == 0)
			found = tid;
	}
	closedir(dir);
	return found;
}

/*
 * How often the thread has gone to sleep so far if it sleeps now, in system call nr (any if < 0, or if that cannot be
 * told; an emulator's calls have the host's numbers).
 */
static long times_asleep(pid_t tid, long nr)
{
	static const char key[] = "voluntary_ctxt_switches:";
	char buf[4096], *p;

	if (!read_task(tid, "stat", buf, sizeof buf) || !(p = strrchr(buf, ')')) || p[2] != 'S')
		return -1;
	if (nr >= 0 && !getenv("CTXFD_EMULATED") && read_task(tid, "syscall", buf, sizeof buf) && atol(buf) != nr)
		return -1;
	if (!read_task(tid, "status", buf, sizeof buf) || !(p = strstr(buf, key)))
		return -1;
	return atol(p + strlen(key));
}

/*
 * A thread that only waits for a lock sleeps as well, so it must be found in the same sleep five times, one
 * millisecond and more in between. (Under valgrind one thread runs at a time and the others sleep; we sleep in
 * between, so they get their turn.)
 */
void harness_wait_asleep(pid_t tid, long nr, const char *file, int line)
{
	int64_t until = harness_patience();
	long last = -1, n;

	for (int same = 0; same < 5; same = n >= 0 && n == last ? same + 1 : 0, last = n) {
		if (now() > until)
			harness_fail(file, line, "thread %d does not go to sleep", (int)tid);
		pass_time(CTXFD_MSEC);
		n = times_asleep(tid, nr);
	}
}

/* ---- Processes ------------------------------------------------------------------------------------------------- */

/* Only there in a coverage build. */
extern void __gcov_dump(void) __attribute__((weak));
extern void __gcov_reset(void) __attribute__((weak));

void save_counts(void)
{
	if (__gcov_dump && __gcov_reset) {
		__gcov_dump();
		__gcov_reset(); /* else it would be the last time */
	}
}

/*
 * A child may leave things behind: its end frees them. valgrind would call that a leak and change the exit code, so
 * there a child without any other error dies without a chance to look, and its result goes through shared memory.
 */
static void leave(int result, int *told)
{
	fflush(NULL);
	save_counts();
	if (RUNNING_ON_VALGRIND && VALGRIND_COUNT_ERRORS == 0) {
		*told = result;
		kill(getpid(), SIGKILL);
	}
	_exit(result);
}

int harness_in_child(int (*fn)(void *arg), void *arg, const char *file, int line)
{
	int64_t until = harness_patience();
	int *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), result;
	int status;
	pid_t pid;

	require(told != MAP_FAILED);
	*told = -1;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		leave(fn(arg), told);
	if (pid < 0)
		harness_fail(file, line, "fork: %s", strerror(errno));
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now() > until) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			harness_fail(file, line, "the child does not end");
		}
		pass_time(CTXFD_MSEC);
	}
	result = WIFEXITED(status) ? WEXITSTATUS(status) : *told;
	munmap(told, sizeof *told);
	if (result < 0)
		harness_fail(file, line, "the child was killed by signal %d", WTERMSIG(status));
	return result;
}
