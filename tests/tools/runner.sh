#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain asan tsan valgrind
#
# Whether tests/tools/run and the harness find what they are there to find: runs the tests of bad.c, each of which does one
# thing wrong, and compares the verdicts. Under a sanitizer or valgrind, what that one should find.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$dir/tests/tools" "$dir/build/tests"
cp tests/tools/run tests/tools/valgrind.supp "$dir/tests/tools"
$CC ${TEST_CFLAGS:-} ${SAN:-} -D_GNU_SOURCE -g -pthread -Iinclude -Itests/support $(pkg-config --cflags cmocka) -o "$dir/bad" tests/tools/bad.c \
	"$BUILD"/tests/obj/support/harness*.o "$BUILD/tests/libctxfd.a" $(pkg-config --libs cmocka) || exit 1

failed=0
# expect NAME VERDICT [PATTERN]: what is said of it, and a line that its output must have.
expect() {
	: >"$dir/tests/tools/$1.c"
	cp "$dir/bad" "$dir/build/tests/$1"
	CTXFD_SLOW=1 TEST_LIMIT=${limit:-300} BUILD=build "$dir/tests/tools/run" "$1" >"$dir/said" 2>&1
	rc=$?
	if ! grep -q "^$1: $2, [0-9]* s\$" "$dir/said" || ! grep -q "${3:-.}" "$dir/said" ||
		[ $rc != "${4:-1}" ] || ! tail -n 1 "$dir/said" | grep -Eq '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$'; then
		echo "$1 should be: $2, with exit code ${4:-1} and a line like \"${3:-}\". It was, with exit code $rc:"
		sed 's/^/    /' "$dir/said"
		failed=$((failed + 1))
	fi
}

case $VARIANT in
asan)
	expect test_freed '.*FAILED.*' 'heap-use-after-free'
	expect test_lost '1 passed, 1 FAILED (exit code [0-9]*)' 'detected memory leaks'
	expect test_overflow '.*FAILED.*' 'signed integer overflow'
	;;
tsan)
	expect test_race '.*FAILED.*' 'data race'
	;;
valgrind)
	expect test_freed '1 passed, 1 FAILED (exit code 99)' 'Invalid read of size 1'
	expect test_lost '1 passed, 1 FAILED (exit code 99)' 'definitely lost'
	;;
*)
	expect test_none '0 passed, 1 FAILED (ran no test)'
	expect test_all_skipped '0 passed, 1 skipped (skipped: there is no such thing here)' '' 0
	expect test_skip '1 passed, 1 skipped' 'skipped: is_skipped: for the sake of it' 0
	expect test_leaks '2 passed, 5 FAILED'
	for line in 'leaked: fd [0-9]*, /dev/null' 'closed, and was not the test.s: fd 0' \
		'leaked: thread [0-9]*, "test_leaks"' "leaked: 1 of the library's blocks"; do
		grep -q "$line" "$dir/said" || { echo "test_leaks does not say: $line" && failed=$((failed + 1)); }
	done
	expect test_asserts '1 passed, 2 FAILED' 'took 0 us, must be 1000000 to 2000000'
	expect test_crash '1 passed, 2 FAILED (killed by signal 11)' 'crashed: crashes'
	expect test_hang '1 passed, 1 FAILED (killed by signal 9)' 'its time is up: hangs'
	limit=2
	expect test_stuck '1 passed, 2 FAILED (no end after 2 s)'
	limit=
	expect test_orphan '1 passed, 1 FAILED (left a process behind)'
	expect test_thread '0 passed, 2 FAILED (exit code [0-9]*)' 'asserts_in_thread ended the program'
	;;
esac
[ $failed = 0 ]
