/* SPDX-License-Identifier: MIT */
/*
 * Who keeps a context alive, when a function that waited for its end works on it: fn may do there whatever an owner
 * may, although all owners may have left, or leave at this moment. Everything goes in the end, and once.
 *
 * Where it takes an owner who is stopped between two instructions, test_schedules has it (storm/scenarios.h).
 */
#include "ctxfd_process.h"
#include "harness.h"
#include "race.h"

#include <malloc.h>
#include <semaphore.h>

#include "dispatch/library.h"
#include "core/lock.h"
#include "core/shard.h"

static const char key, other_key;

/* ---- What fn does on its own context ----------------------------------------------------------------------------- */

/* What it has left behind; given up when it has ended. */
static struct {
	const struct ctxfd *ctx;
	struct ctxfd_after *after;
} left;

static _Atomic int ran, later, destroyed;

static void count_later(void *arg)
{
	later++;
}

static void never(void *arg)
{
	require(false);
}

static void destroy(void *unused)
{
	destroyed++;
}

static struct ctxfd_after *registered(const struct ctxfd *ctx, void (*fn)(void *arg))
{
	struct ctxfd_after *h;

	require(ctxfd_after_func(ctx, fn, NULL, &h) == 0);
	return h;
}

static struct ctxfd *derived(const struct ctxfd *ctx)
{
	struct ctxfd *child = ctxfd_with_cancel(ctx);

	require(child && ctxfd_err(child) == ctxfd_err(ctx));
	return child;
}

static void looks(const struct ctxfd *ctx)
{
	require(ctxfd_done_fd(ctx) >= 0 && readable(ctxfd_done_fd(ctx)));
}

static void refs_and_unrefs(const struct ctxfd *ctx)
{
	ctxfd_unref(ctxfd_ref(ctx));
}

static void derives_and_closes(const struct ctxfd *ctx)
{
	ctxfd_close(derived(ctx));
}

static void derives_a_family(const struct ctxfd *ctx)
{
	struct ctxfd *child = derived(ctx), *below = derived(child), *merged = ctxfd_merge(ctx, below);

	require(merged);
	ctxfd_unref(child);
	ctxfd_unref(merged);
	ctxfd_close(below);
}

static void registers_and_stops(const struct ctxfd *ctx)
{
	require(ctxfd_after_stop(registered(ctx, never)));
}

static void registers_and_stops_many(const struct ctxfd *ctx)
{
	struct ctxfd_after *h[3];

	for (int i = 0; i < 3; i++)
		h[i] = registered(ctx, never);
	for (int i = 0; i < 3; i++)
		require(ctxfd_after_stop(h[(i + 1) % 3]));
}

static void registers_on_a_child(const struct ctxfd *ctx)
{
	struct ctxfd *child = derived(ctx);
	struct ctxfd_after *h = registered(child, never);

	ctxfd_unref(child);
	require(ctxfd_after_stop(h));
}

static void cancels(const struct ctxfd *ctx)
{
	int err = ctxfd_err(ctx);

	ctxfd_cancel(mutable(ctx));
	require(ctxfd_err(ctx) == err);
}

static void closes_a_reference(const struct ctxfd *ctx)
{
	ctxfd_close(mutable(ctxfd_ref(ctx)));
}

static void binds_a_value(const struct ctxfd *ctx)
{
	const struct ctxfd *v = ctxfd_with_value(ctx, &other_key, NULL, NULL);

	derives_and_closes(v);
	registers_and_stops(v);
	ctxfd_unref(v);
}

static void leaves_a_reference(const struct ctxfd *ctx)
{
	left.ctx = ctxfd_ref(ctx);
}

static void leaves_a_child(const struct ctxfd *ctx)
{
	left.ctx = derived(ctx);
}

static void leaves_a_value(const struct ctxfd *ctx)
{
	left.ctx = ctxfd_with_value(ctx, &other_key, NULL, NULL);
}

static void leaves_a_merge(const struct ctxfd *ctx)
{
	left.ctx = ctxfd_merge(ctx, ctx);
}

static void leaves_an_after_func(const struct ctxfd *ctx)
{
	require(ctxfd_after_func(ctx, count_later, NULL, NULL) == 0);
	later--; /* until it has run */
}

static void leaves_a_handle(const struct ctxfd *ctx)
{
	left.after = registered(ctx, count_later);
	later--;
}

static void leaves_all(const struct ctxfd *ctx)
{
	leaves_a_child(ctx);
	leaves_an_after_func(ctx);
	leaves_a_handle(ctx);
	registers_and_stops(ctx);
}

static void (*const actions[])(const struct ctxfd *ctx) = {
	looks,
	refs_and_unrefs,
	derives_and_closes,
	derives_a_family,
	registers_and_stops,
	registers_and_stops_many,
	registers_on_a_child,
	cancels,
	closes_a_reference,
	binds_a_value,
	leaves_a_reference,
	leaves_a_child,
	leaves_a_value,
	leaves_a_merge,
	leaves_an_after_func,
	leaves_a_handle,
	leaves_all,
};

/* ---- On which context, and while who leaves ---------------------------------------------------------------------- */

enum shape { PLAIN, VALUED, MERGED_ONE, SHAPES };

struct scene {
	void (*act)(const struct ctxfd *ctx);
	enum shape shape;
	bool sharded, timed, has_handle, stops_itself;
	unsigned leaving;                    /* how many threads leave while fn is at work; 0: all have left before */
	struct ctxfd_dispatcher *dispatcher; /* NULL: the library's */

	const struct ctxfd *ctx;
	struct ctxfd *top, *side, *kept; /* side: a merge's second parent, or NULL */
	struct ctxfd_after *handle;
	struct meeting start;
	unsigned delay;
};

static void fn(void *arg)
{
	struct scene *s = arg;
	const struct ctxfd *ctx = s->ctx;

	if (s->leaving)
		meet(&s->start, s->leaving + 1);
	require(ctxfd_err(ctx) != 0);
	s->act(ctx);
	require(ctxfd_err(ctx) != 0);
	if (s->stops_itself)
		require(!ctxfd_after_stop(s->handle));
	ran = 1;
}

/* It takes a while until the timed ones end: they are registered by then, mostly. */
static struct ctxfd *node_below(const struct scene *s, const struct ctxfd *parent)
{
	struct ctxfd *n = s->timed ? ctxfd_with_timeout(parent, 100 * CTXFD_USEC) : ctxfd_with_cancel(parent);

	require(n);
	return n;
}

static void set_up(struct scene *s)
{
	const struct ctxfd *base = ctxfd_with_dispatcher(ctxfd_background(), s->dispatcher), *v;
	struct ctxfd *n;

	v = ctxfd_with_value(base, &key, NULL, destroy);
	require(v);
	ctxfd_unref(base);
	s->top = ctxfd_with_cancel(v);
	s->side = s->shape == MERGED_ONE ? ctxfd_with_cancel(v) : NULL;
	ctxfd_unref(v);
	n = node_below(s, s->top);
	s->ctx = n;
	if (s->shape == VALUED)
		s->ctx = ctxfd_with_value(n, &other_key, NULL, destroy);
	else if (s->shape == MERGED_ONE)
		s->ctx = ctxfd_merge(n, s->side);
	if (s->ctx != n)
		ctxfd_unref(n);
	s->kept = NULL;
	if (s->sharded) {
		ctxfdi_split_children(node_of(s->ctx));
		s->kept = ctxfd_with_cancel(s->ctx);
	}
}

static void *leave_it(void *arg)
{
	struct scene *s = arg;
	struct ctxfd *ctx = mutable(s->ctx);

	meet(&s->start, s->leaving + 1);
	dither(s->delay);
	if (s->delay & 1)
		ctxfd_close(ctx);
	else
		ctxfd_unref(ctx);
	return NULL;
}

/* Until *what is so. Who runs the program's dispatcher goes by its fd. */
static void run_until(const struct scene *s, _Atomic int *what, int value)
{
	while (s->dispatcher && *what != value) {
		wait_readable(ctxfd_dispatcher_fd(s->dispatcher));
		require(ctxfd_dispatcher_run(s->dispatcher) >= 0);
	}
	wait_until(*what == value);
}

static void play(struct scene *s)
{
	struct thread *owner[2];

	memset(&left, 0, sizeof left);
	ran = later = destroyed = 0;
	s->start = (struct meeting){ 0 };
	set_up(s);
	require(ctxfd_after_func(s->ctx, fn, s, s->has_handle ? &s->handle : NULL) == 0);
	if (s->leaving == 0)
		ctxfd_unref(s->ctx);
	else if (s->leaving == 2)
		ctxfd_ref(s->ctx);
	for (unsigned i = 0; i < s->leaving; i++)
		owner[i] = thread_start(leave_it, s);
	if (!s->timed)
		ctxfd_cancel(s->side && s->delay & 2 ? s->side : s->top);
	run_until(s, &ran, 1);
	for (unsigned i = 0; i < s->leaving; i++)
		thread_join(owner[i]);
	if (s->has_handle && !s->stops_itself)
		require(!ctxfd_after_stop(s->handle));
	ctxfd_unref(s->kept);
	run_until(s, &later, 0);
	ctxfd_unref(left.ctx);
	require(!ctxfd_after_stop(left.after));
	ctxfd_unref(s->side);
	ctxfd_close(s->top);
	run_until(s, &destroyed, s->shape == VALUED ? 2 : 1);
}

static void play_all(struct scene *s)
{
	static unsigned seed;

	for (size_t i = 0; i < COUNT(actions); i++)
		for (int bits = 0; bits < 16; bits++)
			for (s->shape = PLAIN; s->shape < SHAPES; s->shape++) {
				s->act = actions[i];
				s->sharded = bits & 1;
				s->timed = bits & 2;
				s->has_handle = bits & 4;
				s->stops_itself = bits & 8 && s->has_handle;
				seed = seed * 1103515245 + 12345;
				s->delay = seed >> 16 & 511;
				if (!(bits & 8) || s->has_handle)
					play(s);
			}
}

static void on_all_contexts(unsigned leaving, bool own_dispatcher)
{
	struct scene s = { .leaving = leaving };

	if (own_dispatcher)
		require(s.dispatcher = ctxfd_dispatcher_new());
	play_all(&s);
	ctxfd_dispatcher_free(s.dispatcher);
}

#define SCENES(name, leaving, own)             \
	static void name(void **state)         \
	{                                      \
		on_all_contexts(leaving, own); \
	}
SCENES(all_owners_have_left, 0, false)
SCENES(an_owner_leaves_meanwhile, 1, false)
SCENES(two_owners_leave_meanwhile, 2, false)
SCENES(all_owners_have_left_on_a_dispatcher, 0, true)
SCENES(an_owner_leaves_meanwhile_on_a_dispatcher, 1, true)
SCENES(two_owners_leave_meanwhile_on_a_dispatcher, 2, true)

/* ---- Around a fork ----------------------------------------------------------------------------------------------- */

static sem_t there, go;

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		continue;
}

static void stay(void *arg)
{
	require(sem_post(&there) == 0);
	wait_for(&go);
}

/* A context that is done, whose owner has left. Only what is below it keeps it, or an after-func that is due. */
static struct ctxfd *orphan(const struct ctxfd *above, void (*f)(void *arg), struct ctxfd_after **handle)
{
	struct ctxfd *top = ctxfd_with_cancel(above), *ctx = ctxfd_with_cancel(top);

	require(ctxfd_after_func(ctx, f, ctx, handle) == 0);
	ctxfd_cancel(top);
	ctxfd_unref(ctx);
	ctxfd_unref(top);
	return ctx;
}

static void take_lock(struct ctxfd *n)
{
	uint64_t w = load_word(n);

	while (!swap_word(n, &w, w | CTX_LOCK))
		continue;
}

/* What the child of a fork does. */
static void (*in_fork)(void);

static void *fork_here(void *arg)
{
	int status;
	pid_t child = fork();

	require(child >= 0);
	if (child == 0) {
		alarm((unsigned)(20 * slow()));
		in_fork();
		_exit(0);
	}
	require(waitpid(child, &status, 0) == child);
	return (void *)(intptr_t)status;
}

/* Somebody has the LOCK of n, and the library's thread waits for it. So does fork, or the child would for ever. */
static void fork_waits_for(struct ctxfd *n)
{
	struct thread *forks = thread_start(fork_here, NULL);

	thread_wait_asleep_in(forks, SYS_futex);
	unlock(n, 0);
	assert_int_equal((intptr_t)thread_join(forks), 0);
}

static bool library_is_locked(void)
{
	if (pthread_mutex_trylock(&ctxfdi_library.lock) != 0)
		return true;
	pthread_mutex_unlock(&ctxfdi_library.lock);
	return false;
}

static bool library_is_inside(void)
{
	bool inside;

	pthread_mutex_lock(&ctxfdi_library.lock);
	inside = ctxfdi_library.inside;
	pthread_mutex_unlock(&ctxfdi_library.lock);
	return inside;
}

static struct ctxfd_after *to_stop;

/* In the child fn has not been called, or is what its parent was in. */
static void stops(void)
{
	ctxfd_after_stop(to_stop);
}

static void tell(void *arg)
{
	require(sem_post(&there) == 0);
}

/*
 * As it makes itself an owner of fn's context. Two are due in the same round while a third is running, and the first of
 * them has a handle: from the end of its function until the thread owns ctx, it keeps the library's lock.
 */
static void fork_meets_the_thread_before_fn(void **state)
{
	struct ctxfd_after *first;
	struct ctxfd *ctx;

	orphan(ctxfd_background(), stay, NULL);
	wait_for(&there);
	orphan(ctxfd_background(), tell, &first);
	ctx = orphan(ctxfd_background(), harness_nothing, &to_stop);
	take_lock(ctx);
	assert_int_equal(sem_post(&go), 0);
	wait_for(&there);
	wait_until(library_is_locked());
	in_fork = stops;
	fork_waits_for(ctx);
	ctxfd_after_stop(to_stop);
	assert_false(ctxfd_after_stop(first));
}

static struct ctxfd *kept;

static void lock_and_return(void *ctx)
{
	take_lock(ctx);
	require(sem_post(&there) == 0);
}

/* What the thread was about to free is lost in the child, and valgrind would say so as that exits. */
static void leave_child(void)
{
	execl("/bin/true", "true", NULL);
	_exit(1);
}

static void gives_up_what_is_below(void)
{
	ctxfd_unref(kept);
	leave_child();
}

/* As it gives up fn's context. */
static void fork_meets_the_thread_after_fn(void **state)
{
	struct ctxfd *top = ctxfd_with_cancel(ctxfd_background()), *ctx = ctxfd_with_cancel(top);

	kept = ctxfd_with_cancel(ctx);
	assert_int_equal(ctxfd_after_func(ctx, lock_and_return, ctx, NULL), 0);
	ctxfd_cancel(top);
	ctxfd_unref(ctx);
	wait_for(&there);
	wait_until(library_is_inside());
	in_fork = gives_up_what_is_below;
	fork_waits_for(ctx);
	ctxfd_unref(kept);
	ctxfd_close(top);
}

static bool library_is_inside_fn(void)
{
	bool inside;

	pthread_mutex_lock(&ctxfdi_library.lock);
	inside = ctxfdi_library.inside && ctxfdi_library.running;
	pthread_mutex_unlock(&ctxfdi_library.lock);
	return inside;
}

static void closes(void)
{
	ctxfd_close(kept);
	leave_child();
}

/* As it forgets a process that has ended, which ctx would have stopped. That is a function of the library's own. */
static void fork_meets_the_thread_at_the_end_of_a_process(void **state)
{
	struct ctxfd_command command = { .argv = (char *[]){ "/bin/sh", "-c", "read line", NULL } };
	int pipe[2], pidfd;

	make_pipe(pipe);
	command.in = pipe[0];
	kept = ctxfd_with_cancel(ctxfd_background());
	pidfd = ctxfd_spawn(kept, &command, NULL);
	if (pidfd == -ENOSYS) {
		close_pair(pipe);
		ctxfd_close(kept);
		skip_test("no pidfds here");
	}
	assert_true(pidfd >= 0);
	take_lock(kept);
	close_pair(pipe);
	wait_until(library_is_inside_fn());
	in_fork = closes;
	fork_waits_for(kept);
	assert_int_equal(ctxfd_waitid(ctxfd_background(), pidfd, NULL, WEXITED), 0);
	close(pidfd);
	ctxfd_close(kept);
}

/* ---- In a child whose parent is in fn: what that owns there is given up ------------------------------------------ */

static struct ctxfd_dispatcher *loop;

static void *run(void *arg)
{
	require(ctxfd_dispatcher_run(arg) == 1);
	return NULL;
}

static void is_given_up(void)
{
	if (to_stop)
		require(!ctxfd_after_stop(to_stop));
	else if (loop)
		require(ctxfd_dispatcher_run(loop) >= 0);
	else
		require(ctxfd_cause(ctxfd_background()) == 0); /* the first look */
	while (destroyed != 1)
		pass_time(CTXFD_MSEC);
}

static void fork_in_fn(bool own_dispatcher, bool has_handle)
{
	const struct ctxfd *base, *v;
	static struct thread *runs; /* for a leak checker in the child */

#ifdef __SANITIZE_THREAD__
	if (!own_dispatcher && !has_handle)
		return; /* ThreadSanitizer cannot follow threads of a threaded process's child */
#endif
	destroyed = 0;
	to_stop = NULL;
	loop = own_dispatcher ? ctxfd_dispatcher_new() : NULL;
	base = ctxfd_with_dispatcher(ctxfd_background(), loop);
	v = ctxfd_with_value(base, &key, NULL, destroy);
	ctxfd_unref(base);
	orphan(v, stay, has_handle ? &to_stop : NULL);
	ctxfd_unref(v);
	runs = loop ? thread_start(run, loop) : NULL;
	wait_for(&there);
	in_fork = is_given_up;
	assert_int_equal((intptr_t)fork_here(NULL), 0);
	assert_int_equal(destroyed, 0);
	assert_int_equal(sem_post(&go), 0);
	if (runs)
		thread_join(runs);
	if (has_handle)
		assert_false(ctxfd_after_stop(to_stop));
	wait_until(destroyed == 1);
	ctxfd_dispatcher_free(loop);
}

static void a_child_gives_up_what_fn_owns(void **state)
{
	for (int i = 0; i < 4; i++)
		fork_in_fn(i & 1, i & 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_owners_have_left),
		cmocka_unit_test(an_owner_leaves_meanwhile),
		cmocka_unit_test(two_owners_leave_meanwhile),
		cmocka_unit_test(all_owners_have_left_on_a_dispatcher),
		cmocka_unit_test(an_owner_leaves_meanwhile_on_a_dispatcher),
		cmocka_unit_test(two_owners_leave_meanwhile_on_a_dispatcher),
		cmocka_unit_test(fork_meets_the_thread_before_fn),
		cmocka_unit_test(fork_meets_the_thread_after_fn),
		cmocka_unit_test(fork_meets_the_thread_at_the_end_of_a_process),
		cmocka_unit_test(a_child_gives_up_what_fn_owns),
	};

	require(sem_init(&there, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
#ifdef M_PERTURB
	mallopt(M_PERTURB, 0x5a); /* who goes on with what is freed stumbles */
#endif
	start_dispatcher();
	return run_all(tests);
}
