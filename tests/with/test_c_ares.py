#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: MIT
# variants: with
"""c-ares: a lookup ends with its context, while the name server says nothing."""

from harness import *


class NameServer:
    """Knows fast.test, says that there is no missing.test, and never answers other questions."""

    def __init__(self):
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            packet, client = self.socket.recvfrom(4096)
            if not packet:
                return
            end = packet.index(b"\0", 12) + 5  # of the question: name, type, class
            question = packet[12:end]
            self.asked.append(question)
            if b"fast" in question.lower():
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, 7])
                self.socket.sendto(packet[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + answer, client)
            elif b"missing" in question.lower():
                self.socket.sendto(packet[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + question, client)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


@test
def success(start):
    with NameServer() as server:
        start("c_ares", LONG, server.address, "fast.test").ends(0, ["192.0.2.7"])


@test
def no_such_name(start):
    with NameServer() as server:
        start("c_ares", LONG, server.address, "missing.test").ends(1, [], "No such file or directory")


@test
def cancel(start):
    with NameServer() as server:
        program = start("c_ares", LONG, server.address, "slow.test")
        wait_until(lambda: server.asked, "the question comes")
        program.interrupt()
        program.ends(1, [], CANCELED)


@test
def deadline(start):
    with NameServer() as server:
        assert start("c_ares", 300, server.address, "slow.test").ends(1, [], EXPIRED) >= 0.3
        assert server.asked


@test
def already_done(start):
    with NameServer() as server:
        start("c_ares", 0, server.address, "fast.test").ends(1, [], EXPIRED)
    equal(server.asked, [], "questions")


@test
def out_of_descriptors(start):
    with NameServer() as server:
        few_descriptors(start, "c_ares", server.address, "slow.test")


@test_plain
def calls_fail_before_success(start):
    with NameServer() as server:
        each_call_fails(start, lambda start: start("c_ares", LONG, server.address, "fast.test"))


@test_plain
def calls_fail_before_a_deadline(start):
    with NameServer() as server:
        each_call_fails(start, lambda start: start("c_ares", 30, server.address, "slow.test"))


main()
