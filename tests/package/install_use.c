/* SPDX-License-Identifier: MIT */
/* A program of a user's, for install.sh to compile against the installed library: C99, C11 and C++17 alike. */
#include <ctxfd.h>

#include <errno.h>
#include <stdio.h>

static int end_of(const struct ctxfd *ctx)
{
	struct pollfd p;

	p.fd = ctxfd_done_fd(ctx);
	p.events = POLLIN;
	return poll(&p, 1, 10000) == 1 ? ctxfd_err(ctx) : 0;
}

int main(void)
{
	CTXFD_SCOPED struct ctxfd *request = ctxfd_with_timeout(ctxfd_background(), 10 * CTXFD_MSEC);
	struct ctxfd *call = ctxfd_with_cancel(request);

	if (!request || !call)
		return 1;
	ctxfd_cancel(call);
	if (end_of(call) != -ECANCELED || end_of(request) != -ETIMEDOUT)
		return 1;
	printf("%s, %s\n", ctxfd_strerror(ctxfd_err(call)), ctxfd_strerror(ctxfd_err(request)));
	ctxfd_unref(call);
	return 0;
}
