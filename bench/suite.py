# SPDX-License-Identifier: MIT
"""What is measured: the rows with their arguments, what is counted in instructions, what is plotted, and the figures to reach."""

from collections import namedtuple

# name: as the subjects know it. args: one cell each. what: the library's work. floor: the least that work can be.
# unit: of the samples. typical: judged by the middle round, not by the best one, see Cell.figure in report.py.
# budget: milliseconds that a round may take. limit: the largest argument that a peer is asked to do, because it recurses or
#   is quadratic. awake: keep the CPUs from halting, see bench/run. slow: one round a pass is enough. once: in one pass alone.
Row = namedtuple("Row", "name args what floor unit typical budget limit awake slow once",
                 defaults=[(0,), "", "", "ns", False, 8, {}, False, False, False])

CHILDREN = (1, 10, 100, 1000, 10000, 100000)
FDS = (1, 10, 100, 1000, 10000)
DEPTHS = (1, 10, 100, 1000, 10000, 100000, 1000000)
THREADS = (1, 2, 4)
REQUESTS = (1, 10, 100, 1000, 10000)
VALUES = (1, 10, 100)
CPUS = (1, 2)
DUE = 100000
IDLE = 1000000
BY_HAND = "write to an eventfd; epoll_wait, read, a queue of one, call"
SERVERS = (("epoll", "a dispatcher; for each request a context with a deadline and an after-func", "limits in lists by time"),
           ("uring", "the same, and operations in a scope", "limits in lists by time"),
           ("threads", "a thread a connection; ctxfd_recv, ctxfd_send", "poll, recv, send"))
SERVER_UNITS = {"rate": "1/s", "p99": "us", "p99-full": "us", "cpu": "ns"}
RECURSE = {"stop": 10000, "nsync": 10000, "glib": 10000}


def wake(name, what, floor, awake=False):
    return Row(name, what=what, floor=floor, typical=True, budget=50, awake=awake)


def due(name, what):
    return Row(name, (DUE,), what, "a binary heap under a lock, one timerfd, epoll_wait", typical=name.startswith("due/last"), budget=80, slow=True)


def server(figure):
    return [Row(f"server/{kind}/{figure}", what=what, floor=by_hand, unit=SERVER_UNITS[figure], typical=True)
            for kind, what, by_hand in SERVERS]


def call(name, what, floor):
    return Row(name, CPUS, what, floor, typical=True, budget=30, awake=True)


GROUPS = [
    ("Make, cancel and free a child of a long-lived parent", [
        Row("make/plain", what="with_cancel, close", floor="malloc, in and out of a locked list, free"),
        Row("make/apart", what="with_cancel, cancel, unref", floor="the same, compare-and-swap"),
        Row("make/timed", what="with_timeout of an hour, close", floor="malloc, clock_gettime, list, free"),
        Row("make/plain+fd", what="with_cancel, done_fd, close", floor="eventfd, write, close"),
        Row("make/timed+fd", what="with_timeout, done_fd, close", floor="timerfd, arm, SET_TICKS, close"),
    ]),
    ("Ask whether it is done: one thread, then every CPU on one context (wall time by all calls)", [
        Row("err/live", what="err", floor="call, load"),
        Row("err/done", what="err", floor="call, load"),
        Row("err/far-deadline", what="err, an hour to go", floor="clock_gettime, coarse"),
        Row("err/near-deadline", what="err, 0.9 s to go", floor="clock_gettime"),
        Row("err-all-cpus/live", what="err", floor="call, load"),
        Row("err-all-cpus/done", what="err", floor="call, load"),
        Row("err-all-cpus/far-deadline", what="err, an hour to go"),
    ]),
    ("Cancel a root with N children: for each child", [
        Row("cancel/children", CHILDREN, "cancel", "compare-and-swap on N nodes", limit={"glib": 10000}),
        Row("cancel/children+fd", FDS, "cancel, each child has its fd", "write(2) to N eventfds of the same age", budget=15),
    ]),
    ("Cancel a chain of contexts, on a stack of 64 KiB: for each link", [
        Row("cancel/chain", DEPTHS, "cancel", "compare-and-swap on N nodes, there and back", limit=RECURSE),
    ]),
    ("From cancel to the waiter's running again, in another thread, asleep", [
        wake("wake/poll", "cancel, waiter in poll", "write to an eventfd, waiter in poll"),
        wake("wake/epoll", "cancel, waiter in epoll_wait", "the same, epoll_wait"),
        wake("wake/uring", "cancel, waiter in io_uring", "the same, io_uring POLL_ADD"),
        wake("wake/wait", "cancel, waiter in ctxfd_wait", "FUTEX_WAKE"),
    ]),
    ("From cancel to the waiter's running again, in another thread, asleep, on a CPU kept from halting", [
        wake("wake-awake/poll", "cancel, waiter in poll", "write to an eventfd, waiter in poll", True),
        wake("wake-awake/epoll", "cancel, waiter in epoll_wait", "the same, epoll_wait", True),
        wake("wake-awake/uring", "cancel, waiter in io_uring", "the same, io_uring POLL_ADD", True),
        wake("wake-awake/wait", "cancel, waiter in ctxfd_wait", "FUTEX_WAKE", True),
    ]),
    ("From a signal to the waiter's running again, under a context that nobody cancels", [
        wake("signal/cond", "pthread_cond_signal, waiter in ctxfd_cond_wait", "the same, pthread_cond_wait"),
        wake("signal/word", "FUTEX_WAKE, waiter in ctxfd_futex_wait", "the same, FUTEX_WAIT"),
        wake("signal-awake/cond", "pthread_cond_signal; CPUs kept from halting", "the same, pthread_cond_wait", True),
        wake("signal-awake/word", "FUTEX_WAKE; CPUs kept from halting", "the same, FUTEX_WAIT", True),
    ]),
    ("Cancel and then wait, in the same thread", [
        Row("wake-same-thread/poll", what="cancel, poll", floor="write, poll"),
        Row("wake-same-thread/epoll", what="cancel, epoll_ctl, epoll_wait", floor="write, epoll_ctl, epoll_wait"),
        Row("wake-same-thread/uring", what="cancel, POLL_ADD", floor="write, POLL_ADD"),
        Row("wake-same-thread/wait", what="cancel, ctxfd_wait", floor="FUTEX_WAKE, load"),
    ]),
    ("From a deadline to the waiter's running again, on a CPU kept from halting", [
        wake("late/poll", "deadline, waiter in poll", "timerfd, waiter in poll", True),
        wake("late/epoll", "deadline, waiter in epoll_wait", "timerfd, waiter in epoll_wait", True),
        wake("late/uring", "deadline, waiter in io_uring", "timerfd, waiter in io_uring", True),
        wake("late/wait", "deadline, waiter in ctxfd_wait", "futex with a timeout", True),
        wake("late/sleep", "ctxfd_sleep to its end", "ppoll with a timeout", True),
    ]),
    ("T threads make and close children (wall time by all of them)", [
        Row("threads/shared", THREADS, "under one parent", "malloc, in and out of an own list, free", typical=True, budget=15),
        Row("threads/separate", THREADS, "under a parent each", "malloc, in and out of an own list, free", typical=True, budget=15),
    ]),
    ("Look a value up under N bindings; then with a cancellable context between each two", [
        Row("value/hit", VALUES, "the uppermost", "N links of a list"),
        Row("value/miss", VALUES, "none"),
        Row("value-mixed/hit", VALUES, "the uppermost", "N links of a list"),
        Row("value-mixed/miss", VALUES, "none"),
    ]),
    ("After-funcs", [
        Row("after/stop", what="after_func, after_stop", floor="malloc, in and out of a locked list, free"),
        Row("after/stop-kept", what="the same; the peers' callbacks are on the heap too", floor="the same"),
        Row("after/stop-timed", what="the same, an hour to the deadline", floor="the same"),
        Row("after/stop-first", what="with_timeout, after_func, after_stop, close"),
        wake("after/run", "cancel to callback, by the library's thread, asleep", BY_HAND),
        wake("after/run-own", "the same, by a loop that has the dispatcher's fd in its epoll set", BY_HAND),
        wake("after-awake/run", "by the library's thread, on a CPU kept from halting", BY_HAND, True),
        wake("after-awake/run-own", "by such a loop, on a CPU kept from halting", BY_HAND, True),
    ]),
    ("T threads, a dispatcher each: a context, its after-func, its end, the callback (wall time by all of them)", [
        Row("after/loops", THREADS, "with_cancel, after_func, close, run", "malloc, a queue, an eventfd, epoll_wait, read", typical=True, budget=30),
    ]),
    ("N contexts with one deadline and an after-func each: CPU time for each, and how late the last one runs", [
        due("due/run", "by the library's thread: CPU from the last one's making until the last one has run"),
        due("due/life", "the same, with making and freeing all"),
        due("due/last", "by the library's thread: from the deadline to the last one's call"),
        due("due/run-own", "by a loop that has a dispatcher's fd in its epoll set: CPU"),
        due("due/last-own", "by such a loop: from the deadline to the last one's call"),
        due("due/life-own", "by such a loop: CPU for all, with making and freeing"),
    ]),
    ("Contexts that end when nobody touches them", [
        Row("idle/touch", what="touch", floor="clock_gettime"),
        Row("idle/life", (IDLE,), "N contexts: with_idle, ten times touch, its end, close: CPU time for each",
            "malloc, clock_gettime, a store, a binary heap under a lock, one timerfd", budget=2000, slow=True, once=True),
    ]),
    ("A call that has to wait, under a context of its own with a deadline; two threads take turns on N CPUs: for each turn", [
        call("call/recv", "with_timeout, ctxfd_recv, close; and a send", "ppoll with a timeout, recv; and a send"),
        call("call/recv-woken", "the same", "ppoll of the socket and an eventfd, by which another thread could end it; recv"),
        call("call/send", "the same, ctxfd_send into a full buffer; and a recv", "ppoll, send; and a recv"),
        call("call/write", "the same, ctxfd_write to the socket", "ppoll, write; and a recv"),
        call("call/write-pipe", "the same, ctxfd_write into a full pipe; and a read", "ppoll, write; and a read"),
        call("call/accept", "ctxfd_accept; close; and socket, connect, close", "ppoll, accept4; and the same"),
        call("call/accept-blocking", "the same, the listener in blocking mode", "ppoll, accept4; and the same"),
        Row("call/recv-there", what="a send, and ctxfd_recv of what is there", floor="send, recv"),
    ]),
    ("A function that runs on a parked thread while its caller waits", [
        Row("handover", what="ctxfd_call", floor="a mutex and two condition variables", typical=True, budget=30, awake=True),
    ]),
    ("N threads that do nothing, made and joined: for each", [
        Row("group/threads", (100,), "group_new, N times group_go, group_wait", "N times pthread_create, then pthread_join", typical=True, budget=60),
        Row("group/limited", (100,), "the same, one at a time", "N times pthread_create and pthread_join", typical=True, budget=60),
    ]),
    ("A command that does nothing, N of them one after the other: for each", [
        Row("process/run", (20,), "ctxfd_run of /bin/true, under a context with a deadline", "posix_spawn, waitpid", typical=True, budget=60),
    ]),
    ("io_uring: cancel N reads in flight, for each, to the last one's CQE", [
        Row("uring/cancel", (1, 100, 1000, 10000), "cancel of the context, as any thread may",
            "by hand: write to a polled eventfd, ASYNC_CANCEL by user_data", budget=30),
        Row("uring/cancel-op", (1, 100, 1000), "ctxfd_uring_cancel of each, in the ring's thread",
            "by hand: ASYNC_CANCEL by user_data", budget=20),
    ]),
    ("io_uring: receive a byte that is there, one at a time", [
        Row("uring/recv", what="bound, nothing else in flight", floor="the same, unbound"),
        Row("uring/recv-among", what="bound, another operation in flight", floor="unbound"),
        Row("uring/call", what="ctxfd_uring_call", floor="unbound"),
    ]),
    ("io_uring: the same, with a context of its own for each that any thread may cancel", [
        Row("uring/after-each", what="one scope; an after-func with ctxfd_uring_cancel", floor="by hand: malloc, in and out of a locked list, free"),
        Row("uring/scope-each", what="a scope each", floor="by hand: an eventfd, POLL_ADD and its removal"),
    ]),
    ("The life of a request, with N of them in flight: a deadline, an after-func, three looks, its end", [
        Row("request", REQUESTS, "with_timeout, after_func, err, after_stop, close", "malloc, clock_gettime, in and out of two locked lists, free"),
    ]),
    ("HTTP servers with an idle limit and a request limit, under wrk at full load: requests a second", server("rate")),
    ("The same: 99th percentile of the latency, in us, which is wrk's queue (bench/servers.py)", server("p99-full")),
    ("The same where wrk pauses after each answer: 99th percentile of the latency, in us", server("p99")),
    ("The same at full load: CPU time of the server for each request, the kernel's included, in ns; all servers driven at once", server("cpu")),
    ("Bytes for each of a million, malloc's overhead included", [
        Row("bytes/plain", what="with_cancel", unit="B", slow=True),
        Row("bytes/timed", what="with_timeout", unit="B", slow=True),
        Row("bytes/value", what="with_value", unit="B", slow=True),
        Row("bytes/idle", what="with_idle", unit="B", slow=True),
        Row("bytes/resident", what="with_cancel: pages of memory taken", unit="B", slow=True),
    ]),
    ("The benchmarks of Go's context package", [
        Row("go/common-parent", what="BenchmarkCommonParentCancel", typical=True, budget=15),
        Row("go/with-timeout", (40, 4000, 400000), "BenchmarkWithTimeout, N alive: ten made, ten cancelled", typical=True, budget=15),
        Row("go/cancel-tree-background", (1, 10, 100, 1000), "BenchmarkCancelTree, built below the background"),
        Row("go/cancel-tree-open", (1, 10, 100, 1000), "BenchmarkCancelTree, built and cancelled"),
        Row("go/cancel-tree-closed", (1, 10, 100, 1000), "BenchmarkCancelTree, below a cancelled root"),
        Row("go/check-canceled-err", what="BenchmarkCheckCanceled/Err"),
        Row("go/check-canceled-done", what="BenchmarkCheckCanceled/Done: poll of the fd here"),
        Row("go/context-cancel-done", what="BenchmarkContextCancelDone: err here, all CPUs"),
        Row("go/deep-value-same", (10, 20, 30, 50, 100), "BenchmarkDeepValueSameGoRoutine"),
        Row("go/deep-value-new", (10, 100), "BenchmarkDeepValueNewGoRoutine: new threads here"),
    ]),
]

# Counted under callgrind, without the time that the system calls take in the kernel.
INSTRUCTIONS = [
    ("make/plain", 0), ("make/apart", 0), ("make/timed", 0), ("make/plain+fd", 0), ("make/timed+fd", 0),
    ("err/live", 0), ("err/done", 0), ("err/far-deadline", 0), ("err/near-deadline", 0),
    ("cancel/children", 10), ("cancel/children", 1000), ("cancel/children", 10000), ("cancel/children+fd", 1000),
    ("cancel/chain", 1000), ("value/hit", 10), ("value/hit", 100), ("value-mixed/hit", 100), ("value/miss", 100),
]

# File, title, x label, [(row, subject), ...]; None is every subject that has the row.
PLOTS = [
    ("request", "A request with a context, a deadline and an after-func, ns from begin to end", "requests in flight", [("request", None)]),
    ("cancel-children", "Cancel a root with N children, ns a child", "children", [("cancel/children", None)]),
    ("cancel-children-fd", "The same, every child with its fd", "children", [("cancel/children+fd", None)]),
    ("cancel-chain", "Cancel a chain, ns a link", "depth", [("cancel/chain", None)]),
    ("value", "Look a value up, ns", "bindings above, as many cancellable contexts between", [("value-mixed/hit", None)]),
    ("threads", "Make and close children, wall ns by operation", "threads under one parent (-) or one each",
     [("threads/shared", None), ("threads/separate", "ctxfd")]),
    ("go-with-timeout", "BenchmarkWithTimeout, ns for ten", "timeouts alive", [("go/with-timeout", None)]),
    ("go-cancel-tree", "BenchmarkCancelTree, open root, ns a tree", "depth", [("go/cancel-tree-open", None)]),
]


class Figure(namedtuple("Figure", "text limit unit at_least value why row", defaults=[False, None, "", ""])):
    """One figure to reach. value(r) takes it from the results, None where something was not measured; value(r, "floor") is what
    the row's floor gets by the same measure. why: what keeps it from being reached, and what was tried. row: the one that it is of, if
    that one's floor is measured twice."""

    def reached(self, got):
        return got >= self.limit if self.at_least else got <= self.limit

    def reach(self):
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"


def ratio(row, other, arg=0, other_row=None):
    """The library's figure by another subject's, in the same row or another one."""
    def value(r, subject="ctxfd"):
        a, b = r.figure(row, arg, subject), r.figure(other_row or row, arg, other)
        return a / b if a and b else None
    return value


def in_turn(row, other, arg=0):
    """The same, but the middle of the ratios of rounds that are neighbours: where two threads wake each other."""
    return lambda r, subject="ctxfd": r.ratio(row, arg, subject, other)


def worst(args, value_of):
    """The largest of a value over several arguments."""
    def value(r, subject="ctxfd"):
        all_of = [value_of(arg)(r, subject) for arg in args]
        return None if None in all_of else max(all_of)
    return value


def plain(row, arg=0):
    return lambda r, subject="ctxfd": r.figure(row, arg, subject)


def spread_over(row, args):
    def value(r, subject="ctxfd"):
        all_of = [r.figure(row, arg, subject) for arg in args]
        return None if None in all_of else max(all_of) / min(all_of)
    return value


def speedup(row, arg, base):
    def value(r, subject="ctxfd"):
        one, many = r.figure(row, base, subject), r.figure(row, arg, subject)
        return one / many if one and many else None
    return value


def faster_than(row, arg, other):
    return lambda r, subject="ctxfd": r.ratio(row, arg, other, subject)


CHEAP_LOCKS = ("stop_source does fewer instructions, 275 against 423 for a child, and more locked ones. On a Xeon, where those are dear, a "
               "child took it twice as long; on an EPYC, where they are cheap, it is the quicker one.")
THREE_PIECES = ("Context, after-func and alarm are three pieces of heap, in the lists of parent and context and in the dispatcher's heap, and each "
                "look reads the coarse clock.")
A_REQUEST = ("No system call is added: what a request adds is 130 ns for context, after-func, alarm and touch while the caches have them, "
             "and up to 0.35 us where they do not, of 6 to 14 us. Where wrk is the slower one (see the notes above) it is wrk's rate, and the CPU "
             "time says more. If the floor by itself is as far off, it is chance: other work on the machine delays a request by milliseconds.")
A_THREAD = ("Each wait polls the thread's waker beside the socket (220 ns), keeps pthread_cancel off meanwhile (30 ns each time), and takes a "
            "context and a waiter that the caches have lost by then. One call in eight tries in vain before it polls (200 ns). Tried: to try first "
            "each time.")
SERVER_KINDS = (("epoll", "epoll", A_REQUEST), ("uring", "io_uring", A_REQUEST), ("threads", "a thread a connection", A_THREAD))
ALIGNED = "1.35 or 1.62 on an EPYC, as the function happens to be aligned in the library."

FIGURES = [
    Figure("make + cancel + free a child, no fd, by std::stop", 0.8, "x", value=ratio("make/plain", "stop"), why=CHEAP_LOCKS),
    Figure("make + cancel + free a child, no fd, by Go", 0.33, "x", value=ratio("make/plain", "go")),
    Figure("the same as three calls: make, cancel, unref, by std::stop", 0.8, "x", value=ratio("make/apart", "stop"), why=CHEAP_LOCKS),
    Figure("the same as three calls: make, cancel, unref, by Go", 0.33, "x", value=ratio("make/apart", "go"),
           why="cancel decides by a compare-and-swap what close need not decide, and unref looks again whether it is the last. "
               "Tried: a bare leaf's own way through cancel, 1 ns of 64."),
    Figure("with a timeout of an hour, by Go", 0.25, "x", value=ratio("make/timed", "go")),
    Figure("with the done fd, by bare eventfd make + write + close", 1.10, "x", value=ratio("make/plain+fd", "floor")),
    Figure("timed with the done fd, by bare timerfd make + arm + SET_TICKS + close", 1.10, "x",
           value=ratio("make/timed+fd", "floor"),
           why="1.06 to 1.11 from run to run: the four calls are the same, the rest is making a child with a deadline. It was 1.12 "
               "with libc's close, which is a cancellation point."),
    Figure("err, live", 1.5, " ns", value=plain("err/live"), why=ALIGNED),
    Figure("err, done", 1.5, " ns", value=plain("err/done"), why=ALIGNED),
    Figure("err, live, deadline more than a second away", 10, " ns", value=plain("err/far-deadline")),
    Figure("err, live, deadline nearer, by clock_gettime", 1.2, "x", value=ratio("err/near-deadline", "floor")),
    Figure("cancel N children, each, the worst N from 10 to 100,000", 16, " ns",
           value=worst(CHILDREN[1:], lambda n: plain("cancel/children", n))),
    Figure("the same, flat: the worst N by the best N", 1.5, "x", value=spread_over("cancel/children", CHILDREN[1:])),
    Figure("the same with fds, by a loop of write(2), the worst N from 10", 1.10, "x",
           value=worst(FDS[1:], lambda n: ratio("cancel/children+fd", "floor", n))),
    Figure("chain, each, the worst depth from 10 to 1,000,000", 30, " ns",
           value=worst(DEPTHS[1:], lambda n: plain("cancel/chain", n)),
           why="Up to 100,000 it is; a million links are 80 MB, gone through there and back, and the floor waits for memory too. Tried: "
               "prefetching the parent on the way back (5 % less or 6 % more, from run to run), and the next link on the way "
               "there (then many children take 5 % more)."),
    Figure("cancel to wake-up, poll, p50, by bare eventfd", 1.05, "x", value=ratio("wake/poll", "floor")),
    Figure("cancel to wake-up, epoll_wait, p50, by bare eventfd", 1.05, "x", value=ratio("wake/epoll", "floor")),
    Figure("cancel to wake-up, io_uring, p50, by bare eventfd", 1.05, "x", value=ratio("wake/uring", "floor")),
    Figure("cancel to wake-up, ctxfd_wait, p50, by bare futex", 1.05, "x", value=ratio("wake/wait", "floor")),
    Figure("cancel to wake-up, poll, by bare eventfd; CPUs kept from halting", 1.05, "x", value=ratio("wake-awake/poll", "floor")),
    Figure("cancel to wake-up, epoll_wait, by bare eventfd; CPUs kept from halting", 1.05, "x", value=ratio("wake-awake/epoll", "floor")),
    Figure("cancel to wake-up, io_uring, by bare eventfd; CPUs kept from halting", 1.05, "x", value=ratio("wake-awake/uring", "floor")),
    Figure("cancel to wake-up, ctxfd_wait, by bare futex; CPUs kept from halting", 1.05, "x", value=ratio("wake-awake/wait", "floor")),
    Figure("signal to wake-up, ctxfd_cond_wait, p50, by pthread_cond_wait", 1.05, "x", value=ratio("signal/cond", "floor")),
    Figure("signal to wake-up, ctxfd_cond_wait, by pthread_cond_wait; CPUs kept from halting", 1.05, "x",
           value=ratio("signal-awake/cond", "floor")),
    Figure("signal to wake-up, ctxfd_futex_wait, p50, by bare futex", 1.05, "x", value=ratio("signal/word", "floor")),
    Figure("deadline lateness, poll, p50, by bare timerfd + poll", 1.10, "x", value=ratio("late/poll", "floor")),
    Figure("deadline lateness, ctxfd_wait, p50, by bare timerfd + poll", 1.10, "x",
           value=ratio("late/wait", "floor", other_row="late/poll")),
    Figure("deadline lateness, poll, p50, by Go", 0.6, "x", value=ratio("late/poll", "go", other_row="late/wait")),
    Figure("deadline lateness, ctxfd_wait, p50, by Go", 0.6, "x", value=ratio("late/wait", "go")),
    Figure("two threads under one parent, by the rate of one", 1.5, "x", True, speedup("threads/shared", 2, 1),
           why="Where the machine gives its two CPUs from one core, as virtual ones can, two threads get that core's work done: the "
               "floor's rate grows no more. Else it is 1.45 to 1.6, as the floor's."),
    Figure("two threads under one parent, by the rate of std::stop", 5, "x", True, faster_than("threads/shared", 2, "stop"),
           why="5.2 to 5.6 where the two CPUs are cores, 3.7 to 4.6 where they share one: a stop_source's threads wait for each other "
               "then as before, and a child takes its 400 instructions. Under parents of their own they are no faster."),
    Figure("value at depth 100 among as many cancel nodes, hit, by Go with a pointer key", 0.6, "x",
           value=ratio("value-mixed/hit", "go", 100)),
    Figure("after + stop without firing, by stop_callback made and destroyed", 1.0, "x", value=ratio("after/stop", "stop"),
           why="A stop_callback lies in its caller's memory; an after-func, which may outlive everybody, is 160 bytes of heap. " + CHEAP_LOCKS),
    Figure("the same, by a stop_callback of a std::function on the heap", 1.0, "x", value=ratio("after/stop-kept", "stop"), why=CHEAP_LOCKS),
    Figure("the same with a deadline", 1.0, "x", value=ratio("after/stop-timed", "stop", other_row="after/stop")),
    Figure("two threads with a dispatcher each, by the rate of one", 1.5, "x", True, speedup("after/loops", 2, 1)),
    Figure("100,000 after-funcs due at once: CPU time for each, by Go", 0.5, "x", value=ratio("due/run", "go", DUE)),
    Figure("100,000 after-funcs due at once: lateness of the last, by Go", 1.0, "x", value=ratio("due/last", "go", DUE)),
    Figure("100,000 after-funcs due at once: CPU time for each, by libuv's timers", 1.0, "x", value=ratio("due/run", "uv", DUE)),
    Figure("a touch of an idle context, by clock_gettime", 1.3, "x", value=ratio("idle/touch", "floor")),
    Figure("1,000,000 idle contexts, touched ten times each: CPU time, by libuv's uv_timer_again", 1.0, "x", value=ratio("idle/life", "uv", IDLE)),
    Figure("1,000,000 idle contexts, touched ten times each: CPU time, by Go's Timer.Reset", 1.0, "x", value=ratio("idle/life", "go", IDLE)),
    Figure("cancel to callback, by a loop and a queue by hand", 1.10, "x", value=ratio("after/run", "floor")),
    Figure("cancel to callback, by a loop and a queue by hand; CPUs kept from halting", 1.10, "x", value=ratio("after-awake/run", "floor")),
    *(Figure(f"{what}, under a context of its own, by ppoll and the call; {cpus}", 1.05, "x", value=in_turn(f"call/{row}", "floor", n))
      for row, what in (("recv", "recv that has to wait"), ("send", "send"), ("accept", "accept"))
      for n, cpus in ((1, "one CPU"), (2, "two CPUs"))),
    Figure("ctxfd_call, by a hand-over to a parked thread", 1.2, "x", value=in_turn("handover", "floor")),
    Figure("a group of 100 threads, by pthread_create and pthread_join", 1.1, "x", value=in_turn("group/threads", "floor", 100)),
    Figure("a request's life with 1,000 in flight, by GLib", 0.25, "x", value=ratio("request", "glib", 1000)),
    Figure("a request's life with 1,000 in flight, by Go", 0.25, "x", value=ratio("request", "go", 1000)),
    Figure("a request's life with 1,000 in flight, by std::stop and a map of deadlines", 1.0, "x", value=ratio("request", "stop", 1000),
           why="A stop_callback lies in its caller's memory, and is called by whoever cancels. " + THREE_PIECES),
    Figure("a request's life with 1,000 in flight, by two records in locked lists", 1.25, "x",
           value=ratio("request", "floor", 1000), why=THREE_PIECES),
    *(Figure(f"requests a second of a server, {what}, by the same without contexts", 0.97, "x", True,
             in_turn(f"server/{kind}/rate", "floor"), why, f"server/{kind}/rate") for kind, what, why in SERVER_KINDS),
    *(Figure(f"p99 of a server, {what}, by the same without contexts", 1.03, "x", False,
             in_turn(f"server/{kind}/p99", "floor"), why, f"server/{kind}/p99") for kind, what, why in SERVER_KINDS),
    *(Figure(f"CPU time of a server, {what}, by the same without contexts", 1.03, "x", False,
             in_turn(f"server/{kind}/cpu", "floor"), why, f"server/{kind}/cpu") for kind, what, why in SERVER_KINDS),
    Figure("ctxfd_run, by posix_spawn and waitpid", 1.05, "x", value=in_turn("process/run", "floor", 20)),
    Figure("heap bytes of a context", 96, " B", value=plain("bytes/plain")),
    Figure("heap bytes of a context with a deadline", 96, " B", value=plain("bytes/timed")),
]
