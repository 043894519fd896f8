/* SPDX-License-Identifier: MIT */
/*
 * microhttpd MILLISECONDS CONNINFO REDIS-HOST REDIS-PORT: a web server whose requests ask Redis and PostgreSQL. Each
 * request has a context, which ends when its client hangs up, when its time is over, or when the server stops at
 * Ctrl-C. What the request has started ends with it, on the other servers too.
 *
 * - A thread per connection (libmicrohttpd's) may block, since all that it calls takes the context.
 * - ctxfd_with_fd watches the connection's socket meanwhile: libmicrohttpd itself does not, while its handler runs.
 *   POLLRDHUP also comes from a client that has only shut down its writing side; for those pass 0.
 * - The context is closed before the handler returns, for the socket is libmicrohttpd's, and the next request on it is
 *   another one.
 * - Stop in this order: end the server's context, then MHD_stop_daemon, which waits for the handlers.
 */
#define _GNU_SOURCE /* POLLRDHUP */
#include "command.h"

#include "hiredis_command.h"
#include "libpq_query.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <string.h>

struct server {
	const struct ctxfd *ctx;
	int64_t timeout;
	const char *conninfo, *redis_host, *redis_port;
};

static const struct page {
	const char *url, *redis[3], *sql;
} pages[] = {
	{ "/", { "INCR", "visits" }, "select 'hello'" },
	{ "/redis", { "BLPOP", "nothing", "0" }, "select 'hello'" },
	{ "/postgres", { "INCR", "visits" }, "select pg_sleep(3600)" },
};

/* The context of a request on that connection. NULL and errno on failure. */
static struct ctxfd *request_context(const struct server *server, struct MHD_Connection *connection)
{
	int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	struct ctxfd *client = ctxfd_with_fd(server->ctx, fd, POLLRDHUP, -ECONNRESET);
	struct ctxfd *request = client ? ctxfd_with_timeout(client, server->timeout) : NULL;

	ctxfd_unref(client); /* its child keeps it alive */
	return request;
}

/* Asks both servers. Returns 0, err, or -errno. */
static int make_page(const struct ctxfd *ctx, const struct server *server, const struct page *page, FILE *out)
{
	int words = page->redis[2] ? 3 : 2;
	int err = command_once(ctx, server->redis_host, server->redis_port, words, (const char **)page->redis, out);

	return err ? err : query_once(ctx, server->conninfo, page->sql, out);
}

static unsigned status_of(const struct ctxfd *ctx, int err)
{
	if (!err)
		return MHD_HTTP_OK;
	if (!ctx || !ctxfd_err(ctx))
		return MHD_HTTP_BAD_GATEWAY;
	return err == -ETIMEDOUT ? MHD_HTTP_GATEWAY_TIMEOUT : MHD_HTTP_SERVICE_UNAVAILABLE;
}

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, char *body, size_t len)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result result = response ? MHD_queue_response(connection, status, response) : MHD_NO;

	if (response)
		MHD_destroy_response(response);
	return result;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state)
{
	const struct server *server = arg;
	const struct page *page = pages;
	struct ctxfd *ctx;
	enum MHD_Result result;
	char *body = NULL;
	size_t len = 0;
	FILE *out;
	int err;

	(void)version, (void)upload;
	if (!*state) { /* the first call comes before the body; to answer the second keeps the connection open */
		*state = connection;
		return MHD_YES;
	}
	*upload_size = 0;
	while (page < pages + sizeof(pages) / sizeof(*pages) && strcmp(page->url, url) != 0)
		page++;
	if (page == pages + sizeof(pages) / sizeof(*pages))
		return answer(connection, MHD_HTTP_NOT_FOUND, NULL, 0);
	out = open_memstream(&body, &len);
	if (!out)
		return MHD_NO;
	ctx = request_context(server, connection);
	err = ctx ? make_page(ctx, server, page, out) : -errno;
	printf("%s %s: %s\n", method, url, ctxfd_strerror(ctx && ctxfd_err(ctx) ? ctxfd_cause(ctx) : err));
	if (fclose(out) != 0 && !err)
		err = -ENOMEM;
	result = answer(connection, status_of(ctx, err), body, err ? 0 : len);
	ctxfd_close(ctx);
	free(body);
	return result;
}

/* Serves until ctx ends. Returns 0 or -errno. */
static int serve(struct server *server)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct MHD_Daemon *daemon =
	        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL, 0,
	                         NULL, NULL, on_request, server, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_END);

	if (!daemon)
		return -EIO;
	printf("listens on port %d\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
	ctxfd_wait(server->ctx);
	MHD_stop_daemon(daemon);
	return 0;
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_until_interrupt();
	int err = !ctx ? -errno : argc == 5 ? 0 : -EINVAL;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		err = -errno;
	if (!err)
		err = serve(&(struct server){ ctx, atoi(argv[1]) * CTXFD_MSEC, argv[2], argv[3], argv[4] });
	ctxfd_close(ctx);
	return command_end("microhttpd", err);
}
