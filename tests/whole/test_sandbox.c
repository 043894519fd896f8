/* SPDX-License-Identifier: MIT */
/*
 * Old kernels and sandboxes: a seccomp filter refuses a system call, with every errno that such things give, and what
 * the library does instead must work as well. Each test runs in a child, since a filter cannot be taken back.
 */
#include "commands.h"
#include "ctxfd_group.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/timerfd.h>

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

/* ---- Refusing ---------------------------------------------------------------------------------------------------- */

/* A call to refuse: all of them, or those whose argument `arg` has `value` in the bits of `mask`. */
struct refusal {
	long nr;
	int arg; /* -1: all */
	uint32_t mask, value;
};

/* The lower half of a 64-bit argument. */
#define LOW_HALF(arg) \
	(uint32_t)(offsetof(struct seccomp_data, args[arg]) + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0))

/* From here on this process and its threads are refused `n` calls with `error`. */
static void refuse(const struct refusal *r, size_t n, int error)
{
	struct sock_filter code[64];
	unsigned short length = 0;

	for (size_t i = 0; i < n; i++) {
		code[length++] =
		        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
		if (r[i].arg < 0) {
			code[length++] =
			        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r[i].nr, 0, 1);
		} else {
			code[length++] =
			        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r[i].nr, 0, 4);
			code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW_HALF(r[i].arg));
			code[length++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, r[i].mask);
			code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r[i].value, 0, 1);
		}
		code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error);
	}
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	require(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){ length, code }) == 0);
}

static int try_a_filter(void *arg)
{
	static const struct refusal none = { .nr = SYS_getppid, .arg = -1 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_GET_SECCOMP) < 0)
		return 1;
	refuse(&none, 1, ENOTTY);
	return syscall(SYS_getppid) == -1 && errno == ENOTTY ? 0 : 1;
}

/* One way to be refused. */
struct sandbox {
	const struct refusal *refusals;
	size_t n;
	int error;
};

static void enter(const struct sandbox *s)
{
	refuse(s->refusals, s->n, s->error);
}

/* Runs fn in a child for each errno. */
static void in_sandboxes(int (*fn)(void *sandbox), const struct refusal *refusals, size_t n, const int *errors)
{
	for (; *errors; errors++) {
		struct sandbox s = { refusals, n, *errors };

		if (in_child(fn, &s) != 0)
			fail_msg("refused with %s", strerror(*errors));
	}
}

#define IN_SANDBOXES(fn, refusals, ...) in_sandboxes(fn, refusals, COUNT(refusals), (const int[]){ __VA_ARGS__, 0 })

/* ---- TFD_IOC_SET_TICKS ------------------------------------------------------------------------------------------- */

static const struct refusal set_ticks[] = { { SYS_ioctl, 1, UINT32_MAX, (uint32_t)TFD_IOC_SET_TICKS } };
static const struct refusal set_ticks_and_gettime[] = {
	{ SYS_ioctl, 1, UINT32_MAX, (uint32_t)TFD_IOC_SET_TICKS },
#ifdef SYS_timerfd_gettime
	{ SYS_timerfd_gettime, -1, 0, 0 },
#endif
#ifdef SYS_timerfd_gettime64
	{ SYS_timerfd_gettime64, -1, 0, 0 },
#endif
};

/* The fd is readable the moment that cancel returns, and for good: a timer set to the past takes a while to fire. */
static int timerfds_are_signalled(void *sandbox)
{
	struct ctxfd *root = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	struct ctxfd *before = ctxfd_with_cancel(root);
	int fd = ctxfd_done_fd(before);

	enter(sandbox);
	for (int i = 0; i < rounds(1000); i++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
		struct ctxfd *child = ctxfd_with_cancel(ctx);
		int fds[] = { ctxfd_done_fd(ctx), ctxfd_done_fd(child) };
		uint64_t n;

		require(!readable(fds[0]) && !readable(fds[1]));
		ctxfd_cancel(ctx);
		require(readable(fds[0]) && readable(fds[1]));
		require(ctxfd_err(ctx) == -ECANCELED && ctxfd_err(child) == -ECANCELED);
		require(read(fds[0], &n, sizeof n) == sizeof n);
		wait_readable(fds[0]);
		ctxfd_unref(child);
		ctxfd_unref(ctx);
	}
	ctxfd_cancel(root);
	require(readable(fd));
	ctxfd_unref(before);
	ctxfd_unref(root);
	return 0;
}

/* The same when the clock ends it: whoever latches an expiry makes the fd readable before he answers. */
static int expiries_are_signalled(void *sandbox)
{
	enter(sandbox);
	for (int i = 0; i < rounds(300); i++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 300 * CTXFD_USEC);
		int fd = ctxfd_done_fd(ctx);

		while (!ctxfd_err(ctx))
			continue;
		require(readable(fd));
		require(ctxfd_err(ctx) == -ETIMEDOUT);
		ctxfd_unref(ctx);
	}
	return 0;
}

/* The program closed the fd by mistake, and what has the number now never gets readable: it is not waited for. */
static int a_reused_number_is_not_waited_for(void *sandbox)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	int fd = ctxfd_done_fd(ctx), silent[2];

	make_pipe(silent);
	enter(sandbox);
	require(dup3(silent[0], fd, O_CLOEXEC) == fd);
	ctxfd_cancel(ctx);
	require(ctxfd_err(ctx) == -ECANCELED);
	ctxfd_unref(ctx);
	close_pair(silent);
	return 0;
}

struct disarming {
	_Atomic int fd;
	_Atomic bool over;
};

static void *disarm_again_and_again(void *arg)
{
	static const struct itimerspec never;
	struct disarming *d = arg;

	while (!d->over)
		timerfd_settime(d->fd, 0, &never, NULL); /* or it is closed just now */
	return NULL;
}

/* Somebody who has the fd as well works against the alarm: a cancel comes to its end all the same. Tried
 * until he has hit it once. */
static int a_stranger_disarms_them(void *sandbox)
{
	struct disarming d = { .fd = -1 };
	struct thread *stranger = thread_start(disarm_again_and_again, &d);
	bool held_up = false;

	enter(sandbox);
	for (int i = 0; i < rounds(2000) && !held_up; i++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
		int64_t start;

		d.fd = ctxfd_done_fd(ctx);
		start = now();
		ctxfd_cancel(ctx);
		held_up = now() - start >= 100 * CTXFD_MSEC;
		require(ctxfd_err(ctx) == -ECANCELED);
		ctxfd_unref(ctx);
	}
	d.over = true;
	thread_join(stranger);
	return 0;
}

static void without_set_ticks(void **state)
{
	IN_SANDBOXES(timerfds_are_signalled, set_ticks_and_gettime, EPERM, ENOSYS);
	IN_SANDBOXES(a_stranger_disarms_them, set_ticks, ENOTTY);
	IN_SANDBOXES(a_reused_number_is_not_waited_for, set_ticks, ENOTTY, EINVAL, EPERM, ENOSYS);
	IN_SANDBOXES(timerfds_are_signalled, set_ticks, ENOTTY, EINVAL, EPERM, ENOSYS);
	IN_SANDBOXES(expiries_are_signalled, set_ticks, ENOTTY, EINVAL, EPERM, ENOSYS);
}

/* ---- Futexes ----------------------------------------------------------------------------------------------------- */

static const struct refusal futexes[] = {
#ifdef SYS_futex
	{ SYS_futex, -1, 0, 0 },
#endif
#ifdef SYS_futex_time64
	{ SYS_futex_time64, -1, 0, 0 },
#endif
};
static const struct refusal futex_bitsets[] = {
#ifdef SYS_futex
	{ SYS_futex, 1, (uint32_t)FUTEX_CMD_MASK, FUTEX_WAIT_BITSET },
	{ SYS_futex, 1, (uint32_t)FUTEX_CMD_MASK, FUTEX_WAKE_BITSET },
#endif
#ifdef SYS_futex_time64
	{ SYS_futex_time64, 1, (uint32_t)FUTEX_CMD_MASK, FUTEX_WAIT_BITSET },
	{ SYS_futex_time64, 1, (uint32_t)FUTEX_CMD_MASK, FUTEX_WAKE_BITSET },
#endif
};

/* libc itself waits with futexes for a thread that has not ended, so first it must be gone. */
static void join_without_futex(struct thread *t)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/task/%d", (int)thread_tid(t));
	while (access(path, F_OK) == 0)
		pass_time(100 * CTXFD_USEC);
	thread_join(t);
}

/* How often the thread has slept. */
static long sleeps_of(const struct thread *t)
{
	char path[64], line[128];
	long sleeps = -1;
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)thread_tid(t));
	f = fopen(path, "re");
	require(f);
	while (sleeps < 0 && fgets(line, sizeof line, f))
		sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
	require(fclose(f) == 0 && sleeps >= 0);
	return sleeps;
}

/* It may look again and again, but not without a pause. */
static bool sleeps_often(const struct thread *t)
{
	long before = sleeps_of(t);

	pass_time(100 * CTXFD_MSEC);
	return sleeps_of(t) - before >= 5;
}

static void *wait_for_end(void *arg)
{
	require(ctxfd_wait(arg) == -ECANCELED);
	return NULL;
}

static void *sleep_long(void *arg)
{
	require(ctxfd_sleep(arg, 3600 * CTXFD_SEC) == -ECANCELED);
	return NULL;
}

static int waiting_works(void *sandbox)
{
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *child = ctxfd_with_cancel(root);
	struct ctxfd *timed = ctxfd_with_timeout(root, 60 * CTXFD_MSEC);
	struct thread *waiter, *sleeper;
	int64_t start = now(), deadline;

	enter(sandbox);
	require(ctxfd_sleep(root, 30 * CTXFD_MSEC) == 0);
	require(now() - start >= 30 * CTXFD_MSEC);
	require(ctxfd_deadline(timed, &deadline));
	require(ctxfd_wait(timed) == -ETIMEDOUT);
	require(now() >= deadline && now() - deadline < CTXFD_SEC * slow());
	require(ctxfd_sleep(timed, CTXFD_SEC) == -ETIMEDOUT);
	waiter = thread_start(wait_for_end, child);
	sleeper = thread_start(sleep_long, root);
	wait_until(sleeps_often(waiter)); /* unless nobody runs us meanwhile */
	ctxfd_cancel(root);
	join_without_futex(waiter);
	join_without_futex(sleeper);
	ctxfd_unref(timed);
	ctxfd_unref(child);
	ctxfd_unref(root);
	return 0;
}

/* Threads that meet at locks and at cancels at work have only the fallback to wait with. */
static void *churn(void *arg)
{
	struct ctxfd *_Atomic *slots = arg;

	for (int i = 0; i < rounds(3000); i++) {
		struct ctxfd *root = slots[0], *ctx = ctxfd_with_cancel(root), *below = ctxfd_with_cancel(ctx);

		require(ctx && below);
		if (i % 3 == 0)
			ctxfd_cancel(ctx);
		ctxfd_unref(ctx);
		require(i % 3 != 0 || ctxfd_err(below));
		ctxfd_unref(below);
	}
	return NULL;
}

static void *cancel_root(void *arg)
{
	struct ctxfd *root = ((struct ctxfd * _Atomic *)arg)[0];

	pass_time(2 * CTXFD_MSEC);
	ctxfd_cancel(root);
	for (int i = 1; i < 8; i++)
		require(ctxfd_err(((struct ctxfd * _Atomic *)arg)[i]) == -ECANCELED);
	return NULL;
}

static int locks_work(void *sandbox)
{
	struct ctxfd *_Atomic slots[8];
	struct thread *threads[6];

	enter(sandbox);
	for (int r = 0; r < rounds(20); r++) {
		slots[0] = ctxfd_with_cancel(ctxfd_background());
		for (int i = 1; i < 8; i++)
			slots[i] = ctxfd_with_cancel(slots[i - 1]);
		for (size_t i = 0; i < COUNT(threads); i++)
			threads[i] = thread_start(i < 2 ? cancel_root : churn, slots);
		for (size_t i = 0; i < COUNT(threads); i++)
			join_without_futex(threads[i]);
		for (int i = 0; i < 8; i++)
			ctxfd_unref(slots[i]);
	}
	return 0;
}

static void without_futexes(void **state)
{
	if (getenv("LD_PRELOAD") && strstr(getenv("LD_PRELOAD"), "valgrind"))
		skip_test("valgrind's threads cannot live without futexes either");
	IN_SANDBOXES(waiting_works, futexes, ENOSYS, EPERM, EACCES);
}

/* libc's own locks need the simple futexes. */
static void without_futex_bitsets(void **state)
{
	IN_SANDBOXES(waiting_works, futex_bitsets, ENOSYS, EINVAL);
	IN_SANDBOXES(locks_work, futex_bitsets, ENOSYS, EPERM);
}

/* ---- preadv2 and pwritev2 ---------------------------------------------------------------------------------------- */

static const struct refusal vectored[] = { { SYS_preadv2, -1, 0, 0 }, { SYS_pwritev2, -1, 0, 0 } };

struct transfer {
	struct ctxfd *ctx;
	int fd;
	int mode; /* the fd's, which must stay */
};

static void *read_until_cancelled(void *arg)
{
	struct transfer *t = arg;
	char byte;

	require(ctxfd_read(t->ctx, t->fd, &byte, 1) == 1);
	require(ctxfd_read(t->ctx, t->fd, &byte, 1) == -ECANCELED);
	require(fcntl(t->fd, F_GETFL) == t->mode);
	return NULL;
}

static void *write_until_cancelled(void *arg)
{
	static const char much[3 * PIPE_BUF];
	struct transfer *t = arg;
	ssize_t n;

	while ((n = ctxfd_write(t->ctx, t->fd, much, sizeof much)) > 0)
		require(n <= (ssize_t)sizeof much);
	require(n == -ECANCELED);
	require(fcntl(t->fd, F_GETFL) == t->mode);
	return NULL;
}

static void read_and_write_a_pipe(int mode)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct transfer in = { .ctx = ctx }, out = { .ctx = ctx };
	struct thread *reader, *writer;
	int a[2], b[2];

	require(pipe2(a, O_CLOEXEC | mode) == 0 && pipe2(b, O_CLOEXEC | mode) == 0);
	in.fd = a[0];
	in.mode = fcntl(in.fd, F_GETFL);
	out.fd = b[1];
	out.mode = fcntl(out.fd, F_GETFL);
	reader = thread_start(read_until_cancelled, &in);
	writer = thread_start(write_until_cancelled, &out);
	thread_wait_asleep_in(reader, SYS_ppoll);
	require(write(a[1], "x", 1) == 1);
	thread_wait_asleep_in(reader, SYS_ppoll);
	thread_wait_asleep_in(writer, SYS_ppoll);
	ctxfd_cancel(ctx);
	thread_join(reader);
	thread_join(writer);
	close_pair(a);
	close_pair(b);
	ctxfd_unref(ctx);
}

static int reading_and_writing_work(void *sandbox)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	char buf[64] = "";
	int fd, wrong[2];

	enter(sandbox);
	require(pipe2(wrong, O_CLOEXEC) == 0);
	require(ctxfd_read(ctx, wrong[1], buf, 1) == -EBADF);
	require(ctxfd_write(ctx, wrong[0], buf, 1) == -EBADF);
	close(wrong[1]); /* then it polls ready for anything */
	require(ctxfd_write(ctx, wrong[0], buf, 1) == -EBADF);
	close(wrong[0]);
	read_and_write_a_pipe(0);
	read_and_write_a_pipe(O_NONBLOCK);
	fd = open("/proc/self/comm", O_RDWR | O_CLOEXEC);
	require(fd >= 0);
	require(ctxfd_write(ctx, fd, "confined", 8) == 8);
	require(ctxfd_read(ctx, fd, buf, sizeof buf) == 9);
	close(fd);
	fd = inotify_init1(IN_CLOEXEC); /* no event ever comes */
	require(fd >= 0);
	require(ctxfd_read(ctx, fd, buf, 0) == 0);
	require(ctxfd_read(ctx, -1, buf, 0) == -EBADF);
	close(fd);
	ctxfd_unref(ctx);
	return 0;
}

/* Several share a blocking pipe: one gets what comes, and the context reaches the others all the same. */
enum { SHARERS = 4 };

static void *share_a_pipe(void *arg)
{
	static const char page[PIPE_BUF];
	struct transfer *t = arg;
	char buf[8];
	ssize_t n;

	if (t->mode == O_RDONLY)
		return (void *)ctxfd_read(t->ctx, t->fd, buf, sizeof buf);
	while ((n = ctxfd_write(t->ctx, t->fd, page, sizeof page)) > 0)
		continue;
	return (void *)n;
}

/* What the pipe still lacks for one of the sharers to go on. */
static void give_or_take(const int pipe[2], int mode)
{
	static char page[PIPE_BUF];

	if (mode == O_RDONLY)
		require(write(pipe[1], page, 8) == 8);
	else
		require(read(pipe[0], page, sizeof page) == sizeof page);
}

static void make_shared(int pipe[2], int mode)
{
	require(pipe2(pipe, O_CLOEXEC) == 0);
	if (mode == O_WRONLY) {
		require(fcntl(pipe[1], F_SETPIPE_SZ, PIPE_BUF) >= 0);
		fill(pipe[1]);
	}
}

static void share_by_threads(int mode)
{
	for (int r = 0; r < rounds(200); r++) {
		struct transfer t = { .ctx = ctxfd_with_cancel(ctxfd_background()), .mode = mode };
		struct thread *threads[SHARERS];
		int pipe[2], served = 0;

		make_shared(pipe, mode);
		t.fd = pipe[mode == O_WRONLY];
		for (int i = 0; i < SHARERS; i++)
			threads[i] = thread_start(share_a_pipe, &t);
		if (r % 50 == 0)
			for (int i = 0; i < SHARERS; i++)
				thread_wait_asleep_in(threads[i], SYS_ppoll);
		give_or_take(pipe, mode);
		if (mode == O_RDONLY)
			wait_until(!readable(pipe[0]));
		ctxfd_cancel(t.ctx);
		for (int i = 0; i < SHARERS; i++) {
			ssize_t n = (ssize_t)thread_join(threads[i]);

			require(n == -ECANCELED || (n == 8 && mode == O_RDONLY));
			served += n == 8;
		}
		require(served == (mode == O_RDONLY));
		close_pair(pipe);
		ctxfd_unref(t.ctx);
	}
}

static int share_in_child(void *arg)
{
	ssize_t n = (ssize_t)share_a_pipe(arg);

	return n == -ETIMEDOUT || n == 8 ? 0 : 1;
}

static void share_by_processes(int mode)
{
	for (int r = 0; r < rounds(50); r++) {
		struct transfer t = { .mode = mode };
		pid_t pids[SHARERS];
		int pipe[2], status;

		make_shared(pipe, mode);
		t.fd = pipe[mode == O_WRONLY];
		t.ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
		for (int i = 0; i < SHARERS; i++) {
			pids[i] = fork();
			if (pids[i] == 0)
				_exit(share_in_child(&t));
		}
		give_or_take(pipe, mode);
		for (int i = 0; i < SHARERS; i++)
			require(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
		close_pair(pipe);
		ctxfd_unref(t.ctx);
	}
}

static int a_pipe_is_shared(void *sandbox)
{
	enter(sandbox);
	share_by_processes(O_RDONLY);
	share_by_processes(O_WRONLY);
	share_by_threads(O_RDONLY);
	share_by_threads(O_WRONLY);
	return 0;
}

static void without_preadv2(void **state)
{
	IN_SANDBOXES(a_pipe_is_shared, vectored, EOPNOTSUPP);
	IN_SANDBOXES(reading_and_writing_work, vectored, ENOSYS, EPERM, EACCES, EOPNOTSUPP);
}

/* ---- What has no other way: an error, and the rest works --------------------------------------------------------- */

static const struct refusal descriptors[] = { { SYS_eventfd2, -1, 0, 0 }, { SYS_timerfd_create, -1, 0, 0 } };

static int contexts_work(void *arg)
{
	struct sandbox *sandbox = arg;
	struct ctxfd *root = ctxfd_with_cancel(ctxfd_background()), *child = ctxfd_with_cancel(root);
	struct ctxfd *timed = ctxfd_with_timeout(root, 5 * CTXFD_MSEC);

	enter(sandbox);
	require(ctxfd_done_fd(root) == -sandbox->error);
	require(ctxfd_done_fd(timed) == -sandbox->error);
	require(ctxfd_wait(timed) == -ETIMEDOUT);
	require(ctxfd_err(child) == 0);
	ctxfd_cancel(root);
	require(ctxfd_wait(child) == -ECANCELED);
	ctxfd_unref(timed);
	ctxfd_unref(child);
	ctxfd_unref(root);
	return 0;
}

static void without_eventfd_and_timerfd(void **state)
{
	IN_SANDBOXES(contexts_work, descriptors, ENOSYS, EPERM);
}

static const struct refusal epolls[] = { { SYS_epoll_create1, -1, 0, 0 } };
static const struct refusal watches[] = { { SYS_epoll_ctl, -1, 0, 0 } };
static const struct refusal signalfds[] = {
	{ SYS_signalfd4, -1, 0, 0 },
#ifdef SYS_signalfd /* to which some libcs fall back */
	{ SYS_signalfd, -1, 0, 0 },
#endif
};
static const struct refusal threads[] = {
	{ SYS_clone, -1, 0, 0 },
#ifdef SYS_clone3
	{ SYS_clone3, -1, 0, 0 },
#endif
};

static void nothing(void *arg)
{
	(void)arg;
}

/* Whatever kept a thread from starting, some libcs say EAGAIN. EINVAL would be the caller's mistake. */
static bool says_why(int err, const struct sandbox *s)
{
	return (err == s->error && err != EINVAL) || (s->refusals == threads && err == EAGAIN);
}

static int dispatcher_says_why(void *arg)
{
	struct sandbox *sandbox = arg;
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_after *handle = NULL;
	int fds = count_fds(), pipe[2];

	enter(sandbox);
	require(says_why(-ctxfd_after_func(ctx, nothing, NULL, &handle), sandbox));
	require(!handle);
	require(pipe2(pipe, O_CLOEXEC) == 0);
	require(!ctxfd_with_fd(ctx, pipe[0], POLLIN, 0) && says_why(errno, sandbox));
	close_pair(pipe);
	require(count_fds() == fds);
	require(readable(ctxfd_done_fd(ctx)) == false);
	ctxfd_cancel(ctx);
	require(readable(ctxfd_done_fd(ctx)));
	ctxfd_unref(ctx);
	return 0;
}

static int call_nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int do_nothing(const struct ctxfd *ctx, void *arg)
{
	(void)ctx;
	(void)arg;
	return 0;
}

static int calls_and_groups_say_why(void *arg)
{
	struct ctxfd_group *g = ctxfd_group_new(ctxfd_background(), 1);

	enter(arg);
	require(says_why(-ctxfd_call(ctxfd_background(), call_nothing, NULL, NULL, NULL), arg));
	require(says_why(-ctxfd_group_go(g, do_nothing, NULL), arg));
	require(ctxfd_group_wait(g) == 0);
	return 0;
}

static int signals_say_why(void *arg)
{
	struct sandbox *sandbox = arg;
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	sigset_t set, mask;

	enter(sandbox);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	require(!ctxfd_with_signals(ctx, &set) && errno == sandbox->error);
	require(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && !sigismember(&mask, SIGUSR1));
	ctxfd_close(ctx);
	return 0;
}

static void without_a_dispatcher(void **state)
{
	IN_SANDBOXES(dispatcher_says_why, epolls, ENOSYS, EPERM);
	IN_SANDBOXES(dispatcher_says_why, watches, EPERM, ENOSYS);
	IN_SANDBOXES(dispatcher_says_why, threads, EAGAIN, EPERM, EINVAL);
	IN_SANDBOXES(calls_and_groups_say_why, threads, EAGAIN, EPERM, EINVAL);
	IN_SANDBOXES(signals_say_why, signalfds, ENOSYS, EPERM);
}

/* ---- Processes --------------------------------------------------------------------------------------------------- */

static const struct refusal pidfd_calls[] = { { SYS_pidfd_send_signal, -1, 0, 0 } };

/* It only serves to tell a pidfd from another fd. */
static int processes_end_contexts(void *sandbox)
{
	struct ctxfd *ctx;
	int pidfd, status;
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd >= 0) {
		enter(sandbox);
		ctx = ctxfd_with_process(ctxfd_background(), pidfd, -8);
		require(ctx && ctxfd_err(ctx) == 0);
		require(kill(pid, SIGKILL) == 0);
		require(ctxfd_wait(ctx) == -ECANCELED && ctxfd_cause(ctx) == -8);
		ctxfd_unref(ctx);
		close(pidfd);
	}
	kill(pid, SIGKILL);
	require(waitpid(pid, &status, 0) == pid);
	return 0;
}

static void without_pidfd_send_signal(void **state)
{
	IN_SANDBOXES(processes_end_contexts, pidfd_calls, ENOSYS, EPERM);
}

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

#ifdef __s390__
#define FLAGS_OF_CLONE 1
#else
#define FLAGS_OF_CLONE 0
#endif

static const struct refusal close_range_only[] = { { 436, -1, 0, 0 } };
static const struct refusal group_signals[] = { { SYS_pidfd_send_signal, 3, 4, 4 } };
static const struct refusal pidfd_clones[] = { { SYS_clone, FLAGS_OF_CLONE, 0x1000, 0x1000 } };
static const struct refusal pidfd_waits[] = { { SYS_waitid, 0, UINT32_MAX, 3 } };

static int a_command_has_no_other_fds(void *sandbox)
{
	struct script s;

	make_script(&s, "ls /proc/self/fd");
	for (int fd = 50; fd < 350; fd += 3)
		require(dup2(s.pipe[1], fd) == fd);
	enter(sandbox);
	require(exit_code(ctxfd_background(), &s.command) == 0);
	for (int fd = 50; fd < 350; fd += 3)
		close(fd);
	require(strcmp(output(&s), "0\n1\n2\n3\n") == 0);
	drop_script(&s);
	return 0;
}

/* The leader dies of the stop, and its helper does not; with spawn it is reaped before the dispatcher hears of it. */
static int a_group_is_stopped(void *sandbox)
{
	struct ctxfd_dispatcher *d = ctxfd_dispatcher_new();
	const struct ctxfd *home = ctxfd_with_dispatcher(ctxfd_background(), d);
	int status;

	enter(sandbox);
	for (int way = 0; way < 3; way++) {
		struct ctxfd *ctx = ctxfd_with_cancel(home);
		int pidfd = -1;
		struct running r;
		struct script s;

		make_script(&s, "(trap '' TERM; echo; exec sleep 3600) & trap 'exit 7' TERM; echo; while :; do sleep "
		                "0.01; done");
		s.command.stop_signal = way == 1 ? SIGKILL : SIGTERM;
		s.command.flags = CTXFD_OWN_GROUP;
		s.command.grace = INT64_MAX;
		if (way < 2)
			start_running(&r, ctx, &s.command);
		else
			require((pidfd = ctxfd_spawn(ctx, &s.command, NULL)) >= 0);
		hear(&s);
		hear(&s);
		ctxfd_cancel(ctx);
		if (way < 2) {
			require(end_of_running(&r) == (way == 1 ? SIGKILL : 7 << 8));
		} else {
			require(ctxfd_dispatcher_run(d) == 1);
			require(waitpid(-1, &status, 0) > 0 && status == 7 << 8);
			while (ctxfd_dispatcher_run(d) == 0 || readable(ctxfd_dispatcher_fd(d)))
				continue;
			close(pidfd);
		}
		require(strcmp(output(&s), "") == 0);
		drop_script(&s);
		ctxfd_close(ctx);
	}
	ctxfd_unref(home);
	ctxfd_dispatcher_free(d);
	return 0;
}

/* Says why, and starts nothing. */
static int no_command_is_run(void *sandbox)
{
	const struct sandbox *box = sandbox;
	struct ctxfd_command c = { .argv = (char *[]){ "/bin/true", NULL }, .flags = CTXFD_PASS_CONTEXT };
	int fds = count_fds(), error = box->error == EINVAL ? ENOSYS : box->error;

	enter(sandbox);
	require(ctxfd_run(ctxfd_background(), &c, NULL) == -error);
	require(ctxfd_spawn(ctxfd_background(), &c, NULL) == -error);
	require(count_fds() == fds && !has_children());
	return 0;
}

static void commands_without_what_they_use(void **state)
{
	NEED_PROCESSES();
	IN_SANDBOXES(a_command_has_no_other_fds, close_range_only, ENOSYS, EPERM);
	IN_SANDBOXES(a_group_is_stopped, group_signals, EINVAL, ENOSYS, EPERM);
	IN_SANDBOXES(a_group_is_stopped, pidfd_calls, ENOSYS, EPERM);
	IN_SANDBOXES(no_command_is_run, pidfd_clones, EPERM);
	IN_SANDBOXES(no_command_is_run, pidfd_waits, EINVAL, EPERM, ENOSYS);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_set_ticks),           cmocka_unit_test(without_futexes),
		cmocka_unit_test(without_futex_bitsets),       cmocka_unit_test(without_preadv2),
		cmocka_unit_test(without_eventfd_and_timerfd), cmocka_unit_test(without_a_dispatcher),
		cmocka_unit_test(without_pidfd_send_signal),   cmocka_unit_test(commands_without_what_they_use),
	};

	if (in_child(try_a_filter, NULL) != 0) {
		printf("no seccomp filters here\n");
		return 77;
	}
	return run_all(tests);
}
