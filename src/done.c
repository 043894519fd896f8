/* SPDX-License-Identifier: MIT */
/*
 * The done fd: made the first time that somebody asks, readable from the end on.
 *
 * Without a deadline it is an eventfd, with one a timerfd that is alarm and done signal in one. Either way the kernel
 * does the waking, for every context by itself, whatever the program's threads are doing.
 *
 * HOW NO WAKE-UP IS LOST. The maker publishes the number in n->fd, then sets HAS_FD and UNSIGNALLED in the word, then
 * looks at the state once more. Whoever makes n DONE with UNSIGNALLED there signals; if n was DONE before the flag
 * came, the maker's own last look finds it. A thread that loses the race to publish takes the last two steps all the
 * same, for the winner may not have come to them yet. Signalling twice does no harm.
 *
 * FORK. A child's copy of a context has its parent's number, and at first the parent's open file behind it. By the time
 * that the child asks, its program may have closed that number and had it again for something else, and nothing cheap
 * tells the two apart. So the child never touches an inherited number: not by a signal, not by a close. Whoever asks
 * there makes an fd anew. n->fork_generation tells whose the number is; fork_lock serialises the change.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "lock.h"

enum { NONE = -1 }; /* n->fd before anybody has asked */

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

/*
 * How many forks lie between the process that loaded the library and this one. Written while the child has one thread.
 */
static uint32_t fork_generation;

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;

static void after_fork_in_child(void)
{
	fork_generation++;
}

__attribute__((constructor)) static void watch_forks(void)
{
	/* It can fail for want of memory at program start; then a forked child takes its parent's fds for its own. */
	pthread_atfork(NULL, NULL, after_fork_in_child);
}

static bool is_inherited(struct ctxfd *n)
{
	return atomic_load_explicit(&n->fork_generation, memory_order_acquire) != fork_generation;
}

/* ThreadSanitizer's, where the program has it: it follows the numbers that it sees opened and closed. */
extern void __sanitizer_syscall_pre_impl_close(long fd) __attribute__((weak));

/* By number, like post below, and for the same reasons. Keeps errno. */
static void close_quietly(int fd)
{
	int saved = errno;

	if (__sanitizer_syscall_pre_impl_close)
		__sanitizer_syscall_pre_impl_close(fd);
	syscall(SYS_close, fd);
	errno = saved;
}

/* ---- The two kinds of fd ----------------------------------------------------------------------------------------- */

/* Whether a kernel without CONFIG_CHECKPOINT_RESTORE, or a sandbox, has refused SET_TICKS. Relaxed: only a hint. */
static _Atomic bool set_ticks_refused;

/* Sets an alarm for CLOCK_MONOTONIC `at`, and again 1 ns later for ever, so that a stray read changes nothing. */
static int arm(int fd, int64_t at)
{
	struct itimerspec alarm = {
		.it_value = { .tv_sec = (time_t)(at / CTXFD_SEC), .tv_nsec = (long)(at % CTXFD_SEC) },
		.it_interval = { .tv_nsec = 1 },
	};

	if (at <= 0) /* zero would disarm it */
		alarm.it_value = (struct timespec){ .tv_nsec = 1 };
	else if ((int64_t)alarm.it_value.tv_sec != at / CTXFD_SEC) /* a time_t of 32 bits: 68 years of uptime */
		alarm.it_value.tv_sec = INT32_MAX;
	return timerfd_settime(fd, TFD_TIMER_ABSTIME, &alarm, NULL);
}

static bool has_eventfd(const struct ctxfd *n)
{
	return n->deadline == INT64_MAX && !(load_word(n) & NEVER);
}

/* A context that is never done gets a timerfd that is never armed: a stray write to it fails. */
static int open_done_fd(const struct ctxfd *n)
{
	int fd;

	if (has_eventfd(n)) {
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE);
		return fd < 0 ? -errno : fd;
	}
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (n->deadline != INT64_MAX && arm(fd, n->deadline) != 0) {
		int err = -errno;
		close_quietly(fd);
		return err;
	}
	return fd;
}

/*
 * The same without SET_TICKS: an alarm in the past. It takes the kernel some microseconds to fire, in which err and fd
 * would disagree: so wait for it. And setting it makes the fd unreadable until then: so one thread at a time, and never
 * again.
 */
static void fire_by_alarm(int fd)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	struct entry entry = enter();

	pthread_mutex_lock(&one_at_a_time);
	/* Interrupted, it has found nothing either. */
	if (poll(&readable, 1, 0) <= 0 && arm(fd, 0) == 0)
		while (poll(&readable, 1, -1) < 0 && errno == EINTR)
			continue;
	pthread_mutex_unlock(&one_at_a_time);
	leave(entry);
}

/* Makes an armed timerfd readable now. */
static void fire(int fd)
{
	uint64_t one = 1; /* 2^64-1 would overflow to 0 when the deadline comes */

	if (!atomic_load_explicit(&set_ticks_refused, memory_order_relaxed)) {
		if (ioctl(fd, TFD_IOC_SET_TICKS, &one) == 0)
			return;
		if (errno != ENOTTY && errno != EINVAL && errno != EPERM && errno != ENOSYS)
			return; /* the number is no longer ours */
		atomic_store_explicit(&set_ticks_refused, true, memory_order_relaxed);
	}
	fire_by_alarm(fd);
}

/*
 * 2^56 reads of a semaphore are more than anybody lives to do. Not all that it can hold: a write on top of it, by a
 * second thread that signals or by a stranger, must fit as well, or it would not wake anyone (and in blocking mode
 * never return).
 *
 * By number, since libc's write is a cancellation point, and a thread that pthread_cancel takes in the middle of a walk
 * would leave its holds for good. It is cheaper, too: 179 ns for 222.
 */
static void post(int fd)
{
	uint64_t plenty = UINT64_C(1) << 56;
	long written;

	do
		written = syscall(SYS_write, fd, &plenty, sizeof plenty);
	while (written < 0 && errno == EINTR);
}

/* ---- Asking and signalling --------------------------------------------------------------------------------------- */

/*
 * Makes the fd of a DONE node readable, and says so in the word. Any thread, any number of times. In a forked child
 * that has not asked nobody waits: UNSIGNALLED stays, and who asks sees to it.
 */
void signal_done(struct ctxfd *n)
{
	int saved = errno, fd;

	if (is_inherited(n))
		return;
	fd = atomic_load_explicit(&n->fd, memory_order_acquire);
	if (has_eventfd(n))
		post(fd);
	else
		fire(fd);
	/* Who sees the flag gone may count on the fd. */
	change_flags(n, UNSIGNALLED, 0);
	errno = saved;
}

/* Before n, which HAS_FD, is freed. */
void close_done_fd(struct ctxfd *n)
{
	if (!is_inherited(n))
		close_quietly(atomic_load_explicit(&n->fd, memory_order_relaxed));
}

/* The first fd of a node in this line of processes. */
static int make_fd(struct ctxfd *n)
{
	int fd = open_done_fd(n), other = NONE;

	if (fd < 0)
		return fd;
	atomic_store_explicit(&n->fork_generation, fork_generation, memory_order_relaxed);
	/* Release: who reads the number sees the generation. Acquire: so does the loser of the race. */
	if (atomic_compare_exchange_strong_explicit(&n->fd, &other, fd, memory_order_acq_rel, memory_order_acquire))
		return fd;
	close_quietly(fd);
	return other;
}

/* In a child: an fd of its own for a node that has its parent's number. 0 or -errno. */
static int make_own_fd(struct ctxfd *n)
{
	int fd = 0;

	pthread_mutex_lock(&fork_lock);
	if (is_inherited(n)) {
		fd = open_done_fd(n);
		if (fd >= 0) {
			/*
			 * First, so that who sees that the fd is its own sees the number, and that it is to be
			 * signalled.
			 */
			atomic_store_explicit(&n->fd, fd, memory_order_relaxed);
			change_flags(n, 0, UNSIGNALLED);
			atomic_store_explicit(&n->fork_generation, fork_generation, memory_order_release);
			/*
			 * And last: either whoever makes n DONE after this sees the generation, and signals; or our
			 * caller sees it DONE.
			 */
			change_flags(n, 0, UNSIGNALLED);
		}
	}
	pthread_mutex_unlock(&fork_lock);
	return fd < 0 ? fd : 0;
}

/* The node's fd as it stands, made if there is none. */
static int published_fd(struct ctxfd *n)
{
	int fd = atomic_load_explicit(&n->fd, memory_order_acquire), err;

	if (fd == NONE)
		return make_fd(n);
	if (is_inherited(n)) {
		err = make_own_fd(n);
		return err ? err : atomic_load_explicit(&n->fd, memory_order_acquire);
	}
	return fd;
}

int ctxfd_done_fd(const struct ctxfd *ctx)
{
	/* What background, todo and without_cancel share. */
	static struct ctxfd never = { .word = NEVER, .fd = NONE, .deadline = INT64_MAX };
	struct ctxfd *n = node_of(ctx);
	int saved = errno, fd;

	if (load_word(n) & NEVER)
		n = &never;
	fd = published_fd(n);
	if (fd >= 0 && n != &never) {
		if (!(load_word(n) & HAS_FD))
			change_flags(n, 0, HAS_FD | UNSIGNALLED);
		settle(n);
	}
	errno = saved;
	return fd;
}
