"""Two workers must measure what one measures, offer exactly the plan, and be missed when one dies.

    python -m benchmarks.workers --json workers.json

The same plan by ``pdbench run`` alone and with ``--processes 2``, in turn, on the same truth server: merged P50, P90
and P99 within 1 % of each other; the requests of the two workers together are the plan, each once and at its instant.
Then one of two workers is killed mid-run: the run must come out INVALID, name it, and leave the rest on disk. About a
minute.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import arguments, cores, scratch, tell
from benchmarks.common import table as print_table
from benchmarks.judge import QUANTILES, Target
from benchmarks.runs import CliRun, call, command, load_only, streams_run, write_workload
from benchmarks.truth.server import TruthServer

METRICS = ("ttft_ms", "service_ttft_ms", "tbt_ms", "tpot_ms", "e2e_ms")


def run(truth: TruthServer, processes: int, options: argparse.Namespace, directory: Path, kill: bool = False) -> CliRun:
    truth.clear()
    out = directory / "results"
    workload = write_workload(directory, rate=options.rate, requests=options.requests, tokens=options.tokens)
    more = ["--processes", str(processes)] if processes > 1 else []
    words = command(truth.url, workload, out, *more, seed=options.seed)
    return call(words, out, None, (lambda process: kill_one(process, truth)) if kill else None)


def kill_one(process: subprocess.Popen[str], truth: TruthServer) -> None:
    """SIGKILL to one of the workers that this very run has started, once load is flowing."""
    if streams_run(process, truth):
        workers = [child for child in psutil.Process(process.pid).children() if "worker" in child.cmdline()]
        os.kill(workers[-1].pid, signal.SIGKILL)


def compare(one: CliRun, two: CliRun) -> list[tuple[str, float, float, float]]:
    """(metric, with one, with two, % between) of every percentile."""
    rows = []
    for metric in METRICS:
        for q in QUANTILES:
            a, b = one.arm[metric][f"p{q}"], two.arm[metric][f"p{q}"]
            rows.append((f"{metric} p{q}", a, b, abs(b / a - 1) * 100))
    return rows


def off_plan(found: CliRun) -> int:
    """Requests of the plan that were not offered once at their instant, and others that were."""
    plan, requests = found.plan(), found.requests()
    t0 = int(requests["scheduled_ns"].min()) - int(plan["scheduled_ns"].min())
    wanted = sorted(enumerate(int(at) for at in plan["scheduled_ns"]))
    had = sorted((int(i), int(at) - t0) for i, at in zip(requests["index"], requests["scheduled_ns"], strict=True))
    return len(set(wanted) ^ set(had)) + abs(len(had) - len(set(had)))


def names_the_lost(reasons: Sequence[str], workers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one reason names every worker that was lost, and one was."""
    lost = [str(worker["name"]) for worker in workers if worker.get("lost")]
    said = [reason.partition("lost during the run: ")[2] for reason in reasons]
    return bool(lost) and any(all(name in names for name in lost) for names in said)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with scratch() as directory, TruthServer(core=cores()[1]) as truth:
        one = run(truth, 1, options, directory)
        two = run(truth, 2, options, directory)
        served = load_only(truth.log(), options.tokens)
        lost = run(truth, 2, options, directory, kill=True)
        compared = compare(one, two)
        print_table(
            ["percentile", "one", "two", "%"], [[n, f"{a:.3f}", f"{b:.3f}", f"{d:.2f}"] for n, a, b, d in compared]
        )
        rows += [{"metric": n, "one": a, "two": b, "percent": round(d, 3)} for n, a, b, d in compared]
        on_disk = len(lost.requests()) if lost.directory else 0
        named = names_the_lost(lost.reasons, lost.arm.get("workers", []))
        rows.append({"killed": lost.status, "reasons": lost.reasons, "on_disk": on_disk, "stderr": lost.stderr[-2000:]})
        print("\nafter a worker was killed:", lost.status, *lost.reasons, sep="\n  ")
        targets = [
            Target("largest difference of a percentile", 1.0, max(d for *_, d in compared), "%"),
            Target("requests off the plan", 0, off_plan(two), "requests"),
            Target("requests the server got", options.requests, len(served), "requests", at_most=False),
            Target("worker killed: INVALID", 1, lost.status == "INVALID", "", at_most=False),
            Target("worker killed: named in a reason", 1, named, "", at_most=False),
            Target("worker killed: requests on disk", options.requests * 0.25, on_disk, "requests", at_most=False),
        ]
    return tell("workers", options, targets, rows)


if __name__ == "__main__":
    sys.exit(main())
