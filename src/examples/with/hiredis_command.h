/* SPDX-License-Identifier: MIT */
/*
 * A blocking command of Redis that ends with its context. hiredis.c is a command that makes one, and microhttpd.c a
 * server that makes many.
 *
 * - redisCommand blocks in a read that nothing but its socket can end. An after-func shuts the socket down. A shutdown
 *   lasts, so it may come before the read begins. The connection is lost by that: the reply might still come, and
 *   nobody could tell whose it is. (redisSetTimeout would do for a deadline, but not for a cancel.)
 * - Stop the after-func before the connection is freed or goes back to a pool. It has not run if ctxfd_after_stop
 *   returns true.
 * - hiredis writes without MSG_NOSIGNAL. Ignore SIGPIPE, as you would for a server that hangs up.
 */
#ifndef HIREDIS_COMMAND_H
#define HIREDIS_COMMAND_H

#include <ctxfd_net.h>

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
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

/* Connects and asks, and writes the reply to out. Returns 0, err, or -errno. */
static inline int command_once(const struct ctxfd *ctx, const char *host, const char *port, int argc, const char **argv,
                               FILE *out)
{
	redisReply *reply = NULL;
	int err;
	redisContext *redis = connect_to(ctx, host, port, &err);

	if (!redis)
		return err;
	err = command(ctx, redis, argc, argv, &reply);
	if (reply && reply->type == REDIS_REPLY_INTEGER)
		fprintf(out, "%lld\n", reply->integer);
	else if (reply)
		fprintf(out, "%s\n", reply->str ? reply->str : "nothing");
	freeReplyObject(reply);
	redisFree(redis);
	return err;
}

#endif
