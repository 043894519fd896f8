/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_process: commands that run under a context. Go's exec.CommandContext; the functions are in libctxfd.
 *
 *     char *argv[] = { "/usr/bin/make", "all", NULL };
 *     struct ctxfd_command make = { .argv = argv, .stop_signal = SIGTERM, .flags = CTXFD_OWN_GROUP };
 *     int status, err = ctxfd_run(ctx, &make, &status);
 *
 *     if (err)
 *             fprintf(stderr, "make: %s\n", ctxfd_strerror(err)); // not started, or its status is lost
 *     else if (ctxfd_err(ctx))
 *             fprintf(stderr, "make: %s\n", ctxfd_strerror(ctxfd_cause(ctx)));
 *
 * The rules of ctxfd.h hold here too. ctxfd_run is a cancellation point of pthread_cancel, the others are not.
 *
 * STOPPING. When its context ends, a command gets `stop_signal`, and SIGCONT in case it is suspended. If it has not
 * ended `grace` later, it gets SIGKILL. A command that may not be signalled, since it runs as another user, is waited
 * for.
 *
 * ZOMBIES. Nothing here leaves one: ctxfd_run reaps the process, and so does the caller of ctxfd_spawn. If the program
 * ignores SIGCHLD, the kernel reaps all children itself, and no status is left. ctxfd_run then returns -ECHILD when the
 * command has ended. It does the same if another thread takes the status, by waitpid(-1, ...) for instance.
 */
#ifndef CTXFD_PROCESS_H
#define CTXFD_PROCESS_H

#include <ctxfd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

#define CTXFD_INHERIT 0 /* for in, out and err: the caller's own */

/*
 * For flags. CTXFD_OWN_GROUP: the command leads a process group of its own, and signals go to the group: to all that it
 * has started, except what has left the group, as daemons do. When the command ends after its context, the rest of the
 * group gets SIGKILL at once. If it ends by itself, the rest is left alone. (It has ended by itself if ctxfd_run, or
 * after ctxfd_spawn a function on the dispatcher, comes to that before ctx ends; functions that are due before it come
 * first.) The group is in the background of the terminal: Ctrl-C does not reach it, and it cannot read from there.
 * (Before Linux 6.9 the rest can be missed if somebody else reaps the process at once, as the caller of ctxfd_spawn
 * may, and another one gets its number within microseconds.)
 *
 * CTXFD_PASS_CONTEXT: the command can get its context by ctxfd_inherited.
 */
#define CTXFD_OWN_GROUP    1U
#define CTXFD_PASS_CONTEXT 2U

/*
 * What is to be run, and how it is stopped. Zero what is not needed. The library uses it during the call only.
 *
 * The process starts with no signal blocked, with the default disposition for every signal, and with no fd but its
 * three and, with CTXFD_PASS_CONTEXT, one more. Other fds of the caller need not be close-on-exec.
 */
struct ctxfd_command {
	/* argv[0] is the path of a file, relative to `directory`. PATH is not searched, and no shell is run. */
	char *const *argv;
	/* NULL: environ. The variable CTXFD_CONTEXT is left out, and set anew by CTXFD_PASS_CONTEXT. */
	char *const *envp;
	/* Where it runs. NULL: in the caller's working directory. */
	const char *directory;
	/*
	 * Its fds 0, 1 and 2. They are duplicates of these fds of the caller, which can be 1 and 2 in any order, or the
	 * same one; -1: /dev/null; CTXFD_INHERIT: of the caller's 0, 1 and 2, or closed if that is. Since 0 is
	 * CTXFD_INHERIT, duplicate an fd 0 that is to be out or err. In a program that closes 0, 1 or 2, some other
	 * file gets that number sooner or later, perhaps one of the library's, and is inherited: open /dev/null there.
	 */
	int in, out, err;
	/* At the context's end. 0: SIGKILL. */
	int stop_signal;
	/* How long after stop_signal it gets SIGKILL, in nanoseconds. 0: five seconds; INT64_MAX: never. */
	int64_t grace;
	unsigned flags; /* CTXFD_OWN_GROUP, CTXFD_PASS_CONTEXT */
};

/*
 * Runs a command, waits for it, and reaps it. If ctx ends first, the command is stopped, as above, and this returns
 * when it has ended. It does not wait for what the command has started, nor until its pipes are closed. Starts no
 * thread. It has one fd meanwhile, three with CTXFD_PASS_CONTEXT, and the thread's own (see ctxfd_poll). pthread_cancel
 * acts on entry; during the wait it stops the command too, and acts when that is reaped. If a signal's handler forks
 * during the wait, the child leaves the command alone, and there the result is -ECHILD.
 *
 * Returns 0, err, or -errno. 0: the command has run and has ended, however it did, and *status is what waitpid(2)
 * stores; status may be NULL. ctxfd_err tells whether ctx has ended. err: ctx was done before, and nothing was started.
 * After -errno no process is left. Errors: those of ctxfd_spawn; ECHILD (the command has run and has ended, but
 * somebody else took the status, or SIGCHLD is ignored); EINVAL, ENOMEM also as of ctxfd_waitid, when the command has
 * been stopped because it cannot be waited for.
 */
int ctxfd_run(const struct ctxfd *ctx, const struct ctxfd_command *command, int *status);

/*
 * Starts a command, and returns when it has called exec. The end of ctx stops it as in ctxfd_run. Poll the pidfd: it is
 * readable when the process has ended. Then reap it, by ctxfd_waitid, or by waitpid(2) with *pid. pid may be NULL.
 *
 * Neither the end of ctx nor pthread_cancel acts here and in ctxfd_run before exec is through. A file on a server that
 * does not answer holds up the call, and so does a SIGSTOP to the process at that moment, until SIGCONT.
 *
 * The dispatcher of ctx does the stopping (see ctxfd_after_func). If that is the library's own, its thread starts.
 * Until it has heard that the process has ended, the library keeps ctx alive and has two fds for it, or four with
 * CTXFD_PASS_CONTEXT; so a dispatcher of the program must be run. The caller may close the pidfd before. If ctx is
 * never done, none of this is needed, except with CTXFD_PASS_CONTEXT. In the child of a fork, contexts that end do not
 * stop the parent's processes.
 *
 * Returns a pidfd (close-on-exec), which the caller owns, err if ctx is done already, or -errno. After a failure no
 * process is left. Errors: ECANCELED, ETIMEDOUT (ctx is done); EINVAL (ctx, command, argv or argv[0] is NULL; an
 * unknown flag; a negative grace; stop_signal is no signal), EBADF (in, out or err is not open), ENOMEM, EMFILE,
 * ENFILE, ENOSYS (a kernel before 5.4), EAGAIN (no process, because of RLIMIT_NPROC or the like; or no thread), ENOSPC
 * (the user's limit of epoll watches), EPERM (forbidden by a sandbox); of the directory and the file, as of chdir(2)
 * and execve(2), among others ENOENT, ENOTDIR, EACCES, ENOEXEC, E2BIG, ELOOP, ENAMETOOLONG, ETXTBSY (also if the
 * program has just written the file, and a child that is made at that moment still has it open).
 */
int ctxfd_spawn(const struct ctxfd *ctx, const struct ctxfd_command *command, pid_t *pid);

/* ---- Contexts from process to process ---------------------------------------------------------------------------- */

/*
 * The context that the process which started this one has passed on by CTXFD_PASS_CONTEXT. It ends, cancelled, when the
 * context there or that process has ended, and with -ETIMEDOUT at the deadline there. Its cause is not passed on. Each
 * call makes a new context, for whose end the library's thread watches. Make one, and derive the others from it.
 *
 * To pass it on, use CTXFD_PASS_CONTEXT again. A program that is executed otherwise inherits it, too; there it also
 * ends when the process that it was passed to has ended.
 *
 * The environment variable CTXFD_CONTEXT is "FD,DEADLINE,INODE", three decimal numbers, so programs in any language can
 * take part. FD is this process's end of a pipe. It polls readable or hung up when the context has ended. Do not read
 * from it, nor close it: a context that has been made of it would not hear of the end any more. DEADLINE is in
 * nanoseconds of CLOCK_MONOTONIC; 9223372036854775807: none. INODE is what fstat(2) says of FD; it tells whether FD has
 * been closed and its number used again.
 *
 * If the process that passed the context on has forked without exec, its own end is noticed when that child has ended,
 * too. The end of the context is noticed at once.
 *
 * Returns a context, which the caller owns, or NULL with errno set. Errors: ENOENT (none was passed on), EBADF (FD has
 * been closed, or is something else by now), EINVAL (the variable is not of this form), ENOMEM, EAGAIN (no thread),
 * EMFILE, ENFILE, ENOSPC (the user's limit of epoll watches; or some hundred contexts have been made, and live).
 */
struct ctxfd *ctxfd_inherited(void) CTXFD_GIVES_;

#ifdef __cplusplus
}
#endif

#endif
