/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_group: threads that work on one thing and end together. Go's errgroup; the functions are in libctxfd.
 *
 *     static int fetch(const struct ctxfd *ctx, void *page);             // 0, or what went wrong
 *
 *     struct ctxfd_group *g = ctxfd_group_new(ctx, 4);                   // four at a time
 *     int err = g ? 0 : -errno, result;
 *
 *     for (int i = 0; !err && i < n; i++)
 *             err = ctxfd_group_go(g, fetch, &pages[i]);                 // waits while four are at work
 *     result = ctxfd_group_wait(g);                                      // the first fetch that failed, or 0
 *
 * A group has a context. The first function that fails ends it, and so stops the others, if they ask their context: no
 * thread is stopped by force. When ctxfd_group_wait has returned, nothing of the group is left.
 *
 * The rules of ctxfd.h hold here. No function is a cancellation point of pthread_cancel.
 */
#ifndef CTXFD_GROUP_H
#define CTXFD_GROUP_H

#include <ctxfd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ctxfd_group;

/* ---- Groups of threads ------------------------------------------------------------------------------------------- */

/*
 * A group without threads. Its context is a child of parent. At most `limit` threads of it exist at a time; 0 means no
 * limit. Starts no thread and makes no fd. ctxfd_group_wait frees it.
 *
 * Returns the group, which the caller owns, or NULL with errno set.
 * Errors: EINVAL (parent is NULL), ENOMEM.
 */
struct ctxfd_group *ctxfd_group_new(const struct ctxfd *parent, unsigned limit);

/*
 * The group's context, which each fn gets as well. It ends when an fn fails, when the group is cancelled, when parent
 * ends, or at the end of ctxfd_group_wait. It belongs to the group: take a reference to use it after ctxfd_group_wait.
 *
 * Returns the context, or NULL if g is NULL.
 */
const struct ctxfd *ctxfd_group_ctx(const struct ctxfd_group *g);

/*
 * Runs fn(ctx, arg) in a thread of its own, with the group's context as ctx. If `limit` threads are at work, it first
 * waits until one of them has ended. Those who wait get their turn in the order in which they came.
 *
 * Once the group's context has ended, go does not start fn and returns the context's err, at the limit or not; so does
 * a go that is waiting when the context ends, 10 ms late at most. After a failure fn never runs, and the caller keeps
 * arg. After 0 fn runs, even if the context ends before the thread has started.
 *
 * What fn returns is its result. The first result that is not 0 ends the group's context and is the cause, but a
 * positive one gives the cause -ECANCELED (a positive cause is a signal's number). If fn does not return, because its
 * thread ends by pthread_exit or pthread_cancel, its result is -ECANCELED. If a C++ exception leaves fn, the program
 * ends by std::terminate, as in any thread.
 *
 * The thread has the caller's signal mask and a stack of the default size. fn must not detach it. Threads that have
 * ended are joined as the group goes on, so a group may live long. After fn a thread still runs the destructors of its
 * specific data (pthread_key_create). It counts towards the limit until they are done, so go at the limit waits for
 * them, as ctxfd_group_wait does; a go that came later may start first then. They must not use the group.
 *
 * fn may call go for its own group, also while another thread is in ctxfd_group_wait, which then waits for the new
 * thread too. Nobody else may call go any more once ctxfd_group_wait has been called.
 *
 * Returns 0, err, or -errno.
 * Errors: EINVAL (g or fn is NULL), EAGAIN (no thread), ENOMEM, EDEADLK (the caller is an fn of this group, at the
 * limit, and all other threads of the group wait in go as well, so no turn would ever come), ECHILD (in the child of a
 * fork).
 */
int ctxfd_group_go(struct ctxfd_group *g, int (*fn)(const struct ctxfd *ctx, void *arg), void *arg);

/*
 * Ends the group's context, as ctxfd_cancel_cause does; `cause` 0 is none. Waits for no thread. The cause is no result,
 * so ctxfd_group_wait does not return it. Call it from fn, or where it is certain that ctxfd_group_wait has not
 * returned. To stop a group that another thread waits for, cancel a parent of its context. g may be NULL.
 */
void ctxfd_group_cancel(struct ctxfd_group *g, int cause);

/*
 * Waits until all threads of the group have ended and joins them. Then it ends the group's context and frees g. Call it
 * once, from one thread. Nothing interrupts it: to make it short, end the context first.
 *
 * Returns 0 if every result was 0, otherwise the first other one, or -errno. The end of parent, ctxfd_group_cancel and
 * a failed go are no results. But an fn that returns the err of its context has a result.
 *
 * In the child of a fork the group has no threads. There wait only frees the child's copy of the group and ends the
 * child's copy of the context, and go starts nothing. A thread that has just returned from fn counts as inside the
 * library (see ctxfd.h): if there may be one during the fork, the child may only exec or _exit. If fn forks, its child
 * should exec or _exit: if fn returned there, the child's only thread would end.
 *
 * Errors: EINVAL (g is NULL), EDEADLK (the caller is an fn of this group; g is not freed), ECHILD (in the child of a
 * fork; g is freed).
 */
int ctxfd_group_wait(struct ctxfd_group *g);

#ifdef __cplusplus
}
#endif

#endif
