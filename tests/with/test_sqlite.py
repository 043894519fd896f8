#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""SQLite: a statement that computes, and one that waits for a lock, end with the context, and nothing of them stays."""

import sqlite3

from harness import *

ENDLESS = "insert into t values (2); with recursive c(n) as (select 1 union all select n + 1 from c) select n from c where n < 0"


class Database:
    def __init__(self, path):
        self.path = path + "/db"
        self.ask("create table t (n)")

    def ask(self, sql):
        with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    def is_locked(self):
        try:
            self.ask("begin immediate")
        except sqlite3.OperationalError:
            return True
        return False

    @contextlib.contextmanager
    def locked(self):
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            yield connection
            connection.rollback()

    def is_open_in(self, program):
        fds = f"/proc/{program.process.pid}/fd/"
        with contextlib.suppress(FileNotFoundError):
            return any(os.readlink(fds + fd) == self.path for fd in os.listdir(fds))

    def unchanged(self):
        equal(self.ask("select * from t"), [], "the table")


@contextlib.contextmanager
def database():
    with folder() as path:
        yield Database(path)


@test
def success(start):
    with database() as db:
        start("sqlite", LONG, db.path, "insert into t values (7); select n + 1 from t").ends(0, ["8"])
        equal(db.ask("select * from t"), [(7,)], "the table")


@test
def success_after_a_lock(start):
    with database() as db:
        with db.locked():
            program = start("sqlite", LONG, db.path, "insert into t values (7)")
            wait_until(lambda: db.is_open_in(program), "the database is open")
        program.ends(0, [])
        equal(db.ask("select * from t"), [(7,)], "the table")


@test
def wrong_statement(start):
    with database() as db:
        start("sqlite", LONG, db.path, "insert into t values (7); nonsense").ends(1, [], "Invalid argument")
        db.unchanged()


@test
def no_database(start):
    with folder() as path:
        start("sqlite", LONG, path + "/db", "select 1").ends(1, [], "No such file or directory")


@test
def cancel(start):
    with database() as db:
        program = start("sqlite", LONG, db.path, ENDLESS)
        wait_until(db.is_locked, "the transaction begins")
        program.interrupt()
        program.ends(1, [], CANCELED)
        db.unchanged()


@test
def cancel_at_a_lock(start):
    with database() as db, db.locked():
        program = start("sqlite", LONG, db.path, "select 1")
        wait_until(lambda: db.is_open_in(program), "the database is open")
        program.interrupt()
        program.ends(1, [], CANCELED)


@test
def deadline(start):
    with database() as db:
        assert start("sqlite", 300, db.path, ENDLESS).ends(1, [], EXPIRED) >= 0.3
        db.unchanged()


@test
def deadline_at_a_lock(start):
    with database() as db, db.locked():
        assert start("sqlite", 300, db.path, "select 1").ends(1, [], EXPIRED) >= 0.3


@test
def already_done(start):
    with database() as db:
        start("sqlite", 0, db.path, "insert into t values (7)").ends(1, [], EXPIRED)
        db.unchanged()


@test
def out_of_descriptors(start):
    with database() as db, db.locked():
        few_descriptors(start, "sqlite", db.path, "select 1")


@test_plain
def calls_fail_before_success(start):
    with database() as db:
        each_call_fails(start, lambda start: start("sqlite", LONG, db.path, "insert into t values (7)"))


@test_plain
def calls_fail_before_a_deadline(start):
    with database() as db:
        each_call_fails(start, lambda start: start("sqlite", 30, db.path, ENDLESS))
        db.unchanged()


main()
