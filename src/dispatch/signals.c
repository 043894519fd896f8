/* SPDX-License-Identifier: MIT */
/*
 * What ends contexts by a signal; with.c makes them.
 *
 * HOW A SIGNAL IS HEARD. While contexts listen for a signal it has our handler. The handler goes through the list of
 * listeners, notes the signal in each live one that wants it, and wakes their dispatchers, which cancel them. If no
 * live one wants it, the handler does what the disposition before would have done. So no mask is needed, nobody's
 * signal is lost, and a second Ctrl-C ends the program as soon as the context is done, even if nobody has run a
 * dispatcher or freed the context since. A signal that every thread has blocked never comes to a handler: for these
 * there is a signalfd in the dispatchers' epoll sets. It reports every signal, handled or blocked. If one is still
 * there some milliseconds later (SIGNALS_DELAY), no handler comes to it, and the thread that then reads it does what
 * the handler does.
 *
 * A listener listens until it is cancelled or freed, or is found to have ended otherwise. The last one to leave gives
 * the signal its disposition back, unless the program has changed it meanwhile.
 *
 * LEVELS. A program may set a handler over ours, and call from it the one that it found. When the next listener comes,
 * ours goes over that one again, and then it must know which of the two calls it. So there are several: each is set
 * over one handler of the program only, and does what that one would have done.
 *
 * THE LOCK guards the list, `signals` and the signalfd. It comes after a dispatcher's lock. Handlers take no lock: they
 * read what is atomic. `handlers` counts those at work. A listener that has left the list is freed only after all
 * handlers that may have seen it there have left (ctxfdi_await_handlers).
 */
#include "dispatch/signals.h"

#include <sched.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/thread.h"
#include "core/thread_cancel.h"

static pthread_mutex_t lock_of_signals = PTHREAD_MUTEX_INITIALIZER;
static struct listener *_Atomic listeners;
static _Atomic unsigned handlers;

#define LEVELS 4

struct level {
	bool used;               /* as long as the program may have a handler that calls ours */
	struct sigaction before; /* the disposition that this level is set over */
	void (*_Atomic fallback)(int sig, siginfo_t *info, void *context); /* its handler, for ours to call */
	_Atomic bool once; /* it has SA_RESETHAND: after one call `fallback` is the default */
};

static struct {
	unsigned listeners; /* that want this signal */
	struct level levels[LEVELS];
} signals[NSIG];
static int signals_fd = -1;
char ctxfdi_signals_event;

static struct listener *listener_of(struct source *s)
{
	return container_of(s, struct listener, source);
}

/* ---- In a signal handler ----------------------------------------------------------------------------------------- */

/* Looks, and changes nothing: a handler may interrupt whoever is changing it. */
static bool is_live(struct ctxfd *n)
{
	uint64_t w = load_word(n);

	return !(w & CTX_DONE) && !(w & CTX_TIMED && n->deadline <= ctxfd_now());
}

/* Notes sig where it is wanted. False: nobody wants it. */
static bool note(int sig)
{
	bool wanted = false;
	uint64_t one = 1;

	for (struct listener *l = atomic_load(&listeners); l; l = atomic_load(&l->next)) {
		struct ctxfd_dispatcher *d = l->source.dispatcher;
		int none = 0, wake;

		if (!(l->set & signal_bit(sig)) || !is_live(&l->source.ctx))
			continue;
		wanted = true;
		atomic_compare_exchange_strong_explicit(&l->source.cause, &none, sig, memory_order_relaxed,
		                                        memory_order_relaxed);
		/* Release pairs with the acquire in collect (round.c). */
		atomic_store_explicit(&d->signalled, true, memory_order_release);
		/* Sequentially consistent: see ctxfdi_dispatcher_close_fds. */
		wake = atomic_load(&d->wake);
		if (wake >= 0)
			syscall(SYS_write, wake, &one, sizeof one);
	}
	return wanted;
}

static const int faults[] = { FAULT_SIGNALS };

/* A fault asks for no end of a context; and a thread that came back from the handler would make it again. */
static bool is_fault(int sig, const siginfo_t *info)
{
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		if (faults[i] == sig)
			return info->si_code > 0;
	return false;
}

static void act_by_default(int sig)
{
	struct sigaction none = { .sa_handler = SIG_DFL };

	if (sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU) {
		raise(SIGSTOP); /* and our handler stays */
	} else if (sig != SIGCHLD && sig != SIGURG && sig != SIGWINCH && sig != SIGCONT) {
		sigaction(sig, &none, NULL);
		raise(sig); /* it is delivered when we return */
	}
}

/*
 * Does what the disposition before would have done. A handler of the older kind, which takes only a number, may be
 * given the other arguments as well.
 */
static void act_as_before(struct level *l, int sig, siginfo_t *info, void *context)
{
	struct sigaction before = { .sa_handler = SIG_DFL };

	if (atomic_load(&l->once))
		before.sa_sigaction = atomic_exchange(&l->fallback, before.sa_sigaction);
	else
		before.sa_sigaction = atomic_load(&l->fallback);
	if (before.sa_handler == SIG_DFL)
		act_by_default(sig);
	else if (before.sa_handler != SIG_IGN)
		before.sa_sigaction(sig, info, context);
}

static void on_signal(int level, int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	bool wanted;

	/*
	 * Sequentially consistent, as are the list's changes and the look in ctxfdi_await_handlers: one sees the other.
	 */
	atomic_fetch_add(&handlers, 1);
	wanted = !is_fault(sig, info) && note(sig);
	atomic_fetch_sub(&handlers, 1);
	if (!wanted)
		act_as_before(&signals[sig].levels[level], sig, info, context);
	errno = saved;
}

#define HANDLER(level)                                                         \
	static void on_signal_##level(int sig, siginfo_t *info, void *context) \
	{                                                                      \
		on_signal(level, sig, info, context);                          \
	}
HANDLER(0)
HANDLER(1)
HANDLER(2)
HANDLER(3)

static void (*const handler_of_level[LEVELS])(int, siginfo_t *, void *) = {
	on_signal_0,
	on_signal_1,
	on_signal_2,
	on_signal_3,
};

/* ---- Listening, under the lock ----------------------------------------------------------------------------------- */

/* A handler takes microseconds, unless its thread does not get the CPU. */
void ctxfdi_await_handlers(void)
{
	static const struct timespec brief = { 0, 50 * CTXFD_USEC };

	for (int i = 0; atomic_load(&handlers); i++)
		if (i < 100)
			sched_yield();
		else
			nanosleep(&brief, NULL);
}

/* The level that a signal with this disposition is at, or -1: it is not ours. */
static int level_of(const struct sigaction *a)
{
	int level = a->sa_flags & SA_SIGINFO ? LEVELS - 1 : -1;

	while (level >= 0 && a->sa_sigaction != handler_of_level[level])
		level--;
	return level;
}

static void free_levels(int sig, int from)
{
	for (int level = from; level < LEVELS; level++)
		signals[sig].levels[level].used = false;
}

/*
 * The level to be set over this disposition. LEVELS: there is none left. A program that has gone back to the default
 * has no handler that calls ours.
 */
static int level_over(int sig, const struct sigaction *a)
{
	const struct level *levels = signals[sig].levels;
	int level = 0;

	if (a->sa_handler == SIG_DFL)
		free_levels(sig, 0);
	while (level < LEVELS && levels[level].used && levels[level].before.sa_sigaction != a->sa_sigaction)
		level++;
	return level;
}

static bool is_for_once(const struct sigaction *a)
{
	return (unsigned)a->sa_flags & (unsigned)SA_RESETHAND;
}

static bool is_ignored(const struct sigaction *a)
{
	return !(a->sa_flags & SA_SIGINFO) && a->sa_handler == SIG_IGN;
}

/* Gives sig our handler, unless it has it, or cannot have one. False: the program has set too many over it. */
static bool take(int sig)
{
	struct sigaction ours = { .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK }, now;
	struct level *l;
	int level;

	if (sigaction(sig, NULL, &now) != 0 || level_of(&now) >= 0)
		return true;
	level = level_over(sig, &now);
	if (level == LEVELS)
		return false;
	l = &signals[sig].levels[level];
	l->used = true;
	l->before = now;
	atomic_store(&l->once, is_for_once(&now));
	atomic_store(&l->fallback, now.sa_sigaction);
	ours.sa_sigaction = handler_of_level[level];
	/* These tell the kernel what becomes of children, whatever the handler. */
	ours.sa_flags |= now.sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
	if (sig == SIGCHLD && is_ignored(&now))
		ours.sa_flags |= SA_NOCLDWAIT;
	/*
	 * Also libc's own, which sigfillset leaves out: a thread that is cancelled in the handler would never leave it.
	 */
	memset(&ours.sa_mask, 0xff, sizeof ours.sa_mask);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&ours.sa_mask, faults[i]);
	sigaction(sig, &ours, NULL);
	return true;
}

/* The level that sig is at, or -1. */
static int level_now(int sig)
{
	struct sigaction now;

	return sigaction(sig, NULL, &now) == 0 ? level_of(&now) : -1;
}

/*
 * Puts the disposition back that our handler was set over, unless sig does not have our handler. No handler that the
 * program has set over this level or a later one is left then.
 */
static void give_back(int sig)
{
	struct sigaction none = { .sa_handler = SIG_DFL };
	int level = level_now(sig);
	const struct level *l;

	if (level < 0)
		return;
	l = &signals[sig].levels[level];
	free_levels(sig, level);
	if (is_for_once(&l->before) && atomic_load(&l->fallback) == none.sa_sigaction)
		sigaction(sig, &none, NULL);
	else
		sigaction(sig, &l->before, NULL);
}

/* Makes the signalfd one for what is wanted now. 0 or -errno. */
static int set_signalfd(void)
{
	sigset_t wanted;
	int fd;

	sigemptyset(&wanted);
	for (int sig = 1; sig < NSIG; sig++)
		if (signals[sig].listeners)
			sigaddset(&wanted, sig);
	fd = signalfd(signals_fd, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	signals_fd = fd;
	return 0;
}

/* Puts l into the list, and gives each of its signals our handler: l hears what comes from here on. 0 or -errno. */
static int listen_for(struct listener *l)
{
	int err = 0, failed;

	l->listed = true;
	atomic_store(&l->next, atomic_load(&listeners));
	atomic_store(&listeners, l);
	for (int sig = 1; sig < NSIG; sig++)
		if (l->set & signal_bit(sig)) {
			signals[sig].listeners++;
			if (!take(sig))
				err = -EBUSY;
		}
	failed = set_signalfd();
	return err ? err : failed;
}

static void stop_listening(struct listener *l)
{
	struct listener *_Atomic *at = &listeners;

	if (!l->listed)
		return;
	l->listed = false;
	while (atomic_load(at) != l)
		at = &atomic_load(at)->next;
	atomic_store(at, atomic_load(&l->next));
	for (int sig = 1; sig < NSIG; sig++)
		if (l->set & signal_bit(sig) && --signals[sig].listeners == 0)
			give_back(sig);
	set_signalfd();
	ctxfdi_await_handlers();
}

/* ---- Under the dispatcher's lock --------------------------------------------------------------------------------- */

int ctxfdi_signals_watch(struct ctxfd_dispatcher *d)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = &ctxfdi_signals_event };
	bool wanted = false;
	int err = 0;

	claim(dispatcher_is_locked(d));
	pthread_mutex_lock(&lock_of_signals);
	for (struct listener *l = atomic_load(&listeners); l; l = atomic_load(&l->next)) {
		wanted |= l->source.dispatcher == d;
		for (int sig = 1; sig < NSIG; sig++) /* again: a fork has given some back (ctxfdi_signals_forked) */
			if (l->source.dispatcher == d && l->set & signal_bit(sig))
				take(sig);
	}
	if (wanted && !d->listening && d->epoll >= 0) {
		if (signals_fd < 0)
			err = set_signalfd();
		if (!err && epoll_ctl(d->epoll, EPOLL_CTL_ADD, signals_fd, &event) != 0)
			err = -errno;
		d->listening = !err;
	}
	pthread_mutex_unlock(&lock_of_signals);
	return err;
}

/*
 * Makes those of d's listeners ready that have heard something: they are to be cancelled. Takes those out of the list
 * that have ended otherwise, whatever their dispatcher.
 */
static void sort_listeners(struct ctxfd_dispatcher *d)
{
	struct listener *l = atomic_load(&listeners), *next;

	claim(dispatcher_is_locked(d));
	for (; l; l = next) {
		int heard = atomic_load_explicit(&l->source.cause, memory_order_relaxed);
		bool live = is_live(&l->source.ctx);

		next = atomic_load(&l->next);
		if (live && (l->source.dispatcher != d || !heard))
			continue;
		/* Before the context is done: a thread that sees it done may rely on the disposition. */
		stop_listening(l);
		if (live)
			ctxfdi_source_is_ready(&l->source);
		else if (l->source.dispatcher == d)
			list_remove(&l->source.link);
	}
}

void ctxfdi_signals_take(struct ctxfd_dispatcher *d, bool pending)
{
	struct signalfd_siginfo info;

	claim(dispatcher_is_locked(d));
	pthread_mutex_lock(&lock_of_signals);
	sort_listeners(d);
	while (pending && signals_fd >= 0 && read(signals_fd, &info, sizeof info) == sizeof info) {
		if (!note((int)info.ssi_signo)) /* the last listener has just ended, so the signal is the program's */
			kill(getpid(), (int)info.ssi_signo);
		sort_listeners(d);
	}
	pthread_mutex_unlock(&lock_of_signals);
}

void ctxfdi_forget_signals(struct ctxfd *n)
{
	struct source *s = container_of(n, struct source, ctx);
	struct thread_cancel before = thread_cancel_off();

	dispatcher_lock(s->dispatcher);
	list_remove(&s->link);
	pthread_mutex_lock(&lock_of_signals);
	stop_listening(listener_of(s));
	pthread_mutex_unlock(&lock_of_signals);
	dispatcher_unlock(s->dispatcher);
	thread_cancel_restore(before);
}

int ctxfdi_signals_listen(struct listener *l)
{
	int err;

	claim(dispatcher_is_locked(l->source.dispatcher));
	pthread_mutex_lock(&lock_of_signals);
	err = listen_for(l);
	pthread_mutex_unlock(&lock_of_signals);
	return err ? err : ctxfdi_signals_watch(l->source.dispatcher);
}

/* ---- Fork -------------------------------------------------------------------------------------------------------- */

void ctxfdi_signals_lock(void)
{
	pthread_mutex_lock(&lock_of_signals);
}

void ctxfdi_signals_unlock(void)
{
	pthread_mutex_unlock(&lock_of_signals);
}

/*
 * The child's signalfd is its parent's, so it goes. Handlers stay, and note what comes before the child has dispatchers
 * again. But what was ignored is ignored again until then: a program that the child executes inherits that.
 */
void ctxfdi_signals_forked(void)
{
	atomic_store(&handlers, 0);
	if (signals_fd >= 0)
		close(signals_fd);
	signals_fd = -1;
	for (int sig = 1; sig < NSIG; sig++) {
		int level = signals[sig].listeners ? level_now(sig) : -1;

		if (level >= 0 && is_ignored(&signals[sig].levels[level].before))
			give_back(sig);
	}
}
