#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""OpenSSL: the handshake, reads and writes end with the context. The server has a certificate that it signed itself."""

import ssl

from harness import *

LONG_ANSWER = "x" * 200000


class Tls(Server):
    """Answers "all" with a long line, "half" with a part of it, "cut" without a good-bye, and others not at all."""

    def __init__(self, path):
        self.ca = path + "/cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path + "/key.pem", "-out", self.ca,
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                       check=True, stderr=subprocess.DEVNULL, timeout=LIMIT)
        self.settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.settings.load_cert_chain(self.ca, path + "/key.pem")
        self.asked = []
        self.hung_up = 0
        super().__init__(self.answer)

    def answer(self, connection):
        with self.settings.wrap_socket(connection, server_side=True) as tls:
            request = tls.recv(100)
            if request == b"cut":
                tls.sendall(b"some\n")
                return
            if request == b"all":
                tls.sendall(LONG_ANSWER.encode() + b"\n")
                tls.unwrap()
                return
            if request == b"half":
                tls.sendall(b"x" * 20000 + b"\n")
            self.asked.append(request)
            with contextlib.suppress(OSError):
                tls.recv(1)
            self.hung_up += 1

    def run(self, connection):
        with contextlib.suppress(OSError):
            self.serve(connection)


def call(start, milliseconds, port, line, ca=None):
    return start("openssl", milliseconds, "localhost", port, ca or server.ca, line)


@test
def success(start):
    call(start, LONG, server.port, "all").ends(0, [LONG_ANSWER])


@test
def cut_off(start):
    call(start, LONG, server.port, "cut").ends(1, ["some"], "Protocol error")


@test
def not_trusted(start):
    with folder() as other, Tls(other) as stranger:
        call(start, LONG, stranger.port, "all").ends(1, [], "Protocol error")


@test
def cancel(start):
    program = call(start, LONG, server.port, "half")
    wait_until(lambda: b"half" in server.asked, "half the answer is sent")
    program.interrupt()
    program.ends(1, err=CANCELED)
    wait_until(lambda: server.hung_up == len(server.asked), "the client hangs up")
    server.asked, server.hung_up = [], 0


@test
def cancel_in_handshake(start):
    said = []
    with Server(lambda connection: said.append(connection.recv(1 << 16)) or connection.recv(1)) as silent:
        program = call(start, LONG, silent.port, "all")
        wait_until(lambda: said, "the client says hello")
        program.interrupt()
        program.ends(1, [], CANCELED)


@test
def deadline(start):
    assert call(start, 500, server.port, "nothing").ends(1, [], EXPIRED) >= 0.5


@test
def deadline_in_handshake(start):
    with Server(lambda connection: connection.recv(1 << 16) and connection.recv(1)) as silent:
        assert call(start, 300, silent.port, "all").ends(1, [], EXPIRED) >= 0.3


@test
def already_done(start):
    with Server(lambda connection: None) as nobody:
        call(start, 0, nobody.port, "all").ends(1, [], EXPIRED)
    equal(len(nobody.connections), 0, "connections")


@test
def out_of_descriptors(start):
    few_descriptors(start, "openssl", "localhost", server.port, server.ca, "nothing")


@test_plain
def calls_fail_before_success(start):
    each_call_fails(start, lambda start: call(start, LONG, server.port, "all"))


@test_plain
def calls_fail_before_a_deadline(start):
    each_call_fails(start, lambda start: call(start, 50, server.port, "nothing"))


with folder() as here, Tls(here) as server:
    main()
