/* SPDX-License-Identifier: MIT */
/*
 * libpq MILLISECONDS CONNINFO SQL: a query that stops on the server when its context ends: see libpq_query.h.
 */
#include "command.h"

#include "libpq_query.h"

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	int err = !ctx ? -errno : argc == 4 ? query_once(ctx, argv[2], argv[3], stdout) : -EINVAL;

	ctxfd_close(ctx);
	return command_end("libpq", err);
}
