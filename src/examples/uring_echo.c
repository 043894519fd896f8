/* SPDX-License-Identifier: MIT */
/*
 * uring_echo [-t MILLISECONDS] [PORT]: an echo server on io_uring. Contexts decide when a connection is over:
 *
 *     server      is cancelled by SIGTERM or SIGINT; then the server accepts nothing more
 *       client    ends with the server, or at its own deadline (-t, 10 seconds by default)
 *
 * There is one thread and one ring. Every operation is bound to the scope of a context. When the context ends, the
 * operation completes, with the reason as its result, so the server need not look for operations to cancel.
 */
#define _GNU_SOURCE
#include <ctxfd_uring.h>

#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A connection has one operation in flight: it receives, or it sends what it has received. */
struct client {
	struct ctxfd_uring_op op;
	struct ctxfd_uring_scope scope;
	struct ctxfd *ctx;
	int fd, number;
	bool ended;
	long echoed;
	unsigned have; /* bytes in buf; 0 while it receives */
	unsigned sent; /* how many of these have been sent back */
	char buf[16384];
};

static struct io_uring ring;
static struct ctxfd *server;
static struct ctxfd_uring_scope scope; /* of the server's context */
static struct ctxfd_uring_op accepting;
static bool listens; /* `accepting` is in flight */
static int64_t timeout = 10 * CTXFD_SEC;
static int listener, clients, served;

static struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring)))
		io_uring_submit(&ring);
	return sqe;
}

/* One operation accepts all connections, until the server's context ends it. */
static void start_accepting(void)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
	listens = ctxfd_uring_start(&scope, &accepting, sqe) == 0;
}

static void drop_client(struct client *c)
{
	ctxfd_close(c->ctx);
	close(c->fd);
	free(c);
	clients--;
	/* The server stops accepting when it runs out of descriptors. Now there is one again. */
	if (!listens && !ctxfd_err(server))
		start_accepting();
}

/* The ring needs the client's memory until its scope has ended, so ending the scope is the client's last operation. */
static void end_client(struct client *c, int why)
{
	printf("client %d: %ld bytes, %s\n", c->number, c->echoed, why ? ctxfd_strerror(why) : "hung up");
	c->ended = true;
	if (ctxfd_uring_end(&c->scope, &c->op) < 0 && ctxfd_uring_close(&c->scope, NULL) == 0)
		drop_client(c);
}

static void go_on(struct client *c)
{
	struct io_uring_sqe *sqe = get_sqe();
	int err;

	if (c->have)
		io_uring_prep_send(sqe, c->fd, c->buf + c->sent, c->have - c->sent, MSG_NOSIGNAL);
	else
		io_uring_prep_recv(sqe, c->fd, c->buf, sizeof(c->buf), 0);
	err = ctxfd_uring_start(&c->scope, &c->op, sqe);
	if (err)
		end_client(c, err);
}

static void client_completed(struct client *c)
{
	if (c->ended) {
		drop_client(c);
		return;
	}
	if (c->op.res <= 0) {
		end_client(c, c->op.res);
		return;
	}
	if (!c->have) {
		c->have = (unsigned)c->op.res;
	} else {
		c->sent += (unsigned)c->op.res;
		c->echoed += c->op.res;
	}
	if (c->sent == c->have)
		c->have = c->sent = 0;
	go_on(c);
}

static void accepted(int fd)
{
	struct client *c = malloc(sizeof(*c));

	if (c)
		c->ctx = ctxfd_with_timeout(server, timeout);
	if (!c || !c->ctx || ctxfd_uring_open(&c->scope, &ring, c->ctx)) {
		ctxfd_close(c ? c->ctx : NULL);
		free(c);
		close(fd);
		return;
	}
	c->op.data = c;
	c->fd = fd;
	c->number = ++served;
	c->ended = false;
	c->echoed = 0;
	c->have = c->sent = 0;
	clients++;
	go_on(c);
}

static void completed(struct ctxfd_uring_op *op, bool last)
{
	if (op != &accepting) {
		client_completed(op->data);
		return;
	}
	if (last)
		listens = false;
	if (op->res >= 0)
		accepted(op->res);
	/* It can also end while the context is live, for instance when a connection was aborted. */
	if (last && !ctxfd_err(server) && (op->res != -EMFILE || !clients))
		start_accepting();
}

/* Errors after which the same call can succeed. */
static bool is_passing(int err)
{
	return err == -EINTR || err == -EAGAIN || err == -EBUSY || err == -ENOMEM;
}

/* Returns 0 when the server has stopped and the last client is gone, or -errno. */
static int serve(void)
{
	struct io_uring_cqe *cqe;
	struct ctxfd_uring_op *op;
	int err;

	start_accepting();
	while (listens || clients) {
		err = io_uring_submit_and_wait(&ring, 1);
		if (err < 0 && !is_passing(err))
			return err;
		while (io_uring_peek_cqe(&ring, &cqe) == 0) {
			int what = ctxfd_uring_complete(cqe, &op);

			io_uring_cqe_seen(&ring, cqe);
			if (what == CTXFD_URING_MORE || what == CTXFD_URING_LAST)
				completed(op, what == CTXFD_URING_LAST);
		}
	}
	return 0;
}

static int listen_on(int port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(addr);

	addr.sin_port = htons((uint16_t)port);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
	    bind(listener, (struct sockaddr *)&addr, size) < 0 || listen(listener, SOMAXCONN) < 0 ||
	    getsockname(listener, (struct sockaddr *)&addr, &size) < 0)
		return -errno;
	printf("listens on 127.0.0.1:%d\n", ntohs(addr.sin_port));
	return 0;
}

/* A ring that only one thread uses is the fastest. Kernels before 6.1 do not have it. */
static int make_ring(void)
{
	int err = io_uring_queue_init(256, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	return err == -EINVAL ? io_uring_queue_init(256, &ring, 0) : err;
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "uring_echo: %s: %s\n", what, ctxfd_strerror(err));
	return 1;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int option, err;

	while ((option = getopt(argc, argv, "t:")) != -1) {
		if (option != 't') {
			fprintf(stderr, "Usage: uring_echo [-t MILLISECONDS] [PORT]\n");
			return 2;
		}
		timeout = atoi(optarg) * CTXFD_MSEC;
	}
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	server = ctxfd_with_signals(ctxfd_background(), &set);
	if (!server)
		return fail("context", -errno);
	err = make_ring();
	if (!err)
		err = ctxfd_uring_open(&scope, &ring, server);
	if (err)
		return fail("io_uring", err);
	err = listen_on(optind < argc ? atoi(argv[optind]) : 0);
	if (err)
		return fail("socket", err);
	err = serve();
	if (err)
		return fail("io_uring", err);
	printf("stopped: %s, %d clients in all\n", ctxfd_strerror(ctxfd_cause(server)), served);
	ctxfd_uring_close(&scope, NULL);
	ctxfd_close(server);
	io_uring_queue_exit(&ring);
	close(listener);
	return 0;
}
