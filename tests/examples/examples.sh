#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs every example and compares what it prints with the lines under "Output:" in its first comment. Those that must be
# driven from outside are: one gets its Ctrl-C here, the servers have scripts of their own.

examples=${BUILD:-build}/examples
slow=${CTXFD_SLOW:-1}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT PIPE TERM
n=0
code=0

# report RESULT NAME: a failure shows why.
report() {
	n=$((n + 1))
	case $1 in
	0) echo "ok $n $2" ;;
	77) echo "ok $n $2 # SKIP $(sed -n "s/^$2: //p" "$dir/errors")" ;;
	*)
		echo "not ok $n $2"
		echo "# exit code $1"
		cat "$dir/difference" "$dir/errors" | sed 's/^/# /'
		code=1
		;;
	esac
}

# run_example NAME: as it is, or with a Ctrl-C once it has said its first line.
run_example() {
	: >"$dir/output"
	# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
	if [ "$1" != pipeline ]; then
		$CTXFD_WRAP "$examples/$1" >"$dir/output" 2>"$dir/errors"
		return
	fi
	$CTXFD_WRAP "$examples/$1" >"$dir/output" 2>"$dir/errors" &
	tries=$((500 * slow))
	until [ -s "$dir/output" ] || [ $tries = 0 ]; do
		sleep 0.02
		tries=$((tries - 1))
	done
	kill -INT $!
	wait $!
}

# compare NAME FILE: what was printed with what the comment says.
compare() {
	sed -n '/^ \* Output:/,/^ \*\//s/^ \*     //p' "src/examples/$1.c" >"$dir/expected"
	[ -s "$dir/expected" ] && diff "$dir/expected" "$dir/output" >"$dir/difference"
}

for source in src/examples/*.c; do
	name=$(basename "$source" .c)
	case $name in httpd | uring_*) continue ;; esac
	: >"$dir/difference"
	run_example "$name"
	result=$?
	if [ $result = 0 ]; then
		compare "$name" || result=different
	fi
	report $result "$name"
done

# build PROGRAM FILE...: as a user would.
build() {
	program=$1
	shift
	# shellcheck disable=SC2086 # SAN is a list of flags
	${CC:-cc} ${SAN:-} -Wall -Wextra -Werror -Iinclude "$@" "${BUILD:-build}/libctxfd.a" -pthread -o "$dir/$program" \
		2>"$dir/errors"
}

# Beside a program's own source: not one descriptor is left to it. (The loader needs one, so ulimit will not do.)
cat >"$dir/no_fds.c" <<-'END'
	#include <sys/resource.h>
	__attribute__((constructor)) static void none_left(void)
	{
		struct rlimit files;

		if (getrlimit(RLIMIT_NOFILE, &files) < 0)
			__builtin_trap();
		files.rlim_cur = 3;
		if (setrlimit(RLIMIT_NOFILE, &files) < 0)
			__builtin_trap();
	}
END

# without_fds PROGRAM: it must end, with code 1. (What looks for leaks needs a descriptor, too.)
without_fds() {
	# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
	ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 timeout -s KILL $((20 * slow)) $CTXFD_WRAP "$dir/$1" \
		<"$dir/keyboard" >"$dir/output" 2>"$dir/errors" 3<&-
	[ $? = 1 ]
}

mkfifo "$dir/keyboard"
exec 3<>"$dir/keyboard"

# The README's program, pasted, compiled and run: with nobody at the keyboard, with somebody, and with no fds.
# shellcheck disable=SC2016
sed -n '/^## A program/,/^## /{/^```c$/,/^```$/{/^```/!p;};}' README.md >"$dir/readme.c"
: >"$dir/difference"
build readme "$dir/readme.c"
result=$?
if [ $result = 0 ]; then
	# shellcheck disable=SC2086
	$CTXFD_WRAP "$dir/readme" <"$dir/keyboard" >"$dir/output" 2>"$dir/errors" || result=$?
	# shellcheck disable=SC2086
	echo | $CTXFD_WRAP "$dir/readme" >>"$dir/output" 2>>"$dir/errors" || result=$?
	printf 'Press Enter within two seconds.\n%s\n' 'context deadline exceeded' >"$dir/expected"
	printf 'Press Enter within two seconds.\n%s\n' 'Thank you.' >>"$dir/expected"
	diff "$dir/expected" "$dir/output" >"$dir/difference" || result=different
fi
report $result 'the program in the README'

: >"$dir/difference"
build readme_no_fds "$dir/readme.c" "$dir/no_fds.c" && without_fds readme_no_fds && [ -s "$dir/errors" ]
report $? 'the program in the README, with no fds left'

# The lines at the top of the header, as the body of a function.
{
	printf '#include <ctxfd.h>\n#include <errno.h>\n#include <stdio.h>\n'
	printf 'static int in_time(int sock)\n{\n'
	sed -n '/^#ifndef/q; s/^ \*     //p' include/ctxfd.h
	printf '}\nint main(void)\n{\n\treturn in_time(0) < 0;\n}\n'
} >"$dir/header.c"
build header "$dir/header.c" && $CTXFD_WRAP "$dir/header" <"$dir/keyboard" >"$dir/output" 2>"$dir/errors"
result=$?
echo 'context deadline exceeded' | diff - "$dir/output" >"$dir/difference" || result=different
report $result 'the lines at the top of the header'

: >"$dir/difference"
build header_no_fds "$dir/header.c" "$dir/no_fds.c" && without_fds header_no_fds
report $? 'the lines at the top of the header, with no fds left'

for source in src/examples/[!u]*.c; do
	grep -q "($source)" README.md || echo "$source"
done >"$dir/difference"
: >"$dir/errors"
[ ! -s "$dir/difference" ]
report $? 'the README names every example'

echo "1..$n"
exit $code
