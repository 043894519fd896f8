/* SPDX-License-Identifier: MIT */
/*
 * hiredis MILLISECONDS HOST PORT COMMAND ARG...: a blocking command of Redis that ends with its context.
 *
 * - redisCommand blocks in a read that nothing but its socket can end. An after-func shuts the socket down. A shutdown lasts, so it
 *   may come before the read begins. The connection is lost by that: the reply might still come, and nobody could tell whose it is.
 *   (redisSetTimeout would do for a deadline, but not for a cancel.)
 * - Stop the after-func before the connection is freed or goes back to a pool. It has not run if ctxfd_after_stop returns true.
 * - hiredis writes without MSG_NOSIGNAL. Ignore SIGPIPE, as you would for a server that hangs up.
 */
#include "command.h"

#include <ctxfd_net.h>
#include <hiredis/hiredis.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void hang_up(void *arg)
{
	redisContext *redis = arg;

	shutdown(redis->fd, SHUT_RDWR);
}

/* Returns a connection that blocks, or NULL with the reason in *err. The dialling is under ctx too. */
static redisContext *connect_to(const struct ctxfd *ctx, const char *host, const char *port, int *err)
{
	int fd = ctxfd_dial(ctx, host, port, SOCK_CLOEXEC);
	redisContext *redis = fd < 0 ? NULL : redisConnectFd(fd);

	*err = fd < 0 ? fd : redis ? 0 : -ENOMEM;
	if (!redis && fd >= 0)
		close(fd);
	return redis;
}

/* Stores the reply. After an error the connection is only good for redisFree. Returns 0, err, or -errno. */
static int command(const struct ctxfd *ctx, redisContext *redis, int argc, const char **argv, redisReply **reply)
{
	struct ctxfd_after *after;
	int err = ctxfd_err(ctx); /* a done context sends nothing */

	if (!err)
		err = ctxfd_after_func(ctx, hang_up, redis, &after);
	if (err)
		return err;
	*reply = redisCommandArgv(redis, argc, argv, NULL);
	if (!ctxfd_after_stop(after))
		err = ctxfd_err(ctx);
	if (!*reply && !err)
		err = -EIO;
	if (*reply && err) { /* it has come in time, but the connection is shut down */
		freeReplyObject(*reply);
		*reply = NULL;
	}
	return err;
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	redisContext *redis = NULL;
	redisReply *reply = NULL;
	int err = ctx ? -EINVAL : -errno;

	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		err = -errno;
	else if (ctx && argc > 4)
		redis = connect_to(ctx, argv[2], argv[3], &err);
	if (redis)
		err = command(ctx, redis, argc - 4, (const char **)argv + 4, &reply);
	if (reply && reply->type == REDIS_REPLY_INTEGER)
		printf("%lld\n", reply->integer);
	else if (reply)
		puts(reply->str ? reply->str : "nothing");
	freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	ctxfd_close(ctx);
	return command_end("hiredis", err);
}
