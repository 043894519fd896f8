# SPDX-License-Identifier: MIT
"""The tests of the programs with a loop, which all do the same (src/examples/with/job.h)."""

from harness import *


def told(end):
    return [f"after-func: {end}, on the loop's thread", f"done fd: {end}"]


def main_for(name, aborts=None):
    """Runs the tests with the program of that name. If the library cannot have the descriptors it needs, it may abort."""
    def ends_with(program, end):
        took = program.ends(1, err=end)
        equal(sorted(program.out), told(end), "what was told")
        return took

    @test
    def success(start):
        program = start(name, LONG)
        program.write("hello\n")
        program.ends(0, ["line: hello"])

    @test
    def cancel(start):
        program = start(name, LONG)
        wait_until(lambda: waits_in_a_loop(program), "the loop waits")
        program.interrupt()
        ends_with(program, CANCELED)

    @test
    def deadline(start):
        assert ends_with(start(name, 300), EXPIRED) >= 0.3

    @test
    def already_done(start):
        ends_with(start(name, 0), EXPIRED)

    @test
    def out_of_descriptors(start):
        few_descriptors(start, name, aborts=aborts)

    @test_plain
    def calls_fail_before_success(start):
        def run(start):
            program = start(name, LONG)
            with contextlib.suppress(OSError):
                program.write("hello\n")
            return program
        each_call_fails(start, run)

    @test_plain
    def calls_fail_before_a_deadline(start):
        each_call_fails(start, lambda start: start(name, 30))

    main()


def waits_in_a_loop(program):
    """Whether the program's first thread sleeps in epoll_wait or poll: then all is registered."""
    proc = f"/proc/{program.process.pid}/"
    with open(proc + "wchan") as wchan, open(proc + "stat") as stat:
        where = wchan.read()
        return "poll" in where or where == "0" and stat.read().split(") ")[-1][0] == "S"  # 0: this kernel does not tell
