#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang
#
# What the libraries show to the outside: that headers, version maps, shared and static libraries agree on what the
# public functions are; that these, and the public structs, are as src/packaging/abi.txt says (`make abi` writes it);
# that they do not call each other through the PLT; that the headers stand on their own in every language they are
# promised for; and that const protects a context from being cancelled.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
export LC_ALL=C
failed=0

complain() {
	echo "$1"
	[ ! -s "$dir/diff" ] || sed 's/^/    /' "$dir/diff"
	failed=1
}

# same WHAT LIST: whether the list is the header's.
same() {
	printf '%s\n' $2 | sort -u >"$dir/list"
	diff "$dir/header" "$dir/list" >"$dir/diff" || complain "$1 (>) does not have the functions of $header (<):"
}

# agree HEADERS MAP LIBRARY
agree() {
	header="include/$1"
	# A function's name is the last word in front of a parenthesis; those that end in _ are the macros' own.
	printf '#include "%s"\n' $1 | $CC -E -P -Iinclude - | tr '\n' ' ' | tr ';{}' '\n\n\n' |
		grep -o 'ctxfd_[a-z0-9_]*[a-z0-9] *(' | tr -d ' (' | sort -u >"$dir/header"
	if [ "$1" = ctxfd_uring.h ]; then
		grep '^ctxfd_uring_' "$dir/header" >"$dir/own" && mv "$dir/own" "$dir/header"
	fi
	[ "$(wc -l <"$dir/header")" -ge "$4" ] || complain "$header has too few functions for this test to make sense"
	same "src/$2" "$(sed -n 's/^\t\(ctxfd_[a-z0-9_]*\);$/\1/p' "src/$2")"
	same "$3.so" "$(nm -D --defined-only "$BUILD/$3.so" | sed -n 's/.* T \([^@]*\).*/\1/p')"
	same "$3.a" "$(nm -g --defined-only "$BUILD/$3.a" | sed -n 's/.* [A-Z] //p')"
	if objdump -d "$BUILD/$3.so" | grep 'ctxfd_.*@plt>:' >"$dir/diff" && [ "$3" = libctxfd ]; then
		complain "$3.so calls its own functions through the PLT:"
	fi
	readelf -d "$BUILD/$3.so" | grep -q "SONAME.*\[$3\.so\.0\]" || complain "$3.so has another SONAME than $3.so.0"
	# It has threads and a fork handler, which would outlive a dlclose.
	readelf -d "$BUILD/$3.so" | grep -q NODELETE || complain "$3.so can be unloaded"

	for header in $1; do
		alone "$header" "$5"
	done
}

# alone HEADER FLAGS: whether it compiles by itself.
alone() {
	header=include/$1
	printf '#include <%s>\nint main(void) { return 0; }\n' "$1" >"$dir/alone.c"
	cp "$dir/alone.c" "$dir/alone.cc"
	for std in c99 c11 gnu17; do
		$CC -std=$std -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -Iinclude $2 -c -o "$dir/alone.o" \
			"$dir/alone.c" 2>"$dir/diff" || complain "$header does not compile as $std:"
	done
	for std in c++11 c++17 c++20; do
		$CXX -std=$std -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -Iinclude $2 -c -o "$dir/alone.o" \
			"$dir/alone.cc" 2>"$dir/diff" || complain "$header does not compile as $std:"
	done
}

# Sources that are compiled into a program share its names.
alien=$(nm -g --defined-only "$BUILD"/obj/*.o "$BUILD"/obj/*/*.o | sed -n 's/.* [A-Z] //p' | grep -vE '^ctxfdi?_|^DW\.ref\.' | sort -u) # the latter: gcc's own, hidden
[ -z "$alien" ] || complain "src defines names without ctxfd_ or ctxfdi_ in front, which a program may have as well:" $alien

agree "$(cd include && ls | grep -v uring | tr '\n' ' ')" ctxfd.map libctxfd 30
if [ -e "$BUILD/libctxfd-uring.so" ]; then
	# liburing's own header is not as clean.
	agree ctxfd_uring.h ctxfd-uring.map libctxfd-uring 3 "$(pkg-config --cflags liburing) -Wno-error"
fi

# Symbols, declarations and structs are what they were, unless that was written down with the change.
"$PWD/src/packaging/abi" "$BUILD" "$CC" >"$dir/abi" || complain "src/packaging/abi fails."
if [ -e "$BUILD/libctxfd-uring.so" ]; then cat src/packaging/abi.txt; else grep -v '^[a-z]*ctxfd[-_]uring' src/packaging/abi.txt; fi >"$dir/abi.was"
if [ "$(echo __SIZEOF_POINTER__ | $CC -E -P -)" = 8 ]; then cat "$dir/abi.was"; else grep -v '\(: [0-9]* + [0-9]*\|: size .*\)$' "$dir/abi.was"; fi >"$dir/header"
diff "$dir/header" "$dir/abi" >"$dir/diff" || complain "\
What programs rely on is other (>) than src/packaging/abi.txt says (<). If something is gone or changed, a program that was built
against a release before breaks: that takes another SONAME. What is new takes a new CTXFD_VERSION_MINOR, once this version was released.
If all that is as it should be, write it down: make abi"

# refuses NAME: a line that must compile for struct ctxfd *ctx, and not for const struct ctxfd *ctx.
refuses() {
	for const in '' const; do
		printf '#include <ctxfd.h>\nvoid f(%s struct ctxfd *ctx) { %s; }\n' "$const" "$1" >"$dir/const.c"
		if $CC -Werror -Iinclude -c -o "$dir/const.o" "$dir/const.c" 2>"$dir/diff"; then
			[ -z "$const" ] || complain "This compiles for a const ctx: $1"
		else
			[ -n "$const" ] || complain "This does not compile: $1"
		fi
	done
}
refuses 'ctxfd_cancel(ctx)'
refuses 'ctxfd_cancel_cause(ctx, 1)'
refuses 'ctxfd_close(ctx)'
refuses 'CTXFD_SCOPED struct ctxfd *mine = ctx'

exit $failed
