#!/bin/sh
# SPDX-License-Identifier: MIT
# variants: plain clang
#
# What the compiler says of programs that lose a context, give it up twice or use it after that, and that it says nothing of
# programs that are right. gcc's analyzer finds the first kind; clang, and gcc before 11, only a result that nobody takes.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
failed=0

cat >"$dir/common.h" <<'END'
#include <ctxfd.h>
#include <errno.h>
#include <stdlib.h>

struct request {
	struct ctxfd *ctx;
	const struct ctxfd *parent;
};

int work(const struct ctxfd *ctx);
int start(void *(*fn)(void *), const void *arg);
void keep(struct request *r);
END

# compile FLAG...: the program in $dir/function.c; what is said is in $dir/said.
compile() {
	{ echo '#include "common.h"' && cat "$dir/function.c"; } >"$dir/program.c"
	$CC -std=gnu11 -Iinclude -Wall -Wextra "$@" -c -o "$dir/program.o" "$dir/program.c" 2>"$dir/said" </dev/null
}

# The analyzer says of a constructor's result that it is lost, or the compiler is too old for it.
echo 'void f(const struct ctxfd *p) { struct ctxfd *c = ctxfd_with_cancel(p); if (c) work(c); }' >"$dir/function.c"
analyzer=
compile -fanalyzer
if grep -q 'Wanalyzer-malloc-leak' "$dir/said"; then
	analyzer=-fanalyzer
else
	case $($CC -dM -E - </dev/null) in
	*__clang__*) ;;
	*) [ "$($CC -dumpversion | cut -d. -f1)" -lt 11 ] || { echo "The analyzer sees no context lost." && failed=1; } ;;
	esac
fi

# wrong WARNING: the function on stdin gets it. With * before it, without the analyzer too.
wrong() {
	cat >"$dir/function.c"
	case $1 in \**) ;; *) [ -n "$analyzer" ] || return ;; esac
	compile $analyzer
	grep -q "\[.*-W${1#\*}=*[],]" "$dir/said" || {
		echo "This should have got -W${1#\*}:"
		cat "$dir/function.c" "$dir/said"
		failed=1
	}
}

# right: the function on stdin gets no warning.
right() {
	cat >"$dir/function.c"
	for optimize in -O0 -O2; do
		compile $analyzer $optimize
		[ -s "$dir/said" ] || continue
		echo "This is right, and was told with $optimize:"
		cat "$dir/function.c" "$dir/said"
		failed=1
		return
	done
}

wrong '*unused-result' <<'END'
void nobody_takes_it(const struct ctxfd *parent)
{
	ctxfd_with_cancel(parent);
}
END
wrong '*unused-result' <<'END'
void nobody_takes_the_value(const struct ctxfd *parent)
{
	ctxfd_with_value(parent, &errno, NULL, NULL);
}
END
wrong analyzer-malloc-leak <<'END'
int lost(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_timeout(parent, CTXFD_SEC);

	return ctx ? work(ctx) : -errno;
}
END
wrong analyzer-malloc-leak <<'END'
int lost_on_the_way_out(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_deadline(parent, CTXFD_SEC);

	if (!ctx)
		return -errno;
	if (work(parent) < 0)
		return -1;
	ctxfd_close(ctx);
	return 0;
}
END
wrong analyzer-malloc-leak <<'END'
int lost_value(const struct ctxfd *parent, void *value)
{
	const struct ctxfd *ctx = ctxfd_with_value(parent, &errno, value, NULL);

	return ctx ? work(ctx) : -errno;
}
END
wrong analyzer-double-free <<'END'
void closed_twice(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	ctxfd_close(ctx);
	ctxfd_close(ctx);
}
END
wrong analyzer-double-free <<'END'
void closed_and_scoped(const struct ctxfd *parent)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_cancel(parent);

	ctxfd_close(ctx);
}
END
wrong 'use-after-free' <<'END'
int used_after_close(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	if (!ctx)
		return -errno;
	ctxfd_close(ctx);
	return ctxfd_err(ctx);
}
END

right <<'END'
int opened_and_closed(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_timeout(parent, CTXFD_SEC);
	int result;

	if (!ctx)
		return -errno;
	result = work(ctx);
	ctxfd_close(ctx);
	return result;
}
END
right <<'END'
int null_is_fine(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);
	int result = ctx ? work(ctx) : -errno;

	ctxfd_close(ctx);
	return result;
}
END
right <<'END'
int scoped(const struct ctxfd *parent)
{
	CTXFD_SCOPED struct ctxfd *ctx = ctxfd_with_cancel(parent);

	if (!ctx)
		return -errno;
	if (work(parent) < 0)
		return -1;
	return work(ctx);
}
END
right <<'END'
int scoped_value(const struct ctxfd *parent, void *value)
{
	CTXFD_SCOPED_REF const struct ctxfd *ctx = ctxfd_with_value(parent, &errno, value, free);

	return ctx ? work(ctx) : -errno;
}
END
right <<'END'
int value_given_up(const struct ctxfd *parent, void *value)
{
	const struct ctxfd *ctx = ctxfd_with_value(parent, &errno, value, NULL);
	int result = ctx ? work(ctx) : -errno;

	ctxfd_unref(ctx);
	return result;
}
END
right <<'END'
int child_outlives_parent(const struct ctxfd *root)
{
	struct ctxfd *parent = ctxfd_with_cancel(root), *child = parent ? ctxfd_with_timeout(parent, CTXFD_SEC) : NULL;
	int result;

	ctxfd_unref(parent);
	result = child ? work(child) : -1;
	ctxfd_close(child);
	return result;
}
END
right <<'END'
static void *thread(void *arg)
{
	work(arg);
	ctxfd_unref(arg);
	return NULL;
}

int reference_for_a_thread(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);
	int result;

	if (!ctx)
		return -errno;
	result = start(thread, ctxfd_ref(ctx));
	ctxfd_close(ctx);
	return result;
}
END
right <<'END'
int own_reference(const struct ctxfd *root)
{
	struct ctxfd *ctx = ctxfd_with_cancel(root);
	const struct ctxfd *mine = ctxfd_ref(ctx);
	int result;

	ctxfd_close(ctx);
	result = mine ? work(mine) : -1;
	ctxfd_unref(mine);
	return result;
}
END
right <<'END'
struct request *kept(const struct ctxfd *parent)
{
	struct request *r = malloc(sizeof *r);

	if (!r)
		return NULL;
	r->parent = parent;
	r->ctx = ctxfd_with_cancel(parent);
	if (!r->ctx) {
		free(r);
		return NULL;
	}
	return r;
}
END
right <<'END'
struct ctxfd *handed_on(const struct ctxfd *parent)
{
	struct ctxfd *ctx = ctxfd_with_cancel(parent);

	if (ctx && work(ctx) < 0) {
		ctxfd_close(ctx);
		return NULL;
	}
	return ctx;
}
END
right <<'END'
int merged(const struct ctxfd *a, const struct ctxfd *b)
{
	const struct ctxfd *detached = ctxfd_without_cancel(a);
	struct ctxfd *both = detached ? ctxfd_merge(detached, b) : NULL;
	int result = both ? work(both) : -errno;

	ctxfd_close(both);
	ctxfd_unref(detached);
	return result;
}
END
right <<'END'
int many(const struct ctxfd *parent)
{
	struct request all[10];

	for (int i = 0; i < 10; i++) {
		all[i].ctx = ctxfd_with_fd(parent, i, POLLIN, 0);
		keep(&all[i]);
	}
	for (int i = 0; i < 10; i++)
		ctxfd_close(all[i].ctx);
	return 0;
}
END
exit $failed
