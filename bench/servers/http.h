/* SPDX-License-Identifier: MIT */
/*
 * What the servers of the benchmark have in common: as much of HTTP/1.1 as wrk speaks. Each server is compiled twice,
 * with its time limits written by hand and (CONTEXTS) kept by contexts. Both keep the same two:
 *
 *     a connection from which nothing comes for -i milliseconds (60 s) is closed
 *     a request without an answer -r milliseconds (10 s) after its first byte is ended, with 503 if all of it is there
 *
 * GET /never is a request that nobody answers. All the others are answered at once.
 */
#ifndef HTTP_H
#define HTTP_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MSEC INT64_C(1000000)

static int64_t idle_limit = 60000 * MSEC, request_limit = 10000 * MSEC;

#define BYTES(literal)                       \
	{                                    \
		literal, sizeof(literal) - 1 \
	}
static const struct answer {
	const char *bytes;
	size_t size;
} hello = BYTES("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nHello\n"),
  late = BYTES("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");

/* Bytes that have come and are not used up. */
struct input {
	size_t have;
	char bytes[1024];
};

enum request { REQUEST_PARTIAL, REQUEST_HELLO, REQUEST_NEVER, REQUEST_BAD };

/* Takes a request out of the input, if all of it has come. */
static inline enum request take_request(struct input *in)
{
	const char *end = memmem(in->bytes, in->have, "\r\n\r\n", 4);
	enum request r;

	if (!end)
		return in->have == sizeof(in->bytes) ? REQUEST_BAD : REQUEST_PARTIAL;
	r = strncmp(in->bytes, "GET /", 5)        ? REQUEST_BAD
	    : strncmp(in->bytes + 5, "never ", 6) ? REQUEST_HELLO
	                                          : REQUEST_NEVER;
	in->have -= (size_t)(end + 4 - in->bytes);
	memmove(in->bytes, end + 4, in->have);
	return r;
}

static inline _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline void no_delay(int fd)
{
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

/* Reads the options, and prints the port. Returns the socket that listens. */
static inline int start_listening(int argc, char **argv, int flags)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int option, fd;

	while ((option = getopt(argc, argv, "i:r:")) != -1)
		*(option == 'i' ? &idle_limit : &request_limit) = atoi(optarg) * MSEC;
	signal(SIGPIPE, SIG_IGN);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &size) < 0)
		die("listen");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

static inline int64_t read_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

#endif
