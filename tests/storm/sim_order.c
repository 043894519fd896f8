/* SPDX-License-Identifier: MIT */
/*
 * Memory order on the simulated machine: who is sure to see what.
 *
 * Each thread has a clock of clocks: how far in each other thread's life it has seen. A store is stamped with its
 * thread's time, and a releasing one carries that thread's clock, which who acquires it takes over. So of two accesses
 * we know whether one happens before the other, as C has it, and
 *
 *   - plain accesses of which neither does are a race, as is freeing what another thread may still be at;
 *   - an atomic load may, by lot, get an older value than the newest, as weak machines do it, unless it happens after
 *     the newer store, or after somebody has read that. Changes and seq_cst loads get the newest.
 *
 * System calls on a descriptor, mutexes, and threads' beginnings and ends order, too. The clock on the wall does not.
 */
#include "sim.h"

#include <string.h>

#define PLACES  8192 /* a power of two */
#define HISTORY 4

struct store {
	uint64_t value;
	struct sim_view carries;
	struct sim_view read; /* when each thread has first read it; 0: never */
	uint32_t time;
	uint8_t thread;
};

/* Where an atomic is. */
static struct place {
	const void *at; /* NULL: free */
	uint32_t life;  /* of the memory there, see sim_life */
	uint32_t made;  /* stores there have been; the last HISTORY are kept */
	struct store stores[HISTORY];
} places[PLACES];

static uint16_t taken[PLACES];
static int count;
static struct sim_view seen[SIM_THREADS];

void sim_order_reset(void)
{
	for (int i = 0; i < count; i++)
		places[taken[i]].at = NULL;
	count = 0;
	memset(seen, 0, sizeof seen);
	for (int t = 0; t < SIM_THREADS; t++)
		seen[t].of[t] = 1;
}

static void join(struct sim_view *to, const struct sim_view *from)
{
	for (int t = 0; t < SIM_THREADS; t++)
		if (from->of[t] > to->of[t])
			to->of[t] = from->of[t];
}

void sim_acquire(const struct sim_view *v)
{
	if (sim_turn() >= 0)
		join(&seen[sim_turn()], v);
}

void sim_release(struct sim_view *v)
{
	int t = sim_turn();

	if (t < 0)
		return;
	join(v, &seen[t]);
	seen[t].of[t]++;
}

/* Thread t begins after all that `from` has done; or from has waited for t. */
void sim_order_threads(int t, int from)
{
	join(&seen[t], &seen[from]);
	seen[from].of[from]++;
}

static inline bool has_seen(int t, int other, uint32_t time)
{
	return seen[t].of[other] >= time;
}

struct sim_time sim_time(void)
{
	int t = sim_turn();

	return t < 0 ? (struct sim_time){ 0, 0 } : (struct sim_time){ seen[t].of[t], (uint8_t)t };
}

bool sim_has_seen(struct sim_time it)
{
	return sim_turn() < 0 || has_seen(sim_turn(), it.thread, it.time);
}

/* ---- Atomics ----------------------------------------------------------------------------------------------------- */

static struct place *find(const void *at, uint64_t value)
{
	uint32_t i = (uint32_t)((uintptr_t)at >> 2) * UINT32_C(2654435761), life = sim_life(at);
	struct place *p = &places[i & (PLACES - 1)];

	while (p->at && p->at != at)
		p = &places[++i & (PLACES - 1)];
	if (p->at && p->life == life)
		return p;
	if (!p->at) {
		if (count == PLACES / 2)
			sim_fail("too many atomics");
		taken[count++] = (uint16_t)(p - places);
	}
	p->at = at;
	p->life = life;
	p->made = 1;
	/* What is there when it is first used is known to all who can know the place. */
	p->stores[0] = (struct store){ .value = value };
	return p;
}

static bool acquires(int order)
{
	return order != __ATOMIC_RELAXED && order != __ATOMIC_RELEASE;
}

static bool releases(int order)
{
	return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

/* Whether t must not read anything older: it happens after this store, or after a reading of it. */
static bool is_known(int t, const struct store *s)
{
	if (has_seen(t, s->thread, s->time))
		return true;
	for (int i = 0; i < SIM_THREADS; i++)
		if (s->read.of[i] && has_seen(t, i, s->read.of[i]))
			return true;
	return false;
}

/* Which store this thread reads: the newest, or by lot one that it may take for it. */
static struct store *choose_store(struct place *p, int t)
{
	uint32_t newest = p->made - 1, oldest = newest;

	while (oldest > 0 && oldest + HISTORY > p->made && !is_known(t, &p->stores[oldest % HISTORY]))
		oldest--;
	while (oldest < newest && !sim_chance(3))
		oldest++;
	return &p->stores[oldest % HISTORY];
}

/* value: the newest, which is what it must be if not `may_lag`. */
uint64_t sim_load(const void *at, uint64_t value, int order, bool may_lag)
{
	int t = sim_turn();
	struct store *s;
	struct place *p;

	if (t < 0)
		return value;
	p = find(at, value);
	s = may_lag && order != __ATOMIC_SEQ_CST ? choose_store(p, t) : &p->stores[(p->made - 1) % HISTORY];
	if (!s->read.of[t])
		s->read.of[t] = seen[t].of[t];
	if (acquires(order))
		join(&seen[t], &s->carries);
	return s->value;
}

/* change: not a store by itself, but a change of the newest; then it passes on what that carries, too. */
void sim_store(const void *at, uint64_t old, uint64_t value, int order, bool change)
{
	int t = sim_turn();
	struct sim_view carries = { { 0 } };
	const struct store *last;
	struct place *p;

	if (t < 0)
		return;
	p = find(at, old);
	last = &p->stores[(p->made - 1) % HISTORY];
	if (change) {
		carries = last->carries;
		if (acquires(order))
			join(&seen[t], &carries);
	}
	if (releases(order))
		join(&carries, &seen[t]);
	p->stores[p->made++ % HISTORY] =
	        (struct store){ .value = value, .carries = carries, .time = seen[t].of[t]++, .thread = (uint8_t)t };
}

/* ---- Plain accesses ---------------------------------------------------------------------------------------------- */

/* A byte at a time. A race is told once it has happened; that what came first is over does not make it right. */
void sim_order_access(struct sim_cell *c, enum sim_access what)
{
	int t = sim_turn();
	uint8_t me = (uint8_t)(1u << t);

	if (c->writer != t && !has_seen(t, c->writer, c->written))
		sim_fail("a race: thread %d has not seen what thread %d wrote", t, c->writer);
	for (int i = 0; c->who & ~me && what >= SIM_WRITE && i < SIM_THREADS; i++)
		if (!has_seen(t, i, c->touched[i]))
			sim_fail("a race: thread %d %s what thread %d may be at", t,
			         what == SIM_FREE ? "frees" : "writes to", i);
	if (what == SIM_WRITE) {
		c->writer = (uint8_t)t;
		c->written = seen[t].of[t];
	} else {
		c->who |= me;
		c->touched[t] = seen[t].of[t];
	}
}
