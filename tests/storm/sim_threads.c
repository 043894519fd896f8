/* SPDX-License-Identifier: MIT */
/* The threads, mutexes and condition variables of the simulated machine, for the library's dispatcher. See sim.h. */
#include "sim.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

/* A mutex's own memory says nothing to us: here is who has it, plus 1. Few are ever used. */
static struct mutex {
	const pthread_mutex_t *is;
	int owner;
	struct sim_view seen;
} mutexes[16];

static void (*in_child)(void);

/* The one key of pthread_key_create that the library has, and what each thread has set. */
static void (*destructor)(void *value);
static void *values[SIM_THREADS];
static struct sim_view once_seen;

void sim_thread_ends(void)
{
	void *value = values[sim_turn()];

	values[sim_turn()] = NULL;
	if (value)
		destructor(value);
}

void sim_forked(void)
{
	in_child();
}

void sim_threads_reset(void)
{
	for (int i = 0; i < 16; i++)
		mutexes[i] = (struct mutex){ 0 };
	for (int i = 0; i < SIM_THREADS; i++)
		values[i] = NULL;
	once_seen = (struct sim_view){ 0 };
}

static struct mutex *find(const pthread_mutex_t *m)
{
	for (int i = 0; i < 16; i++) {
		if (!mutexes[i].is)
			mutexes[i].is = m;
		if (mutexes[i].is == m)
			return &mutexes[i];
	}
	sim_fail("too many mutexes");
}

int sim_pthread_mutex_lock(pthread_mutex_t *m);
int sim_pthread_mutex_unlock(pthread_mutex_t *m);
int sim_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int sim_pthread_mutex_destroy(pthread_mutex_t *m);
int sim_atexit(void (*fn)(void));
int sim_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr);
int sim_pthread_cond_destroy(pthread_cond_t *c);
int sim_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int sim_pthread_cond_broadcast(pthread_cond_t *c);
int sim_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int sim_pthread_join(pthread_t t, void **result);
int sim_pthread_detach(pthread_t t);
pthread_t sim_pthread_self(void);
int sim_pthread_sigmask(int how, const sigset_t *set, sigset_t *was);
int sim_pthread_atfork(void (*before)(void), void (*parent)(void), void (*child)(void));
int sim_prctl(int what, ...);

int sim_pthread_once(pthread_once_t *once, void (*init)(void));
int sim_pthread_key_create(pthread_key_t *key, void (*free_value)(void *));
int sim_pthread_setspecific(pthread_key_t key, const void *value);

int sim_pthread_once(pthread_once_t *once, void (*init)(void))
{
	enum { BEGUN = PTHREAD_ONCE_INIT + 1, OVER };

	if (*once == PTHREAD_ONCE_INIT) {
		*once = BEGUN;
		init();
		*once = OVER;
		sim_release(&once_seen);
		sim_wake(once, 1);
	}
	while (*once == BEGUN)
		sim_sleep(once, 1, INT64_MAX);
	sim_acquire(&once_seen);
	return 0;
}

int sim_pthread_key_create(pthread_key_t *key, void (*free_value)(void *))
{
	if (sim_refuses()) {
		sim_refused("a key");
		return EAGAIN;
	}
	*key = 0;
	destructor = free_value;
	return 0;
}

int sim_pthread_setspecific(pthread_key_t key, const void *value)
{
	(void)key;
	if (value && sim_refuses()) {
		sim_refused("memory for a value");
		return ENOMEM;
	}
	values[sim_turn()] = (void *)(uintptr_t)value;
	return 0;
}

int sim_pthread_mutex_lock(pthread_mutex_t *m)
{
	struct mutex *mutex;

	if (sim_turn() < 0) /* outside of any schedule */
		return 0;
	mutex = find(m);
	sim_check_access(m, sizeof *m, "locking a mutex");
	sim_point();
	sim_check_access(m, sizeof *m, "locking a mutex");
	if (mutex->owner == sim_turn() + 1)
		sim_fail("a mutex is locked twice by one thread");
	while (mutex->owner)
		sim_sleep(m, 1, INT64_MAX);
	mutex->owner = sim_turn() + 1;
	sim_acquire(&mutex->seen);
	if (sim_explaining())
		sim_tell("locks the mutex");
	return 0;
}

int sim_pthread_mutex_unlock(pthread_mutex_t *m)
{
	struct mutex *mutex;

	if (sim_turn() < 0)
		return 0;
	mutex = find(m);
	sim_check_access(m, sizeof *m, "unlocking a mutex");
	if (mutex->owner != sim_turn() + 1)
		sim_fail("a mutex is unlocked by who has not locked it");
	mutex->owner = 0;
	sim_release(&mutex->seen);
	sim_wake(m, 1);
	if (sim_explaining())
		sim_tell("unlocks the mutex");
	return 0;
}

/* One that is made where another one was is the same, once that is destroyed. */
int sim_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
	(void)m, (void)attr;
	return 0;
}

int sim_pthread_mutex_destroy(pthread_mutex_t *m)
{
	if (find(m)->owner)
		sim_fail("a mutex is destroyed that somebody has");
	return 0;
}

int sim_atexit(void (*fn)(void))
{
	(void)fn;
	return 0;
}

int sim_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
	(void)c, (void)attr;
	return 0;
}

int sim_pthread_cond_destroy(pthread_cond_t *c)
{
	(void)c;
	return 0;
}

int sim_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	sim_pthread_mutex_unlock(m);
	if (!sim_chance(16)) /* else for no reason, as it may */
		sim_sleep(c, 1, INT64_MAX);
	return sim_pthread_mutex_lock(m);
}

int sim_pthread_cond_broadcast(pthread_cond_t *c)
{
	sim_wake(c, 1);
	return 0;
}

int sim_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	int i = sim_refuses() ? -1 : sim_spawn(run, arg);

	(void)attr;
	if (i < 0) {
		sim_refused("a thread");
		return EAGAIN;
	}
	*t = (pthread_t)(i + 1);
	sim_point();
	return 0;
}

int sim_pthread_join(pthread_t t, void **result)
{
	(void)result;
	sim_await((int)t - 1);
	return 0;
}

int sim_pthread_detach(pthread_t t)
{
	sim_detach((int)t - 1);
	return 0;
}

pthread_t sim_pthread_self(void)
{
	return (pthread_t)(sim_turn() + 1);
}

int sim_pthread_sigmask(int how, const sigset_t *set, sigset_t *was)
{
	(void)how, (void)set, (void)was;
	return 0;
}

int sim_pthread_atfork(void (*before)(void), void (*parent)(void), void (*child)(void))
{
	(void)before, (void)parent;
	if (sim_turn() < 0) /* a constructor of the library's */
		in_child = child;
	return 0;
}

int sim_prctl(int what, ...)
{
	(void)what;
	return 0;
}
