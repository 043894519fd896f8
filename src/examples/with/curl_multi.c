/* SPDX-License-Identifier: MIT */
/*
 * curl_multi MILLISECONDS URL...: asks several servers at once. The first good answer ends the other transfers.
 *
 * - The done fd is an extra fd of curl_multi_poll, so one call waits for the transfers and for the context.
 * - curl_multi_remove_handle is what stops a transfer, on the thread that runs the multi handle. No after-func may call
 *   it: of a multi handle's functions, other threads may call curl_multi_wakeup alone.
 *
 * A transfer that is removed while libcurl's thread looks up a name may wait for that thread. Where that matters, use a
 * libcurl that is built with c-ares.
 */
#include "command.h"

#include <curl/curl.h>
#include <string.h>

#define MAX_URLS 16

struct transfer {
	CURL *easy;
	size_t len;
	char body[4096];
};

static size_t receive(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;

	n *= size;
	if (n > sizeof(t->body) - t->len)
		return 0; /* libcurl then fails the transfer */
	memcpy(t->body + t->len, data, n);
	t->len += n;
	return n;
}

static int start(CURLM *multi, struct transfer *t, const char *url)
{
	t->easy = curl_easy_init();
	if (!t->easy || curl_easy_setopt(t->easy, CURLOPT_URL, url) || curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t) ||
	    curl_easy_setopt(t->easy, CURLOPT_FAILONERROR, 1L) || curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L) ||
	    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, receive) ||
	    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t))
		return -ENOMEM;
	return curl_multi_add_handle(multi, t->easy) ? -EIO : 0;
}

/* Of the transfers that have finished, the first that went well; NULL if there is none. */
static struct transfer *good_one(CURLM *multi)
{
	struct transfer *t = NULL;
	CURLMsg *message;
	int left;

	while (!t && (message = curl_multi_info_read(multi, &left)))
		if (message->msg == CURLMSG_DONE && !message->data.result)
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
	return t;
}

/*
 * Runs the transfers until one has succeeded, all have failed, or ctx has ended. Stores the winner. Returns 0 or
 * -errno.
 */
static int run(const struct ctxfd *ctx, CURLM *multi, struct transfer **winner)
{
	struct curl_waitfd done = { .fd = ctxfd_done_fd(ctx), .events = CURL_WAIT_POLLIN };
	int running = 1, err;

	if (done.fd < 0)
		return done.fd;
	while (!(err = ctxfd_err(ctx))) {
		if (curl_multi_perform(multi, &running))
			return -EIO;
		*winner = good_one(multi);
		if (*winner || !running)
			return *winner ? 0 : -EHOSTUNREACH;
		if (curl_multi_poll(multi, &done, 1, 60000, NULL))
			return -EIO;
	}
	return err;
}

/* Fetches the same thing from all urls, and prints the first answer. Returns 0, err, or -errno. */
static int fetch_first(const struct ctxfd *ctx, char **urls, int n)
{
	struct transfer *transfers = calloc((size_t)n, sizeof(*transfers)), *winner = NULL;
	CURLM *multi = curl_multi_init();
	int err = transfers && multi ? ctxfd_err(ctx) : -ENOMEM, i; /* a done context starts nothing */

	for (i = 0; i < n && !err; i++)
		err = start(multi, &transfers[i], urls[i]);
	if (!err)
		err = run(ctx, multi, &winner);
	for (i = 0; i < n && transfers; i++) {
		if (!transfers[i].easy)
			continue;
		curl_multi_remove_handle(multi, transfers[i].easy); /* hangs up, unless the transfer has finished */
		curl_easy_cleanup(transfers[i].easy);
	}
	curl_multi_cleanup(multi);
	if (winner)
		printf("%.*s\n", (int)winner->len, winner->body);
	free(transfers);
	return err;
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx;
	int err;

	if (argc < 3 || argc > 2 + MAX_URLS) {
		fprintf(stderr, "Usage: curl_multi MILLISECONDS URL...\n");
		return 2;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return command_end("curl_multi", -ENOMEM);
	ctx = command_context(argv[1]);
	err = ctx ? fetch_first(ctx, argv + 2, argc - 2) : -errno;
	ctxfd_close(ctx);
	curl_global_cleanup();
	return command_end("curl_multi", err);
}
