/* SPDX-License-Identifier: MIT */
/* Groups: when their threads start, how they end together, and that nothing of them is left. */
#include <semaphore.h>
#include <sys/epoll.h>

#include "ctxfd_group.h"
#include "harness.h"
#include "race.h"

#define HOUR (3600 * CTXFD_SEC)

/* ---- No thread --------------------------------------------------------------------------------------------------- */

static _Atomic int refused; /* how many of the next threads cannot be made */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	if (refused > 0) {
		refused--;
		return EAGAIN;
	}
	return __real_pthread_create(thread, attr, fn, arg);
}

/* ---- What the threads do ----------------------------------------------------------------------------------------- */

/* A thread's work: it says that it is there, waits for what it waits for, and gives its result. */
struct job {
	enum how { RETURN, AWAIT_END, AWAIT_GO, EXIT, CANCELLED, CANCELLED_AT_ONCE } how;
	int result;
	struct ctxfd_group *group;
	sem_t there, go;
	_Atomic int runs, ended;
	const struct ctxfd *ctx;
	_Atomic pthread_t thread;
	int got; /* what it was about */
};

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		continue;
}

static void post(void *sem)
{
	require(sem_post(sem) == 0);
}

static void job_init(struct job *j, struct ctxfd_group *g)
{
	memset(j, 0, sizeof *j);
	j->group = g;
	require(sem_init(&j->there, 0, 0) == 0 && sem_init(&j->go, 0, 0) == 0);
}

static int do_job(const struct ctxfd *ctx, void *arg)
{
	struct job *j = arg;

	j->runs++;
	j->ctx = ctx;
	j->thread = pthread_self();
	require(sem_post(&j->there) == 0);
	switch (j->how) {
	case AWAIT_END:
		j->got = ctxfd_wait(ctx);
		break;
	case AWAIT_GO:
		wait_for(&j->go);
		break;
	case EXIT:
		pthread_exit(NULL);
	case CANCELLED_AT_ONCE:
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
		__attribute__((fallthrough));
	case CANCELLED:
		for (;;) /* asleep in a call that ThreadSanitizer knows it would not understand what comes */
			pthread_testcancel();
	case RETURN:
		break;
	}
	j->ended++;
	return j->result;
}

static struct ctxfd_group *make_group(const struct ctxfd *parent, unsigned limit)
{
	struct ctxfd_group *g = ctxfd_group_new(parent, limit);

	require(g);
	return g;
}

/* Starts it, and waits until it is at work. */
static void start_job(struct job *j)
{
	require(ctxfd_group_go(j->group, do_job, j) == 0);
	wait_for(&j->there);
}

static int do_nothing(const struct ctxfd *ctx, void *arg)
{
	return 0;
}

static int count_one(const struct ctxfd *ctx, void *arg)
{
	++*(_Atomic int *)arg;
	return 0;
}

/* Another thread's call of go. */
struct going {
	struct ctxfd_group *group;
	int (*fn)(const struct ctxfd *ctx, void *arg);
	void *arg;
	int result;
	_Atomic bool over;
	struct thread *thread;
};

static void *go(void *arg)
{
	struct going *going = arg;

	going->result = ctxfd_group_go(going->group, going->fn, going->arg);
	going->over = true;
	return NULL;
}

/* One that has to wait. */
static void go_in_vain(struct going *going)
{
	going->over = false;
	going->thread = thread_start(go, going);
	thread_wait_asleep(going->thread);
	assert_false(going->over);
}

static int end_of_going(struct going *going)
{
	thread_join(going->thread);
	return going->result;
}

/* ---- Results and causes ------------------------------------------------------------------------------------------ */

static void each_runs_in_a_thread_of_its_own(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	struct job jobs[10];

	for (size_t i = 0; i < COUNT(jobs); i++) {
		job_init(&jobs[i], g);
		jobs[i].how = AWAIT_GO;
		start_job(&jobs[i]);
	}
	for (size_t i = 0; i < COUNT(jobs); i++) {
		assert_int_equal(jobs[i].runs, 1);
		assert_ptr_equal(jobs[i].ctx, ctxfd_group_ctx(g));
		assert_false(pthread_equal(jobs[i].thread, pthread_self()));
		for (size_t k = 0; k < i; k++)
			assert_false(pthread_equal(jobs[i].thread, jobs[k].thread));
		require(sem_post(&jobs[i].go) == 0);
	}
	assert_int_equal(ctxfd_group_wait(g), 0);
	for (size_t i = 0; i < COUNT(jobs); i++)
		assert_int_equal(jobs[i].ended, 1);
}

static void a_group_without_threads_has_no_result(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 3);
	int fds = count_fds(), threads = count_threads();
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));

	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_threads(), threads);
	assert_int_equal(ctxfd_err(ctx), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(ctxfd_err(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), -ECANCELED);
	ctxfd_unref(ctx);
}

static void fail_first(int result, int cause)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
	struct job others[2], failing;

	for (int i = 0; i < 2; i++) {
		job_init(&others[i], g);
		others[i].how = AWAIT_END;
		others[i].result = -EIO; /* comes later, and does not count */
		start_job(&others[i]);
	}
	job_init(&failing, g);
	failing.result = result;
	start_job(&failing);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), cause);
	assert_int_equal(ctxfd_group_go(g, do_job, &failing), -ECANCELED);
	assert_int_equal(ctxfd_group_wait(g), result);
	assert_int_equal(failing.runs, 1);
	assert_int_equal(others[0].got, -ECANCELED);
	assert_int_equal(others[1].got, -ECANCELED);
	ctxfd_unref(ctx);
}

static void the_first_that_fails_ends_the_others(void **state)
{
	fail_first(-ENOENT, -ENOENT);
	fail_first(-ETIMEDOUT, -ETIMEDOUT);
	fail_first(INT_MIN, INT_MIN);
}

static void a_positive_result_is_no_signal(void **state)
{
	fail_first(SIGINT, -ECANCELED);
	fail_first(INT_MAX, -ECANCELED);
}

static void a_cancel_is_no_result(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
	struct job j;

	job_init(&j, g);
	j.how = AWAIT_END;
	start_job(&j);
	ctxfd_group_cancel(g, -ENOSPC);
	assert_int_equal(ctxfd_cause(ctx), -ENOSPC);
	ctxfd_group_cancel(g, -EIO);
	assert_int_equal(ctxfd_cause(ctx), -ENOSPC);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(ctxfd_cause(ctx), -ENOSPC);
	ctxfd_unref(ctx);
}

/* A result that comes after the end is one all the same. */
static void a_result_after_the_end_is_one(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
	struct job j;

	job_init(&j, g);
	j.how = AWAIT_END;
	j.result = -EIO;
	start_job(&j);
	ctxfd_group_cancel(g, 0);
	assert_int_equal(ctxfd_group_wait(g), -EIO);
	assert_int_equal(ctxfd_cause(ctx), -ECANCELED);
	ctxfd_unref(ctx);
}

/* ---- The parent -------------------------------------------------------------------------------------------------- */

static void a_parent_that_is_done_starts_nothing(void **state)
{
	struct ctxfd *parents[] = {
		ctxfd_with_cancel(ctxfd_background()),
		ctxfd_with_timeout(ctxfd_background(), -1),
	};

	ctxfd_cancel_cause(parents[0], -EPIPE);
	for (int i = 0; i < 2; i++) {
		for (unsigned limit = 0; limit < 2; limit++) {
			struct ctxfd_group *g = make_group(parents[i], limit);
			_Atomic int runs = 0;

			assert_int_equal(ctxfd_cause(ctxfd_group_ctx(g)), i ? -ETIMEDOUT : -EPIPE);
			assert_int_equal(ctxfd_group_go(g, count_one, &runs), i ? -ETIMEDOUT : -ECANCELED);
			assert_int_equal(ctxfd_group_wait(g), 0);
			assert_int_equal(runs, 0);
		}
		ctxfd_close(parents[i]);
	}
}

/* False: it has come before the first thread could be started. */
static bool end_by_deadline(int64_t timeout)
{
	int64_t start = now();
	struct ctxfd *parent = ctxfd_with_timeout_cause(ctxfd_background(), timeout, -EDOM);
	struct ctxfd_group *g = make_group(parent, 1);
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
	_Atomic int runs = 0;
	struct job j;
	int err;

	job_init(&j, g);
	j.how = AWAIT_END;
	err = ctxfd_group_go(g, do_job, &j);
	assert_int_equal(ctxfd_group_go(g, count_one, &runs), -ETIMEDOUT); /* waits for room until then */
	assert_elapsed(start, timeout, 10 * CTXFD_SEC);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(err, j.runs ? 0 : -ETIMEDOUT);
	assert_int_equal(j.got, j.runs ? -ETIMEDOUT : 0);
	assert_int_equal(ctxfd_cause(ctx), -EDOM);
	assert_int_equal(runs, 0);
	ctxfd_unref(ctx);
	ctxfd_close(parent);
	return j.runs;
}

static void the_parents_deadline_ends_the_group(void **state)
{
	int64_t timeout = 20 * CTXFD_MSEC;

	while (!end_by_deadline(timeout))
		timeout *= 2;
}

static const char key;

static int see_value(const struct ctxfd *ctx, void *arg)
{
	return ctxfd_value(ctx, &key) == arg ? 0 : -EINVAL;
}

static void values_are_seen(void **state)
{
	const struct ctxfd *parent = ctxfd_with_value(ctxfd_background(), &key, &refused, NULL);
	struct ctxfd_group *g = make_group(parent, 0);

	ctxfd_unref(parent); /* the group holds it */
	assert_int_equal(ctxfd_group_go(g, see_value, &refused), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
}

static void callbacks_come_on_the_parents_dispatcher(void **state)
{
	struct ctxfd_dispatcher *d = ctxfd_dispatcher_new();
	const struct ctxfd *loop = ctxfd_with_dispatcher(ctxfd_background(), d);
	struct ctxfd_group *g = make_group(loop, 0);
	struct job j;
	int threads = count_threads();

	job_init(&j, g);
	j.result = -EIO;
	assert_int_equal(ctxfd_after_func(ctxfd_group_ctx(g), post, &j.go, NULL), 0);
	assert_int_equal(count_threads(), threads);
	start_job(&j);
	wait_readable(ctxfd_dispatcher_fd(d));
	assert_int_equal(ctxfd_dispatcher_run(d), 1);
	assert_int_equal(sem_trywait(&j.go), 0);
	assert_int_equal(ctxfd_group_wait(g), -EIO);
	ctxfd_unref(loop);
	ctxfd_dispatcher_free(d);
}

/* ---- The limit --------------------------------------------------------------------------------------------------- */

static void go_waits_for_room(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 2);
	struct job jobs[2];
	_Atomic int runs = 0;
	struct going going = { .group = g, .fn = count_one, .arg = &runs };

	for (int i = 0; i < 2; i++) {
		job_init(&jobs[i], g);
		jobs[i].how = AWAIT_GO;
		start_job(&jobs[i]);
	}
	go_in_vain(&going);
	assert_int_equal(runs, 0);
	require(sem_post(&jobs[1].go) == 0);
	assert_int_equal(end_of_going(&going), 0);
	assert_int_equal(jobs[0].ended, 0);
	require(sem_post(&jobs[0].go) == 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(runs, 1);
}

enum { BY_CANCEL, BY_PARENT, BY_RESULT, WAYS };

/* While it waits for room, and no room comes up. */
static void the_end_ends_the_wait_for_room(void **state)
{
	for (int way = 0; way < WAYS; way++) {
		struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_group *g = make_group(parent, 2);
		const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
		struct job stubborn, j;
		_Atomic int runs = 0;
		struct going going[3];

		job_init(&stubborn, g);
		job_init(&j, g);
		stubborn.how = j.how = AWAIT_GO;
		j.result = way == BY_RESULT ? -ENOENT : 0;
		start_job(&stubborn);
		start_job(&j);
		for (size_t i = 0; i < COUNT(going); i++) {
			going[i] = (struct going){ .group = g, .fn = count_one, .arg = &runs };
			go_in_vain(&going[i]);
		}
		if (way == BY_CANCEL)
			ctxfd_group_cancel(g, -ENOENT);
		else if (way == BY_PARENT)
			ctxfd_cancel_cause(parent, -ENOENT);
		else
			require(sem_post(&j.go) == 0); /* gives up its room, too: for nobody */
		for (size_t i = 0; i < COUNT(going); i++)
			assert_int_equal(end_of_going(&going[i]), -ECANCELED);
		assert_int_equal(ctxfd_cause(ctx), -ENOENT);
		require(sem_post(&j.go) == 0 && sem_post(&stubborn.go) == 0);
		assert_int_equal(ctxfd_group_wait(g), way == BY_RESULT ? -ENOENT : 0);
		assert_int_equal(runs, 0);
		ctxfd_unref(ctx);
		ctxfd_close(parent);
	}
}

/* The room that a failing thread gives up is of no use: the context has ended before. */
static void who_waits_for_the_one_that_fails_is_too_late(void **state)
{
	for (int r = 0; r < rounds(1000); r++) {
		struct ctxfd_group *g = make_group(ctxfd_background(), 1);
		_Atomic int runs = 0;
		struct job j;

		job_init(&j, g);
		j.result = -EIO;
		start_job(&j);
		dither((unsigned)r * 17 % 20000);
		assert_int_equal(ctxfd_group_go(g, count_one, &runs), -ECANCELED);
		assert_int_equal(ctxfd_cause(ctxfd_group_ctx(g)), -EIO);
		assert_int_equal(ctxfd_group_wait(g), -EIO);
		assert_int_equal(runs, 0);
	}
}

static void *cancel(void *ctx)
{
	ctxfd_cancel(ctx);
	return NULL;
}

/* Once go has told of the end, so does the context. */
static void who_was_refused_sees_the_end(void **state)
{
	for (int r = 0; r < rounds(300); r++) {
		struct ctxfd *parent = ctxfd_with_cancel(ctxfd_background());
		struct ctxfd_group *g = make_group(parent, 1);
		struct thread *canceller;
		struct job j;

		job_init(&j, g);
		j.how = AWAIT_END;
		start_job(&j);
		canceller = thread_start(cancel, parent);

		assert_int_equal(ctxfd_group_go(g, do_nothing, NULL), -ECANCELED);
		assert_int_equal(ctxfd_err(ctxfd_group_ctx(g)), -ECANCELED);
		thread_join(canceller);
		assert_int_equal(ctxfd_group_wait(g), 0);
		ctxfd_close(parent);
	}
}

struct order {
	_Atomic int next;
	int of[5];
};

struct turn {
	struct order *order;
	int turn;
};

static int note_turn(const struct ctxfd *ctx, void *arg)
{
	struct turn *t = arg;

	t->order->of[t->turn] = t->order->next++;
	return 0;
}

static void who_waits_first_gets_room_first(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 1);
	struct order order = { 0 };
	struct turn turns[COUNT(order.of)];
	struct going going[COUNT(order.of)];
	struct job j;

	job_init(&j, g);
	j.how = AWAIT_GO;
	start_job(&j);
	for (int i = 0; i < (int)COUNT(turns); i++) {
		turns[i] = (struct turn){ &order, i };
		going[i] = (struct going){ .group = g, .fn = note_turn, .arg = &turns[i] };
		go_in_vain(&going[i]);
	}
	require(sem_post(&j.go) == 0);
	for (int i = 0; i < (int)COUNT(turns); i++)
		assert_int_equal(end_of_going(&going[i]), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	for (int i = 0; i < (int)COUNT(turns); i++)
		assert_int_equal(order.of[i], i);
}

/* A go that had to wait, and finds the group ended when room comes, passes the room on: none is forgotten. */
static void room_that_is_not_used_is_passed_on(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 1);
	_Atomic int runs = 0;
	struct going going[2];
	struct job j;

	job_init(&j, g);
	j.how = AWAIT_GO;
	start_job(&j);
	for (int i = 0; i < 2; i++) {
		going[i] = (struct going){ .group = g, .fn = count_one, .arg = &runs };
		go_in_vain(&going[i]);
	}
	refused = 1;
	require(sem_post(&j.go) == 0);
	assert_int_equal(end_of_going(&going[0]), -EAGAIN);
	assert_int_equal(end_of_going(&going[1]), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(runs, 1);
}

/* ---- From inside ------------------------------------------------------------------------------------------------- */

struct nest {
	struct ctxfd_group *group;
	_Atomic int depth, runs;
	int to, result;
};

/* A chain: each starts the next. */
static int go_on(const struct ctxfd *ctx, void *arg)
{
	struct nest *n = arg;

	n->runs++;
	if (n->depth++ < n->to)
		require(ctxfd_group_go(n->group, go_on, n) == 0);
	return 0;
}

static void wait_waits_for_those_that_come_later(void **state)
{
	struct nest n = { .group = make_group(ctxfd_background(), 2), .to = rounds(1000) };

	assert_int_equal(ctxfd_group_go(n.group, go_on, &n), 0);
	assert_int_equal(ctxfd_group_wait(n.group), 0);
	assert_int_equal(n.runs, n.to + 1);
}

/* Each waits for room, and so they would wait for ever. */
static int go_deeper(const struct ctxfd *ctx, void *arg)
{
	struct nest *n = arg;
	int err;

	n->runs++;
	if (n->depth++ < n->to) {
		err = ctxfd_group_go(n->group, go_deeper, n);
		require(err == 0 || err == -EDEADLK);
		return err;
	}
	return 0;
}

static void one_that_waits_for_itself_is_told(void **state)
{
	struct nest n = { .group = make_group(ctxfd_background(), 1), .to = 1 };
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(n.group));

	assert_int_equal(ctxfd_group_go(n.group, go_deeper, &n), 0);
	assert_int_equal(ctxfd_group_wait(n.group), -EDEADLK);
	assert_int_equal(ctxfd_cause(ctx), -EDEADLK);
	assert_int_equal(n.runs, 1);
	ctxfd_unref(ctx);
}

struct caller {
	struct ctxfd_group *group;
	sem_t *there;
	_Atomic int *runs;
	struct job *gate;
	int got;
};

static int wait_then_go(const struct ctxfd *ctx, void *arg)
{
	struct caller *c = arg;

	post(c->there);
	wait_for(&c->gate->go);
	c->got = ctxfd_group_go(c->group, count_one, c->runs);
	return 0;
}

/*
 * The last of them is told, and when it has ended the others get room: nobody waits any more. Strangers do not count.
 */
static void all_that_wait_for_each_other_are_told(void **state)
{
	enum { N = 3 };
	struct ctxfd_group *g = make_group(ctxfd_background(), N);
	struct job gate, idle;
	struct caller callers[N];
	_Atomic int runs = 0;
	struct going stranger = { .group = g, .fn = count_one, .arg = &runs };
	int told = 0;

	job_init(&gate, g);
	job_init(&idle, g);
	for (int i = 0; i < N; i++) {
		callers[i] = (struct caller){ g, &gate.there, &runs, &gate, 1 };
		assert_int_equal(ctxfd_group_go(g, wait_then_go, &callers[i]), 0);
		wait_for(&gate.there);
	}
	go_in_vain(&stranger);
	for (int i = 0; i < N; i++)
		post(&gate.go);
	assert_int_equal(end_of_going(&stranger), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	for (int i = 0; i < N; i++) {
		assert_true(callers[i].got == 0 || callers[i].got == -EDEADLK);
		told += callers[i].got != 0;
	}
	assert_between(told, 1, N - 1);
	assert_int_equal(runs, N - told + 1);
}

/* One at work is enough: the others wait for it. */
static void who_waits_for_work_is_not_told(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 2);
	struct job busy, gate;
	_Atomic int runs = 0;
	struct caller caller = { g, &gate.there, &runs, &gate, 1 };

	job_init(&busy, g);
	job_init(&gate, g);
	busy.how = AWAIT_GO;
	start_job(&busy);
	assert_int_equal(ctxfd_group_go(g, wait_then_go, &caller), 0);
	post(&gate.go);
	wait_for(&gate.there);
	post(&busy.go);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(caller.got, 0);
	assert_int_equal(runs, 1);
}

struct relay {
	struct ctxfd_group *group;
	struct relay *next; /* NULL: the last starts nobody */
	sem_t go;
	_Atomic pid_t tid;
	int got;
};

static int pass_on(const struct ctxfd *ctx, void *arg)
{
	struct relay *r = arg;

	r->tid = (pid_t)syscall(SYS_gettid);
	if (r->next)
		r->got = ctxfd_group_go(r->group, pass_on, r->next);
	wait_for(&r->go);
	return 0;
}

/* A go that has got room does not wait any more: the next one that has to is not told that all wait. */
static void who_has_waited_is_at_work_again(void **state)
{
	struct relay relays[3] = { 0 };
	struct ctxfd_group *g = make_group(ctxfd_background(), 2);
	struct job busy;

	for (int i = 0; i < 3; i++) {
		relays[i].group = g;
		relays[i].next = i < 2 ? &relays[i + 1] : NULL;
		require(sem_init(&relays[i].go, 0, 0) == 0);
	}
	job_init(&busy, g);
	busy.how = AWAIT_GO;
	start_job(&busy);
	assert_int_equal(ctxfd_group_go(g, pass_on, &relays[0]), 0);
	wait_until(relays[0].tid);
	tid_wait_asleep(relays[0].tid); /* for room for the second */
	post(&busy.go);
	wait_until(relays[1].tid);
	tid_wait_asleep(relays[1].tid); /* for room for the third, while the first is at work */
	for (int i = 0; i < 3; i++)
		post(&relays[i].go);
	assert_int_equal(ctxfd_group_wait(g), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(relays[i].got, 0);
}

static int wait_for_oneself(const struct ctxfd *ctx, void *arg)
{
	int result = ctxfd_group_wait(arg);

	require(ctxfd_err(ctx) == 0);
	return result;
}

static void wait_from_inside_is_refused(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));

	assert_int_equal(ctxfd_group_go(g, wait_for_oneself, g), 0);
	assert_int_equal(ctxfd_wait(ctx), -ECANCELED);
	assert_int_equal(ctxfd_group_wait(g), -EDEADLK);
	ctxfd_unref(ctx);
}

/* ---- Groups in groups -------------------------------------------------------------------------------------------- */

static int run_inner(const struct ctxfd *ctx, void *arg)
{
	struct job *j = arg;
	struct ctxfd_group *g = make_group(ctx, 1);

	j->group = g;
	require(ctxfd_group_go(g, do_job, j) == 0);
	return ctxfd_group_wait(g);
}

static void a_failure_goes_up_and_then_down(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
	struct job waiting, failing;

	job_init(&waiting, NULL);
	job_init(&failing, NULL);
	waiting.how = AWAIT_END;
	waiting.result = -EINTR;
	failing.result = -EPROTO;
	assert_int_equal(ctxfd_group_go(g, run_inner, &waiting), 0);
	wait_for(&waiting.there);
	assert_int_equal(ctxfd_group_go(g, run_inner, &failing), 0);
	assert_int_equal(ctxfd_group_wait(g), -EPROTO);
	assert_int_equal(waiting.got, -ECANCELED);
	assert_int_equal(ctxfd_cause(ctx), -EPROTO);
	ctxfd_unref(ctx);
}

/* ---- How threads end --------------------------------------------------------------------------------------------- */

static void a_thread_that_does_not_return_counts(void **state)
{
	for (int how = EXIT; how <= CANCELLED_AT_ONCE; how++) {
		struct ctxfd_group *g = make_group(ctxfd_background(), 1);
		const struct ctxfd *ctx = ctxfd_ref(ctxfd_group_ctx(g));
		struct job j;

		job_init(&j, g);
		j.how = (enum how)how;
		start_job(&j);
		if (how != EXIT)
			require(pthread_cancel(j.thread) == 0);
		assert_int_equal(ctxfd_group_go(g, do_nothing, NULL), -ECANCELED); /* waits for room, or is too late */
		assert_int_equal(ctxfd_cause(ctx), -ECANCELED);
		assert_int_equal(ctxfd_group_wait(g), -ECANCELED);
		assert_int_equal(j.ended, 0);
		ctxfd_unref(ctx);
	}
}

struct cancelled {
	struct ctxfd_group *group;
	_Atomic int returned, result;
	void *arg;
};

static void *call_wait(void *arg)
{
	struct cancelled *c = arg;

	c->result = ctxfd_group_wait(c->group);
	c->returned = 1;
	pthread_testcancel();
	return NULL;
}

static void *call_go(void *arg)
{
	struct cancelled *c = arg;

	c->result = ctxfd_group_go(c->group, count_one, c->arg);
	c->returned = 1;
	pthread_testcancel();
	return NULL;
}

/* It is noticed only after the call, which has done its work. */
static void a_cancelled_thread_ends_its_call_first(void **state)
{
	for (int waits = 0; waits < 2; waits++) {
		_Atomic int runs = 0;
		struct cancelled c = { .group = make_group(ctxfd_background(), 1), .result = 1, .arg = (void *)&runs };
		struct thread *thread;
		struct job j;

		job_init(&j, c.group);
		j.how = AWAIT_GO;
		start_job(&j);
		thread = thread_start(waits ? call_wait : call_go, &c);
		thread_wait_asleep(thread);
		assert_int_equal(pthread_cancel(thread_pthread(thread)), 0);
		thread_wait_asleep(thread);
		assert_int_equal(c.returned, 0);
		post(&j.go);
		assert_ptr_equal(thread_join(thread), PTHREAD_CANCELED);
		assert_int_equal(c.returned, 1);
		assert_int_equal(c.result, 0);
		if (!waits)
			assert_int_equal(ctxfd_group_wait(c.group), 0);
		assert_int_equal(runs, !waits);
	}
}

/* ---- What is left of them ---------------------------------------------------------------------------------------- */

struct slow_exit {
	pthread_key_t key;
	sem_t there, go;
	_Atomic int over;
};

/* A destructor of a thread's data: what a thread does after fn has ended. */
static void leave_slowly(void *arg)
{
	struct slow_exit *s = arg;

	post(&s->there);
	wait_for(&s->go);
	s->over++;
}

static int exit_slowly(const struct ctxfd *ctx, void *arg)
{
	struct slow_exit *s = arg;

	require(pthread_setspecific(s->key, s) == 0);
	return 0;
}

static void slow_exit_init(struct slow_exit *s)
{
	memset(s, 0, sizeof *s);
	require(pthread_key_create(&s->key, leave_slowly) == 0);
	require(sem_init(&s->there, 0, 0) == 0 && sem_init(&s->go, 0, 0) == 0);
}

static void wait_waits_for_threads_on_their_way_out(void **state)
{
	struct cancelled c = { .group = make_group(ctxfd_background(), 0) };
	struct slow_exit slow;
	struct thread *waiter;

	slow_exit_init(&slow);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ctxfd_group_go(c.group, exit_slowly, &slow), 0);
		wait_for(&slow.there);
	}
	waiter = thread_start(call_wait, &c);
	thread_wait_asleep(waiter);
	post(&slow.go);
	thread_wait_asleep(waiter);
	assert_int_equal(c.returned, 0);
	post(&slow.go);
	thread_join(waiter);
	assert_int_equal(slow.over, 2);
	pthread_key_delete(slow.key);
}

/* A thread on its way out is one of the limit, though its fn has ended. */
static void there_are_never_more_threads_than_the_limit(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 1);
	_Atomic int runs = 0;
	struct going going = { .group = g, .fn = count_one, .arg = &runs };
	struct slow_exit slow;

	slow_exit_init(&slow);
	assert_int_equal(ctxfd_group_go(g, exit_slowly, &slow), 0);
	wait_for(&slow.there);
	go_in_vain(&going);
	assert_int_equal(runs, 0);
	post(&slow.go);
	assert_int_equal(end_of_going(&going), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(slow.over, 1);
	pthread_key_delete(slow.key);
}

/* It is one, and no more: go waits for it at the limit alone, and for another that has ended as well. */
static void one_on_its_way_out_holds_up_nobody_else(void **state)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 60 * CTXFD_SEC); /* as long as a go would wait */

	for (unsigned limit = 2; limit < 4; limit++) {
		struct ctxfd_group *g = make_group(ctx, limit);
		_Atomic int runs = 0;
		struct slow_exit slow;

		slow_exit_init(&slow);
		assert_int_equal(ctxfd_group_go(g, exit_slowly, &slow), 0);
		wait_for(&slow.there);
		for (int i = 0; i < 5; i++)
			assert_int_equal(ctxfd_group_go(g, count_one, &runs), 0);
		assert_int_equal(slow.over, 0);
		post(&slow.go);
		assert_int_equal(ctxfd_group_wait(g), 0);
		assert_int_equal(runs, 5);
		pthread_key_delete(slow.key);
	}
	ctxfd_close(ctx);
}

/* The group's end ends a go that waits for such a thread, which ctxfd_group_wait joins. */
static void the_end_does_not_wait_for_threads_on_their_way_out(void **state)
{
	struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());
	struct ctxfd_group *g = make_group(ctx, 1);
	_Atomic int runs = 0;
	struct going going = { .group = g, .fn = count_one, .arg = &runs };
	struct slow_exit slow;

	slow_exit_init(&slow);
	assert_int_equal(ctxfd_group_go(g, exit_slowly, &slow), 0);
	wait_for(&slow.there);
	go_in_vain(&going);
	ctxfd_cancel(ctx);
	assert_int_equal(end_of_going(&going), -ECANCELED);
	assert_int_equal(slow.over, 0);
	post(&slow.go);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(slow.over, 1);
	assert_int_equal(runs, 0);
	pthread_key_delete(slow.key);
	ctxfd_close(ctx);
}

/* What a thread holds when it has ended is memory of the library's, too: that shows whether it was joined. */
static void a_long_life_leaves_no_threads_behind(void **state)
{
	static const unsigned limits[] = { 0, 1, 3 };

	for (size_t i = 0; i < COUNT(limits); i++) {
		struct ctxfd_group *g = make_group(ctxfd_background(), limits[i]);
		long before = live_allocations();
		struct job j;
		int n = rounds(2000);

		job_init(&j, g);
		for (int k = 0; k < n; k++)
			start_job(&j);
		/*
		 * The last one's and those of two or three that had said that they are there, and had not left. If
		 * one takes long to leave, those behind it are joined by a later go.
		 */
		for (; live_allocations() > before + 20; n++)
			start_job(&j);
		assert_between(live_allocations(), before, before + 20);
		assert_int_equal(ctxfd_group_wait(g), 0);
		assert_int_equal(j.runs, n);
	}
}

static int look_at_mask(const struct ctxfd *ctx, void *arg)
{
	return pthread_sigmask(SIG_SETMASK, NULL, arg);
}

static void the_callers_signal_mask_is_inherited(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);
	sigset_t blocked, was, seen[2];

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	assert_int_equal(ctxfd_group_go(g, look_at_mask, &seen[0]), 0);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &blocked, &was), 0);
	assert_int_equal(ctxfd_group_go(g, look_at_mask, &seen[1]), 0);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &was, NULL), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_false(sigismember(&seen[0], SIGUSR1));
	assert_true(sigismember(&seen[1], SIGUSR1));
}

/* ---- Bad arguments, and what runs out ---------------------------------------------------------------------------- */

static void null_is_told(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 0);

	errno = 0;
	assert_null(ctxfd_group_new(NULL, 1));
	assert_int_equal(errno, EINVAL);
	errno = EDOM;
	assert_null(ctxfd_group_ctx(NULL));
	assert_int_equal(ctxfd_group_go(NULL, do_nothing, NULL), -EINVAL);
	assert_int_equal(ctxfd_group_go(g, NULL, NULL), -EINVAL);
	assert_int_equal(ctxfd_group_wait(NULL), -EINVAL);
	ctxfd_group_cancel(NULL, 1);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(errno, EDOM);
}

static void without_memory_no_group_is_made(void **state)
{
	for (int n = 1; n <= 2; n++) {
		fail_allocation(n);
		errno = 0;
		assert_null(ctxfd_group_new(ctxfd_background(), 0));
		assert_int_equal(errno, ENOMEM);
		assert_true(allocation_failed());
	}
}

static void without_memory_nothing_is_started(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 1);
	_Atomic int runs = 0;
	struct job j;

	job_init(&j, g);
	j.how = AWAIT_GO;
	errno = EDOM;
	fail_allocation(1);
	assert_int_equal(ctxfd_group_go(g, do_job, &j), -ENOMEM);
	assert_true(allocation_failed());
	assert_int_equal(errno, EDOM);
	start_job(&j);
	errno = EDOM;
	for (int n = 1; n <= 2; n++) { /* with nothing to wait by, too */
		fail_allocation(n);
		assert_int_equal(ctxfd_group_go(g, count_one, &runs), -ENOMEM);
		assert_true(allocation_failed());
	}
	assert_int_equal(errno, EDOM);
	assert_int_equal(ctxfd_err(ctxfd_group_ctx(g)), 0);
	post(&j.go);
	assert_int_equal(ctxfd_group_go(g, count_one, &runs), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(runs, 1);
}

static void without_a_thread_nothing_is_started(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 1);
	_Atomic int runs = 0;

	errno = EDOM;
	for (int i = 0; i < 3; i++) {
		refused = 1;
		assert_int_equal(ctxfd_group_go(g, count_one, &runs), -EAGAIN);
		assert_int_equal(ctxfd_err(ctxfd_group_ctx(g)), 0);
	}
	assert_int_equal(ctxfd_group_go(g, count_one, &runs), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	assert_int_equal(runs, 1);
	assert_int_equal(errno, EDOM);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

struct forked {
	struct ctxfd_group *group;
	const struct ctxfd *ctx;
	long allocations; /* before the group was made */
};

static int use_in_child(void *arg)
{
	struct forked *f = arg;
	int64_t start = now();

	require(ctxfd_group_go(f->group, do_nothing, NULL) == -ECHILD);
	require(ctxfd_err(f->ctx) == 0);
	require(ctxfd_group_wait(f->group) == -ECHILD);
	require(ctxfd_err(f->ctx) == -ECANCELED);
	ctxfd_unref(f->ctx);
	require(live_allocations() == f->allocations);
	require(now() - start < 30 * CTXFD_SEC * slow());
	return 0;
}

static int tell_tid(const struct ctxfd *ctx, void *arg)
{
	*(_Atomic pid_t *)arg = (pid_t)syscall(SYS_gettid);
	return 0;
}

static void the_child_of_a_fork_has_no_threads(void **state)
{
	struct forked f = { .allocations = live_allocations() };
	_Atomic pid_t ended = 0;
	struct job jobs[2];

	f.group = make_group(ctxfd_background(), 3);
	f.ctx = ctxfd_ref(ctxfd_group_ctx(f.group));
	for (int i = 0; i < 2; i++) {
		job_init(&jobs[i], f.group);
		jobs[i].how = AWAIT_GO;
		start_job(&jobs[i]);
	}
	assert_int_equal(ctxfd_group_go(f.group, tell_tid, (void *)&ended), 0);
	wait_until(ended && syscall(SYS_tgkill, getpid(), ended, 0) != 0);
	assert_int_equal(in_child(use_in_child, &f), 0);
	assert_int_equal(ctxfd_err(f.ctx), 0);
	for (int i = 0; i < 2; i++)
		post(&jobs[i].go);
	assert_int_equal(ctxfd_group_wait(f.group), 0);
	ctxfd_unref(f.ctx);
}

static pthread_key_t forked_key;

/* What the child's thread still does after fn. It is the last one, and so ends the process: exit(0). */
static void look_after_fn(void *ctx)
{
	if (ctxfd_err(ctx) != 0)
		_exit(1);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	_exit(0); /* their runtimes do not bear such an end */
#endif
}

/* In the child fn returns, too: that concerns the group no more. */
static int fork_inside(const struct ctxfd *ctx, void *arg)
{
	struct ctxfd_group *g = arg;
	int status;
	pid_t child = fork();

	require(child >= 0);
	if (!child) {
		require(ctxfd_group_go(g, do_nothing, NULL) == -ECHILD);
		require(ctxfd_group_wait(g) == -EDEADLK);
		require(pthread_setspecific(forked_key, ctx) == 0);
		return -EIO;
	}
	require(waitpid(child, &status, 0) == child);
	return status;
}

static void fn_may_fork(void **state)
{
	struct ctxfd_group *g = make_group(ctxfd_background(), 1);

	require(pthread_key_create(&forked_key, look_after_fn) == 0);
	assert_int_equal(ctxfd_group_go(g, fork_inside, g), 0);
	assert_int_equal(ctxfd_group_wait(g), 0);
	pthread_key_delete(forked_key);
}

/* ---- Storms ------------------------------------------------------------------------------------------------------ */

enum { GOERS = 3, EACH = 40 };

struct storm {
	struct ctxfd_group *group;
	unsigned limit, seed;
	int odds; /* one in so many fails */
	bool cancels;
	struct meeting start;
	_Atomic int at_work, most, runs, accepted, failures;
};

static unsigned draw(unsigned *seed)
{
	*seed = *seed * 1103515245 + 12345;
	return *seed >> 16;
}

static int storm_work(const struct ctxfd *ctx, void *arg);

static void storm_go(struct storm *s)
{
	int err = ctxfd_group_go(s->group, storm_work, s);

	require(err == 0 || err == -ECANCELED || err == -EDEADLK);
	if (err == 0)
		s->accepted++;
	else if (err == -ECANCELED)
		require(ctxfd_err(ctxfd_group_ctx(s->group)) == -ECANCELED);
}

static int storm_work(const struct ctxfd *ctx, void *arg)
{
	struct storm *s = arg;
	int run = ++s->runs, working = ++s->at_work, most = s->most;
	unsigned seed = s->seed + (unsigned)run;

	while (working > most && !atomic_compare_exchange_weak(&s->most, &most, working))
		continue;
	dither(draw(&seed) % 3000);
	if (draw(&seed) % 4 == 0)
		storm_go(s);
	if (s->cancels && draw(&seed) % 50 == 0)
		ctxfd_group_cancel(s->group, -EDOM);
	if (draw(&seed) % 16 == 0)
		ctxfd_sleep(ctx, CTXFD_MSEC);
	s->at_work--;
	if (draw(&seed) % (unsigned)s->odds)
		return 0;
	s->failures++;
	return -1000 - run;
}

static void *storm_goer(void *arg)
{
	struct storm *s = arg;

	meet(&s->start, GOERS + 1);
	for (int i = 0; i < EACH; i++)
		storm_go(s);
	return NULL;
}

static void storm_once(const struct ctxfd *parent, unsigned seed)
{
	struct storm s = {
		.seed = seed * 7919, .limit = seed % 5, .odds = seed % 3 ? 60 : 100000, .cancels = seed & 1
	};
	struct thread *goers[GOERS];
	const struct ctxfd *ctx;
	int result, cause;

	s.group = make_group(parent, s.limit);
	ctx = ctxfd_ref(ctxfd_group_ctx(s.group));
	for (int i = 0; i < GOERS; i++)
		goers[i] = thread_start(storm_goer, &s);
	meet(&s.start, GOERS + 1);
	if (s.cancels && seed % 4 == 1) {
		dither(seed * 997 % 300000);
		ctxfd_group_cancel(s.group, -EDOM);
	}
	for (int i = 0; i < GOERS; i++)
		thread_join(goers[i]);
	result = ctxfd_group_wait(s.group);
	cause = ctxfd_cause(ctx);
	assert_int_equal(s.runs, s.accepted);
	assert_int_equal(s.at_work, 0);
	if (s.limit)
		assert_between(s.most, 0, s.limit);
	assert_int_equal(result != 0, s.failures > 0);
	if (!s.cancels)
		assert_int_equal(cause, result ? result : -ECANCELED);
	else if (cause != -EDOM && cause != -ECANCELED)
		assert_int_equal(cause, result);
	ctxfd_unref(ctx);
}

static void a_storm_of_goes_and_cancels(void **state)
{
	set_time_limit(120);
	for (int r = 0; r < rounds(200); r++)
		storm_once(ctxfd_background(), (unsigned)r);
}

static int storm_inside(const struct ctxfd *ctx, void *arg)
{
	struct storm s = { .seed = *(unsigned *)arg, .limit = 2, .odds = 40, .cancels = true };
	int result;

	s.group = make_group(ctx, s.limit);
	for (int i = 0; i < 10; i++)
		storm_go(&s);
	result = ctxfd_group_wait(s.group);
	require(s.runs == s.accepted && s.at_work == 0 && s.most <= 2);
	return result;
}

static void a_storm_of_groups_in_groups(void **state)
{
	set_time_limit(120);
	for (int r = 0; r < rounds(100); r++) {
		struct ctxfd *parent = ctxfd_with_timeout(ctxfd_background(), HOUR);
		struct ctxfd_group *g = make_group(parent, (unsigned)r % 4);
		unsigned seeds[8];
		struct thread *canceller;

		for (unsigned i = 0; i < COUNT(seeds); i++) {
			seeds[i] = (unsigned)r * 100 + i;
			assert_between(ctxfd_group_go(g, storm_inside, &seeds[i]), -200, 0);
		}
		canceller = thread_start(cancel, parent);
		ctxfd_group_wait(g);
		thread_join(canceller);
		ctxfd_close(parent);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_runs_in_a_thread_of_its_own),
		cmocka_unit_test(a_group_without_threads_has_no_result),
		cmocka_unit_test(the_first_that_fails_ends_the_others),
		cmocka_unit_test(a_positive_result_is_no_signal),
		cmocka_unit_test(a_cancel_is_no_result),
		cmocka_unit_test(a_result_after_the_end_is_one),
		cmocka_unit_test(a_parent_that_is_done_starts_nothing),
		cmocka_unit_test(the_parents_deadline_ends_the_group),
		cmocka_unit_test(values_are_seen),
		cmocka_unit_test(callbacks_come_on_the_parents_dispatcher),
		cmocka_unit_test(go_waits_for_room),
		cmocka_unit_test(the_end_ends_the_wait_for_room),
		cmocka_unit_test(who_waits_for_the_one_that_fails_is_too_late),
		cmocka_unit_test(who_was_refused_sees_the_end),
		cmocka_unit_test(who_waits_first_gets_room_first),
		cmocka_unit_test(room_that_is_not_used_is_passed_on),
		cmocka_unit_test(wait_waits_for_those_that_come_later),
		cmocka_unit_test(one_that_waits_for_itself_is_told),
		cmocka_unit_test(all_that_wait_for_each_other_are_told),
		cmocka_unit_test(who_waits_for_work_is_not_told),
		cmocka_unit_test(who_has_waited_is_at_work_again),
		cmocka_unit_test(wait_from_inside_is_refused),
		cmocka_unit_test(a_failure_goes_up_and_then_down),
		cmocka_unit_test(a_thread_that_does_not_return_counts),
		cmocka_unit_test(a_cancelled_thread_ends_its_call_first),
		cmocka_unit_test(wait_waits_for_threads_on_their_way_out),
		cmocka_unit_test(there_are_never_more_threads_than_the_limit),
		cmocka_unit_test(one_on_its_way_out_holds_up_nobody_else),
		cmocka_unit_test(the_end_does_not_wait_for_threads_on_their_way_out),
		cmocka_unit_test(a_long_life_leaves_no_threads_behind),
		cmocka_unit_test(the_callers_signal_mask_is_inherited),
		cmocka_unit_test(null_is_told),
		cmocka_unit_test(without_memory_no_group_is_made),
		cmocka_unit_test(without_memory_nothing_is_started),
		cmocka_unit_test(without_a_thread_nothing_is_started),
		cmocka_unit_test(the_child_of_a_fork_has_no_threads),
		cmocka_unit_test(fn_may_fork),
		cmocka_unit_test(a_storm_of_goes_and_cancels),
		cmocka_unit_test(a_storm_of_groups_in_groups),
	};

	return run_all(tests);
}
