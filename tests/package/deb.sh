#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: package
#
# `make deb`: lintian finds no error and gives no warning; all packages go into a system of their own (an empty folder, so that no root is
# needed), where pkg-config and CMake find the library and programs in C and C++ are built and run; the runtime libraries alone run them
# still; and once all are purged nothing is left.

. tests/package/scratch

command -v dh >/dev/null && command -v lintian >/dev/null || { echo 'no debhelper, or no lintian'; exit 77; }
[ "$uring" = yes ] || { echo 'no liburing'; exit 77; }
$MAKE -s BUILD="$dir/build" deb >"$dir/log" 2>&1 || fail "make deb: $(cat "$dir/log")"
deb=$dir/build/deb
lintian --fail-on error,warning --allow-root "$deb"/*.changes >"$dir/log" 2>&1 || fail "lintian: $(cat "$dir/log")"
# The same again, whoever makes them.
mkdir "$dir/first" && cp "$deb"/*.deb "$dir/first" && (umask 077 && TZ=Asia/Tokyo $MAKE -s BUILD="$dir/build" deb) >"$dir/log" 2>&1 || fail "make deb, again"
for package in "$dir"/first/*; do
	cmp "$package" "$deb/${package##*/}" || fail "${package##*/} differs from one that was made before."
done

root=$dir/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" && : >"$root/var/lib/dpkg/status" || exit 1
in_root() { dpkg --root="$root" --force-not-root --force-depends --force-script-chrootless --log=/dev/null "$@" >"$dir/log" 2>&1 || fail "dpkg $*: $(cat "$dir/log")"; }
left() { find "$root" -path "$root/var/lib/dpkg" -prune -o ! -type d -print; }
in_root -i "$deb"/*.deb

triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
lib=$root/usr/lib/$triplet
export PKG_CONFIG_PATH="$lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root" LD_LIBRARY_PATH="$lib"
runs() {
	said=$("$dir/$1") || fail "The $2 failed."
	[ "$said" = "$says" ] || fail "The $2 said: $said"
}
cp "$user" "$dir/use.c" && cp "$user" "$dir/use.cc" || exit 1
$CC -std=gnu11 -o "$dir/use_c" "$dir/use.c" $(pkg-config --cflags --libs ctxfd) || fail "A C program does not compile."
$CXX -o "$dir/use_cc" "$dir/use.cc" $(pkg-config --cflags --libs ctxfd) || fail "A C++ program does not compile."
$CC -std=gnu11 -o "$dir/use_static" -static "$dir/use.c" $(pkg-config --static --cflags --libs ctxfd) || fail "A static program does not link."
runs use_c 'C program' && runs use_cc 'C++ program' && runs use_static 'static program'
readelf -d "$dir/use_c" | grep -q 'NEEDED.*\[libctxfd\.so\.0\]' || fail "The program does not need libctxfd.so.0."
[ "$(pkg-config --modversion ctxfd-uring)" = "$(pkg-config --modversion ctxfd)" ] || fail "The two libraries' versions differ."
if command -v cmake >/dev/null; then
	printf '%s\n' 'cmake_minimum_required(VERSION 3.10)' 'project(use C)' 'find_package(ctxfd REQUIRED COMPONENTS uring)' \
		'add_executable(use_cmake use.c)' 'target_link_libraries(use_cmake ctxfd::ctxfd)' >"$dir/CMakeLists.txt"
	{ cmake -S "$dir" -B "$dir/out" -DCMAKE_PREFIX_PATH="$root/usr" -DCMAKE_LIBRARY_ARCHITECTURE="$triplet" && cmake --build "$dir/out"; } \
		>"$dir/log" 2>&1 || fail "By CMake: $(cat "$dir/log")"
	runs out/use_cmake 'program by CMake'
fi
[ -e "$root/usr/share/man/man3/ctxfd.3.gz" ] && [ -e "$root/usr/share/man/man3/ctxfd_close.3.gz" ] || fail "There are no man pages."

in_root -P libctxfd-uring-dev libctxfd-dev
runs use_c 'program, without the packages for development,'
[ -z "$(left | grep -E 'include|/man/|\.a$|cmake')" ] || fail "Without the packages for development there is still: $(left)"
in_root -P $(cd "$deb" && ls ./*.deb | sed 's,\./\([^_]*\)_.*,\1,' | grep -v -- -dev)
[ -z "$(left)" ] || fail "Purged, these packages leave: $(left)"
[ -z "$(grep -h Package: "$root/var/lib/dpkg/status")" ] || fail "dpkg still knows: $(cat "$root/var/lib/dpkg/status")"
exit 0
