#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang
#
# Installs into a scratch folder, compiles a program against what is there (C99, C11, C++17; shared and static; by
# pkg-config alone), runs it, uninstalls, and sees that nothing is left. Once without pkg-config, and so without
# liburing and cmocka, from the first compilation on; then with all that is here.

. tests/package/scratch

# The files that are not directories under $1, sorted.
files() { (cd "$1" && find . ! -type d | LC_ALL=C sort); }

# expect_files DIR FILE...
expect_files() {
	files "$1" >"$dir/is"
	shift
	printf './%s\n' "$@" | LC_ALL=C sort >"$dir/should"
	diff "$dir/should" "$dir/is" || fail "Installed are other files (>) than there should be (<)."
}

# use DIR: compiles and runs the program against the library installed in DIR/lib and DIR/include.
use() {
	export PKG_CONFIG_PATH="$1/lib/pkgconfig"
	for lang in c99 c11 c++17; do
		case $lang in
		c++17) compiler=$CXX source=$dir/use.cc ;;
		*) compiler=$CC source=$dir/use.c ;;
		esac
		cp "$user" "$source"
		flags="-std=$lang -Wall -Wextra -Wpedantic -Werror"
		$compiler $flags $(pkg-config --cflags ctxfd) -D_POSIX_C_SOURCE=200809L "$source" \
			-o "$dir/shared" $(pkg-config --libs ctxfd) || fail "It does not compile as $lang."
		$compiler $flags $(pkg-config --cflags ctxfd) -D_POSIX_C_SOURCE=200809L "$source" \
			-o "$dir/static" -Wl,-Bstatic $(pkg-config --libs ctxfd) -Wl,-Bdynamic \
			$(pkg-config --static --libs-only-other ctxfd) || fail "It does not link statically as $lang."
		readelf -d "$dir/shared" | grep -q 'NEEDED.*libctxfd\.so\.0' || fail "It is not linked with libctxfd.so.0."
		! readelf -d "$dir/static" | grep -q libctxfd || fail "The static program needs libctxfd.so."
		for program in shared static; do
			said=$(LD_LIBRARY_PATH="$1/lib" "$dir/$program") || fail "The $program program, $lang, failed."
			[ "$said" = "$says" ] || fail "The $program program, $lang, said: $said"
		done
	done
	# Wholly static, as `pkg-config --static` says.
	$CC -std=gnu11 $(pkg-config --static --cflags ctxfd) tests/package/install_use.c -o "$dir/static" -static \
		$(pkg-config --static --libs ctxfd) || fail "It does not link with -static."
	[ "$("$dir/static")" = "$says" ] || fail "The program with -static failed."
	[ "$(pkg-config --modversion ctxfd)" = "$version" ] || fail "pkg-config knows another version than $version."
}

core="$(ls include/*.h | grep -v uring | tr '\n' ' ')"'lib/libctxfd.a lib/libctxfd.so lib/libctxfd.so.0 lib/pkgconfig/ctxfd.pc
	lib/cmake/ctxfd/ctxfd-config.cmake lib/cmake/ctxfd/ctxfd-config-version.cmake'
uring_files='include/ctxfd_uring.h lib/libctxfd-uring.a lib/libctxfd-uring.so lib/libctxfd-uring.so.0
	lib/pkgconfig/ctxfd-uring.pc'
man=
for page in src/man/*.[1-9]; do
	[ -e "$page" ] || continue
	# A page of its own for each name on it.
	for name in $(sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([a-z0-9_]*\).*/\1/p' "$page"); do
		man="$man share/man/man${page##*.}/$name.${page##*.}"
	done
done

echo "Without pkg-config, into a PREFIX, by somebody whose files nobody else may read."
umask 077
# In Turkish, if that can be had: [a-z] has no i there.
language=
! localedef -i tr_TR -f UTF-8 "$dir/tr_TR.UTF-8" 2>/dev/null || language="LOCPATH=$dir LC_ALL=tr_TR.UTF-8"
env $language $MAKE -s BUILD="$dir/build1" PKG_CONFIG=false PREFIX="$dir/p1" install >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
expect_files "$dir/p1" $core $man
grep -q "set LD_LIBRARY_PATH to $dir/p1/lib" "$dir/log" || fail "It does not say how the loader finds a folder of one's own: $(cat "$dir/log")"
[ -z "$(find "$dir/p1" ! -type l ! -perm -444)" ] || fail "Not all can read: $(find "$dir/p1" ! -type l ! -perm -444)"
use "$dir/p1"
$MAKE -s BUILD="$dir/build1" PKG_CONFIG=false PREFIX="$dir/p1" uninstall >"$dir/log" 2>&1 || fail "uninstall"
[ -z "$(files "$dir/p1")" ] || fail "uninstall left: $(files "$dir/p1")"

echo "With what is here, into a DESTDIR with folders of its own."
folders="PREFIX=/opt/x LIBDIR=/opt/x/lib64 INCLUDEDIR=/opt/x/inc MANDIR=/opt/x/man"
$MAKE -s BUILD="$dir/build2" URING="$uring" $folders DESTDIR="$dir/p2" install >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
all=$core
if [ -e "$dir/build2/libctxfd-uring.so" ]; then
	all="$core $uring_files"
	printf '#include <ctxfd_uring.h>\nint main(void) { return !ctxfd_uring_open || !ctxfd_background(); }\n' >"$dir/uring.c"
	export PKG_CONFIG_PATH="$dir/p2/opt/x/lib64/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir/p2"
	$CC -std=gnu11 $(pkg-config --cflags ctxfd-uring) -o "$dir/uring" "$dir/uring.c" $(pkg-config --libs ctxfd-uring) ||
		fail "A program with ctxfd-uring does not compile."
	LD_LIBRARY_PATH="$dir/p2/opt/x/lib64" "$dir/uring" || fail "A program with ctxfd-uring does not run."
	unset PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
fi
expect_files "$dir/p2" $(printf 'opt/x/%s\n' $all $man | sed -e s,/x/lib/,/x/lib64/, -e s,/x/include/,/x/inc/, \
	-e s,/x/share/man/,/x/man/,)
for variable in libdir=/opt/x/lib64 includedir=/opt/x/inc prefix=/opt/x; do
	grep -qx "$variable" "$dir/p2/opt/x/lib64/pkgconfig/ctxfd.pc" || fail "ctxfd.pc does not say $variable."
done
$MAKE -s BUILD="$dir/build2" URING=no $folders DESTDIR="$dir/p2" uninstall >"$dir/log" 2>&1 || fail "uninstall"
[ -z "$(files "$dir/p2")" ] || fail "uninstall left: $(files "$dir/p2")"

echo "What was built, with the settings that it was built with, into a DESTDIR with a space."
$MAKE -s BUILD="$dir/build1" URING=no CFLAGS="-O1 -D_GNU_SOURCE -DA='\"a b\$\$\"'" >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
! grep -w warning "$dir/log" || fail "What a program's own flags often say is warned of."
cp "$dir/build1/libctxfd.so.0" "$dir/built"
touch "$dir/before"
$MAKE BUILD="$dir/build1" DESTDIR="$dir/it's p3" install >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
cmp "$dir/built" "$dir/it's p3/usr/local/lib/libctxfd.so.0" || fail "Another library was installed than the one that was built."
[ -z "$(find "$dir/build1" -type f -newer "$dir/before")" ] || fail "install built something that was there."
grep -qE 'ldconfig|LD_LIB' "$dir/log" && fail "install speaks of the loader, which knows no DESTDIR."
grep -qxF "Installed under $dir/it's p3/usr/local." "$dir/log" || fail "It does not say where it installs: $(cat "$dir/log")"
$MAKE -s BUILD="$dir/build1" DESTDIR="$dir/it's p3" uninstall >"$dir/log" 2>&1 || fail "uninstall"
[ -z "$(files "$dir/it's p3")" ] || fail "uninstall left: $(files "$dir/it's p3")"
echo "The compiler's own tools."
printf '#!/bin/sh\ncase $1 in -print-prog-name=*) echo "/fake/${1#*=}" ;; -dumpmachine) echo fake-linux ;; *) exit 1 ;; esac\n' >"$dir/fake-gcc"
chmod +x "$dir/fake-gcc"
unset AR OBJCOPY PKG_CONFIG URING
for is in AR=/fake/ar OBJCOPY=/fake/objcopy PKG_CONFIG=fake-linux-pkg-config URING=no; do
	$MAKE -pn CC="$dir/fake-gcc" BUILD="$dir/none" libs 2>/dev/null | grep -qx "${is%%=*} := ${is#*=}" || fail "It is not so that $is."
done

for v in BUILD PREFIX LIBDIR; do
	$MAKE "$v=$dir/a folder" install >"$dir/log" 2>&1 && fail "install takes a $v with a space."
	grep -q "$v must not have spaces" "$dir/log" || fail "It does not say that $v must not have spaces."
done
# (With -n, since one that takes it writes who knows where.)
for v in PREFIX LIBDIR INCLUDEDIR MANDIR; do
	$MAKE -n "$v=a_folder" install >"$dir/log" 2>&1 && fail "install takes a $v that the working directory is part of."
	grep -q "$v must begin with a slash" "$dir/log" || fail "It does not say that $v must begin with a slash."
done
exit 0
