/* SPDX-License-Identifier: MIT */
/*
 * The kinds of descriptors that ctxfd_read and ctxfd_write meet, each as a pair: read from [0] what was written to [1].
 */
#ifndef KINDS_H
#define KINDS_H

#include <sys/eventfd.h>
#include <termios.h>

#include "harness.h"

struct kind {
	const char *name;
	void (*make)(int fds[2]);
	bool no_nowait; /* polled before the call, for there is none that does not wait */
	bool one_fd;    /* both ends are the same */
	bool socket, messages;
};

static inline void make_stream(int fds[2])
{
	make_socketpair(fds);
}

static inline void make_datagram(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
}

static inline void make_seqpacket(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
}

/* A terminal that passes bytes as they are. */
static inline void make_pty(int *master, int *slave)
{
	struct termios raw;
	char name[40];

	*master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(*master >= 0);
	assert_int_equal(unlockpt(*master), 0);
	assert_int_equal(ptsname_r(*master, name, sizeof name), 0);
	*slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(*slave >= 0);
	assert_int_equal(tcgetattr(*slave, &raw), 0);
	cfmakeraw(&raw);
	assert_int_equal(tcsetattr(*slave, TCSANOW, &raw), 0);
}

static inline void make_terminal(int fds[2])
{
	make_pty(&fds[1], &fds[0]);
}

static inline void make_terminal_master(int fds[2])
{
	make_pty(&fds[0], &fds[1]);
}

static inline void make_eventfd(int fds[2])
{
	fds[0] = fds[1] = eventfd(0, EFD_CLOEXEC);
	assert_true(fds[0] >= 0);
}

static const struct kind kinds[] = {
	{ .name = "pipe", .make = make_pipe },
	{ .name = "unix stream", .make = make_stream, .socket = true },
	{ .name = "unix datagram", .make = make_datagram, .socket = true, .messages = true },
	{ .name = "unix seqpacket", .make = make_seqpacket, .socket = true, .messages = true },
	{ .name = "tcp", .make = make_connection, .socket = true },
	{ .name = "terminal", .make = make_terminal, .no_nowait = true },
	{ .name = "terminal's master", .make = make_terminal_master, .no_nowait = true },
	{ .name = "eventfd", .make = make_eventfd, .one_fd = true },
};

static inline void set_blocking(int fd, bool blocking)
{
	int flags = fcntl(fd, F_GETFL);

	assert_int_equal(fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK), 0);
}

static inline void make_kind(const struct kind *kind, int fds[2], bool blocking)
{
	kind->make(fds);
	set_blocking(fds[0], blocking);
	set_blocking(fds[1], blocking);
}

static inline void close_kind(const struct kind *kind, const int fds[2])
{
	close(fds[0]);
	if (!kind->one_fd)
		close(fds[1]);
}

/*
 * Fills fds[1], and what is behind it: a terminal and TCP hand on what they have. TCP may find some more room later, so
 * tests that need something full go on writing until they are told to wait.
 */
static inline void fill_up(const struct kind *kind, const int fds[2])
{
	uint64_t most = UINT64_MAX - 1;

	if (kind->one_fd) {
		assert_int_equal(write(fds[1], &most, sizeof most), sizeof most);
		return;
	}
	for (int full = 0; full < 3; full++) {
		if (fill(fds[1]) > 0)
			full = 0;
		pass_time(CTXFD_MSEC);
	}
}

/* One read that does not wait; returns how many bytes that was, 0 when there is nothing. */
static inline size_t take(int fd)
{
	static char buf[65536];
	int flags = fcntl(fd, F_GETFL);
	ssize_t n;

	assert_int_equal(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
	n = read(fd, buf, sizeof buf);
	assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
	return n > 0 ? (size_t)n : 0;
}

/* Reads all there is; returns how many bytes that was. Not while others write: there could be more for ever. */
static inline size_t drain(int fd)
{
	size_t total = 0, n;

	while ((n = take(fd)) > 0)
		total += n;
	return total;
}

/* Writes through the library until that fails. */
static inline ssize_t write_on(const struct ctxfd *ctx, int fd, const void *buf, size_t size)
{
	ssize_t n;

	while ((n = ctxfd_write(ctx, fd, buf, size)) > 0)
		continue;
	return n;
}

/* Eight bytes, which an eventfd takes for a number. */
static const uint64_t eight = 1;

/* Runs a part of a test for each kind, in blocking mode and not; the last line that it prints tells where it failed. */
static inline void with_all_kinds(void (*part)(const struct kind *kind, bool blocking))
{
	for (size_t i = 0; i < 2 * COUNT(kinds); i++) {
		printf("# %s, %sblocking\n", kinds[i / 2].name, i % 2 ? "" : "non-");
		part(&kinds[i / 2], i % 2);
	}
}

#endif
