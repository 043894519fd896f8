/* SPDX-License-Identifier: MIT */
/*
 * A query of PostgreSQL that stops on the server when its context ends. libpq.c is a command that makes one, and
 * microhttpd.c a server that makes many.
 *
 * - Nothing blocks inside libpq: the calls that start, and ctxfd_poll on PQsocket between them. Give hostaddr rather
 *   than host where a slow name server matters: PQconnectStart looks the name up itself.
 * - To hang up is not enough. The server goes on with a query whose client is gone, so it must be told, by a cancel
 *   request. That request needs time when the context has none left, so it has a context of its own, by
 *   ctxfd_with_grace.
 */
#ifndef LIBPQ_QUERY_H
#define LIBPQ_QUERY_H

#include <ctxfd.h>

#include <errno.h>
#include <libpq-fe.h>
#include <stdio.h>

#define CLEAN_UP (5 * CTXFD_SEC)

/* Waits until fd is ready. Returns 0, err, or -errno. */
static int wait_for(const struct ctxfd *ctx, int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	int n = fd < 0 ? -EIO : ctxfd_poll(ctx, &p, 1, -1);

	return n < 0 ? n : 0;
}

/* PQconnectdb under ctx, for a connection that PQconnectStart has made. Returns 0, err, or -errno. */
static int finish_connect(const struct ctxfd *ctx, PGconn *conn)
{
	PostgresPollingStatusType wants = PGRES_POLLING_WRITING;
	int err = 0;

	if (PQstatus(conn) == CONNECTION_BAD)
		return -ECONNREFUSED;
	while (!err && wants != PGRES_POLLING_OK) {
		err = wait_for(ctx, PQsocket(conn), wants == PGRES_POLLING_READING ? POLLIN : POLLOUT);
		if (!err)
			wants = PQconnectPoll(conn);
		if (wants == PGRES_POLLING_FAILED)
			err = -ECONNREFUSED;
	}
	return err;
}

#ifdef LIBPQ_HAS_ASYNC_CANCEL /* libpq 17, which encrypts the request if the connection is */
static int send_cancel(const struct ctxfd *ctx, PGconn *conn)
{
	PGcancelConn *cancel = PQcancelCreate(conn);
	PostgresPollingStatusType wants = PGRES_POLLING_WRITING;
	int err = PQcancelStart(cancel) ? 0 : -EIO;

	while (!err && wants != PGRES_POLLING_OK) {
		err = wait_for(ctx, PQcancelSocket(cancel), wants == PGRES_POLLING_READING ? POLLIN : POLLOUT);
		if (!err)
			wants = PQcancelPoll(cancel);
		if (wants == PGRES_POLLING_FAILED)
			err = -EIO;
	}
	PQcancelFinish(cancel);
	return err;
}
#else
/* PQcancel blocks, and may do so for minutes if the network is gone. But it may be called on any thread. */
static int blocking_cancel(void *arg)
{
	char message[256];

	return PQcancel(arg, message, sizeof(message)) ? 0 : -EIO;
}

static void free_cancel(void *arg)
{
	PQfreeCancel(arg);
}

static int send_cancel(const struct ctxfd *ctx, PGconn *conn)
{
	PGcancel *cancel = PQgetCancel(conn);
	int result = 0, err = cancel ? ctxfd_call(ctx, blocking_cancel, cancel, free_cancel, &result) : -ENOMEM;

	if (!err || err != ctxfd_err(ctx))
		PQfreeCancel(cancel); /* otherwise ctxfd_call does */
	return err ? err : result;
}
#endif

/* Sends what is to be sent, and reads until PQgetResult need not wait. Returns 0, err, or -errno. */
static int wait_for_result(const struct ctxfd *ctx, PGconn *conn)
{
	int unsent, err;

	while ((unsent = PQflush(conn)) >= 0) {
		if (!unsent && !PQisBusy(conn))
			return 0;
		err = wait_for(ctx, PQsocket(conn), (short)(unsent ? POLLIN | POLLOUT : POLLIN));
		if (err)
			return err;
		if (!PQconsumeInput(conn))
			break;
	}
	return -EIO;
}

/*
 * Reads all results, and writes the first column to out. After that, the connection can be used again. Returns 0, err,
 * or -errno.
 */
static int read_results(const struct ctxfd *ctx, PGconn *conn, FILE *out)
{
	PGresult *result;
	ExecStatusType status;
	int err = 0, stop = 0, row;

	while (!stop && !(stop = wait_for_result(ctx, conn)) && (result = PQgetResult(conn))) {
		status = PQresultStatus(result);
		if (status == PGRES_FATAL_ERROR)
			err = -EREMOTEIO;
		if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT) /* would come again and again */
			stop = -EOPNOTSUPP;
		for (row = 0; row < PQntuples(result); row++)
			fprintf(out, "%s\n", PQgetvalue(result, row, 0));
		PQclear(result);
	}
	return stop ? stop : err;
}

/*
 * Returns 0, err, or -errno. Whichever it is, the server does not work on the query any more, if the server can be
 * reached.
 */
static int query(const struct ctxfd *ctx, PGconn *conn, const char *sql, FILE *out)
{
	CTXFD_SCOPED struct ctxfd *clean_up = ctxfd_with_grace(ctx, CLEAN_UP, 0);
	int err = clean_up ? ctxfd_err(ctx) : -errno;

	if (err)
		return err;
	if (PQsetnonblocking(conn, 1) || !PQsendQuery(conn, sql))
		return -EIO;
	err = read_results(ctx, conn, out);
	if (err && err == ctxfd_err(ctx) && send_cancel(clean_up, conn) == 0)
		read_results(clean_up, conn, out); /* which fail, or have come at the last moment */
	return err;
}

/* Connects and asks. Returns 0, err, or -errno. */
static inline int query_once(const struct ctxfd *ctx, const char *conninfo, const char *sql, FILE *out)
{
	PGconn *conn;
	int err = ctxfd_err(ctx);

	if (err) /* a done context does not connect */
		return err;
	conn = PQconnectStart(conninfo);
	err = conn ? finish_connect(ctx, conn) : -ENOMEM;
	if (!err)
		err = query(ctx, conn, sql, out);
	PQfinish(conn);
	return err;
}

#endif
