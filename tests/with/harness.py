# SPDX-License-Identifier: MIT
"""What the tests of src/examples/with share.

Each test is a function with the decorator @test. It gets `start`, which starts its program, and is run twice: with the program as
a user would build it, and with the one that has AddressSanitizer, which finds leaks too. A test waits for what it needs, with a
limit that only stops a test that hangs. Programs and servers are ended whatever happens.
"""

import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

SLOW = int(os.environ.get("CTXFD_SLOW", "1"))
LIMIT = int(os.environ.get("WITH_LIMIT", 30 * SLOW))  # seconds; nothing here takes a tenth of it
LONG = "600000"  # milliseconds that no test lives to see
BUILD = os.environ.get("BUILD", "build")
BUILDS = {"plain": BUILD + "/with", "asan": BUILD + "/asan/with"}

CANCELED = "context canceled"
EXPIRED = "context deadline exceeded"

tests = []


def test(function):
    tests.append(function)
    return function


def test_plain(function):
    """A test that what AddressSanitizer preloads would disturb."""
    function.builds = ["plain"]
    return test(function)


def wait_until(condition, what):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + LIMIT
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError("never: " + what)
        time.sleep(0.005)


def equal(is_, should_be, what):
    assert is_ == should_be, f"{what}: {is_!r} instead of {should_be!r}"


class Program:
    """A program that runs, and its lines of output as they come."""

    def __init__(self, argv, descriptors=None, environment=None):
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=1"
        self.started = time.monotonic()
        self.name = os.path.basename(argv[0])
        # With the signal blocked, nothing that waits is interrupted by it, and only the context can end the wait.
        few = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
        last = ["env", *(f"{name}={value}" for name, value in (environment or {}).items())]
        self.process = subprocess.Popen(["env", "--block-signal=INT", *few, *last, *argv], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1, env=env)
        self.out, self.err = [], []
        self.readers = [threading.Thread(target=self.read, args=pair) for pair in
                        ((self.process.stdout, self.out), (self.process.stderr, self.err))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.append(line.rstrip("\n"))

    def says(self, pattern):
        """Waits for a line that matches, and returns the match."""
        def look():
            return next(filter(None, (re.search(pattern, line) for line in list(self.out))), None)

        def look_or_end():
            ended = self.process.poll() is not None and not any(r.is_alive() for r in self.readers)
            return look() or ended and "ended"

        found = wait_until(look_or_end, f"{self.name} says {pattern!r}")
        assert found != "ended", f"{self.name} ended and did not say {pattern!r}: {self.out} {self.err}"
        return found

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self):
        """Waits for its end. Returns the exit code, or the negative signal, and the seconds that it ran."""
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end: {self.out} {self.err}") from None
        took = time.monotonic() - self.started
        for reader in self.readers:
            reader.join()
        return code, took

    def ends(self, code, out=None, err=None):
        """Waits for its end, and compares what it said. Returns the seconds that it ran."""
        is_, took = self.end()
        said = f"{self.out} {self.err}"[:1000]
        assert is_ == code, f"{self.name} exits with {is_} instead of {code}: {said}"
        if out is not None:
            equal(self.out, out, f"{self.name}'s output")
        equal(self.err, [f"{self.name}: {err}"] if err else [], f"{self.name}'s errors")
        return took

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


class Server:
    """Accepts connections on a port of loopback that the kernel chooses, and calls serve(connection) on a thread for each."""

    def __init__(self, serve):
        self.serve = serve
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = []
        self.stopped = False
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            if self.stopped:
                connection.close()
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self.run, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def run(self, connection):
        with contextlib.suppress(OSError), connection:
            self.serve(connection)

    def stop(self):
        """Afterwards .connections has all that there were."""
        self.stopped = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.threads[0].join()
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def free_port():
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@contextlib.contextmanager
def folder(user=None):
    """A folder that is gone afterwards, and belongs to the user."""
    path = tempfile.mkdtemp(prefix="ctxfd-with-")
    try:
        if user:
            shutil.chown(path, user)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(argv, **options):
    """A server of somebody else's, which is ended whatever happens. What it says is in .log of the object."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options)

        def said():
            log.seek(0)
            return log.read()
        process.said = said
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # PostgreSQL takes SIGTERM for a wish to wait for its clients
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def few_descriptors(start, name, *args, aborts=None):
    """A program that would reach its deadline ends with a message and a code however few descriptors it may have. With some
    numbers, some libraries cannot but abort: by that signal."""
    for descriptors in range(5, 17):
        program = start(name, 50, *args, descriptors=descriptors)
        code, _ = program.end()
        if aborts is None or code != -aborts:
            assert code == 1 and program.err, f"{descriptors} descriptors: exits with {code}: {program.out} {program.err}"


def each_call_fails(start, run, counts=lambda line: True, but=()):
    """Each call that can fail is made to, in turn: example_faults.c says which. run(start) has a program run to its end, and
    returns it. It ends as it does when nothing fails, with the same output in lines that count, or exits with 1 and a message.
    Some libraries' own code cannot take some failures: those are not made."""
    with folder() as path, concurrent.futures.ThreadPoolExecutor(4) as threads:
        def run_with(fault):
            log = f"{path}/{fault}"
            environment = {"LD_PRELOAD": BUILD + "/with/faults.so", "FAULT": fault, "FAULT_LOG": log, "FAULT_PROGRAM": "1"}
            program = run(lambda *args: start(*args, environment=environment))
            code, _ = program.end()
            with open(log) as lines:
                return code, list(filter(counts, program.out)), program.err, lines.read().splitlines()

        def fail_each(call):
            for n in range(1, 7):
                if f"{call} {n}" in but:
                    continue
                code, out, err, log = run_with(f"{call} {n}")
                if f"failed {call}" not in log:
                    break
                assert (code, out, err) == usual or code == 1 and err, f"{call} {n} fails: exits with {code}: {out} {err}"

        *usual, log = run_with("nothing 0")
        usual = tuple(usual)
        calls = {line.split()[1] for line in log if line.startswith("called")}
        assert len(calls) > 4, f"calls that could fail: {calls}"
        list(threads.map(fail_each, calls))


def main():
    """Runs the tests of the script with each build, and prints TAP."""
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    builds = {os.environ["WITH_ONLY"]: BUILDS[os.environ["WITH_ONLY"]]} if "WITH_ONLY" in os.environ else BUILDS
    runs = [(build, function) for build in builds for function in tests if build in getattr(function, "builds", builds)]
    print(f"1..{len(runs)}")
    failed = 0
    for number, (build, function) in enumerate(runs, 1):
        name = f"{function.__name__} ({build})"
        programs = []

        def start(program, *args, **options):
            programs.append(Program([os.path.join(builds[build], program), *map(str, args)], **options))
            return programs[-1]
        try:
            function(start)
            print(f"ok {number} - {name}")
        except Exception:
            failed += 1
            print(f"not ok {number} - {name}")
            for line in traceback.format_exc().splitlines():
                print("# " + line)
        finally:
            for program in programs:
                program.kill()
    sys.exit(1 if failed else 0)
