/* SPDX-License-Identifier: MIT */
/*
 * sqlite MILLISECONDS DATABASE SQL: runs a statement in a transaction, which is rolled back if its context ends.
 *
 * - SQLite runs on the caller's thread, so it must ask. The progress handler asks ctxfd_err, which costs a few
 *   nanoseconds. The busy handler waits for a lock of somebody else's by ctxfd_sleep, which ends with the context.
 * - Do not call sqlite3_interrupt in an after-func instead. It stops only what runs at that moment: if it comes just
 *   before sqlite3_step it does nothing, and the statement runs on. It does not end the sleep of sqlite3_busy_timeout.
 *   And it stops all statements of the connection, those of others and the ROLLBACK among them.
 * - To roll back takes a context of its own: under the one that has ended the handlers would stop the ROLLBACK too.
 *   ctxfd_with_grace makes it.
 */
#include "command.h"

#include <sqlite3.h>

#define STEPS    1000 /* of SQLite's virtual machine between two questions: some tens of microseconds */
#define CLEAN_UP (5 * CTXFD_SEC)

/* A connection belongs to one thread at a time, and so does the context that its handlers ask. */
struct database {
	sqlite3 *sqlite;
	const struct ctxfd *ctx;
};

/* SQLite stops with SQLITE_INTERRUPT if this is not 0. */
static int on_progress(void *arg)
{
	const struct database *db = arg;

	return ctxfd_err(db->ctx) != 0;
}

/* SQLite tries again if this is not 0, and otherwise gives up with SQLITE_BUSY. */
static int on_busy(void *arg, int times)
{
	const struct database *db = arg;

	return ctxfd_sleep(db->ctx, (times < 10 ? times + 1 : 10) * CTXFD_MSEC) == 0;
}

static int open_database(struct database *db, const char *path)
{
	if (sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
		int err = sqlite3_system_errno(db->sqlite);

		return err > 0 ? -err : -EIO;
	}
	sqlite3_progress_handler(db->sqlite, STEPS, on_progress, db);
	return sqlite3_busy_handler(db->sqlite, on_busy, db) == SQLITE_OK ? 0 : -EIO;
}

static int print_row(void *arg, int columns, char **values, char **names)
{
	(void)arg, (void)names;
	if (columns > 0)
		puts(values[0] ? values[0] : "");
	return 0;
}

/* Returns 0, err, or -errno. What a statement has completed before the end stays completed. */
static int run(struct database *db, const struct ctxfd *ctx, const char *sql)
{
	int err = ctxfd_err(ctx), code;

	if (err)
		return err;
	db->ctx = ctx;
	code = sqlite3_exec(db->sqlite, sql, print_row, NULL, NULL);
	db->ctx = ctxfd_background();
	if (code == SQLITE_OK)
		return 0;
	err = code == SQLITE_INTERRUPT || code == SQLITE_BUSY ? ctxfd_err(ctx) : 0;
	return err ? err : code == SQLITE_NOMEM ? -ENOMEM : -EINVAL;
}

static int transaction(struct database *db, const struct ctxfd *ctx, const char *sql)
{
	CTXFD_SCOPED struct ctxfd *clean_up = ctxfd_with_grace(ctx, CLEAN_UP, 0);
	int err = clean_up ? run(db, ctx, "BEGIN IMMEDIATE") : -errno;

	if (!err)
		err = run(db, ctx, sql);
	if (!err)
		err = run(db, ctx, "COMMIT");
	if (err &&
	    !sqlite3_get_autocommit(db->sqlite)) /* otherwise nothing had begun, or SQLite has rolled back by itself */
		run(db, clean_up, "ROLLBACK");
	return err;
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	struct database db = { .ctx = ctxfd_background() };
	int err = !ctx ? -errno : argc == 4 ? open_database(&db, argv[2]) : -EINVAL;

	if (!err)
		err = transaction(&db, ctx, argv[3]);
	sqlite3_close(db.sqlite);
	ctxfd_close(ctx);
	return command_end("sqlite", err);
}
