#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: none
#
# distros.sh [NAME...]: types README's two commands, as they stand there, into bare systems: Debian 12, 13 and unstable, or those
# named, as debootstrap makes them (--variant=minbase) and with nothing added. `make check-distros` calls it; TESTS chooses tests.
#
# What is kept in $BUILD/distros from run to run: the bare system (a week) and the packages that were fetched. Where from, and through
# what, is what apt here is told. Each command runs in namespaces of its own for mounts and processes, so whatever ends it, nothing
# stays mounted and nothing goes on running.

cd "$(dirname "$0")/.." || exit 1
top=${BUILD:-$PWD/build}/distros
root=$top/root
mkdir -p "$top" || exit 1

cleanup() { rm -rf --one-file-system "$root"; }
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

apart() { unshare --mount --pid --fork --kill-child "$@"; }

# The archive that apt here fetches Debian from; nothing if that is none, and debootstrap knows one itself.
mirror() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1
}

# A fresh system $1, in $root.
make_system() {
	tar=$top/$1.tar
	cleanup
	if [ -z "$(find "$tar" -mtime -7 2>/dev/null)" ]; then
		apart debootstrap --variant=minbase "$1" "$root" $(mirror) >"$top/$1-bootstrap.log" 2>&1 &&
			tar -C "$root" -cf "$tar.new" . && mv "$tar.new" "$tar" || return 1
	else
		mkdir "$root" && tar -C "$root" -xf "$tar" || return 1
	fi
	cp /etc/resolv.conf "$root/etc/resolv.conf"
	apt-config dump 2>/dev/null | grep -iE '^Acquire::(https?::|Check-)' >"$root/etc/apt/apt.conf.d/90outside"
	echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/fast"
	mkdir -p "$top/$1-packages" "$root/ctxfd" &&
		tar -cf - --exclude=.git --exclude="./$(basename "$(dirname "$top")")" . | tar -C "$root/ctxfd" -xf -
}

# inside NAME COMMAND: what a user types there.
inside() {
	apart --mount-proc="$root/proc" sh -c '
		mount --rbind /dev "$1/dev" && mount --rbind /sys "$1/sys" && mount --bind "$2" "$1/var/cache/apt/archives" || exit 1
		exec chroot "$1" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
			DEBIAN_FRONTEND=noninteractive ${http_proxy+"http_proxy=$http_proxy"} ${https_proxy+"https_proxy=$https_proxy"} \
			${no_proxy+"no_proxy=$no_proxy"} ${TESTS:+"TESTS=$TESTS"} ${CTXFD_SLOW:+"CTXFD_SLOW=$CTXFD_SLOW"} \
			sh -c "cd /ctxfd && $3"' sh "$root" "$top/$1-packages" "$2"
}

# try NAME COMMAND: counts its closing line, or itself.
try() {
	target=${2##*make } log=$top/$1-${2##* }.log start=$(date +%s)
	inside "$1" "$2" >"$log" 2>&1 </dev/null
	rc=$?
	set -- "$1" $(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -n 1 | tr -cs '0-9\n' ' ')
	p=${2:-0} f=${3:-0} s=${4:-0}
	[ $# -gt 1 ] || [ $rc != 0 ] || p=1
	[ $rc = 0 ] || [ $f != 0 ] || f=1
	echo "$1: make $target: $p passed, $f failed, $s skipped, $(($(date +%s) - start)) s"
	[ $f = 0 ] || grep -aE 'FAILED|^    \| (not ok|#)| error: |\*\*\*|^E: ' "$log" | tail -n 40 | sed 's/^/    | /'
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

if [ "$(id -u)" != 0 ] || ! apart true 2>/dev/null; then
	echo 'check-distros makes systems and mounts: it needs root, and a container that lets root mount.'
	exit 1
fi
passed=0 failed=0 skipped=0
for name in ${*:-bookworm trixie sid}; do
	if ! make_system "$name"; then
		echo "$name: SKIPPED: it cannot be had here, see $top/$name-bootstrap.log"
		skipped=$((skipped + 1))
		continue
	fi
	sed -n 's/^command -v make .*make [a-z]*$/&/p' README.md >"$top/commands"
	while read -r command; do
		try "$name" "$command"
	done <"$top/commands"
done
if [ $skipped = 0 ]; then
	echo "$passed passed, $failed failed"
else
	echo "$passed passed, $failed failed, $skipped skipped"
fi
[ $failed = 0 ] && [ $((passed + skipped)) -gt 0 ]
