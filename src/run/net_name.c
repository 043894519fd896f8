/* SPDX-License-Identifier: MIT */
/*
 * ctxfd_getaddrinfo. A question is memory of its own, with copies of all that it asks about. While the resolver is at
 * work, it belongs to the thread that asks; then to the call, or, if the call has left, to nobody: drop frees it, with
 * the answer. No locks, no state.
 */
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "core/context.h"
#include "ctxfd_net.h"

struct question {
	const char *node, *service; /* in `text`, or NULL */
	const struct addrinfo *hints;
	struct addrinfo own_hints;
	struct addrinfo *answer;
	int error; /* errno, with EAI_SYSTEM */
	char text[];
};

static const char *copy(char **to, const char *text, size_t size)
{
	char *begin = *to;

	if (!text)
		return NULL;
	memcpy(begin, text, size);
	*to += size;
	return begin;
}

static struct question *make_question(const char *node, const char *service, const struct addrinfo *hints)
{
	size_t node_size = node ? strlen(node) + 1 : 0, service_size = service ? strlen(service) + 1 : 0;
	struct question *q = malloc_quietly(sizeof *q + node_size + service_size);
	char *to;

	if (!q)
		return NULL;
	to = q->text;
	q->node = copy(&to, node, node_size);
	q->service = copy(&to, service, service_size);
	q->hints = hints ? &q->own_hints : NULL;
	if (hints)
		q->own_hints = (struct addrinfo){ .ai_flags = hints->ai_flags,
			                          .ai_family = hints->ai_family,
			                          .ai_socktype = hints->ai_socktype,
			                          .ai_protocol = hints->ai_protocol };
	q->answer = NULL;
	q->error = 0;
	return q;
}

static int ask(void *arg)
{
	struct question *q = arg;
	int eai = getaddrinfo(q->node, q->service, q->hints, &q->answer);

	if (eai == EAI_SYSTEM)
		q->error = errno;
	if (eai)
		q->answer = NULL;
	return eai;
}

static void forget(void *arg)
{
	struct question *q = arg;

	if (q->answer)
		freeaddrinfo(q->answer);
	free(q);
}

static int errno_of(int eai, int error)
{
	switch (eai) {
	case 0:
		return 0;
	case EAI_NONAME:
#ifdef EAI_NODATA
	case EAI_NODATA:
#endif
		return ENOENT;
	case EAI_AGAIN:
		return EAGAIN;
	case EAI_MEMORY:
		return ENOMEM;
	case EAI_SERVICE:
	case EAI_FAMILY:
	case EAI_SOCKTYPE:
	case EAI_BADFLAGS:
		return EINVAL;
	case EAI_SYSTEM:
		return error ? error : EIO;
	default:
		return EIO;
	}
}

int ctxfd_getaddrinfo(const struct ctxfd *ctx, const char *node, const char *service, const struct addrinfo *hints,
                      struct addrinfo **result, int *eai)
{
	int err = ctxfd_err(ctx), answered = 0;
	struct question *q;

	if (err)
		return err;
	q = make_question(node, service, hints);
	if (!q)
		return -ENOMEM;
	err = ctxfd_call(ctx, ask, q, forget, &answered);
	if (err && err != -ECANCELED && err != -ETIMEDOUT)
		free(q); /* nobody was asked */
	if (err)
		return err;
	if (eai)
		*eai = answered;
	err = -errno_of(answered, q->error);
	if (!err)
		*result = q->answer;
	free(q);
	return err;
}
