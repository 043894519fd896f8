/* SPDX-License-Identifier: MIT */
/*
 * httpd [-v] [-g GRACE] [-i IDLE] [PORT]: a small HTTP/1.1 server. Contexts decide how long it works, and on what:
 *
 *     signals          ends when SIGTERM or SIGINT comes
 *       idle           one for each connection: ends as well when nobody has used it for IDLE (60s)
 *     server           ends with -ESHUTDOWN, GRACE (5s) after signals
 *       client         one for each connection: ends with -ECONNRESET when the client hangs up
 *         request      ends with -ETIMEDOUT at its deadline
 *
 * When its idle context has ended, a connection takes no further request. So this is what a signal does: new clients
 * are refused, connections that wait for a request are closed, and requests that are running go on until the grace is
 * over. The exit code tells how it went:
 *
 *     0    all requests were answered
 *     1    the server could not start, or cannot go on
 *     3    some were cut off at the end of the grace
 *
 * A second signal ends the program at once. SIGUSR1 shows on stderr what the server is at.
 *
 * The work is done by a group of threads. One waits for SIGUSR1. Each of the others runs a loop, with an epoll set that
 * holds its sockets, the done fds of its contexts, and a dispatcher's fd. The dispatcher watches for clients that hang
 * up or are idle. A request's done fd becomes readable when the request, or anything above it, ends. request_done then
 * hangs up on the backend and answers:
 *
 *     the deadline has passed     504, at once
 *     the client has hung up      nothing
 *     the grace is over           503, and the connection is closed
 *
 * The backend, further below, stands for a database or another service. It listens on a socket of its own and answers
 * each call after the delay that the call asks for.
 *
 *     curl 'http://127.0.0.1:PORT/?delay=300ms&timeout=100ms'
 */
#define _GNU_SOURCE
#include <ctxfd_group.h>

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define LOOPS           2
#define DEFAULT_TIMEOUT (5 * CTXFD_SEC)
#define FDS_PER_CLIENT  10

/* Something in the epoll set, embedded in what it belongs to. */
struct watch {
	int fd;
	uint32_t events;
	void (*ready)(struct watch *w);
};

#define container_of(w, type, member) ((type *)((char *)(w)-offsetof(type, member)))

/* A connection. One request is in flight at a time; `in` holds what the client sends ahead. */
struct client {
	struct watch socket, done, unused; /* done: ctx's fd; unused: idle's */
	struct ctxfd *ctx, *idle;
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

static bool verbose;
static int64_t grace = 5 * CTXFD_SEC, idle = 60 * CTXFD_SEC;
static struct ctxfd *signals, *server;
static struct ctxfd_group *threads; /* its context is a child of server */
static int listening_socket;        /* all loops accept from it */
static unsigned max_clients;        /* of one loop */
static atomic_int running = LOOPS;
static atomic_llong requests;

/* Each loop has its own of these. */
static _Thread_local int epoll;
static _Thread_local struct ctxfd_dispatcher *callbacks;       /* watches for clients that hang up or are idle */
static _Thread_local const struct ctxfd *awaiting, *answering; /* signals and server, with that dispatcher */
static _Thread_local struct watch listener, backend, dispatcher, signalled;
static _Thread_local union address backend_address;
static _Thread_local socklen_t backend_address_len;
static _Thread_local unsigned clients, jobs;
static _Thread_local bool stops, cut; /* takes no new clients; has ended requests before they were answered */

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

	ctxfd_touch(c->idle);
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
		c->last = cut = true;
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

/* A duration such as 1.5s or 20ms: -1 if it is malformed, or more than an hour. */
static int64_t duration(const char *text)
{
	char *unit;
	double n = strtod(text, &unit);

	n *= strncmp(unit, "ms", 2) == 0 ? 1e6 : *unit == 's' ? 1e9 : NAN;
	return unit != text && n >= 0 && n <= 3600e9 ? (int64_t)n : -1;
}

/* The duration after `name` in a URL: `otherwise` if there is none. */
static int64_t duration_of(const char *name, const char *url, int64_t otherwise)
{
	const char *text = strstr(url, name);

	return text ? duration(text + strlen(name)) : otherwise;
}

/* `head` is one request, up to its empty line. */
static void request_start(struct client *c, char *head)
{
	struct request *r = &c->request;
	struct call call = { .request = atomic_fetch_add(&requests, 1) + 1 };
	int64_t timeout;

	c->last = strcasestr(head, "\r\nConnection: close\r\n") || strstr(head, " HTTP/1.0\r\n");
	head[strcspn(head, "\r")] = '\0';
	say("request %lld: %s\n", call.request, head);
	timeout = duration_of("timeout=", head, DEFAULT_TIMEOUT);
	call.delay = duration_of("delay=", head, 0);
	if (ctxfd_err(signals)) {
		refuse(c, "503 Service Unavailable");
		return;
	}
	if (strncmp(head, "GET /", 5) != 0) {
		refuse(c, "405 Method Not Allowed");
		return;
	}
	if (timeout < 0 || call.delay < 0) {
		refuse(c, "400 Bad Request");
		return;
	}

	ctxfd_touch(c->idle);
	*r = (struct request){ .backend.fd = -1, .done.fd = -1, .started = ctxfd_now(), .number = call.request };
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
	unwatch(&c->unused);
	ctxfd_close(c->ctx);
	ctxfd_close(c->idle);
	free(c);
	if (clients-- == max_clients && !stops)
		rewatch(&listener, EPOLLIN);
}

/*
 * Starts the next request, if none is in flight and the next one has arrived completely. After the last one the
 * connection is closed when the client hangs up or its idle context ends, whichever comes first.
 */
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
	if (!c->request.ctx && c->last && ctxfd_err(c->idle))
		client_close(c);
	else
		rewatch(&c->socket, c->in_len < sizeof(c->in) && !c->last ? EPOLLIN : 0);
}

static void client_ready(struct watch *w)
{
	struct client *c = container_of(w, struct client, socket);
	ssize_t n = recv(w->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, 0);

	c->in_len += n > 0 ? (size_t)n : 0;
	client_advance(c);
}

/* Nobody has used the connection for a while, or the server stops. A request in flight is the last one. */
static void client_unused(struct watch *w)
{
	struct client *c = container_of(w, struct client, unused);

	unwatch(w);
	c->last = true;
	client_advance(c);
}

/* The client has hung up, or the grace is over. */
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
	c->ctx = ctxfd_with_fd(answering, fd, POLLRDHUP, -ECONNRESET);
	c->idle = ctxfd_with_idle(awaiting, idle, 0);
	if (!watch(&c->socket, fd, EPOLLIN, client_ready) || !c->ctx || !c->idle ||
	    !watch(&c->done, ctxfd_done_fd(c->ctx), EPOLLIN, client_done) ||
	    !watch(&c->unused, ctxfd_done_fd(c->idle), EPOLLIN, client_unused))
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

/* ---- A loop ------------------------------------------------------------------------------------------------------ */

/* SIGTERM or SIGINT has come. Shutting a listening socket down has clients refused, whichever loop is the first. */
static void stop(struct watch *w)
{
	unwatch(w);
	unwatch(&listener);
	shutdown(listener.fd, SHUT_RDWR);
	stops = true;
	say("loop: stops, %s, with %u clients\n", ctxfd_strerror(ctxfd_cause(signals)), clients);
}

/* Runs what is due in the library, on this thread. */
static void dispatch(struct watch *w)
{
	(void)w;
	ctxfd_dispatcher_run(callbacks);
}

/* A socket that listens, and in *a the address that the kernel has chosen. */
static int listen_on(union address *a, socklen_t *len)
{
	int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
	    bind(fd, &a->any, *len) < 0 || listen(fd, SOMAXCONN) < 0)
		die("listen");
	*len = sizeof(*a);
	if (getsockname(fd, &a->any, len) < 0)
		die("getsockname");
	return fd;
}

static void loop_start(const struct ctxfd *ctx)
{
	/* The kernel chooses a name for a Unix socket that is bound to its family alone. */
	backend_address.any.sa_family = AF_UNIX;
	backend_address_len = sizeof(sa_family_t);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	callbacks = ctxfd_dispatcher_new();
	if (epoll < 0 || !callbacks || !watch(&dispatcher, ctxfd_dispatcher_fd(callbacks), EPOLLIN, dispatch) ||
	    !(awaiting = ctxfd_with_dispatcher(signals, callbacks)) ||
	    !(answering = ctxfd_with_dispatcher(ctx, callbacks)) ||
	    !watch(&signalled, ctxfd_done_fd(signals), EPOLLIN, stop) ||
	    !watch(&backend, listen_on(&backend_address, &backend_address_len), EPOLLIN, backend_accept) ||
	    !watch(&listener, listening_socket, EPOLLIN, client_accept))
		die("loop");
}

/* One event at a time, so no event can belong to something that another handler has just closed. */
static void loop_turn(void)
{
	struct epoll_event event;
	int n = epoll_wait(epoll, &event, 1, -1);

	if (n < 0 && errno != EINTR)
		die("epoll_wait");
	if (n == 1) {
		struct watch *w = event.data.ptr;

		w->ready(w);
	}
}

/* What a thread of the group does. Its result is the group's: whether all requests were answered. */
static int loop(const struct ctxfd *ctx, void *arg)
{
	(void)arg;
	loop_start(ctx);
	while (!stops || clients + jobs > 0)
		loop_turn();
	ctxfd_unref(awaiting);
	ctxfd_unref(answering);
	ctxfd_dispatcher_free(callbacks);
	close(backend.fd);
	close(epoll);
	if (atomic_fetch_sub(&running, 1) == 1)
		ctxfd_group_cancel(threads, 0);
	return cut ? -ETIMEDOUT : 0;
}

/* What another thread of the group does: shows all contexts when SIGUSR1 comes, until the loops have ended. */
static int show_when_asked(const struct ctxfd *ctx, void *arg)
{
	sigset_t set;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	while (!ctxfd_err(ctx)) {
		struct ctxfd *asked = ctxfd_with_signals(ctx, &set);

		if (!asked)
			return 0;
		ctxfd_wait(asked);
		if (ctxfd_cause(asked) == SIGUSR1)
			ctxfd_dump(signals, STDERR_FILENO);
		ctxfd_close(asked);
	}
	return 0;
}

/* ---- Start and stop ---------------------------------------------------------------------------------------------- */

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
	if (files.rlim_cur < 32 + FDS_PER_CLIENT * LOOPS) {
		errno = EMFILE;
		die("RLIMIT_NOFILE");
	}
	max_clients = (unsigned)(files.rlim_cur - 32) / FDS_PER_CLIENT / LOOPS;

	/* When nobody listens for it, it is not to end the program. */
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (!(signals = ctxfd_with_signals(ctxfd_background(), &set)) ||
	    !(server = ctxfd_with_grace(signals, grace, -ESHUTDOWN)) || !(threads = ctxfd_group_new(server, 0)))
		die("start");

	address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listening_socket = listen_on(&address, &len);
	for (int i = 0; i <= LOOPS; i++) {
		errno = -ctxfd_group_go(threads, i < LOOPS ? loop : show_when_asked, NULL);
		if (errno)
			die("thread");
	}
	printf("server: listens on http://127.0.0.1:%d/\n", ntohs(address.in.sin_port));
}

/* Waits until all threads have ended. Returns the exit code. */
static int finish(void)
{
	int result = ctxfd_group_wait(threads);
	int64_t end;

	if (ctxfd_deadline(server, &end))
		say("server: stopped within %.1f ms\n", ms_since(end - grace));
	if (result)
		fprintf(stderr, "httpd: requests were cut off\n");
	ctxfd_close(server);
	ctxfd_close(signals);
	close(listening_socket);
	return result ? 3 : 0;
}

int main(int argc, char **argv)
{
	int option, port;
	bool understood = true;

	while ((option = getopt(argc, argv, "vg:i:")) != -1) {
		if (option == 'v')
			verbose = true;
		else if (option == 'g')
			grace = duration(optarg);
		else if (option == 'i')
			idle = duration(optarg);
		else
			understood = false;
	}
	port = optind < argc ? atoi(argv[optind]) : 0;
	if (!understood || grace < 0 || idle < 0 || port < 0 || port > UINT16_MAX) {
		fprintf(stderr, "Usage: httpd [-v] [-g GRACE] [-i IDLE] [PORT], as in httpd -g 1.5s -i 300ms 8080\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	start((uint16_t)port);
	return finish();
}
