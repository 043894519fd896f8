#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang
#
# An exception of C++ that leaves a group's fn ends the program as it does in any thread: std::terminate, with no frame left
# before. One that fn catches itself is its own business.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

cat >"$dir/throw.cc" <<'EOF'
#include <ctxfd_group.h>
#include <cstdlib>
#include <exception>
#include <stdexcept>

static int catches(const struct ctxfd *, void *)
{
	try {
		throw std::runtime_error("inside");
	} catch (const std::runtime_error &) {
		return 0;
	}
}

static int throws(const struct ctxfd *, void *)
{
	throw std::runtime_error("from fn");
}

static void terminated()
{
	std::_Exit(std::current_exception() ? 7 : 3);
}

int main()
{
	struct ctxfd_group *g = ctxfd_group_new(ctxfd_background(), 1);

	std::set_terminate(terminated);
	if (ctxfd_group_go(g, catches, nullptr) || ctxfd_group_go(g, throws, nullptr))
		return 1;
	ctxfd_group_wait(g);
	return 2;
}
EOF
$CXX -std=c++11 -Wall -Wextra -Werror -Iinclude -o "$dir/throw" "$dir/throw.cc" "$BUILD/libctxfd.a" -pthread || exit 1
timeout $((20 * CTXFD_SLOW)) "$dir/throw"
code=$?
[ $code = 7 ] || echo "exit code $code"
[ $code = 7 ]
