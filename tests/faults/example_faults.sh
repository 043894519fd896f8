#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# Runs every example with the nth call of each function that can fail made to fail, n = 1, 2, ... (example_faults.c is
# preloaded). Each run ends in time: with exit code 0 and the output that the example promises, if the failure could be
# hidden, else with a code and a message. It kills nobody but its children, and leaves none behind.

examples=${BUILD:-build}/examples
slow=${CTXFD_SLOW:-1}
most=6 # calls of one function in one example; a loop would make millions
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT PIPE TERM
shim=$dir/faults.so

# shellcheck disable=SC2086 # flags
if ! ${CC:-cc} ${CFLAGS:--O2} -std=gnu11 -Wall -Wextra -Werror -shared -fPIC -pthread -o "$shim" \
	tests/faults/example_faults.c -ldl 2>"$dir/errors"; then
	if grep -q libc_malloc "$dir/errors"; then
		echo "the C library is not glibc"
		exit 77
	fi
	cat "$dir/errors"
	exit 1
fi

# drive NAME RUN: waits for the example's first words, and does from outside what it needs. The signal goes to the example
# itself: timeout would hand it on twice, of which the second kills, or, newer ones, not at all if it is ignored.
drive() {
	case $1 in pipeline | httpd) ;; *) return ;; esac
	tries=$((500 * slow))
	until [ -s "$2/output" ] || [ $tries = 0 ]; do
		kill -0 "$pid" 2>/dev/null || return
		sleep 0.02
		tries=$((tries - 1))
	done
	if [ "$1" = pipeline ]; then
		kill -INT "$(cat "$2/pid")"
		return
	fi
	url=$(sed -n 's/^server: listens on //p' "$2/output")
	[ -z "$url" ] || for delay in 0ms 9s; do
		curl -q -s --noproxy '*' --max-time $((5 * slow)) "$url?timeout=20ms&delay=$delay"
	done >/dev/null 2>&1
	kill -USR1 "$(cat "$2/pid")"
	kill -TERM "$(cat "$2/pid")"
} 2>/dev/null

# left_over SESSION: its processes but for zombies.
left_over() {
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v session="$1" '{
		name = $0
		sub(/\).*/, ")", name)
		sub(/.*\) /, "")
		if ($1 != "Z" && $4 == session)
			print name
	}'
}

# run NAME RUN FAULT: the example, in a session of its own so that nothing that it starts can hide.
run() {
	mkdir -p "$2"
	# shellcheck disable=SC2016 # for the inner shell
	setsid timeout -s KILL $((20 * slow)) sh -c 'echo $$ >"$0" && exec "$@"' "$2/pid" \
		env LD_PRELOAD="$shim" FAULT_LOG="$2/log" FAULT="$3" "$examples/$1" >"$2/output" 2>"$2/errors" </dev/null &
	pid=$!
	drive "$1" "$2"
	wait $pid 2>/dev/null
	echo $? >"$2/code"
	left_over $pid >"$2/left"
}

# judge NAME RUN: says what is wrong with a run.
judge() {
	code=$(cat "$2/code")
	sed -n '/^ \* Output:/,/^ \*\//s/^ \*     //p' "src/examples/$1.c" >"$2/expected"
	if [ "$code" = 137 ]; then
		echo "no end"
	elif [ "$1.$code" = pipeline.130 ]; then
		: # its context had ended before our SIGINT came, which then does what it always did
	elif [ "$code" -gt 128 ]; then
		echo "dies of signal $((code - 128))"
	elif [ "$code" != 0 ] && [ ! -s "$2/errors" ]; then
		echo "exit code $code and no message"
	elif [ "$code" = 0 ] && [ -s "$2/expected" ] && ! cmp -s "$2/expected" "$2/output"; then
		echo "exit code 0, and the output is another"
	fi
	grep '^killed' "$2/log"
	sed 's/^/leaves behind: /' "$2/left"
}

n=0
failed=0
for source in src/examples/*.c; do
	name=$(basename "$source" .c)
	case $name in uring_*) continue ;; esac
	if [ "$name" = httpd ] && ! command -v curl >/dev/null; then
		continue
	fi
	run "$name" "$dir/$name" 'nothing 0'
	calls=$(sed -n 's/^called //p' "$dir/$name/log" | sort)
	for call in $calls; do
		(
			i=1
			while [ $i -le $most ]; do
				run "$name" "$dir/$name/$call.$i" "$call $i"
				grep -q '^failed' "$dir/$name/$call.$i/log" || break
				i=$((i + 1))
			done
		) &
	done
	wait
	for result in "$dir/$name" "$dir/$name"/*.*/; do
		runs=$((runs + 1))
		judge "$name" "$result" | sed "s,^,# $(basename "$result"): ,"
	done >"$dir/wrong"
	n=$((n + 1))
	if [ -s "$dir/wrong" ]; then
		echo "not ok $n $name"
		cat "$dir/wrong"
		failed=1
	else
		echo "ok $n $name"
	fi
	echo "# $runs runs:" $calls
	runs=0
done
echo "1..$n"
exit $failed
