#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""libmicrohttpd: a request ends with its client, its deadline or the server, and what it asked PostgreSQL and Redis ends too."""

from servers import *

CONNECTION_LOST = "Connection reset by peer"


class Client:
    """A request that is sent; .answer() waits for its status and body."""

    def __init__(self, web, path):
        port = int(web.says(r"listens on port (\d+)").group(1))
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    def answer(self):
        with self.socket.makefile(newline="") as answer:
            head, _, body = answer.read().partition("\r\n\r\n")
        self.hang_up()
        return int(head.split()[1]), body

    def hang_up(self):
        self.socket.close()


def serve(start, milliseconds):
    return start("microhttpd", milliseconds, pg.conninfo("web"), "127.0.0.1", store.port)


def works(path):
    """Waits until the slow server works on the request."""
    wait_until((lambda: store.blocked() == 1) if path == "/redis" else (lambda: pg.running("web") == 1), f"{path} works")


def nobody_works():
    wait_until(lambda: store.blocked() == 0 and pg.running("web") == 0, "all that was asked ends")


@test
def success(start):
    web = serve(start, LONG)
    store.ask("DEL", "visits")
    equal(Client(web, "/").answer(), (200, "1\nhello\n"), "the answer")
    equal(Client(web, "/").answer(), (200, "2\nhello\n"), "the second answer")
    equal(Client(web, "/nothing").answer()[0], 404, "the status")
    web.interrupt()
    web.ends(0)


@test
def client_hangs_up(start):
    web = serve(start, LONG)
    for path in "/redis", "/postgres":
        client = Client(web, path)
        works(path)
        client.hang_up()
        web.says(f"GET {path}: {CONNECTION_LOST}")
        nobody_works()
    web.interrupt()
    web.ends(0)


@test
def stop(start):
    for path in "/redis", "/postgres":
        web = serve(start, LONG)
        client = Client(web, path)
        works(path)
        web.interrupt()
        web.ends(0)
        assert any(line.startswith(f"GET {path}: Interrupt") for line in web.out), web.out
        nobody_works()
        client.hang_up()


@test
def deadline(start):
    web = serve(start, 500)
    for path in "/redis", "/postgres":
        began = time.monotonic()
        equal(Client(web, path).answer(), (504, ""), "the answer")
        assert time.monotonic() - began >= 0.5
        nobody_works()
    web.interrupt()
    web.ends(0)


@test
def already_done(start):
    with Server(lambda connection: None) as nobody:
        conninfo = f"hostaddr=127.0.0.1 port={nobody.port} user=x"
        web = start("microhttpd", 0, conninfo, "127.0.0.1", nobody.port)
        equal(Client(web, "/").answer(), (504, ""), "the answer")
        web.interrupt()
        web.ends(0)
    equal(len(nobody.connections), 0, "connections")


@test_plain
def calls_fail(start):
    def run(start):
        web = serve(start, LONG)
        with contextlib.suppress(AssertionError, OSError, IndexError):  # it has ended, or hangs up without an answer
            Client(web, "/nothing").answer()
            Client(web, "/").answer()
        web.interrupt()
        return web
    each_call_fails(start, run, lambda line: not re.match("listens|GET", line))


with postgres() as pg, redis() as store:
    main()
