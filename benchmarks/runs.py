"""The real ``pdbench run --base-url``, as a user types it, and what it wrote down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from benchmarks.common import ROOT, pinned
from benchmarks.judge import Seen
from benchmarks.truth.server import Served, TruthServer

LIMIT_S = 300
SETTLED = 3
SLO = ("ttft p90 <= 100ms", "tbt p90 <= 40ms")


@dataclass(frozen=True, slots=True)
class CliRun:
    """One finished call. ``document``: of ``--json``; empty when it printed none."""

    code: int
    document: dict[str, Any]
    directory: Path | None
    wall_s: float
    stderr: str

    @property
    def valid(self) -> bool:
        return self.status == "VALID"

    @property
    def status(self) -> str:
        return str(self.document.get("validity", {}).get("status", f"exit code {self.code}"))

    @property
    def reasons(self) -> list[str]:
        return [str(reason["message"]) for reason in self.document.get("validity", {}).get("reasons", [])]

    @property
    def arm(self) -> dict[str, Any]:
        arms = self.document.get("arms") or {}
        return dict(next(iter(arms.values()), {}))

    def requests(self) -> pd.DataFrame:
        return self._table("requests")

    def plan(self) -> pd.DataFrame:
        return self._table("plan")

    def _table(self, name: str) -> pd.DataFrame:
        if self.directory is None:
            raise SystemExit(f"the run left nothing: {self.stderr}")
        return pd.read_parquet(self.directory / f"{name}.parquet")

    def seen(self) -> list[Seen]:
        """Its finished requests as the judge wants them."""
        tokens = self._table("tokens").groupby("index", sort=False)
        stamps: dict[Any, list[int]] = {index: group["t_ns"].tolist() for index, group in tokens}
        counts: dict[Any, list[int]] = {index: group["n_tokens"].tolist() for index, group in tokens}
        done = self.requests().query("status == 'ok'")
        return [
            Seen(
                str(row["request_id"]),
                int(row["scheduled_ns"]),
                int(row["sent_ns"]),
                stamps[row["index"]],
                counts[row["index"]],
            )
            for row in done.to_dict("records")
        ]


def write_workload(
    directory: Path, *, rate: float, requests: int, tokens: int, prompt: int = 64, slo: Sequence[str] = SLO
) -> Path:
    path = directory / "workload.yaml"
    path.write_text(
        f"name: truth\narrivals: {{process: poisson, rate: {rate:g}}}\n"
        f"prompt_tokens: {{distribution: fixed, value: {prompt}}}\n"
        f"output_tokens: {{distribution: fixed, value: {tokens}}}\n"
        f"num_requests: {requests}\nwarmup: 0\nslo: {json.dumps(list(slo))}\n"
    )
    return path


def command(url: str, workload: Path, out: Path, *more: str, seed: int = 0) -> list[str]:
    """Without ``report.html``: no peer draws a page, and nobody reads these."""
    words = [sys.executable, "-m", "pdbench", "run", "--base-url", url, "--workload", str(workload), "--no-report"]
    return [*words, "--seed", str(seed), "--json", "-q", "-o", str(out), *more]


def call(
    words: Sequence[str], out: Path, core: int | None, meanwhile: Callable[[subprocess.Popen[str]], None] | None = None
) -> CliRun:
    """Run it on one core (None: wherever), with all its children. ``meanwhile``: called once it has started."""
    before = set(out.glob("*")) if out.exists() else set()
    started = time.monotonic()
    with pinned(core) if core is not None else nullcontext():
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"},
        )
    if meanwhile is not None:
        meanwhile(process)
    try:
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
    made = sorted(set(out.glob("*")) - before)
    document = json.loads(stdout) if stdout.strip().startswith("{") else {}
    return CliRun(process.returncode, document, made[-1] if made else None, time.monotonic() - started, stderr)


def streams_run(process: subprocess.Popen[str], truth: TruthServer) -> bool:
    """Waits until the load flows; False when the run ended or a minute passed before. A server with open streams
    refuses to clear its log: several refusals in a row are more than the one short stream that a run first asks for."""
    limit, refused = time.monotonic() + 60, 0
    while refused < SETTLED:
        if process.poll() is not None or time.monotonic() > limit:
            return False
        try:
            truth.clear()
            refused = 0
        except requests.HTTPError:
            refused += 1
        time.sleep(0.1)
    return True


def load_only(log: dict[str, Served], tokens: int) -> dict[str, Served]:
    """The log without the few short streams by which a client first asks what a server can do."""
    return {name: one for name, one in log.items() if one.max_tokens == tokens}
