"""Does a run that cannot be trusted say so? The real ``pdbench run`` beside busy loops on its own core.

    python -m benchmarks.overload --json overload.json

Ten tries each: a quiet core (must be VALID), three busy loops of higher priority (must be INVALID, for a reason of
the client), one busy loop of equal priority (INVALID, or the P90s are within 1 ms of the server's own log; a VALID
with a wrong P90 is the one thing that must never be). Higher priority is nice -10; where that is not permitted the
client runs at nice 10 instead. About five minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import arguments, cores, scratch, tell
from benchmarks.common import table as print_table
from benchmarks.judge import Judged, Target, judge
from benchmarks.runs import call, command, load_only, write_workload
from benchmarks.truth.server import TruthServer

HIGHER, LOWER = -10, 10
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


def may_raise() -> bool:
    """Whether this process may give a child higher priority."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        try:
            os.setpriority(os.PRIO_PROCESS, child.pid, HIGHER)
        except PermissionError:
            return False
    return True


@contextmanager
def busy(noise: Noise, core: int, raised: bool) -> Iterator[None]:
    """Our own loops, on one core; gone at the end whatever happens."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(noise.loops)]
    try:
        for loop in loops:
            os.sched_setaffinity(loop.pid, {core})
            if noise.higher and raised:
                os.setpriority(os.PRIO_PROCESS, loop.pid, HIGHER)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def attempt(
    truth: TruthServer, noise: Noise, seed: int, raised: bool, options: argparse.Namespace, directory: Path
) -> dict[str, Any]:
    truth.clear()
    out = directory / "results"
    workload = write_workload(directory, rate=options.rate, requests=options.requests, tokens=options.tokens)
    words = command(truth.url, workload, out, seed=seed)
    if noise.higher and not raised:
        words = ["nice", "-n", str(LOWER), *words]
    with busy(noise, cores()[0], raised):
        run = call(words, out, cores()[0])
    judged = judge(run.seen(), load_only(truth.log(), options.tokens)) if run.directory else None
    off = {name: round(judged.off_us(name, 90), 1) for name in METRICS} if judged else {}
    return {
        "noise": noise.name,
        "seed": seed,
        "status": run.status,
        "reasons": run.reasons,
        "p90_off_us": off,
        "wrong": run.valid and is_wrong(judged),
        "stderr": "" if run.document else run.stderr[-2000:],
    }


def is_wrong(judged: Judged | None) -> bool:
    """Whether a report says another P90 than the log: such a run must not be VALID."""
    return judged is None or bool(judged.missing) or any(judged.off_us(name, 90) > RIGHT_US for name in METRICS)


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
    raised = may_raise()
    rows: list[dict[str, Any]] = []
    with scratch() as directory, TruthServer(core=cores()[1]) as truth:
        for seed in range(options.seed, options.seed + options.tries):
            rows += [attempt(truth, noise, seed, raised, options, directory) for noise in CASES]
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
