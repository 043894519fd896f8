#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang
#
# Whether tests/faults/faults.def knows every function that the library calls, and wraps none that it does not call.

export LC_ALL=C
lib=$BUILD/tests/obj/faulty.o
out=$BUILD/tests/faults
# Names that begin with an underscore are the compiler's and the linker's own, but for one.
nm -u "$lib" | awk '{ sub(/^__wrap_/, "", $2); print $2 }' | grep -e '^[^_]' -e '^__clone$' | sort -u >"$out.called"
sed -n 's/^CALL[^,]*, \([a-z0-9_]*\),.*/\1/p' tests/faults/faults.def | sort -u >"$out.wrapped"
sed -n 's/^SAFE(\([a-z0-9_]*\),.*/\1/p' tests/faults/faults.def | cat - "$out.wrapped" | sort -u >"$out.known"

[ -s "$out.called" ] || { echo "nm finds no call in $lib"; exit 1; }
forgotten=$(comm -23 "$out.called" "$out.known")
vain=$(comm -13 "$out.called" "$out.wrapped")
[ -z "$forgotten" ] || echo "The library calls these, and tests/faults/faults.def does not know them:" $forgotten
[ -z "$vain" ] || echo "tests/faults/faults.def wraps these, and the library does not call them:" $vain
[ -z "$forgotten$vain" ]
