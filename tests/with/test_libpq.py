#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""libpq: a query stops on the server, as pg_stat_activity tells, when its context ends."""

from servers import *

SLEEP = "select pg_sleep(3600)"


def call(start, name, milliseconds, sql):
    return start("libpq", milliseconds, pg.conninfo(name), sql)


@test
def success(start):
    call(start, "success", LONG, "select n from generate_series(1, 3) n").ends(0, ["1", "2", "3"])


@test
def a_large_query(start):
    call(start, "large", LONG, "select length('%s')" % ("x" * 100000)).ends(0, ["100000"])


@test
def refused(start):
    call(start, "refused", LONG, "select nothing").ends(1, [], "Remote I/O error")


@test
def not_a_query(start):
    call(start, "copy", LONG, "copy (select 1) to stdout").ends(1, [], "Operation not supported")


@test
def cancel(start):
    program = call(start, "cancel", LONG, SLEEP)
    wait_until(lambda: pg.running("cancel") == 1, "the query runs")
    program.interrupt()
    program.ends(1, [], CANCELED)
    wait_until(lambda: pg.running("cancel") == 0, "the query stops")
    assert "canceling statement due to user request" in pg.process.said()


@test
def deadline(start):
    took = call(start, "deadline", 500, SLEEP).ends(1, [], EXPIRED)
    assert took >= 0.5
    wait_until(lambda: pg.running("deadline") == 0, "the query stops")


@test
def silent_server(start):
    with Server(lambda connection: connection.recv(1 << 20) and connection.recv(1)) as silent:
        took = start("libpq", 300, f"hostaddr=127.0.0.1 port={silent.port} user=x", SLEEP).ends(1, [], EXPIRED)
        assert took >= 0.3


@test
def already_done(start):
    with Server(lambda connection: None) as nobody:
        start("libpq", 0, f"hostaddr=127.0.0.1 port={nobody.port} user=x", SLEEP).ends(1, [], EXPIRED)
    equal(len(nobody.connections), 0, "connections")


@test
def out_of_descriptors(start):
    few_descriptors(start, "libpq", pg.conninfo("few"), SLEEP)


@test_plain
def calls_fail_before_success(start):
    each_call_fails(start, lambda start: call(start, LONG, "fails", "select 1"))


@test_plain
def calls_fail_before_a_deadline(start):
    each_call_fails(start, lambda start: call(start, 100, "fails", SLEEP))


with postgres() as pg:
    main()
