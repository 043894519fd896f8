# SPDX-License-Identifier: MIT
"""Keeps the samples of a run and writes the table, the JSON and the plots."""

import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import textwrap
import time

import suite

ORDER = ["ctxfd", "floor", "go", "stop", "nsync", "glib", "uv"]
NAMES = {"go": "Go", "stop": "std::stop", "nsync": "nsync", "glib": "GLib", "uv": "libuv", "ctxfd": "ctxfd", "floor": "floor"}


def order(subject):
    return (ORDER.index(subject) if subject in ORDER else len(ORDER), subject)


class Histogram:
    """Counts in buckets that are a 512th of a power of two wide: a quantile is right to 0.2 percent, however many samples."""

    STEPS = 512

    def __init__(self):
        self.buckets, self.count = {}, 0

    def add(self, value):
        mantissa, exponent = math.frexp(max(value, 0.0))
        bucket = exponent * self.STEPS + int((mantissa - 0.5) * 2 * self.STEPS)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1

    def quantile(self, q):
        rank, seen = q * self.count, 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                break
        exponent, step = divmod(bucket, self.STEPS)
        return math.ldexp(0.5 + (step + 0.5) / (2 * self.STEPS), exponent)


class Cell:
    """One subject in one row with one argument."""

    def __init__(self, row):
        self.row, self.rounds, self.all = row, [], Histogram()

    def add(self, samples):
        self.rounds.append(statistics.median(samples))
        for s in samples:
            self.all.add(s)

    def figure(self):
        """
        The best round of what a CPU does by itself: all that the rest of the machine can do is to slow it down. A latency and a
        contended row have a best by luck too, a sleeper that was caught awake or a thread that ran alone, so there it is the middle round.
        """
        return statistics.median(self.rounds) if self.row.typical else min(self.rounds)

    def spread(self):
        """Between the quartiles of the rounds, by their median, in percent."""
        if len(self.rounds) < 4:
            return 0.0
        low, mid, high = statistics.quantiles(self.rounds, n=4)
        return 100 * (high - low) / mid if mid else 0.0

    def numbers(self):
        return {"figure": self.figure(), "best": min(self.rounds), "median": statistics.median(self.rounds),
                "spread_percent": self.spread(), "rounds": self.rounds, "samples": self.all.count,
                "p50": self.all.quantile(0.5), "p99": self.all.quantile(0.99),
                "p999": self.all.quantile(0.999) if self.all.count >= 1000 else None}


class Results:
    def __init__(self, subjects):
        self.subjects, self.cells, self.instructions = subjects, {}, {}
        self.notes = []

    def add(self, row, arg, subject, samples):
        self.cells.setdefault((row.name, arg, subject), Cell(row)).add(samples)

    def cell(self, row, arg, subject):
        return self.cells.get((row, arg, subject))

    def figure(self, row, arg, subject):
        c = self.cell(row, arg, subject)
        return c.figure() if c else None

    def ratio(self, row, arg, subject, other):
        """Of the figures; of a typical row the middle of the ratios round by round, since two rounds of a turn are neighbours."""
        a, b = self.cell(row, arg, subject), self.cell(row, arg, other)
        if not a or not b:
            return None
        if a.row.typical:
            return statistics.median(self.ratios(row, arg, subject, other))
        return a.figure() / b.figure()

    def ratios(self, row, arg, subject, other):
        """Round by round."""
        return [x / y for x, y in zip(self.cell(row, arg, subject).rounds, self.cell(row, arg, other).rounds)]

    def quartiles(self, row, arg, subject):
        """Of a row's ratios to the floor; None if they are not measured, or too seldom."""
        measured = self.cell(row, arg, subject) and self.cell(row, arg, "floor")
        return statistics.quantiles(self.ratios(row, arg, subject, "floor"), n=4) if measured and len(measured.rounds) > 3 else None

    def chance(self, row, arg):
        """How far from 1 the middle of a row's ratios may be by chance: it is so far for the floor by itself, once in twenty runs."""
        q = self.quartiles(row, arg, "again")
        return q and 1.57 * (q[2] - q[0]) / len(self.cell(row, arg, "again").rounds) ** 0.5

    def twice(self, row, arg):
        """Of a row whose floor is measured twice: in words."""
        (low, _, high), same = self.quartiles(row, arg, "ctxfd") or (0, 0, 0), self.quartiles(row, arg, "again")
        return same and f"{low:.2f}..{high:.2f}; floor by itself {same[1]:.2f}, {same[0]:.2f}..{same[2]:.2f}: "

    def best_peer(self, row, arg):
        """The fastest of the peers, and its figure."""
        peers = [(self.figure(row, arg, s), s) for s in self.subjects if s not in ("ctxfd", "floor")]
        return min([p for p in peers if p[0] is not None], default=(None, None))


# ---- The machine ------------------------------------------------------------------------------------------------------

def said(*command):
    try:
        out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
        return out.strip().split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return ""


class Machine:
    def __init__(self):
        self.load_before = os.getloadavg()[0]

    def facts(self, subjects):
        with open("/proc/cpuinfo") as f:
            model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown CPU")
        versions = {"compiler": said(os.environ.get("CC", "cc"), "--version"),
                    "libc": " ".join(platform.libc_ver()),
                    "liburing": said("pkg-config", "--modversion", "liburing")}
        ask = {"go": ("go", "version"), "stop": (os.environ.get("CXX", "c++"), "-dumpfullversion"),
               "glib": ("pkg-config", "--modversion", "glib-2.0"),
               "uv": ("pkg-config", "--modversion", "libuv"),
               "nsync": ("dpkg-query", "-W", "-f", "${Version}", "libnsync-dev")}
        for s in subjects:
            if s in ask:
                versions[NAMES[s]] = said(*ask[s])
        return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "hypervisor": said("systemd-detect-virt", "--vm") or "unknown",
                "kernel": platform.release(), "versions": versions, "commit": said("git", "rev-parse", "--short", "HEAD"),
                "date": time.strftime("%Y-%m-%d %H:%M:%S %z"), "load_before": self.load_before, "load_after": os.getloadavg()[0]}


# ---- The table --------------------------------------------------------------------------------------------------------

def number(x):
    if x is None:
        return "-"
    return f"{x:,.2f}" if x < 10 else f"{x:,.1f}" if x < 1000 else f"{x:,.0f}"


def times(x):
    return "-" if x is None else f"{x:.2f}"


def row_lines(r, row, peers):
    for arg in row.args:
        c = r.cell(row.name, arg, "ctxfd")
        if not c:
            continue
        n, floor, (_, peer) = c.numbers(), r.figure(row.name, arg, "floor"), r.best_peer(row.name, arg)
        name = f"{row.name} {arg:,}" if arg else row.name
        line = f"  {name:<32}{number(n['figure']):>10}{number(n['p50']):>10}{number(n['p99']):>10}{number(n['p999']):>10}"
        line += f"{n['spread_percent']:>7.0f}%{number(floor):>11}{times(r.ratio(row.name, arg, 'ctxfd', 'floor')):>8}"
        if peers:
            line += "".join(f"{number(r.figure(row.name, arg, s)):>11}" for s in peers) + f"{times(r.ratio(row.name, arg, 'ctxfd', peer)):>8}"
        yield line + "  " + (r.twice(row.name, arg) or "") + (row.what + (f" | {row.floor}" if row.floor else ""))


def figure_lines(r, partial):
    yield "Figures to reach: what the library took, by what the other took in the same run"
    yield f"  {'':<82}{'reach':>10}{'got':>10}{'floor':>10}"
    for f in suite.FIGURES:
        got, again = f.value(r), f.value(r, "again")
        if partial and got is None:
            continue
        text = "not measured" if got is None else ("yes" if f.reached(got) else "NO")
        by_chance = f.row and r.chance(f.row, 0)
        if by_chance:
            text += f" (+-{by_chance:.2f} by chance)"
        least = again or f.value(r, "floor")
        got, least = ("-" if v is None else f"{v:.2f}{f.unit}" for v in (got, least))
        yield f"  {f.text:<82}{f.reach():>10}{got:>10}{least:>10}  {text}"
        if text.startswith("NO") and f.why:
            yield from textwrap.wrap(f.why, 112, initial_indent=6 * " ", subsequent_indent=6 * " ")


def instruction_lines(r, peers):
    columns = ["ctxfd", "floor"] + [s for s in peers if s != "go"]
    yield "Instructions an operation (callgrind; in user space only)"
    yield f"  {'':<32}" + "".join(f"{NAMES.get(s, s):>11}" for s in columns)
    for row, arg in suite.INSTRUCTIONS:
        values = [r.instructions.get((row, arg, s)) for s in columns]
        if any(v is not None for v in values):
            yield f"  {row + (f' {arg:,}' if arg else ''):<32}" + "".join(f"{number(v):>11}" for v in values)


def machine_lines(m, took):
    yield f"{m['cpu']}, {m['cpus']} CPUs, {m['hypervisor']}; Linux {m['kernel']}; commit {m['commit'] or 'none'}; {m['date']}"
    yield ", ".join(f"{k} {v}" for k, v in m["versions"].items() if v)
    yield f"{took:.0f} s; load {m['load_before']:.2f} before, {m['load_after']:.2f} after (with this suite's own in it)"


METHOD = """Figure: the least of the rounds' medians, or their median for the latencies of single events (wake, late, after/run) and where
threads meet (threads, go/common-parent, go/with-timeout, server). Median, p99, p99.9: of batches of some 20 us, or of single events.
Spread: between the quartiles of the rounds. Subjects take turns, round by round, in processes of their own with a second
thread parked. x floor, x peer: by the floor's figure and by the best peer's; of what is judged by the median, the median of the
ratios round by round. ns, unless the heading says else. After the bar: what the floor does. Servers: the quartiles of the ratios;
then the floor by itself, that is the same program once more, and its quartiles. Among the figures to reach it stands for the floor,
and what is said to be by chance is how far from 1 its ratio is in one run of twenty."""


def table(r, m, took, partial):
    peers = [s for s in r.subjects if s not in ("ctxfd", "floor")]
    lines = [*machine_lines(m, took), *r.notes, "", *METHOD.split("\n"), ""]
    head = f"{'figure':>10}{'median':>10}{'p99':>10}{'p99.9':>10}{'spread':>8}{'floor':>11}{'x floor':>8}"
    if peers:
        head += "".join(f"{NAMES.get(s, s):>11}" for s in peers) + f"{'x peer':>8}"
    for title, rows in suite.GROUPS:
        body = [line for row in rows for line in row_lines(r, row, peers)]
        if body:
            lines += [title, f"  {'':<32}" + head, *body, ""]
    if r.instructions:
        lines += [*instruction_lines(r, peers), ""]
    return "\n".join(lines + list(figure_lines(r, partial))) + "\n"


# ---- JSON and plots ---------------------------------------------------------------------------------------------------

def as_json(r, m):
    rows = []
    for _, group in suite.GROUPS:
        for row in group:
            for arg in row.args:
                subjects = {s: r.cell(row.name, arg, s).numbers() for s in (*r.subjects, "again") if r.cell(row.name, arg, s)}
                if subjects:
                    rows.append({"row": row.name, "arg": arg, "unit": row.unit, "what": row.what, "floor": row.floor,
                                 "subjects": subjects, "best_peer": r.best_peer(row.name, arg)[1]})
    figures = [{"figure": f.text, "reach": f.reach(), "got": f.value(r), "floor": f.value(r, "floor"),
                "reached": None if f.value(r) is None else f.reached(f.value(r))} for f in suite.FIGURES]
    instructions = [{"row": row, "arg": arg, "subject": s, "instructions": n} for (row, arg, s), n in r.instructions.items()]
    return {"machine": m, "notes": r.notes, "rows": rows, "instructions": instructions, "figures": figures}


def rows_named(name):
    return [row for _, rows in suite.GROUPS for row in rows if row.name == name]


def plot(r, out, name, title, xlabel, curves):
    lines = []
    for row, only in curves:
        args = rows_named(row)[0].args
        for s in [only] if only else r.subjects:
            points = [(a, r.figure(row, a, s)) for a in args]
            points = [(a, y) for a, y in points if y is not None]
            if len(points) < 2:
                continue
            label = NAMES.get(s, s) + (", one each" if row.endswith("/separate") else "")
            path = os.path.join(out, f"{name}-{len(lines)}.dat")
            with open(path, "w") as f:
                f.writelines(f"{a} {y:.3f}\n" for a, y in points)
            lines.append(f'"{path}" title "{label}" with linespoints linestyle {ORDER.index(s) + 1 if s in ORDER else 7}'
                         + (" dashtype 2" if label.endswith("each") else ""))
    if not lines:
        return
    linear = max(float(a) for row, _ in curves for x in rows_named(row) for a in x.args) < 10
    script = [f'linear={int(linear)}', f'title="{title}"', f'xtext="{xlabel}"', f'file="{os.path.join(out, name)}.svg"']
    gp = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plot.gp")
    subprocess.run(["gnuplot", "-e", "; ".join(script), gp, "-e", "plot " + ", ".join(lines)], check=True)


def write(r, machine, took, out, partial):
    m = machine.facts(r.subjects)
    if m["load_before"] > 1:
        r.notes.append("The machine was busy with other work: figures near their limits mean little.")
    text = table(r, m, took, partial)
    print(text, end="")
    with open(os.path.join(out, "table.txt"), "w") as f:
        f.write(text)
    with open(os.path.join(out, "results.json"), "w") as f:
        json.dump(as_json(r, m), f, indent=1)
        f.write("\n")
    if not shutil.which("gnuplot"):
        print("gnuplot is not there: no plots")
        return
    plots = os.path.join(out, "plots")
    os.makedirs(plots, exist_ok=True)
    for p in suite.PLOTS:
        plot(r, plots, *p)
    print(f"\n{out}/results.json, {out}/table.txt, {plots}/*.svg")
