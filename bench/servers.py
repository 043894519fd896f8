# SPDX-License-Identifier: MIT
"""
Servers, end to end: bench/servers/ compiled with contexts and with time limits by hand, on one CPU, driven by wrk on the
others. Both of a pair run all the time, and wrk goes to one and the other by turns, so that neighbours can be compared; then
to both at once, for the CPU time.
"""

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import suite

KINDS = ("epoll", "uring", "threads")
SUBJECTS = {"floor": "by-hand", "ctxfd": "contexts"}
PAIRS = 8
SECONDS = 2  # a turn of wrk, which knows whole seconds alone
TOGETHER = 12
CONNECTIONS = 32
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "servers", "wrk.lua")
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
NEVER = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n"


class Failure(Exception):
    pass


def check(ok, what):
    if not ok:
        raise Failure(what)


class Server:
    def __init__(self, directory, kind, subject, *options):
        self.name = f"{kind}-{SUBJECTS[subject]}"
        self.cpus = sorted(os.sched_getaffinity(0))
        self.p = subprocess.Popen([os.path.join(directory, self.name), *options], stdout=subprocess.PIPE)
        os.sched_setaffinity(self.p.pid, self.cpus[-1:])

    def __enter__(self):
        line = self.p.stdout.readline() if select.select([self.p.stdout], [], [], 10)[0] else b""
        if not line:
            self.__exit__()
            raise Failure(f"{self.name}: does not start")
        self.port = int(line)
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()

    def cpu_ns(self):
        """What all threads of the server have used, those too that have ended."""
        return time.clock_gettime_ns((~self.p.pid << 3) | 2)

    def turn(self, seconds):
        """Requests a second, the 99th percentile of their latency in ns, and the server's CPU time for each in ns."""
        others = self.cpus[:-1] or self.cpus
        before = self.cpu_ns()
        out = subprocess.run(["wrk", "-t", str(len(others)), "-c", str(CONNECTIONS), "-d", str(seconds), "-s", SCRIPT, f"http://127.0.0.1:{self.port}/"],
                             stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, others)).stdout.decode()
        used = self.cpu_ns() - before
        words = next((line.split()[1:] for line in out.splitlines() if line.startswith("done")), None)
        check(words and words[3] == "0" and float(words[0]) > 0, f"{self.name}: {' '.join(out.split())[-200:]}")
        requests, us, p99 = map(float, words[:3])
        return requests * 1e6 / us, p99 * 1000, used / requests


def kinds(directory):
    return [k for k in KINDS if os.access(os.path.join(directory, f"{k}-contexts"), os.X_OK)]


class Rows:
    """The rows of one kind of server, to which figures are added."""

    def __init__(self, results, kind):
        self.results, self.kind = results, kind
        self.of = {row.name: row for _, group in suite.GROUPS for row in group}

    def add(self, subject, figure, value):
        self.results.add(self.of[f"server/{self.kind}/{figure}"], 0, subject, [value])


def by_turns(both, rows):
    """Rate and latency: wrk goes to one and the other. Every other pair begins with the other."""
    for number in range(PAIRS):
        sys.stderr.write(f"server/{rows.kind}: pair {number + 1} of {PAIRS}\n")
        for subject, server in both if number % 2 else both[::-1]:
            rate, p99, _ = server.turn(SECONDS)
            rows.add(subject, "rate", rate)
            rows.add(subject, "p99", p99 / 1000)


def at_once(both, rows):
    """CPU time: both share the CPU, so that other work on the machine, and a CPU that changes its speed, do the same to both."""
    with ThreadPoolExecutor(len(both)) as pool:
        for number in range(TOGETHER):
            sys.stderr.write(f"server/{rows.kind}: both at once, {number + 1} of {TOGETHER}\n")
            turns = [(subject, pool.submit(server.turn, 1)) for subject, server in both]
            for subject, turn in turns:
                rows.add(subject, "cpu", turn.result()[2])


def pair(results, directory, kind):
    rows = Rows(results, kind)
    with Server(directory, kind, "floor") as floor, Server(directory, kind, "ctxfd") as ctxfd:
        both = [("floor", floor), ("ctxfd", ctxfd)]
        for _, server in both:
            server.turn(1)
        by_turns(both, rows)
        at_once(both, rows)


def measure(results, directory, only, failures):
    """Adds what the servers do to the results."""
    if not shutil.which("wrk"):
        sys.stderr.write("wrk is not there: servers are not measured\n")
        return
    for kind in kinds(directory):
        name = f"server/{kind}/"
        if name.startswith(only) or only.startswith(name):
            try:
                pair(results, directory, kind)
            except Failure as f:
                failures.append(str(f))


# ---- Do they all do the same? -----------------------------------------------------------------------------------------

IDLE, LATE = 0.4, 0.1  # seconds


def connect(server):
    s = socket.create_connection(("127.0.0.1", server.port))
    s.settimeout(20)
    return s


def receive(s, end):
    """What comes until it ends so; or until the server closes."""
    got = b""
    while not (end and got.endswith(end)):
        try:
            more = s.recv(4096)
        except ConnectionResetError:
            break
        if not more:
            break
        got += more
    return got


def answers(server):
    with connect(server) as s:
        for request in (GET, GET + GET):
            s.sendall(request)
            expected = request.count(b"GET")
            got = b""
            while got.count(b"Hello\n") < expected:
                more = receive(s, b"Hello\n")
                check(more.startswith(b"HTTP/1.1 200 "), f"{server.name}: answers {more!r}")
                got += more
        s.sendall(GET[:9])
        s.sendall(GET[9:])
        check(receive(s, b"Hello\n").startswith(b"HTTP/1.1 200 "), f"{server.name}: a request in two pieces")


def busy_connection(server):
    """One that has been open for longer than the idle limit, with requests all the time."""
    while True:
        s = connect(server)
        last, opened = time.monotonic(), time.monotonic()
        try:
            while time.monotonic() - opened < 1.5 * IDLE:
                time.sleep(IDLE / 4)
                now = time.monotonic()
                s.sendall(GET)
                check(receive(s, b"Hello\n"), f"{server.name}: closed though it was busy")
                last = now
            return s
        except (Failure, OSError):
            s.close()
            if time.monotonic() - last < IDLE:
                raise
            # This program was kept from its sending: the server may be right.


def ends(server, sent, limit, expected):
    """Sends, sees the connection closed, not early, after what is expected. What went before does not count."""
    with busy_connection(server) as s:
        began = time.monotonic()
        s.sendall(GET)
        receive(s, b"Hello\n")
        if sent:
            began = time.monotonic()
            s.sendall(sent)
        got = receive(s, None)
        took = time.monotonic() - began
        what = f"{server.name}: {sent[:10].decode()!r}"
        check(limit <= took < limit + 10, f"{what}: closed after {took:.3f} s of {limit}")
        check(got.startswith(expected), f"{what}: {got!r}")


def try_out(directory, kind, subject):
    limits = ("-i", str(int(IDLE * 1000)), "-r", str(int(LATE * 1000)))
    with Server(directory, kind, subject, *limits) as server:
        answers(server)
        ends(server, b"", IDLE, b"")
        ends(server, GET[:9], LATE, b"")
        ends(server, NEVER, LATE, b"HTTP/1.1 503 ")
        answers(server)


def drive(directory, kind, subject):
    with Server(directory, kind, subject) as server:
        server.turn(1)


def smoke(directory, failures):
    """Whether every server answers, and ends what is idle or late: only then can they be compared."""
    for kind in kinds(directory):
        for subject in SUBJECTS:
            try:
                try_out(directory, kind, subject)
                if subject == "ctxfd" and shutil.which("wrk"):
                    drive(directory, kind, subject)
            except (Failure, OSError) as f:
                failures.append(f"{kind} {subject}: {f}")
