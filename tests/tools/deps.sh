#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain
#
# What tests/tools/deps does on other systems than this one: a PATH of make-believe commands stands for each.

real=$PWD/tests/tools/deps
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
failed=0

# system COMMAND...: what the make-believe system has. `id` is root's or a user's.
system() {
	rm -rf "$dir/bin" "$dir/did"
	mkdir "$dir/bin"
	for command in sh env cut paste sort cat touch chmod; do
		ln -s "$(command -v $command)" "$dir/bin/$command"
	done
	fake true 'exit 0'
	for command; do
		case $command in
		root) fake id 'echo 0' ;;
		user) fake id 'echo 1000' ;;
		sudo) fake sudo '[ "$1" = -n ] && shift; exec "$@"' ;;
		sudo-that-asks) fake sudo 'exit 1' ;;
		pkg-config) fake pkg-config "[ -e $dir/bin/has-\$2 ]" ;;
		apt-get | dnf | pacman | apk)
			# Installing makes curl, and cmocka for pkg-config to find.
			fake $command "echo $command \"\$@\" >>$dir/did
				case \"\$*\" in *curl*) printf '#!/bin/sh\n' >$dir/bin/curl; chmod +x $dir/bin/curl;; esac
				case \"\$*\" in *cmocka*) touch $dir/bin/has-cmocka;; esac"
			;;
		apt-with-old-list)
			fake apt-get "echo apt-get \"\$@\" >>$dir/did
				case \$1 in update) touch $dir/bin/updated;;
				*) [ -e $dir/bin/updated ] && printf '#!/bin/sh\n' >$dir/bin/curl && chmod +x $dir/bin/curl;; esac"
			;;
		apt-that-fails) fake apt-get "echo apt-get \"\$@\" >>$dir/did; exit 1" ;;
		apt-that-lies) fake apt-get "echo apt-get \"\$@\" >>$dir/did" ;;
		esac
	done
}

fake() {
	rm -f "$dir/bin/$1"
	printf '#!/bin/sh\n%s\n' "$2" >"$dir/bin/$1"
	chmod +x "$dir/bin/$1"
}

# expect CODE DID SAID NAME...: the exit code, what was done and a part of what was said when these are asked for.
expect() {
	code=$1 did=$2 said=$3
	shift 3
	PATH=$dir/bin "$dir/bin/sh" "$real" "$@" >"$dir/said" 2>&1
	is=$?
	{ cat "$dir/said" && echo; } >"$dir/said.and"
	[ -e "$dir/did" ] || : >"$dir/did"
	if [ $is != "$code" ] || [ "$(paste -sd ';' "$dir/did")" != "$did" ] || ! grep -qF -e "$said" "$dir/said.and"; then
		printf 'deps %s should do "%s", say "%s" and exit with %s.\nIt did "%s", exited with %s and said:\n' "$*" "$did" \
			"$said" "$code" "$(paste -sd ';' "$dir/did")" $is
		sed 's/^/    /' "$dir/said"
		failed=1
	fi
}

apt='apt-get install -y --no-install-recommends'

system root apt-get pkg-config
expect 0 "$apt curl libcmocka-dev" 'missing: curl cmocka' curl cmocka
expect 0 "$apt curl libcmocka-dev" '' curl cmocka # the second time there is nothing to do
[ ! -s "$dir/said" ] || { echo "deps has something to say when nothing is missing" && failed=1; }
system user sudo dnf pkg-config
expect 0 'dnf install -y curl libcmocka-devel' 'missing: curl cmocka' curl cmocka
system root pacman pkg-config
expect 0 'pacman -S --needed --noconfirm cmocka curl' 'missing: curl cmocka' curl cmocka
system root apk pkg-config
expect 0 'apk add cmocka-dev curl' 'missing: curl cmocka' curl cmocka

system root apt-with-old-list
expect 0 "$apt curl;apt-get update;$apt curl" '' curl
system root apt-that-fails
expect 1 "$apt curl;apt-get update" "    $apt curl" curl
system root apt-that-lies
expect 1 "$apt curl" 'still missing: curl' curl
system user sudo-that-asks apt-get
expect 1 '' "    sudo $apt curl" curl
system user apk
expect 1 '' '    sudo apk add curl' curl
system root
expect 1 '' 'missing: curl valgrind. None of apt-get, dnf, pacman and apk is here' curl valgrind

exit $failed
