/* SPDX-License-Identifier: MIT */
/*
 * The memory of the simulated machine: a heap that knows what is freed, the library's own variables, and, for a library
 * compiled with -fsanitize=thread, what that has to call at every access. Each is checked against the heap and for
 * races; atomic ones are where turns change.
 */
#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARENA  (1 << 20)
#define GRAIN  16
#define BLOCKS 32768
#define FREED  0xdd
#define FRESH  0xbe

static _Alignas(GRAIN) unsigned char arena[ARENA];
static uint16_t owner[ARENA / GRAIN]; /* the block that a grain is part of, plus 1 */
static struct block {
	uint32_t at, size, life;
	bool freed;
} blocks[BLOCKS];
static int count;
static uint32_t lives;
static size_t used;
static struct sim_cell cells[ARENA]; /* for each byte */

/*
 * The library's own variables, which storm.mk has put into sections of their own: each schedule begins with them fresh.
 */
extern char __start_simdata[], __stop_simdata[], __start_simbss[], __stop_simbss[];
static struct section {
	char *from, *to, *fresh;
	struct sim_cell *cells;
} sections[] = { { __start_simdata, __stop_simdata, NULL, NULL }, { __start_simbss, __stop_simbss, NULL, NULL } };

/* The last atomic load of each thread. The same again, and again, is spinning, and no choice for anyone. */
static struct {
	const void *at;
	uint64_t value;
	int times;
} loaded[8];

static bool in_arena(const void *p)
{
	return (uintptr_t)p >= (uintptr_t)arena && (uintptr_t)p < (uintptr_t)arena + ARENA;
}

static struct block *block_at(const void *p)
{
	size_t grain = ((uintptr_t)p - (uintptr_t)arena) / GRAIN;

	return owner[grain] ? &blocks[owner[grain] - 1] : NULL;
}

/* NULL: it is not the library's. */
static inline struct sim_cell *cell_of(const void *at)
{
	if (in_arena(at))
		return &cells[(uintptr_t)at - (uintptr_t)arena];
	for (int i = 0; i < 2; i++)
		if ((const char *)at >= sections[i].from && (const char *)at < sections[i].to)
			return &sections[i].cells[(const char *)at - sections[i].from];
	return NULL;
}

static inline void note_access(struct sim_cell *c, size_t size, enum sim_access what)
{
	/* Nobody gets at a part of a number. */
	size_t step = size % 4 == 0 && what != SIM_FREE ? 4 : 1;

	for (size_t i = 0; i < size && sim_turn() >= 0; i += step)
		sim_order_access(c + i, what);
}

/* ---- The heap ---------------------------------------------------------------------------------------------------- */

void *sim_malloc(size_t size);
void sim_free(void *p);

static void check_freed(const struct block *b)
{
	for (uint32_t i = 0; i < b->size; i++)
		if (arena[b->at + i] != FREED)
			sim_fail("block %d is written to after it was freed", (int)(b - blocks) + 1);
}

/* By lot what was freed is given out again, as a real heap does. Else never, and who still has it is caught. */
static struct block *reuse(size_t size)
{
	for (int i = count - 1; i >= 0 && sim_chance(2); i--)
		if (blocks[i].freed && blocks[i].size == size) {
			check_freed(&blocks[i]);
			return &blocks[i];
		}
	return NULL;
}

uint32_t sim_life(const void *at)
{
	return in_arena(at) ? block_at(at)->life : 0;
}

static void *give_out(struct block *b)
{
	b->freed = false;
	b->life = ++lives;
	memset(&cells[b->at], 0, b->size * sizeof *cells);
	memset(arena + b->at, FRESH, b->size);
	if (sim_explaining())
		sim_tell("malloc: block %d", (int)(b - blocks) + 1);
	return arena + b->at;
}

void *sim_malloc(size_t size)
{
	size_t grains = (size + GRAIN - 1) / GRAIN;
	struct block *b;

	if (sim_turn() < 0) /* the library's own, outside of any schedule */
		return malloc(size);
	if (sim_refuses() || count == BLOCKS || used + grains * GRAIN > ARENA) {
		sim_refused("memory");
		errno = ENOMEM;
		return NULL;
	}
	b = reuse(size);
	if (b)
		return give_out(b);
	b = &blocks[count];
	*b = (struct block){ .at = (uint32_t)used, .size = (uint32_t)size };
	count++;
	for (size_t i = 0; i < grains; i++)
		owner[used / GRAIN + i] = (uint16_t)count;
	used += grains * GRAIN;
	return give_out(b);
}

void sim_free(void *p)
{
	struct block *b;

	if (!p || !in_arena(p)) {
		free(p);
		return;
	}
	b = block_at(p);
	if (sim_explaining())
		sim_tell("free: block %d", (int)(b - blocks) + 1);
	if (!b || b->freed || (unsigned char *)p != arena + b->at)
		sim_fail("block %d is freed twice", (int)(b - blocks) + 1);
	note_access(cell_of(p), b->size, SIM_FREE);
	b->freed = true;
	memset(p, FREED, b->size);
}

static void restore(struct section *s)
{
	size_t size = (size_t)(s->to - s->from);

	if (!s->fresh) {
		s->fresh = malloc(size);
		s->cells = malloc(size * sizeof *s->cells);
		memcpy(s->fresh, s->from, size);
	}
	memcpy(s->from, s->fresh, size);
	memset(s->cells, 0, size * sizeof *s->cells);
}

void sim_memory_reset(void)
{
	restore(&sections[0]);
	restore(&sections[1]);
	memset(owner, 0, used / GRAIN * sizeof *owner);
	memset(loaded, 0, sizeof loaded);
	count = 0;
	used = 0;
}

void sim_memory_check(void)
{
	for (int i = 0; i < count; i++) {
		if (!blocks[i].freed)
			sim_fail("block %d (%u bytes) is not freed", i + 1, blocks[i].size);
		check_freed(&blocks[i]);
	}
}

void sim_check_access(const void *at, size_t size, const char *what)
{
	const struct block *b;

	if (!in_arena(at))
		return;
	b = block_at(at);
	if (!b)
		sim_fail("%s of no block", what);
	if (b->freed)
		sim_fail("%s of block %d + %d, which is freed", what, (int)(b - blocks) + 1,
		         (int)((uintptr_t)at - (uintptr_t)arena - b->at));
	if ((uintptr_t)at + size > (uintptr_t)arena + b->at + b->size)
		sim_fail("%s beyond block %d", what, (int)(b - blocks) + 1);
}

/* ---- What the instrumented library calls ------------------------------------------------------------------------- */

static void tell_word(const char *what, const void *at, uint64_t old, uint64_t new)
{
	static const char *const flags[] = { "PENDING", "DONE",  "EXPIRED", "TIMED",        "HAS_FD",   "UNSIGNALLED",
		                             "WAITERS", "LOCK",  "HELD",    "WALK_WAITERS", "CHILDREN", "ORPHAN",
		                             "VALUE",   "NEVER", "MERGE",   "LINK",         "HOOK",     "LISTED",
		                             "SHARDED", "SHARD", "NEAR",    "ALARMED",      "LIBRARY",  "DISCARD" };
	char names[300] = "";
	const struct block *b = in_arena(at) ? block_at(at) : NULL;

	for (size_t i = 0; b && i < sizeof flags / sizeof *flags; i++)
		if (new >> i & 1)
			strcat(strcat(names, " "), flags[i]);
	sim_tell("%s block %d + %d: %llx -> %llx%s", what, b ? (int)(b - blocks) + 1 : 0,
	         b ? (int)((uintptr_t)at - (uintptr_t)arena - b->at) : 0, (unsigned long long)old,
	         (unsigned long long)new, b && (uintptr_t)at == (uintptr_t)arena + b->at ? names : "");
}

static inline void tell(const char *what, const void *at, uint64_t old, uint64_t new)
{
	if (sim_explaining() && sim_running())
		tell_word(what, at, old, new);
}

static void before_load(const void *at, size_t size, uint64_t value, int order)
{
	struct sim_cell *c = cell_of(at);
	int t = sim_turn();

	if (t < 0 || !c)
		return;
	sim_check_access(at, size, "an atomic load");
	note_access(c, size, SIM_ATOMIC);
	/* A relaxed load orders nothing: what is read is fixed, or looked at again by who changes it. */
	if (order == __ATOMIC_RELAXED)
		return;
	loaded[t].times = loaded[t].at == at && loaded[t].value == value ? loaded[t].times + 1 : 0;
	loaded[t].at = at;
	loaded[t].value = value;
	if (loaded[t].times < 3)
		sim_point();
	else
		sim_step();
	sim_check_access(at, size, "an atomic load");
}

/* The storm's own variables are known for the order that they make; they are no place to change turns. */
static void before_change(const void *at, size_t size)
{
	struct sim_cell *c = cell_of(at);

	if (sim_turn() < 0 || !c)
		return;
	loaded[sim_turn()].at = NULL;
	sim_check_access(at, size, "an atomic change");
	sim_point();
	sim_check_access(at, size, "an atomic change");
	note_access(c, size, SIM_ATOMIC);
}

/* By lot others may have the turn before a plain access, too: what a lock should have guarded shows. */
static void plain_access(const void *at, size_t size, const char *what, enum sim_access how)
{
	struct sim_cell *c = cell_of(at);

	if (!c)
		return;
	sim_check_access(at, size, what);
	if (sim_chance(8)) {
		sim_point();
		sim_check_access(at, size, what);
	}
	note_access(c, size, how);
}

/* Memory that nothing has been stored in yet: nobody else can know it. */
static bool is_fresh(const void *at, uint64_t value, size_t size)
{
	sim_check_access(at, size, "an atomic store");
	return in_arena(at) && value == UINT64_C(0xbebebebebebebebe) >> (64 - 8 * size);
}

#define ACCESS(name, size, how)                     \
	void __tsan_##name(void *at);               \
	void __tsan_##name(void *at)                \
	{                                           \
		plain_access(at, size, #name, how); \
	}
#define RANGE(name, how)                            \
	void __tsan_##name(void *at, size_t size);  \
	void __tsan_##name(void *at, size_t size)   \
	{                                           \
		plain_access(at, size, #name, how); \
	}
#define NOTHING(name, ...)               \
	void __tsan_##name(__VA_ARGS__); \
	void __tsan_##name(__VA_ARGS__)  \
	{                                \
	}

ACCESS(read1, 1, SIM_READ)
ACCESS(read2, 2, SIM_READ)
ACCESS(read4, 4, SIM_READ)
ACCESS(read8, 8, SIM_READ)
ACCESS(read16, 16, SIM_READ)
ACCESS(write1, 1, SIM_WRITE)
ACCESS(write2, 2, SIM_WRITE)
ACCESS(write4, 4, SIM_WRITE)
ACCESS(write8, 8, SIM_WRITE)
ACCESS(write16, 16, SIM_WRITE)
ACCESS(unaligned_read2, 2, SIM_READ)
ACCESS(unaligned_read4, 4, SIM_READ)
ACCESS(unaligned_read8, 8, SIM_READ)
ACCESS(unaligned_read16, 16, SIM_READ)
ACCESS(unaligned_write2, 2, SIM_WRITE)
ACCESS(unaligned_write4, 4, SIM_WRITE)
ACCESS(unaligned_write8, 8, SIM_WRITE)
ACCESS(unaligned_write16, 16, SIM_WRITE)
RANGE(read_range, SIM_READ)
RANGE(write_range, SIM_WRITE)
NOTHING(init, void)
NOTHING(func_exit, void)

/* What newer clangs make of memset and its kin. */
void *__tsan_memset(void *at, int c, size_t size);
void *__tsan_memcpy(void *to, const void *from, size_t size);
void *__tsan_memmove(void *to, const void *from, size_t size);

void *__tsan_memset(void *at, int c, size_t size)
{
	plain_access(at, size, "memset", SIM_WRITE);
	return memset(at, c, size);
}

void *__tsan_memmove(void *to, const void *from, size_t size)
{
	plain_access(from, size, "memcpy", SIM_READ);
	plain_access(to, size, "memcpy", SIM_WRITE);
	return memmove(to, from, size);
}

void *__tsan_memcpy(void *to, const void *from, size_t size)
{
	return __tsan_memmove(to, from, size);
}

void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc)
{
	(void)pc;
}

#define CHANGE(bits, name, op)                                                                        \
	uint##bits##_t __tsan_atomic##bits##_##name(uint##bits##_t *at, uint##bits##_t v, int order); \
	uint##bits##_t __tsan_atomic##bits##_##name(uint##bits##_t *at, uint##bits##_t v, int order)  \
	{                                                                                             \
		uint##bits##_t old;                                                                   \
		before_change(at, bits / 8);                                                          \
		old = *at;                                                                            \
		*at = (uint##bits##_t)(op);                                                           \
		sim_store(at, old, *at, order, true);                                                 \
		tell(#name, at, old, *at);                                                            \
		return old;                                                                           \
	}

/* By lot what it compares with is an older value, as if it were a load. weak: by lot it fails for no reason. */
#define COMPARE(bits, name, weak)                                                                                    \
	int __tsan_atomic##bits##_compare_exchange_##name(uint##bits##_t *at, uint##bits##_t *was, uint##bits##_t v, \
	                                                  int order, int otherwise);                                 \
	int __tsan_atomic##bits##_compare_exchange_##name(uint##bits##_t *at, uint##bits##_t *was, uint##bits##_t v, \
	                                                  int order, int otherwise)                                  \
	{                                                                                                            \
		uint##bits##_t found = *was;                                                                         \
		before_change(at, bits / 8);                                                                         \
		if (sim_chance(8))                                                                                   \
			found = (uint##bits##_t)sim_load(at, *at, otherwise, true);                                  \
		if (found == *was && *at == *was && !(weak && sim_chance(16))) {                                     \
			sim_store(at, *at, v, order, true);                                                          \
			tell("swap", at, *was, v);                                                                   \
			*at = v;                                                                                     \
			return 1;                                                                                    \
		}                                                                                                    \
		if (found == *was)                                                                                   \
			found = (uint##bits##_t)sim_load(at, *at, otherwise, false);                                 \
		tell(found == *at ? "failed swap" : "late failed swap", at, *was, found);                            \
		*was = found;                                                                                        \
		return 0;                                                                                            \
	}

#define ATOMIC(bits)                                                                                           \
	uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *at, int order);                        \
	uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *at, int order)                         \
	{                                                                                                      \
		uint##bits##_t value;                                                                          \
		before_load(at, bits / 8, *at, order);                                                         \
		value = (uint##bits##_t)sim_load(at, *at, order, true);                                        \
		if (order != __ATOMIC_RELAXED)                                                                 \
			tell(value == *at ? "load" : "late load", at, *at, value);                             \
		return value;                                                                                  \
	}                                                                                                      \
	void __tsan_atomic##bits##_store(uint##bits##_t *at, uint##bits##_t v, int order);                     \
	void __tsan_atomic##bits##_store(uint##bits##_t *at, uint##bits##_t v, int order)                      \
	{                                                                                                      \
		if (!is_fresh(at, *at, bits / 8))                                                              \
			before_change(at, bits / 8);                                                           \
		sim_store(at, *at, v, order, false);                                                           \
		if (order != __ATOMIC_RELAXED)                                                                 \
			tell("store", at, *at, v);                                                             \
		*at = v;                                                                                       \
	}                                                                                                      \
	uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(uint##bits##_t *at, uint##bits##_t was,      \
	                                                          uint##bits##_t v, int order, int otherwise); \
	CHANGE(bits, exchange, v)                                                                              \
	CHANGE(bits, fetch_add, old + v)                                                                       \
	CHANGE(bits, fetch_sub, old - v)                                                                       \
	CHANGE(bits, fetch_and, old &v)                                                                        \
	CHANGE(bits, fetch_or, old | v)                                                                        \
	CHANGE(bits, fetch_xor, old ^ v)                                                                       \
	COMPARE(bits, strong, false)                                                                           \
	COMPARE(bits, weak, true)                                                                              \
	uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(uint##bits##_t *at, uint##bits##_t was,      \
	                                                          uint##bits##_t v, int order, int otherwise)  \
	{                                                                                                      \
		__tsan_atomic##bits##_compare_exchange_strong(at, &was, v, order, otherwise);                  \
		return was;                                                                                    \
	}

ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)
