"""pdbench, GuideLLM, AIPerf and a plain aiohttp client doing the same work, side by side.

    python -m benchmarks.peers --json peers.json

Each peer (tools.py) is driven by its own command line, with all its processes on one core; the truth server has
another. The tools take turns, for several rounds. A tool's error is the distance of the percentiles *it reports* to
those of the server's log for the same requests; where it reports no percentile of single gaps, only of each request's
mean gap, it is compared with the log's mean gaps, and the table says so. Start and report: wall time minus the time
between the first request's arrival and the last write. Memory: the summed resident memory of its processes at its
peak (shared pages count in each). Arrival fit: Kolmogorov-Smirnov against the exponential law of the rate asked for,
by the gaps the server saw. For capacity pdbench times 60,000 events/s and each tool is asked for a fifth of that:
pdbench by the error of every event, the tools by the distance of their percentiles, which is the milder test. About
twenty minutes, and the installation once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import stats

from benchmarks.capacity import EVEN, Point, document_of, measure
from benchmarks.common import ROOT, arguments, cores, pinned, scratch, tell
from benchmarks.common import table as print_table
from benchmarks.judge import QUANTILES, Target, quantile, truth_of
from benchmarks.runs import load_only
from benchmarks.tools import FOREIGN, PEERS, TOKENS, TOOLS, Reported, Tool, Work, install, version
from benchmarks.truth.server import Served, TruthServer, in_order

LIMIT_S = 300
CAPACITY, STREAMS = 60_000, 256  # events/s of pdbench, against which a fifth is asked of the peers
_SAMPLE_S = 0.25


class Memory:
    """Peak of the summed resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            total = 0
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    total += process.memory_info().rss
            except psutil.Error:
                continue
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self.peak


def turn(tool: Tool, work: Work, seed: int) -> dict[str, Any]:
    """One run of one tool; ``error`` says what went wrong, else the row is whole."""
    with scratch() as directory, TruthServer(core=cores()[1]) as truth:
        words = tool.command(truth.url, work, directory, seed)
        told = tool.stdin(truth.url, work, seed) if tool.stdin else b""
        (directory / "stdin").write_bytes(told)
        started = time.monotonic()
        with (directory / "stdin").open("rb") as stdin, (directory / "out").open("wb") as out:
            with pinned(cores()[0]):
                process = subprocess.Popen(
                    words, stdin=stdin, stdout=out, stderr=(directory / "err").open("wb"), cwd=home(tool, directory),
                    env={**os.environ, "NO_COLOR": "1"},
                )  # fmt: skip
            memory = Memory(process.pid)
            killer = threading.Timer(LIMIT_S, process.kill)
            killer.start()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            killer.cancel()
        wall_s, peak = time.monotonic() - started, memory.stop()
        row: dict[str, Any] = {"tool": tool.name, "work": work.name, "rate": work.rate, "seed": seed, "error": ""}
        row |= {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall_s, "rss_mb": peak / 1e6}
        log = load_only(truth.log(), TOKENS)
        try:
            reported = tool.read((directory / "out").read_bytes(), directory)
        except (OSError, ValueError, KeyError, StopIteration, TypeError) as error:
            said = [(directory / name).read_text(errors="replace").strip().splitlines()[-2:] for name in ("err", "out")]
            last = [line for lines in said for line in lines]
            return row | {"error": f"status {process.returncode}, {error!r}: {' | '.join(last)}"}
        return row | judged(reported, log, work) | overhead(log, wall_s)


def home(tool: Tool, directory: Path) -> Path:
    """Where it runs: peers may leave files behind."""
    return directory if tool.name in FOREIGN else ROOT


def overhead(log: dict[str, Served], wall_s: float) -> dict[str, float]:
    """Start and report: what is left of the wall time beside the load itself."""
    first, last = min(one.received_ns for one in log.values()), max(int(one.before_ns[-1]) for one in log.values())
    return {"start_and_report_s": wall_s - (last - first) / 1e9}


def judged(reported: Reported, log: dict[str, Served], work: Work) -> dict[str, Any]:
    """The distance of what it reports to the log (us), and how the requests arrived."""
    streams = in_order(log)
    truth = truth_of(streams)
    gap = "tbt" if "tbt" in reported else "tpot"
    row: dict[str, Any] = {"got": len(streams), "gap_metric": "each gap" if gap == "tbt" else "mean of a request"}
    for column, metric in (("ttft", "service_ttft"), ("gap", gap)):
        true = getattr(truth, metric)
        off = {q: abs(reported[metric][f"p{q}"] * 1e3 - quantile(true, q) / 1e3) for q in QUANTILES}
        row |= {f"{column}_p{q}_off_us": round(value, 1) for q, value in off.items()}
    gaps = np.diff([one.received_ns for one in streams]) / 1e9
    test = stats.kstest(gaps, "expon", args=(0, 1 / work.rate))
    late = np.concatenate([one.late_ns for one in streams])
    return row | {
        "ks_d": float(test.statistic),
        "ks_p": float(test.pvalue),
        "server_late_p99_us": quantile(late, 99) / 1e3,
    }


# ---- the table


def medians(rows: Sequence[dict[str, Any]], tool: str, work: str) -> dict[str, float]:
    """Of every number, over the rounds that succeeded."""
    good = [row for row in rows if row["tool"] == tool and row["work"] == work and not row["error"]]
    if not good:
        return {}
    numbers = [key for key, value in good[0].items() if isinstance(value, int | float)]
    return {key: float(np.median([row[key] for row in good])) for key in numbers}


def show(rows: Sequence[dict[str, Any]]) -> None:
    for work in dict.fromkeys(row["work"] for row in rows):
        cells = []
        for tool in dict.fromkeys(row["tool"] for row in rows):
            mine = [row for row in rows if row["tool"] == tool and row["work"] == work]
            m = medians(rows, tool, work)
            if not m:
                cells.append([tool, mine[0]["error"][:60], *[""] * 7])
                continue
            cells.append(
                [
                    tool,
                    "/".join(f"{m[f'ttft_p{q}_off_us']:,.0f}" for q in QUANTILES),
                    "/".join(f"{m[f'gap_p{q}_off_us']:,.0f}" for q in QUANTILES),
                    next(str(row["gap_metric"]) for row in mine if not row["error"]),
                    f"{m['cpu_s']:.1f}",
                    f"{m['rss_mb']:.0f}",
                    f"{m['start_and_report_s']:.1f}",
                    f"{m['ks_d']:.3f} ({m['ks_p']:.2f})",
                    f"{sum(bool(row['error']) for row in mine)} of {len(mine)}",
                ]
            )
        head = [
            "TTFT off us P50/P90/P99",
            "gap off us P50/P90/P99",
            "of",
            "CPU s",
            "RSS MB",
            "start+report s",
            "KS D (p)",
            "failed",
        ]
        print(f"\n{work}: medians of the rounds")
        print_table(["tool", *head], cells)


def holds(m: dict[str, float]) -> bool:
    """Whether the gaps that a tool reports are within the capacity benchmark's criterion."""
    return bool(m) and m["gap_p50_off_us"] <= EVEN.p50_us and m["gap_p99_off_us"] <= EVEN.p99_us


def capacity_targets(rows: Sequence[dict[str, Any]], fifth: Work, point: Point) -> list[Target]:
    """pdbench times CAPACITY events/s; a tool that does not hold a fifth of it carries less than a fifth. One that
    could not be run proves nothing."""
    ran = {name: m for name in FOREIGN if (m := medians(rows, name, fifth.name))}
    events = round(fifth.rate * TOKENS)
    return [
        Target(f"pdbench holds {CAPACITY:,} events/s, {EVEN.name}", 1, int(point.holds(EVEN)), "", at_most=False),
        *(Target(f"{name} holds {events:,} events/s, {EVEN.name}", 0, int(holds(m)), "") for name, m in ran.items()),
    ]


def targets_of(rows: Sequence[dict[str, Any]], light: Work) -> list[Target]:
    mine = medians(rows, "pdbench", light.name)
    others = [medians(rows, name, light.name) for name in FOREIGN]
    cheapest = min((m["cpu_s"] for m in others if m), default=float("nan"))
    return [
        Target(
            f"CPU of pdbench over that of the cheapest peer, {light.name}",
            1 / 3,
            mine.get("cpu_s", float("nan")) / cheapest,
            "times",
        ),
        Target(f"CPU of pdbench, {light.name}", 3.5, mine.get("cpu_s", float("nan")), "s"),
        Target("start and report of pdbench", 3.0, mine.get("start_and_report_s", float("nan")), "s"),
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=500, help="at the low rate; twice as many at the high one")
    parser.add_argument("--rates", type=float, nargs=2, default=[25.0, 100.0], metavar=("LOW", "HIGH"))
    parser.add_argument("--tools", nargs="+", choices=[tool.name for tool in TOOLS], default=[t.name for t in TOOLS])
    parser.add_argument("--reinstall", action="store_true")
    options = parser.parse_args()
    if options.reinstall:
        shutil.rmtree(PEERS, ignore_errors=True)
    missing = {name: why for name in FOREIGN if name in options.tools and (why := install(name))}
    for why in missing.values():
        print(why)
    tools = [tool for tool in TOOLS if tool.name in options.tools and tool.name not in missing]
    fifth = Work(CAPACITY / 5 / TOKENS, 2 * options.requests)
    works = [Work(options.rates[0], options.requests), Work(options.rates[1], 2 * options.requests), fifth]
    versions = [version(tool.name) for tool in tools if tool.name in FOREIGN]
    print(", ".join(versions))
    rows: list[dict[str, Any]] = []
    for seed in range(options.seed, options.seed + options.rounds):
        for work in works:
            # Nobody is always first.
            for tool in tools[seed % len(tools) :] + tools[: seed % len(tools)]:
                row = turn(tool, work, seed)
                rows.append(row)
    with scratch() as directory:
        asked = argparse.Namespace(streams=STREAMS, seconds=4.0, seed=options.seed)
        point = measure("kernel", CAPACITY, asked, directory)
    show(rows)
    targets = targets_of(rows, works[0]) + capacity_targets(rows, fifth, point)
    return tell("peers", options, targets, [*rows, document_of(point), {"versions": versions, "missing": missing}])


if __name__ == "__main__":
    sys.exit(main())
