/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_getaddrinfo and ctxfd_dial. The resolver (wrapped by the linker: see core.mk) is one of the test's own, but
 * where it is said: it answers what the test wants, when it wants. Connections go over loopback; what never answers is
 * a listener whose queue is full.
 */
#include "signal_storm.h"

#include <net/if.h>
#include <netdb.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "calls/call.h"
#include "ctxfd_net.h"

/* ---- The resolver ------------------------------------------------------------------------------------------------ */

static struct {
	bool real;
	int eai, error;
	struct sockaddr_storage addrs[64];
	size_t n;
	bool held; /* it tells that it is asked, and waits to be let go */
	sem_t asked, go;
	_Atomic int questions, answers; /* answers that are not freed */
	char node[64], service[64];
	struct addrinfo hints;
} resolver;

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		continue;
}

static _Atomic int busy; /* how many threads have to do with it at this moment, some of them for a call that is over */

static void reset_resolver(void)
{
	wait_until(busy == 0);
	memset(&resolver, 0, sizeof resolver);
	assert_int_equal(sem_init(&resolver.asked, 0, 0), 0);
	assert_int_equal(sem_init(&resolver.go, 0, 0), 0);
}

static struct addrinfo *make_answer(void)
{
	struct addrinfo *list = NULL;

	for (size_t i = resolver.n; i-- > 0;) {
		struct addrinfo *ai = calloc(1, sizeof *ai);

		require(ai);
		*ai = (struct addrinfo){ .ai_family = resolver.addrs[i].ss_family,
			                 .ai_socktype = SOCK_STREAM,
			                 .ai_protocol = IPPROTO_TCP,
			                 .ai_addrlen = resolver.addrs[i].ss_family == AF_INET
			                                       ? sizeof(struct sockaddr_in)
			                                       : sizeof(struct sockaddr_in6),
			                 .ai_addr = (struct sockaddr *)&resolver.addrs[i],
			                 .ai_next = list };
		list = ai;
	}
	return list;
}

static int answer_question(const char *node, const char *service, const struct addrinfo *hints,
                           struct addrinfo **result)
{
	resolver.questions++;
	if (resolver.held) {
		require(sem_post(&resolver.asked) == 0);
		wait_for(&resolver.go);
	}
	snprintf(resolver.node, sizeof resolver.node, "%s", node ? node : "(none)");
	snprintf(resolver.service, sizeof resolver.service, "%s", service ? service : "(none)");
	resolver.hints = hints ? *hints : (struct addrinfo){ .ai_flags = -1 };
	if (resolver.eai) {
		errno = resolver.error;
		return resolver.eai;
	}
	*result = make_answer();
	resolver.answers++;
	return 0;
}

int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result);
void __real_freeaddrinfo(struct addrinfo *list);
void __wrap_freeaddrinfo(struct addrinfo *list);

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int eai;

	busy++;
	eai = (resolver.real ? __real_getaddrinfo : answer_question)(node, service, hints, result);
	busy--;
	return eai;
}

static void free_answer(struct addrinfo *list)
{
	while (list) {
		struct addrinfo *next = list->ai_next;

		free(list);
		list = next;
	}
	resolver.answers--;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
	busy++;
	(resolver.real ? __real_freeaddrinfo : free_answer)(list);
	busy--;
}

static void answer(const void *addr, size_t size)
{
	memcpy(&resolver.addrs[resolver.n++], addr, size);
}

/* ---- Connecting: noted, and done --------------------------------------------------------------------------------- */

static int ports[16];
static _Atomic int connects;

int __real_connect(int fd, const struct sockaddr *addr, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t size);

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t size)
{
	struct sockaddr_in in; /* an IPv6 address has its port at the same place */

	memcpy(&in, addr, sizeof in);
	if (connects < (int)COUNT(ports))
		ports[connects] = ntohs(in.sin_port);
	connects++;
	return __real_connect(fd, addr, size);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static void the_resolver_is_asked(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	const struct ctxfd *under[] = { ctx, ctxfd_background(), ctxfd_with_value(ctx, &under, NULL, NULL),
		                        ctxfd_merge(ctxfd_todo(), ctx) };
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_DGRAM, .ai_protocol = 17, .ai_flags = 4 };
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(80) };
	struct addrinfo *list;
	int eai;

	reset_resolver();
	answer(&addr, sizeof addr);
	for (size_t i = 0; i < COUNT(under); i++) {
		list = NULL;
		eai = 4711;
		errno = 4711;
		assert_int_equal(
		        ctxfd_getaddrinfo(under[i], "a.name", "http", i ? &hints : NULL, &list, i ? &eai : NULL), 0);
		assert_int_equal(errno, 4711);
		assert_int_equal(eai, i ? 0 : 4711);
		assert_non_null(list);
		assert_memory_equal(list->ai_addr, &addr, sizeof addr);
		assert_string_equal(resolver.node, "a.name");
		assert_string_equal(resolver.service, "http");
		assert_int_equal(resolver.hints.ai_flags, i ? 4 : -1);
		if (i)
			assert_memory_equal(&resolver.hints, &hints, sizeof hints);
		freeaddrinfo(list);
	}
	assert_int_equal(ctxfd_getaddrinfo(ctx, NULL, NULL, NULL, &list, NULL), 0);
	assert_string_equal(resolver.node, "(none)");
	assert_string_equal(resolver.service, "(none)");
	freeaddrinfo(list);
	assert_int_equal(resolver.answers, 0);
	ctxfd_unref(under[2]);
	ctxfd_unref(under[3]);
	ctxfd_close(ctx);
}

static void every_code_has_its_error(void **state)
{
	static const struct {
		int eai, error, err;
	} codes[] = {
		{ EAI_NONAME, 0, -ENOENT },
#ifdef EAI_NODATA
		{ EAI_NODATA, 0, -ENOENT },
#endif
		{ EAI_AGAIN, 0, -EAGAIN },       { EAI_MEMORY, 0, -ENOMEM },      { EAI_SERVICE, 0, -EINVAL },
		{ EAI_FAMILY, 0, -EINVAL },      { EAI_SOCKTYPE, 0, -EINVAL },    { EAI_BADFLAGS, 0, -EINVAL },
		{ EAI_SYSTEM, EMFILE, -EMFILE }, { EAI_SYSTEM, EACCES, -EACCES }, { EAI_SYSTEM, 0, -EIO },
		{ EAI_FAIL, 0, -EIO },           { EAI_FAIL, EMFILE, -EIO },      { -4711, 0, -EIO },
	};

	reset_resolver();
	for (size_t i = 0; i < COUNT(codes); i++) {
		struct addrinfo *list = (struct addrinfo *)&codes;
		int eai = 0;

		resolver.eai = codes[i].eai;
		resolver.error = codes[i].error;
		assert_int_equal(ctxfd_getaddrinfo(ctxfd_background(), "x", NULL, NULL, &list, &eai), codes[i].err);
		assert_int_equal(eai, codes[i].eai);
		assert_ptr_equal(list, &codes);
		assert_int_equal(ctxfd_getaddrinfo(ctxfd_background(), "x", NULL, NULL, &list, NULL), codes[i].err);
		assert_int_equal(ctxfd_dial(ctxfd_background(), "x", "y", 0), codes[i].err);
	}
}

static void a_done_context_asks_nobody(void **state)
{
	struct ctxfd *done[] = { ctxfd_with_cancel(ctxfd_background()), ctxfd_with_timeout(ctxfd_background(), 0) };
	int errs[] = { -ECANCELED, -ETIMEDOUT }, eai = 4711;
	struct addrinfo *list = NULL;

	reset_resolver();
	ctxfd_cancel(done[0]);
	for (size_t i = 0; i < COUNT(done); i++) {
		assert_int_equal(ctxfd_getaddrinfo(done[i], "x", "y", NULL, &list, &eai), errs[i]);
		assert_int_equal(ctxfd_dial(done[i], "x", "y", 0), errs[i]);
		assert_int_equal(ctxfd_dial(done[i], "x", NULL, O_APPEND), errs[i]);
		ctxfd_close(done[i]);
	}
	assert_int_equal(resolver.questions, 0);
	assert_int_equal(eai, 4711);
	assert_null(list);
}

struct asking {
	const struct ctxfd *ctx;
	char node[16], service[16];
	bool dials;
	int err, eai;
};

static void *ask(void *arg)
{
	struct asking *a = arg;
	struct addrinfo hints = { .ai_family = AF_INET }, *list = NULL;

	a->eai = 4711;
	a->err = a->dials ? ctxfd_dial(a->ctx, a->node, a->service, 0)
	                  : ctxfd_getaddrinfo(a->ctx, a->node, a->service, &hints, &list, &a->eai);
	require(!list);
	/* The arguments are copied: nobody needs them any more. */
	memset(a->node, '?', sizeof a->node);
	memset(a->service, '?', sizeof a->service);
	memset(&hints, 0, sizeof hints);
	return NULL;
}

/* A cancel, pthread_cancel: what the resolver answers in the end is freed. */
static void who_leaves_leaves_nothing(void **state)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	long before = live_allocations();

	for (int way = 0; way < 4; way++) {
		struct asking a = { .node = "a.name", .service = "http", .dials = way & 1 };
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
		struct thread *thread;

		reset_resolver();
		resolver.held = true;
		answer(&addr, sizeof addr);
		a.ctx = ctx;
		thread = thread_start(ask, &a);
		wait_for(&resolver.asked);
		if (way & 2) {
			thread_wait_asleep(thread);
			assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
			assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
		} else {
			ctxfd_cancel(ctx);
			thread_join(thread);
			assert_int_equal(a.err, -ECANCELED);
			assert_int_equal(a.eai, 4711);
		}
		ctxfd_close(ctx);
		assert_int_equal(sem_post(&resolver.go), 0);
		wait_until(live_allocations() == before && resolver.answers == 0 && resolver.node[0]);
		assert_string_equal(resolver.node, "a.name");
		assert_string_equal(resolver.service, "http");
		assert_int_equal(resolver.hints.ai_family, a.dials ? AF_UNSPEC : AF_INET);
	}
}

static void a_deadline_ends_the_wait_for_the_resolver(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 20 * CTXFD_MSEC);
	int64_t deadline = 0;

	reset_resolver();
	resolver.held = true;
	resolver.eai = EAI_NONAME;
	assert_true(ctxfd_deadline(ctx, &deadline));
	assert_int_equal(ctxfd_dial(ctx, "x", "y", 0), -ETIMEDOUT);
	assert_elapsed(deadline, 0, CTXFD_SEC);
	assert_int_equal(sem_post(&resolver.go), 0);
	ctxfd_close(ctx);
}

static void without_memory_it_says_so(void **state)
{
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd, failures = 0;

	reset_resolver();
	answer(&addr, sizeof addr);
	for (int n = 1;; n++) {
		fail_allocation(n);
		errno = 4711;
		fd = ctxfd_dial(ctxfd_background(), "x", "y", SOCK_CLOEXEC);
		assert_int_equal(errno, 4711);
		if (!allocation_failed())
			break;
		assert_int_equal(fd, -ENOMEM);
		failures++;
	}
	assert_true(fd >= 0 && failures >= 3);
	fail_allocation(0);
	close(fd);
	close(listener);
	assert_int_equal(resolver.answers, 0);
}

/* ---- The real resolver ------------------------------------------------------------------------------------------- */

static void the_real_resolver_answers(void **state)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *list = NULL;
	int eai = 4711;

	reset_resolver();
	resolver.real = true;
	assert_int_equal(ctxfd_getaddrinfo(ctxfd_background(), "127.0.0.1", "80", &hints, &list, &eai), 0);
	assert_int_equal(eai, 0);
	assert_int_equal(list->ai_family, AF_INET);
	assert_int_equal(((struct sockaddr_in *)(void *)list->ai_addr)->sin_port, htons(80));
	freeaddrinfo(list);
	assert_int_equal(ctxfd_getaddrinfo(ctxfd_background(), "no address", "80", &hints, &list, &eai), -ENOENT);
	assert_int_equal(eai, EAI_NONAME);
}

/* A network of its own: no more than loopback. */
static bool unshare_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	if (unshare(CLONE_NEWNET) != 0)
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	require(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0);
	close(fd);
	return true;
}

static void put(const char *file, const char *text)
{
	char name[] = "/tmp/ctxfd-XXXXXX";
	int fd = mkstemp(name);

	require(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
	if (mount(name, file, "none", MS_BIND, "") != 0)
		require(errno == ENOENT); /* this libc or system has no such file */
	unlink(name);
}

/* In a network of our own: the name server hears, and does not answer. Its socket, or -1. */
static int make_silent_server(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		                    .sin_port = htons(53),
		                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd;

	if (!unshare_network() || unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") != 0)
		return -1;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	require(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
	put("/etc/resolv.conf", "nameserver 127.0.0.1\n");
	put("/etc/nsswitch.conf", "hosts: dns\n");
	return fd;
}

static int ask_silent_server(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background()), *timed;
	struct asking a = { .ctx = ctx, .node = "ctxfd.test", .service = "80" };
	int server = make_silent_server();
	struct thread *thread;

	if (server < 0)
		return 77;
	thread = thread_start(ask, &a);
	wait_readable(server);
	ctxfd_cancel(ctx);
	thread_join(thread);
	require(a.err == -ECANCELED && a.eai == 4711);
	timed = ctxfd_with_timeout(ctxfd_background(), 30 * CTXFD_MSEC);
	require(ctxfd_dial(timed, "ctxfd.test", "80", 0) == -ETIMEDOUT);
	ctxfd_close(timed);
	ctxfd_close(ctx);
	close(server);
	return 0;
}

static void a_silent_name_server_holds_up_nobody(void **state)
{
	int code;

	reset_resolver();
	resolver.real = true;
	code = in_child(ask_silent_server, NULL);
	if (code == 77)
		skip_test("no right to make name spaces");
	assert_int_equal(code, 0);
}

/* ---- Dialling ---------------------------------------------------------------------------------------------------- */

static int port_of_peer(int fd)
{
	struct sockaddr_in addr = { 0 };
	socklen_t size = sizeof addr;

	assert_int_equal(getpeername(fd, (struct sockaddr *)&addr, &size), 0);
	return ntohs(addr.sin_port);
}

static void dial_gives_a_socket_with_its_flags(void **state)
{
	static const int flags[] = { 0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC };
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd;

	reset_resolver();
	answer(&addr, sizeof addr);
	for (size_t i = 0; i < COUNT(flags); i++) {
		errno = 4711;
		fd = ctxfd_dial(ctx, "a.name", "http", flags[i]);
		assert_int_equal(errno, 4711);
		assert_true(fd >= 0);
		assert_int_equal(port_of_peer(fd), ntohs(addr.sin_port));
		assert_int_equal(!(fcntl(fd, F_GETFL) & O_NONBLOCK), !(flags[i] & SOCK_NONBLOCK));
		assert_int_equal(!(fcntl(fd, F_GETFD) & FD_CLOEXEC), !(flags[i] & SOCK_CLOEXEC));
		close(fd);
		fd = accept(listener, NULL, NULL);
		assert_true(fd >= 0);
		close(fd);
	}
	assert_string_equal(resolver.node, "a.name");
	assert_string_equal(resolver.service, "http");
	assert_int_equal(resolver.hints.ai_socktype, SOCK_STREAM);
	assert_int_equal(resolver.answers, 0);
	assert_int_equal(ctxfd_dial(ctx, "a.name", "http", 1), -EINVAL);
	assert_int_equal(ctxfd_dial(ctx, "a.name", "http", SOCK_NONBLOCK | O_APPEND), -EINVAL);
	assert_int_equal(ctxfd_dial(ctx, "a.name", NULL, 0), -EINVAL);
	close(listener);
	ctxfd_close(ctx);
}

static void no_name_is_this_machine(void **state)
{
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd;
	char port[16];

	reset_resolver();
	resolver.real = true;
	snprintf(port, sizeof port, "%d", ntohs(addr.sin_port));
	fd = ctxfd_dial(ctxfd_background(), NULL, port, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(port_of_peer(fd), ntohs(addr.sin_port));
	close(fd);
	fd = ctxfd_dial(ctxfd_background(), "127.0.0.1", port, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	close(listener);
}

/* Families by turns, beginning with the first one's. */
static void the_order_is_that_of_rfc_8305(void **state)
{
	static const int lists[][8] = { { 4, 4, 4, 6, 6 }, { 6, 6, 6, 6, 4 }, { 4, 6, 6 },
		                        { 6, 4, 6, 4 },    { 4, 4 },          { 6 } };
	static const int orders[][8] = { { 1, 4, 2, 5, 3 }, { 1, 5, 2, 3, 4 }, { 1, 2, 3 },
		                         { 1, 2, 3, 4 },    { 1, 2 },          { 1 } };
	int six = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (six < 0)
		skip_test("no IPv6 here");
	close(six);
	for (size_t i = 0; i < COUNT(lists); i++) {
		reset_resolver();
		connects = 0;
		for (int n = 0; lists[i][n]; n++) {
			/* Nobody listens on these ports; that of an IPv6 address is at the same place. */
			struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
			struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };

			in.sin_port = in6.sin6_port = htons((uint16_t)(n + 1));
			answer(lists[i][n] == 4 ? (void *)&in : &in6, lists[i][n] == 4 ? sizeof in : sizeof in6);
		}
		assert_true(ctxfd_dial(ctxfd_background(), "x", "y", 0) < 0);
		assert_int_equal(connects, resolver.n);
		for (int n = 0; lists[i][n]; n++)
			assert_int_equal(ports[n], orders[i][n]);
	}
}

/* Where there is but one port for outgoing connections, and nobody listens on it. */
static int dial_the_only_port(void *arg)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		                    .sin_port = htons(40001) };
	int fd;

	if (!unshare_network())
		return 77;
	fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "40001 40001", 11) != 11)
		return 77;
	close(fd);
	answer(&addr, sizeof addr);
	require(ctxfd_dial(ctxfd_background(), "x", "y", 0) == -ECONNREFUSED);
	return 0;
}

static void nobody_is_connected_to_himself(void **state)
{
	int code;

	reset_resolver();
	code = in_child(dial_the_only_port, NULL);
	if (code == 77)
		skip_test("no right to make name spaces");
	assert_int_equal(code, 0);
}

/* Whether another attempt is under way meanwhile or not. */
static void a_failure_starts_the_next_one(void **state)
{
	struct sockaddr_in refused, addr;
	int refuser = make_refuser(&refused), listener = make_listener(&addr), fd;
	struct stuck stuck;
	int64_t start;

	make_stuck(&stuck);
	for (int silent = 0; silent < 2; silent++) {
		reset_resolver();
		if (silent)
			answer(&stuck.addr, sizeof stuck.addr);
		for (int i = 0; i < 12; i++)
			answer(&refused, sizeof refused);
		answer(&addr, sizeof addr);
		start = now();
		fd = ctxfd_dial(ctxfd_background(), "x", "y", SOCK_CLOEXEC);
		assert_true(fd >= 0);
		/* If each had to wait for its turn it would take three seconds. */
		assert_elapsed(start, silent * 250 * CTXFD_MSEC, 2 * CTXFD_SEC);
		assert_int_equal(port_of_peer(fd), ntohs(addr.sin_port));
		close(fd);
	}
	close_stuck(&stuck);
	close(refuser);
	close(listener);
}

static void the_first_error_is_told(void **state)
{
	struct sockaddr_in refused,
	        nowhere = { .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = UINT32_MAX };
	int refuser = make_refuser(&refused);

	reset_resolver();
	answer(&refused, sizeof refused);
	answer(&nowhere, sizeof nowhere); /* a broadcast address: EACCES, or ENETUNREACH */
	assert_int_equal(ctxfd_dial(ctxfd_background(), "x", "y", 0), -ECONNREFUSED);
	reset_resolver();
	answer(&nowhere, sizeof nowhere);
	answer(&refused, sizeof refused);
	assert_int_not_equal(ctxfd_dial(ctxfd_background(), "x", "y", 0), -ECONNREFUSED);
	assert_int_equal(resolver.answers, 0);
	close(refuser);
}

static void silence_starts_the_next_one_later(void **state)
{
	struct stuck stuck[2];
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd;
	int64_t start;

	make_stuck(&stuck[0]);
	make_stuck(&stuck[1]);
	reset_resolver();
	answer(&stuck[0].addr, sizeof stuck[0].addr);
	answer(&stuck[1].addr, sizeof stuck[1].addr);
	answer(&addr, sizeof addr);
	start = now();
	fd = ctxfd_dial(ctxfd_background(), "x", "y", SOCK_CLOEXEC);
	assert_true(fd >= 0);
	assert_elapsed(start, 500 * CTXFD_MSEC, 3 * CTXFD_SEC);
	assert_int_equal(port_of_peer(fd), ntohs(addr.sin_port));
	close(fd);
	close_stuck(&stuck[0]);
	close_stuck(&stuck[1]);
	close(listener);
}

struct dialling {
	const struct ctxfd *ctx;
	int fd;
};

static void *dial(void *arg)
{
	struct dialling *d = arg;

	d->fd = ctxfd_dial(d->ctx, "x", "y", SOCK_CLOEXEC);
	return NULL;
}

/* The first one is silent for a while, the second for good. */
static void those_before_go_on(void **state)
{
	struct dialling d = { .ctx = ctxfd_background() };
	struct stuck stuck[2];
	struct thread *thread;

	make_stuck(&stuck[0]);
	make_stuck(&stuck[1]);
	reset_resolver();
	connects = 0;
	answer(&stuck[0].addr, sizeof stuck[0].addr);
	answer(&stuck[1].addr, sizeof stuck[1].addr);
	thread = thread_start(dial, &d);
	wait_until(connects == 2);
	/* Room: what was queued goes, and the kernel asks anew after a second, or three. */
	assert_int_equal(listen(stuck[0].listener, 100), 0);
	thread_join(thread);
	assert_true(d.fd >= 0);
	assert_int_equal(port_of_peer(d.fd), ntohs(stuck[0].addr.sin_port));
	close(d.fd);
	close_stuck(&stuck[0]);
	close_stuck(&stuck[1]);
}

static void the_end_of_ctx_ends_all_attempts(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
	int ways = 2; /* it takes the frames that pthread_cancel has left for ones still there */
#else
	int ways = 3;
#endif
	struct sockaddr_in refused;
	int refuser = make_refuser(&refused);
	struct stuck stuck;

	make_stuck(&stuck);
	for (int way = 0; way < ways; way++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), (way ? 3600000 : 300) * CTXFD_MSEC);
		struct dialling d = { .ctx = ctx };
		struct thread *thread;

		reset_resolver();
		connects = 0;
		answer(&refused, sizeof refused); /* its error is not what counts */
		answer(&stuck.addr, sizeof stuck.addr);
		answer(&stuck.addr, sizeof stuck.addr);
		thread = thread_start(dial, &d);
		if (way)
			wait_until(connects == 3);
		if (way == 1)
			ctxfd_cancel(ctx);
		if (way == 2)
			assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
		assert_ptr_equal(thread_join(thread), way == 2 ? PTHREAD_CANCELED : NULL);
		if (way < 2)
			assert_int_equal(d.fd, way ? -ECANCELED : -ETIMEDOUT);
		assert_int_equal(resolver.answers, 0);
		ctxfd_close(ctx);
	}
	close_stuck(&stuck);
	close(refuser);
}

static void without_fds_it_says_so(void **state)
{
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd;

	reset_resolver();
	answer(&addr, sizeof addr);
	exhaust_fds();
	fd = ctxfd_dial(ctxfd_background(), "x", "y", 0);
	free_fds();
	assert_int_equal(fd, -EMFILE);
	assert_int_equal(resolver.answers, 0);
	close(listener);
}

/* One descriptor, and an attempt that has it: the next one waits until that one has failed. */
static void with_one_fd_they_take_turns(void **state)
{
	struct dialling d = { .ctx = ctxfd_background() };
	struct sockaddr_in addr;
	struct thread *thread;
	int listener = make_listener(&addr), spare;
	struct stuck stuck;

	make_stuck(&stuck);
	reset_resolver();
	connects = 0;
	answer(&stuck.addr, sizeof stuck.addr);
	answer(&addr, sizeof addr);
	/* What the wait itself needs is made before. */
	assert_int_equal(ctxfd_poll(d.ctx, &(struct pollfd){ .fd = stuck.listener, .events = POLLPRI }, 1, 1), 0);
	spare = fcntl(listener, F_DUPFD_CLOEXEC, 0);
	exhaust_fds();
	close(spare);
	thread = thread_start(dial, &d);
	wait_until(connects == 1);
	pass_time(300 * CTXFD_MSEC); /* its turn has come, and there was nothing for it */
	assert_int_equal(connects, 1);
	/* It fails when the kernel asks anew. */
	assert_int_equal(shutdown(stuck.listener, SHUT_RDWR), 0);
	thread_join(thread);
	free_fds();
	assert_true(d.fd >= 0);
	assert_int_equal(port_of_peer(d.fd), ntohs(addr.sin_port));
	close(d.fd);
	close(listener);
	close_stuck(&stuck);
}

/* However many addresses there are, only the attempts under way take a descriptor each, and an entry of the poll. */
static void there_may_be_more_addresses_than_fds(void **state)
{
	struct sockaddr_in refused, addr;
	int refuser = make_refuser(&refused), listener = make_listener(&addr), fd, none;
	int lowest = fcntl(listener, F_DUPFD_CLOEXEC, 0);
	struct rlimit before, few;

	assert_true(lowest >= 0);
	close(lowest);
	reset_resolver();
	while (resolver.n < COUNT(resolver.addrs) - 1)
		answer(&refused, sizeof refused);
	answer(&addr, sizeof addr);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){ .rlim_cur = (rlim_t)lowest + 2, .rlim_max = before.rlim_max };
	assert_true(few.rlim_cur < resolver.n);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	fd = ctxfd_dial(ctxfd_background(), "x", "y", SOCK_CLOEXEC);
	resolver.n--;
	none = ctxfd_dial(ctxfd_background(), "x", "y", SOCK_CLOEXEC);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(fd >= 0);
	assert_int_equal(port_of_peer(fd), ntohs(addr.sin_port));
	assert_int_equal(none, -ECONNREFUSED);
	close(fd);
	close(refuser);
	close(listener);
}

static void signals_do_not_end_it(void **state)
{
	struct signal_storm storm;
	int64_t deadline = 0;
	struct ctxfd *ctx;
	struct stuck stuck;
	int fd;

	make_stuck(&stuck);
	reset_resolver();
	answer(&stuck.addr, sizeof stuck.addr);
	start_signals(&storm);
	ctx = ctxfd_with_timeout(ctxfd_background(), 30 * CTXFD_MSEC);
	fd = ctxfd_dial(ctx, "x", "y", 0);
	stop_signals(&storm);
	assert_int_equal(fd, -ETIMEDOUT);
	assert_true(ctxfd_deadline(ctx, &deadline));
	assert_elapsed(deadline, 0, CTXFD_SEC);
	ctxfd_close(ctx);
	close_stuck(&stuck);
}

static int dial_in_child(void *arg)
{
	int fd = ctxfd_dial(arg, "x", "y", SOCK_CLOEXEC);

	require(fd >= 0);
	close(fd);
	ctxfd_cancel(arg);
	require(ctxfd_dial(arg, "x", "y", SOCK_CLOEXEC) == -ECANCELED);
	return 0;
}

static void a_forked_child_dials(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip_test("ThreadSanitizer dies where a thread of the child has the place of one of the parent");
#endif
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	struct sockaddr_in addr;
	int listener = make_listener(&addr), fd;

	reset_resolver();
	answer(&addr, sizeof addr);
	fd = ctxfd_dial(ctx, "x", "y", SOCK_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(in_child(dial_in_child, ctx), 0);
	fd = ctxfd_dial(ctx, "x", "y", SOCK_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	close(listener);
	ctxfd_close(ctx);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_resolver_is_asked),
		cmocka_unit_test(every_code_has_its_error),
		cmocka_unit_test(a_done_context_asks_nobody),
		cmocka_unit_test(who_leaves_leaves_nothing),
		cmocka_unit_test(a_deadline_ends_the_wait_for_the_resolver),
		cmocka_unit_test(without_memory_it_says_so),
		cmocka_unit_test(the_real_resolver_answers),
		cmocka_unit_test(a_silent_name_server_holds_up_nobody),
		cmocka_unit_test(dial_gives_a_socket_with_its_flags),
		cmocka_unit_test(no_name_is_this_machine),
		cmocka_unit_test(the_order_is_that_of_rfc_8305),
		cmocka_unit_test(nobody_is_connected_to_himself),
		cmocka_unit_test(a_failure_starts_the_next_one),
		cmocka_unit_test(the_first_error_is_told),
		cmocka_unit_test(silence_starts_the_next_one_later),
		cmocka_unit_test(those_before_go_on),
		cmocka_unit_test(the_end_of_ctx_ends_all_attempts),
		cmocka_unit_test(without_fds_it_says_so),
		cmocka_unit_test(with_one_fd_they_take_turns),
		cmocka_unit_test(there_may_be_more_addresses_than_fds),
		cmocka_unit_test(signals_do_not_end_it),
		cmocka_unit_test(a_forked_child_dials),
	};

	ctxfdi_call_idle = CTXFD_MSEC;
	return run_all(tests);
}
