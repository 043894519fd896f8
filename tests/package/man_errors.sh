#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# The header and the man pages name the same errnos for each function.
#
# In the header these are all in the comment right above the function; in the comments of the same section that stand
# alone before it; and what "all other constructors" fail with. "as ctxfd_x" after "Errors" stands for x's. In a page
# they are in the lists under ERRORS; a list is for the functions that the paragraph before it names, or else for
# whichever of the page's functions the header says it of.

out=${BUILD:-build}/tests/man_errors
mkdir -p "$out" || exit 1

# header FILE: a line "FUNCTION ERRNO" for each.
header() {
	awk '
	# ECANCELED and ETIMEDOUT are how a context ends; the others are of calls that the text speaks of.
	function errnos(text, into,    n, i, word) {
		n = split(text, word, /[^A-Za-z0-9_]+/)
		for (i = 1; i <= n; i++)
			if (word[i] ~ /^E[A-Z0-9]+$/ && word[i] !~ /^(EPOLL.*|ECANCELED|ETIMEDOUT|EINTR|EEXIST)$/)
				into[word[i]]
	}
	function tell(f, set,    e) {
		for (e in set)
			print f, e
	}
	function end_of_comment() {
		if (comment ~ /---- /)
			delete section
		if (comment ~ /all other constructors/)
			errnos(substr(comment, index(comment, "all other constructors")), common)
	}
	/^\/\*/ { comment = ""; inside = 1; used = 0 }
	inside {
		comment = comment " " $0
		if (/\*\/ *$/) {
			inside = 0
			end_of_comment()
		}
		next
	}
	/^$/ {
		if (!used)
			errnos(comment, section)
		comment = ""
	}
	/^[a-z].*[ *]ctxfd_[a-z_]+\(/ && !/^static/ {
		name = $0
		sub(/\(.*/, "", name)
		sub(/.*[ *]/, "", name)
		used = 1
		delete own
		errnos(comment, own)
		tell(name, own)
		tell(name, section)
		if (/struct ctxfd \*ctxfd_(with|merge)/)
			tell(name, common)
		if (match(comment, /Errors[^.:]*: as ctxfd_[a-z_]+/)) {
			other = substr(comment, RSTART, RLENGTH)
			sub(/.* /, "", other)
			print name, "as", other
		}
	}' "$1" | sort -u >"$out/raw"
	awk 'NR == FNR { if ($2 != "as") has[$1] = has[$1] " " $2; next }
		$2 != "as" { print; next }
		{ n = split(has[$3], e, " "); for (i = 1; i <= n; i++) print $1, e[i] }' "$out/raw" "$out/raw" | sort -u
}

# page FILE: "FUNCTION ERRNO" for lists that name it, "? ERRNO" for those that name none.
page() {
	awk '
	/^\.Sh/ { errors = /ERRORS/; n = 0 }
	!errors { next }
	/^\.Bl/ { list = 1 }
	/^\.El/ { list = 0; n = 0 }
	!list && /^\.Fn/ { name[n++] = $2 }
	list && /^\.It Bq Er/ {
		for (i = 4; i <= NF; i++) {
			if ($i !~ /^E[A-Z0-9]+$/ || $i ~ /^(ECANCELED|ETIMEDOUT)$/)
				continue
			if (n == 0)
				print "?", $i
			for (k = 0; k < n; k++)
				print name[k], $i
		}
	}' "$1" | sort -u
}

# differences PAGE: says where it and the header part.
differences() {
	functions=$(sed -n '/^\.Sh NAME/,/^\.Sh SYNOPSIS/s/^\.Nm \(ctxfd_[a-z_]*\).*/\1/p' "$1")
	page "$1" >"$out/page"
	for f in $functions; do
		sed -n "s/^$f //p" "$out/header" >"$out/wanted"
		sed -n "s/^$f //p" "$out/page" >"$out/named"
		cat "$out/wanted" >>"$out/any"
		sed -n 's/^? //p' "$out/page" | cat - "$out/named" | sort -u | comm -23 "$out/wanted" - |
			sed "s,\$,: the header has it at $f; not $1,"
		comm -13 "$out/wanted" "$out/named" | sed "s,\$,: $1 has it for $f; not the header,"
	done
	sort -u "$out/any" -o "$out/any"
	sed -n 's/^? //p' "$out/page" | comm -13 "$out/any" - | sed "s,\$,: $1 has it; the header at none of its functions,"
	: >"$out/any"
}

export LC_ALL=C
: >"$out/any"
header include/ctxfd.h >"$out/header"
if [ "$(grep -c . "$out/header")" -lt 30 ]; then
	echo "the header is not understood: it has but these errnos"
	cat "$out/header"
	exit 1
fi
for page in src/man/ctxfd.3 src/man/ctxfd_[!u]*.3; do
	differences "$page"
done >"$out/wrong"
cat "$out/wrong"
[ ! -s "$out/wrong" ]
