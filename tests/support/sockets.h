/* SPDX-License-Identifier: MIT */
/* Sockets for the tests of accept and connect, beyond those that the harness makes. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <sys/un.h>

#include "harness.h"

static inline int make_socket(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

static inline void set_nonblocking(int fd)
{
	assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

/* An address in the abstract namespace that nobody else has; returns its size. */
static inline socklen_t local_address(struct sockaddr_un *addr)
{
	static int n;
	int length;

	memset(addr, 0, sizeof *addr);
	addr->sun_family = AF_UNIX;
	length = snprintf(addr->sun_path + 1, sizeof addr->sun_path - 1, "ctxfd test %d %d", getpid(), n++);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

#endif
