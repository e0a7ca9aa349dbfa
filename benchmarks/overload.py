"""Does a run that cannot be trusted say so? The real ``pdbench run`` beside busy loops on its own core.

    python -m benchmarks.overload --json overload.json

Ten tries each: a quiet core (must be VALID), three busy loops of higher priority (must be INVALID, for a reason of
the client), one busy loop of equal priority (INVALID, or the P90s are within 1 ms of the server's own log; a VALID
with a wrong P90 is the one thing that must never be). The loops run from the first stream until the plan is over: start
and report are not what is judged.

Higher priority is nice -10 from the client's, which is nine times its weight. Where the kernel groups processes by
session (autogroup), nice counts inside a session only, so every loop has a session of its own and its group is made
nice as well. Without the permission, ten loops of equal priority stand for one. About eight minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import arguments, cores, scratch, tell
from benchmarks.common import table as print_table
from benchmarks.judge import Judged, Target, judge
from benchmarks.runs import call, command, load_only, streams_run, write_workload
from benchmarks.truth.server import TruthServer

HIGHER = -10
EQUAL_TO_ONE_HIGHER = 10
DRAIN_S = 5.0
RIGHT_US = 1_000
METRICS = ("service_ttft", "ttft", "tbt")
CLIENT_REASONS = ("left late", "stamped late", "dispatch", "lag", "cpu", "busy", "behind", "loop", "core", "client")


class Noise(NamedTuple):
    """Busy loops on the client's core."""

    name: str
    loops: int
    higher: bool


CASES = (
    Noise("quiet", 0, False),
    Noise("three loops of higher priority", 3, True),
    Noise("one loop of equal priority", 1, False),
)


def start_loop(core: int, raised: bool) -> subprocess.Popen[bytes]:
    """A busy loop in a session of its own, pinned. Raises PermissionError when it may not be raised."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    os.sched_setaffinity(loop.pid, {core})
    if not raised:
        return loop
    nice = max(os.getpriority(os.PRIO_PROCESS, 0) + HIGHER, -20)
    try:
        os.setpriority(os.PRIO_PROCESS, loop.pid, nice)
        group = Path(f"/proc/{loop.pid}/autogroup")
        if group.exists():
            group.write_text(str(HIGHER))
    except PermissionError:
        loop.kill()
        loop.wait()
        raise
    return loop


@contextmanager
def busy(noise: Noise, core: int) -> Iterator[None]:
    """Our own loops on one core; gone at the end whatever happens."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        try:
            for _ in range(noise.loops):
                loops.append(start_loop(core, noise.higher))  # noqa: PERF401 - what was started must be stopped
        except PermissionError:
            for _ in range(noise.loops * EQUAL_TO_ONE_HIGHER):
                loops.append(start_loop(core, False))  # noqa: PERF401
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def attempt(
    truth: TruthServer, noise: Noise, seed: int, options: argparse.Namespace, directory: Path
) -> dict[str, Any]:
    truth.clear()
    out = directory / "results"
    workload = write_workload(directory, rate=options.rate, requests=options.requests, tokens=options.tokens)
    words = command(truth.url, workload, out, seed=seed)

    def disturb(process: subprocess.Popen[str]) -> None:
        """From the first stream until the plan is over and drained: start and report are not what is judged."""
        if noise.loops and streams_run(process, truth):
            with busy(noise, cores()[0]):
                time.sleep(options.requests / options.rate + DRAIN_S)

    run = call(words, out, cores()[0], disturb)
    judged = judge(run.seen(), load_only(truth.log(), options.tokens)) if run.directory else None
    off = {name: round(judged.off_us(name, 90), 1) for name in METRICS} if judged else {}
    return {
        "noise": noise.name,
        "seed": seed,
        "status": run.status,
        "reasons": run.reasons,
        "p90_off_us": off,
        "wrong": run.valid and is_wrong(judged, options.requests),
        "stderr": "" if run.document else run.stderr[-2000:],
    }


def is_wrong(judged: Judged | None, requests: int) -> bool:
    """Whether a report says another P90 than the log, or a request that this server surely answers is not in it: such a
    run must not be VALID."""
    if judged is None or judged.missing or len(judged.dispatch_lag) < requests:
        return True
    return not all(judged.off_us(name, 90) <= RIGHT_US for name in METRICS)  # NaN is not right


def of_the_client(reasons: list[str]) -> bool:
    return any(word in reason.lower() for reason in reasons for word in CLIENT_REASONS)


def targets_of(rows: list[dict[str, Any]], tries: int) -> list[Target]:
    def count(name: str, status: str) -> int:
        return sum(row["noise"] == name and row["status"] == status for row in rows)

    quiet, three, one = (noise.name for noise in CASES)
    blamed = sum(row["noise"] == three and row["status"] == "INVALID" and of_the_client(row["reasons"]) for row in rows)
    wrong = sum(row["wrong"] for row in rows)
    return [
        Target(f"{quiet}: VALID", tries, count(quiet, "VALID"), f"of {tries}", at_most=False),
        Target(f"{three}: INVALID for a reason of the client", tries, blamed, f"of {tries}", at_most=False),
        Target(f"{one}: VALID or INVALID, not broken", tries, count(one, "VALID") + count(one, "INVALID"), "", False),
        Target("VALID with a P90 that is more than 1 ms off", 0, wrong, "runs"),
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with scratch() as directory, TruthServer(core=cores()[1]) as truth:
        for seed in range(options.seed, options.seed + options.tries):
            rows += [attempt(truth, noise, seed, options, directory) for noise in CASES]
    shown = [
        [
            f"{row['noise']}, seed {row['seed']}",
            row["status"],
            " ".join(f"{name} {value:,.0f}" for name, value in row["p90_off_us"].items()),
            "; ".join(row["reasons"])[:100],
        ]
        for row in sorted(rows, key=lambda row: str(row["noise"]))
    ]
    print_table(["beside", "status", "P90 off, us", "reasons"], shown)
    return tell("overload", options, targets_of(rows, options.tries), rows)


if __name__ == "__main__":
    sys.exit(main())
