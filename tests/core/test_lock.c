/* SPDX-License-Identifier: MIT */
/*
 * The lock on a node's children, whose owner does not run: it is stopped while it links a child, by a page fault at the
 * sibling that it has to write to. Whoever wants to change the same context has to wait, must do so asleep, and loses
 * nothing by it. And the dispatcher's lock, which must not be held while the dispatcher goes through a list: it is
 * stopped there by the same means.
 */
#include <signal.h>
#include <sys/mman.h>

#include "loop.h"

/* ---- The stop ---------------------------------------------------------------------------------------------------- */

static char *page;
static size_t page_size;
static atomic_bool for_sibling; /* the library's next allocation is the page */
static int stopped[2], go[2];

void *__real_counted_malloc(size_t size);
void *__wrap_counted_malloc(size_t size);
void __real_counted_free(void *p);
void __wrap_counted_free(void *p);
long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);

void *__wrap_counted_malloc(size_t size)
{
	return atomic_exchange(&for_sibling, false) ? page : __real_counted_malloc(size);
}

void __wrap_counted_free(void *p)
{
	if (p != page)
		__real_counted_free(p);
}

static bool is_futex(long nr)
{
#ifdef SYS_futex_time64
	if (nr == SYS_futex_time64)
		return true;
#endif
	return nr == SYS_futex;
}

static _Thread_local bool counts_naps;
static atomic_int naps;

long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (counts_naps && is_futex(nr) && d)
		atomic_fetch_add(&naps, 1);
	return __real_syscall(nr, a, b, c, d, e, f);
}

static void stop_here(int signal, siginfo_t *info, void *context)
{
	char byte = 0;

	(void)signal, (void)context;
	if ((char *)info->si_addr < page || (char *)info->si_addr >= page + page_size)
		_exit(2);
	require(write(stopped[1], &byte, 1) == 1);
	while (read(go[0], &byte, 1) != 1)
		continue;
}

static void *derive(void *parent)
{
	return ctxfd_with_cancel(parent);
}

/* A context the lock on whose children a thread has, and will not give back before release. */
struct scene {
	struct ctxfd *parent, *leaver, *sibling;
	struct ctxfd *child; /* that the owner is linking */
	struct thread *owner;
	struct sigaction before;
};

static void make_page(struct scene *s)
{
	struct sigaction stop = { .sa_sigaction = stop_here, .sa_flags = SA_SIGINFO };

	page_size = (size_t)sysconf(_SC_PAGESIZE);
	page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	make_pipe(stopped);
	make_pipe(go);
	assert_int_equal(sigaction(SIGSEGV, &stop, &s->before), 0);
}

static void make_sibling(struct scene *s)
{
	atomic_store(&for_sibling, true);
	s->sibling = ctxfd_with_cancel(s->parent);
	assert_ptr_equal(s->sibling, page);
}

static void wait_stopped(void)
{
	char byte;

	assert_int_equal(read(stopped[0], &byte, 1), 1);
}

static void let_go(void)
{
	assert_int_equal(mprotect(page, page_size, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(write(go[1], "", 1), 1);
}

static void make_scene(struct scene *s, int64_t timeout)
{
	make_page(s);
	s->parent = ctxfd_with_timeout(ctxfd_background(), timeout);
	s->leaver = ctxfd_with_cancel(s->parent);
	make_sibling(s);
	assert_int_equal(mprotect(page, page_size, PROT_READ), 0);
	s->owner = thread_start(derive, s->parent);
	wait_stopped();
	atomic_store(&naps, 0);
}

static void release(struct scene *s)
{
	let_go();
	s->child = thread_join(s->owner);
}

static void end_scene(struct scene *s)
{
	ctxfd_unref(s->child);
	ctxfd_unref(s->sibling);
	ctxfd_unref(s->leaver);
	ctxfd_unref(s->parent);
	assert_int_equal(sigaction(SIGSEGV, &s->before, NULL), 0);
	assert_int_equal(munmap(page, page_size), 0);
	close_pair(stopped);
	close_pair(go);
}

/* ---- Those who wait ---------------------------------------------------------------------------------------------- */

struct call {
	struct scene *scene;
	void *(*fn)(struct scene *s);
};

static void *make_call(void *arg)
{
	struct call *c = arg;

	counts_naps = true;
	return c->fn(c->scene);
}

/* Calls fn in a thread of its own while the lock is taken, sees that it sleeps, and lets all go on. */
static intptr_t call_meanwhile(struct scene *s, void *(*fn)(struct scene *s))
{
	struct call call = { s, fn };
	struct thread *waiter = thread_start(make_call, &call);

	wait_until(atomic_load(&naps) >= 10);
	release(s);
	return (intptr_t)thread_join(waiter);
}

static void *derive_too(struct scene *s)
{
	return ctxfd_with_cancel(s->parent);
}

static void a_second_child_waits(void **state)
{
	struct ctxfd *second;
	struct scene s;

	make_scene(&s, INT64_MAX);
	second = (struct ctxfd *)call_meanwhile(&s, derive_too);
	ctxfd_cancel(s.parent);
	assert_int_equal(ctxfd_err(s.child), -ECANCELED);
	assert_int_equal(ctxfd_err(second), -ECANCELED);
	assert_int_equal(ctxfd_err(s.sibling), -ECANCELED);
	ctxfd_unref(second);
	end_scene(&s);
}

static void *leave(struct scene *s)
{
	ctxfd_close(s->leaver);
	s->leaver = NULL;
	return NULL;
}

static void a_child_that_leaves_waits(void **state)
{
	struct scene s;

	make_scene(&s, INT64_MAX);
	call_meanwhile(&s, leave);
	ctxfd_cancel(s.parent);
	assert_int_equal(ctxfd_err(s.child), -ECANCELED);
	end_scene(&s);
}

static void *ask_fd(struct scene *s)
{
	return (void *)(intptr_t)ctxfd_done_fd(s->parent);
}

static void an_fd_is_not_forgotten(void **state)
{
	struct scene s;
	int fd;

	make_scene(&s, INT64_MAX);
	fd = (int)call_meanwhile(&s, ask_fd);
	assert_not_readable(fd);
	ctxfd_cancel(s.parent);
	assert_readable(fd);
	end_scene(&s);
}

static void *cancel(struct scene *s)
{
	ctxfd_cancel_cause(s->parent, 7);
	return (void *)(intptr_t)ctxfd_cause(s->parent);
}

static void a_cancel_takes_the_new_child_along(void **state)
{
	struct scene s;

	make_scene(&s, INT64_MAX);
	assert_int_equal(call_meanwhile(&s, cancel), 7);
	assert_int_equal(ctxfd_cause(s.child), 7);
	assert_int_equal(ctxfd_cause(s.sibling), 7);
	end_scene(&s);
}

static void *wait_for_end(struct scene *s)
{
	return (void *)(intptr_t)ctxfd_wait(s->parent);
}

static void a_deadline_is_latched_after_it(void **state)
{
	struct scene s;

	make_scene(&s, CTXFD_MSEC);
	assert_int_equal(call_meanwhile(&s, wait_for_end), -ETIMEDOUT);
	assert_int_equal(ctxfd_err(s.child), -ETIMEDOUT);
	end_scene(&s);
}

/* ---- The dispatcher at an expiry --------------------------------------------------------------------------------- */

static void count(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void register_and_cancel(int64_t timeout)
{
	struct ctxfd *ctx = ctxfd_with_timeout(home, timeout);
	struct ctxfd_after *handle;
	atomic_int runs = 0;

	assert_int_equal(ctxfd_after_func(ctx, count, &runs, &handle), 0);
	ctxfd_cancel(ctx);
	assert_true(ctxfd_after_stop(handle));
	ctxfd_unref(ctx);
}

/* While it looks through the children of an expired context nobody else has to wait for it. */
static void an_expiry_holds_up_nobody(void **state)
{
	struct ctxfd_after *handle;
	struct scene s = { 0 };
	atomic_int runs = 0;

	make_page(&s);
	s.parent = ctxfd_with_timeout(home, CTXFD_MSEC);
	assert_int_equal(ctxfd_after_func(s.parent, count, &runs, &handle), 0);
	make_sibling(&s);
	wait_until(ctxfd_remaining(s.parent) == 0);
	assert_int_equal(mprotect(page, page_size, PROT_NONE), 0);
	s.owner = thread_start(run_loop_once, NULL); /* the library's thread may not touch our page */
	wait_stopped();

	register_and_cancel(INT64_MAX);
	register_and_cancel(3600 * CTXFD_SEC);
	assert_int_equal(runs, 0);
	let_go();
	assert_int_equal((intptr_t)thread_join(s.owner), 1);
	assert_int_equal(runs, 1);
	assert_false(ctxfd_after_stop(handle));
	end_scene(&s);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_second_child_waits),           cmocka_unit_test(a_child_that_leaves_waits),
		cmocka_unit_test(an_fd_is_not_forgotten),         cmocka_unit_test(a_cancel_takes_the_new_child_along),
		cmocka_unit_test(a_deadline_is_latched_after_it), cmocka_unit_test(an_expiry_holds_up_nobody),
	};

	require(make_loop() >= 0);
	return run_all(tests);
}
