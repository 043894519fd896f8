#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: package
#
# A user's meson project finds the installed library with dependency(), by pkg-config and by CMake; or has it as a subproject, shared and
# static. Programs in C and C++ are built each way, and run.

. tests/package/scratch

command -v meson >/dev/null && command -v ninja >/dev/null || { echo 'no meson, or no ninja'; exit 77; }
export CC CXX

project=$dir/project
mkdir -p "$project/subprojects" && cp "$user" "$project/use.c" && cp "$user" "$project/use.cc" || exit 1
cat >"$project/uring.c" <<END
#include <ctxfd_uring.h>
static void *volatile open_it;
int main(void) { open_it = (void *)ctxfd_uring_open; return !open_it || !ctxfd_background(); }
END

# build WHAT DEPENDENCY URING_DEPENDENCY [OPTION...]: builds the project with it, and runs its programs.
build() {
	what=$1
	cat >"$project/meson.build" <<-END
		project('use', 'c', 'cpp')
		add_project_arguments('-D_POSIX_C_SOURCE=200809L', language: ['c', 'cpp'])
		ctxfd = $2
		executable('use_c', 'use.c', dependencies: ctxfd)
		executable('use_cc', 'use.cc', dependencies: ctxfd)
	END
	if [ "$uring" = yes ] && [ -n "$3" ]; then
		echo "executable('uring', 'uring.c', dependencies: $3)" >>"$project/meson.build"
	fi
	shift 3
	rm -rf "$dir/out"
	{ meson setup "$@" "$dir/out" "$project" && ninja -C "$dir/out"; } >"$dir/log" 2>&1 || fail "$what: a project does not build: $(cat "$dir/log")"
	for program in use_c use_cc; do
		said=$(LD_LIBRARY_PATH="$dir/p/lib" "$dir/out/$program") || fail "$what: $program failed"
		[ "$said" = "$says" ] || fail "$what: $program said: $said"
	done
	[ ! -e "$dir/out/uring" ] || LD_LIBRARY_PATH="$dir/p/lib" "$dir/out/uring" || fail "$what: the program with uring failed"
}
needs() { readelf -d "$dir/out/use_c" | grep -q 'NEEDED.*\[libctxfd\.so\.0\]'; }

$MAKE -s BUILD="$dir/build" URING="$uring" PREFIX="$dir/p" install >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
export PKG_CONFIG_PATH="$dir/p/lib/pkgconfig"
build pkg-config "dependency('ctxfd', version: '>=$version', method: 'pkg-config')" "dependency('ctxfd-uring')"
needs || fail "The program does not need libctxfd.so.0."
build 'static by pkg-config' "dependency('ctxfd', static: true)" "dependency('ctxfd-uring')"
! needs || fail "The static program needs libctxfd.so.0."
unset PKG_CONFIG_PATH
if command -v cmake >/dev/null; then
	build CMake "dependency('ctxfd', method: 'cmake', modules: ['ctxfd::ctxfd'])" '' --cmake-prefix-path="$dir/p"
	needs || fail "The program does not need libctxfd.so.0."
fi
rm -rf "$dir/p"

$MAKE -s BUILD="$dir/build" URING="$uring" "$dir/build/dist/meson.build" || fail "There is no meson.build."
mkdir "$project/subprojects/ctxfd" && cp -r src include "$dir/build/dist/meson.build" "$project/subprojects/ctxfd" || exit 1
from="dependency('ctxfd', fallback: 'ctxfd')" uring_from="dependency('ctxfd-uring', fallback: 'ctxfd')"
only='--wrap-mode=forcefallback' # not one that is installed here
build subproject "$from" "$uring_from" $only -Dctxfd:werror=true
needs || fail "The program does not need libctxfd.so.0."
shown=$(nm -D --defined-only "$dir"/out/subprojects/ctxfd/libctxfd.so.0 | sed -n 's/.* T \([^@]*\).*/\1/p' | sort | tr '\n' ' ')
[ "$shown" = "$(sed -n 's/^\t\(ctxfd_[a-z0-9_]*\);$/\1/p' src/ctxfd.map | sort | tr '\n' ' ')" ] || fail "The subproject's library shows: $shown"
build 'static subproject' "$from" "$uring_from" $only --default-library=static
! needs || fail "The static program needs libctxfd.so.0."
build 'subproject of an optimized project with link-time optimization' "$from" "$uring_from" $only --buildtype=release -Db_lto=true
exit 0
