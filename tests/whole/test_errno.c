/* SPDX-License-Identifier: MIT */
/* No call touches errno, whether it succeeds, fails or waits; except constructors that fail, which set it. */
#include "harness.h"

#include "ctxfd_group.h"
#include "ctxfd_net.h"

#define UNTOUCHED 12345
#define FAR       (3600 * CTXFD_SEC)

#define KEEPS(call)                                 \
	do {                                        \
		errno = UNTOUCHED;                  \
		(void)(call);                       \
		assert_int_equal(errno, UNTOUCHED); \
	} while (0)

#define KEEPS_VOID(call)                            \
	do {                                        \
		errno = UNTOUCHED;                  \
		call;                               \
		assert_int_equal(errno, UNTOUCHED); \
	} while (0)

static void *cancel_it(void *arg)
{
	struct timespec soon = { 0, 2 * CTXFD_MSEC };

	nanosleep(&soon, NULL);
	ctxfd_cancel(arg);
	return NULL;
}

static void no_call_touches_errno(void **state)
{
	struct ctxfd *live = ctxfd_with_cancel(ctxfd_background()), *done = ctxfd_with_cancel(live), *timed;
	int pipe[2];
	struct sockaddr_in addr;
	int refuser, client, listener;
	struct pollfd many[20] = { { 0 } }, fds[] = { { .events = POLLIN }, { .fd = 9999 } };
	struct thread *thread;
	int64_t at;
	char buf[100];

	make_pipe(pipe);
	fds[0].fd = pipe[0];
	refuser = make_refuser(&addr);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	KEEPS(ctxfd_err(live));
	KEEPS(ctxfd_cause(live));
	KEEPS(ctxfd_deadline(live, &at));
	KEEPS(ctxfd_remaining(live));
	KEEPS(ctxfd_value(live, &at));
	KEEPS(ctxfd_now());
	KEEPS(ctxfd_strerror(-ENOENT));
	KEEPS(ctxfd_strerror(-98765));
	KEEPS(ctxfd_strerror(98765));
	KEEPS(ctxfd_strerror(INT_MIN));
	KEEPS(ctxfd_describe(live, buf, sizeof buf));
	KEEPS(ctxfd_sleep(live, CTXFD_MSEC));
	KEEPS(ctxfd_done_fd(live));
	KEEPS(ctxfd_done_fd(done));
	KEEPS(ctxfd_done_fd(ctxfd_background()));
	KEEPS_VOID(ctxfd_cancel(done));
	KEEPS_VOID(ctxfd_cancel(done));
	KEEPS(ctxfd_wait(done));
	KEEPS(ctxfd_ref(done));
	KEEPS_VOID(ctxfd_unref(done));
	KEEPS_VOID(ctxfd_unref(NULL));
	KEEPS_VOID(ctxfd_cancel(NULL));
	KEEPS_VOID(ctxfd_close(NULL));
	KEEPS_VOID(ctxfd_touch(NULL));
	KEEPS_VOID(ctxfd_touch(live));

	KEEPS(ctxfd_poll(live, fds, 2, -1));
	KEEPS(ctxfd_poll(live, fds, 1, CTXFD_MSEC));
	KEEPS(ctxfd_poll(live, fds, (nfds_t)INT_MAX, 0));
	KEEPS(ctxfd_poll(done, fds, 1, -1));
	fail_allocation(1);
	KEEPS(ctxfd_poll(live, many, COUNT(many), CTXFD_MSEC));
	KEEPS(ctxfd_poll(live, NULL, 0, CTXFD_MSEC));
	KEEPS(ctxfd_write(live, pipe[1], "x", 1));
	KEEPS(ctxfd_read(live, pipe[0], buf, 10));
	KEEPS(ctxfd_read(done, pipe[0], buf, 10));
	KEEPS(ctxfd_read(live, -1, buf, 10));
	KEEPS(ctxfd_write(live, -1, buf, 10));
	KEEPS(ctxfd_recv(live, pipe[0], buf, 10, 0));
	KEEPS(ctxfd_send(live, pipe[1], buf, 10, 0));
	KEEPS(ctxfd_accept(live, refuser, NULL, NULL, 0));
	KEEPS(ctxfd_accept(live, -1, NULL, NULL, 0));
	KEEPS(ctxfd_connect(live, client, (struct sockaddr *)&addr, sizeof addr));
	KEEPS(ctxfd_connect(live, -1, (struct sockaddr *)&addr, sizeof addr));

	/* With waiting, and an end that comes while they wait. */
	timed = ctxfd_with_timeout(live, CTXFD_MSEC);
	KEEPS(ctxfd_read(timed, pipe[0], buf, 10));
	ctxfd_unref(timed);
	fill(pipe[1]);
	timed = ctxfd_with_timeout(live, CTXFD_MSEC);
	KEEPS(ctxfd_write(timed, pipe[1], buf, 10));
	ctxfd_unref(timed);
	listener = make_listener(&addr);
	timed = ctxfd_with_timeout(live, CTXFD_MSEC);
	KEEPS(ctxfd_accept(timed, listener, NULL, NULL, 0));
	KEEPS_VOID(ctxfd_unref(timed));
	timed = ctxfd_with_timeout(live, FAR);
	thread = thread_start(cancel_it, timed);
	KEEPS(ctxfd_wait(timed));
	thread_join(thread);
	KEEPS_VOID(ctxfd_close(timed));
	exhaust_fds();
	timed = ctxfd_with_timeout(live, FAR);
	KEEPS(ctxfd_done_fd(timed));
	KEEPS(ctxfd_poll(timed, fds + 1, 1, CTXFD_MSEC));
	KEEPS_VOID(ctxfd_close(timed));
	free_fds();

	KEEPS_VOID(ctxfd_close(done));
	KEEPS_VOID(ctxfd_close(live));
	close_pair(pipe);
	close(listener);
	close(client);
	close(refuser);
}

/* ---- Without a thread -------------------------------------------------------------------------------------------- */

static bool no_threads;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

/* As libc's, which has no memory for the stack: the errno of its mmap stays. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	if (!no_threads)
		return __real_pthread_create(thread, attr, fn, arg);
	errno = ENOMEM;
	return EAGAIN;
}

static int nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int nothing_in_group(const struct ctxfd *ctx, void *arg)
{
	(void)ctx;
	return nothing(arg);
}

static void nothing_after(void *arg)
{
	(void)arg;
}

#define NO_THREAD(call)                             \
	do {                                        \
		errno = UNTOUCHED;                  \
		assert_int_equal(call, -EAGAIN);    \
		assert_int_equal(errno, UNTOUCHED); \
	} while (0)

/* First, while the library has none. */
static void a_thread_that_cannot_be_made_touches_no_errno(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_group *group = ctxfd_group_new(ctx, 0);
	struct addrinfo *found;

	no_threads = true;
	NO_THREAD(ctxfd_call(ctx, nothing, NULL, NULL, NULL));
	NO_THREAD(ctxfd_getaddrinfo(ctx, "127.0.0.1", "1", NULL, &found, NULL));
	NO_THREAD(ctxfd_dial(ctx, "127.0.0.1", "1", 0));
	NO_THREAD(ctxfd_after_func(ctx, nothing_after, NULL, NULL));
	NO_THREAD(ctxfd_group_go(group, nothing_in_group, NULL));
	no_threads = false;
	KEEPS(ctxfd_group_go(group, nothing_in_group, NULL));
	KEEPS(ctxfd_group_wait(group));
	ctxfd_close(ctx);
}

/* ---- What ends without waiting ----------------------------------------------------------------------------------- */

static void no_other_call_touches_errno(void **state)
{
	struct ctxfd *live = ctxfd_with_cancel(ctxfd_background()), *done = ctxfd_with_cancel(live);
	struct ctxfd *timed[] = { ctxfd_with_timeout(live, CTXFD_MSEC), ctxfd_with_timeout(live, CTXFD_MSEC) };
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	const uint32_t word = 0;

	ctxfd_cancel(done);
	pthread_mutex_lock(&mutex);
	KEEPS(ctxfd_cond_wait(done, &cond, &mutex));
	KEEPS(ctxfd_cond_wait(timed[0], &cond, &mutex));
	pthread_mutex_unlock(&mutex);
	KEEPS(ctxfd_futex_wait(done, &word, 0, 0));
	KEEPS(ctxfd_futex_wait(timed[1], &word, 0, 0));
	KEEPS(ctxfd_futex_wait(live, &word, 1, 0));
	KEEPS(ctxfd_futex_wait(live, (const char *)&word + 1, 1, 0));
	KEEPS(ctxfd_waitid(live, -1, NULL, WEXITED));
	KEEPS(ctxfd_waitid(live, 0, NULL, WEXITED));
	KEEPS(ctxfd_call(done, nothing, NULL, NULL, NULL));
	KEEPS(ctxfd_dump(live, -1));
	for (size_t i = 0; i < COUNT(timed); i++)
		ctxfd_close(timed[i]);
	ctxfd_close(done);
	ctxfd_close(live);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_that_cannot_be_made_touches_no_errno),
		cmocka_unit_test(no_call_touches_errno),
		cmocka_unit_test(no_other_call_touches_errno),
	};
	return run_all(tests);
}
