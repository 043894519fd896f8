#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang
#
# An exception of C++ that leaves an after-func goes through ctxfd_dispatcher_run to whoever catches it: what else was due is
# left to the next run, the thread can be cancelled as before, and nothing is left over.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

cat >"$dir/throw.cc" <<'END'
#include <ctxfd.h>
#include <pthread.h>
#include <fcntl.h>
#include <stdexcept>

static int ran;

static void throws(void *)
{
	throw std::runtime_error("from fn");
}

static void counts(void *)
{
	ran++;
}

int main()
{
	struct ctxfd_dispatcher *d = ctxfd_dispatcher_new();
	const struct ctxfd *loop = ctxfd_with_dispatcher(ctxfd_background(), d);
	struct ctxfd *ctx = ctxfd_with_cancel(loop);
	struct ctxfd_after *handle;
	struct pollfd p = { ctxfd_dispatcher_fd(d), POLLIN, 0 };
	bool caught = false;
	int state = -1;

	if (ctxfd_after_func(ctx, throws, nullptr, &handle) || ctxfd_after_func(ctx, counts, nullptr, nullptr))
		return 1;
	ctxfd_cancel(ctx);
	try {
		ctxfd_dispatcher_run(d);
	} catch (const std::runtime_error &) {
		caught = true;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	if (!caught || ran || state != PTHREAD_CANCEL_ENABLE || ctxfd_after_stop(handle))
		return 2;
	if (poll(&p, 1, 0) != 1 || ctxfd_dispatcher_run(d) != 1 || ran != 1)
		return 3;
	ctxfd_close(ctx);
	ctxfd_unref(loop);
	ctxfd_dispatcher_free(d);
	return fcntl(p.fd, F_GETFD) >= 0 ? 4 : 0;
}
END
$CXX -std=c++11 -Wall -Wextra -Werror -Iinclude -o "$dir/throw" "$dir/throw.cc" "$BUILD/libctxfd.a" -pthread || exit 1
timeout $((20 * CTXFD_SLOW)) "$dir/throw"
code=$?
[ $code = 0 ] || echo "exit code $code"
exit $code
