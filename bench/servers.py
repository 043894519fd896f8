# SPDX-License-Identifier: MIT
"""
Servers, end to end: bench/servers/ compiled with contexts and with time limits by hand, on one CPU, driven by wrk on the
others. They run all the time, and wrk goes from one to the next by short turns, so that neighbours can be compared; then to
both at once, for the CPU time.

CHANCE. The server by hand runs twice. What one of these gets by the other is what chance makes of the same program, and is
printed beside each figure.

TWO LOADS. At full load wrk sends a request as soon as it has an answer. Then a latency is a time in queues, among them wrk's
own: on two CPUs wrk is the slower one. And wrk puts in latencies of its own making for each that is longer than twice the mean
(stats_correct in its source), thousands for one that other work on the machine has delayed by some milliseconds. So the 99th
percentile is taken where wrk pauses after each answer, and the server has time to spare; that at full load is printed too.
"""

import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import suite

KINDS = ("epoll", "uring", "threads")
SUBJECTS = {"floor": "by-hand", "again": "by-hand", "ctxfd": "contexts"}
ROUNDS = 16
SECONDS = 0.5  # a turn of wrk: many short ones, for other work on the machine spoils a whole one
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

    def wrk(self, seconds, load):
        """What wrk says. It knows whole seconds alone, but ends early when it is interrupted. None: it had not begun."""
        others = self.cpus[:-1] or self.cpus
        p = subprocess.Popen(["wrk", "-t", str(len(others)), "-c", str(CONNECTIONS), "-d", str(int(seconds) + 1), "-s", SCRIPT,
                              f"http://127.0.0.1:{self.port}/", load],
                             stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, others))
        try:
            time.sleep(seconds)
            p.send_signal(signal.SIGINT)
            out = p.communicate()[0].decode()
            return None if p.returncode == -signal.SIGINT else out
        finally:
            p.kill()
            p.wait()

    def turn(self, seconds, load="full"):
        """Requests a second, the 99th percentile of their latency in ns, the server's CPU time for each in ns. None: they got no CPU."""
        before = self.cpu_ns()
        out = self.wrk(seconds, load)
        used = self.cpu_ns() - before
        if out is None:
            return None
        words = next((line.split()[1:] for line in out.splitlines() if line.startswith("done")), None)
        check(words and words[3] == "0", f"{self.name}: {' '.join(out.split())[-200:]}")
        requests, us, p99 = map(float, words[:3])
        return (requests * 1e6 / us, p99 * 1000, used / requests) if requests else None


def kinds(directory):
    return [k for k in KINDS if os.access(os.path.join(directory, f"{k}-contexts"), os.X_OK)]


class Rows:
    """The rows of one kind of server, to which figures are added."""

    def __init__(self, results, kind):
        self.results, self.kind = results, kind
        self.of = {row.name: row for _, group in suite.GROUPS for row in group}

    def add(self, subject, figure, value):
        self.results.add(self.of[f"server/{self.kind}/{figure}"], 0, subject, [value])


def by_turns(servers, rows):
    """Rate and latency: wrk goes from one to the next, and each of them is the first in its turn."""
    in_order = list(servers.items())
    for number in range(ROUNDS):
        sys.stderr.write(f"server/{rows.kind}: round {number + 1} of {ROUNDS}\n")
        for load in ("full", "part"):
            turns = [(subject, server.turn(SECONDS, load)) for subject, server in in_order]
            for subject, (rate, p99, _) in turns if all(turn for _, turn in turns) else ():
                if load == "full":
                    rows.add(subject, "rate", rate)
                rows.add(subject, "p99-full" if load == "full" else "p99", p99 / 1000)
        in_order.append(in_order.pop(0))


def busy(results, kind, server):
    """Which of the two has no time to spare at full load: that one's rate it is."""
    began, used, wrk = time.monotonic(), server.cpu_ns(), resource.getrusage(resource.RUSAGE_CHILDREN)
    server.turn(1)
    took, used, after = time.monotonic() - began, (server.cpu_ns() - used) / 1e9, resource.getrusage(resource.RUSAGE_CHILDREN)
    wrk = after.ru_utime + after.ru_stime - wrk.ru_utime - wrk.ru_stime
    results.notes.append(f"server/{kind}: at full load the one by hand takes {used / took:.0%} of a CPU, wrk {wrk / took:.0%}.")


def at_once(servers, rows):
    """CPU time: they share the CPU, so that other work on the machine, and a CPU that changes its speed, do the same to all."""
    with ThreadPoolExecutor(len(servers)) as pool:
        for number in range(TOGETHER):
            sys.stderr.write(f"server/{rows.kind}: all at once, {number + 1} of {TOGETHER}\n")
            turns = list(zip(servers, pool.map(lambda server: server.turn(1), servers.values())))
            for subject, turn in turns if all(turn for _, turn in turns) else ():
                rows.add(subject, "cpu", turn[2])


def compare(results, directory, kind):
    rows = Rows(results, kind)
    with Server(directory, kind, "floor") as floor, Server(directory, kind, "again") as again, Server(directory, kind, "ctxfd") as ctxfd:
        servers = {"floor": floor, "again": again, "ctxfd": ctxfd}
        for server in servers.values():
            server.turn(SECONDS)
        busy(results, kind, floor)
        by_turns(servers, rows)
        at_once(servers, rows)


def measure(results, directory, only, failures):
    """Adds what the servers do to the results."""
    if not shutil.which("wrk"):
        sys.stderr.write("wrk is not there: servers are not measured\n")
        return
    for kind in kinds(directory):
        name = f"server/{kind}/"
        if name.startswith(only) or only.startswith(name):
            try:
                compare(results, directory, kind)
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
        last = now = opened = time.monotonic()
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
            if now - last < IDLE and time.monotonic() - now < LATE:
                raise
            # This program was kept from its sending, or the server from its answer: it may be right.


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
    with Server(directory, kind, subject) as server:
        answers(server)
    limits = ("-i", str(int(IDLE * 1000)), "-r", str(int(LATE * 1000)))
    with Server(directory, kind, subject, *limits) as server:
        ends(server, b"", IDLE, b"")
        ends(server, GET[:9], LATE, b"")
        ends(server, NEVER, LATE, b"HTTP/1.1 503 ")
        busy_connection(server).close()


def drive(directory, kind, subject):
    with Server(directory, kind, subject) as server:
        check(any(server.turn(1) for _ in range(20)), f"{server.name}: wrk gets no answer")


def smoke(directory, failures):
    """Whether every server answers, and ends what is idle or late: only then can they be compared."""
    for kind in kinds(directory):
        for subject in ("floor", "ctxfd"):
            try:
                try_out(directory, kind, subject)
                if subject == "ctxfd" and shutil.which("wrk"):
                    drive(directory, kind, subject)
            except (Failure, OSError) as f:
                failures.append(f"{kind} {subject}: {f}")
