#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The example server as an HTTP server: what the demo does not show. (The demo is a test too.)

server=${BUILD:-build}/examples/httpd
slow=${CTXFD_SLOW:-1}
. tests/support/tap

# get [OPTION...] URL...: "STATUS CONNECTIONS;" for each, where 0 is a connection used again.
get() {
	curl -q -s --noproxy '*' -w '%{http_code} %{num_connects};' --max-time $((20 * slow)) "$@" | tr -d '\n'
}

# wait_for FILE PATTERN [HOW_OFTEN]: until so many lines match, for ten seconds at most.
wait_for() {
	tries=$((500 * slow))
	until [ "$(grep -c "$2" "$1")" -ge "${3:-1}" ] || [ $tries = 0 ]; do
		sleep 0.02
		tries=$((tries - 1))
	done
}

# serve [OPTION...]: starts a server; sets pid and url.
serve() {
	: >"$dir/log"
	# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
	$CTXFD_WRAP "$server" "$@" >"$dir/log" 2>"$dir/errors" &
	pid=$!
	wait_for "$dir/log" '^server: listens on '
	url=$(sed -n 's/^server: listens on //p' "$dir/log")
}

# ended: waits for the server; sets result.
ended() {
	wait "$pid"
	result=$?
	pid=
}

# connect_idly: a client that sends an empty line and waits. $dir/idle says after how long the server hung up.
connect_idly() {
	curl -q -s --noproxy '*' -w '%{time_total}\n' --max-time $((20 * slow)) "gopher${url#http}" >"$dir/idle" &
	idle=$!
}

# hung_up: waits for that.
hung_up() {
	wait "$idle"
	idle=
}

# between MIN MAX: whether that long, in seconds.
between() {
	awk "{ print (\$1 >= $1 && \$1 < $2 ? \"yes\" : \$1) }" "$dir/idle"
}

serve
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

port=${url##*:}
# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
$CTXFD_WRAP "$server" "${port%/}" >"$dir/second" 2>&1
expect 'a second server on the same port' '1 listen: Address already in use' "$? $(grep -v ^== "$dir/second")"

for arguments in '-g 5' '-i soon' 65536 -x; do
	# shellcheck disable=SC2086 # two arguments, some of them
	timeout $((20 * slow)) "$server" $arguments >"$dir/second" 2>&1
	expect "httpd $arguments is not understood" "2 1" "$? $(grep -c '^Usage: .* -g 1.5s ' "$dir/second")"
done

(ulimit -n 32 && exec timeout $((20 * slow)) $CTXFD_WRAP "$server") >"$dir/second" 2>&1
expect 'no descriptors for a client' '1 RLIMIT_NOFILE: Too many open files' "$? $(grep -v ^== "$dir/second")"

kill -TERM "$pid"
ended
expect 'nothing is left' 0 $result

# A connection is used by requests, not by being open, nor by a request that takes long.
serve -i ${slow}s
connect_idly
short="$url?delay=$((300 * slow))ms&timeout=60s"
expect 'a connection is kept while it is used' 'done200 1;done200 0;done200 0;done200 0;done200 0;' \
	"$(get "$short" "$short" "$short" "$short" "$url")"
hung_up
expect 'one that nobody uses is closed, and not before its time' yes "$(between $slow $((20 * slow)))"
expect 'a request that takes longer is the last one' 'done200 1;done200 1;' "$(get "$url?delay=$((1500 * slow))ms&timeout=60s" "$url")"
kill -TERM "$pid"
ended
expect 'nothing is left of idle ones' 0 $result

# All that is running ends within the grace.
serve -v -g $((20 * slow))s
connect_idly
get -D "$dir/head" "$url?delay=1s" >"$dir/got" &
client=$!
wait_for "$dir/log" '^request 1: GET'
kill -USR1 "$pid"
wait_for "$dir/errors" with_deadline
kill -TERM "$pid"
wait_for "$dir/log" '^loop: stops' 2
curl -q -s --noproxy '*' "$url"
expect 'no new client after SIGTERM' 7 $?
wait $client
expect 'what runs goes on' done200 "$(sed 's/ .*//' "$dir/got")"
expect 'and is the last of its connection' 'Connection: close' "$(tr -d '\r' <"$dir/head" | grep '^Connection')"
ended
expect 'all was answered' '0 ' "$result $(grep ^httpd "$dir/errors")"
hung_up
expect 'the idle one had to go' yes "$(between 0 $((15 * slow)))"
expect 'SIGUSR1 shows what is live, and where' \
	'>>>>>>>>with_deadline;>>>>>>with_fd;>>>>with_cancel;>>with_grace;>>with_idle;with_signals;' \
	"$(sed -n 's/\(with_[a-z]*\) .*: live.*/\1/p' "$dir/errors" | LC_ALL=C sort -u | tr ' \n' '>;')"

# It does not.
serve -v -g 100ms
get "$url?delay=20s&timeout=20s" >"$dir/got" &
client=$!
wait_for "$dir/log" '^request 1: GET'
kill -TERM "$pid"
ended
wait $client
expect 'what is left at the end of the grace is cut off' 'the server is shutting down503 1;' "$(cat "$dir/got")"
expect 'and the exit code says so' '3 httpd: requests were cut off' "$result $(grep ^httpd "$dir/errors")"

# Nobody has the patience.
serve -v -g 20s
get "$url?delay=20s&timeout=20s" >"$dir/got" &
client=$!
wait_for "$dir/log" '^request 1: GET'
kill -TERM "$pid"
wait_for "$dir/log" '^loop: stops' 2
kill -TERM "$pid"
ended 2>/dev/null # the shell says so
wait $client
expect 'a second SIGTERM ends the server at once' 143 $result

# Clients come all the time.
serve -v -g $((20 * slow))s
i=0
while [ $i -lt 400 ]; do
	echo "url = $url?delay=$((i % 20))ms&timeout=20s"
	echo "output = /dev/null"
	i=$((i + 1))
done >"$dir/many"
curl -q -s --noproxy '*' -w '%{http_code}\n' --parallel -K "$dir/many" >"$dir/codes" 2>/dev/null &
client=$!
wait_for "$dir/log" 'answers 200' 100
kill -TERM "$pid"
ended
wait $client
expect 'SIGTERM under load' 0 $result
expect 'whoever was answered has the answer' "$(grep -c 'answers 200' "$dir/log")" "$(grep -c '^200' "$dir/codes")"

echo "1..$n"
exit $code
