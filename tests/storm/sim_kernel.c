/* SPDX-License-Identifier: MIT */
/*
 * The kernel of the simulated machine: what the library calls, as sim_NAME. Descriptors (eventfds, timerfds, epoll
 * sets), the clock, futexes, mutexes and threads. Each call is a step: others may have the turn before it.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FIRST_FD 100
#define FDS      64
#define WATCHES  8
#define NEVER    INT64_MAX

int64_t sim_clock;

static struct file {
	enum kind { CLOSED, EVENT, TIMER, EPOLL } kind;
	bool semaphore;
	uint64_t count; /* of an eventfd; how often a timer has fired */
	int64_t at;     /* when a timer is to fire */
	bool fired, repeats;
	struct sim_view seen;  /* by those who have used it: the kernel's locks order them */
	struct sim_time shown; /* when it was made readable, unless by the clock */
	uint32_t edges;        /* how often something has come */
	struct watch {
		int fd; /* 0: none */
		struct epoll_event event;
		uint32_t told; /* of its edges; it is edge-triggered */
	} watches[WATCHES];
} files[FDS];

/* What a sandbox, or an old kernel, refuses: in some schedules by lot, and then always. */
static struct refusal {
	bool decided, refused;
} set_ticks, futexes;

static bool is_refused(struct refusal *r)
{
	if (!r->decided)
		*r = (struct refusal){ true, sim_chance(8) };
	return r->refused;
}

/* What those who wait for a descriptor sleep on. */
static const char any_fd;

void sim_kernel_reset(void)
{
	memset(files, 0, sizeof files);
	set_ticks = futexes = (struct refusal){ false, false };
	sim_clock = INT64_C(1000000000000);
}

void sim_kernel_check(void)
{
	int epolls = 0, events = 0, timers = 0;

	/*
	 * The library's dispatcher has three as long as it has its thread. And the timer without an alarm stays that
	 * contexts which are never done share.
	 */
	for (int i = 0; i < FDS; i++) {
		epolls += files[i].kind == EPOLL;
		events += files[i].kind == EVENT;
		timers += files[i].kind == TIMER;
		if ((files[i].kind == EVENT && files[i].semaphore) || (files[i].kind == TIMER && files[i].repeats))
			sim_fail("fd %d is not closed", FIRST_FD + i);
	}
	if (epolls != sim_daemons() || events != epolls || timers < epolls || timers > epolls + 1)
		sim_fail("%d sets, %d eventfds and %d timers are not closed", epolls, events, timers);
}

/* ---- Descriptors ------------------------------------------------------------------------------------------------- */

static struct file *file_of(int fd, const char *what)
{
	struct file *f = &files[fd >= FIRST_FD && fd < FIRST_FD + FDS ? fd - FIRST_FD : 0];

	sim_point();
	if (fd < FIRST_FD || fd >= FIRST_FD + FDS || f->kind == CLOSED)
		sim_fail("%s of fd %d, which is not open", what, fd);
	if (sim_explaining() && sim_running())
		sim_tell("%s fd %d", what, fd);
	sim_acquire(&f->seen);
	sim_release(&f->seen);
	return f;
}

/* For f, and all sets that it is in. */
static void count_edge(struct file *f)
{
	f->edges++;
	for (int i = 0; i < FDS; i++)
		for (int j = 0; files[i].kind == EPOLL && j < WATCHES; j++)
			if (files[i].watches[j].fd == FIRST_FD + (int)(f - files))
				count_edge(&files[i]);
}

static void made_readable(struct file *f)
{
	count_edge(f);
	if (f->count == 0)
		f->shown = sim_time();
	sim_release(&f->seen);
}

static int open_file(enum kind kind)
{
	bool refused;

	sim_point();
	refused = sim_refuses();
	for (int i = 0; i < FDS && !refused; i++)
		if (files[i].kind == CLOSED) {
			files[i] = (struct file){ .kind = kind, .at = NEVER };
			return FIRST_FD + i;
		}
	sim_refused("a descriptor");
	errno = EMFILE;
	return -1;
}

static bool is_due(const struct watch *w);

static bool is_readable(const struct file *f)
{
	if (f->kind != EPOLL) {
		sim_acquire(&f->seen);
		return f->kind != CLOSED && f->count > 0;
	}
	for (int i = 0; i < WATCHES; i++)
		if (f->watches[i].fd && is_due(&f->watches[i]))
			return true;
	return false;
}

/* Level-triggered as long as it is readable; edge-triggered if something has come since it was told last. */
static bool is_due(const struct watch *w)
{
	const struct file *f = &files[w->fd - FIRST_FD];

	return is_readable(f) && !(w->event.events & EPOLLET && w->told == f->edges);
}

static void changed(void)
{
	sim_wake(&any_fd, 1);
}

static struct file *polled(int fd)
{
	if (fd < FIRST_FD || fd >= FIRST_FD + FDS || files[fd - FIRST_FD].kind == CLOSED)
		sim_fail("fd %d is closed under those who use it", fd);
	return &files[fd - FIRST_FD];
}

/* Who is not ordered after the call that made it readable may be too early for it, although that has returned. */
bool sim_shows(int fd)
{
	const struct file *f = polled(fd);

	return (sim_has_seen(f->shown) || !sim_chance(3)) && is_readable(f);
}

int sim_timerfd_create(int clock, int flags);
int sim_timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *was);
int sim_timerfd_gettime(int fd, struct itimerspec *is);
int sim_ioctl(int fd, unsigned long what, ...);
ssize_t sim_read(int fd, void *buf, size_t size);
int sim_fcntl(int fd, int what, ...);
int sim_poll(struct pollfd *fds, nfds_t n, int timeout);
int sim_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);

int sim_eventfd(unsigned count, int flags)
{
	int fd = open_file(EVENT);

	if (fd >= 0) {
		files[fd - FIRST_FD].count = count;
		files[fd - FIRST_FD].semaphore = flags & 1;
	}
	return fd;
}

int sim_timerfd_create(int clock, int flags)
{
	(void)clock, (void)flags;
	return open_file(TIMER);
}

static int64_t in_ns(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

int sim_timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *was)
{
	struct file *f = file_of(fd, "settime");

	(void)flags, (void)was;
	f->count = 0;
	f->fired = false;
	f->at = to->it_value.tv_sec || to->it_value.tv_nsec ? in_ns(&to->it_value) : NEVER;
	f->repeats = to->it_interval.tv_sec || to->it_interval.tv_nsec;
	return 0;
}

/* Asked only to learn whether it is one. */
int sim_timerfd_gettime(int fd, struct itimerspec *is)
{
	(void)is;
	if (file_of(fd, "gettime")->kind == TIMER)
		return 0;
	errno = EINVAL;
	return -1;
}

int sim_ioctl(int fd, unsigned long what, ...)
{
	struct file *f = file_of(fd, "ioctl");

	(void)what; /* TFD_IOC_SET_TICKS, to 1 */
	if (f->kind != TIMER)
		sim_fail("SET_TICKS of fd %d, which is no timer", fd);
	if (is_refused(&set_ticks)) {
		errno = ENOTTY;
		return -1;
	}
	made_readable(f);
	f->count = 1;
	changed();
	return 0;
}

ssize_t sim_write(int fd, const void *buf, size_t size)
{
	struct file *f;
	uint64_t n;

	if (fd < 0) { /* as a dump's, which goes nowhere */
		errno = EBADF;
		return -1;
	}
	f = file_of(fd, "write");
	memcpy(&n, buf, sizeof n);
	if (f->kind != EVENT || size != sizeof n)
		sim_fail("write of fd %d, which is no eventfd", fd);
	if (n > UINT64_MAX - 1 - f->count) {
		errno = EAGAIN;
		return -1;
	}
	made_readable(f);
	f->count += n;
	changed();
	return (ssize_t)size;
}

ssize_t sim_read(int fd, void *buf, size_t size)
{
	struct file *f = file_of(fd, "read");
	uint64_t n = f->semaphore ? 1 : f->count;

	if (f->count == 0) {
		errno = EAGAIN;
		return -1;
	}
	memcpy(buf, &n, sizeof n);
	f->count -= n;
	if (f->repeats && f->fired)
		f->count = 1;
	return (ssize_t)size;
}

int sim_close(int fd)
{
	struct file *f = file_of(fd, "close");

	f->kind = CLOSED;
	for (int i = 0; i < FDS; i++)
		for (int j = 0; files[i].kind == EPOLL && j < WATCHES; j++)
			if (files[i].watches[j].fd == fd)
				files[i].watches[j].fd = 0;
	return 0;
}

int sim_fcntl(int fd, int what, ...)
{
	file_of(fd, "fcntl");
	return what == F_GETFL ? O_RDWR | O_NONBLOCK : 0; /* or F_GETFD */
}

/* Waits, too. */
int sim_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	int64_t until = timeout ? sim_clock + in_ns(timeout) : NEVER;
	int ready;

	(void)mask;
	for (;;) {
		sim_point();
		ready = 0;
		for (nfds_t i = 0; i < n; i++) {
			fds[i].revents = fds[i].fd >= 0 && is_readable(polled(fds[i].fd)) ? POLLIN : 0;
			ready += fds[i].revents != 0;
		}
		if (ready || sim_clock >= until)
			return ready;
		sim_sleep(&any_fd, 1, until);
	}
}

int sim_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec t = { timeout / 1000, (long)(timeout % 1000) * 1000000 };

	return sim_ppoll(fds, n, timeout < 0 ? NULL : &t, NULL);
}

/* ---- Epoll ------------------------------------------------------------------------------------------------------- */

static bool is_reported(struct watch *w)
{
	bool reported = is_due(w);

	w->told = files[w->fd - FIRST_FD].edges;
	return reported;
}

int sim_epoll_create1(int flags)
{
	(void)flags;
	return open_file(EPOLL);
}

int sim_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
	struct file *f = file_of(epoll, "epoll_ctl");
	bool refused = what == EPOLL_CTL_ADD && sim_refuses();

	for (int i = 0; i < WATCHES && !refused; i++) {
		struct watch *w = &f->watches[i];

		if (w->fd == (what == EPOLL_CTL_ADD ? 0 : fd)) {
			w->fd = what == EPOLL_CTL_DEL ? 0 : fd;
			if (event) {
				w->event = *event;
				w->told = files[fd - FIRST_FD].edges - is_readable(&files[fd - FIRST_FD]);
				f->edges += is_readable(&files[fd - FIRST_FD]);
			}
			changed();
			return 0;
		}
	}
	if (what == EPOLL_CTL_ADD)
		sim_refused("a watch");
	errno = what == EPOLL_CTL_ADD ? ENOSPC : ENOENT;
	return -1;
}

int sim_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	for (;;) {
		struct file *f = file_of(epoll, "epoll_wait");
		int n = 0;

		for (int i = 0; i < WATCHES && n < most; i++)
			if (f->watches[i].fd && is_reported(&f->watches[i]))
				events[n++] = f->watches[i].event;
		if (n || timeout == 0)
			return n;
		sim_sleep(&any_fd, 1, NEVER);
	}
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

int sim_clock_gettime(clockid_t clock, struct timespec *now);

int sim_clock_gettime(clockid_t clock, struct timespec *now)
{
	/* The coarse one lags by up to a tick. */
	int64_t t = clock == CLOCK_MONOTONIC_COARSE ? sim_clock - 4000000 : sim_clock;

	now->tv_sec = (time_t)(t / 1000000000);
	now->tv_nsec = (long)(t % 1000000000);
	return 0;
}

int64_t sim_next_timer(void)
{
	int64_t at = NEVER;

	for (int i = 0; i < FDS; i++)
		if (files[i].kind == TIMER && !files[i].fired && files[i].at < at)
			at = files[i].at;
	return at;
}

void sim_fire_timers(void)
{
	for (int i = 0; i < FDS; i++)
		if (files[i].kind == TIMER && !files[i].fired && files[i].at <= sim_clock) {
			files[i].fired = true;
			count_edge(&files[i]);
			if (files[i].count++ == 0)
				files[i].shown = (struct sim_time){ 0, 0 };
			changed();
		}
}

/* Timers fire some time after the clock has passed them. */
void sim_clock_to(int64_t at)
{
	sim_point();
	if (at > sim_clock)
		sim_clock = at;
	if (sim_explaining())
		sim_tell("the clock goes to %lld", (long long)sim_clock);
	sim_expire();
	sim_point();
	sim_fire_timers();
}

int sim_nanosleep(const struct timespec *time, struct timespec *left);

int sim_nanosleep(const struct timespec *time, struct timespec *left)
{
	(void)left;
	sim_sleep(&any_fd, 0, sim_clock + in_ns(time));
	return 0;
}

/* ---- Futexes ----------------------------------------------------------------------------------------------------- */

long sim_syscall(long number, ...);

static long futex(uint32_t *at, int op, uint32_t value, const struct timespec *until, uint32_t bits)
{
	bool woken;

	sim_point();
	if (is_refused(&futexes)) {
		errno = EPERM;
		return -1;
	}
	if (op == FUTEX_WAKE_BITSET_PRIVATE) {
		sim_wake(at, bits);
		return 0;
	}
	sim_check_access(at, sizeof *at, "a futex wait");
	if (*at != value) {
		errno = EAGAIN;
		return -1;
	}
	if (sim_chance(16)) { /* for no reason */
		errno = EINTR;
		return -1;
	}
	woken = sim_sleep(at, bits, until ? in_ns(until) : NEVER);
	errno = woken ? 0 : ETIMEDOUT;
	return woken ? 0 : -1;
}

long sim_syscall(long number, ...)
{
	va_list args;
	long a[6];

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	switch (number) {
	case SYS_futex:
		return futex((uint32_t *)a[0], (int)a[1], (uint32_t)a[2], (const struct timespec *)a[3],
		             (uint32_t)a[5]);
	case SYS_eventfd2:
		return sim_eventfd((unsigned)a[0], (int)a[1]);
	case SYS_timerfd_create:
		return sim_timerfd_create((int)a[0], (int)a[1]);
	case SYS_timerfd_settime:
		return sim_timerfd_settime((int)a[0], (int)a[1], (const struct itimerspec *)a[2], NULL);
	case SYS_ioctl:
		return sim_ioctl((int)a[0], (unsigned long)a[1], a[2]);
	case SYS_write:
		return sim_write((int)a[0], (const void *)a[1], (size_t)a[2]);
	case SYS_close:
		return sim_close((int)a[0]);
	default:
		sim_fail("system call %ld", number);
	}
}
