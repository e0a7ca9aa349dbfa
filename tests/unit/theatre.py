"""A real stage with servers that are played: plans, stores and documents are real, latencies are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdbench.live import ArmView
from pdbench.measure.records import RequestRecord, to_frames
from pdbench.run import RunContext, RunResult
from pdbench.serverside import ServerSide
from pdbench.settings import Settings
from pdbench.target.arm import Arm
from pdbench.target.backend import Backend, url_backend
from pdbench.target.inspect import Facts
from pdbench.workload.plan import Plan
from pdbench.workload.spec import Workload
from tests.unit.workload.helpers import workload

MS = 1_000_000
SLO = ["ttft p90 <= 100ms", "worst_gap p90 <= 50ms"]
Ttft = Callable[[str, int, np.random.Generator], float]


class Notes:
    """Progress, kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def event(self, text: str) -> None:
        self.lines.append(text)

    def show(self, view: ArmView) -> None:
        del view

    def close(self) -> None: ...


class Theatre:
    """``ttft[arm]``: its mean in ms; a pair's own luck moves every arm alike, its noise does not."""

    def __init__(self, ttft: dict[str, float], *, noise: float = 0.02, gap: dict[str, float] | None = None) -> None:
        self.ttft, self.noise, self.gap = ttft, noise, gap or {}
        self.played: list[tuple[str, int]] = []
        self.status: Any = "complete"
        self.facts: dict[str, Facts] = {}

    def backends(self) -> list[Backend]:
        return [url_backend(name, f"http://127.0.0.1:{9000 + n}") for n, name in enumerate(self.ttft)]

    def run_plan(self, arm: Arm, plan: Plan, pair: int, ctx: RunContext) -> RunResult:
        del ctx
        self.played.append((arm.name, pair))
        luck = np.random.Generator(np.random.PCG64([7, pair]))
        own = np.random.Generator(np.random.PCG64([sum(map(ord, arm.name)), pair]))
        mean = self.ttft[arm.name] * np.exp(0.1 * luck.normal() + self.noise * own.normal())
        spread = np.exp(0.3 * luck.normal(size=len(plan)))
        records = [
            self._record(plan, i, float(mean * spread[i]), self.gap.get(arm.name, 10.0)) for i in range(len(plan))
        ]
        requests, tokens = to_frames(records, arm.name, pair)
        scheduled = int((~plan.warmup).sum())
        return RunResult(arm.name, pair, scheduled, self.status, "kernel", requests, tokens, None, ServerSide(), False)

    def _record(self, plan: Plan, index: int, ttft_ms: float, gap_ms: float) -> RequestRecord:
        due = int(plan.scheduled_ns[index]) + 1000 * MS
        stamps = [due + round((ttft_ms + k * gap_ms) * MS) for k in range(4)]
        return RequestRecord(
            index=index, scheduled_ns=due, sent_ns=due, end_ns=stamps[-1], status="ok",
            warmup=bool(plan.warmup[index]), planned_prompt_tokens=int(plan.prompt_tokens[index]),
            planned_output_tokens=4, prompt_tokens=int(plan.prompt_tokens[index]), output_tokens=4, chunk_ns=stamps,
            chunk_tokens=[1] * 4, reads=4,
        )  # fmt: skip


def facts(**changes: Any) -> Facts:
    known: dict[str, Any] = {
        "model": "played", "max_model_len": 4096, "words_per_token": 1.0, "overhead_tokens": 0,
        "prompt_token_source": "played", "ignore_eos": True, "continuous_usage": True,
    }  # fmt: skip
    return Facts(**known | changes)


def open_theatre(monkeypatch: pytest.MonkeyPatch, theatre: Theatre) -> None:
    """Let the theatre play in place of servers and load."""

    def finish_start(arm: Arm, should_stop: Any) -> None:
        del should_stop
        arm.facts = theatre.facts.get(arm.name, facts())

    monkeypatch.setattr(Arm, "begin_start", lambda arm: None)
    monkeypatch.setattr(Arm, "finish_start", finish_start)
    monkeypatch.setattr(Arm, "ensure", lambda arm, should_stop: False)
    monkeypatch.setattr(Arm, "stop", lambda arm: None)
    monkeypatch.setattr("pdbench.stage.run_plan", theatre.run_plan)
    monkeypatch.setattr("pdbench.saturation.run_plan", theatre.run_plan)


def load(**changes: Any) -> Workload:
    known: dict[str, Any] = {"num_requests": 40, "warmup": 2, "slo": SLO}
    return workload(**known | changes)


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(out_dir=folder, **{"pairs": 3, **changes})
