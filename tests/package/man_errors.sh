#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# The header and the man pages say of each function that it returns the same values and fails with the same errnos.
#
# In a header, a sentence that begins with "Returns" is about the functions below the comment, and so is what follows the
# colon of one that begins with "Errors". "Every constructor returns" and "Errors of every constructor" are about
# ctxfd_with_* and ctxfd_merge, "Errors of all of these" about the rest of the section. Where an error sentence says
# "those of ctxfd_x", these are ctxfd_x's errors too.
#
# In a page, a paragraph under RETURN VALUES is about the functions that it names by .Fn; one that names none is about
# those that no paragraph names. A list under ERRORS is about the functions that are named by .Fn before it; one without
# names is about all functions of the page but those that "cannot fail". A name by .Xr does not count.

out=${BUILD:-build}/tests/man_errors
rm -rf "$out"
mkdir -p "$out" || exit 1
export LC_ALL=C

# What both sides are read with.
# shellcheck disable=SC2016 # awk
words='
function tell(name, verb, text, pattern,    n, i, word) {
	n = split(text, word, /[^A-Za-z0-9_-]+/)
	for (i = 1; i <= n; i++)
		if (word[i] ~ pattern)
			print name, verb, word[i]
}
function tell_values(name, text) {
	tell(name, "returns", text, "^(0|NULL|true|false|INT64_MAX|err|-?errno|-E[A-Z0-9]+)$")
}
function tell_errnos(name, verb, text) {
	gsub(/-E/, "E", text)
	gsub(/EPOLL[A-Z]*/, "", text)
	tell(name, verb, text, "^E[A-Z0-9]+$")
}'

# headers FILE...: a line for each function that tells its result or has none, "FUNCTION is told of"; "FUNCTION returns
# VALUE"; "FUNCTION fails with ERRNO"; and "FUNCTION mentions ERRNO" for what is in the comment besides.
headers() {
	# shellcheck disable=SC2016
	awk "$words"'
	function after_colon(text) {
		return " " substr(text, index(text, ":") + 1)
	}
	function read_sentence(s) {
		if (s ~ /^Every constructor returns/)
			common_values = s
		else if (s ~ /^Errors of every constructor[^:]*:/)
			common_errnos = after_colon(s)
		else if (s ~ /^Errors of all of these[^:]*:/)
			section_errnos = section_errnos after_colon(s)
		else if (s ~ /^Errors[^:]*:/)
			errnos = errnos after_colon(s)
		else if (s ~ /^Returns /)
			values = values " " s
	}
	# ECANCELED and ETIMEDOUT are mostly the end of a context, after EINTR all go on, and EEXIST comes from epoll_ctl.
	function read_comment(    n, i, s) {
		n = split(comment, s, /\. +/)
		for (i = 1; i <= n; i++)
			read_sentence(s[i])
		gsub(/-?E(CANCELED|TIMEDOUT|INTR|EXIST)/, "", comment)
	}
	FNR == 1 || /^\/\* ---- / { section_errnos = "" }
	/^\/\*/ { inside = 1; comment = values = errnos = "" }
	inside {
		line = $0
		gsub(/^ *\/?\*+ *|[. ]*\*\/ *$/, "", line)
		comment = comment (line == "" ? ". " : " ") line
		sub(/^[. ]+/, "", comment)
	}
	/\*\/ *$/ && inside { inside = 0; comment = comment ". "; read_comment(); next }
	inside { next }
	/^$/ { comment = values = errnos = "" }
	/^[a-z].*[ *]ctxfd_[a-z_]*[a-z]\(/ && !/^static/ {
		name = $0
		sub(/\(.*/, "", name)
		sub(/.*[ *]/, "", name)
		if (/struct ctxfd \*ctxfd_(with|merge)/) {
			values = values common_values
			errnos = errnos common_errnos
		}
		if (values != "" || /^void ctxfd/)
			print name, "is told of"
		tell_values(name, values)
		tell_errnos(name, "fails with", errnos section_errnos)
		tell_errnos(name, "mentions", comment)
		while (match(errnos, /those of ctxfd_[a-z_]+/)) {
			print name, "fails as", substr(errnos, RSTART + 9, RLENGTH - 9)
			errnos = substr(errnos, RSTART + RLENGTH)
		}
	}' "$@" | sort -u >"$out/raw"
	awk 'NR == FNR { if ($2 == "fails" && $3 == "with") errnos[$1] = errnos[$1] " " $4; next }
		!/ fails as / { print; next }
		{ n = split(errnos[$4], e, " "); for (i = 1; i <= n; i++) print $1, "fails with", e[i] }' "$out/raw" "$out/raw" | sort -u
}

# pages FILE...: the same of pages, without what they mention.
pages() {
	# shellcheck disable=SC2016
	awk "$words"'
	function end_of_paragraph(    i) {
		for (i = 1; i <= named; i++) {
			spoken_of[name[i]]
			tell_values(name[i], text)
			if (text ~ /cannot fail/)
				safe[name[i]]
		}
		if (!named)
			others = others text
		named = 0
		text = ""
	}
	function end_of_page(    f) {
		for (f in functions) {
			if (!(f in spoken_of))
				tell_values(f, others)
			if (f in spoken_of || others != "" || f in nothing)
				print f, "is told of"
			if (!(f in safe))
				tell_errnos(f, "fails with", unnamed)
		}
		split("", functions)
		split("", spoken_of)
		split("", safe)
		split("", nothing)
		others = unnamed = ""
	}
	FNR == 1 { end_of_page() }
	/^\.Sh/ {
		if (section == "VALUES")
			end_of_paragraph()
		section = $NF
		named = list = 0
		text = ""
		next
	}
	section == "NAME" && /^\.Nm ctxfd_/ { functions[$2] }
	section == "SYNOPSIS" && /^\.F[no]/ && type == ".Ft void" { nothing[$2] }
	{ type = $0 }
	section != "VALUES" && section != "ERRORS" || /^\.Xr/ { next }
	/^\.Fn/ && !list { name[++named] = $2; next }
	section == "VALUES" && /^\.Pp/ { end_of_paragraph() }
	section == "VALUES" { text = text " " $0; next }
	/^\.Bl/ { list = 1 }
	/^\.El/ { list = named = 0 }
	/^\.It Bq Er/ {
		if (!named)
			unnamed = unnamed " " $0
		for (i = 1; i <= named; i++)
			tell_errnos(name[i], "fails with", $0)
	}
	END { end_of_page() }' "$@" | sort -u
}

# differences HEADERS PAGES: of two files of facts.
differences() {
	grep -v ' mentions ' "$1" | comm -23 - "$2" | sed 's/$/: so says the header, but no page/'
	grep -v ' mentions ' "$1" | comm -13 - "$2" | sed 's/$/: so says a page, but not the header/'
	sed -n 's/ mentions / fails with /p' "$1" | comm -23 - "$1" | sed 's/$/: the header speaks of it, but not under Errors/'
}

failed=0
headers=$(find include -name '*.h' ! -name '*uring*' | sort)
pages=$(find src/man -name 'ctxfd_*.3' ! -name '*uring*' | sort)
# shellcheck disable=SC2086 # lists
headers $headers >"$out/headers"
# shellcheck disable=SC2086
pages $pages >"$out/pages"
sed -n '/^static/d; /^#/d; s/^[a-z].*[ *]\(ctxfd_[a-z_]*[a-z]\)(.*/\1 is told of/p' include/ctxfd.h | sort -u |
	comm -23 - "$out/headers" | sed 's/ is told of$/: no sentence in the header begins with Returns/' >"$out/wrong"
differences "$out/headers" "$out/pages" >>"$out/wrong"
if [ -s "$out/wrong" ]; then
	cat "$out/wrong"
	exit 1
fi

# Does it see what it is for? Each errno and value is made another in turn, on one side alone.

# see WHERE: complains if the two sides still say the same.
see() {
	[ -n "$(differences "$out/headers.now" "$out/pages.now")" ] && return
	echo "This says something else now, and nothing is wrong with that: $1"
	failed=1
}

# change FILE LINE WORD COPY: writes FILE with an errno there that no function has.
change() {
	sed "${2}s/\([^A-Za-z-]\)$3/\1-EDOM/" "$1" >"$4"
}

cp "$out/headers" "$out/headers.now"
for page in $pages; do
	# shellcheck disable=SC2046
	pages $(echo "$pages" | grep -vx "$page") >"$out/others"
	awk '/^\.Sh/ { section = $NF }
		section == "VALUES" && /^\.(Li|Va|Dv) (-?[eE].*|true|false|NULL|INT64_MAX)$/ { print FNR, $2 }
		section == "ERRORS" && /^\.It Bq Er/ { print FNR, $4 }' "$page" >"$out/lines"
	while read -r line word; do
		change "$page" "$line" "$word" "$out/page.3"
		pages "$out/page.3" | sort -u - "$out/others" >"$out/pages.now"
		see "$page:$line $word"
	done <"$out/lines"
done

cp "$out/pages" "$out/pages.now"
for header in $headers; do
	others=$(echo "$headers" | grep -vx "$header")
	awk '/^\/\*/ { inside = 1 }
		inside {
			n = split($0, word, " ")
			for (i = 1; i <= n; i++) {
				if (word[i] ~ /^(Errors|Returns)[:,]?$/)
					on = 1
				bare = word[i]
				gsub(/[^A-Za-z0-9_-]/, "", bare)
				if (on && bare ~ /^-?(E[A-Z0-9]+|errno)$|^(true|false|NULL|INT64_MAX)$/)
					print FNR, bare
				if (word[i] ~ /\.$/ || word[i] == "*/")
					on = 0
			}
		}
		/\*\/$/ { inside = on = 0 }' "$header" >"$out/lines"
	while read -r line word; do
		change "$header" "$line" "$word" "$out/header.h"
		# shellcheck disable=SC2086
		headers $others "$out/header.h" >"$out/headers.now"
		see "$header:$line $word"
	done <"$out/lines"
done
exit $failed
