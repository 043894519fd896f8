/* SPDX-License-Identifier: MIT */
/*
 * timeout: a read gets a tenth of a second. This is Go's example of WithTimeout.
 *
 * Output:
 *     read: context deadline exceeded
 *     not before its time: yes
 */
#include <ctxfd.h>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	int64_t start = ctxfd_now();
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_timeout(ctxfd_background(), 100 * CTXFD_MSEC);
	int fds[2];
	char byte;
	ssize_t n;

	if (!ctx || pipe(fds) < 0) {
		perror("timeout");
		return 1;
	}
	n = ctxfd_read(ctx, fds[0], &byte, 1);
	if (n != -ETIMEDOUT) {
		fprintf(stderr, "read: %s\n", ctxfd_strerror((int)n));
		return 1;
	}
	printf("read: %s\n", ctxfd_strerror((int)n));
	printf("not before its time: %s\n", ctxfd_now() - start >= 100 * CTXFD_MSEC ? "yes" : "no");
	close(fds[0]);
	close(fds[1]);
	return 0;
}
