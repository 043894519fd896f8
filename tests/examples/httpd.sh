#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The example server as an HTTP server: what the demo does not show. (The demo is a test too.)

server=${BUILD:-build}/examples/httpd
slow=${CTXFD_SLOW:-1}
dir=$(mktemp -d) || exit 1
n=0
code=0
pid=

cleanup() {
	if [ -n "$pid" ]; then
		kill -KILL "$pid"
	fi
	rm -rf "$dir"
} 2>/dev/null
trap cleanup EXIT
trap 'exit 1' HUP INT PIPE TERM

# expect NAME WANTED GOT
expect() {
	n=$((n + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $n $1"
	else
		echo "not ok $n $1"
		echo "# wanted: $2"
		echo "#    got: $3"
		code=1
	fi
}

# get [OPTION...] URL...: "STATUS CONNECTIONS;" for each, where 0 is a connection used again.
get() {
	curl -q -s --noproxy '*' -w '%{http_code} %{num_connects};' --max-time $((20 * slow)) "$@" | tr -d '\n'
}

# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
$CTXFD_WRAP "$server" >"$dir/log" 2>&1 &
pid=$!
tries=$((500 * slow))
until [ -s "$dir/log" ] || [ $tries = 0 ]; do
	sleep 0.02
	tries=$((tries - 1))
done
url=$(sed -n 's/^server: listens on //p' "$dir/log")
long=$(printf '%09000d' 0)
late='context deadline exceeded'

expect 'a connection is kept' 'done200 1;done200 0;' "$(get "$url" "$url?delay=1ms")"
expect 'after a deadline too' "${late}504 1;done200 0;" "$(get "$url?delay=20s&timeout=1ms" "$url")"
expect 'no time at all' "${late}504 1;" "$(get "$url?timeout=0s")"
expect 'one request and no more' 'done200 1;done200 1;' "$(get -H 'Connection: close' "$url" "$url")"
expect 'HTTP/1.0' 'done200 1;done200 1;' "$(get --http1.0 "$url" "$url")"
expect 'a delay that is none' '400 Bad Request400 1;' "$(get "$url?delay=soon")"
expect 'a timeout below zero' '400 Bad Request400 1;' "$(get "$url?timeout=-1s")"
expect 'a method that is not had' '405 Method Not Allowed405 1;' "$(get -d body "$url")"
expect 'a header without end' '431 Request Header Fields Too Large431 1;' "$(get -H "X: $long" "$url")"

# What curl takes for a header is a second request; what it takes for the first one's body is both answers.
second=$(printf 'X: y\r\n\r\nGET / HTTP/1.1\r\nConnection: close')
expect 'two requests sent at once' '2' \
	"$(curl -q -s --noproxy '*' --ignore-content-length --max-time $((20 * slow)) -H "$second" "$url?delay=5ms" | grep -c '^done')"

i=0
while [ $i -lt 20 ]; do
	echo "url = $url?delay=$((20 - i))ms"
	echo "output = /dev/null"
	i=$((i + 1))
done >"$dir/many"
expect 'twenty clients at once' '20' \
	"$(curl -q -s --noproxy '*' -w '%{http_code}\n' --parallel --parallel-immediate -K "$dir/many" 2>/dev/null | grep -c '^200')"

kill -TERM "$pid"
wait "$pid"
expect 'nothing is left' 0 $?
pid=
echo "1..$n"
exit $code
