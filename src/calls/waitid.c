/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_waitid: waiting for a process under a context. The loop is like that of attempt.h: ask without waiting, then
 * poll the pidfd, and ask again. No locks, no state.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>

#include "core/kernel.h"
#include "core/thread_cancel.h"
#include "ctxfd.h"

/* Without it waitid does not know a child that was made by clone with another exit signal than SIGCHLD, or none. */
#define ANY_CHILD __WALL

/*
 * One look: 1 when the status is there, 0 when it is not, or -errno. Kept from pthread_cancel, which in some libcs can
 * come after the kernel has handed over the status.
 */
static int look(int pidfd, siginfo_t *info, int options)
{
	struct thread_cancel before = thread_cancel_off();
	int result;

	*info = (siginfo_t){ 0 };
	result = waitid(PIDFD, (id_t)pidfd, info, options | ANY_CHILD | WNOHANG) == 0 ? info->si_pid != 0 : -errno;
	thread_cancel_restore(before);
	return result;
}

/* Waits until the next look is due: 0, err or -errno. vain: the last look came after such a wait, and found nothing. */
static int await_exit(const struct ctxfd *ctx, int pidfd, bool vain)
{
	struct pollfd one = { .fd = pidfd, .events = POLLIN };
	/* Then it polls readable, but has no status yet: a debugger in another process gets that first. Ask slowly. */
	int ready = vain ? ctxfd_poll(ctx, NULL, 0, CTXFD_MSEC) : 0;

	if (ready == 0)
		ready = ctxfd_poll(ctx, &one, 1, -1);
	return ready < 0 ? ready : 0;
}

int ctxfd_waitid(const struct ctxfd *ctx, int pidfd, siginfo_t *info, int options)
{
	siginfo_t found;
	bool vain = false;
	int status, err;

	if (!(options & WEXITED) || options & ~(WEXITED | WNOWAIT | WNOHANG))
		return -EINVAL;
	pthread_testcancel();
	while ((status = look(pidfd, &found, options)) == 0) {
		err = options & WNOHANG ? ctxfd_err(ctx) : await_exit(ctx, pidfd, vain);
		if (err)
			return err;
		if (options & WNOHANG)
			break;
		vain = true;
	}
	if (status < 0)
		return status;
	if (info)
		*info = found;
	return 0;
}
