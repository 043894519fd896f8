/* SPDX-License-Identifier: MIT */
/*
 * hiredis MILLISECONDS HOST PORT COMMAND ARG...: a blocking command of Redis that ends with its context: see
 * hiredis_command.h.
 */
#include "command.h"

#include "hiredis_command.h"

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	int err = ctx ? -EINVAL : -errno;

	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		err = -errno;
	else if (ctx && argc > 4)
		err = command_once(ctx, argv[2], argv[3], argc - 4, (const char **)argv + 4, stdout);
	ctxfd_close(ctx);
	return command_end("hiredis", err);
}
