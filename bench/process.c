/* SPDX-License-Identifier: MIT */
/* Commands: /bin/true is run to its end, one after the other. */
#define _GNU_SOURCE /* environ */
#include "bench.h"
#include "ctxfd.h"
#include "ctxfd_process.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

static char *const argv[] = { "/bin/true", NULL };

static void run_command(struct bench *b)
{
	struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 3600 * CTXFD_SEC);
	const struct ctxfd_command command = { .argv = argv };

	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0; i < b->arg; i++) {
			int status = -1;

			wrong |= ctxfd_run(ctx, &command, &status) != 0 || status != 0;
		}
		bench_stop(b, b->arg);
		bench_check(!wrong);
	}
	ctxfd_close(ctx);
}
BENCH("ctxfd", "process/run", run_command)

static void run_by_hand(struct bench *b)
{
	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0; i < b->arg; i++) {
			int status = -1;
			pid_t pid;

			wrong |= posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) != 0;
			wrong |= waitpid(pid, &status, 0) != pid || status != 0;
		}
		bench_stop(b, b->arg);
		bench_check(!wrong);
	}
}
BENCH("floor", "process/run", run_by_hand)
