/* SPDX-License-Identifier: MIT */
/* Contexts and errors in words. Reads fixed fields only. */
#include <inttypes.h>
#include <stdio.h>
#include <limits.h>
#include <string.h>

#include "core/context.h"

const char *ctxfd_strerror(int err)
{
	if (err == 0)
		return "no error";
	if (err == -ECANCELED)
		return "context canceled";
	if (err == -ETIMEDOUT)
		return "context deadline exceeded";
	if (err > 0)
		return strsignal(err);
	return strerror(err == INT_MIN ? INT_MAX : -err);
}

/* How one context came to be. part has room for the longest. */
static size_t part_of(const struct ctxfd *ctx, char part[64])
{
	const char *name = ctxfdi_kinds[ctx->kind].name, *dot = ctx->parent ? "." : "";
	int length;

	if (ctx->kind == KIND_DEADLINE)
		length = snprintf(part, 64, "%s%s(%" PRId64 ")", dot, name, ctx->deadline);
	else if (ctx->kind == KIND_WITH_VALUE)
		length = snprintf(part, 64, "%s%s(%p)", dot, name, ctx->key);
	else
		length = snprintf(part, 64, "%s%s", dot, name);
	return (size_t)length;
}

/*
 * A chain may be a million deep and is read from its end: first the length, then the parts from the last to the first.
 */
int ctxfd_describe(const struct ctxfd *ctx, char *buf, size_t size)
{
	const struct ctxfd *c;
	size_t total = 0, end, length;
	char part[64];

	for (c = ctx; c; c = c->parent)
		total += part_of(c, part);
	for (c = ctx, end = total; c && size; c = c->parent, end -= length) {
		length = part_of(c, part);
		for (size_t i = 0; i < length && end - length + i < size - 1; i++)
			buf[end - length + i] = part[i];
	}
	if (size)
		buf[total < size - 1 ? total : size - 1] = '\0';
	return total > INT_MAX ? -EOVERFLOW : (int)total;
}
