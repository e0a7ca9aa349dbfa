"""How long does the page of a large run take, and how big is it?

    python -m benchmarks.report

A run of 100,000 requests with 64 tokens each, two arms of 50,000, is made up with numpy (a law of latencies, no
measurement), written as any run is, with the server's own stamps, and rendered by the command that a user types. Under
5 s of CPU and under 5 MB, else it exits with 1: on a busy machine the clock on the wall tells more of the others, so
it is printed and not judged. Making the run takes longer than rendering it: about a minute in all.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.common import scratch
from pdbench.measure.metrics import summarise
from pdbench.measure.slo import parse_objectives
from pdbench.store import RunStore

SECONDS, BYTES = 5.0, 5_000_000
SLO = ["ttft p90 <= 400ms", "tpot p90 <= 40ms", "tbt p90 <= 40ms", "worst_gap p90 <= 100ms"]
_GAP_NS, _PREFILL_NS = 20_000_000, 90_000_000
Ints = npt.NDArray[np.int64]


def stamps(requests: int, tokens: int, rate: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """(due instants, token instants of shape requests x tokens), ns; one gap in fifty is a stall."""
    due = np.cumsum(rng.exponential(1e9 / rate, requests)).astype(np.int64)
    first = due + (rng.lognormal(np.log(120e6), 0.6, requests)).astype(np.int64)
    gaps = rng.lognormal(np.log(_GAP_NS), 0.15, (requests, tokens - 1))
    gaps += np.where(rng.random(gaps.shape) < 0.02, rng.exponential(60e6, gaps.shape), 0.0)
    later = first[:, None] + np.cumsum(gaps.astype(np.int64), axis=1)
    return due, np.concatenate([first[:, None], later], axis=1)


def frames(arm: str, due: Ints, at: Ints) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As ``measure.records.to_frames`` makes them, without a million records in between."""
    n, m = at.shape
    names = pd.array([f"bench-{arm}-{i}" for i in range(n)], dtype="str")
    ints = dict.fromkeys(
        ("reads", "max_events_per_read", "merged_events", "worst_gap_lag_ns", "write_ns"), np.zeros(n, np.int64)
    )
    texts = {name: pd.array([""] * n, dtype="str") for name in ("error", "note")}
    whole = {
        "sent_ns": due,
        "end_ns": at[:, -1],
        "http_status": np.full(n, 200),
        "prompt_tokens": np.full(n, 512),
        "output_tokens": np.full(n, m),
    }
    requests = pd.DataFrame(
        {
            "arm": pd.array([arm] * n, dtype="str"),
            "pair": np.zeros(n, np.int64),
            "index": np.arange(n),
            "scheduled_ns": due,
            "planned_prompt_tokens": np.full(n, 512),
            "planned_output_tokens": np.full(n, m),
            **ints,
            **{name: pd.array(values, dtype="Int64") for name, values in whole.items()},
            "status": pd.array(["ok"] * n, dtype="str"),
            **texts,
            "token_source": pd.array(["continuous_usage"] * n, dtype="str"),
            "request_id": names,
            "chunks": np.full(n, m),
            "warmup": np.zeros(n, bool),
            "user_lag_ns": [[] for _ in range(n)],
        }
    )
    tokens = pd.DataFrame(
        {
            "arm": pd.array(np.full(n * m, arm, dtype=object), dtype="str"),
            "pair": np.zeros(n * m, np.int64),
            "index": np.repeat(np.arange(n), m),
            "t_ns": at.ravel(),
            "n_tokens": np.ones(n * m, np.int64),
        }
    )
    return requests, tokens


def server(arm: str, due: Ints, at: Ints) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lifecycles, and steps: a prefill a request, decode steps of 64 gaps between."""
    lifecycles = [
        {
            "request_id": f"bench-{arm}-{i}",
            "status": "ok",
            "arrive_ns": int(due[i]) + 300_000,
            "prefill_start_ns": int(at[i, 0]) - _PREFILL_NS,
            "prefill_end_ns": int(at[i, 0]) - 100_000,
            "decode_admit_ns": int(at[i, 0]),
            "end_ns": int(at[i, -1]),
            "prompt_tokens": 512,
            "output_tokens": at.shape[1],
            "prefill_worker": i % 2,
            "decode_worker": i % 2,
            "kv_bytes": 2 << 20,
            "token_ns": at[i].tolist(),
        }
        for i in range(len(due))
    ]
    steps = [
        {
            "worker": i % 2,
            "device": f"gpu:{i % 2}",
            "start_ns": int(at[i, 0]) - _PREFILL_NS,
            "end_ns": int(at[i, 0]) - 100_000,
            "prefill_tokens": 512,
            "decode_tokens": 8,
            "sequences": 9,
            "context_tokens": 4096,
        }
        for i in range(len(due))
    ]
    return lifecycles, steps


def make_run(path: Path, requests: int, tokens: int) -> None:
    """Two arms, half the requests each."""
    rng = np.random.default_rng(1)
    store, arms = RunStore(path), {}
    for number, arm in enumerate(("colocated", "disaggregated")):
        due, at = stamps(requests // 2, tokens, 100.0 + 5 * number, rng)
        tables = frames(arm, due, at)
        store.append_run(*tables)
        store.write_server(*server(arm, due, at), arm=arm)
        arms[arm] = summarise(*tables, parse_objectives(SLO), 2, simulated=True)
    document = {
        "schema_version": 1,
        "kind": "compare",
        "run": path.name,
        "slo": SLO,
        "pairs": 1,
        "simulated": True,
        "fingerprint": {},
        "workload": {
            "name": "made up",
            "arrivals": {"process": "poisson", "rate": 100.0},
            "num_requests": requests // 2,
            "warmup": 0,
        },
        "validity": {"status": "VALID", "reasons": []},
        "arms": arms,
        "comparisons": [],
        "sentence": f"{requests:,} requests that were never made: this page is about the page.",
    }
    store.seal(
        {"kind": "compare", "run": path.name, "argv": ["pdbench", "compare"], "config": {"base": "colocated"}}, document
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the run there and leave it")
    options = parser.parse_args()
    with scratch() as directory:
        path = (options.keep or directory) / "20260101T000000Z-made-up-0000000"
        make_run(path, options.requests, options.tokens)
        page = path / "report.html"
        took, cpu = timed([sys.executable, "-m", "pdbench", "report", str(path), "--format", "html"])
        size = page.stat().st_size
    text, kept = judged(cpu, took, size)
    print(f"report.html of {options.requests:,} requests x {options.tokens} tokens: {text}")
    return 0 if kept else 1


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds on the wall, and of CPU, that a command took. Raises ``CalledProcessError`` where it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def judged(cpu: float, took: float, size: int) -> tuple[str, bool]:
    """The outcome in words, and whether it is kept; the time on the wall is told, not judged."""
    kept = cpu < SECONDS and size < BYTES
    text = f"{cpu:.2f} s of CPU (under {SECONDS:g}; {took:.2f} s on the wall), {size / 1e6:.2f} MB"
    return f"{text} (under {BYTES / 1e6:g}): {'kept' if kept else 'MISSED'}", kept


if __name__ == "__main__":
    sys.exit(main())
