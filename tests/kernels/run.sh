#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh [SERIES...]: boots Debian's newest cloud kernel of each series in qemu and runs there the test programs that make has
# built ($TESTS chooses them). "newest" stands for the newest that Debian has. `make check-kernels` calls it.
#
# The kernels come from the mirrors that this system's apt is set up with, through lists of our own; nothing is installed. They stay
# in $BUILD/kernels, and so do the consoles, SERIES.log. The guest has these test programs, the libraries that they need, busybox and
# tests/run, in an initramfs that init.sh starts. Without a KVM that works all of it is emulated, and gets more time.

cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
case $BUILD in /*) top=$BUILD/kernels ;; *) top=$PWD/$BUILD/kernels ;; esac
root=$top/root
mkdir -p "$top/apt/lists" "$top/apt/cache" || exit 1

# qemu SERIES PARAMETERS: starts that kernel with the initramfs; its console is the output.
qemu() {
	timeout --foreground -k 5 $limit qemu-system-x86_64 $machine -smp 2 -m 2048 -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$top/$1.vmlinuz" -initrd "$top/initramfs.gz" -serial stdio -append "console=ttyS0 panic=-1 loglevel=1 $2" </dev/null 2>&1
}

# Chooses the machine: KVM where it can start kernel $1 and switch off, which it may not where this machine is a guest itself.
choose_machine() {
	machine='-accel kvm -cpu max' slow=${CTXFD_SLOW:-3} limit=30
	if [ -w /dev/kvm ] && (qemu "$1" 'rdinit=/bin/busybox -- poweroff -f') >"$top/kvm.log" 2>&1; then
		limit=1800
	else
		machine='-accel tcg,thread=multi -cpu Nehalem' slow=${CTXFD_SLOW:-5} limit=7200
	fi
}

# own_apt COMMAND ARGS...: apt's COMMAND, with sources, lists and a cache of our own.
own_apt() {
	command=$1
	shift
	$command -o Dir::Etc::sourcelist="$top/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$top/apt/lists" \
		-o Dir::Cache="$top/apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# The releases with those kernels, from each mirror of Debian's that apt knows.
sources() {
	apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' | sort -u | while read -r uri label; do
		case $label in
		Debian) suites='bullseye bookworm trixie sid' ;;
		Debian-Security) suites='bullseye-security bookworm-security trixie-security' ;;
		*) continue ;;
		esac
		for suite in $suites; do
			echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
		done
	done
}

# The newest package with a kernel of series $1. Newer releases keep the kernel in linux-binary-VERSION, and linux-image-VERSION
# only depends on it.
package_of() {
	case $1 in
	newest) series='[0-9]+[.][0-9]+' ;;
	*) series=$(echo "$1" | sed 's/[.]/[.]/g') ;;
	esac
	own_apt apt-cache pkgnames linux- | sed -nE "s/^linux-(image|binary)-($series[.][0-9].*)-cloud-amd64\$/\2 &/p" |
		sort -k1,1V -k2,2r | tail -n 1 | cut -d' ' -f2
}

# Gets the kernel of series $1 to $top/$1.vmlinuz, where it stays: first by the lists that are there, then by new ones. A suite that
# is gone from the mirrors is no reason to stop.
get() {
	[ -s "$top/$1.vmlinuz" ] || download "$1" || {
		sources >"$top/apt/sources.list"
		own_apt apt-get update
		download "$1"
	}
}

download() {
	package=$(package_of "$1")
	[ -n "$package" ] && rm -rf "$top/debs" && mkdir "$top/debs" &&
		(cd "$top/debs" && own_apt apt-get download "$package") && dpkg -x "$top/debs/$package"_*.deb "$top/debs/files" &&
		find "$top/debs/files" -name 'vmlinuz*' -type f -exec cp {} "$top/$1.vmlinuz" ';'
	rm -rf "$top/debs"
	[ -s "$top/$1.vmlinuz" ]
}

# The guest's files into $top/initramfs.gz. libgcc_s is what pthread_cancel loads.
make_initramfs() {
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/w/build/tests" "$root/w/tests/fuzz" || return 1
	cp "$(command -v busybox)" "$root/bin/busybox" && cp tests/kernels/init.sh "$root/init" && cp tests/run "$root/w/tests" &&
		cp -r tests/fuzz/corpus "$root/w/tests/fuzz" || return 1
	printf 'export URING=%s\nset -- %s\n' "${URING:-yes}" "$TESTS" >"$root/settings"
	for source in tests/test_*.c; do
		name=$(basename "$source" .c)
		: >"$root/w/tests/$name.c" # tests/run looks for names alone
		[ ! -x "$BUILD/tests/$name" ] || strip --strip-debug -o "$root/w/build/tests/$name" "$BUILD/tests/$name" || return 1
	done
	{
		ldd "$root/bin/busybox" "$root"/w/build/tests/* 2>/dev/null | grep -o '/[^ ]*[.]so[^ ]*'
		${CC:-cc} -print-file-name=libgcc_s.so.1
	} | sort -u | while read -r lib; do
		mkdir -p "$root$(dirname "$lib")" && cp -L "$lib" "$root$lib"
	done
	(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$top/initramfs.gz"
}

# Adds up what the guest said in $top/$1.log, and shows what failed and what was skipped.
judge() {
	sed -i 's/\r$//' "$top/$1.log"
	counts=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$top/$1.log" | tail -n 1)
	version=$(sed -n 's/^uname -r: //p' "$top/$1.log")
	if [ -n "$counts" ]; then
		set -- "$1" $(echo "$counts" | tr -cs '0-9\n' ' ')
		passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + ${4:-0}))
	else
		counts="NO END, see $top/$1.log" failed=$((failed + 1))
	fi
	echo "$1 (${version:-did not start}): $counts, $(($(date +%s) - start)) s"
	grep -aE '^test_.*(FAILED|skipped: )|^    skipped: |^(failed|kernel): ' "$top/$1.log" | sed "s/^[a-z]/$1: &/"
	[ "${counts#NO END}" = "$counts" ] || tail -n 20 "$top/$1.log" | sed 's/^/    | /'
}

skip() {
	skipped=$((skipped + 1))
	echo "$1: skipped ($2)"
}

passed=0 failed=0 skipped=0 machine=
[ "$(uname -m)" = x86_64 ] || {
	echo "skipped: the test programs and kernels must be of one machine, and this is not for $(uname -m)"
	exit 77
}
make_initramfs || exit 1
for series in ${*:-5.10 6.1 6.12 newest}; do
	start=$(date +%s)
	if ! command -v apt-get >/dev/null; then
		skip "$series" 'the kernels come by apt-get, which is not here'
	elif ! get "$series" >"$top/apt.log" 2>&1; then
		skip "$series" "no such kernel could be had from the mirrors that apt knows, see $top/apt.log"
	else
		[ -n "$machine" ] || choose_machine "$series"
		qemu "$series" "CTXFD_SLOW=$slow TEST_LIMIT=${TEST_LIMIT:-300}" >"$top/$series.log"
		judge "$series"
	fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
