#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# The source is in layers, and nothing includes or calls upward: core knows nothing above it; dispatch and calls know core;
# run knows these three; uring knows the public headers alone. src/kind.c, the table by which core serves the kinds of
# dispatch and calls, stands above all. Nor do the files of a layer include or call each other in a circle.

cd "$(dirname "$0")/../.." || exit 1
failed=0
dir=$BUILD/tests/layers
mkdir -p "$dir"

# known LAYER: those that it may know.
known() {
	case $1 in
	core) echo core ;;
	dispatch) echo core dispatch ;;
	calls) echo core calls ;;
	run) echo core dispatch calls run ;;
	uring) echo uring ;;
	esac
}

complain() {
	echo "$@"
	failed=1
}

# The functions and variables of each layer that others can use, and those of the table.
for layer in core dispatch calls run uring; do
	[ "$layer" != uring ] || [ "$URING" != no ] || continue
	nm -g --defined-only "$BUILD/obj/$layer"/*.o | sed -n 's/.* [A-Z] //p' | grep '^ctxfdi_' | sort -u >"$dir/$layer"
	nm -u "$BUILD/obj/$layer"/*.o | sed -n 's/^ *U //p' | sort -u >"$dir/$layer.uses"
done

for layer in core dispatch calls run uring; do
	[ -s "$dir/$layer.uses" ] || continue
	may=$(known $layer)
	for header in $(sed -n 's/^#include "\(.*\)"/\1/p' src/$layer/*.[ch]); do
		case " $may " in
		*" ${header%%/*} "*) ;;
		*) [ -e "include/$header" ] || complain "src/$layer includes $header, which is above it." ;;
		esac
	done
	for other in core dispatch calls run uring; do
		case " $may " in *" $other "*) continue ;; esac
		[ -e "$dir/$other" ] || continue
		up=$(comm -12 "$dir/$layer.uses" "$dir/$other" | tr '\n' ' ')
		[ -z "$up" ] || complain "src/$layer calls what is in src/$other: $up"
	done
done
# Inside a layer: x.c and x.h are one, and the files have an order by which each includes and calls only those before it.
for layer in core dispatch calls run uring; do
	[ -d "$BUILD/obj/$layer" ] || continue
	set --
	for c in src/"$layer"/*.c; do
		c=${c##*/}
		set -- "$@" "$BUILD/obj/$layer/${c%.c}.o"
	done
	nm -gA --defined-only "$@" | sed -n 's,.*/\([a-z_]*\)\.o:.* [A-Z] \(ctxfd.*\),\2 \1,p' | sort >"$dir/$layer.where"
	{
		nm -uA "$@" | sed -n 's,.*/\([a-z_]*\)\.o:.* U \(ctxfd.*\),\2 \1,p' | sort | join - "$dir/$layer.where" | cut -d ' ' -f 2-
		grep '^#include "' src/"$layer"/*.[ch] /dev/null |
			sed -n "s:.*/\([a-z_]*\)\.[ch]\:#include \"\($layer/\)\{0,1\}\([a-z_]*\)\.h\".*:\1 \3:p"
	} | sort -u >"$dir/$layer.edges"
	[ "$(wc -l <"$dir/$layer.edges")" -gt 0 ] || continue
	tsort "$dir/$layer.edges" >"$dir/$layer.order" 2>"$dir/$layer.circle" ||
		complain "src/$layer has a circle of files that include or call each other:" $(sed -n 's/^tsort: \([a-z_]*\)$/\1/p' "$dir/$layer.circle")
done
exit $failed
