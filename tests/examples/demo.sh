#!/bin/sh
# SPDX-License-Identifier: MIT
#
# `make demo`: drives the example server with curl, shows what became of each request and why, and fails if it was not
# that.

server=${BUILD:-build}/examples/httpd
slow=${CTXFD_SLOW:-1}
grace=$((500 * slow))
dir=$(mktemp -d) || exit 1
log=$dir/log
failed=0
pid=

cleanup() {
	if [ -n "$pid" ]; then
		kill -KILL "$pid"
	fi
	rm -rf "$dir"
} 2>/dev/null
trap cleanup EXIT
trap 'exit 1' HUP INT PIPE TERM

# wait_for PATTERN: until the server has said so, for ten seconds at most.
wait_for() {
	tries=$((500 * slow))
	until grep -q "$1" "$log"; do
		tries=$((tries - 1))
		if [ $tries -eq 0 ] || ! kill -0 "$pid" 2>/dev/null; then
			echo "      (the server never said: $1)"
			return 1
		fi
		sleep 0.02
	done
}

# get PATH [OPTION...]: a request; sets status, 000 for no answer, and seconds.
get() {
	path=$1
	shift
	curl -q -s --noproxy '*' -o "$dir/body" -w '%{http_code} %{time_total}\n' --max-time $((20 * slow)) "$@" "$url$path" >"$dir/got"
	read -r status seconds <"$dir/got"
}

# said PATTERN: the number that the server gave in the place of \(...\).
said() {
	sed -n "s|^$1.*|\1|p" "$log"
}

ms() {
	awk "BEGIN { printf \"%.1f ms\", $1 * 1000 }"
}

# check CONDITION: in awk's words.
check() {
	if ! awk "BEGIN { exit !($1) }"; then
		echo "      (it should be that $1)"
		ok=false
	fi
}

# result NAME SENTENCE...
result() {
	if $ok; then
		printf '  ok      %s\n' "$1"
	else
		printf '  FAILED  %s\n' "$1"
		failed=$((failed + 1))
	fi
	shift
	printf '            %s\n' "$@"
	ok=true
}

# shellcheck disable=SC2086 # CTXFD_WRAP is a command and its arguments
$CTXFD_WRAP "$server" -v -g ${grace}ms >"$log" 2>&1 &
pid=$!
ok=true
wait_for '^server: listens on' || exit 1
url=$(said 'server: listens on \(http:[0-9./:]*[0-9]\)')
echo "The server listens on $url. Each request calls a backend under a context of its own."

get '/fast'
check "$status == 200"
result 'The backend answers at once' "$status after $(ms "$seconds")."

get '/slow?delay=30s&timeout=100ms'
wait_for '^backend: drops the call of request 2 ' || ok=false
ended=$(said 'request 2: cancelled after \([0-9.]*\) ms, context deadline exceeded')
dropped=$(said 'backend: drops the call of request 2 after \([0-9.]*\) ms')
check "$status == 504"
check "$seconds >= 0.1"
check "$seconds < 10 * $slow"
check "${ended:-0} >= 100"
check "${dropped:-0} > 0"
result 'The backend would take 30 s, the request has 100 ms' \
	"Its deadline cancelled it after $ended ms: context deadline exceeded." \
	"$status after $(ms "$seconds"); the backend call was dropped after $dropped ms."

curl -q -s --noproxy '*' -o "$dir/body3" --max-time $((20 * slow)) "$url/slow?delay=30s&timeout=20s" &
client=$!
wait_for '^request 3: GET' || ok=false
kill "$client"
wait "$client" 2>/dev/null # the shell says so
status=$?
wait_for '^backend: drops the call of request 3 ' || ok=false
ended=$(said 'request 3: cancelled after \([0-9.]*\) ms, Connection reset by peer: answers nobody')
dropped=$(said 'backend: drops the call of request 3 after \([0-9.]*\) ms')
check "$status == 128 + 15"
check "${ended:-0} > 0"
check "${ended:-0} < 20000"
check "${dropped:-0} > 0"
result 'The client hangs up on a call of 30 s' \
	"curl was killed, which cancelled its connection's context, and the request's with it," \
	"after $ended ms: Connection reset by peer. The backend call was dropped after $dropped ms."

curl -q -s --noproxy '*' -o "$dir/body5" -w '%{http_code} %{time_total}\n' "$url/short?delay=300ms" >"$dir/got5" &
short=$!
get '/slow?delay=30s&timeout=20s' &
client=$!
wait_for '^request [45]: GET /short' || ok=false
wait_for '^request [45]: GET /slow' || ok=false
read -r start _ </proc/uptime
kill -TERM "$pid"
wait "$pid"
code=$?
read -r end _ </proc/uptime
pid=
wait "$short"
read -r status seconds <"$dir/got5"
check "$status == 200"
stopped=$(said 'server: stopped within \([0-9.]*\) ms')
result 'SIGTERM comes while a call of 300 ms is in flight' \
	"The server took no new clients, and gave it $grace ms of grace: $(cat "$dir/body5")." \
	"$status after $(ms "$seconds")."
wait "$client"
read -r status seconds <"$dir/got"
ended=$(said 'request [45]: cancelled after \([0-9.]*\) ms, .* answers 503')
dropped=$(said 'backend: drops the call of request [45] after \([0-9.]*\) ms')
check "$status == 503"
check "$seconds < 10 * $slow"
check "${ended:-0} >= $grace"
check "${dropped:-0} > 0"
check "$code == 3"
check "${stopped:-0} >= $grace"
check "$end - $start <= 1.5 * $slow"
result 'and one of 30 s' \
	"The end of the grace cancelled the server's context, and the request's with it: $(cat "$dir/body")." \
	"$status after $(ms "$seconds"); the backend call was dropped after $dropped ms." \
	"Exit code $code, for requests that were cut off, $stopped ms after the signal."

if [ $failed -gt 0 ]; then
	echo "$failed of 5 went wrong. What the server said:"
	sed 's/^/  /' "$log"
	exit 1
fi
