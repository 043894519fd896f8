#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The examples for io_uring: cat with a timeout, and the echo server, driven by curl. What curl sends comes back as a
# page without a header (--http0.9), which ends when the server closes the connection.

examples=${BUILD:-build}/examples
slow=${CTXFD_SLOW:-1}
. tests/support/tap

# wait_for COMMAND...: until it succeeds, for ten seconds at most.
wait_for() {
	tries=$((500 * slow))
	until "$@" || [ $tries = 0 ]; do
		sleep 0.02
		tries=$((tries - 1))
	done
}

# cat_ ARGS...: uring_cat; leaves its exit code in $result.
cat_() {
	# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
	$CTXFD_WRAP "$examples/uring_cat" "$@" 2>"$dir/errors"
	result=$?
}

# said: what it complained about, without the file's name.
said() {
	sed -n 's/^uring_cat: .*: //p' "$dir/errors"
}

if [ ! -x "$examples/uring_cat" ]; then
	echo 'no liburing, or URING=no'
	exit 77
fi
cat_ </dev/null
if grep '^uring_cat: io_uring: ' "$dir/errors"; then
	exit 77
fi

# ---- cat

head -c 3000000 /dev/urandom >"$dir/big"
printf 'one\n' >"$dir/one"
printf 'two\n' >"$dir/two"
mkfifo "$dir/fifo"
exec 3<>"$dir/fifo"

cat_ "$dir/big" >"$dir/out"
expect 'cat copies a file' "0 same" "$result $(cmp "$dir/big" "$dir/out" && echo same)"
cat_ "$dir/one" "$dir/two" >"$dir/out"
expect 'several files' "0 one two" "$result $(tr '\n' ' ' <"$dir/out" | sed 's/ $//')"
cat "$dir/big" | cat_ -t 3600000 | cat >"$dir/out"
expect 'a pipe to a pipe' same "$(cmp "$dir/big" "$dir/out" && echo same)"
cat_ -t 50 <&3
expect 'gives up on a pipe that stays empty' '124 context deadline exceeded' "$result $(said)"
cat_ -t 200 /dev/zero >&3
expect 'gives up on a pipe that stays full' '124 context deadline exceeded' "$result $(said)"
cat_ "$dir/none"
expect 'a file that is not there' '1 No such file or directory' "$result $(said)"
exec 3>&-

# ---- The echo server

# start OPTION...: the server; sets pid and url.
start() {
	: >"$dir/log"
	"$examples/uring_echo" "$@" >"$dir/log" 2>"$dir/errors" &
	pid=$!
	wait_for [ -s "$dir/log" ]
	url=http://$(sed -n 's/^listens on //p' "$dir/log")
}

# stop: with SIGTERM; leaves its exit code in $result.
stop() {
	kill -TERM $pid
	wait $pid
	result=$?
	pid=
}

echoed() {
	curl -q -s --noproxy '*' --http0.9 --max-time $((60 * slow)) "$@"
}

# logged PATTERN: how often the server has said so.
logged() {
	grep -c "$1" "$dir/log"
}

got_all() {
	[ "$(grep -c '^GET ' "$dir/out")" = 20 ]
}

case $CTXFD_WRAP in
*valgrind*)
	echo "ok $((n + 1)) the echo server # SKIP valgrind stops all threads while one sleeps in io_uring_enter"
	echo "# skipped: the echo server: valgrind stops all threads while one sleeps in io_uring_enter"
	echo "1..$((n + 1))"
	exit $code
	;;
esac

deadline=$((700 * slow))
start -t $deadline
expect 'echo' 'GET /hello HTTP/1.1' "$(echoed "$url/hello" | tr -d '\r' | head -n 1)"
took=$(echoed -o /dev/null -w '%{time_total}\n' "$url")
expect 'a deadline ends the connection' 'late 2' "$(echo "$took $deadline" | awk '$1 * 1000 >= $2 { print "late" }') \
$(sed -n 's/^client \([0-9]*\): .*context deadline exceeded/\1/p' "$dir/log" | tail -n 1)"
echoed -H Expect: -T "$dir/big" "$url" | tail -c 3000000 >"$dir/out"
expect 'a long echo' same "$(cmp "$dir/big" "$dir/out" && echo same)"
curl -q -s --noproxy '*' --http0.9 --max-time 0.1 -o /dev/null "$url"
wait_for grep -q 'hung up' "$dir/log"
expect 'a client hangs up' 1 "$(logged 'hung up')"
echoed --no-progress-meter -Z --parallel-immediate --parallel-max 50 -o /dev/null "$url/[1-50]"
expect 'fifty clients at once' 53 "$(logged 'context deadline exceeded')"
stop
expect 'SIGTERM without clients' '0 stopped: Terminated, 54 clients in all' "$result $(tail -n 1 "$dir/log")"

start -t 3600000
echoed --no-progress-meter -N -Z --parallel-immediate --parallel-max 20 "$url/[1-20]" >"$dir/out" &
clients=$!
wait_for got_all
stop
wait $clients
clients=$?
expect 'SIGTERM ends every connection' '0 20 0' "$result $(logged 'context canceled') $clients"
expect 'and then the server' 'stopped: Terminated, 20 clients in all' "$(tail -n 1 "$dir/log")"

echo "1..$n"
exit $code
