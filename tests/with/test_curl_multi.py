#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""libcurl: the first transfer that succeeds ends the others, and so does the end of the context."""

from harness import *


class Web(Server):
    """/slow never answers, and /fast does once two slow requests are there. Counts who hung up on it."""

    def __init__(self):
        self.slow = self.dropped = 0
        super().__init__(self.request)

    def request(self, connection):
        path = connection.recv(4096).split()[1]
        if path == b"/bad":
            connection.sendall(b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n")
        elif path == b"/fast":
            wait_until(lambda: self.slow == 2, "two slow requests")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfast 1")
        else:
            self.slow += 1
            if not connection.recv(1):
                self.dropped += 1

    def urls(self, *paths):
        return [f"http://127.0.0.1:{self.port}/{path}" for path in paths]

    def all_dropped(self):
        wait_until(lambda: self.dropped == self.slow, "the slow transfers hang up")


@test
def first_success(start):
    with Web() as web:
        start("curl_multi", LONG, *web.urls("slow", "bad", "fast", "slow")).ends(0, ["fast 1"])
        web.all_dropped()


@test
def all_fail(start):
    with Web() as web:
        start("curl_multi", LONG, *web.urls("bad", "bad")).ends(1, [], "No route to host")


@test
def cancel(start):
    with Web() as web:
        program = start("curl_multi", LONG, *web.urls("slow", "slow"))
        wait_until(lambda: web.slow == 2, "two slow requests")
        program.interrupt()
        program.ends(1, [], CANCELED)
        web.all_dropped()


@test
def deadline(start):
    with Web() as web:
        took = start("curl_multi", 300, *web.urls("slow", "slow")).ends(1, [], EXPIRED)
        assert took >= 0.3
        web.all_dropped()


@test
def already_done(start):
    with Web() as web:
        start("curl_multi", 0, *web.urls("slow", "slow")).ends(1, [], EXPIRED)
    equal(len(web.connections), 0, "connections")


@test
def out_of_descriptors(start):
    with Web() as web:
        few_descriptors(start, "curl_multi", *web.urls("slow", "slow"))


@test_plain
def calls_fail_before_success(start):
    with Web() as web:
        web.slow = 2
        each_call_fails(start, lambda start: start("curl_multi", LONG, *web.urls("fast")))


@test_plain
def calls_fail_before_a_deadline(start):
    with Web() as web:
        each_call_fails(start, lambda start: start("curl_multi", 50, *web.urls("slow", "slow")))


main()
