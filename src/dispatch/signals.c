/* SPDX-License-Identifier: MIT */
/*
 * What ends contexts by a signal; with.c makes them.
 *
 * HOW A SIGNAL IS HEARD. While contexts listen for a signal it has our handler. The handler goes through the list of
 * listeners, notes the signal in each live one that wants it, and wakes their dispatchers, which cancel them. If no
 * live one wants it, the handler does what the disposition before would have done. So no mask is needed, nobody's
 * signal is lost, and a second Ctrl-C ends the program as soon as the context is done, even if nobody has run a
 * dispatcher or freed the context since. A signal that every thread has blocked never comes to a handler: for these
 * there is a signalfd in the dispatchers' epoll sets. It reports every signal; but what is still there some
 * milliseconds later no handler comes to, and whoever reads it then does what the handler does.
 *
 * A listener listens until it is cancelled or freed, or is found to have ended otherwise. The last one to leave gives the
 * signal its disposition back, unless the program has changed it meanwhile.
 *
 * THE LOCK guards the list and the dispositions. It comes after a dispatcher's lock. Handlers take no lock: they read
 * the list as it is, and `handlers` counts them: a listener that has left the list is freed once all that may have seen
 * it there have left (ctxfdi_await_handlers).
 */
#include "dispatch/signals.h"

#include <sched.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/thread_cancel.h"

static pthread_mutex_t lock_of_signals = PTHREAD_MUTEX_INITIALIZER;
static struct listener *_Atomic listeners;
static _Atomic unsigned handlers;
static struct {
	unsigned listeners;      /* that want this signal */
	struct sigaction before; /* while there are any */
	/* What a handler needs of it; and of the disposition that was there when the first one came. */
	void (*_Atomic fallback)(int sig, siginfo_t *info, void *context);
	void (*_Atomic first)(int sig, siginfo_t *info, void *context);
	_Atomic bool once; /* SA_RESETHAND: then it is the default */
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
		/* Release pairs with the acquire of who looks for marks. */
		atomic_store_explicit(&d->signalled, true, memory_order_release);
		wake = atomic_load_explicit(&d->wake, memory_order_relaxed);
		if (wake >= 0)
			syscall(SYS_write, wake, &one, sizeof one);
	}
	return wanted;
}

/* By which the kernel answers what a thread does itself. */
static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS };

/* A crash is nobody's wish that a context ends; and the thread would do it again. */
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
 * Whether this thread is in the program's handler, called by ours. That one may call the handler that it found when it
 * was set, which may be ours: then it is the turn of what was there first. In memory that need not be allocated.
 */
static __thread bool in_fallback __attribute__((tls_model("initial-exec")));

/* A handler that is of the older kind, and takes a number only, does not mind what else it is given. */
static void act_as_before(int sig, siginfo_t *info, void *context)
{
	struct sigaction before = { .sa_handler = SIG_DFL };
	bool nested = in_fallback;

	if (nested)
		before.sa_sigaction = atomic_load(&signals[sig].first);
	else if (atomic_load(&signals[sig].once))
		before.sa_sigaction = atomic_exchange(&signals[sig].fallback, before.sa_sigaction);
	else
		before.sa_sigaction = atomic_load(&signals[sig].fallback);
	if (before.sa_handler == SIG_DFL) {
		act_by_default(sig);
	} else if (before.sa_handler != SIG_IGN) {
		in_fallback = true;
		before.sa_sigaction(sig, info, context);
		in_fallback = nested;
	}
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	bool wanted;

	/* Sequentially consistent, as are the list's changes and ctxfdi_await_handlers's look: one of the two sees the other. */
	atomic_fetch_add(&handlers, 1);
	wanted = !is_fault(sig, info) && note(sig);
	atomic_fetch_sub(&handlers, 1);
	if (!wanted)
		act_as_before(sig, info, context);
	errno = saved;
}

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

static bool is_ours(const struct sigaction *a)
{
	return a->sa_flags & SA_SIGINFO && a->sa_sigaction == on_signal;
}

static bool is_for_once(const struct sigaction *a)
{
	return (unsigned)a->sa_flags & (unsigned)SA_RESETHAND;
}

/* Gives sig our handler, unless it has it, or cannot have one. */
static void take(int sig)
{
	struct sigaction ours = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK }, now;

	if (sigaction(sig, NULL, &now) != 0 || is_ours(&now))
		return;
	signals[sig].before = now;
	atomic_store(&signals[sig].once, is_for_once(&now));
	atomic_store(&signals[sig].fallback, now.sa_sigaction);
	if (signals[sig].listeners == 1)
		atomic_store(&signals[sig].first, now.sa_sigaction);
	/* To the kernel these say how children end, not how they are told of. */
	ours.sa_flags |= now.sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
	if (sig == SIGCHLD && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_IGN)
		ours.sa_flags |= SA_NOCLDWAIT;
	/* With the C library's own, which sigfillset leaves out: a thread that is cancelled in a handler would not leave it. */
	memset(&ours.sa_mask, 0xff, sizeof ours.sa_mask);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&ours.sa_mask, faults[i]);
	sigaction(sig, &ours, NULL);
}

static void give_back(int sig)
{
	struct sigaction now, *before = &signals[sig].before, none = { .sa_handler = SIG_DFL };

	if (sigaction(sig, NULL, &now) != 0 || !is_ours(&now))
		return;
	if (is_for_once(before) && atomic_load(&signals[sig].fallback) == none.sa_sigaction)
		before = &none;
	sigaction(sig, before, NULL);
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

/* What comes from here on is ours to hear. */
static int listen_for(struct listener *l)
{
	int err;

	l->listed = true;
	atomic_store(&l->next, atomic_load(&listeners));
	atomic_store(&listeners, l);
	for (int sig = 1; sig < NSIG; sig++)
		if (l->set & signal_bit(sig)) {
			signals[sig].listeners++;
			take(sig);
		}
	err = set_signalfd();
	return err;
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
		for (int sig = 1; sig < NSIG; sig++) /* what a fork has given back */
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

/* Those of d that have heard something are to be cancelled. Whoever has ended otherwise does not listen any more. */
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
		/* Before the context is done: who sees it done may count on the disposition. */
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
		if (!note((int)info.ssi_signo)) /* the last one has just ended: it is for the program */
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
		const struct sigaction *before = &signals[sig].before;

		if (signals[sig].listeners && !(before->sa_flags & SA_SIGINFO) && before->sa_handler == SIG_IGN)
			give_back(sig);
	}
}
