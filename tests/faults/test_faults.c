/* SPDX-License-Identifier: MIT */
/*
 * Every call of the library that can fail does, once at each place where it is made, in a script that uses the whole
 * API. faults.def lists them. Whatever fails, the error that comes out is the one that was dealt, errno is left alone,
 * the same call made again works, a cancel reaches everyone, and in the end nothing is left over.
 *
 * Each run is a child process, so that nothing that the library remembers carries over to the next, with contexts that
 * the parent made before: what the child does to them must not reach the parent.
 */
#include "commands.h"
#include "ctxfd_group.h"
#include "faults.h"

#include <netdb.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "calls/call.h"
#include "ctxfd_net.h"

/* ---- Calls that may meet the fault ------------------------------------------------------------------------------- */

#define UNTOUCHED 0x7777

/* Makes a call until no fault is shown to it, and then `ok` must hold of the result. */
#define CHECK(call, ok)                              \
	do {                                         \
		int64_t result;                      \
		int e;                               \
		do {                                 \
			errno = UNTOUCHED;           \
			result = (call);             \
			require(errno == UNTOUCHED); \
			e = fault_shown();           \
			require(!e || result == -e); \
		} while (e);                         \
		require(ok);                         \
	} while (0)

/* The same with a constructor. */
#define MAKE(ctx, call)                                                    \
	do {                                                               \
		int e;                                                     \
		do {                                                       \
			(ctx) = (call);                                    \
			e = fault_shown();                                 \
			require(e ? !(ctx) && errno == e : (ctx) != NULL); \
		} while (e);                                               \
	} while (0)

/* The same where a thread of the library's may meet the fault. */
#define CHECK_THERE(call, ok)                                \
	do {                                                 \
		int64_t result;                              \
		do {                                         \
			errno = UNTOUCHED;                   \
			result = (call);                     \
			require(errno == UNTOUCHED);         \
			require(result >= 0 || fault_hit()); \
			(void)fault_shown();                 \
		} while (result < 0);                        \
		require(ok);                                 \
	} while (0)

/* A call that cannot fail. What it meets is hidden. */
#define DO(call)                             \
	do {                                 \
		errno = UNTOUCHED;           \
		call;                        \
		require(errno == UNTOUCHED); \
		(void)fault_shown();         \
	} while (0)

/* Makes this thread's waiter: what fails there shows in no call. */
static void warm_up(const struct ctxfd *ctx)
{
	int result, e;

	do {
		errno = UNTOUCHED;
		result = ctxfd_poll(ctx, NULL, 0, 1);
		require(errno == UNTOUCHED);
		e = fault_shown();
		require(result == 0 || result == -ECANCELED || (e && result == -e));
	} while (e);
}

/* ---- The script -------------------------------------------------------------------------------------------------- */

struct inherited {
	struct ctxfd *event, *timer, *done;
	int event_fd, timer_fd, done_fd;
};

static void use_inherited(const struct inherited *in)
{
	/* One is asked for its fd and then ends, one ends first. */
	CHECK(ctxfd_done_fd(in->event), result >= 0 && result != in->event_fd);
	require(!readable(ctxfd_done_fd(in->event)));
	DO(ctxfd_cancel(in->event));
	DO(ctxfd_cancel(in->timer));
	CHECK(ctxfd_done_fd(in->timer), result >= 0 && result != in->timer_fd);
	CHECK(ctxfd_done_fd(in->done), result >= 0 && result != in->done_fd);
	DO(require(ctxfd_err(in->event) == -ECANCELED));
	DO(require(ctxfd_err(in->timer) == -ECANCELED));
	require(readable(ctxfd_done_fd(in->event)) && readable(ctxfd_done_fd(in->timer)));
	require(readable(ctxfd_done_fd(in->done)));
	DO(ctxfd_unref(in->event));
	DO(ctxfd_unref(in->timer));
	DO(ctxfd_unref(in->done));
}

enum { ROOT, CHILD, TIMED, BELOW, MERGED, FD, SIGNALS, PROCESS, IDLE, MEMBERS };

struct world {
	struct ctxfd *all[MEMBERS];
	const struct ctxfd *value, *detached;
	int pipe[2], trigger[2], pidfd;
	struct thread *threads[3];
	_Atomic int ran, expired, destroyed;
	struct ctxfd_after *after;
};

static const char key;

static void destroy(void *value)
{
	((struct world *)value)->destroyed++;
}

/* When it fails, it leaves the signal's disposition as it was. */
static struct ctxfd *with_signal(const struct ctxfd *parent)
{
	struct sigaction action;
	struct ctxfd *ctx;
	sigset_t set;
	int error;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ctx = ctxfd_with_signals(parent, &set);
	error = errno;
	require(sigaction(SIGUSR1, NULL, &action) == 0);
	require((action.sa_handler == SIG_DFL) == !ctx);
	errno = error;
	return ctx;
}

static void make_tree(struct world *w)
{
	MAKE(w->all[ROOT], ctxfd_with_cancel(ctxfd_background()));
	MAKE(w->all[SIGNALS], with_signal(w->all[ROOT]));
	MAKE(w->value, ctxfd_with_value(w->all[ROOT], &key, w, destroy));
	MAKE(w->detached, ctxfd_without_cancel(w->value));
	MAKE(w->all[CHILD], ctxfd_with_cancel(w->value));
	MAKE(w->all[TIMED], ctxfd_with_timeout_cause(w->all[CHILD], 3600 * CTXFD_SEC, -5));
	MAKE(w->all[BELOW], ctxfd_with_deadline(w->all[TIMED], INT64_MAX));
	MAKE(w->all[MERGED], ctxfd_merge(w->all[BELOW], w->all[CHILD]));
	MAKE(w->all[FD], ctxfd_with_fd(w->value, w->trigger[0], POLLIN, -6));
	MAKE(w->all[IDLE], ctxfd_with_idle(w->value, 3600 * CTXFD_SEC, -9));
	DO(ctxfd_touch(w->all[IDLE]));
	w->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (w->pidfd >= 0)
		MAKE(w->all[PROCESS], ctxfd_with_process(w->all[ROOT], w->pidfd, -7));
	else
		MAKE(w->all[PROCESS], ctxfd_with_cancel(w->all[ROOT]));
	require(ctxfd_value(w->all[MERGED], &key) == w);
	require(ctxfd_value(w->detached, &key) == w);
}

static void ask_for_fds(struct world *w)
{
	for (int i = CHILD; i < MEMBERS; i++) {
		CHECK(ctxfd_done_fd(w->all[i]), result >= 0);
		require(!readable(ctxfd_done_fd(w->all[i])));
	}
	CHECK(ctxfd_done_fd(w->detached), result >= 0);
}

static void *wait_child(void *arg)
{
	struct world *w = arg;

	CHECK(ctxfd_wait(w->all[CHILD]), result == -ECANCELED);
	return NULL;
}

static void *sleep_below(void *arg)
{
	struct world *w = arg;

	CHECK(ctxfd_sleep(w->all[BELOW], 1800 * CTXFD_SEC), result == -ECANCELED);
	return NULL;
}

static void *read_root(void *arg)
{
	struct world *w = arg;
	char byte;

	warm_up(w->all[ROOT]);
	CHECK(ctxfd_read(w->all[ROOT], w->pipe[0], &byte, 1), result == -ECANCELED);
	return NULL;
}

static void use_files(const struct ctxfd *ctx)
{
	char buf[sizeof(struct inotify_event) + NAME_MAX + 1];
	int socks[2], file = open("/proc/self/comm", O_RDWR | O_CLOEXEC), watch = inotify_init1(IN_CLOEXEC), opened;

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == 0);
	CHECK(ctxfd_write(ctx, socks[0], "hello", 5), result == 5);
	CHECK(ctxfd_read(ctx, socks[1], buf, sizeof buf), result == 5);
	CHECK(ctxfd_send(ctx, socks[1], "hello", 5, 0), result == 5);
	CHECK(ctxfd_recv(ctx, socks[0], buf, sizeof buf, 0), result == 5);
	close_pair(socks);

	opened = open("/dev/null", O_WRONLY | O_CLOEXEC);
	CHECK(ctxfd_dump(ctx, opened), result == 0);
	close(opened);

	/* What knows neither MSG_DONTWAIT nor RWF_NOWAIT: a file, and what can be polled. */
	CHECK(ctxfd_write(ctx, file, "faulty", 6), result == 6);
	CHECK(ctxfd_read(ctx, file, buf, sizeof buf), result > 0);
	close(file);
	require(inotify_add_watch(watch, "/dev/null", IN_OPEN) >= 0);
	opened = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(ctxfd_read(ctx, watch, buf, sizeof buf), result > 0);
	close(opened);
	close(watch);
}

static int listen_at(struct sockaddr *addr, socklen_t size)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	require(fd >= 0 && bind(fd, addr, size) == 0 && listen(fd, 5) == 0);
	return fd;
}

/* Linux gives a local socket that is bound to no name one of its own. */
static void use_sockets(const struct ctxfd *ctx, int family)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr *addr = family == AF_INET ? (struct sockaddr *)&in : (struct sockaddr *)&un;
	socklen_t size = family == AF_INET ? sizeof in : sizeof un;
	int listener = listen_at(addr, family == AF_INET ? size : offsetof(struct sockaddr_un, sun_path)), conn = -1;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	require(getsockname(listener, addr, &size) == 0);
	CHECK(ctxfd_connect(ctx, fd, addr, size), result == 0);
	CHECK(conn = ctxfd_accept(ctx, listener, NULL, NULL, SOCK_CLOEXEC), result >= 0);
	close(conn);
	close(fd);
	close(listener);
}

static void use_time(struct world *w)
{
	struct pollfd many[10];
	struct ctxfd *soon;
	uint32_t word = 0;

	CHECK(ctxfd_sleep(w->all[ROOT], CTXFD_MSEC), result == 0);
	for (size_t i = 0; i < COUNT(many); i++)
		many[i] = (struct pollfd){ .fd = w->pipe[0], .events = POLLIN };
	CHECK(ctxfd_poll(w->all[TIMED], many, COUNT(many), CTXFD_MSEC), result == 0);
	MAKE(soon, ctxfd_with_timeout_cause(w->value, CTXFD_MSEC, -8));
	CHECK(ctxfd_done_fd(soon), result >= 0);
	do
		CHECK(ctxfd_futex_wait(soon, &word, 0, 0), result == 0 || result == -ETIMEDOUT);
	while (!ctxfd_err(soon));
	CHECK(ctxfd_wait(soon), result == -ETIMEDOUT);
	require(readable(ctxfd_done_fd(soon)));
	require(ctxfd_cause(soon) == -8);
	DO(ctxfd_unref(soon));
}

static void count_run(void *arg)
{
	((struct world *)arg)->ran++;
}

/* One turn of the program's own loop. */
static void serve(struct ctxfd_dispatcher *d, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	require(poll(&p, 1, 30000 * slow()) == 1);
	CHECK(ctxfd_dispatcher_run(d), result >= 0);
}

static void count_expiry(void *arg)
{
	((struct world *)arg)->expired++;
}

/* The dispatcher's thread has started with the tree; here it is used, and one of the program's own beside it. */
static void use_dispatcher(struct world *w)
{
	struct ctxfd_dispatcher *d;
	struct ctxfd_after *stopped;
	struct ctxfd *soon, *watched, *idle, *grace;
	const struct ctxfd *home;
	int fd = -1;

	CHECK(ctxfd_after_func(w->all[TIMED], count_run, w, &w->after), result == 0);
	CHECK(ctxfd_after_func(w->all[ROOT], count_run, w, NULL), result == 0);
	CHECK(ctxfd_after_func(w->all[CHILD], count_run, w, &stopped), result == 0);
	CHECK(ctxfd_after_stop(stopped), result == true);
	require(kill(getpid(), SIGUSR1) == 0);
	CHECK(ctxfd_wait(w->all[SIGNALS]), result == -ECANCELED);
	require(ctxfd_cause(w->all[SIGNALS]) == SIGUSR1);
	MAKE(d, ctxfd_dispatcher_new());
	MAKE(home, ctxfd_with_dispatcher(w->value, d));
	CHECK(fd = ctxfd_dispatcher_fd(d), result >= 0);
	MAKE(watched, ctxfd_with_fd(home, w->trigger[0], POLLIN, -6));
	require(write(w->trigger[1], "x", 1) == 1);
	while (!ctxfd_err(watched))
		serve(d, fd);
	require(ctxfd_cause(watched) == -6);
	CHECK(ctxfd_wait(w->all[FD]), result == -ECANCELED);
	require(ctxfd_cause(w->all[FD]) == -6);
	MAKE(soon, ctxfd_with_timeout(home, CTXFD_MSEC));
	CHECK(ctxfd_after_func(soon, count_expiry, w, NULL), result == 0);
	while (!w->expired)
		serve(d, fd);
	MAKE(idle, ctxfd_with_idle(home, CTXFD_MSEC, -9));
	DO(ctxfd_touch(idle));
	while (!ctxfd_err(idle))
		serve(d, fd);
	require(ctxfd_cause(idle) == -9);
	MAKE(grace, ctxfd_with_grace(soon, CTXFD_MSEC, -10));
	while (!ctxfd_err(grace))
		serve(d, fd);
	require(ctxfd_cause(grace) == -10);
	DO(ctxfd_unref(grace));
	DO(ctxfd_unref(idle));
	DO(ctxfd_unref(soon));
	DO(ctxfd_unref(watched));
	DO(ctxfd_unref(home));
	DO(ctxfd_dispatcher_free(d));
	require(w->ran == 0);
}

static int add_one(void *arg)
{
	return *(int *)arg + 1;
}

static void use_process(const struct ctxfd *ctx)
{
	pid_t pid = fork();
	siginfo_t info;
	int pidfd;

	require(pid >= 0);
	if (pid == 0)
		_exit(7);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		require(waitpid(pid, NULL, 0) == pid);
		return;
	}
	CHECK(ctxfd_waitid(ctx, pidfd, &info, WEXITED), result == 0);
	require(info.si_status == 7);
	close(pidfd);
}

/* The threads that this starts are gone when it returns, with all that they had. */
static void use_calls(const struct ctxfd *ctx)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int threads = count_threads(), listener = listen_at((struct sockaddr *)&in, sizeof in), n = 41, sum = 0,
	    fd = -1;
	struct addrinfo *list = NULL;
	socklen_t size = sizeof in;
	char port[16];

	CHECK(ctxfd_call(ctx, add_one, &n, NULL, &sum), result == 0);
	require(sum == 42);
	require(getsockname(listener, (struct sockaddr *)&in, &size) == 0);
	snprintf(port, sizeof port, "%d", ntohs(in.sin_port));
	CHECK_THERE(ctxfd_getaddrinfo(ctx, "127.0.0.1", port, NULL, &list, NULL), result == 0);
	freeaddrinfo(list);
	CHECK_THERE(fd = ctxfd_dial(ctx, "127.0.0.1", port, SOCK_CLOEXEC), result >= 0);
	close(fd);
	close(listener);
	use_process(ctx);
	wait_until(count_threads() <= threads);
}

static bool makes_commands, shares_memory; /* as can_run and tells_exec_errors say */

/* What the fault has left unreaped. */
static void reap_lost(void)
{
	while (waitpid(-1, NULL, 0) > 0)
		continue;
}

/* A command to its end, one that is stopped, and a context that is passed on. */
static void use_commands(const struct ctxfd *ctx)
{
	struct ctxfd_command c = {
		.argv = (char *[]){ "/bin/test", "!", "-e", "/proc/self/fd/200", NULL },
		.directory = "/",
		.in = -1,
		.out = 2,
		.err = 1,
		.flags = CTXFD_OWN_GROUP | CTXFD_PASS_CONTEXT,
	};
	int status = -1, pidfd = -1, fd = -1, fds;
	struct ctxfd_dispatcher *d;
	const struct ctxfd *home;
	struct ctxfd *end;

	require(dup2(2, 200) == 200); /* which is not close-on-exec */
	CHECK(ctxfd_run(ctx, &c, &status), result == 0 && status == 0);
	close(200);
	reap_lost();
	MAKE(d, ctxfd_dispatcher_new());
	MAKE(home, ctxfd_with_dispatcher(ctx, d));
	MAKE(end, ctxfd_with_cancel(home));
	CHECK(fd = ctxfd_dispatcher_fd(d), result >= 0);
	fds = count_fds();
	c.argv = (char *[]){ "/bin/sleep", "3600", NULL };
	c.stop_signal = SIGTERM;
	CHECK(pidfd = ctxfd_spawn(end, &c, NULL), result >= 0);
	DO(ctxfd_cancel(end));
	do {
		poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 1);
		DO(ctxfd_dispatcher_run(d)); /* without memory it kills at once */
	} while (count_fds() > fds + 1);
	require(waitpid(-1, &status, 0) > 0 && (status == SIGTERM || status == SIGKILL));
	reap_lost();
	close(pidfd);
	DO(ctxfd_unref(end));
	DO(ctxfd_unref(home));
	DO(ctxfd_dispatcher_free(d));
}

static void use_inherited_context(void)
{
	struct ctxfd *ctx;
	char variable[80];
	struct stat st;
	int fds[2];

	require(pipe2(fds, O_CLOEXEC) == 0 && fstat(fds[0], &st) == 0);
	snprintf(variable, sizeof variable, "%d,%" PRId64 ",%ju", fds[0], INT64_MAX, (uintmax_t)st.st_ino);
	require(setenv("CTXFD_CONTEXT", variable, 1) == 0);
	MAKE(ctx, ctxfd_inherited());
	close(fds[1]);
	CHECK(ctxfd_wait(ctx), result == -ECANCELED);
	DO(ctxfd_unref(ctx));
	close(fds[0]);
}

static int count_thread(const struct ctxfd *ctx, void *arg)
{
	++*(_Atomic int *)arg;
	return 0;
}

/* The second has to wait for the first, or for what is left of it. */
static void use_group(const struct ctxfd *ctx)
{
	struct ctxfd_group *g;
	_Atomic int ran = 0;

	MAKE(g, ctxfd_group_new(ctx, 1));
	for (int i = 0; i < 3; i++)
		CHECK(ctxfd_group_go(g, count_thread, (void *)&ran), result == 0);
	CHECK(ctxfd_group_wait(g), result == 0);
	require(ran == 3);
}

static void end_everything(struct world *w)
{
	DO(ctxfd_cancel(w->all[ROOT]));
	for (int i = 0; i < MEMBERS; i++) {
		DO(require(ctxfd_err(w->all[i]) == -ECANCELED));
		CHECK(ctxfd_done_fd(w->all[i]), result >= 0);
		require(readable(ctxfd_done_fd(w->all[i])));
	}
	for (size_t i = 0; i < COUNT(w->threads); i++)
		thread_join(w->threads[i]);
	require(ctxfd_err(w->detached) == 0);
	require(!readable(ctxfd_done_fd(w->detached)));
	wait_until(w->ran == 2);
	CHECK(ctxfd_after_stop(w->after), result == false);
	/* The dispatcher runs one after the other: when this one has begun, what it has called before is freed. */
	CHECK(ctxfd_after_func(w->all[ROOT], count_run, w, &w->after), result == 0);
	wait_until(w->ran == 3);
	CHECK(ctxfd_after_stop(w->after), result == false);
	for (int i = 0; i < MEMBERS; i++)
		DO(ctxfd_unref(w->all[i]));
	DO(ctxfd_unref(w->value));
	require(w->destroyed == 0);
	DO(ctxfd_unref(w->detached));
	require(w->destroyed == 1);
	close_pair(w->pipe);
	close_pair(w->trigger);
	if (w->pidfd >= 0)
		close(w->pidfd);
}

static void script(const struct inherited *in)
{
	struct world w = { 0 };

	use_inherited(in);
	require(pipe2(w.pipe, O_CLOEXEC) == 0);
	require(pipe2(w.trigger, O_CLOEXEC) == 0);
	make_tree(&w);
	warm_up(w.all[ROOT]);
	ask_for_fds(&w);
	w.threads[0] = thread_start(wait_child, &w);
	w.threads[1] = thread_start(sleep_below, &w);
	w.threads[2] = thread_start(read_root, &w);
	use_files(w.value);
	use_sockets(w.all[BELOW], AF_INET);
	use_sockets(w.all[CHILD], AF_UNIX);
	use_time(&w);
	use_calls(w.all[BELOW]);
	use_dispatcher(&w);
	use_group(w.all[BELOW]);
	fault_passing(true);
	if (makes_commands)
		use_commands(w.all[BELOW]);
	use_inherited_context();
	fault_passing(false);
	end_everything(&w);
}

enum {
#define CALL(type, name, parameters, arguments, failure, ...) __VA_ARGS__
#define FAULT(id, fate, when, ...)                            FAULT_##id,
#define SAFE(name, why)
#include "faults.def"
#undef FAULT
};

/* ---- One run, and all -------------------------------------------------------------------------------------------- */

/* What a run leaves: as much as one without a fault, which is the dispatcher's fds and what is shared. */
struct rest {
	int fds, threads;
	long memory;
	bool hit;
};

static struct rest *rest; /* shared with the children */

/* The arguments are fault_arm's. */
struct run {
	int id, error, nth, times;
	int threads; /* how many it ends with when there is no fault; 0: that is to be found out */
	struct inherited in;
};

/* One that was joined stays in /proc for a moment. */
static int count_threads_left(int expected)
{
	int64_t until = now() + (expected ? CTXFD_SEC * slow() : 20 * CTXFD_MSEC);
	int n;

	while ((n = count_threads()) != expected && now() < until)
		pass_time(100 * CTXFD_USEC);
	return n;
}

static int child(void *arg)
{
	struct run *run = arg;

	fault_arm(run->id, run->error, run->nth, run->times);
	script(&run->in);
	rest->hit = fault_hit();
	fault_arm(-1, 0, 0, 0);
	rest->memory = live_allocations();
	rest->fds = count_fds();
	rest->threads = count_threads_left(run->threads);
	return 0;
}

static void make_inherited(struct inherited *in)
{
	in->event = ctxfd_with_cancel(ctxfd_background());
	in->timer = ctxfd_with_timeout(in->event, 3600 * CTXFD_SEC);
	in->done = ctxfd_with_cancel(ctxfd_background());
	in->event_fd = ctxfd_done_fd(in->event);
	in->timer_fd = ctxfd_done_fd(in->timer);
	in->done_fd = ctxfd_done_fd(in->done);
	ctxfd_cancel(in->done);
}

static void free_inherited(struct inherited *in)
{
	assert_int_equal(ctxfd_err(in->event), 0);
	assert_int_equal(ctxfd_err(in->timer), 0);
	assert_not_readable(in->event_fd);
	assert_not_readable(in->timer_fd);
	assert_readable(in->done_fd);
	ctxfd_unref(in->event);
	ctxfd_unref(in->timer);
	ctxfd_unref(in->done);
}

static struct rest run_script(int id, int error, int nth, int times, int threads)
{
	struct run run = { .id = id, .error = error, .nth = nth, .times = times, .threads = threads };

	make_inherited(&run.in);
	memset(rest, 0, sizeof *rest);
	if (in_child(child, &run) != 0)
		fail_msg("%s with %s, at occurrence %d, %d times", id < 0 ? "none" : faults[id].name, strerror(error),
		         nth, times);
	free_inherited(&run.in);
	return *rest;
}

static bool has_pidfds(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool has_futex_waitv(void)
{
	return syscall(449, NULL, 0, 0, NULL, 0) == 0 || errno != ENOSYS;
}

/* What a child process meets, which tells it by memory. */
static bool is_in_child(int id)
{
	return id == FAULT_NO_EXEC || id == FAULT_NO_CLOSE_RANGE;
}

static bool is_of_commands(int id)
{
	return is_in_child(id) || id == FAULT_NO_PROCESS || id == FAULT_NO_DUP || id == FAULT_STATUS_LATER ||
	       id == FAULT_NO_SIGNAL_BY_PIDFD || id == FAULT_END_NOT_PASSED_ON || id == FAULT_NO_PIPE;
}

/* Every errno, at every place, for one and for three occurrences; a slow run leaves some out. */
static void library_survives(void **state)
{
	int id = *(int *)*state;
	const struct fault *fault = &faults[id];
	struct rest clean = run_script(-1, 0, 0, 0, 0), faulty;
	int most = slow() < 20 ? 3 : 1; /* the children of valgrind compile all anew */

	if (id == FAULT_POLL_FAILS && !has_set_ticks())
		skip_test("without SET_TICKS done fds are polled too, and that is tried again");
	if (is_in_child(id) && !shares_memory)
		skip_test("here a child does not share memory, or there is none");
	set_time_limit(300);
	for (int i = 0; i < (int)COUNT(fault->errnos) && fault->errnos[i]; i++) {
		for (int times = 1; times <= most; times += 2) {
			int nth = 1;

			do {
				faulty = run_script(id, fault->errnos[i], nth, times, clean.threads);
				assert_int_equal(faulty.fds, clean.fds);
				assert_int_equal(faulty.memory, clean.memory);
				assert_int_equal(faulty.threads, clean.threads);
				if (!faulty.hit && (id == FAULT_NO_PIDFD_SEND_SIGNAL || id == FAULT_NO_STATUS) &&
				    !has_pidfds())
					skip_test("no pidfd_open here");
				if (!faulty.hit && is_of_commands(id) && !makes_commands)
					skip_test("no process with a pidfd here");
				if (!faulty.hit && id == FAULT_FUTEX_WAITV && !has_futex_waitv())
					skip_test("no futex_waitv here");
				assert_true(faulty.hit || nth > 1);
				nth += slow();
			} while (faulty.hit);
		}
	}
}

/* Where SET_TICKS is refused: the fd is readable when cancel returns, however long the kernel takes to fire it. */
static int cancel_with_slow_alarms(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	int fd = ctxfd_done_fd(ctx);

	fault_arm(FAULT_NO_SET_TICKS, ENOTTY, 1, 1);
	fault_slow_alarms(5 * CTXFD_MSEC);
	ctxfd_cancel(ctx);
	require(fault_hit());
	require(readable(fd));
	ctxfd_unref(ctx);
	return 0;
}

static void a_slow_alarm_is_waited_for(void **state)
{
	assert_int_equal(in_child(cancel_with_slow_alarms, NULL), 0);
}

/* Neither the look whether there is anything to do, the first poll, nor the wait, the second, ends by a signal. */
static int cancel_under_signals(void *arg)
{
	cancel_with_slow_alarms(NULL);
	for (int poll = 1; poll <= 2; poll++) {
		struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
		int fd = ctxfd_done_fd(ctx);

		fault_arm(FAULT_POLL_INTERRUPTED, EINTR, poll, 3);
		ctxfd_cancel(ctx);
		require(fault_hit());
		require(readable(fd));
		ctxfd_unref(ctx);
	}
	return 0;
}

static void signals_do_not_end_the_wait_for_an_alarm(void **state)
{
	assert_int_equal(in_child(cancel_under_signals, NULL), 0);
}

/*
 * When signals come faster than the machine can handle them every look is interrupted, and the time passes all the
 * same.
 */
static int poll_under_signals(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct pollfd pollfd = { .events = POLLIN };
	int pipe[2];
	int64_t start = now();

	make_pipe(pipe);
	pollfd.fd = pipe[0];
	fault_arm(FAULT_PPOLL_INTERRUPTED, EINTR, 1, INT_MAX);
	require(ctxfd_poll(ctx, &pollfd, 1, 5 * CTXFD_MSEC) == 0);
	require(fault_hit() && now() >= start + 5 * CTXFD_MSEC);
	require(ctxfd_poll(ctx, &pollfd, 1, 0) == 0);
	close_pair(pipe);
	ctxfd_unref(ctx);
	return 0;
}

static void signals_do_not_keep_a_poll_beyond_its_time(void **state)
{
	assert_int_equal(in_child(poll_under_signals, NULL), 0);
}

/* The wait for the end of a process that has been asked to end, which goes on when there is memory again. */
static int stop_without_memory(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct running r;
	struct script s;

	(void)arg;
	make_script(&s, "trap 'sleep 0.1; exit 7' TERM; echo; while :; do sleep 0.01; done");
	s.command.stop_signal = SIGTERM;
	s.command.grace = INT64_MAX;
	start_running(&r, ctx, &s.command);
	hear(&s);
	thread_wait_asleep(r.thread);
	fault_arm(FAULT_PPOLL_NO_MEMORY, ENOMEM, 1, 3);
	ctxfd_cancel(ctx);
	require(end_of_running(&r) == 7 << 8);
	require(fault_hit());
	drop_script(&s);
	ctxfd_close(ctx);
	return 0;
}

static void a_grace_needs_no_memory(void **state)
{
	if (!makes_commands)
		skip_test("no process with a pidfd here");
	assert_int_equal(in_child(stop_without_memory, NULL), 0);
}

struct watched {
	int fd;
	_Atomic bool watching, over;
};

static void *watch(void *arg)
{
	struct watched *w = arg;

	while (!w->over) {
		require(readable(w->fd));
		w->watching = true;
	}
	return NULL;
}

/*
 * The kernel fires it at the deadline, then somebody asks, and the fd is signalled again: that must not take it back.
 */
enum { TOO_LATE = 2 }; /* the deadline had passed before there was a fd for the kernel to fire */

static int expire_with_slow_alarms(void *arg)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), *(int64_t *)arg);
	struct watched w = { .fd = ctxfd_done_fd(ctx) };
	struct thread *watcher;

	fault_arm(FAULT_NO_SET_TICKS, ENOTTY, 1, 1);
	fault_slow_alarms(50 * CTXFD_MSEC);
	wait_readable(w.fd);
	watcher = thread_start(watch, &w);
	wait_until(w.watching);
	require(ctxfd_err(ctx) == -ETIMEDOUT);
	w.over = true;
	thread_join(watcher);
	ctxfd_unref(ctx);
	return fault_hit() ? 0 : TOO_LATE;
}

static void what_is_readable_stays_readable(void **state)
{
	int64_t timeout = 10 * CTXFD_MSEC;
	int result;

	while ((result = in_child(expire_with_slow_alarms, &timeout)) == TOO_LATE)
		timeout *= 4;
	assert_int_equal(result, 0);
}

static const struct ctxfd *home;
static struct ctxfd_dispatcher *dispatcher;
static int ran;

static void count_ran(void *arg)
{
	ran++;
}

static struct ctxfd *with_counted_end(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(home);

	require(ctx && ctxfd_after_func(ctx, count_ran, NULL, NULL) == 0);
	return ctx;
}

/* What ends while another cancel is about to make the fd ready does not count on that: its caller may not wait. */
static bool cancel_another(void)
{
	ctxfd_close(with_counted_end());
	require(readable(ctxfd_dispatcher_fd(dispatcher)));
	require(ctxfd_dispatcher_run(dispatcher) == 2);
	require(!readable(ctxfd_dispatcher_fd(dispatcher)));
	return false;
}

/* No lock is held while the fd is made ready, and what it tells is so at every moment. */
static void a_dispatcher_is_free_while_it_is_woken(void **state)
{
	struct ctxfd *ctx;

	ran = 0;
	dispatcher = ctxfd_dispatcher_new();
	home = ctxfd_with_dispatcher(ctxfd_background(), dispatcher);
	ctx = with_counted_end();
	fault_before_write(cancel_another);
	ctxfd_close(ctx);
	assert_int_equal(ran, 2);
	ctxfd_dispatcher_run(dispatcher); /* for nothing, which the late write may have brought about */
	assert_false(readable(ctxfd_dispatcher_fd(dispatcher)));
	ctxfd_close(with_counted_end());
	assert_true(readable(ctxfd_dispatcher_fd(dispatcher)));
	assert_int_equal(ctxfd_dispatcher_run(dispatcher), 1);
	ctxfd_unref(home);
	ctxfd_dispatcher_free(dispatcher);
}

static bool refuse(void)
{
	return true;
}

/* A sandbox may refuse the write for a while: what ends next tries again, for all. */
static void a_wake_up_that_is_refused_is_made_up_for(void **state)
{
	ran = 0;
	dispatcher = ctxfd_dispatcher_new();
	home = ctxfd_with_dispatcher(ctxfd_background(), dispatcher);
	fault_before_write(refuse);
	ctxfd_close(with_counted_end());
	assert_false(readable(ctxfd_dispatcher_fd(dispatcher)));
	ctxfd_close(with_counted_end());
	assert_true(readable(ctxfd_dispatcher_fd(dispatcher)));
	assert_int_equal(ctxfd_dispatcher_run(dispatcher), 2);
	ctxfd_unref(home);
	ctxfd_dispatcher_free(dispatcher);
}

/* A thread that is about to wake a dispatcher keeps it, although its last context goes meanwhile. */
static bool run_and_give_up(void)
{
	require(ctxfd_dispatcher_run(dispatcher) == 1);
	ctxfd_unref(home);
	ctxfd_dispatcher_free(dispatcher);
	require(ctxfd_dispatcher_fd(dispatcher) >= 0);
	return false;
}

static void a_dispatcher_lives_until_it_is_woken(void **state)
{
	struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());

	ran = 0;
	dispatcher = ctxfd_dispatcher_new();
	home = ctxfd_with_dispatcher(parent, dispatcher);
	ctxfd_unref(with_counted_end()); /* its after-func keeps it */
	fault_before_write(run_and_give_up);
	ctxfd_close(parent);
	assert_int_equal(ran, 1);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_dispatcher_is_free_while_it_is_woken),
	cmocka_unit_test(a_dispatcher_lives_until_it_is_woken),
	cmocka_unit_test(a_grace_needs_no_memory),
	cmocka_unit_test(a_wake_up_that_is_refused_is_made_up_for),
	cmocka_unit_test(what_is_readable_stays_readable),
	cmocka_unit_test(a_slow_alarm_is_waited_for),
	cmocka_unit_test(signals_do_not_end_the_wait_for_an_alarm),
	cmocka_unit_test(signals_do_not_keep_a_poll_beyond_its_time),
#define FAULT(id, fate, when, ...) { "survives_" #id, library_survives, NULL, NULL, &(int){ FAULT_##id } },
#include "faults.def"
};

int main(void)
{
	ctxfdi_call_idle = CTXFD_MSEC;
	makes_commands = can_run();
	shares_memory = makes_commands && tells_exec_errors();
	rest = mmap(NULL, sizeof *rest, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	require(rest != MAP_FAILED);
	return run_all(tests);
}
