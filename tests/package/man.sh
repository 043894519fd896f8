#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# The man pages: each function of the headers has its name and its prototype on a page, the README names each page, and
# the pages are free of lint.

code=0
pages='src/man/ctxfd.3 src/man/ctxfd_[!u]*.3'
header=$(sed -n '/^#if/!s/^[a-z].*[ *]\(ctxfd_[a-z_]*[a-z]\)(.*/\1/p' $(ls include/*.h | grep -v uring) | sort -u)
for part in 'Nm' 'F[no]'; do
	# shellcheck disable=SC2086 # patterns
	named=$(sed -n "/^\.Sh NAME/,/^\.Sh DESCRIPTION/s/^\.$part \(ctxfd_[a-z_]*\).*/\1/p" $pages | sort)
	if [ "$header" != "$named" ]; then
		echo "The header and the pages' .$part differ:"
		printf '%s\n' "$header" "$named" | sort | uniq -u
		code=1
	fi
done

for page in src/man/*.3; do
	grep -q "($page)" README.md || {
		echo "The README does not name $page."
		code=1
	}
done

# mandoc knows the language best; groff, which comes with man, knows something.
if command -v mandoc >/dev/null; then
	lint='mandoc -T lint -W style'
elif command -v groff >/dev/null; then
	lint='groff -mandoc -ww -z'
else
	echo "neither mandoc nor groff is here to check the pages"
	exit $((code ? code : 77))
fi
cd src/man || exit 1
for page in *.3; do
	# Of other pages than ours mandoc knows only those that are installed.
	if $lint "$page" 2>&1 | grep -Ev 'mandoc.db|referenced manual not found: Xr ([^c]|c[^t])|operating system'; then
		code=1
	fi
done
exit $code
