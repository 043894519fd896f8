/* SPDX-License-Identifier: MIT */
/*
 * hiredis_async MILLISECONDS HOST PORT COMMAND ARG...: a command of Redis on a loop (libevent's) that ends with its
 * context.
 *
 * - A redisAsyncContext belongs to the loop's thread. So the after-func that ends it must run there: the command's
 *   context is below one that names the loop's dispatcher.
 * - redisAsyncFree is what ends a command: it calls the callbacks that still wait, with a NULL reply.
 *   redisAsyncDisconnect waits for the replies first.
 * - A context that ends a single command of a busy connection must not free the connection: have its callback ignore
 *   the reply.
 */
#include "command.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <hiredis/async.h>
#include <hiredis/adapters/libevent.h>

struct request {
	struct event_base *loop;
	struct event *callbacks; /* the dispatcher's fd */
	struct ctxfd_dispatcher *dispatcher;
	const struct ctxfd *ctx;
	struct ctxfd_after *after;
	redisAsyncContext *redis; /* NULL when hiredis has freed it, or is doing that */
	int err;
};

static void on_due(evutil_socket_t fd, short events, void *arg)
{
	struct request *r = arg;

	(void)fd, (void)events;
	ctxfd_dispatcher_run(r->dispatcher);
}

/* The context has ended. on_reply is called in here. */
static void on_end(void *arg)
{
	struct request *r = arg;

	r->err = ctxfd_err(r->ctx);
	if (r->redis)
		redisAsyncFree(r->redis);
}

static void on_reply(redisAsyncContext *redis, void *answer, void *arg)
{
	struct request *r = arg;
	const redisReply *reply = answer;

	(void)redis;
	if (!reply) {
		r->redis = NULL;
		if (!r->err)
			r->err = -ECONNRESET;
	} else if (reply->type == REDIS_REPLY_INTEGER) {
		printf("%lld\n", reply->integer);
	} else {
		puts(reply->str ? reply->str : "nothing");
	}
	event_base_loopbreak(r->loop);
}

/* A loop with a dispatcher, on which everything below r->ctx is called back. Returns 0, err, or -errno. */
static int open_loop(struct request *r, const struct ctxfd *parent)
{
	int fd = -ENOMEM;

	r->loop = event_base_new();
	r->dispatcher = ctxfd_dispatcher_new();
	r->ctx = r->dispatcher ? ctxfd_with_dispatcher(parent, r->dispatcher) : NULL;
	if (r->loop && r->ctx)
		fd = ctxfd_dispatcher_fd(r->dispatcher);
	if (fd < 0)
		return fd;
	r->callbacks = event_new(r->loop, fd, EV_READ | EV_PERSIST, on_due, r);
	return r->callbacks && event_add(r->callbacks, NULL) == 0 ? ctxfd_err(parent) : -ENOMEM;
}

static int start(struct request *r, char **address, int argc, const char **argv)
{
	r->redis = redisAsyncConnect(address[0], atoi(address[1]));
	if (!r->redis || r->redis->err)
		return -ECONNREFUSED;
	if (redisLibeventAttach(r->redis, r->loop) != REDIS_OK ||
	    redisAsyncCommandArgv(r->redis, on_reply, r, argc, argv, NULL) != REDIS_OK)
		return -ENOMEM;
	return ctxfd_after_func(r->ctx, on_end, r, &r->after);
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	struct request r = { .err = ctx ? -EINVAL : -errno };

	if (ctx && argc > 4)
		r.err = open_loop(&r, ctx);
	if (!r.err)
		r.err = start(&r, argv + 2, argc - 4, (const char **)argv + 4);
	if (!r.err)
		event_base_dispatch(r.loop);
	ctxfd_after_stop(r.after);
	if (r.redis)
		redisAsyncFree(r.redis);
	if (r.callbacks)
		event_free(r.callbacks);
	if (r.loop)
		event_base_free(r.loop);
	ctxfd_unref(r.ctx);
	ctxfd_dispatcher_free(r.dispatcher);
	ctxfd_close(ctx);
	return command_end("hiredis_async", r.err);
}
