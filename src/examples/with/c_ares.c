/* SPDX-License-Identifier: MIT */
/*
 * c_ares MILLISECONDS SERVER[:PORT] NAME: looks up a name, until its context ends. (ctxfd_getaddrinfo of ctxfd_net.h
 * does that with the C library's resolver, on a thread.)
 *
 * - c-ares says by a callback which sockets to wait for, and by ares_timeout how long. ctxfd_poll waits for them and
 *   the context.
 * - ares_cancel is what stops the queries. Call it before the memory of the callbacks' argument goes: they are called
 *   in there, with ARES_ECANCELLED. A channel belongs to one thread at a time, so no after-func calls it.
 */
#include "command.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#define MAX_SOCKETS 16

struct lookup {
	ares_channel channel;
	struct pollfd sockets[MAX_SOCKETS]; /* with holes: ctxfd_poll ignores a negative fd */
	bool over;
	int err;
};

/* c-ares wants to read or write a socket, or neither before it closes it. */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct lookup *l = arg;
	struct pollfd *unused = NULL, *p;

	for (p = l->sockets; p < l->sockets + MAX_SOCKETS && p->fd != fd; p++)
		if (p->fd < 0)
			unused = p;
	if (p == l->sockets + MAX_SOCKETS)
		p = unused;
	if (!p) {
		l->err = -EMFILE;
		return;
	}
	p->fd = readable || writable ? fd : -1;
	p->events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
	struct lookup *l = arg;
	struct ares_addrinfo_node *node;
	char name[NI_MAXHOST];

	(void)timeouts;
	l->over = true;
	if (status != ARES_SUCCESS && !l->err)
		l->err = status == ARES_ENOTFOUND || status == ARES_ENODATA ? -ENOENT : -EIO;
	for (node = answer ? answer->nodes : NULL; node; node = node->ai_next)
		if (getnameinfo(node->ai_addr, node->ai_addrlen, name, sizeof(name), NULL, 0, NI_NUMERICHOST) == 0)
			puts(name);
	ares_freeaddrinfo(answer);
}

/* How long c-ares can wait, in nanoseconds; -1: for ever. */
static int64_t patience(ares_channel channel)
{
	struct timeval buf, *t = ares_timeout(channel, NULL, &buf);

	return t ? t->tv_sec * CTXFD_SEC + t->tv_usec * CTXFD_USEC : -1;
}

/* Runs the queries until they are over. Returns 0, err, or -errno. */
static int run(const struct ctxfd *ctx, struct lookup *l)
{
	struct pollfd ready[MAX_SOCKETS];
	int n, i;

	while (!l->over && !l->err) {
		memcpy(ready, l->sockets, sizeof(ready)); /* c-ares changes them meanwhile */
		n = ctxfd_poll(ctx, ready, MAX_SOCKETS, patience(l->channel));
		if (n < 0) {
			l->err = n;
			break;
		}
		if (n == 0)
			ares_process_fd(l->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
		for (i = 0; i < MAX_SOCKETS; i++)
			if (ready[i].revents)
				ares_process_fd(l->channel, ready[i].revents & ~POLLOUT ? ready[i].fd : ARES_SOCKET_BAD,
				                ready[i].revents & POLLOUT ? ready[i].fd : ARES_SOCKET_BAD);
	}
	ares_cancel(l->channel); /* does nothing if all is over */
	return l->err;
}

static int look_up(const struct ctxfd *ctx, const char *server, const char *name)
{
	struct lookup l = { .err = 0 };
	struct ares_options options = { .flags = ARES_FLAG_NOSEARCH,
		                        .sock_state_cb = on_socket,
		                        .sock_state_cb_data = &l };
	struct ares_addrinfo_hints hints = { .ai_family = AF_INET };
	int err = ctxfd_err(ctx), i;

	if (err)
		return err;
	for (i = 0; i < MAX_SOCKETS; i++)
		l.sockets[i].fd = -1;
	if (ares_init_options(&l.channel, &options, ARES_OPT_FLAGS | ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS)
		return -ENOMEM;
	if (ares_set_servers_ports_csv(l.channel, server) == ARES_SUCCESS) {
		ares_getaddrinfo(l.channel, name, NULL, &hints, on_answer, &l);
		err = run(ctx, &l);
	} else {
		err = -EINVAL;
	}
	ares_destroy(l.channel);
	return err;
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	int err = ctx ? -EINVAL : -errno;

	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		err = -ENOMEM;
	else if (ctx && argc == 4)
		err = look_up(ctx, argv[2], argv[3]);
	ares_library_cleanup();
	ctxfd_close(ctx);
	return command_end("c_ares", err);
}
