# SPDX-License-Identifier: MIT
"""The tests of the two programs with hiredis, which take the same arguments."""

from servers import *


def main_for(name):
    """Runs the tests with the program of that name."""
    with redis() as server:
        tests_of(name, server)
        main()


def tests_of(name, server):
    def call(start, milliseconds, *words, port=None):
        return start(name, milliseconds, "127.0.0.1", port or server.port, *words)

    def wait_blocked(n):
        wait_until(lambda: server.blocked() == n, f"{n} clients wait")

    @test
    def success(start):
        call(start, LONG, "SET", "key", "a value").ends(0, ["OK"])
        call(start, LONG, "GET", "key").ends(0, ["a value"])
        call(start, LONG, "DEL", "key").ends(0, ["1"])

    @test
    def nobody_there(start):
        program = call(start, LONG, "PING", port=free_port())
        program.ends(1, [], "Connection reset by peer" if name == "hiredis_async" else "Connection refused")

    @test
    def hung_up(start):
        with Server(lambda connection: connection.recv(1000)) as rude:
            program = call(start, LONG, "PING", port=rude.port)
            program.ends(1, [], "Connection reset by peer" if name == "hiredis_async" else "Input/output error")

    @test
    def cancel(start):
        program = call(start, LONG, "BLPOP", "nothing", 0)
        wait_blocked(1)
        program.interrupt()
        program.ends(1, [], CANCELED)
        wait_blocked(0)

    @test
    def deadline(start):
        assert call(start, 300, "BLPOP", "nothing", 0).ends(1, [], EXPIRED) >= 0.3
        wait_blocked(0)

    @test
    def already_done(start):
        with Server(lambda connection: None) as nobody:
            call(start, 0, "PING", port=nobody.port).ends(1, [], EXPIRED)
        equal(len(nobody.connections), 0, "connections")

    @test
    def out_of_descriptors(start):
        few_descriptors(start, name, "127.0.0.1", server.port, "BLPOP", "nothing", 0)

    hiredis_does_not_look = "event_new 2", "event_new 3"  # redisLibeventAttach

    @test_plain
    def calls_fail_before_success(start):
        each_call_fails(start, lambda start: call(start, LONG, "SET", "key", "a value"), but=hiredis_does_not_look)

    @test_plain
    def calls_fail_before_a_deadline(start):
        each_call_fails(start, lambda start: call(start, 50, "BLPOP", "nothing", 0), but=hiredis_does_not_look)
