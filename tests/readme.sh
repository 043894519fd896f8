#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# README's first program, compiled as README says: it ends when it hears something, when its time is up, and when there are no fds.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
failed=0

awk '/^```c$/ { if (!n++) { on = 1; next } } /^```$/ { on = 0 } on' README.md >"$dir/hello.c"
command=$(sed -n 's,^make && cc ,cc ,p' README.md | sed -e "s,cc -,$CC -," -e 's, && .*,,' -e "s,build/,$BUILD/," -e "s,hello,$dir/hello,g")
[ -n "$command" ] || { echo "README does not say how to compile it." && exit 1; }
$command || exit 1

# expect CODE SAID COMMAND...
expect() {
	code=$1 said=$2
	shift 2
	timeout $((20 * CTXFD_SLOW)) "$@" >"$dir/said" 2>&1 <&3
	is=$?
	[ $is = "$code" ] && grep -q "$said" "$dir/said" && return
	echo "It should have exited with $code and said \"$said\". It exited with $is and said:"
	cat "$dir/said"
	failed=1
}

exec 3</dev/null
expect 0 'Thank you' "$dir/hello"
mkfifo "$dir/silence"
exec 3<>"$dir/silence"
expect 0 'context deadline exceeded' "$dir/hello"
# The loader needs an fd to find libc; a static program does not.
$command -static 2>/dev/null && expect 1 'no fds left' sh -c 'exec 3<&-; ulimit -n 3; exec "$1"' sh "$dir/hello"
exit $failed
