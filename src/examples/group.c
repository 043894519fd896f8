/* SPDX-License-Identifier: MIT */
/*
 * group: fetches several things in parallel, two at a time, until one cannot be had. Go's errgroup.
 *
 * The missing one ends the group's context: what is being fetched stops, and what waits for its turn is not begun. When
 * ctxfd_group_wait returns no thread is left, so the list may be freed or, as here, go out of scope.
 *
 * Output:
 *     index: fetched
 *     archive: context canceled
 *     logo: No such file or directory
 *     map: not begun
 */
#include <ctxfd_group.h>

#include <errno.h>
#include <stdio.h>

struct page {
	const char *name;
	int64_t takes; /* how long it takes to fetch it; negative: there is none */
	bool begun;
	int result;
};

/* Stands for one that talks to a server, by calls that end with ctx. */
static int fetch(const struct ctxfd *ctx, void *arg)
{
	struct page *page = arg;

	page->begun = true;
	page->result = page->takes < 0 ? -ENOENT : ctxfd_sleep(ctx, page->takes);
	return page->result;
}

static void tell(const struct page *page)
{
	const char *how = page->result ? ctxfd_strerror(page->result) : "fetched";

	printf("%s: %s\n", page->name, page->begun ? how : "not begun");
}

int main(void)
{
	struct page pages[] = {
		{ .name = "index", .takes = CTXFD_MSEC },
		{ .name = "archive", .takes = 3600 * CTXFD_SEC },
		{ .name = "logo", .takes = -1 },
		{ .name = "map", .takes = CTXFD_MSEC },
	};
	struct ctxfd_group *group = ctxfd_group_new(ctxfd_background(), 2);
	int i, n = sizeof(pages) / sizeof(pages[0]), err = 0, result;

	if (!group) {
		perror("group");
		return 1;
	}
	for (i = 0; i < n && !err; i++)
		err = ctxfd_group_go(group, fetch, &pages[i]);
	if (err && err != -ECANCELED) { /* no memory, or no thread: then we want none of it */
		fprintf(stderr, "group: %s: %s\n", pages[i - 1].name, ctxfd_strerror(err));
		ctxfd_group_cancel(group, err);
	}
	result = ctxfd_group_wait(group);
	for (i = 0; i < n; i++)
		tell(&pages[i]);
	return result == -ENOENT ? 0 : 1;
}
