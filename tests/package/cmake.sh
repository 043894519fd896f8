#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: package
#
# A user's project finds the library with find_package, and builds and runs programs in C and C++, shared and static; so does one
# that knows C++ alone. The library was installed with DESTDIR, then the whole folder was moved. Of versions, those are found that serve.

. tests/package/scratch

command -v cmake >/dev/null || { echo 'no cmake'; exit 77; }

# installed DIR FOLDERS: what `make install` makes there, moved to DIR.
installed() {
	$MAKE -s BUILD="$dir/build" URING="$uring" $2 DESTDIR="$dir/dest" install >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
	mv "$dir/dest/opt/x" "$1"
	rm -rf "$dir/dest"
}
installed "$dir/moved" PREFIX=/opt/x
installed "$dir/apart" 'PREFIX=/opt/x LIBDIR=/opt/x/lib/some-linux INCLUDEDIR=/opt/x/headers/deep'

mkdir "$dir/use" "$dir/cxx" "$dir/find" && cp "$user" "$dir/use/use.c" && cp "$user" "$dir/use/use.cc" && cp "$user" "$dir/cxx/use.cc" || exit 1
cat >"$dir/use/uring.c" <<END
#include <ctxfd_uring.h>
static void *volatile open_it;
int main(void) { open_it = (void *)ctxfd_uring_open; return !open_it || !ctxfd_background(); }
END
cat >"$dir/use/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.10)
project(use C CXX)
set(CMAKE_C_FLAGS "-D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror")
find_package(ctxfd $version REQUIRED)
find_package(ctxfd) # a second time, as another part of the project would
foreach(lang c cc)
	add_executable(shared_\${lang} use.\${lang})
	target_link_libraries(shared_\${lang} ctxfd::ctxfd)
	add_executable(static_\${lang} use.\${lang})
	target_link_libraries(static_\${lang} ctxfd::ctxfd_static)
endforeach()
if($uring STREQUAL yes)
	find_package(ctxfd REQUIRED COMPONENTS uring)
	add_executable(uring_shared uring.c)
	target_link_libraries(uring_shared ctxfd::uring)
	add_executable(uring_static uring.c)
	target_link_libraries(uring_static ctxfd::uring_static)
endif()
END
cat >"$dir/cxx/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.10)
project(use CXX)
find_package(ctxfd REQUIRED)
add_executable(shared_cc use.cc)
target_link_libraries(shared_cc ctxfd::ctxfd)
END

# build PROJECT WHERE
build() {
	rm -rf "$dir/out"
	{
		cmake -S "$dir/$1" -B "$dir/out" -DCMAKE_C_COMPILER="${CC%% *}" -DCMAKE_CXX_COMPILER="${CXX%% *}" "$2" && cmake --build "$dir/out"
	} >"$dir/log" 2>&1 || fail "A project does not build ($*): $(cat "$dir/log")"
	for program in "$dir/out"/shared_* "$dir/out"/static_*; do
		[ -e "$program" ] || continue
		said=$("$program") || fail "$program failed"
		[ "$said" = "$says" ] || fail "$program said: $said"
	done
	[ "$1" = cxx ] && return
	readelf -d "$dir/out/shared_c" | grep -q 'NEEDED.*\[libctxfd\.so\.0\]' || fail "The shared program does not need libctxfd.so.0."
	! readelf -d "$dir/out/static_c" | grep -q 'libctxfd' || fail "The static program needs libctxfd.so."
	[ "$uring" != yes ] || { "$dir/out/uring_shared" && "$dir/out/uring_static"; } || fail "The program with uring does not run."
	[ "$uring" != yes ] || ! readelf -d "$dir/out/uring_static" | grep -q 'libctxfd' || fail "The static program needs libctxfd-uring.so."
}
build use -DCMAKE_PREFIX_PATH="$dir/moved"
build cxx -DCMAKE_PREFIX_PATH="$dir/moved"
build use -Dctxfd_DIR="$dir/apart/lib/some-linux/cmake/ctxfd"

# finds yes|no WHAT: whether a project that asks find_package for it is served.
finds() {
	printf 'cmake_minimum_required(VERSION 3.10)\nproject(find C)\nfind_package(ctxfd %s QUIET)\nmessage("FOUND=${ctxfd_FOUND}")\n' "$2" >"$dir/find/CMakeLists.txt"
	rm -rf "$dir/out"
	cmake -S "$dir/find" -B "$dir/out" -DCMAKE_PREFIX_PATH="$dir/moved" >"$dir/log" 2>&1
	case $1:$(sed -n 's/^FOUND=//p' "$dir/log") in
	yes:1 | no:0) ;;
	*) fail "Not $1 for find_package(ctxfd $2): $(cat "$dir/log")" ;;
	esac
}
major=${version%%.*}
finds yes "$major"
finds yes "$version EXACT"
finds no "$version.1"
finds no "$((major + 1)).0"
finds yes "$major.0...$((major + 1))"
finds no "$((major + 1))...$((major + 2))"
finds no 'COMPONENTS no_such'
finds yes 'OPTIONAL_COMPONENTS no_such'
# A release of the major number before is no longer served by this one.
[ "$major" = 0 ] || finds no "$((major - 1))"
exit 0
