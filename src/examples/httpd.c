/* SPDX-License-Identifier: MIT */
/*
 * httpd [-v] [port]: a small HTTP/1.1 server. Contexts decide how long it works on a request:
 *
 *     server         is cancelled with -ESHUTDOWN when SIGTERM or SIGINT comes
 *       client       ends with -ECONNRESET when the client hangs up
 *         request    ends with -ETIMEDOUT at its deadline
 *
 * There is one thread and one epoll set, which holds the sockets, the done fds of the contexts, and a dispatcher's fd.
 * The dispatcher watches for signals and hang-ups. A request's done fd becomes readable when the request, or anything
 * above it, ends. request_done then hangs up on the backend and answers:
 *
 *     the deadline has passed     504, at once
 *     the client has hung up      nothing
 *     the server stops            503, and the connection is closed
 *
 * The backend, further below, stands for a database or another service. It listens on a socket of its own and answers
 * each call after the delay that the call asks for.
 *
 *     curl 'http://127.0.0.1:PORT/?delay=300ms&timeout=100ms'
 */
#define _GNU_SOURCE
#include <ctxfd.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT (5 * CTXFD_SEC)
#define FDS_PER_CLIENT  8

/* Something in the epoll set, embedded in what it belongs to. */
struct watch {
	int fd;
	uint32_t events;
	void (*ready)(struct watch *w);
};

#define container_of(w, type, member) ((type *)((char *)(w)-offsetof(type, member)))

/* A connection. One request is in flight at a time; `in` holds what the client sends ahead. */
struct client {
	struct watch socket, done; /* done: ctx's fd */
	struct ctxfd *ctx;
	bool last; /* this request is the last one */
	size_t in_len;
	char in[8192];
	struct request {
		struct watch backend, done;
		struct ctxfd *ctx; /* NULL: no request in flight */
		int64_t started;
		long long number;
	} request;
};

/* What a request sends to the backend. */
struct call {
	long long delay, request;
};

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_un un;
};

static int epoll;
static bool verbose;
static struct ctxfd_dispatcher *callbacks; /* watches for signals, and for clients that hang up */
static const struct ctxfd *loop;           /* contexts below it use that dispatcher */
static struct ctxfd *signals;              /* ends with SIGTERM or SIGINT */
static struct ctxfd *server;               /* the parent of every client's context */
static int64_t stopped;                    /* when SIGTERM or SIGINT came */
static struct watch listener, backend, dispatcher, signalled;
static union address backend_address;
static socklen_t backend_address_len;
static unsigned clients, max_clients, jobs;

#define say(...)                             \
	do {                                 \
		if (verbose)                 \
			printf(__VA_ARGS__); \
	} while (0)

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double ms_since(int64_t start)
{
	return (double)(ctxfd_now() - start) / (double)CTXFD_MSEC;
}

/* ---- The epoll set ----------------------------------------------------------------------------------------------- */

/* fd may also be the result of a call that failed: -1, or -errno from ctxfd_done_fd. */
static bool watch(struct watch *w, int fd, uint32_t events, void (*ready)(struct watch *))
{
	if (fd < -1)
		errno = -fd;
	*w = (struct watch){ .fd = fd, .events = events, .ready = ready };
	return fd >= 0 &&
	       epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = events, .data.ptr = w }) == 0;
}

static void rewatch(struct watch *w, uint32_t events)
{
	if (w->events != events)
		epoll_ctl(epoll, EPOLL_CTL_MOD, w->fd, &(struct epoll_event){ .events = events, .data.ptr = w });
	w->events = events;
}

/* For done fds, which must leave the set before their context is given up. */
static void unwatch(struct watch *w)
{
	epoll_ctl(epoll, EPOLL_CTL_DEL, w->fd, NULL);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/*
 * Answers are small, so the socket's buffer has room for a whole one, unless the client does not read. Then the server
 * shuts the socket down, which counts as a hang-up. After the last answer it waits until the client hangs up.
 */
static void answer(struct client *c, const char *status, const char *body)
{
	char text[512];
	int len = snprintf(text, sizeof(text),
	                   "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s\n", status,
	                   strlen(body) + 1, c->last ? "Connection: close\r\n" : "", body);

	if (send(c->socket.fd, text, (size_t)len, MSG_NOSIGNAL) != len)
		shutdown(c->socket.fd, SHUT_RDWR);
	else if (c->last)
		shutdown(c->socket.fd, SHUT_WR);
}

/* Answers a request that is not understood. It is the last, since the server cannot tell where the next one begins. */
static void refuse(struct client *c, const char *status)
{
	c->last = true;
	answer(c, status, status);
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

static void client_advance(struct client *c);

static void request_close(struct request *r)
{
	close(r->backend.fd);
	unwatch(&r->done);
	ctxfd_close(r->ctx);
	r->ctx = NULL;
}

/* The request has ended before the backend answered. */
static void request_cancelled(struct client *c)
{
	struct request *r = &c->request;
	int cause = ctxfd_cause(r->ctx);
	const char *status = "nobody";

	if (cause == -ETIMEDOUT)
		answer(c, status = "504 Gateway Timeout", ctxfd_strerror(cause));
	if (cause == -ESHUTDOWN) {
		c->last = true;
		answer(c, status = "503 Service Unavailable", "the server is shutting down");
	}
	say("request %lld: cancelled after %.1f ms, %s: answers %s\n", r->number, ms_since(r->started),
	    ctxfd_strerror(cause), status);
	request_close(r);
}

static void request_done(struct watch *w)
{
	struct client *c = container_of(w, struct client, request.done);

	request_cancelled(c);
	client_advance(c);
}

static void request_answered(struct watch *w)
{
	struct client *c = container_of(w, struct client, request.backend);
	struct request *r = &c->request;
	char body[64];
	ssize_t n = read(w->fd, body, sizeof(body) - 1);
	const char *status = n > 0 ? "200 OK" : "502 Bad Gateway";

	if (n < 0 && errno == EAGAIN)
		return;
	body[n > 0 ? n : 0] = '\0';
	answer(c, status, n > 0 ? body : "the backend failed");
	say("request %lld: after %.1f ms answers %s\n", r->number, ms_since(r->started), status);
	request_close(r);
	client_advance(c);
}

/* Connects to the backend and sends the call. Returns the socket, or -1. */
static int call_backend(const struct call *call)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, &backend_address.any, backend_address_len) < 0 ||
	    send(fd, call, sizeof(*call), MSG_NOSIGNAL) != sizeof(*call)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The duration after `name` in a URL, such as 1.5s or 20ms: `otherwise` if there is none, -1 if it is malformed. */
static int64_t duration(const char *url, const char *name, int64_t otherwise)
{
	const char *text = strstr(url, name);
	char *unit;
	double n;

	if (!text)
		return otherwise;
	n = strtod(text + strlen(name), &unit);
	if (unit == text + strlen(name) || !(n >= 0 && n <= 3600))
		return -1;
	return strncmp(unit, "ms", 2) == 0 ? (int64_t)(n * 1e6) : *unit == 's' ? (int64_t)(n * 1e9) : -1;
}

/* `head` is one request, up to its empty line. */
static void request_start(struct client *c, char *head)
{
	static long long number;
	struct request *r = &c->request;
	struct call call = { .request = ++number };
	int64_t timeout;

	c->last = strcasestr(head, "\r\nConnection: close\r\n") || strstr(head, " HTTP/1.0\r\n");
	head[strcspn(head, "\r")] = '\0';
	say("request %lld: %s\n", number, head);
	timeout = duration(head, "timeout=", DEFAULT_TIMEOUT);
	call.delay = duration(head, "delay=", 0);
	if (strncmp(head, "GET /", 5) != 0) {
		refuse(c, "405 Method Not Allowed");
		return;
	}
	if (timeout < 0 || call.delay < 0) {
		refuse(c, "400 Bad Request");
		return;
	}

	*r = (struct request){ .backend.fd = -1, .done.fd = -1, .started = ctxfd_now(), .number = number };
	r->ctx = ctxfd_with_timeout(c->ctx, timeout);
	if (!r->ctx || !watch(&r->done, ctxfd_done_fd(r->ctx), EPOLLIN, request_done) ||
	    !watch(&r->backend, call_backend(&call), EPOLLIN, request_answered)) {
		request_close(r);
		refuse(c, "503 Service Unavailable");
	}
}

/* ---- Clients ----------------------------------------------------------------------------------------------------- */

static void client_close(struct client *c)
{
	/* A close with unread bytes sends a reset, which can overtake an answer. */
	recv(c->socket.fd, c->in, sizeof(c->in), 0);
	close(c->socket.fd);
	unwatch(&c->done);
	ctxfd_close(c->ctx);
	free(c);
	if (clients-- == max_clients && !ctxfd_err(server))
		rewatch(&listener, EPOLLIN);
}

/* Starts the next request, if none is in flight and the next one has arrived completely. */
static void client_advance(struct client *c)
{
	char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);

	if (c->request.ctx || c->last) {
		/* A request is in flight, or there will be no other. */
	} else if (end) {
		char head[sizeof(c->in) + 1];
		size_t len = (size_t)(end - c->in) + 4;

		memcpy(head, c->in, len);
		head[len] = '\0';
		c->in_len -= len;
		memmove(c->in, c->in + len, c->in_len);
		request_start(c, head);
	} else if (c->in_len == sizeof(c->in)) {
		refuse(c, "431 Request Header Fields Too Large");
	}
	rewatch(&c->socket, c->in_len < sizeof(c->in) && !c->last ? EPOLLIN : 0);
}

static void client_ready(struct watch *w)
{
	struct client *c = container_of(w, struct client, socket);
	ssize_t n = recv(w->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, 0);

	c->in_len += n > 0 ? (size_t)n : 0;
	client_advance(c);
}

/* The client has hung up, or the server stops. */
static void client_done(struct watch *w)
{
	struct client *c = container_of(w, struct client, done);

	if (c->request.ctx)
		request_cancelled(c);
	client_close(c);
}

static void client_accept(struct watch *w)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c = fd < 0 ? NULL : calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	if (++clients == max_clients)
		rewatch(&listener, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	/* As in Go's net/http, a client that shuts down its writing side counts as gone. */
	c->ctx = ctxfd_with_fd(server, fd, POLLRDHUP, -ECONNRESET);
	if (!watch(&c->socket, fd, EPOLLIN, client_ready) || !c->ctx ||
	    !watch(&c->done, ctxfd_done_fd(c->ctx), EPOLLIN, client_done))
		client_close(c);
}

/* ---- The backend: a service that takes time, and knows nothing of contexts --------------------------------------- */

struct job {
	struct watch caller, timer;
	struct call call;
	int64_t started;
};

static void job_close(struct job *j)
{
	close(j->caller.fd);
	close(j->timer.fd);
	free(j);
	jobs--;
}

static void job_finished(struct watch *w)
{
	struct job *j = container_of(w, struct job, timer);

	send(j->caller.fd, "done", 4, MSG_NOSIGNAL);
	job_close(j);
}

/* The caller has sent its call, or has hung up. */
static void job_called(struct watch *w)
{
	struct job *j = container_of(w, struct job, caller);
	struct itimerspec timer = { .it_value.tv_nsec = 1 };

	if (read(w->fd, &j->call, sizeof(j->call)) != sizeof(j->call)) {
		say("backend: drops the call of request %lld after %.1f ms of %.1f\n", j->call.request,
		    ms_since(j->started), (double)j->call.delay / (double)CTXFD_MSEC);
		job_close(j);
		return;
	}
	if (j->call.delay > 0) {
		timer.it_value.tv_sec = (time_t)(j->call.delay / CTXFD_SEC);
		timer.it_value.tv_nsec = (long)(j->call.delay % CTXFD_SEC);
	}
	if (!watch(&j->timer, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), EPOLLIN, job_finished) ||
	    timerfd_settime(j->timer.fd, 0, &timer, NULL) < 0)
		job_close(j);
}

static void backend_accept(struct watch *w)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct job *j = fd < 0 ? NULL : calloc(1, sizeof(*j));

	if (!j) {
		close(fd);
		return;
	}
	jobs++;
	j->timer.fd = -1;
	j->started = ctxfd_now();
	if (!watch(&j->caller, fd, EPOLLIN, job_called))
		job_close(j);
}

/* ---- Start and stop ---------------------------------------------------------------------------------------------- */

/* SIGTERM or SIGINT has come: accepts no new clients, and ends all contexts. */
static void stop(struct watch *w)
{
	unwatch(w);
	stopped = ctxfd_now();
	say("server: stops, %s, with %u clients\n", ctxfd_strerror(ctxfd_cause(signals)), clients);
	close(listener.fd);
	ctxfd_cancel_cause(server, -ESHUTDOWN);
}

/* Runs what is due in the library, on this thread. */
static void dispatch(struct watch *w)
{
	(void)w;
	ctxfd_dispatcher_run(callbacks);
}

/* Binds and listens. Stores the address that the kernel has chosen in *a. */
static void listen_on(struct watch *w, union address *a, socklen_t *len, void (*ready)(struct watch *))
{
	int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
	    bind(fd, &a->any, *len) < 0 || listen(fd, SOMAXCONN) < 0 || !watch(w, fd, EPOLLIN, ready))
		die("listen");
	*len = sizeof(*a);
	if (getsockname(fd, &a->any, len) < 0)
		die("getsockname");
}

static void start(uint16_t port)
{
	union address address = { .in = { .sin_family = AF_INET, .sin_port = htons(port) } };
	socklen_t len = sizeof(address.in);
	struct rlimit files;
	sigset_t set;

	/* If there are not enough fds, further clients wait in the kernel's queue. */
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		die("getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		die("setrlimit");
	max_clients = (unsigned)(files.rlim_cur - 16) / FDS_PER_CLIENT;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		die("epoll_create1");
	if (!(callbacks = ctxfd_dispatcher_new()) || !(loop = ctxfd_with_dispatcher(ctxfd_background(), callbacks)) ||
	    !watch(&dispatcher, ctxfd_dispatcher_fd(callbacks), EPOLLIN, dispatch) ||
	    !(signals = ctxfd_with_signals(loop, &set)) || !watch(&signalled, ctxfd_done_fd(signals), EPOLLIN, stop) ||
	    !(server = ctxfd_with_cancel(loop)))
		die("start");

	/* The kernel chooses a name for a Unix socket that is bound to its family alone. */
	backend_address.any.sa_family = AF_UNIX;
	backend_address_len = sizeof(sa_family_t);
	listen_on(&backend, &backend_address, &backend_address_len, backend_accept);
	address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listen_on(&listener, &address, &len, client_accept);
	printf("server: listens on http://127.0.0.1:%d/\n", ntohs(address.in.sin_port));
}

int main(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "v")) != -1) {
		if (option != 'v') {
			fprintf(stderr, "Usage: httpd [-v] [PORT]\n");
			return 2;
		}
		verbose = true;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	start(optind < argc ? (uint16_t)atoi(argv[optind]) : 0);

	while (!ctxfd_err(server) || clients + jobs > 0) {
		/* One event at a time, so no event can belong to something that another handler has just closed. */
		struct epoll_event event;
		int n = epoll_wait(epoll, &event, 1, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		if (n == 1) {
			struct watch *w = event.data.ptr;

			w->ready(w);
		}
	}
	say("server: stopped within %.1f ms\n", ms_since(stopped));
	ctxfd_close(server);
	ctxfd_close(signals);
	ctxfd_unref(loop);
	ctxfd_dispatcher_free(callbacks);
	close(backend.fd);
	close(epoll);
	return 0;
}
