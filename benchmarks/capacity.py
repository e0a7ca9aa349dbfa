"""How many events a second can one client core time, and how well? And what do 2,000 open streams cost in memory?

    python -m benchmarks.capacity --json capacity.json

256 streams write 15,000 to 100,000 events/s in all (about 250 bytes each); at each rate pdbench by kernel stamps,
pdbench by the user clock and a plain aiohttp client take a turn. A client holds a rate when it saw every event, its
receive error stays within the criterion, and the server really wrote at that rate (by its log, while all streams ran:
what was only asked for is credited to nobody); "at equal accuracy" compares the highest rates that two clients hold
under the same criterion. A client that is hopelessly behind sits out the higher rates. About four minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import (
    CLIENTS,
    ClientName,
    ClientRun,
    arguments,
    cores,
    drive,
    make_job,
    poisson_ns,
    scratch,
    tell,
    triple,
)
from benchmarks.common import table as print_table
from benchmarks.judge import Judged, Target, judge, quantile
from benchmarks.truth.server import Served, TruthServer

RATES = (2_500, 5_000, 10_000, 15_000, 20_000, 30_000, 45_000, 60_000, 80_000, 100_000)
HOPELESS_US = 20_000
ACHIEVED = 0.95  # of a rate, to be called by it
OPENING_PER_S = 512
CROWD, CROWD_GAP_US, CROWD_TOKENS, CROWD_OPENING_PER_S = 2_000, 100_000, 60, 1_000


class Criterion(NamedTuple):
    """Limits of |receive stamp - write|, microseconds."""

    name: str
    p50_us: float
    p99_us: float


SHARP = Criterion("P99 within 0.1 ms", 100, 100)
EVEN = Criterion("P50 within 0.1 ms and P99 within 2 ms", 100, 2_000)


class Point(NamedTuple):
    """One client at one rate."""

    client: ClientName
    rate: int
    run: ClientRun
    judged: Judged
    cpu_us: float
    achieved: float

    def holds(self, criterion: Criterion) -> bool:
        error = np.abs(self.judged.stamp)
        whole = not self.judged.missing and not self.run.failed and self.achieved >= ACHIEVED * self.rate
        return whole and quantile(error, 50) <= criterion.p50_us * 1e3 and quantile(error, 99) <= criterion.p99_us * 1e3


def all_running(log: Sequence[Served]) -> tuple[int, int]:
    """From the last stream's first event to the first stream's last one, ns; (0, 0) when they never ran together."""
    whole = [one for one in log if len(one.before_ns)]
    start, end = (
        max((int(one.before_ns[0]) for one in whole), default=0),
        min((int(one.before_ns[-1]) for one in whole), default=0),
    )
    return (start, end) if end > start else (0, 0)


def events_between(log: Sequence[Served], start_ns: int, end_ns: int) -> int:
    return sum(int(((one.before_ns >= start_ns) & (one.before_ns < end_ns)).sum()) for one in log)


def achieved_rate(log: Sequence[Served]) -> float:
    """Events/s that the server really wrote while all streams ran; NaN when they never did."""
    start, end = all_running(log)
    return events_between(log, start, end) / (end - start) * 1e9 if end > start else float("nan")


def cpu_us_per_event(run: ClientRun, log: Sequence[Served]) -> float:
    """Of the client's process while all streams ran; NaN when that was too short to sample."""
    window = run.usage.cpu_between(*all_running(log))
    if window is None:
        return float("nan")
    first, last, cpu = window
    events = events_between(log, first, last)
    return cpu / events * 1e6 if events else float("nan")


def measure(client: ClientName, rate: int, options: argparse.Namespace, directory: Path) -> Point:
    gap_us = max(round(options.streams / rate * 1e6), 1)
    due = poisson_ns(options.streams, OPENING_PER_S, options.seed)
    with TruthServer(ttft_us=50_000, gap_us=gap_us, core=cores()[1]) as truth:
        job = make_job(
            truth.url,
            due,
            tokens=max(round(rate * options.seconds / options.streams), 2),
            journal=directory / "journal",
            clock="auto" if client == "aiohttp" else client,
            run_id=f"{rate}-{client}",
        )
        run = drive(client, job, cores()[0])
        log = truth.log()
    served = list(log.values())
    return Point(client, rate, run, judge(run.seen, log), cpu_us_per_event(run, served), achieved_rate(served))


def highest(points: Sequence[Point], client: ClientName, criterion: Criterion) -> int:
    """The highest rate below the first one that the client does not hold; 0 when it holds none."""
    best = 0
    for point in sorted((p for p in points if p.client == client), key=lambda p: p.rate):
        if not point.holds(criterion):
            break
        best = point.rate
    return best


def highest_ever(points: Sequence[Point], client: ClientName, criterion: Criterion) -> int:
    """The highest rate that the client holds, whatever it missed below: a peer gets the benefit of the doubt."""
    return max((p.rate for p in points if p.client == client and p.holds(criterion)), default=0)


def crowd(directory: Path) -> tuple[ClientRun, int]:
    """2,000 streams at once: the run, and how many really were open together."""
    due = [round(i * 1e9 / CROWD_OPENING_PER_S) for i in range(CROWD)]
    with TruthServer(ttft_us=50_000, gap_us=CROWD_GAP_US, core=cores()[1]) as truth:
        job = make_job(truth.url, due, tokens=CROWD_TOKENS, journal=directory / "journal", run_id="crowd")
        run = drive("kernel", job, cores()[0])
        log = [one for one in truth.log().values() if len(one.before_ns)]
    starts = np.sort([one.received_ns for one in log])
    ends = np.sort([one.before_ns[-1] for one in log])
    open_at = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts)
    return run, int(open_at.max()) if len(open_at) else 0


def peak_rss_mb(run: ClientRun) -> float:
    """By the engine's own account, which it gives at its end: a sampler from outside may have missed it all."""
    peak = run.outcome.facts.peak_rss_bytes if run.outcome is not None and run.outcome.facts is not None else 0
    return peak / 1e6 if peak else float("nan")


def document_of(point: Point) -> dict[str, Any]:
    return {
        "client": point.client,
        "rate": point.rate,
        "achieved": None if np.isnan(point.achieved) else round(point.achieved),
        "failed": point.run.failed,
        "cpu_us_per_event": None if np.isnan(point.cpu_us) else round(point.cpu_us, 2),
        "rss_mb": round(point.run.usage.rss / 1e6, 1),
        "holds": [c.name for c in (SHARP, EVEN) if point.holds(c)],
        **point.judged.table(),
    }


def show(points: Sequence[Point]) -> None:
    head = [
        "client",
        "events/s",
        "achieved",
        "receive error P50/P90/P99 us",
        "server late",
        "CPU us/event",
        "RSS MB",
        "missing",
    ]
    rows = [document_of(point) for point in points]
    cells = [
        [
            row["client"],
            f"{row['rate']:,}",
            f"{row['achieved'] or 0:,}",
            triple(row["stamp_error_us"]),
            triple(row["server_late_us"]),
            f"{row['cpu_us_per_event'] or float('nan'):.1f}",
            f"{row['rss_mb']:.0f}",
            str(row["missing"] + row["failed"]),
        ]
        for row in rows
    ]
    print_table(head, cells)


def targets_of(points: Sequence[Point]) -> list[Target]:
    user = {p.rate: quantile(np.abs(p.judged.stamp), 50) / 1e3 for p in points if p.client == "user"}
    found = [Target("kernel stamps hold, " + SHARP.name, 60_000, highest(points, "kernel", SHARP), "events/s", False)]
    found.append(Target("user clock P50 at 60,000 events/s", 100, user.get(60_000, float("nan")), "us"))
    plain = highest_ever(points, "aiohttp", EVEN)
    lowest = min((p.rate for p in points if p.client == "aiohttp"), default=1)
    for client in ("kernel", "user"):
        ratio = highest(points, client, EVEN) / (plain or lowest)
        least = "" if plain else " (which held none: against the lowest rate tried)"
        name = f"pdbench ({client}) over plain aiohttp{least}, highest rates with {EVEN.name}"
        found.append(Target(name, 2.0, ratio, "times", at_most=False))
    return found


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES))
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0, help="of streaming at each rate")
    parser.add_argument("--no-crowd", action="store_true", help="leave the 2,000 streams out")
    options = parser.parse_args()
    points: list[Point] = []
    hopeless: set[ClientName] = set()
    with scratch() as directory:
        for rate in sorted(options.rates):
            for client in options.clients:
                if client in hopeless:
                    continue
                point = measure(client, rate, options, directory)
                points.append(point)
                if not point.judged.events or quantile(np.abs(point.judged.stamp), 50) > HOPELESS_US * 1e3:
                    hopeless.add(client)
        show(points)
        targets = targets_of(points)
        rows = [document_of(point) for point in points]
        if not options.no_crowd:
            run, together = crowd(directory)
            rss_mb = peak_rss_mb(run)
            rows.append({"client": "kernel", "crowd": together, "failed": run.failed, "rss_mb": rss_mb})
            targets.append(Target(f"{CROWD:,} streams: open together", CROWD, together, "streams", at_most=False))
            targets.append(Target(f"{CROWD:,} streams: peak RSS of the engine", 150, rss_mb, "MB"))
            targets.append(Target(f"{CROWD:,} streams: failed", 0, run.failed, "streams"))
    return tell("capacity", options, targets, rows)


if __name__ == "__main__":
    sys.exit(main())
