/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_net: names, and connections to names, under a context. The functions are in libctxfd.
 *
 *     int sock = ctxfd_dial(ctx, "example.org", "http", SOCK_CLOEXEC);
 *
 * The rules of ctxfd.h hold here too, also for pthread_cancel. Both functions do nothing and return err if ctx is done
 * already.
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
 * getaddrinfo(3) under ctx. The resolver, which nothing can interrupt, runs on a thread of the library and is abandoned
 * if ctx ends: see ctxfd_call. So if the caller has entered a network namespace of its own (setns), the resolver may
 * ask from another one; that also goes for ctxfd_dial with a name. The arguments are copied. Free *result with
 * freeaddrinfo(3). eai may be NULL. If the resolver has answered, *eai is what it returned: 0, or an EAI_ code for
 * gai_strerror(3).
 *
 * Returns 0, err, or -errno.
 * Errors: ECANCELED, ETIMEDOUT (ctx is done); ENOENT (there is no such name, or it has no address: EAI_NONAME,
 * EAI_NODATA), EAGAIN (the resolver says to try again later: EAI_AGAIN; or no thread), ENOMEM, EINVAL (EAI_SERVICE,
 * EAI_FAMILY, EAI_SOCKTYPE, EAI_BADFLAGS), the errno of EAI_SYSTEM, EIO (every other EAI_ code).
 */
int ctxfd_getaddrinfo(const struct ctxfd *ctx, const char *node, const char *service, const struct addrinfo *hints,
                      struct addrinfo **result, int *eai);

/*
 * Connects a TCP socket to a service (a name or a number) of a host (a name or an address; NULL: this machine, by its
 * loopback addresses). It tries several addresses at a time, as RFC 8305 says. The order is the resolver's, but IPv6
 * and IPv4 take turns. The next attempt starts 250 ms after the last one, or when any fails; the others go on. The
 * first to connect wins, and the others are closed. If there is no descriptor for an attempt while another is under
 * way, it waits for its turn. A socket that the kernel connects to itself, as it can on loopback where nobody listens,
 * counts as refused.
 *
 * flags is 0, SOCK_NONBLOCK, SOCK_CLOEXEC or both, for the socket that is returned. During the call all sockets are
 * close-on-exec.
 *
 * Returns a new fd, which the caller owns, err if ctx ends first, or -errno. If no address connects, that is the error
 * of the first one, as of socket(2) and connect(2). ETIMEDOUT can be the connection's too: ask ctxfd_err if the
 * difference matters. Errors: those of ctxfd_getaddrinfo; EINVAL (other flags; service is NULL); of the first address,
 * among others, ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EACCES, EMFILE, ENFILE.
 */
int ctxfd_dial(const struct ctxfd *ctx, const char *node, const char *service, int flags);

#ifdef __cplusplus
}
#endif

#endif
