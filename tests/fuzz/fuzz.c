/* SPDX-License-Identifier: MIT */
/*
 * For libFuzzer: bytes are a script (storm/script.h), and every answer of the library is compared with the model's
 * (storm/exact.h), under AddressSanitizer and UndefinedBehaviorSanitizer. What differs is an abort, after the script in
 * words. No fd may be left.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctxfd.h"
#include "storm/exact.h"

#define FDS 512

static struct script script;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

void differs(const char *format, ...)
{
	static char text[16384];
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	print_script(&script, text, sizeof text);
	fprintf(stderr, "\nSTORM_SCRIPT='%s'\n", text);
	abort();
}

static void look_for_fds(bool is_open[FDS])
{
	for (int fd = 0; fd < FDS; fd++)
		is_open[fd] = fcntl(fd, F_GETFD) >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static bool before[FDS], after[FDS];
	static bool warm;
	int curious;

	decode_script(&script, &curious, bytes, size);
	if (!warm) { /* what stays for the life of the process */
		struct ctxfd *ctx = ctxfd_with_cancel(ctxfd_background());

		ctxfd_done_fd(ctxfd_background());
		ctxfd_poll(ctx, NULL, 0, 1); /* this thread's waker */
		ctxfd_close(ctx);
		warm = true;
	}
	look_for_fds(before);
	play_exact(&script, curious);
	look_for_fds(after);
	for (int fd = 0; fd < FDS; fd++)
		if (before[fd] != after[fd])
			differs("fd %d is left", fd);
	return 0;
}
