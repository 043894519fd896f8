/* SPDX-License-Identifier: MIT */
/*
 * value: the context carries the user's name, so that the functions in between need not know of it.
 *
 * The key is the address of a static variable, which no other file can name. Other files would call the two typed
 * functions.
 *
 * Output:
 *     gopher may read
 *     nobody may not read
 *     root may read
 */
#define _POSIX_C_SOURCE 200809L
#include <ctxfd.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char user_key;

static const struct ctxfd *with_user(const struct ctxfd *parent, const char *user)
{
	char *copy = strdup(user);
	const struct ctxfd *ctx = copy ? ctxfd_with_value(parent, &user_key, copy, free) : NULL;

	if (!ctx)
		free(copy);
	return ctx;
}

static const char *user_of(const struct ctxfd *ctx)
{
	return ctxfd_value(ctx, &user_key);
}

static void read_page(const struct ctxfd *ctx)
{
	const char *user = user_of(ctx);

	printf("%s may%s read\n", user ? user : "nobody", user ? "" : " not");
}

int main(void)
{
	const struct ctxfd *gopher = with_user(ctxfd_background(), "gopher");
	struct ctxfd *request = gopher ? ctxfd_with_cancel(gopher) : NULL;
	const struct ctxfd *sudo = request ? with_user(request, "root") : NULL;

	if (!sudo) {
		perror("value");
		return 1;
	}
	read_page(request);
	read_page(ctxfd_background());
	read_page(sudo);
	ctxfd_unref(sudo);
	ctxfd_unref(gopher); /* request keeps it alive */
	ctxfd_close(request);
	return 0;
}
