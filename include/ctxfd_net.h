/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_net: names and connections to names, under a context. The functions are in libctxfd.
 *
 *     int sock = ctxfd_dial(ctx, "example.org", "http", SOCK_CLOEXEC);
 *     if (sock < 0)
 *             return sock;
 *
 * What ctxfd.h says throughout holds here: 0, something positive, or a negative errno; errno is left alone; a context that
 * is done already gives its err, and nothing is done. Both calls are cancellation points of pthread_cancel while they wait,
 * and leave nothing behind.
 */
#ifndef CTXFD_NET_H
#define CTXFD_NET_H

#include <ctxfd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct addrinfo; /* <netdb.h> */

/* ---- Names and connections --------------------------------------------------------------------------------------- */

/*
 * getaddrinfo(3) under ctx, by ctxfd_call: the resolver, which nothing can interrupt, works on a thread of the library's,
 * and is left to itself when ctx ends. The arguments are copied. *result is to be freed with freeaddrinfo(3). eai may be
 * NULL; else *eai is what the resolver answered (0, or an EAI_ code for gai_strerror(3)), and is left alone when it did not.
 *
 * Errors: -ENOENT (no such name, or it has no address: EAI_NONAME, EAI_NODATA), -EAGAIN (EAI_AGAIN: try again later; or no
 * thread, with *eai left alone), -ENOMEM, -EINVAL (EAI_SERVICE, EAI_FAMILY, EAI_SOCKTYPE, EAI_BADFLAGS), the errno of
 * EAI_SYSTEM, -EIO (all others).
 */
int ctxfd_getaddrinfo(const struct ctxfd *ctx, const char *node, const char *service, const struct addrinfo *hints,
                      struct addrinfo **result, int *eai);

/*
 * A TCP socket that is connected to a service (a name or a number) of a host (a name or an address), as RFC 8305 has it:
 * the addresses in the resolver's order, but IPv6 and IPv4 by turns; the next one is started 250 ms after the last, or at
 * its failure, and those before it go on; the first that connects wins, and the others are closed. A NULL node is this
 * machine itself, by its loopback addresses. flags: SOCK_NONBLOCK and SOCK_CLOEXEC, for the socket that is returned; while
 * there are several, all are close-on-exec.
 *
 * A connection that stands beats an end of ctx that comes at the same time. When ctx ends first the result is err. Else,
 * when no address connects, it is the error of the first one. With no descriptor left for another attempt while one is
 * under way, the other one waits for its turn. A socket that the kernel connects to itself, as it can on loopback where
 * nobody listens, counts as refused.
 *
 * Errors: as ctxfd_getaddrinfo; also -EINVAL (other flags; service is NULL); and of the first address those of socket(2)
 * and connect(2), such as -ECONNREFUSED, -ENETUNREACH, -EHOSTUNREACH, -EMFILE, -ENFILE, -EACCES. A -ETIMEDOUT can be the
 * connection's own: ask ctxfd_err when it matters.
 */
int ctxfd_dial(const struct ctxfd *ctx, const char *node, const char *service, int flags);

#ifdef __cplusplus
}
#endif

#endif
