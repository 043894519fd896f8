/* SPDX-License-Identifier: MIT */
/*
 * Fork and exec: what a child does with the contexts that it inherited never reaches its parent, they go on working in
 * the child on fds of its own, what it has under its parent's numbers is left alone, and no fd of the library's lives
 * through an exec.
 */
#include "harness.h"
#include "race.h"

#include <dirent.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

/* ---- A parent with something to lose ----------------------------------------------------------------------------- */

enum { ROOT, CHILD, TIMED, BELOW, MERGED, MEMBERS };

/* Contexts with both kinds of fd, all in an epoll set, and two threads that wait for them to end. */
struct family {
	struct ctxfd *all[MEMBERS];
	int fds[MEMBERS];
	int epoll;
	int pipe[2];
	struct thread *waiter, *poller;
};

static void *wait_for_end(void *arg)
{
	require(ctxfd_wait(arg) == -ECANCELED);
	return NULL;
}

static void *read_under(void *arg)
{
	const struct family *f = arg;
	char byte;

	require(ctxfd_read(f->all[TIMED], f->pipe[0], &byte, 1) == -ECANCELED);
	return NULL;
}

static void make_family(struct family *f)
{
	f->all[ROOT] = ctxfd_with_cancel(ctxfd_background());
	f->all[CHILD] = ctxfd_with_cancel(f->all[ROOT]);
	f->all[TIMED] = ctxfd_with_timeout(f->all[ROOT], 3600 * CTXFD_SEC);
	f->all[BELOW] = ctxfd_with_cancel(f->all[TIMED]);
	f->all[MERGED] = ctxfd_merge(f->all[CHILD], f->all[BELOW]);
	f->epoll = epoll_create1(EPOLL_CLOEXEC);
	assert_true(f->epoll >= 0);
	for (int i = 0; i < MEMBERS; i++) {
		struct epoll_event e = { .events = EPOLLIN };

		f->fds[i] = ctxfd_done_fd(f->all[i]);
		assert_true(f->fds[i] >= 0);
		assert_int_equal(epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->fds[i], &e), 0);
	}
	make_pipe(f->pipe);
	f->waiter = thread_start(wait_for_end, f->all[CHILD]);
	f->poller = thread_start(read_under, f);
	thread_wait_asleep(f->waiter);
	thread_wait_asleep(f->poller);
}

static void assert_undisturbed(struct family *f)
{
	struct epoll_event e;

	for (int i = 0; i < MEMBERS; i++) {
		assert_int_equal(ctxfd_err(f->all[i]), 0);
		assert_int_equal(ctxfd_done_fd(f->all[i]), f->fds[i]);
		assert_not_readable(f->fds[i]);
	}
	assert_int_equal(epoll_wait(f->epoll, &e, 1, 0), 0);
	thread_wait_asleep(f->waiter);
	thread_wait_asleep(f->poller);
}

static void end_family(struct family *f)
{
	struct epoll_event events[MEMBERS + 1];

	ctxfd_cancel(f->all[ROOT]);
	thread_join(f->waiter);
	thread_join(f->poller);
	for (int i = 0; i < MEMBERS; i++)
		assert_readable(f->fds[i]);
	assert_int_equal(epoll_wait(f->epoll, events, MEMBERS + 1, 0), MEMBERS);
	for (int i = 0; i < MEMBERS; i++)
		ctxfd_unref(f->all[i]);
	close(f->epoll);
	close_pair(f->pipe);
}

/* ---- What a child may do ----------------------------------------------------------------------------------------- */

static int does_nothing(void *arg)
{
	return 0;
}

static int runs_exit_handlers(void *arg)
{
	exit(0);
}

/* What a child is given when it asks: another number than its parent's, which is still open. */
static int own_fd(const struct family *f, int i)
{
	int fd = ctxfd_done_fd(f->all[i]);

	require(fd >= 0 && fd != f->fds[i]);
	require(ctxfd_done_fd(f->all[i]) == fd);
	return fd;
}

static int cancels(void *arg)
{
	struct family *f = arg;

	ctxfd_cancel(f->all[ROOT]);
	for (int i = 0; i < MEMBERS; i++) {
		require(ctxfd_err(f->all[i]) == -ECANCELED);
		require(ctxfd_wait(f->all[i]) == -ECANCELED);
		require(readable(own_fd(f, i)));
	}
	return 0;
}

static int frees(void *arg)
{
	struct family *f = arg;

	for (int i = 0; i < MEMBERS; i++)
		ctxfd_unref(f->all[i]);
	for (int i = 0; i < MEMBERS; i++)
		require(fcntl(f->fds[i], F_GETFD) >= 0);
	return 0;
}

/*
 * Its own are closed with the contexts, its parent's are not. But what another thread was waiting under for an fd
 * stays, with what is above it: its waiter is in the list, and nobody is there to take it out.
 */
static int asks_and_frees(void *arg)
{
	struct family *f = arg;
	int own[MEMBERS];

	for (int i = 0; i < MEMBERS; i++)
		own[i] = own_fd(f, i);
	frees(f);
	for (int i = 0; i < MEMBERS; i++)
		require((fcntl(own[i], F_GETFD) >= 0) == (i == ROOT || i == TIMED));
	return 0;
}

static int closes(void *arg)
{
	struct family *f = arg;

	for (int i = 0; i < MEMBERS; i++)
		ctxfd_close(f->all[i]);
	return 0;
}

static int asks_for_fds(void *arg)
{
	struct family *f = arg;

	for (int i = 0; i < MEMBERS; i++)
		require(!readable(own_fd(f, i)));
	return 0;
}

/* Its own fds it may spoil as it likes. */
static int asks_and_spoils(void *arg)
{
	struct family *f = arg;
	struct itimerspec soon = { .it_value.tv_nsec = 1 };
	uint64_t n = 1000;

	asks_for_fds(f);
	for (int i = 0; i < MEMBERS; i++) {
		int fd = own_fd(f, i);

		if (write(fd, &n, sizeof n) < 0)
			require(timerfd_settime(fd, 0, &soon, NULL) == 0);
		require(fcntl(fd, F_SETFL, 0) == 0);
	}
	return 0;
}

static int asks_then_cancels_and_reads(void *arg)
{
	struct family *f = arg;
	uint64_t n;

	asks_for_fds(f);
	cancels(f);
	for (int i = 0; i < MEMBERS; i++)
		require(read(own_fd(f, i), &n, sizeof n) == sizeof n);
	return 0;
}

static int derives(void *arg)
{
	struct family *f = arg;
	struct ctxfd *more[MEMBERS];

	for (int i = 0; i < MEMBERS; i++) {
		more[i] = ctxfd_with_timeout(f->all[i], CTXFD_SEC * 1800);
		require(more[i] && ctxfd_done_fd(more[i]) >= 0);
	}
	ctxfd_cancel(f->all[ROOT]);
	for (int i = 0; i < MEMBERS; i++) {
		require(readable(ctxfd_done_fd(more[i])));
		ctxfd_unref(more[i]);
	}
	return 0;
}

static int closes_the_numbers(void *arg)
{
	struct family *f = arg;

	for (int i = 0; i < MEMBERS; i++)
		close(f->fds[i]);
	ctxfd_cancel(f->all[ROOT]);
	return 0;
}

static int forks_again(void *arg)
{
	struct family *f = arg;

	require(in_child(cancels, f) == 0);
	for (int i = 0; i < MEMBERS; i++) {
		require(ctxfd_err(f->all[i]) == 0);
		require(!readable(f->fds[i]));
		require(!readable(own_fd(f, i)));
	}
	return 0;
}

static int asks_and_forks_again(void *arg)
{
	asks_for_fds(arg);
	forks_again(arg);
	return cancels(arg);
}

static int execs(void *arg)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

struct deed {
	int (*fn)(void *family);
};

static void parent_is_undisturbed_by(void **state)
{
	const struct deed *deed = *state;
	struct family f;

	make_family(&f);
	assert_int_equal(in_child(deed->fn, &f), 0);
	assert_undisturbed(&f);
	end_family(&f);
}

/* ---- Each its own ------------------------------------------------------------------------------------------------ */

/* A family without an epoll set and threads. */
static void make_quiet_family(struct family *f, int64_t timeout)
{
	f->all[ROOT] = ctxfd_with_cancel(ctxfd_background());
	f->all[CHILD] = ctxfd_with_cancel(f->all[ROOT]);
	f->all[TIMED] = ctxfd_with_timeout(f->all[ROOT], timeout);
	f->all[BELOW] = ctxfd_with_cancel(f->all[TIMED]);
	f->all[MERGED] = ctxfd_merge(f->all[CHILD], f->all[BELOW]);
	for (int i = 0; i < MEMBERS; i++)
		f->fds[i] = ctxfd_done_fd(f->all[i]);
	make_pipe(f->pipe);
}

static void free_quiet_family(struct family *f)
{
	for (int i = 0; i < MEMBERS; i++)
		ctxfd_unref(f->all[i]);
	close_pair(f->pipe);
}

static int is_untouched(struct family *f)
{
	char byte;

	require(read(f->pipe[0], &byte, 1) == 1); /* until the parent has cancelled */
	for (int i = 0; i < MEMBERS; i++) {
		require(ctxfd_err(f->all[i]) == 0);
		require(!readable(own_fd(f, i)));
	}
	return cancels(f);
}

static void a_child_is_undisturbed_by_its_parent(void **state)
{
	struct family f;
	int status;
	pid_t pid;

	make_quiet_family(&f, 3600 * CTXFD_SEC);
	pid = fork();
	if (pid == 0)
		_exit(is_untouched(&f));
	ctxfd_cancel(f.all[ROOT]);
	assert_int_equal(write(f.pipe[1], "", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (int i = 0; i < MEMBERS; i++)
		assert_readable(f.fds[i]);
	free_quiet_family(&f);
}

static void *cancel(void *arg)
{
	ctxfd_cancel(arg);
	return NULL;
}

static int waits_in_threads(void *arg)
{
	struct family *f = arg;
	struct pollfd p = { .fd = f->pipe[0], .events = POLLIN };
	struct thread *t = thread_start(cancel, f->all[TIMED]);

	require(ctxfd_poll(f->all[BELOW], &p, 1, -1) == -ECANCELED);
	thread_join(t);
	return cancels(f);
}

/* Its parent has none: ThreadSanitizer cannot follow threads that a child of several starts. */
static void threads_of_a_child_can_wait(void **state)
{
	struct family f;

	make_quiet_family(&f, 3600 * CTXFD_SEC);
	assert_int_equal(in_child(waits_in_threads, &f), 0);
	assert_not_readable(f.fds[BELOW]);
	assert_not_readable(f.fds[ROOT]);
	free_quiet_family(&f);
}

enum { RACED = 500 };

struct asking {
	struct meeting start, end;
	struct ctxfd *all[RACED];
	int inherited[RACED], got[RACED];
};

static void *asks_and_cancels(void *arg)
{
	struct asking *a = arg;

	for (int i = 0; i < RACED; i++) {
		meet(&a->start, 2);
		dither((unsigned)(i * 13) % 97);
		if (i % 2)
			ctxfd_cancel(a->all[i]);
		a->got[i] = ctxfd_done_fd(a->all[i]);
		if (i % 2)
			require(readable(a->got[i]));
		meet(&a->end, 2);
	}
	return NULL;
}

/* Both come to the inherited fd at once, and perhaps one of them as the other ends it. */
static int asks_in_threads(void *arg)
{
	struct asking *a = arg;
	struct thread *t = thread_start(asks_and_cancels, a);

	for (int i = 0; i < RACED; i++) {
		int fd;

		meet(&a->start, 2);
		dither((unsigned)(i * 7) % 101);
		fd = ctxfd_done_fd(a->all[i]);
		require(fd >= 0 && fd != a->inherited[i]);
		if (ctxfd_err(a->all[i]))
			require(readable(fd));
		meet(&a->end, 2);
		require(a->got[i] == fd && readable(fd) == (i % 2 == 1));
		ctxfd_unref(a->all[i]);
		close(a->inherited[i]);
	}
	thread_join(t);
	return 0;
}

static void threads_of_a_child_get_one_fd(void **state)
{
	static struct asking a;

	for (int i = 0; i < RACED; i++) {
		a.all[i] = ctxfd_with_timeout(ctxfd_background(), i / 2 % 2 ? 3600 * CTXFD_SEC : INT64_MAX);
		a.inherited[i] = ctxfd_done_fd(a.all[i]);
		assert_true(a.inherited[i] >= 0);
		if (i % 8 == 7)
			ctxfd_cancel(a.all[i]);
	}
	for (int r = 0; r < rounds(10); r++)
		assert_int_equal(in_child(asks_in_threads, &a), 0);
	for (int i = 0; i < RACED; i++) {
		assert_int_equal(readable(a.inherited[i]), i % 8 == 7);
		ctxfd_unref(a.all[i]);
	}
}

static int sees_the_end_and_reads_it(void *arg)
{
	struct family *f = arg;

	for (int i = 0; i < MEMBERS; i++) {
		uint64_t n;

		require(ctxfd_err(f->all[i]) == -ECANCELED);
		require(readable(own_fd(f, i)));
		require(read(own_fd(f, i), &n, sizeof n) == sizeof n);
	}
	return 0;
}

static void what_was_done_is_done_in_the_child(void **state)
{
	struct family f;

	make_quiet_family(&f, 3600 * CTXFD_SEC);
	ctxfd_cancel(f.all[ROOT]);
	assert_int_equal(in_child(sees_the_end_and_reads_it, &f), 0);
	for (int i = 0; i < MEMBERS; i++)
		assert_readable(f.fds[i]);
	free_quiet_family(&f);
}

static int hears_the_deadline(void *arg)
{
	struct family *f = arg;
	int fd = own_fd(f, BELOW);
	uint64_t n;

	require(!readable(fd) || ctxfd_err(f->all[BELOW]));
	wait_readable(fd);
	require(ctxfd_err(f->all[BELOW]) == -ETIMEDOUT);
	require(ctxfd_err(f->all[TIMED]) == -ETIMEDOUT);
	require(ctxfd_err(f->all[CHILD]) == 0);
	require(read(fd, &n, sizeof n) == sizeof n);
	return 0;
}

static void a_deadline_ends_it_in_both(void **state)
{
	struct family f;

	make_quiet_family(&f, 100 * CTXFD_MSEC);
	assert_int_equal(in_child(hears_the_deadline, &f), 0);
	wait_readable(f.fds[TIMED]);
	wait_readable(f.fds[BELOW]);
	assert_int_equal(ctxfd_err(f.all[BELOW]), -ETIMEDOUT);
	assert_not_readable(f.fds[CHILD]);
	free_quiet_family(&f);
}

static int asks_first(void *arg)
{
	struct ctxfd *ctx = arg;

	require(!readable(ctxfd_done_fd(ctx)));
	ctxfd_cancel(ctx);
	require(readable(ctxfd_done_fd(ctx)));
	return 0;
}

static void an_fd_that_only_the_child_asked_for(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	int fds = count_fds();

	assert_int_equal(in_child(asks_first, ctx), 0);
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(count_fds(), fds);
	assert_not_readable(ctxfd_done_fd(ctx));
	ctxfd_cancel(ctx);
	assert_readable(ctxfd_done_fd(ctx));
	ctxfd_unref(ctx);
}

static int arms_background(void *arg)
{
	struct itimerspec past = { .it_value.tv_nsec = 1 };
	int inherited = *(int *)arg, fd = ctxfd_done_fd(ctxfd_background());
	uint64_t n = 1;

	require(fd >= 0 && fd != inherited && ctxfd_done_fd(ctxfd_todo()) == fd);
	require(!readable(fd) && !readable(inherited));
	require(write(fd, &n, sizeof n) < 0);
	require(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, NULL) == 0);
	wait_readable(fd);
	require(!readable(inherited));
	return 0;
}

static void background_is_never_ready_in_either(void **state)
{
	int fd = ctxfd_done_fd(ctxfd_background());

	assert_int_equal(in_child(arms_background, &fd), 0);
	assert_not_readable(fd);
	assert_int_equal(ctxfd_done_fd(ctxfd_background()), fd);
}

/* A file of one letter under the number fd. It goes with its last descriptor. */
static void put_file(int fd, bool nonblocking)
{
	FILE *file = tmpfile();

	require(file && write(fileno(file), "x", 1) == 1);
	require(!nonblocking || fcntl(fileno(file), F_SETFL, O_NONBLOCK) == 0);
	require(dup3(fileno(file), fd, O_CLOEXEC) == fd);
	require(fclose(file) == 0);
}

/* As a daemon does: it closes all that it does not know, and then has the numbers for files of its own. */
static int puts_files_under_the_numbers(void *arg)
{
	struct family *f = arg;
	struct stat st;

	for (int i = 0; i < MEMBERS; i++)
		put_file(f->fds[i], i % 2);
	require(readable(own_fd(f, TIMED)) == 0);
	ctxfd_cancel(f->all[ROOT]);
	for (int i = 0; i < MEMBERS; i++) {
		require(ctxfd_err(f->all[i]) == -ECANCELED);
		if (i % 2)
			require(readable(own_fd(f, i)));
	}
	for (int i = 0; i < MEMBERS; i++)
		ctxfd_unref(f->all[i]);
	for (int i = 0; i < MEMBERS; i++) {
		require(fstat(f->fds[i], &st) == 0 && st.st_size == 1);
		require(write(f->fds[i], "y", 1) == 1);
	}
	return 0;
}

/* Its deadline passes before it looks, so that nothing but the clock says that the contexts have ended. */
static int has_files_there_when_they_expire(void *arg)
{
	struct family *f = arg;
	struct stat st;

	for (int i = 0; i < MEMBERS; i++)
		put_file(f->fds[i], true);
	while (ctxfd_remaining(f->all[TIMED]) > 0)
		pass_time(ctxfd_remaining(f->all[TIMED]));
	require(ctxfd_err(f->all[BELOW]) == -ETIMEDOUT);
	require(ctxfd_err(f->all[TIMED]) == -ETIMEDOUT);
	require(readable(own_fd(f, BELOW)));
	for (int i = 0; i < MEMBERS; i++)
		ctxfd_close(f->all[i]);
	for (int i = 0; i < MEMBERS; i++)
		require(fstat(f->fds[i], &st) == 0 && st.st_size == 1);
	return 0;
}

static void expiry_in_a_child_leaves_its_files_alone(void **state)
{
	struct family f;

	make_quiet_family(&f, 20 * CTXFD_MSEC);
	assert_int_equal(in_child(has_files_there_when_they_expire, &f), 0);
	free_quiet_family(&f);
}

static int destroyed;

static void count_destroyed(void *value)
{
	destroyed++;
}

static int frees_the_value(void *arg)
{
	ctxfd_unref(arg);
	return destroyed;
}

static void a_value_is_destroyed_once_in_each(void **state)
{
	static const char key;
	const struct ctxfd *ctx = ctxfd_with_value(ctxfd_background(), &key, NULL, count_destroyed);

	assert_int_equal(in_child(frees_the_value, (void *)(uintptr_t)ctx), 1);
	assert_int_equal(destroyed, 0);
	ctxfd_unref(ctx);
	assert_int_equal(destroyed, 1);
}

/* A child that can have no fd must not signal its parent's instead: the child's fd is late, its err is not. */
static int cancels_without_fds(void *arg)
{
	struct family *f = arg;
	struct rlimit none = { 0, 0 }, was;

	require(getrlimit(RLIMIT_NOFILE, &was) == 0);
	none.rlim_max = was.rlim_max;
	require(setrlimit(RLIMIT_NOFILE, &none) == 0);
	require(ctxfd_done_fd(f->all[ROOT]) == -EMFILE);
	require(ctxfd_done_fd(f->all[TIMED]) == -EMFILE);
	ctxfd_cancel(f->all[ROOT]);
	for (int i = 0; i < MEMBERS; i++) {
		require(ctxfd_err(f->all[i]) == -ECANCELED);
		require(ctxfd_wait(f->all[i]) == -ECANCELED);
		require(ctxfd_done_fd(f->all[i]) == -EMFILE);
	}
	require(setrlimit(RLIMIT_NOFILE, &was) == 0);
	return cancels(f);
}

static void a_child_without_fds_leaves_the_parents_alone(void **state)
{
	struct family f;

	make_family(&f);
	assert_int_equal(in_child(cancels_without_fds, &f), 0);
	assert_undisturbed(&f);
	end_family(&f);
}

/* ---- Exec -------------------------------------------------------------------------------------------------------- */

/* Of all open eventfds, timerfds, epoll sets and so on: how many there are, or -1 if one would live through an exec. */
static int count_close_on_exec(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	int n = 0;

	require(dir);
	while ((e = readdir(dir))) {
		char target[64];
		ssize_t size = readlinkat(dirfd(dir), e->d_name, target, sizeof target);

		if (size < 10 || memcmp(target, "anon_inode", 10) != 0)
			continue;
		if (!(fcntl(atoi(e->d_name), F_GETFD) & FD_CLOEXEC))
			n = INT_MIN;
		n++;
	}
	closedir(dir);
	return n < 0 ? -1 : n;
}

static int asks_and_counts(void *arg)
{
	asks_for_fds(arg);
	return count_close_on_exec();
}

/* Ourselves again, to tell how many such fds there are there. */
static int counts_after_exec(void *arg)
{
	char self[PATH_MAX] = "";

	asks_for_fds(arg);
	/* By its path: under valgrind the link leads to valgrind. */
	require(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
	execl(self, self, "--count", (char *)NULL);
	return errno == ENOEXEC ? 77 : -1;
}

static void every_fd_is_close_on_exec(void **state)
{
	struct family f;
	int before = count_close_on_exec(), after;

	make_quiet_family(&f, 3600 * CTXFD_SEC);
	assert_true(before >= 0);
	assert_int_equal(count_close_on_exec(), before + MEMBERS);
	assert_int_equal(in_child(asks_and_counts, &f), before + 2 * MEMBERS);
	after = in_child(counts_after_exec, &f);
	free_quiet_family(&f);
	if (after == 77)
		skip_test("programs of this machine can be run, but not exec'ed");
	assert_int_equal(after, 0);
}

/* Before main, and before what the library does there by itself, unless that comes early. */
static int status_of_an_early_child = -1;

__attribute__((constructor)) static void fork_before_main(void)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	int fd = ctxfd_done_fd(ctx);
	pid_t pid = fork();

	if (pid == 0)
		_exit(ctxfd_done_fd(ctx) == fd);
	waitpid(pid, &status_of_an_early_child, 0);
	ctxfd_close(ctx);
}

static void a_child_from_before_main_has_fds_of_its_own(void **state)
{
	assert_int_equal(status_of_an_early_child, 0);
}

#define BY(what)                                                                                           \
	{                                                                                                  \
		"undisturbed_by_a_child_that_" #what, parent_is_undisturbed_by, NULL, NULL, &(struct deed) \
		{                                                                                          \
			what                                                                               \
		}                                                                                          \
	}

static const struct CMUnitTest tests[] = {
	BY(does_nothing),
	BY(runs_exit_handlers),
	BY(cancels),
	BY(frees),
	BY(asks_and_frees),
	BY(closes),
	BY(asks_for_fds),
	BY(asks_and_spoils),
	BY(asks_then_cancels_and_reads),
	BY(derives),
	BY(closes_the_numbers),
	BY(puts_files_under_the_numbers),
	BY(forks_again),
	BY(asks_and_forks_again),
	BY(execs),
	cmocka_unit_test(a_child_is_undisturbed_by_its_parent),
	cmocka_unit_test(threads_of_a_child_can_wait),
	cmocka_unit_test(threads_of_a_child_get_one_fd),
	cmocka_unit_test(what_was_done_is_done_in_the_child),
	cmocka_unit_test(a_deadline_ends_it_in_both),
	cmocka_unit_test(an_fd_that_only_the_child_asked_for),
	cmocka_unit_test(background_is_never_ready_in_either),
	cmocka_unit_test(expiry_in_a_child_leaves_its_files_alone),
	cmocka_unit_test(a_value_is_destroyed_once_in_each),
	cmocka_unit_test(a_child_without_fds_leaves_the_parents_alone),
	cmocka_unit_test(every_fd_is_close_on_exec),
	cmocka_unit_test(a_child_from_before_main_has_fds_of_its_own),
};

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--count"))
		return count_close_on_exec();
	return run_all(tests);
}
