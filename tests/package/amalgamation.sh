#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang package
#
# The library as one file: it compiles alone, without a warning, as each C that it may meet; programs in C and C++ are compiled and
# linked with it, and run; it has all public functions, and no name that a program may have as well. That all of the test programs pass
# with it as well is for `make check-amalgamation` to say.

. tests/package/scratch
export LC_ALL=C

map=$PWD/src/ctxfd.map
$MAKE -s BUILD="$dir/build" amalgamation || fail "make amalgamation"
# Nothing of the source is near.
cp "$dir/build/amalgamation/ctxfd.c" "$dir/build/amalgamation/ctxfd.h" "$dir" && cd "$dir" || exit 1

$CC -Wall -Wextra -Werror -c ctxfd.c || fail "cc -c ctxfd.c does not do it."
for flags in '-O2 -std=c11' '-O2 -std=gnu17 -fexceptions -D_GNU_SOURCE'; do
	$CC $flags -Wall -Wextra -Werror -c -o ctxfd.o ctxfd.c || fail "It does not compile with $flags."
	for lang in c99 c11 c++17; do
		case $lang in
		c++*) cp "$user" use.cc && compiler="$CXX use.cc" ;;
		*) cp "$user" use.c && compiler="$CC use.c" ;;
		esac
		$compiler -std=$lang -Wall -Wextra -Wpedantic -Werror -D_POSIX_C_SOURCE=200809L -I. -o use ctxfd.o -pthread ||
			fail "A program as $lang does not compile with it ($flags)."
		[ "$(./use)" = "$says" ] || fail "The program, $lang, said: $(./use)"
	done
done

nm -g --defined-only ctxfd.o | sed -n 's/.* [A-Z] //p' | sort >names
sed -n 's/^\t\(ctxfd_[a-z0-9_]*\);$/\1/p' "$map" | sort >public
[ -z "$(comm -13 names public)" ] || fail "Public functions are missing:" $(comm -13 names public)
! grep -vE '^ctxfdi?_|^DW\.ref\.' names || fail "These names may be a program's."

# In a library of the program's own, which shows none of its names.
$CC -O2 -fPIC -fvisibility=hidden -shared -pthread -o own.so ctxfd.c || fail "It does not go into a shared library."
[ -z "$(nm -D --defined-only own.so | grep ctxfd)" ] || fail "The shared library shows names of ctxfd."
exit 0
