/* SPDX-License-Identifier: MIT */
/*
 * ctxfd: Go's context for C on Linux, made of file descriptors.
 *
 * A context says when work is no longer wanted. Contexts form a tree: cancelling a context cancels everything below
 * it, a deadline ends everything below it, and everything below it sees its values. The done signal of a context is a
 * file descriptor, so one poll, epoll_wait or io_uring waits for sockets and for cancellation together.
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
 *   Live and done. A context is live until it ends; from then on it is done, for good. Its "err" is what ctxfd_err
 *   returns: 0 while it is live, then -ECANCELED or -ETIMEDOUT. Its "done fd" is what ctxfd_done_fd returns.
 *
 *   const. A `const struct ctxfd *` can be asked, waited on and derived from. Only a `struct ctxfd *`, which the
 *   constructor returned, can be cancelled. A function that accepts its caller's context should take it as const: the
 *   compiler then keeps it from cancelling that context. This is Go's split of Context and CancelFunc.
 *
 *   References. A constructor gives its caller one reference. ctxfd_unref or ctxfd_close gives it up. A thread that
 *   calls a function on a context, or watches its done fd, must hold a reference on it, or know that another owner
 *   holds one meanwhile. A child keeps its parent alive, so you may give up the parent first. But this does not serve
 *   as a reference of yours: once you have given yours up, do not use the parent, even while the child lives. A parent
 *   does not keep its children alive.
 *
 *   Threads. Every function may be called from any thread at any time, on any context that the caller keeps alive. No
 *   function may be called from a signal handler; use ctxfd_with_signals. The threads share their fds: one that has
 *   left the others' (unshare with CLONE_FILES, close_range with CLOSE_RANGE_UNSHARE) must not call the library, which
 *   wakes threads by fds that it takes for the same file in all of them.
 *
 *   pthread_cancel. The calls that wait on the caller's fds (ctxfd_poll to ctxfd_connect), ctxfd_cond_wait,
 *   ctxfd_waitid and ctxfd_run are cancellation points: on entry and while they wait. ctxfd_call, ctxfd_getaddrinfo and
 *   ctxfd_dial are cancellation points only while they wait. A thread that is cancelled in one of these leaves nothing
 *   behind. No other function is a cancellation point. Do not call any function here with asynchronous cancellation
 *   enabled.
 *
 *   Signal handlers. One that interrupts a function here must not leave it by longjmp or pthread_exit. Nor may it fork,
 *   unless the thread is asleep in a call that waits, other than ctxfd_cond_wait: fork may need what the interrupted
 *   thread holds, and would wait for ever. If the thread is asleep in ctxfd_call, ctxfd_getaddrinfo, ctxfd_dial,
 *   ctxfd_group_go or ctxfd_group_wait, the child must exec or _exit inside the handler: these wait for other threads,
 *   which the child does not have.
 *
 *   Fork. Contexts go on working in the child, and nothing that the child does with them reaches the parent; done fds
 *   and dispatchers have rules of their own, below. A context under which another thread was waiting in ctxfd_poll, one
 *   of the calls beside it, ctxfd_cond_wait or ctxfd_call is not freed in the child. If another thread was inside the
 *   library during the fork, other than asleep in a call that waits, the child may only exec or _exit.
 *
 *   Time is int64_t nanoseconds. A deadline is a point of CLOCK_MONOTONIC; a timeout counts from the call. That clock
 *   stops while the machine is suspended, so a deadline comes later by that time, as in Go on Linux. Setting the
 *   system's date does not move deadlines. If the clock cannot be read (no known sandbox forbids it), the library
 *   aborts the process, since deadlines would never come. A child in another time namespace has another clock: there
 *   the deadlines that it has by fork or by ctxfd_inherited come at another time.
 *
 *   Errors. A constructor that fails returns NULL and sets errno. Other functions return 0, a positive result or a
 *   negative errno, and leave errno unchanged. On failure, out parameters are unchanged. Pass NULL only for parameters
 *   that may be NULL according to their function's comment.
 *
 *   Fds, threads, signal handlers. A function makes none unless its comment says so. The fds that it makes for itself
 *   are close-on-exec, and the library closes them. A shared object with a copy of the library in it (the static one,
 *   or its source) must not be unloaded after it has called it: link it with -z nodelete, as libctxfd.so is.
 */
#ifndef CTXFD_H
#define CTXFD_H

#include <poll.h>
#include <pthread.h>
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
#define CTXFD_VERSION_MINOR 2

/* Nanoseconds in each: `5 * CTXFD_SEC`. */
#define CTXFD_USEC INT64_C(1000)
#define CTXFD_MSEC INT64_C(1000000)
#define CTXFD_SEC  INT64_C(1000000000)

struct ctxfd;       /* a context */
struct ctxfd_after; /* a function that waits for a context to end */

/*
 * The compiler knows that each constructor's result must be given up once, by ctxfd_unref or ctxfd_close. It warns of
 * a result that is not used. gcc (11 and later) with -fanalyzer, and in part with -Wall, also finds contexts that are
 * lost, given up twice, or used after that. It counts one reference for each pointer, so after ctxfd_ref use the
 * pointer that it returned for the new reference, or compile with -Wno-use-after-free.
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

/*
 * Constructors.
 *
 * Every constructor returns a context with one reference, which the caller owns, or NULL with errno set.
 * Errors of every constructor: EINVAL (a parent is NULL), ENOMEM. Those with more errors list them.
 *
 * A child of a done parent is done when the constructor returns, with the parent's err and cause.
 */

/*
 * Returns the root of every tree: it is never done, and has no deadline and no values. Cannot fail. ctxfd_ref and
 * ctxfd_unref do nothing to it.
 */
const struct ctxfd *ctxfd_background(void);

/* Returns another such root, for code that does not know yet which context it should use. Cannot fail. */
const struct ctxfd *ctxfd_todo(void);

/* A child that ends when it is cancelled or when its parent ends, whichever comes first. Makes no system call. */
struct ctxfd *ctxfd_with_cancel(const struct ctxfd *parent) CTXFD_GIVES_;

/*
 * A child that also ends, with -ETIMEDOUT, when CLOCK_MONOTONIC reaches `deadline`.
 *
 * The deadline in effect is the earliest of its own and its ancestors'. If the parent's is earlier or the same, it
 * stays in effect, with its own cause. If `deadline` has passed (INT64_MIN included), the child is done when this
 * returns. INT64_MAX means no deadline. A child of a cancelled parent is cancelled, even if `deadline` has passed.
 *
 * `cause` is what ctxfd_cause returns after the deadline, if `deadline` is the one in effect; 0 means -ETIMEDOUT.
 */
struct ctxfd *ctxfd_with_deadline(const struct ctxfd *parent, int64_t deadline) CTXFD_GIVES_;
struct ctxfd *ctxfd_with_deadline_cause(const struct ctxfd *parent, int64_t deadline, int cause) CTXFD_GIVES_;

/*
 * The same, with a deadline `timeout` nanoseconds from now. If `timeout` is 0 or negative, the child is done when this
 * returns. INT64_MAX, or a timeout that overflows the clock, means no deadline.
 */
struct ctxfd *ctxfd_with_timeout(const struct ctxfd *parent, int64_t timeout) CTXFD_GIVES_;
struct ctxfd *ctxfd_with_timeout_cause(const struct ctxfd *parent, int64_t timeout, int cause) CTXFD_GIVES_;

/*
 * A context that carries `value` under `key`. ctxfd_value finds it from this context and everything below. Keys are
 * compared by address: use the address of a static variable of yours. A NULL value hides an outer one.
 *
 * A value context is not a node of the cancellation tree. Its err, deadline and done fd are those of the nearest
 * cancellable context above it; adding the done fds of both to one epoll set fails with EEXIST.
 *
 * `destroy`, unless it is NULL, is called once with `value`, even a NULL value, when the last reference on this
 * context and on every context derived from it is gone. It runs on the thread that gave up the last reference, with no
 * lock held and cancellation by pthread_cancel disabled. It must return: it must not end its thread, throw an exception
 * or longjmp. Until then the value can be found, after cancellation too. If this call fails, destroy is not called,
 * and the caller keeps the value.
 *
 * Errors: EINVAL (parent or key is NULL), ENOMEM.
 */
const struct ctxfd *ctxfd_with_value(const struct ctxfd *parent, const void *key, void *value,
                                     void (*destroy)(void *value)) CTXFD_GIVES_CONST_;

/*
 * A context with the parent's values, and nothing else of the parent: it is never done and has no deadline. It is for
 * work that outlives a request.
 */
const struct ctxfd *ctxfd_without_cancel(const struct ctxfd *parent) CTXFD_GIVES_CONST_;

/*
 * A child of two parents. It ends when either ends, with the err and cause of that one; if both are done already, with
 * those of a. Its deadline is the earlier of theirs. Its values are those of a. (Go has no such call; this is the
 * "merge" example of AfterFunc.)
 */
struct ctxfd *ctxfd_merge(const struct ctxfd *a, const struct ctxfd *b) CTXFD_GIVES_;

/*
 * Takes one more reference on ctx, which may be NULL. Returns ctx. The result is const, so keep the constructor's
 * pointer if you want to cancel.
 */
const struct ctxfd *ctxfd_ref(const struct ctxfd *ctx);

/*
 * Gives up a reference. ctx may be NULL. If it is the last one, this frees the context and closes its done fd. It
 * cancels nothing: children live on until their other ancestors end. This may run value destructors. It may wait for a
 * cancel that is at work on the context's parent, or for a dispatcher that is ending after-funcs on that parent.
 */
void ctxfd_unref(const struct ctxfd *ctx);

/* ---- Ending them ------------------------------------------------------------------------------------------------- */

/*
 * Ends ctx and everything below it: err becomes -ECANCELED, done fds become readable, ctxfd_wait returns, after-funcs
 * are due. ctx may be NULL. A context that is done already does not change, so a second call does nothing. A deadline
 * that has passed before the cancel wins, even if nothing has noticed it yet.
 *
 * When this returns, every context that was below ctx at the time of the call is done, and its done fd is readable,
 * even if another thread is cancelling there too. Children end first: once ctx is seen done, everything below it is
 * done. The call allocates nothing, does not recurse, and waits only for another cancel in the same subtree, or for
 * threads that leave a condition variable (see ctxfd_cond_wait). (In the child of a fork it may also start the
 * library's thread: see DISPATCHERS.)
 *
 * If ctx has ended by a deadline, ctxfd_err returns -ETIMEDOUT at once for everything below. The done fds below become
 * readable when the kernel's timers fire, some 50 microseconds later; ctxfd_err makes the done fd of its own context
 * readable before it returns.
 *
 * `cause` is what ctxfd_cause will return. A negative one is an errno or a code of the program's own, a positive one
 * is the number of a signal; 0 means none, as with ctxfd_cancel.
 */
void ctxfd_cancel(struct ctxfd *ctx);
void ctxfd_cancel_cause(struct ctxfd *ctx, int cause);

/* Cancels ctx, then gives up the caller's reference, as Go's `defer cancel()` does. ctx may be NULL. */
void ctxfd_close(struct ctxfd *ctx);

/* Closes a context at the end of its scope: `CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_cancel(parent);` */
#define CTXFD_SCOPED __attribute__((cleanup(ctxfd_scoped_close_)))
static inline void ctxfd_scoped_close_(struct ctxfd **ctx)
{
	ctxfd_close(*ctx);
}

/*
 * Gives up a const context at the end of its scope, without cancelling it:
 * `CTXFD_SCOPED_REF const struct ctxfd *ctx = ctxfd_with_value(parent, &key, value, NULL);`
 */
#define CTXFD_SCOPED_REF __attribute__((cleanup(ctxfd_scoped_unref_)))
static inline void ctxfd_scoped_unref_(const struct ctxfd **ctx)
{
	ctxfd_unref(*ctx);
}

/* ---- Asking them ------------------------------------------------------------------------------------------------- */

/*
 * Whether ctx is done, and how it ended. Returns 0 while ctx is live, then -ECANCELED or -ETIMEDOUT, for good.
 *
 * err and done fd agree. Once this has returned non-zero to any thread, the done fd of ctx, if there is one, is
 * readable. Once the done fd has become readable, this returns non-zero. If a program writes to the done fd, or reads,
 * resets or closes it, ctxfd_err is still right.
 */
int ctxfd_err(const struct ctxfd *ctx);

/* Why ctx ended. Returns 0 while ctx is live, then the cause that was given, or err if none was. */
int ctxfd_cause(const struct ctxfd *ctx);

/*
 * Whether ctx has a deadline, its own or an ancestor's. Returns true and stores it in *deadline, or returns false.
 * deadline may be NULL.
 */
bool ctxfd_deadline(const struct ctxfd *ctx, int64_t *deadline);

/*
 * The time left until the deadline. Returns nanoseconds: 0 if the deadline has passed, INT64_MAX if there is none.
 * Cancelling ctx does not change the result.
 */
int64_t ctxfd_remaining(const struct ctxfd *ctx);

/*
 * Finds the value that ctx, or the nearest context above it, binds to key. Returns the value, or NULL if key is not
 * bound, is bound to NULL, or is NULL. The value belongs to the context that binds it, which ctx keeps alive. Takes
 * one step for each value above, and none for other contexts.
 */
void *ctxfd_value(const struct ctxfd *ctx, const void *key);

/* Reads the clock of deadlines. Returns CLOCK_MONOTONIC in nanoseconds. */
int64_t ctxfd_now(void);

/*
 * Puts an err or a cause into words. Returns "context canceled" for -ECANCELED, "context deadline exceeded" for
 * -ETIMEDOUT, "no error" for 0, the signal's name for a positive number, and strerror's words for any other negative
 * errno. The string is static or the thread's own; do not free it. One for a number that has no name of its own, such
 * as a real-time signal's, is gone with the thread's next call of this function, strerror or strsignal.
 */
const char *ctxfd_strerror(int err);

/*
 * Writes how ctx was made, root first: "background.with_cancel.with_deadline(1234567890)". Deadlines are absolute;
 * values are shown by the address of their key. Writes at most size bytes, with the final NUL; buf may be NULL if size
 * is 0. Returns the length of the whole text without the NUL, as snprintf does, or -errno.
 * Errors: EOVERFLOW (the length does not fit an int).
 */
int ctxfd_describe(const struct ctxfd *ctx, char *buf, size_t size);

/*
 * Writes to fd what is below ctx, a line for each context, for a person who wants to know why a program does not stop:
 *
 *     with_cancel 0x55c8d1a6f2a0: live, 2 references
 *       with_deadline 0x55c8d1a6f310: live, 1.204 s left, 1 reference, done fd 7
 *         a thread waits: polling
 *         after_func 0x55c8d1a6f380: live, 1.204 s left
 *       with_cancel 0x55c8d1a6f3f0: done: context canceled, cause -104: Connection reset by peer, 1 reference
 *
 * Look for contexts that are not done although they should be, and for references that nobody remembers. Contexts of
 * one parent come in the order in which they were made, at least those that one thread made. A value context has the
 * line of the context above it. A merge is listed below its first parent, and mentioned below its second one. What is
 * made from background or todo is not listed. The format may change.
 *
 * Other threads may make, end and free contexts meanwhile; the text says what was seen of each at some moment of the
 * call. It is written when all have been seen. If fd is non-blocking and takes no more, this waits until it does. Takes
 * memory for each context. If another thread gives up the last reference on a context at that moment, its values'
 * destroy functions can run here.
 *
 * Returns 0 or -errno.
 * Errors: EINVAL (ctx is NULL), ENOMEM, and those of write(2), among them EBADF, EPIPE, EIO and ENOSPC.
 */
int ctxfd_dump(const struct ctxfd *ctx, int fd);

/* ---- The done fd ------------------------------------------------------------------------------------------------- */

/*
 * An fd that polls readable (POLLIN) once ctx is done, for good. The first call makes it; later calls in the same
 * process return the same number.
 *
 * Returns the fd, or -errno. Check for a negative result: poll ignores a negative fd and would wait forever.
 * Errors: EMFILE, ENFILE, ENOMEM. After a failure the context still works: ctxfd_err, ctxfd_cancel, ctxfd_wait and
 * ctxfd_sleep need no fd.
 *
 *   Ownership. The fd belongs to ctx. Never close it. It is closed with the last reference on ctx, so hold a reference
 *   until you have removed the fd from your poll or epoll set; its number may then be used for another file.
 *
 *   Poll it, never read it. A read does not change ctx; but after an early cancel of a context with a deadline, a read
 *   can make the fd unreadable until that deadline, for all pollers.
 *
 *   Polling. poll, select (below FD_SETSIZE), epoll and io_uring work. epoll reports a done context at once when you
 *   add the fd, edge-triggered too. Of several EPOLLEXCLUSIVE watchers it may wake only some.
 *
 *   Kind. An eventfd, or a timerfd if ctx has a deadline; non-blocking and close-on-exec.
 *
 *   Shared fds. A value context returns the fd of the nearest cancellable context above it. Contexts that are never
 *   done (background, todo, without_cancel) share one fd, which is never readable and stays open until the process
 *   ends.
 *
 *   Copies. A dup, or a copy sent to another process, polls like the fd and outlives ctx. After ctx is freed, a copy
 *   stays readable if ctx had ended, and otherwise never becomes readable.
 *
 *   Fork. The child must call this again. It gets an fd of its own with another number, and nothing that it does with
 *   that fd reaches the parent. The inherited fd still reports the parent's end. The child may close it; the library
 *   does not use that number in the child again.
 *
 *   Misuse never changes ctx, but it misleads the pollers of the fd:
 *   - A write to an eventfd makes it readable while ctx is live: ask ctxfd_err. A timerfd cannot be written.
 *   - A timerfd that was set anew or disarmed reports a wrong time, until ctx ends or, after the deadline, until
 *     ctxfd_done_fd or ctxfd_err is called.
 *   - A cancel can block if somebody fills an eventfd with writes and clears O_NONBLOCK. Give an untrusted process the
 *     fd of a context with a deadline, however far away: a timerfd cannot be filled. (If the kernel refuses
 *     TFD_IOC_SET_TICKS, repeated disarming can delay a cancel by a second for each such fd.) Other changes of flags
 *     have no effect.
 *   - After a close by mistake, pollers of the fd see nothing. ctxfd_err, ctxfd_wait, ctxfd_sleep and ctxfd_poll still
 *     work. A file that gets the number meanwhile may receive the signal of the end, 8 bytes or a timer tick, and is
 *     closed with ctx.
 */
int ctxfd_done_fd(const struct ctxfd *ctx);

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

/* Sleeps until ctx is done. Returns err. Needs no fd. If ctx is never done, this does not return. */
int ctxfd_wait(const struct ctxfd *ctx);

/* Sleeps for ns nanoseconds, or until ctx is done. Returns 0 after the whole time, otherwise err. Needs no fd. */
int ctxfd_sleep(const struct ctxfd *ctx, int64_t ns);

/*
 * The calls below are the system calls of the same name, and ctx interrupts them. All of them:
 *
 *   - do nothing and return err if ctx is done already;
 *   - return err if ctx ends while they wait. A result that the call has consumed (bytes read or written, an accepted
 *     connection) is always returned, even if ctx ends at the same time;
 *   - return -errno where the system call sets errno. -ETIMEDOUT and -ECANCELED can come from the descriptor too: ask
 *     ctxfd_err if the difference matters;
 *   - retry after EINTR. To interrupt them, end the context;
 *   - wait on blocking and non-blocking descriptors alike, and leave their flags unchanged. They ignore a socket's
 *     SO_RCVTIMEO and SO_SNDTIMEO; the context replaces them;
 *   - may poll before they read or accept, for 100 ms at most, if the thread's last such call on that descriptor number
 *     had to wait. A call that would not have waited still returns its result, even if ctx ends during that poll;
 *   - need no done fd. When a thread first has to wait in one of them, the library makes an fd for the thread and
 *     keeps it until the thread ends (for ever, if that is in the last round of destructors of its specific data, see
 *     pthread_key_create). If there is no fd or no memory for that, they wait all the same, and notice the end of ctx
 *     up to 2 ms late. The child of a fork makes its own; it may close those that it has inherited.
 *
 * Errors of all of these: those of the system call; ECANCELED, ETIMEDOUT (ctx is done); if they have to wait also
 * EINVAL (RLIMIT_NOFILE is below 2: they poll one descriptor more than the caller's), ENOMEM (none in the kernel).
 */

/*
 * poll(2) under ctx. timeout is in nanoseconds; a negative one means none. A descriptor that is ready wins over an end
 * of ctx at the same time. A negative fd is ignored, and a bad one gets POLLNVAL, as with poll. n may be 0.
 * Returns how many fds have revents, 0 after the timeout, err, or -errno.
 * Errors: EINVAL (n is above RLIMIT_NOFILE - 1), ENOMEM (no memory for a copy of fds).
 */
int ctxfd_poll(const struct ctxfd *ctx, struct pollfd *fds, nfds_t n, int64_t timeout);

/*
 * read(2) and write(2), on sockets, pipes and everything else that can be polled. Both may be short; a write returns
 * once some bytes are written, on a blocking descriptor too. On regular files, which never wait for long, these are
 * the plain calls. A read of no bytes returns 0, or an error, at once. On a socket of SOCK_SEQPACKET, write(2) sends
 * with MSG_EOR, and ctxfd_write without it, which vsock and SCTP tell apart: use ctxfd_send there.
 * Returns the number of bytes (0 at the end of a file), err, or -errno.
 *
 * A descriptor with O_NONBLOCK is not polled before the call, except for those 100 ms. A blocking one that supports
 * neither MSG_DONTWAIT nor RWF_NOWAIT, such as a terminal, is polled until it is ready, with these consequences:
 *
 *   - The call is made only after the descriptor has polled ready, even if the plain call would not wait. Some devices
 *     and a message queue's status behave so. (/dev/kmsg and fanotify never poll writable and are written at once.)
 *   - The call waits, and ctx cannot interrupt it, if another reader takes the data after the poll, if a terminal waits
 *     for more data (VMIN with VTIME), or if a terminal or an eventfd has less room than the write needs. Write little
 *     at a time there.
 *   - Pipes are such descriptors before Linux 6.12. They are reopened for the moment of the call, so ctx interrupts
 *     them, unless that fails: no /proc, no permission to open it, no free descriptor.
 */
ssize_t ctxfd_read(const struct ctxfd *ctx, int fd, void *buf, size_t size);
ssize_t ctxfd_write(const struct ctxfd *ctx, int fd, const void *buf, size_t size);

/*
 * recv(2) and send(2). They do not wait with MSG_DONTWAIT, nor does recv with MSG_ERRQUEUE. MSG_WAITALL is ignored:
 * recv returns what is there.
 * Returns the number of bytes (0 from recv at the end of a stream), err, or -errno.
 * Errors: EAGAIN (the call would wait, and the flags forbid it).
 */
ssize_t ctxfd_recv(const struct ctxfd *ctx, int fd, void *buf, size_t size, int flags);
ssize_t ctxfd_send(const struct ctxfd *ctx, int fd, const void *buf, size_t size, int flags);

/*
 * accept4(2). addr and addrlen may be NULL. Returns a new fd, which the caller owns, err, or -errno.
 *
 * Threads of one process may share a blocking listening socket if all of them use this call. Set O_NONBLOCK on a
 * listening socket that several processes share: if another process takes the connection between poll and accept, the
 * call on a blocking socket goes on waiting, and neither ctx nor pthread_cancel interrupts it. Until it returns, no
 * other thread of this process accepts on a blocking socket, though its own context still ends its wait. Set
 * O_NONBLOCK on a Bluetooth socket too: it does not report that it listens (SO_ACCEPTCONN), so it is not polled.
 */
int ctxfd_accept(const struct ctxfd *ctx, int fd, struct sockaddr *addr, socklen_t *addrlen, int flags);

/*
 * connect(2). Returns 0, err, or -errno. If ctx ends first, or pthread_cancel ends the call, the connection is half
 * made: close the socket.
 *
 * A blocking socket is non-blocking for the moment in which the connection is started, and if it is a local one whose
 * listener has no room, again and again until there is some. Two threads or processes must not do this to one socket
 * at a time, nor must the child go on if a signal's handler forks meanwhile: one of the two could wait where neither
 * ctx nor pthread_cancel interrupts it. Set O_NONBLOCK on such a socket.
 */
int ctxfd_connect(const struct ctxfd *ctx, int fd, const struct sockaddr *addr, socklen_t addrlen);

/* ---- Waiting for what is not an fd ------------------------------------------------------------------------------- */

/*
 * pthread_cond_wait(3) under ctx. Other threads signal cond by libc, and can wait at it with or without a context. The
 * caller holds mutex, and holds it again when this returns, also with err.
 *
 *     pthread_mutex_lock(&mutex);
 *     while (!err && is_empty(queue))
 *             err = ctxfd_cond_wait(ctx, &cond, &mutex);
 *
 * Returns 0 when it was woken or for no reason (at least once a second, unless ctx is never done), err, or -errno. A
 * wake-up is never lost: a call that takes one and returns err wakes another waiter by pthread_cond_signal.
 *
 * A cancel of ctx wakes all who wait at cond; those who wait under other contexts return 0. ctxfd_cancel never takes
 * mutex, so the canceller may hold it. After the last call at cond has returned, cond may be destroyed, even if the
 * cancel that ended it is still running. Do not destroy it earlier. For pthread_cond_wait it is enough that all waiters
 * have been woken; here a call that returns err may still signal cond then, and a cancel may still broadcast it.
 *
 * A cancel calls pthread_cond_broadcast, which in glibc waits until threads that were woken at cond before have left
 * it. So a thread that was woken, but stays in a signal handler or in a stopped process (if processes share cond),
 * holds up a cancel of other waiters there. In the child of a fork, initialise a cond anew at which threads of the
 * parent waited: to libc they wait there still, and a cancel in the child would wait for them.
 *
 * Needs no fd and no thread. If there is no memory, a cancel is noticed up to 2 ms late. In a 32-bit program with
 * glibc, a cancel at the moment in which a wait begins is noticed up to 100 ms late. Before glibc 2.30, if cond uses
 * CLOCK_REALTIME and the date is set back during the wait, the deadline comes later by that time.
 *
 * Errors: ECANCELED, ETIMEDOUT (ctx is done), EPERM (mutex checks its owner, which is not the caller), EOWNERDEAD
 * (mutex is robust and its owner has died; the caller holds it), ENOTRECOVERABLE (mutex is robust and cannot be used
 * any more; the caller does not hold it). If ctx ends during the wait, the last three win over err.
 */
int ctxfd_cond_wait(const struct ctxfd *ctx, pthread_cond_t *cond, pthread_mutex_t *mutex);

/*
 * FUTEX_WAIT of futex(2) under ctx: sleeps while the 32 bits at word equal expected, until somebody wakes them by
 * FUTEX_WAKE or ctx ends. flags is 0 if only threads of this process use the word, or CTXFD_FUTEX_SHARED if it is in
 * memory that processes share.
 *
 * Returns 0 when it was woken, when the word differs from expected, or for no reason, err, or -errno. So look at the
 * word again. If a FUTEX_WAKE has counted this waiter, the result is 0 even if ctx ends at the same time: no wake-up is
 * lost. It retries after EINTR. Needs no fd.
 *
 * Before Linux 5.16, or where futex_waitv is forbidden, a cancel is noticed up to 16 ms late; a deadline is not. Where
 * all futex calls are forbidden, it sleeps for a millisecond and returns 0.
 *
 * Errors: ECANCELED, ETIMEDOUT (ctx is done), EINVAL (word is not aligned to 4 bytes, or flags has an unknown bit),
 * EFAULT (word cannot be read).
 */
#define CTXFD_FUTEX_SHARED 1U
int ctxfd_futex_wait(const struct ctxfd *ctx, const volatile void *word, uint32_t expected, unsigned flags);

/*
 * waitid(2) under ctx, for the process behind pidfd. Waits until the process has ended, and takes its status. options
 * is WEXITED, alone or with WNOWAIT (the status stays there to be taken) and WNOHANG (the call does not wait;
 * info->si_pid is 0 if the process has not ended). info may be NULL. A status that is there is returned even if ctx is
 * done. Retries after EINTR. A child made by clone with any exit signal, or none, counts (as with __WALL).
 *
 * Returns 0, err, or -errno. Errors: ECANCELED, ETIMEDOUT (ctx is done); EINVAL (other options; pidfd is negative; the
 * kernel is older than 5.4 and cannot do it; the call has to wait and RLIMIT_NOFILE is below 2), EBADF (pidfd is not a
 * pidfd), ECHILD (the process is not a child of this one; or its status was taken, or is discarded because SIGCHLD is
 * ignored), ENOMEM (the call has to wait, and the kernel has no memory for that).
 */
#ifdef SI_USER /* if not, <signal.h> hides siginfo_t, as it does in strict C99 */
int ctxfd_waitid(const struct ctxfd *ctx, int pidfd, siginfo_t *info, int options);
#endif

/* How many functions ctxfd_call runs at a time, including those that it has abandoned. */
#define CTXFD_CALL_MAX 256

/*
 * Calls fn(arg) on a thread of the library, and waits for it under ctx. It is for a function that nothing can
 * interrupt: the open of a FIFO, flock, a blocking call in another library.
 *
 *   0        fn has returned. *result is what it returned; result may be NULL. The caller owns arg again.
 *   err      ctx has ended first. The caller does not own arg any more. If fn has begun, it is abandoned: it goes on,
 *            and drop(arg) is called after it, on its thread. If it has not, it never does, and drop(arg) is called
 *            before this returns. drop is called once; it may be NULL.
 *   -errno   fn never runs, and the caller still owns arg.
 *
 * If fn has returned, this returns 0, even if ctx ends at the same time. Give arg memory of its own, which is freed by
 * the caller after 0, and otherwise by drop. fn and drop must use nothing else that may be gone when they run. If fn
 * obtains something, such as a descriptor or a lock, it stores it in arg, so that drop can give it back.
 *
 * The call is a cancellation point while it waits. pthread_cancel abandons fn as the end of ctx does; if fn has
 * returned by then, or has not begun, drop(arg) is called on the thread that is cancelled.
 *
 * The threads are named "ctxfd-call". They have a stack of the default size, the signal mask of the thread "ctxfd" (see
 * below), and cancellation by pthread_cancel disabled. They inherit what the kernel keeps per thread (namespaces after
 * setns, scheduling, CPUs) from the thread whose call made them, which need not be the caller: the library uses threads
 * again, and ends those that are idle for some seconds. exit does not wait for fn, and ends idle threads (see below).
 * If fn ends its thread (pthread_exit), *result is -ECANCELED. drop must return. A C++ exception must not leave fn or
 * drop. In the child of a fork, fn does not go on and drop is not called; if fn itself forks, its thread in the child
 * ends after fn.
 *
 * Returns 0, err, or -errno.
 * Errors: ECANCELED, ETIMEDOUT (ctx is done); EAGAIN (CTXFD_CALL_MAX functions run already, or no thread), ENOMEM.
 */
int ctxfd_call(const struct ctxfd *ctx, int (*fn)(void *arg), void *arg, void (*drop)(void *arg), int *result);

/* ---- After-funcs and dispatchers --------------------------------------------------------------------------------- */

/*
 * Calls fn(arg) once after ctx has ended: Go's AfterFunc. If ctx is done already, fn is due at once. fn runs on the
 * dispatcher of ctx (see below), never inside this call or ctxfd_cancel, and with no lock held. On each dispatcher,
 * functions that were registered on a context before it ended start in the order of registration. Starts the library's
 * thread if ctx has no other dispatcher.
 *
 * The registration keeps ctx alive: if its owners give it up, fn still runs when a parent or the deadline ends it.
 * While fn runs, it owns a reference on ctx, so fn may do with ctx and with any other context what an owner may:
 * derive, register, stop, cancel, close. On a context that is never done fn never runs, and only ctxfd_after_stop
 * frees the registration.
 *
 * If handle is not NULL, *handle must be given to ctxfd_after_stop once, whether fn has run or not. If handle is NULL,
 * the registration frees itself after fn.
 *
 * fn must not wait for something that only its own dispatcher can do, such as running another after-func or ending a
 * context of ctxfd_with_fd: it would wait forever. fn may end its thread (pthread_exit), or throw a C++ exception
 * through ctxfd_dispatcher_run: other due functions stay due. The library replaces its own thread; if no new one can
 * start, a later call tries again, as in the child of a fork (see below). fn must not leave by longjmp. fn runs with
 * cancellation by pthread_cancel disabled.
 *
 * If fn interrupts another thread's call, the interruption must last, since fn runs once. A shutdown, a flag and an
 * eventfd last. A pthread_kill does not: it is lost if it comes just before the call.
 *
 * Returns 0, or -errno.
 * Errors: EINVAL (ctx or fn is NULL), ENOMEM; if the library's thread has to start also EAGAIN (no thread), EMFILE,
 * ENFILE, ENOSPC (the user's limit of epoll watches).
 */
int ctxfd_after_func(const struct ctxfd *ctx, void (*fn)(void *arg), void *arg, struct ctxfd_after **handle);

/*
 * Stops an after-func and frees its handle. When this returns, fn is not running on another thread and will not start,
 * so arg can be freed. If fn is running, this waits until it has returned, but not if it is called inside that fn. So
 * do not call this with a lock held that fn takes. handle may be NULL.
 * Returns true if fn never ran and never will, false if fn has run, is the caller, or handle is NULL.
 */
bool ctxfd_after_stop(struct ctxfd_after *handle);

/*
 * DISPATCHERS. A dispatcher runs callbacks. The dispatcher of a context is that of the nearest ctxfd_with_dispatcher
 * above it, or else the library's own. It serves what is registered on the context: after-funcs, and the fds, signals,
 * processes, idle timeouts and graces of contexts made from it. So a server with one loop per core makes one dispatcher
 * per loop and derives the requests of a loop from a context that names it. A library that registers an after-func on a
 * request's context is then called back on that request's loop.
 *
 * A thread named "ctxfd" runs the library's own dispatcher. It starts when something is first registered there, and
 * sleeps when nothing is due. It has a stack of the default size, and inherits what the kernel keeps per thread
 * (namespaces after setns, scheduling, CPUs) from the thread for which it started. All signals are blocked in it except
 * those that report faults of fn (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT); a process that fn starts
 * inherits this mask unless fn sets another. A slow fn delays the others on the same dispatcher. If the main thread
 * ends by pthread_exit, this thread keeps the process alive; exit, and returning from main, end the process as usual.
 *
 * EXIT ends the library's idle threads. The destructors of what functions have left in these (pthread_key_create, a
 * thread_local of C++) run then. This happens as if the library had called atexit just before it made its first thread,
 * so what the program had made by then still exists. The destructors may wait for something that the exiting thread
 * holds: after a tenth of a second exit goes on without them. It does not wait for a thread that runs a function. An
 * exit handler that runs later can still wait for a context: a new thread starts for it as in the child of a fork (see
 * below), and ends after the handler. A thread that was asleep under a context already does not start one. So a handler
 * that joins such a thread must first call ctxfd_err, with any context; otherwise what the thread waits for may never
 * come.
 *
 * FORK. In the child, a new thread serves what was registered with the library's own dispatcher. It starts at the first
 * call there of ctxfd_err, ctxfd_cause, ctxfd_done_fd or any function that waits or registers, or at a cancel that
 * makes an after-func due or begins a grace. If it cannot start (no thread, or no fd), the next of these calls tries
 * again. A call that waits tries only as it begins: if that failed, or if it began before a signal's handler forked, it
 * may wait for ever for what the thread was to do. The library closes the inherited fds of the program's dispatchers;
 * such a dispatcher works again once the child calls ctxfd_dispatcher_fd or ctxfd_dispatcher_run. A thread in
 * ctxfd_dispatcher_run counts as inside the library, except while it runs fn.
 */
struct ctxfd_dispatcher;

/*
 * Makes a dispatcher for a loop of the program. It makes fds and starts no thread.
 * Returns the dispatcher with one reference, which the caller owns, or NULL with errno set.
 * Errors: EMFILE, ENFILE, ENOMEM, ENOSPC (the user's limit of epoll watches).
 */
struct ctxfd_dispatcher *ctxfd_dispatcher_new(void);

/*
 * Gives up the caller's reference. d may be NULL. Every context that names d holds a reference too: until the last of
 * them is gone, the fd of d works and d can be run. If no thread runs d any more, what is registered with it does not
 * happen, and is freed with its contexts; but a due after-func keeps its context until it has run or is stopped.
 */
void ctxfd_dispatcher_free(struct ctxfd_dispatcher *d);

/*
 * An fd that polls readable when ctxfd_dispatcher_run has something to do. Add it to your loop, level- or
 * edge-triggered, in as many threads as you like. It belongs to d, so never close it; it is close-on-exec. Every call
 * returns the same number; in the child of a fork, call it again to get the child's own.
 * Returns the fd, or -errno. Errors, only in the child of a fork: EMFILE, ENFILE, ENOMEM, ENOSPC.
 */
int ctxfd_dispatcher_fd(struct ctxfd_dispatcher *d);

/*
 * Does what is due, and does not wait for more. One thread at a time runs a dispatcher. Nothing is lost if another
 * thread gets -EBUSY: the thread that runs d does what has come due meanwhile, or the fd becomes ready again, with a
 * new edge. fn may run another dispatcher.
 * Returns the number of after-funcs that ran and contexts that ended, 0 if nothing was due, or -errno.
 * Errors: EBUSY (another thread runs d, or the caller is an fn that d runs); in the child of a fork also EMFILE,
 * ENFILE, ENOMEM, ENOSPC.
 */
int ctxfd_dispatcher_run(struct ctxfd_dispatcher *d);

/*
 * A context whose dispatcher is d, or the library's own if d is NULL. It holds a reference on d. Like a value context
 * it is not a node of the cancellation tree; ctxfd_without_cancel passes the dispatcher on, and a merge has that of
 * its first parent.
 */
const struct ctxfd *ctxfd_with_dispatcher(const struct ctxfd *parent, struct ctxfd_dispatcher *d);

/* ---- Other reasons to end ---------------------------------------------------------------------------------------- */

/*
 * Children of `parent` that can be cancelled like any other context, and that are also cancelled by an event outside.
 * The parent's dispatcher watches for it (see above); if that is the library's own, its thread starts. Each fd or
 * process that is watched takes an fd of the library, and all signals together take one.
 *
 * Errors of all of these, beyond those of every constructor: EAGAIN (no thread), EMFILE, ENFILE, ENOSPC (the user's
 * limit of epoll watches).
 */

/*
 * A child that is cancelled with `cause` when fd reports one of `events`, as with poll; POLLHUP and POLLERR always
 * count. If fd is ready already, the child is done when this returns. The fd is never read, and the caller still owns
 * it.
 *
 * The number fd is used during this call only; after that the open file behind it is watched. If the caller closes the
 * fd and no duplicate is left, the watch ends and cancels nothing, and a file that gets the same number later is not
 * touched. Some hundred contexts can watch one fd; the kernel then reports ENOSPC.
 *
 * Connect a stream socket first: an unconnected one reports POLLHUP, and the child would be done at once. POLLRDHUP
 * (it needs _GNU_SOURCE) reports that the client has hung up, even while its bytes are unread. It also reports a
 * client that has only shut down its writing side and waits for the answer; the two look the same until an answer is
 * written. To serve such clients pass 0 for `events`: the child then ends when the connection is reset or broken,
 * usually after a write. POLLIN ends the child at the first byte, too.
 *
 * Errors: EBADF, EPERM (a file that cannot be polled, such as a regular one), ELOOP (an epoll set that watches too
 * many others, at some depth).
 */
struct ctxfd *ctxfd_with_fd(const struct ctxfd *parent, int fd, short events, int cause) CTXFD_GIVES_;

/*
 * A child that is cancelled by the first signal of `set` that comes to the process; its cause is the signal's number.
 * This is Go's signal.NotifyContext. If several contexts listen for one signal, all of them end. No thread needs to
 * block the signals, and no mask is changed.
 *
 * While a live context listens for a signal, that signal ends contexts and nothing else: the process lives on, and the
 * program's own handler is not called. Signals that are ignored (nohup), or blocked by every thread, count too. As
 * soon as no live context listens, the signal does again what it did before. So a second Ctrl-C ends a program that
 * does not stop by itself, even if its loop hangs.
 *
 * The library sets a handler, and puts the earlier disposition back before a context that a signal ends is seen done,
 * and when the last listening context is freed, unless the program has set another disposition meanwhile. A signal
 * interrupts the calls of the thread that receives it as a handler with SA_RESTART does. A program's own handler that
 * the library calls, because no live context listens, runs with other signals blocked.
 *
 * A program started by exec gets the default disposition for these signals, as for all handled ones. In the child of a
 * fork, inherited contexts listen for the child's signals; but an ignored signal stays ignored until the child first
 * looks at a context. SIGKILL and SIGSTOP are left out of the set. A fault that the kernel reports (SIGSEGV and the
 * like) ends no context, and does what it did before.
 *
 * Errors: EINVAL (set is NULL, or empty without SIGKILL and SIGSTOP), EBUSY (four times the program has set a handler
 * of its own for one signal over the library's, without taking one away, and then made a context for it).
 */
struct ctxfd *ctxfd_with_signals(const struct ctxfd *parent, const sigset_t *set) CTXFD_GIVES_;

/*
 * A child that is cancelled with `cause` when the process behind pidfd (from pidfd_open or clone3) ends. It does not
 * reap the process: call waitpid yourself. The caller still owns pidfd. To have a command stopped by a context, see
 * ctxfd_process.h.
 * Errors: EBADF, EINVAL (pidfd is not a pidfd).
 */
struct ctxfd *ctxfd_with_process(const struct ctxfd *parent, int pidfd, int cause) CTXFD_GIVES_;

/* ---- Idle timeouts ----------------------------------------------------------------------------------------------- */

/*
 * A child that also ends, with -ETIMEDOUT, once nobody has touched it for `timeout` nanoseconds, and never earlier. The
 * time counts from this call, and again from each ctxfd_touch. `cause` is what ctxfd_cause returns after that end; 0
 * means -ETIMEDOUT.
 *
 * If `timeout` is 0 or negative, the child is done when this returns. INT64_MAX, or a timeout that overflows the clock,
 * means no timeout. A child of a done parent has the parent's err and cause, whatever `timeout` is.
 *
 * The parent's dispatcher ends the child, not the clock: until it has done so, ctxfd_err returns 0 and a touch counts.
 * So this end is not a deadline, and ctxfd_deadline and ctxfd_remaining do not tell of it. If the dispatcher is the
 * library's own, its thread starts. If nobody runs the dispatcher, the timeout does not end the child. The child takes
 * no fd of the library.
 *
 * Errors, if the library's thread has to start: EAGAIN (no thread), EMFILE, ENFILE, ENOSPC (the user's limit of epoll
 * watches).
 */
struct ctxfd *ctxfd_with_idle(const struct ctxfd *parent, int64_t timeout, int cause) CTXFD_GIVES_;

/*
 * Starts the timeout of ctx, a context of ctxfd_with_idle, anew. A touch counts if it comes before the end, however
 * late: if ctx is live when this returns, its timeout ends it no earlier than `timeout` after this call. The contexts
 * above ctx are not touched.
 *
 * Does nothing if ctx is NULL or done, or of another kind, such as a child or a value context of one that could be
 * touched. The call reads the clock and stores the time, with no lock and no system call. If the dispatcher is ending
 * ctx at that moment, the call waits until ctx is done.
 */
void ctxfd_touch(struct ctxfd *ctx);

/* ---- Time to clean up -------------------------------------------------------------------------------------------- */

/*
 * A context for what is to be done after the end of parent, such as a rollback or a farewell to a peer. It has parent's
 * values, but does not end with parent: it ends with -ETIMEDOUT `grace` nanoseconds after it, or when it is cancelled,
 * also before parent has ended. `cause` is what ctxfd_cause returns after that end by time; 0 means -ETIMEDOUT. Make it
 * before the work begins, so that memory cannot be short when it is time to clean up:
 *
 *     struct ctxfd *cleanup = ctxfd_with_grace(request, 2 * CTXFD_SEC, 0);
 *
 * The grace counts from the moment at which parent is cancelled or its deadline passes, however late anyone notices. (A
 * cancel comes to one context after another: to a million of them within milliseconds.) If parent is done already, it
 * counts from this call. It counts from one point in time for good, which ctxfd_deadline and ctxfd_remaining tell once
 * parent has ended; before that they tell of no deadline, here and for what is derived from the context. (A merge tells
 * of the grace of its first parent only.)
 *
 * With a `grace` of 0 or less it ends as soon as parent has ended, and is done when this returns if parent is done.
 * With INT64_MAX, or if parent never ends, or if the time overflows the clock, it never ends by itself.
 *
 * Parent's dispatcher ends it, not the clock: until it has done so, ctxfd_err returns 0. If that is the library's own,
 * its thread starts. If nobody runs the dispatcher, the context does not end by itself. It keeps parent alive, and
 * takes no fd of the library.
 *
 * It follows Go's context.WithoutCancel, with a timeout that begins in a context.AfterFunc.
 *
 * Errors, if the library's thread has to start: EAGAIN (no thread), EMFILE, ENFILE, ENOSPC (the user's limit of epoll
 * watches).
 */
struct ctxfd *ctxfd_with_grace(const struct ctxfd *parent, int64_t grace, int cause) CTXFD_GIVES_;

#ifdef __cplusplus
}
#endif

#endif
