"""Do requests arrive as the plan's law says? Judged by when the server got them.

    python -m benchmarks.arrivals --json arrivals.json

Ten seeds of Poisson arrivals: the gaps between the server's receive instants against the exponential law, by a
Kolmogorov-Smirnov test a seed, Bonferroni-corrected at 5 %. Ten seeds of gamma arrivals: the burstiness estimated from
the pooled gaps, as (mean / standard deviation) squared, must come back within 5 %; with 20,000 gaps of burstiness 0.5
its standard error is 1.7 %. About two minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.common import arguments, cores, drive, make_job, scratch, tell
from benchmarks.common import table as print_table
from benchmarks.judge import Target
from benchmarks.truth.server import TruthServer, in_order
from pdbench.workload.arrivals import unit_gaps

LEVEL = 0.05


def due_ns(process: str, n: int, rate: float, seed: int, burstiness: float | None = None) -> list[int]:
    """Due instants by pdbench's own laws, offsets from the start."""
    uniforms = np.random.Generator(np.random.PCG64(seed)).random(n)
    gaps = unit_gaps(process, uniforms, burstiness) / rate
    return [int(at) for at in np.cumsum(np.rint(gaps * 1e6)) * 1000]


def received_gaps_s(truth: TruthServer, due: list[int], name: str, directory: Path) -> npt.NDArray[np.float64]:
    truth.clear()
    job = make_job(truth.url, due, tokens=1, journal=directory / "journal", run_id=name, prompt=16)
    drive("kernel", job, cores()[0])
    return np.diff([one.received_ns for one in in_order(truth.log())]) / 1e9


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=1000, help="a seed of Poisson arrivals")
    parser.add_argument("--rate", type=float, default=200.0, help="of Poisson arrivals, req/s")
    parser.add_argument("--burst-requests", type=int, default=2000, help="a seed of gamma arrivals")
    parser.add_argument("--burst-rate", type=float, default=400.0)
    parser.add_argument("--burstiness", type=float, default=0.5)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with scratch() as directory, TruthServer(ttft_us=1_000, core=cores()[1]) as truth:
        targets = poisson(truth, options, directory, rows)
        targets += bursts(truth, options, directory, rows)
    return tell("arrivals", options, targets, rows)


def poisson(
    truth: TruthServer, options: argparse.Namespace, directory: Path, rows: list[dict[str, Any]]
) -> list[Target]:
    for seed in range(options.seed, options.seed + options.seeds):
        due = due_ns("poisson", options.requests, options.rate, seed)
        gaps = received_gaps_s(truth, due, f"poisson-{seed}", directory)
        test = stats.kstest(gaps, "expon", args=(0, 1 / options.rate))
        rows.append({"seed": seed, "gaps": len(gaps), "d": float(test.statistic), "p": float(test.pvalue)})
    print_table(
        ["seed", "gaps", "KS D", "p"],
        [[f"{r['seed']}", f"{r['gaps']}", f"{r['d']:.4f}", f"{r['p']:.3f}"] for r in rows],
    )
    needed = LEVEL / options.seeds
    name = f"Poisson as received: lowest p of {options.seeds} seeds, n = {rows[0]['gaps']} gaps each"
    short = sum(row["gaps"] != options.requests - 1 for row in rows)
    return [
        Target(name, needed, min(row["p"] for row in rows), "(Bonferroni at 5 %)", at_most=False),
        Target("Poisson: seeds of which requests were lost", 0, short, "seeds"),
    ]


def bursts(
    truth: TruthServer, options: argparse.Namespace, directory: Path, rows: list[dict[str, Any]]
) -> list[Target]:
    pooled = []
    for seed in range(options.seed, options.seed + options.seeds):
        due = due_ns("gamma", options.burst_requests, options.burst_rate, seed, options.burstiness)
        pooled.append(received_gaps_s(truth, due, f"gamma-{seed}", directory))
    gaps = np.concatenate(pooled)
    shape = float((gaps.mean() / gaps.std()) ** 2)
    off = abs(shape / options.burstiness - 1) * 100
    rows.append({"burstiness": options.burstiness, "recovered": round(shape, 4), "gaps": len(gaps)})
    name = f"burstiness {options.burstiness:g} as received: {shape:.4f}, n = {len(gaps)} gaps"
    return [Target(name, 5.0, off, "% off")]


if __name__ == "__main__":
    sys.exit(main())
