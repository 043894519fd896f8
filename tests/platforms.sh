#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: none
#
# platforms.sh [NAME...]: builds the library and the tests for other machines, compilers and C libraries, and runs them: 32 bits,
# musl, clang, and, emulated by qemu-user, aarch64 and s390x (big-endian). `make check-platforms` calls it.
#
# cmocka is built for each from Debian's source package, of which it is one file. What is missing is installed when we are root on
# a system with apt-get and nothing has to be removed for it; a platform that cannot be built here is named as skipped.
# What cannot run under an emulator is named with its reason, at the end, and counts as skipped.

cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build} MAKE=${MAKE:-make}
case $BUILD in /*) top=$BUILD/platforms ;; *) top=$PWD/$BUILD/platforms ;; esac
mkdir -p "$top"
unset MAKEFLAGS MFLAGS MAKELEVEL
gcc_major=$(gcc -dumpversion 2>/dev/null | cut -d. -f1)

# describe NAME: sets cc, tools (a prefix), emulator, packages, libs.
describe() {
	tools= emulator= libs=
	case $1 in
	m32)
		# Debian's gcc-multilib is this link, and cannot be installed beside cross compilers.
		cc='gcc -m32 -Wno-psabi -idirafter /usr/include/x86_64-linux-gnu' packages="gcc-$gcc_major-multilib"
		;;
	musl)
		# musl's headers first; the kernel's come from the system.
		cc='musl-gcc -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu' packages=musl-tools
		;;
	clang) cc=clang packages=clang ;;
	aarch64) cross aarch64 arm64 ;;
	s390x) cross s390x s390x ;;
	*)
		echo "No such platform: $1"
		exit 1
		;;
	esac
}

cross() {
	tools=$1-linux-gnu- cc=$1-linux-gnu-gcc emulator=qemu-$1 libs=-static
	packages="gcc-$1-linux-gnu libc6-dev-$2-cross qemu-user"
}

# Tests that cannot pass under qemu-user, and why. They are run all the same.
emulator_cannot() {
	case $1 in
	thread_blocks_all_signals_) echo 'the emulator keeps signals of its own' ;;
	taking_over_stops_the_thread_) echo 'a joined thread stays in /proc for a moment' ;;
	a_forked_child_starts_its_own_ | undisturbed_by_a_child_that_starts_a_thread | one_dispatcher_)
		echo 'the emulator cannot start threads in the child of a threaded process' ;;
	*) return 1 ;;
	esac
}

# Programs that are not for a platform at all.
cannot() {
	case $name:$1 in
	aarch64:test_io_race | s390x:test_io_race)
		echo 'two readers of one blocking descriptor need preadv2, which the emulator does not know' ;;
	aarch64:test_fork_dispatcher | s390x:test_fork_dispatcher)
		echo 'the emulator dies of threads in the child of a threaded process' ;;
	musl:test_schedules) echo 'musl has no makecontext' ;;
	musl:test_scale) echo 'musl has no mallinfo2' ;;
	*) return 1 ;;
	esac
}

# works: whether $cc makes programs that run.
works() {
	command -v ${emulator:-true} >/dev/null || return 1
	printf '#include <linux/futex.h>\n#include <sys/epoll.h>\nint main(void) { return 0; }\n' |
		$cc -x c - -pthread $libs -o "$top/probe" 2>"$top/probe.log" && $emulator "$top/probe"
}

install() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
	for try in 1 2; do
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --no-remove $1 >"$top/apt.log" 2>&1 && return
		[ $try = 1 ] && apt-get update >/dev/null 2>&1
	done
	return 1
}

# The source of cmocka, into $top/cmocka. The lists of source packages are kept apart from the system's.
fetch_cmocka() {
	[ ! -e "$top/cmocka/src/cmocka.c" ] || return 0
	rm -rf "$top/apt" "$top/cmocka"
	mkdir -p "$top/apt/lists" "$top/apt/parts" "$top/apt/cache" || return 1
	# What apt has in either of its formats, as lists of sources.
	cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed 's/^Types:.*/Types: deb-src/' >"$top/apt/parts/new.sources"
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p' >"$top/apt/parts/old.list"
	options="-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$top/apt/parts -o Dir::State::lists=$top/apt/lists \
-o Dir::Cache=$top/apt/cache -o APT::Sandbox::User=root"
	(apt-get $options update && cd "$top/apt" && apt-get $options source --download-only --tar-only cmocka) >"$top/apt.log" 2>&1 || return 1
	tar -xf "$top"/apt/cmocka_*.orig.tar.?z -C "$top/apt" && mv "$top"/apt/cmocka-*/ "$top/cmocka"
}

# cmocka for $cc, and a pkg-config file that leads to it alone.
build_cmocka() {
	mkdir -p "$dir/cmocka" || return 1
	have=
	for h in INTTYPES_H SETJMP_H SIGNAL_H STDINT_H STDLIB_H STRINGS_H TIME_H UNISTD_H STRUCT_TIMESPEC GCC_THREAD_LOCAL_STORAGE STRSIGNAL; do
		have="$have -DHAVE_$h"
	done
	$cc -O1 $have -I"$top/cmocka/include" -c "$top/cmocka/src/cmocka.c" -o "$dir/cmocka/cmocka.o" &&
		rm -f "$dir/cmocka/libcmocka.a" && ${tools}ar rcs "$dir/cmocka/libcmocka.a" "$dir/cmocka/cmocka.o" &&
		printf 'Name: cmocka\nDescription: cmocka\nVersion: 1\nCflags: -I%s\nLibs: -L%s -lcmocka\n' \
			"$top/cmocka/include" "$dir/cmocka" >"$dir/cmocka/cmocka.pc"
}

# The library with no warning allowed; the tests may have some that only this platform's headers cause.
build() {
	set -- BUILD="$dir/build" CC="$cc" PKG_CONFIG=pkg-config OBJCOPY="${tools}objcopy" AR="${tools}ar" VARIANT=platform
	export PKG_CONFIG_LIBDIR="$dir/cmocka" URING=no LDLIBS="$libs"
	$MAKE --no-print-directory "$@" WERROR=-Werror all && $MAKE --no-print-directory -k "$@" WERROR= tests
}

# Adds up what program $1 said in $log.
judge() {
	while read -r line; do
		case $line in
		'ok '*) passed=$((passed + 1)) ;;
		'not ok '*'# SKIP'*) skipped=$((skipped + 1)) ;;
		'not ok '*)
			case=${line#* - }
			if [ -n "$emulator" ] && why=$(emulator_cannot "$case"); then
				skipped=$((skipped + 1))
				echo "$name: $1: $case: $why" >>"$top/not-run"
			else
				failed=$((failed + 1)) bad=yes
			fi
			;;
		'# skipped: '*) echo "$name: $1: ${line#\# skipped: }" >>"$top/not-run" ;;
		esac
	done <<-END
		$(grep -aE '^(ok|not ok|# skipped:) ' "$log")
	END
	plan=$(sed -n 's/^1\.\.\([0-9][0-9]*\)$/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
	ran=$(grep -acE '^(ok|not ok) ' "$log")
	if [ "$rc" = 77 ] && [ "$ran" = 0 ]; then
		skipped=$((skipped + 1))
		echo "$name: $1: $(tail -n 1 "$log")" >>"$top/not-run"
	elif [ "$ran" -lt "$plan" ] || [ "$ran" = 0 ] || [ "$rc" -gt 1 ]; then
		failed=$((failed + 1)) bad=yes
		echo "# exit code $rc after $ran of $plan tests" >>"$log"
	fi
}

run() {
	for source in tests/test_*.c; do
		test=$(basename "$source" .c)
		case $test in test_uring*) continue ;; esac
		log=$dir/$test.log bad=
		if why=$(cannot "$test"); then
			skipped=$((skipped + 1))
			echo "$name: $test: $why" >>"$top/not-run"
			continue
		fi
		if [ ! -x "$dir/build/tests/$test" ]; then
			failed=$((failed + 1))
			echo "$name: $test: NOT BUILT, see $dir/build.log"
			continue
		fi
		CMOCKA_MESSAGE_OUTPUT=TAP CTXFD_SLOW=${emulator:+5} CTXFD_EMULATED=$emulator \
			timeout -k 5 600 $emulator "$dir/build/tests/$test" >"$log" 2>&1 </dev/null
		rc=$?
		judge "$test"
		[ -z "$bad" ] || {
			echo "$name: $test: FAILED"
			tail -n 60 "$log" | sed 's/^/    | /'
		}
	done
}

total_passed=0 total_failed=0 total_skipped=0
: >"$top/not-run"
fetch_cmocka || {
	echo "skipped: no source of cmocka is to be had here, see $top/apt.log"
	exit 77
}
for name in ${*:-m32 musl clang aarch64 s390x}; do
	describe "$name"
	dir=$top/$name passed=0 failed=0 skipped=0
	mkdir -p "$dir"
	if ! works && { ! install "$packages" || ! works; }; then
		skipped=1
		echo "$name: it cannot be built here; it needs $packages" >>"$top/not-run"
	elif ! build_cmocka >"$dir/build.log" 2>&1 || ! (build) >>"$dir/build.log" 2>&1 && [ ! -e "$dir/build/libctxfd.so.0" ]; then
		failed=1
		echo "$name: THE BUILD FAILED"
		tail -n 30 "$dir/build.log" | sed 's/^/    | /'
	else
		run
	fi
	echo "$name: $passed passed, $failed failed, $skipped skipped"
	total_passed=$((total_passed + passed)) total_failed=$((total_failed + failed)) total_skipped=$((total_skipped + skipped))
done
if [ -s "$top/not-run" ]; then
	echo 'Not run:'
	sed 's/^/    /' "$top/not-run"
fi
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ $total_failed = 0 ] && [ $total_passed -gt 0 ]
