#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: package
#
# `make dist`: the same commit gives the same bytes, wherever and by whomever it is made. What is in the tarball builds, installs and passes
# tests where there is no git; a meson project has the library by the tarball and ctxfd.wrap.

. tests/package/scratch

name=ctxfd-$version
git="git -c safe.directory=*"
$git rev-parse HEAD >/dev/null 2>&1 || { echo 'no git here, or no repository'; exit 77; }
[ -z "$($git status --porcelain src include)" ] || { echo 'not all is committed'; exit 77; }

$MAKE -s BUILD="$dir/build" dist >"$dir/log" 2>&1 || fail "make dist: $(cat "$dir/log")"
$git clone -q "$PWD" "$dir/clone" 2>"$dir/log" || fail "$(cat "$dir/log")"
(umask 077 && cd "$dir/clone" && TZ=Asia/Tokyo LC_ALL=C $MAKE -s URING=no dist) >"$dir/log" 2>&1 || fail "make dist in a clone: $(cat "$dir/log")"
for file in $name.tar.gz ctxfd.wrap; do
	cmp "$dir/build/dist/$file" "$dir/clone/build/dist/$file" || fail "$file differs from that of a clone."
done
touch "$dir/clone/src/new.c"
! $MAKE -s -C "$dir/clone" dist >"$dir/log" 2>&1 || fail "make dist takes no notice of what is not committed."

# A git that tells whether it was asked.
mkdir "$dir/bin" && printf '#!/bin/sh\necho "$*" >>"%s/git"\nexit 1\n' "$dir" >"$dir/bin/git" && chmod +x "$dir/bin/git" || exit 1
tar -C "$dir" -xzf "$dir/build/dist/$name.tar.gz" && cd "$dir/$name" || exit 1
(
	PATH=$dir/bin:$PATH
	$MAKE -s URING="$uring" install PREFIX="$dir/p" && $MAKE -s URING="$uring" check TESTS="tree cancel io group abi man man_errors layers"
) >"$dir/log" 2>&1 || fail "The tarball: $(tail -n 60 "$dir/log")"
[ -e "$dir/p/lib/libctxfd.so.0" ] || fail "The tarball installs nothing."
[ ! -e "$dir/git" ] || fail "The tarball asks git: $(cat "$dir/git")"

command -v meson >/dev/null && command -v ninja >/dev/null || exit 0
mkdir -p "$dir/project/subprojects/packagefiles" && cp "$dir/build/dist/ctxfd.wrap" "$dir/project/subprojects" &&
	cp "$dir/build/dist/$name.tar.gz" "$dir/project/subprojects/packagefiles" && cp "$user" "$dir/project/use.c" || exit 1
cat >"$dir/project/meson.build" <<END
project('use', 'c')
executable('use', 'use.c', dependencies: dependency('ctxfd'))
END
{ meson setup --wrap-mode=forcefallback "$dir/out" "$dir/project" && ninja -C "$dir/out"; } >"$dir/log" 2>&1 || fail "By wrap: $(cat "$dir/log")"
[ "$("$dir/out/use")" = "$says" ] || fail "The program that has it by wrap said: $("$dir/out/use")"
exit 0
