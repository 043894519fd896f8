/* SPDX-License-Identifier: MIT */
/* Threads that are coroutines, and their turns. See sim.h. */
#include "sim.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unwind.h>

#define STACK      (64 * 1024)
#define MOST_STEPS 200000
#define MOST_TOLD  3000 /* of them, when explaining */
#define LOCALS     64

enum state { ABSENT, READY, ASLEEP, ENDED };

static struct fiber {
	ucontext_t context;
	char *stack;
	enum state state;
	const void *on;
	uint32_t bits;
	int64_t until;
	bool woken;
	int saved_errno;
	void *(*run)(void *arg);
	void *arg;
	bool daemon;   /* made by the library: it may sleep when all others have ended */
	bool detached; /* nobody will await it */
	char *top;     /* of the stack, where main_of_fiber has it */
	struct _Unwind_Exception unwinding;
	char locals[LOCALS];
} fibers[SIM_THREADS];

/* What the library has as _Thread_local, see storm.mk. Each thread's is copied here when it has its turn. */
extern char __start_simtls[] __attribute__((weak)), __stop_simtls[] __attribute__((weak));

static ucontext_t outside;
int sim_current = -1;
static bool concurrent; /* threads run, not begin or end */
static const struct sim_program *program;

static long steps;
static int64_t earlier_steps; /* those of the schedules before */
static bool failed;
static char *why; /* SIM_WHY bytes */

static void on_crash(int sig)
{
	if (sim_current < 0) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	sim_fail("crashes with signal %d", sig);
}

void sim_catch_crashes(void)
{
	static char stack[STACK];
	const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE };
	struct sigaction action = { .sa_handler = on_crash, .sa_flags = SA_ONSTACK };

	sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = sizeof stack }, NULL);
	for (int i = 0; i < 4; i++)
		sigaction(signals[i], &action, NULL);
}

/* ---- Turns ------------------------------------------------------------------------------------------------------- */

bool sim_running(void)
{
	return concurrent;
}

void sim_tell(const char *format, ...)
{
	va_list args;

	if (steps > MOST_TOLD)
		return;
	fprintf(stderr, "  %*s", 4 * (sim_current < 0 ? 0 : sim_current), "");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void sim_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (sim_current < 0) {
		vfprintf(stderr, format, args);
		abort();
	}
	vsnprintf(why, SIM_WHY, format, args);
	va_end(args);
	failed = true;
	setcontext(&outside);
	abort();
}

static size_t locals(void)
{
	return __start_simtls ? (size_t)(__stop_simtls - __start_simtls) : 0;
}

static void keep_locals(void)
{
	if (locals() > LOCALS)
		sim_fail("LOCALS is too small");
	if (locals())
		memcpy(fibers[sim_current].locals, __start_simtls, locals());
}

static void bring_locals(int next)
{
	if (locals())
		memcpy(__start_simtls, fibers[next].locals, locals());
}

static void switch_to(int next)
{
	int before = sim_current;

	if (next == before)
		return;
	fibers[before].saved_errno = errno;
	keep_locals();
	bring_locals(next);
	sim_current = next;
	swapcontext(&fibers[before].context, &fibers[next].context);
	errno = fibers[before].saved_errno;
}

/* Somebody who is ready, other than the current one; or -1. */
static int pick(bool rarely, bool may_stay)
{
	int ready[SIM_THREADS], n = may_stay ? 1 : 0;

	ready[0] = sim_current;
	for (int i = 0; i < SIM_THREADS; i++)
		if (i != sim_current && fibers[i].state == READY)
			ready[n++] = i;
	if (n == 0)
		return -1;
	return ready[sim_choose(n, rarely)];
}

void sim_step(void)
{
	if (sim_current >= 0 && ++steps > MOST_STEPS)
		sim_fail("no end: a thread goes round and round");
}

void sim_point(void)
{
	int next;

	sim_step();
	if (!concurrent)
		return;
	if (sim_chance(64))
		sim_fire_timers();
	next = sim_may_preempt() ? pick(true, true) : sim_current;
	if (next != sim_current) {
		sim_preempted();
		switch_to(next);
	}
}

/* When the first of those who sleep for a time will wake up. */
static int64_t next_waking(void)
{
	int64_t at = INT64_MAX;

	for (int i = 0; i < SIM_THREADS; i++)
		if (fibers[i].state == ASLEEP && fibers[i].until < at)
			at = fibers[i].until;
	return at;
}

/* Nobody is ready: what comes with time, or what came with it and is late. False: nothing does. */
static bool pass_time(bool may_move)
{
	int64_t at = sim_next_timer();

	if (at <= sim_clock) {
		sim_fire_timers();
		return true;
	}
	if (!may_move)
		return false;
	if (next_waking() < at)
		at = next_waking();
	if (at == INT64_MAX)
		return false;
	if (at > sim_clock)
		sim_clock = at;
	if (sim_explaining())
		sim_tell("the clock goes to %lld", (long long)sim_clock);
	sim_expire();
	return true;
}

/* Whether somebody sleeps who should not be left alone. */
static bool is_deadlock(void)
{
	for (int i = 0; i < SIM_THREADS; i++)
		if (fibers[i].state == ASLEEP && !fibers[i].daemon)
			return true;
	return false;
}

/* The current one cannot go on. Does not return when it has ended. */
static void leave(void)
{
	int next;

	for (;;) {
		next = fibers[sim_current].state == READY ? sim_current : pick(false, false);
		if (next >= 0)
			break;
		if (pass_time(is_deadlock()))
			continue;
		if (is_deadlock())
			sim_fail("deadlock: whoever is left sleeps for ever");
		/* The end of a phase; the library's own threads go on in the next. */
		keep_locals();
		swapcontext(&fibers[sim_current].context, &outside);
		return;
	}
	switch_to(next);
}

bool sim_sleep(const void *on, uint32_t bits, int64_t until)
{
	struct fiber *f = &fibers[sim_current];

	if (sim_explaining())
		sim_tell("sleeps");
	f->on = on;
	f->bits = bits;
	f->until = until;
	f->woken = false;
	f->state = ASLEEP;
	leave();
	return f->woken;
}

void sim_wake(const void *on, uint32_t bits)
{
	for (int i = 0; i < SIM_THREADS; i++) {
		struct fiber *f = &fibers[i];

		if (f->state == ASLEEP && f->on == on && f->bits & bits) {
			f->state = READY;
			f->woken = true;
		}
	}
}

void sim_expire(void)
{
	for (int i = 0; i < SIM_THREADS; i++)
		if (fibers[i].state == ASLEEP && fibers[i].until <= sim_clock)
			fibers[i].state = READY;
}

/* ---- One schedule ------------------------------------------------------------------------------------------------ */

static void end_fiber(struct fiber *f)
{
	sim_thread_ends();
	f->state = f->detached ? ABSENT : ENDED;
	sim_wake(f, 1);
	leave();
}

static void main_of_fiber(void)
{
	struct fiber *f = &fibers[sim_current];

	f->top = __builtin_frame_address(0);
	f->run(f->arg);
	end_fiber(f);
}

/* Called for each frame, whose cleanups have been run up to there. */
static _Unwind_Reason_Code at_frame(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
                                    struct _Unwind_Exception *e, struct _Unwind_Context *frame, void *fiber)
{
	struct fiber *f = fiber;

	(void)version, (void)class, (void)e;
	if (actions & _UA_END_OF_STACK || (char *)_Unwind_GetCFA(frame) > f->top)
		end_fiber(f);
	return _URC_NO_REASON;
}

void sim_end_thread(void)
{
	struct fiber *f = &fibers[sim_current];

	if (sim_explaining())
		sim_tell("ends its thread");
	memset(&f->unwinding, 0, sizeof f->unwinding);
	_Unwind_ForcedUnwind(&f->unwinding, at_frame, f);
	abort();
}

static void add_fiber(int i, void *(*run)(void *arg), void *arg)
{
	struct fiber *f = &fibers[i];

	if (!f->stack) {
		f->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (f->stack == MAP_FAILED)
			abort();
	}
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = f->stack;
	f->context.uc_stack.ss_size = STACK;
	f->context.uc_link = NULL;
	makecontext(&f->context, main_of_fiber, 0);
	f->state = READY;
	f->detached = false;
	f->run = run;
	f->arg = arg;
	f->daemon = i >= SIM_DAEMONS;
	memset(f->locals, 0, sizeof f->locals);
}

int sim_spawn(void *(*run)(void *arg), void *arg)
{
	for (int i = SIM_DAEMONS; i < SIM_THREADS; i++)
		if (fibers[i].state == ABSENT) {
			add_fiber(i, run, arg);
			sim_order_threads(i, sim_current);
			return i;
		}
	return -1;
}

void sim_await(int thread)
{
	while (fibers[thread].state != ENDED)
		sim_sleep(&fibers[thread], 1, INT64_MAX);
	fibers[thread].state = ABSENT;
	sim_order_threads(sim_current, thread);
}

void sim_detach(int thread)
{
	fibers[thread].detached = true;
	if (fibers[thread].state == ENDED)
		fibers[thread].state = ABSENT;
}

int sim_daemons(void)
{
	int n = 0;

	for (int i = SIM_DAEMONS; i < SIM_THREADS; i++)
		n += fibers[i].state != ABSENT;
	return n;
}

static void *begin(void *arg)
{
	program->begin(arg);
	return NULL;
}

static void *one_of_them(void *number)
{
	program->thread((int)(intptr_t)number, program->arg);
	return NULL;
}

static void *end(void *arg)
{
	program->end(arg);
	return NULL;
}

void sim_rest(void)
{
	for (int64_t at = sim_clock; at != INT64_MAX; at = next_waking()) {
		sim_sleep(&fibers, 1, at);
		/* Until now has passed: that is when nobody else is ready. */
		sim_sleep(&fibers, 1, sim_clock);
	}
}

/* Runs those that have been added until all have ended, or one has failed. */
static void run_fibers(int first)
{
	sim_current = first;
	bring_locals(first);
	swapcontext(&outside, &fibers[first].context);
}

/* Nothing is left, once the daemons have done what they had to do. */
static void *check_left(void *unused)
{
	sim_rest();
	sim_memory_check();
	sim_kernel_check();
	return unused;
}

static void play_phases(void)
{
	add_fiber(0, begin, program->arg);
	run_fibers(0);
	concurrent = !failed && program->threads > 0;
	if (concurrent) {
		for (int t = 1; t <= program->threads; t++) {
			add_fiber(t, one_of_them, (void *)(intptr_t)t);
			sim_order_threads(t, 0);
		}
		run_fibers(pick(false, false));
		for (int t = 1; t <= program->threads; t++)
			sim_order_threads(0, t);
	}
	concurrent = false;
	if (failed)
		return;
	add_fiber(0, end, program->arg);
	run_fibers(0);
	if (failed)
		return;
	add_fiber(0, check_left, NULL);
	run_fibers(0);
}

int64_t sim_steps(void)
{
	return earlier_steps + steps;
}

bool sim_play(const struct sim_program *p, char *reason)
{
	program = p;
	why = reason;
	earlier_steps += steps;
	steps = 0;
	failed = false;
	for (int i = 0; i < SIM_THREADS; i++)
		fibers[i].state = ABSENT;
	sim_memory_reset();
	sim_order_reset();
	sim_kernel_reset();
	sim_threads_reset();
	memset(__start_simtls, 0, locals());
	sim_forked();
	play_phases();
	sim_current = -1;
	sim_memory_reset();
	sim_kernel_reset();
	return !failed;
}
