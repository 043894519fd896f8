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

# The README's program, pasted, compiled and run: with somebody at the keyboard, and with nobody.
# shellcheck disable=SC2016
sed -n '/^## A program/,/^## /{/^```c$/,/^```$/{/^```/!p;};}' README.md >"$dir/readme.c"
# shellcheck disable=SC2086 # SAN is a list of flags
${CC:-cc} ${SAN:-} -Wall -Wextra -Werror -Iinclude "$dir/readme.c" "${BUILD:-build}/libctxfd.a" -pthread -o "$dir/readme" \
	2>"$dir/errors"
result=$?
if [ $result = 0 ]; then
	mkfifo "$dir/keyboard"
	exec 3<>"$dir/keyboard"
	# shellcheck disable=SC2086
	$CTXFD_WRAP "$dir/readme" <"$dir/keyboard" >"$dir/output" 2>"$dir/errors" || result=$?
	# shellcheck disable=SC2086
	echo | $CTXFD_WRAP "$dir/readme" >>"$dir/output" 2>>"$dir/errors" || result=$?
	printf 'Press Enter within two seconds.\n%s\n' 'context deadline exceeded' >"$dir/expected"
	printf 'Press Enter within two seconds.\n%s\n' 'Thank you.' >>"$dir/expected"
	diff "$dir/expected" "$dir/output" >"$dir/difference" || result=different
fi
report $result 'the program in the README'

for source in src/examples/[!u]*.c; do
	grep -q "($source)" README.md || echo "$source"
done >"$dir/difference"
: >"$dir/errors"
[ ! -s "$dir/difference" ]
report $? 'the README names every example'

echo "1..$n"
exit $code
