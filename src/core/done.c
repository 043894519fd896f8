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
 * there makes an fd anew. n->forks tells whose the number is: it is published with the first number (make_fd), and
 * later by a release (publish_anew) that pairs with the acquire in is_inherited. remake_lock serialises later changes.
 *
 * MISTAKES. A number that the program closed may be a stranger's by now. What the signalling call itself finds not to
 * be ours is LOST: it is not closed, and whoever asks after that makes an fd anew. An eventfd is not looked at first: a
 * look would cost as much as the write.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/done.h"
#include "core/fork.h"
#include "core/kernel.h"
#include "core/lock.h"
#include "core/thread_cancel.h"

enum {
	NONE = -1, /* n->fd before anybody has asked */
	LOST = -2, /* once it is known that the program closed it; the node is DONE */
};

/* ---- Fork ------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t remake_lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_inherited(struct ctxfd *n)
{
	return atomic_load_explicit(&n->forks, memory_order_acquire) != ctxfdi_forks;
}

/* ThreadSanitizer's, NULL where the program has none. It follows numbers from open to close, and must see ours. */
extern void __sanitizer_syscall_pre_impl_close(long fd) __attribute__((weak));

/* By the system call's number, like add below, and for the same reasons. Keeps errno. */
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
		.it_value = alarm_at(at),
		.it_interval = { .tv_nsec = 1 },
	};

	return timerfd_settime(fd, TFD_TIMER_ABSTIME, &alarm, NULL);
}

static bool has_eventfd(const struct ctxfd *n)
{
	return n->deadline == INT64_MAX && !(load_word(n) & CTX_NEVER);
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

/* Whether fd is a timerfd, or a sandbox refuses to say: that is no proof of a stranger. */
static bool is_timerfd(int fd)
{
	struct itimerspec alarm;

	return timerfd_gettime(fd, &alarm) == 0 || (errno != EBADF && errno != EINVAL);
}

/*
 * Makes a timerfd readable without SET_TICKS: sets an alarm in the past. The kernel takes some microseconds to ring it,
 * in which err and fd would disagree; so this waits until it has rung. Setting it makes a readable fd unreadable until
 * then; so one thread at a time does it, and only if the fd is not readable yet. Another process that has the fd can
 * disarm it meanwhile; so this sets it again if it does not ring, and gives up after a second.
 */
static void make_timer_readable_by_alarm(int fd)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	struct thread_cancel before = thread_cancel_off();
	int64_t give_up;

	pthread_mutex_lock(&one_at_a_time);
	give_up = ctxfd_now() + CTXFD_SEC;
	/* A first look that a signal has interrupted has found nothing either. */
	for (int ready = poll(&readable, 1, 0) > 0; ready <= 0 && ctxfd_now() < give_up;
	     ready = poll(&readable, 1, 100))
		if (ready == 0 && arm(fd, 0) != 0)
			break;
	pthread_mutex_unlock(&one_at_a_time);
	thread_cancel_restore(before);
}

/* Makes an armed timerfd readable now. False: the number is no longer ours. */
static bool make_timer_readable(int fd)
{
	uint64_t one = 1; /* 2^64-1 would overflow to 0 when the deadline comes */

	if (!atomic_load_explicit(&set_ticks_refused, memory_order_relaxed)) {
		if (ioctl(fd, TFD_IOC_SET_TICKS, &one) == 0)
			return true;
		if (errno != ENOTTY && errno != EINVAL && errno != EPERM && errno != ENOSYS)
			return false;
	}
	if (!is_timerfd(fd))
		return false;
	atomic_store_explicit(&set_ticks_refused, true, memory_order_relaxed);
	make_timer_readable_by_alarm(fd);
	return true;
}

/*
 * Adds to an eventfd, by the system call's number: libc's write is a cancellation point, and a thread that
 * pthread_cancel takes in the middle of a walk would leave its holds for good. It is cheaper, too: 179 ns instead of
 * 222.
 */
static long add(int fd, uint64_t count)
{
	long written;

	do
		written = syscall(SYS_write, fd, &count, sizeof count);
	while (written < 0 && errno == EINTR);
	return written;
}

/*
 * Makes an eventfd readable for good: 2^56 reads of a semaphore are more than anybody lives to do. It is not given all
 * that it can hold: a write on top of this, by a second thread that signals or by a stranger, must fit as well, or it
 * would wake nobody. If a stranger has filled it, it is readable, and stays so; adding nothing still gives an edge to
 * those that wait for one. False: the number is no longer ours.
 */
static bool make_eventfd_readable(int fd)
{
	if (add(fd, UINT64_C(1) << 56) >= 0)
		return true;
	if (errno == EAGAIN)
		add(fd, 0);
	return errno != EBADF && errno != EINVAL;
}

/* ---- Asking and signalling --------------------------------------------------------------------------------------- */

/* False: the number is no longer ours. */
static bool make_readable(const struct ctxfd *n, int fd)
{
	return has_eventfd(n) ? make_eventfd_readable(fd) : make_timer_readable(fd);
}

/* n's number is not ours: makes it LOST. First signals again: another thread may have found it and made an fd anew. */
static void lose(struct ctxfd *n)
{
	int fd;

	pthread_mutex_lock(&remake_lock);
	fd = atomic_load_explicit(&n->fd, memory_order_relaxed);
	if (fd >= 0 && !make_readable(n, fd))
		atomic_store_explicit(&n->fd, LOST, memory_order_relaxed);
	change_flags(n, CTX_UNSIGNALLED, 0);
	pthread_mutex_unlock(&remake_lock);
}

/*
 * Takes UNSIGNALLED out of the word when it is done. In the child of a fork that has not asked for the fd, nobody waits
 * for it: there UNSIGNALLED stays, and the first to ask signals.
 */
void ctxfdi_signal_done(struct ctxfd *n)
{
	int saved = errno, fd;

	if (is_inherited(n))
		return;
	fd = atomic_load_explicit(&n->fd, memory_order_acquire);
	if (fd < 0 || !make_readable(n, fd))
		lose(n);
	else
		change_flags(n, CTX_UNSIGNALLED, 0); /* a thread that sees it gone may rely on the fd */
	errno = saved;
}

/*
 * Before the fd of a node that never ended is closed: disarms it, so that a dup of it does not become readable at the
 * deadline. False: the number is no longer ours.
 */
static bool silence(const struct ctxfd *n, int fd)
{
	static const struct itimerspec never;

	if (has_eventfd(n))
		return true;
	if (!is_timerfd(fd))
		return false;
	if (n->deadline > ctxfd_now())
		timerfd_settime(fd, 0, &never, NULL);
	return true;
}

void ctxfdi_close_done_fd(struct ctxfd *n)
{
	int saved = errno, fd = atomic_load_explicit(&n->fd, memory_order_relaxed);

	if (!is_inherited(n) && fd >= 0 && (!(load_word(n) & CTX_UNSIGNALLED) || silence(n, fd)))
		close_quietly(fd);
	errno = saved;
}

/* The first fd of a node in this line of processes. */
static int make_fd(struct ctxfd *n)
{
	int fd = open_done_fd(n), other = NONE;

	if (fd < 0)
		return fd;
	atomic_store_explicit(&n->forks, ctxfdi_forks, memory_order_relaxed);
	/* Release: a thread that reads the number sees `forks`. Acquire: so does the loser of the race. */
	if (atomic_compare_exchange_strong_explicit(&n->fd, &other, fd, memory_order_acq_rel, memory_order_acquire))
		return fd;
	close_quietly(fd);
	return other;
}

static bool is_usable(struct ctxfd *n)
{
	return !is_inherited(n) && atomic_load_explicit(&n->fd, memory_order_acquire) != LOST;
}

/* Under remake_lock: gives n the new fd, in place of one that is the parent process's or LOST. */
static void publish_anew(struct ctxfd *n, int fd)
{
	/* Before others know the number: a DONE node's fd must be readable by then. */
	if (load_word(n) & CTX_DONE)
		make_readable(n, fd);
	atomic_store_explicit(&n->fd, fd, memory_order_release);
	/* Before `forks`, so that a thread that sees the new `forks` sees that the fd is to be signalled. */
	change_flags(n, 0, CTX_UNSIGNALLED);
	atomic_store_explicit(&n->forks, ctxfdi_forks, memory_order_release);
	/* And once more: either whoever makes n DONE after this sees `forks` and signals, or our caller sees n DONE. */
	change_flags(n, 0, CTX_UNSIGNALLED);
}

/* 0 or -errno. */
static int make_anew(struct ctxfd *n)
{
	int fd = 0;

	pthread_mutex_lock(&remake_lock);
	if (!is_usable(n)) {
		fd = open_done_fd(n);
		if (fd >= 0)
			publish_anew(n, fd);
	}
	pthread_mutex_unlock(&remake_lock);
	return fd < 0 ? fd : 0;
}

int ctxfdi_published_fd(struct ctxfd *n)
{
	int err;

	if (atomic_load_explicit(&n->fd, memory_order_acquire) == NONE)
		return make_fd(n);
	if (!is_usable(n)) {
		err = make_anew(n);
		if (err)
			return err;
	}
	/* Read now: before it was seen to be usable the number was perhaps another. */
	return atomic_load_explicit(&n->fd, memory_order_acquire);
}
