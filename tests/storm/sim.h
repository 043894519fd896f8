/* SPDX-License-Identifier: MIT */
/*
 * A machine for the library to run on, in which we decide which thread takes the next step.
 *
 * Threads are coroutines of one real thread. The library is compiled with -fsanitize=thread, but that runtime's
 * functions are ours (sim_memory.c), so that each of its accesses to memory comes through here: at an atomic one, and
 * at each system call, another thread may be given the turn. The kernel is ours too (sim_kernel.c, by renaming the
 * symbols in the library's objects): memory that knows what is freed, fds, a clock that stands still until it is moved,
 * futexes.
 *
 * So a schedule is a list of choices: it can be drawn by lot, played again, and all of them can be gone through, up to
 * a number of preemptions. When nobody can go on the machine moves the clock to the next thing that is waited for, or
 * reports a deadlock. Loads may lag behind, as memory orders allow (sim_order.c). In some schedules memory, descriptors
 * and threads are scarce (sim_refuses).
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

/* ---- Exploring --------------------------------------------------------------------------------------------------- */

struct sim_program {
	int threads;
	void (*begin)(void *arg); /* before, alone */
	void (*thread)(int t, void *arg);
	void (*end)(void *arg); /* after, alone; then no memory and no fd may be left */
	void *arg;
};

#define SIM_WHY 512

struct sim_result {
	long schedules; /* how many were played */
	bool complete;  /* all there are, within the bound */
	bool failed;
	char why[SIM_WHY];
};

/* All schedules with at most so many preemptions, until it is enough. */
struct sim_result sim_all(const struct sim_program *p, int preemptions, bool (*enough)(void));

/*
 * So many by lot. Only these have what else is left to chance: late loads, what the kernel refuses, memory that is used
 * again.
 */
struct sim_result sim_random(const struct sim_program *p, uint64_t seed, long schedules);

/* How many steps all schedules together have had. */
int64_t sim_steps(void);

/* From here on a crash in a schedule is its failure. */
void sim_catch_crashes(void);

/* Plays the last schedule again and tells on stderr each step of it. */
void sim_explain(const struct sim_program *p);

/* ---- For the parts of the machine -------------------------------------------------------------------------------- */

/* The claim that is broken ends this schedule. Does not return, unless no schedule is being played. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Plays one schedule. False: it failed, and why says how. */
bool sim_play(const struct sim_program *p, char *why);

/*
 * sim_explore.c: one of n; rarely another than the first. And whether a thread may lose its turn although it could go
 * on.
 */
int sim_choose(int n, bool rarely);
bool sim_may_preempt(void);
void sim_preempted(void);

/* Whether the threads of a schedule are being played (not begin or end). */
bool sim_running(void);

/* Somebody else may have the turn; or only counts the step, since one that takes them without end is a failure. */
void sim_point(void);
void sim_step(void);

#define SIM_DAEMONS 5 /* from here on they are the library's */

/* Which thread has the turn, 0 in begin and end; -1 when no schedule is being played. */
extern int sim_current;
static inline int sim_turn(void)
{
	return sim_current;
}

/* Gives up the turn until sim_wake says so, or the clock has come to `until`. False: it is the clock. */
bool sim_sleep(const void *on, uint32_t bits, int64_t until);
void sim_wake(const void *on, uint32_t bits);
void sim_expire(void); /* wakes those whose time has come */

/* What a thread has set by pthread_setspecific goes with it. */
void sim_thread_ends(void);

/* For the library's own threads, which may be asleep at the end. */
int sim_spawn(void *(*run)(void *arg), void *arg);
void sim_await(int thread);
void sim_detach(int thread);
int sim_daemons(void);                               /* how many of them there are */
void sim_end_thread(void) __attribute__((noreturn)); /* as pthread_exit: unwinds its stack */

/* Until all others sleep, and for ever. */
void sim_rest(void);

/* Chance that does not disturb the schedule: n to one against. Never, when all schedules are gone through. */
bool sim_chance(int n);

/*
 * Whether the library does not get the memory, the descriptor or the thread that it asks for: in some schedules, by
 * lot. Who refuses it something, for this or another reason, says so; and how often that was.
 */
bool sim_refuses(void);
void sim_refused(const char *what);
int sim_refusals(void);

/* Tells of a step, when explaining. */
bool sim_explaining(void);
void sim_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* sim_order.c */
#define SIM_THREADS 8

/* What somebody has seen of each thread's life. */
struct sim_view {
	uint32_t of[SIM_THREADS];
};

void sim_order_reset(void);
void sim_order_threads(int t, int from);
void sim_acquire(const struct sim_view *v);
void sim_release(struct sim_view *v);
uint64_t sim_load(const void *at, uint64_t value, int order, bool may_lag);
void sim_store(const void *at, uint64_t old, uint64_t value, int order, bool change);

/* A point in somebody's life. */
struct sim_time {
	uint32_t time;
	uint8_t thread;
};

struct sim_time sim_time(void);
bool sim_has_seen(struct sim_time it); /* it happens before now */

/* Who has been at a byte, and when. */
struct sim_cell {
	uint32_t touched[SIM_THREADS], written;
	uint8_t writer, who; /* who: a bit for each that touched it */
};

enum sim_access { SIM_READ, SIM_ATOMIC, SIM_WRITE, SIM_FREE };
void sim_order_access(struct sim_cell *c, enum sim_access what);

/* sim_memory.c */
uint32_t sim_life(const void *at); /* another one after it was freed and given out again */
void sim_memory_reset(void);
void sim_memory_check(void); /* at the end: nothing left, nothing written to after it was freed */
void sim_check_access(const void *at, size_t size, const char *what);

/* sim_kernel.c */
extern int64_t sim_clock;
void sim_kernel_reset(void);
void sim_kernel_check(void);
void sim_clock_to(int64_t at); /* a thread's step: the time has come */
int64_t sim_next_timer(void);
void sim_fire_timers(void);
bool sim_shows(int fd);
int sim_eventfd(unsigned count, int flags);
ssize_t sim_write(int fd, const void *buf, size_t size);
int sim_close(int fd);
int sim_epoll_create1(int flags);
int sim_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int sim_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);

/* sim_threads.c */
void sim_threads_reset(void);
void sim_forked(void); /* to the library this is a child of a fork; whatever it has is its own */

#endif
