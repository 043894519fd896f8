/* SPDX-License-Identifier: MIT */
/*
 * ctxfd: Go's context for C on Linux, made of file descriptors.
 *
 * A context says when work is no longer wanted. Contexts form a tree: cancelling one cancels all below it, a deadline
 * ends all below it, and values given to one are seen by all below it. What only Linux has: a context's done signal is
 * a real file descriptor, so one poll, epoll_wait or io_uring ring waits for sockets and for cancellation together.
 *
 *     struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 2 * CTXFD_SEC);
 *     int done = ctx ? ctxfd_done_fd(ctx) : -errno;
 *     struct pollfd p[] = { { .fd = sock, .events = POLLIN }, { .fd = done, .events = POLLIN } };
 *     if (done >= 0 && poll(p, 2, -1) > 0 && p[1].revents)
 *             puts(ctxfd_strerror(ctxfd_err(ctx)));
 *     ctxfd_close(ctx);
 *     return done < 0 ? done : 0;
 *
 * RULES THAT HOLD THROUGHOUT
 *
 *   const is the capability. A `const struct ctxfd *` may be looked at, waited on and derived from; only a
 *   `struct ctxfd *`, which its constructor gives, can be cancelled. Take const in a function that accepts its caller's
 *   context, and the compiler keeps the function from cancelling it. This is Go's split of Context and CancelFunc.
 *
 *   References. A constructor gives one reference, which ctxfd_unref or ctxfd_close gives up. A child holds its parent
 *   alive, so a parent may be given up first; a parent does not hold its children. Whoever calls a function on a
 *   context, or watches its done fd, holds a reference on it, or is sure that somebody else does in the meantime. A
 *   child's reference is the child's own: it does not serve others.
 *
 *   Threads. Every function may be called from any thread at any time, on any context that the caller keeps alive. None
 *   is async-signal-safe: from a signal handler call nothing here (ctxfd_with_signals is for that).
 *
 *   pthread_cancel: the calls that wait on the caller's fds (ctxfd_poll to ctxfd_connect) are cancellation points, as
 *   those that they are named after, when they are called and while they wait, and leave nothing behind; no other
 *   function is one. Not to be called with asynchronous cancellation; nor may the handler of a signal that came during
 *   a call leave it by longjmp or pthread_exit.
 *
 *   Time is int64_t nanoseconds. A deadline is a point of CLOCK_MONOTONIC; a timeout counts from the call. That clock
 *   stands still while the machine is suspended, and so do deadlines: an hour of sleep is not counted. Setting the
 *   system's date does not move them. Where that clock cannot be read (in no sandbox that we know) a deadline would
 *   never come, and the library aborts.
 *
 *   Errors. A constructor that fails returns NULL and sets errno. Everything else returns 0, a positive result or a
 *   negative errno, and leaves errno as it was. Out parameters are untouched on failure. A function whose parameter is
 *   a pointer accepts NULL only where it says so.
 *
 *   No fd, thread or signal handler exists until a call that says that it makes one.
 */
#ifndef CTXFD_H
#define CTXFD_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/select.h> /* sigset_t, which <signal.h> hides in strict C99 */
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CTXFD_VERSION_MAJOR 0
#define CTXFD_VERSION_MINOR 1

/* Nanoseconds in each: `5 * CTXFD_SEC`. */
#define CTXFD_USEC INT64_C(1000)
#define CTXFD_MSEC INT64_C(1000000)
#define CTXFD_SEC  INT64_C(1000000000)

struct ctxfd;       /* a context */
struct ctxfd_after; /* a function that waits for a context to end */

/*
 * What a constructor gives is to be given up once, by one of two calls. The compiler hears of it: a result that nobody takes is
 * a warning, and gcc (11 and later) with -fanalyzer, and in part with -Wall, finds contexts that are lost, given up twice, or
 * used after that. It takes each pointer for one reference: whoever takes another one uses the pointer that ctxfd_ref returns, or
 * turns -Wuse-after-free off.
 */
void ctxfd_unref(const struct ctxfd *ctx);
void ctxfd_close(struct ctxfd *ctx);
#if !defined(__GNUC__)
#define CTXFD_GIVES_
#define CTXFD_GIVES_CONST_
#elif defined(__clang__) || __GNUC__ < 11
#define CTXFD_GIVES_       __attribute__((warn_unused_result))
#define CTXFD_GIVES_CONST_ __attribute__((warn_unused_result))
#else
#define CTXFD_GIVES_       __attribute__((warn_unused_result, malloc(ctxfd_close, 1), malloc(ctxfd_unref, 1)))
#define CTXFD_GIVES_CONST_ __attribute__((warn_unused_result, malloc(ctxfd_unref, 1)))
#endif

/* ---- Making contexts --------------------------------------------------------------------------------------------- */

/* The root of every tree: never done, no deadline, no values. Immortal: ref and unref do nothing to it. */
const struct ctxfd *ctxfd_background(void);

/* As ctxfd_background, for code that does not know yet which context it should have. */
const struct ctxfd *ctxfd_todo(void);

/*
 * A child that is done when it is cancelled or when its parent is done, whichever comes first.
 *
 * If the parent is done already, so is the child when this returns, with the parent's err and cause. No system call.
 * Errors of this and all other constructors: EINVAL (parent is NULL), ENOMEM; more where they say so.
 */
struct ctxfd *ctxfd_with_cancel(const struct ctxfd *parent) CTXFD_GIVES_;

/*
 * A child that is also done, with -ETIMEDOUT, once CLOCK_MONOTONIC reaches `deadline`.
 *
 * The deadline in effect is the earliest of its own and its ancestors'. If the parent's is earlier or the same, the
 * child keeps the parent's, and the parent's cause with it. A deadline in the past (INT64_MIN too) gives a context that
 * is done when this returns; INT64_MAX is no deadline. The parent's end goes first: a child of a cancelled parent is
 * cancelled, however long its own deadline has passed.
 *
 * `cause` is what ctxfd_cause tells after the deadline; 0 is none, and then it tells -ETIMEDOUT. It is dropped when the
 * parent's deadline stays in effect.
 */
struct ctxfd *ctxfd_with_deadline(const struct ctxfd *parent, int64_t deadline) CTXFD_GIVES_;
struct ctxfd *ctxfd_with_deadline_cause(const struct ctxfd *parent, int64_t deadline, int cause) CTXFD_GIVES_;

/*
 * The same, `timeout` nanoseconds from now. Zero or negative: done when this returns. A timeout that would overflow the
 * clock, or INT64_MAX, is none.
 */
struct ctxfd *ctxfd_with_timeout(const struct ctxfd *parent, int64_t timeout) CTXFD_GIVES_;
struct ctxfd *ctxfd_with_timeout_cause(const struct ctxfd *parent, int64_t timeout, int cause) CTXFD_GIVES_;

/*
 * A context that carries `value` under `key`, for ctxfd_value to find from here down. Keys are compared by address: use
 * that of a static variable of your own. Binding a NULL value hides an outer one.
 *
 * A value context is not a node of the cancellation tree: its err, deadline and done fd are those of the nearest
 * cancellable context above it. Adding both their fds to one epoll set is adding one fd twice: EEXIST.
 *
 * When the last reference to it is gone, and the last context derived from it, `destroy` (unless NULL) is called once
 * with `value`, NULL values too, on the thread that gave up that reference, with no lock held. The value stays
 * reachable after cancellation. On failure destroy is not called: the value is still the caller's. destroy must return,
 * not end its thread, throw an exception or longjmp.
 * Errors: EINVAL (parent or key is NULL), ENOMEM.
 */
const struct ctxfd *ctxfd_with_value(const struct ctxfd *parent, const void *key, void *value,
                                     void (*destroy)(void *value)) CTXFD_GIVES_CONST_;

/*
 * A context with the parent's values and nothing else of it: never done, no deadline. For work that outlives a request.
 */
const struct ctxfd *ctxfd_without_cancel(const struct ctxfd *parent) CTXFD_GIVES_CONST_;

/*
 * A child of two parents: done when either is, with that one's err and cause; its deadline is the earlier of theirs;
 * its values are a's. If both are done already, a's end is the one it takes. (Go has no call for it; it is AfterFunc's
 * example "merge".)
 */
struct ctxfd *ctxfd_merge(const struct ctxfd *a, const struct ctxfd *b) CTXFD_GIVES_;

/*
 * One more reference on ctx, which it returns; NULL gives NULL. What comes back is const: keep the pointer that the
 * constructor gave to stay able to cancel.
 */
const struct ctxfd *ctxfd_ref(const struct ctxfd *ctx);

/*
 * Gives up a reference; NULL is fine. The last one frees the context and closes its fd, without cancelling anything:
 * children live on until their other ancestors end. May run value destructors. May wait for a cancel that is at work on
 * the context's parent, or for the dispatcher that ends after-funcs on it.
 */
void ctxfd_unref(const struct ctxfd *ctx);

/* ---- Ending them ------------------------------------------------------------------------------------------------- */

/*
 * Ends ctx and everything below it: err becomes -ECANCELED, done fds become readable, ctxfd_wait returns. What is done
 * already stays as it is, and a deadline that has passed wins even if nobody had looked.
 *
 * When it returns, every context that was below ctx when it was called is done, and its done fd is readable, even if
 * another thread's cancel was at work there. Whoever sees ctx done sees all below it done: children end first. It
 * allocates nothing, does not recurse, and waits for nothing but another cancel in the same subtree. NULL is fine; so
 * is calling it again.
 *
 * Where a deadline is what ended ctx, ctxfd_err tells so at once of everything below. The done fds below follow when
 * the kernel's timers fire, some 50 microseconds later; ctxfd_err of a context makes that context's fd readable at
 * once.
 *
 * `cause` is what ctxfd_cause will tell; 0 makes it the same call as ctxfd_cancel. Negative is an errno or a code of
 * the program's own, positive a signal's number. The first end decides, once and for good.
 */
void ctxfd_cancel(struct ctxfd *ctx);
void ctxfd_cancel_cause(struct ctxfd *ctx, int cause);

/* Cancels ctx, then gives up the caller's reference: Go's `defer cancel()`. NULL is fine. */
void ctxfd_close(struct ctxfd *ctx);

/* Closes a context at the end of its scope: `CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_cancel(parent);` */
#define CTXFD_SCOPED __attribute__((cleanup(ctxfd_scoped_close_)))
static inline void ctxfd_scoped_close_(struct ctxfd **ctx)
{
	ctxfd_close(*ctx);
}

/*
 * The same for a const context, which is given up and not cancelled:
 * `CTXFD_SCOPED_REF const struct ctxfd *ctx = ctxfd_with_value(parent, &key, value, NULL);`
 */
#define CTXFD_SCOPED_REF __attribute__((cleanup(ctxfd_scoped_unref_)))
static inline void ctxfd_scoped_unref_(const struct ctxfd **ctx)
{
	ctxfd_unref(*ctx);
}

/* ---- Asking them ------------------------------------------------------------------------------------------------- */

/*
 * 0 while ctx is live, then -ECANCELED or -ETIMEDOUT for good. Once this has returned non-zero to anyone, ctx's own
 * done fd, if there is one, is readable; and once that has been readable this is non-zero. This is the truth, the fd is
 * the wake-up: whatever a program does to the fd, the answer here is right.
 */
int ctxfd_err(const struct ctxfd *ctx);

/* Why: 0 while ctx is live, then the cause that was given with its end, else what ctxfd_err returns. */
int ctxfd_cause(const struct ctxfd *ctx);

/* Whether ctx has a deadline, its own or an ancestor's; if so it is stored in *deadline, which may be NULL. */
bool ctxfd_deadline(const struct ctxfd *ctx, int64_t *deadline);

/* Nanoseconds to the deadline: 0 when it has passed, INT64_MAX when there is none. Cancelling does not change it. */
int64_t ctxfd_remaining(const struct ctxfd *ctx);

/*
 * The value bound to key by ctx or the nearest context above it that binds it, else NULL (a NULL key too). It belongs
 * to its binding, which ctx keeps alive. Costs one step for each value above, none for other contexts.
 */
void *ctxfd_value(const struct ctxfd *ctx, const void *key);

/* CLOCK_MONOTONIC now, in nanoseconds. */
int64_t ctxfd_now(void);

/*
 * "context canceled" for -ECANCELED, "context deadline exceeded" for -ETIMEDOUT, "no error" for 0, the signal's name
 * for a positive number, else what strerror says of -err. The string is static or the thread's own; do not free it.
 */
const char *ctxfd_strerror(int err);

/*
 * How ctx came to be, root first: "background.with_cancel.with_deadline(1234567890)". Deadlines are shown as they are,
 * absolute; values by the key's address. Writes at most size bytes, the final NUL included, and returns the length
 * that the whole has, as snprintf does; buf may be NULL when size is 0. Errors: -EOVERFLOW (that length is no int).
 */
int ctxfd_describe(const struct ctxfd *ctx, char *buf, size_t size);

/* ---- The done fd ------------------------------------------------------------------------------------------------- */

/*
 * An fd that polls readable (POLLIN) once ctx is done, for good. The first call makes it; within a process every call
 * returns the same number. Look at the sign: poll takes a negative fd for none at all, and waits on.
 *
 *   - It belongs to ctx. Never close it. It is valid until the last reference on ctx is gone, so whoever watches it
 *     holds a reference until it has taken the fd out of its set. A freed fd leaves an epoll set without a word, and
 *     its number goes to another; a loop that keeps its watches by number (libevent, sd-event) then never hears that
 *     one.
 *   - Poll it, never read it. A read does not change ctx, but once a context with a deadline is cancelled, a read can
 *     make the fd unreadable until that deadline, for everyone who polls it.
 *   - It works with poll, select (below FD_SETSIZE), epoll in every mode, and io_uring. An edge-triggered watcher added
 *     after the end is told at once; of several EPOLLEXCLUSIVE watchers perhaps only some.
 *   - A value context has the fd of the nearest cancellable context above it. Contexts that can never be done
 *     (background, todo, without_cancel) share one, which is never readable and stays open for the life of the process.
 *   - It is close-on-exec and non-blocking: an eventfd, or a timerfd if ctx has a deadline.
 *   - A dup, or a copy sent over a socket to another process, polls as the fd does and outlives ctx: if ctx ended
 *     before it was freed the copy stays readable, otherwise it stays silent.
 *   - After fork the child asks again, and gets an fd of its own under another number; nothing it does to that reaches
 *     the parent. What it inherited is the parent's fd, and tells of the parent's end. The child may close that, and
 *     the library does not touch the number there again.
 *
 * Errors: -EMFILE, -ENFILE, -ENOMEM. The context works on without an fd; ctxfd_wait and ctxfd_err need none.
 *
 * What a program does wrong with the fd never changes the context, but it can mislead those who wait on the fd:
 *
 *   - A write to an eventfd wakes pollers while ctx is live; ask ctxfd_err. A timerfd cannot be written. One that is
 *     set anew or disarmed tells a wrong time until the end, or until somebody asks ctxfd_done_fd or ctxfd_err after
 *     the deadline. Flags make no difference, except here:
 *   - A cancel waits for the fd in one case: somebody has filled an eventfd with writes and cleared O_NONBLOCK. If you do not trust a receiver, send the fd of a context with a deadline, however far: a timerfd cannot
 *     be filled. (Where the kernel refuses TFD_IOC_SET_TICKS, somebody who disarms it again and again can delay a
 *     cancel by a second for each such fd.)
 *   - After a close by mistake pollers hear nothing; ctxfd_err, ctxfd_wait, ctxfd_sleep and ctxfd_poll go on. What has
 *     the number by then may get the 8 bytes or the tick that signal the end, and is closed with the context.
 */
int ctxfd_done_fd(const struct ctxfd *ctx);

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

/* Sleeps until ctx is done and returns its err. Needs no fd. On a context that is never done it never returns. */
int ctxfd_wait(const struct ctxfd *ctx);

/* Sleeps for ns nanoseconds: 0 if it slept them all, else err, at once when ctx is done. Needs no fd. */
int ctxfd_sleep(const struct ctxfd *ctx, int64_t ns);

/*
 * The calls below are those they are named after, with a context that interrupts them. All of them:
 *
 *   - do nothing and return err when ctx is done already;
 *   - return err (-ECANCELED, -ETIMEDOUT) when ctx ends while they wait. A result that was consumed (bytes taken or
 *     given, a connection accepted) always beats an end that comes at the same time;
 *   - return -errno where the plain call would set errno. -ETIMEDOUT and -ECANCELED can be the descriptor's own: ask
 *     ctxfd_err when it matters;
 *   - retry EINTR: the way to interrupt them is the context;
 *   - wait on blocking and non-blocking descriptors alike, and leave their flags as they are. A socket's SO_RCVTIMEO
 *     and SO_SNDTIMEO do not count: the context takes their place;
 *   - need no done fd. A thread gets one fd of the library's when it first has to wait, and keeps it until the thread
 *     ends. Without a free number or memory for it they wait all the same, and hear of ctx's end 2 ms late at most;
 *   - wait by ppoll for one descriptor more than is theirs: -EINVAL where RLIMIT_NOFILE is below that, -ENOMEM where the
 *     kernel has no memory for it.
 */

/*
 * poll(2) under ctx. timeout is in nanoseconds, negative for none. Returns how many fds have revents, 0 when the
 * timeout passed, err when ctx ended; when an fd is ready as ctx ends, the fd. n may be 0.
 * A negative fd is ignored, a bad one gives POLLNVAL, as in poll. Also -EINVAL (n above RLIMIT_NOFILE - 1),
 * -ENOMEM.
 */
int ctxfd_poll(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t timeout);

/*
 * read(2) and write(2), sockets and pipes and what else can be polled. Both may be short: on a blocking descriptor too
 * a write returns once some bytes are written. Regular files never wait for long: there they are the plain calls. A
 * read of no bytes gives 0, or an error, at once.
 *
 * A blocking descriptor that offers neither MSG_DONTWAIT nor RWF_NOWAIT, such as a terminal, is polled and then called:
 *
 *   - it is not called before it polls ready, even if the plain call would not wait, as that on some devices and on a
 *     message queue's status. (/dev/kmsg and fanotify never poll writable and are written to all the same);
 *   - if another reader takes the data after the poll, or a terminal wants more of it (VMIN with VTIME), or has less
 *     room than the write asks for, the call waits and ctx cannot interrupt it. Write little at a time there;
 *   - kernels before 6.12 have pipes of that kind. They are opened anew for the instant of the call, so they do wait
 *     under ctx; but not where that is impossible: no /proc, no right to open it, no free descriptor.
 *
 * With O_NONBLOCK none of this is so: the call is made at once, and again when poll says so.
 */
ssize_t ctxfd_read(const struct ctxfd *ctx, int fd, void *buf, size_t size);
ssize_t ctxfd_write(const struct ctxfd *ctx, int fd, const void *buf, size_t size);

/*
 * recv(2) and send(2). With MSG_DONTWAIT, and recv with MSG_ERRQUEUE, they do not wait: -EAGAIN. MSG_WAITALL is not
 * honoured: the call returns what is there.
 */
ssize_t ctxfd_recv(const struct ctxfd *ctx, int fd, void *buf, size_t size, int flags);
ssize_t ctxfd_send(const struct ctxfd *ctx, int fd, const void *buf, size_t size, int flags);

/*
 * accept4(2). addr and addrlen may be NULL. Threads of one process may share a blocking listening socket, as long as
 * all of them come through here. If another process takes the connection between poll and accept, the call on a
 * blocking one waits on, and neither ctx nor pthread_cancel reaches it; meanwhile no other thread of this process
 * accepts on a blocking socket, though its own context ends its wait. So set O_NONBLOCK on one that processes share,
 * and on a Bluetooth one, for such a socket does not tell that it listens (SO_ACCEPTCONN) and is not polled.
 */
int ctxfd_accept(const struct ctxfd *ctx, int fd, struct sockaddr *addr, socklen_t *addrlen, int flags);

/*
 * connect(2). A blocking socket is non-blocking for the instant of the call that starts the connection. When ctx ends
 * first, or pthread_cancel does, the connection is left half made: close the socket.
 */
int ctxfd_connect(const struct ctxfd *ctx, int fd, const struct sockaddr *addr, socklen_t addrlen);

/* ---- After-funcs and dispatchers --------------------------------------------------------------------------------- */

/*
 * Calls fn(arg) once, after ctx is done: Go's AfterFunc. Due at once if ctx is done already. fn runs on ctx's dispatcher
 * (below), never inside ctxfd_cancel, with no lock held. While it runs it owns a reference on ctx, so it may do with
 * ctx and any other context what every owner may: derive, register, stop, cancel, close, leave things behind. What was
 * registered on a context before it ended starts in the order of registration, on each dispatcher.
 *
 * Registering holds ctx: if its owner gives it up, fn still runs when a parent or the deadline ends it. *handle is for
 * ctxfd_after_stop, which must then be called once. With a NULL handle it frees itself after fn has run. On a context
 * that is never done fn never runs, and only stopping frees it.
 *
 * When fn interrupts a call of another thread, the interruption must last: a shutdown, a flag and an eventfd do, a
 * pthread_kill does not, which can come just before the call that it is meant for.
 *
 * fn may end its thread (pthread_exit) or throw an exception of C++ through ctxfd_dispatcher_run: what else was due
 * stays due, and the library's thread is replaced. It must not leave by longjmp. It must not wait for what only its own
 * dispatcher can bring about (another after-func, the end of a ctxfd_with_fd context): that waits for ever. fn runs
 * with pthread_cancel held off.
 *
 * Errors: -EINVAL (ctx or fn is NULL), -ENOMEM; where the library's thread has to start also -EAGAIN (no thread),
 * -EMFILE, -ENFILE, -ENOSPC (epoll watches).
 */
int ctxfd_after_func(const struct ctxfd *ctx, void (*fn)(void *arg), void *arg, struct ctxfd_after **handle);

/*
 * Gives up an after-func and frees its handle. True: fn never ran and never will. False: it has run; if it is running
 * on another thread this waits for its end, so that arg can be freed in either case. From inside fn it does not wait.
 * As it may wait for fn, do not call it with a lock held that fn takes. NULL gives false.
 */
bool ctxfd_after_stop(struct ctxfd_after *handle);

/*
 * WHERE CALLBACKS RUN. Each context has a dispatcher: that of the nearest ctxfd_with_dispatcher above it, else the
 * library's own. It serves what is registered on the context: after-funcs, and the fds, signals and processes of
 * contexts made from it. A server with a loop per core makes a dispatcher for each loop, and derives the requests of a
 * loop from a context that names it. A library that registers an after-func on a request's context is then called back
 * on that request's loop, and nothing that one part of a program does takes callbacks from another.
 *
 * The library's own dispatcher is run by a thread, "ctxfd", that starts when something is first registered with it. It
 * has a stack of the default size, and has all signals blocked but those by which the kernel answers what fn does
 * (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT); a process that fn starts inherits that mask unless fn
 * sets another. It sleeps when nothing is due. A slow fn delays the others on the same dispatcher. Like any thread it
 * keeps a process alive whose main thread ends by pthread_exit; exit and return from main end it.
 *
 * FORK. In the child, what was registered with the library's own dispatcher is served by a thread of the child's, which
 * starts with the first call there of ctxfd_err, ctxfd_cause, ctxfd_done_fd or any call that waits or registers, or a
 * cancel that ends an after-func. A dispatcher of the program's works again in the child when its fd is asked for anew,
 * or when it is run; the fd that the child inherited is closed. A thread that runs a dispatcher is inside the library,
 * but while it is in fn.
 */
struct ctxfd_dispatcher;

/* A dispatcher for a loop of the program's. It starts no thread. NULL and errno: EMFILE, ENFILE, ENOMEM, ENOSPC. */
struct ctxfd_dispatcher *ctxfd_dispatcher_new(void);

/*
 * Gives up the caller's reference; NULL is fine. Contexts that name d hold one each: its fd works, and it can be run,
 * until the last of them is gone. If nobody runs it any more, what is registered with it stays undone, and is freed with
 * its contexts; but an after-func that is due keeps its context until it has run or is stopped.
 */
void ctxfd_dispatcher_free(struct ctxfd_dispatcher *d);

/*
 * An fd that polls readable when there is something for ctxfd_dispatcher_run to do. Add it to the loop, level- or
 * edge-triggered, in as many threads as you like. It belongs to d and is close-on-exec. Every call returns the same
 * number, but in the child of a fork, which must ask again. Errors, in such a child: -EMFILE, -ENFILE, -ENOMEM, -ENOSPC.
 */
int ctxfd_dispatcher_fd(struct ctxfd_dispatcher *d);

/*
 * Does what is due, and returns how many after-funcs ran and contexts were ended. Does not wait for more to come due.
 * One thread at a time runs a dispatcher: -EBUSY when another one is at it, or when it is called from inside fn of d.
 * Nothing is lost by that: what has come due meanwhile is done by that run, or makes the fd ready anew, for edges too.
 * Running another dispatcher inside fn is fine. Errors in the child of a fork: as ctxfd_dispatcher_fd.
 */
int ctxfd_dispatcher_run(struct ctxfd_dispatcher *d);

/*
 * A context whose dispatcher is d; NULL: the library's own. It is like ctxfd_with_value: not a node of the cancellation
 * tree, handed down through ctxfd_without_cancel, and a merge takes that of its first parent. It holds a reference on d.
 * Errors: EINVAL (parent is NULL), ENOMEM.
 */
const struct ctxfd *ctxfd_with_dispatcher(const struct ctxfd *parent, struct ctxfd_dispatcher *d);

/* ---- Other reasons to end ---------------------------------------------------------------------------------------- */

/*
 * Contexts that end by themselves. They are watched by their parent's dispatcher (above), and can be cancelled like any
 * other. Errors beyond those of every constructor: EAGAIN (no thread), EMFILE, ENFILE, ENOSPC (too many epoll watches).
 */

/*
 * A child that is cancelled with `cause` when fd reports one of `events` (as in poll; POLLHUP and POLLERR always
 * count). If fd is ready already, the context is done when this returns. The fd is never read and stays the caller's.
 * Its number is used during this call only: what is watched is the open file behind it. When the caller closes the fd,
 * and no duplicate is left, the watch ends without cancelling; whatever is opened under that number later is not
 * touched. Several contexts can watch one fd (some hundred: the kernel counts the ways; then ENOSPC).
 *
 * Of a stream socket: connect first, since one that is not connected reports POLLHUP, and the context would be done at
 * once. POLLRDHUP tells that the client has hung up, also while its bytes are not yet read. But a client that has only
 * shut down its writing side, and waits for the answer, looks the same; nothing tells the two apart before an answer is
 * written. To serve such clients pass 0: the context then ends when the connection is reset or broken, which is mostly
 * heard after a write. POLLIN ends it at the first byte, too.
 *
 * Errors: EBADF, EPERM (a file that cannot be polled, such as a regular one), ELOOP (an epoll set that watches too many
 * others, at some depth).
 */
struct ctxfd *ctxfd_with_fd(const struct ctxfd *parent, int fd, short events, int cause) CTXFD_GIVES_;

/*
 * A child that is cancelled by the first signal of `set` that comes to the process, with the signal's number as its
 * cause: Go's signal.NotifyContext. Several such contexts on one signal all hear it. No mask is needed: it works
 * whichever threads there are, and leaves their masks alone.
 *
 * While a live context listens for a signal, the signal ends contexts and nothing else: the process lives on, and the
 * program's own handler is not called. An ignored signal (nohup) is heard as well. It is heard where every thread has
 * it blocked, too. As soon as no live context listens any more, a signal does what it would have done before: so a
 * second Ctrl-C ends a program that does not come to its end by itself, even if its loop hangs. The disposition itself
 * is put back before a context that a signal ends is seen done, and when the last one that listens is freed, unless the
 * program has set another one meanwhile.
 *
 * A signal interrupts calls of the thread that takes it as a handler with SA_RESTART does. A program started by exec has
 * the default disposition for what is listened for, as for every handled signal. In the child of a fork inherited
 * contexts hear the child's signals; one that was ignored is ignored until the first look at a context there.
 * SIGKILL and SIGSTOP cannot be had and are left out; a fault (SIGSEGV and the like, from the kernel) is no end but what
 * it was before. A handler of the program's that takes its turn runs with other signals blocked. Errors: EINVAL (set is NULL or empty).
 */
struct ctxfd *ctxfd_with_signals(const struct ctxfd *parent, const sigset_t *set) CTXFD_GIVES_;

/*
 * A child that is cancelled with `cause` when the process behind pidfd (pidfd_open, clone3) ends. It does not reap:
 * waitpid is still yours. Errors: EBADF, EINVAL (not a pidfd).
 */
struct ctxfd *ctxfd_with_process(const struct ctxfd *parent, int pidfd, int cause) CTXFD_GIVES_;

#ifdef __cplusplus
}
#endif

#endif
