"""Arms without servers: a stage whose runs come out as a law of rate and seed says, on a clock of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pdbench.errors import Interrupted
from pdbench.measure.records import to_frames
from pdbench.measure.slo import parse_objectives
from pdbench.run import RunResult
from pdbench.serverside import ServerSide
from pdbench.settings import Settings
from pdbench.target.backend import Backend
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.spec import Workload
from tests.unit.measure.helpers import request
from tests.unit.workload.helpers import workload

SLO = ["ttft p90 <= 400ms", "tpot p90 <= 40ms"]
Share = Callable[[float, int], float]


def chat(**changes: Any) -> Workload:
    """A workload at 2 req/s with an SLO, 40 requests a run."""
    return workload(**{"slo": SLO, "num_requests": 40, "warmup": 2, **changes})


def falls_at(rate: float, *, spread: float = 0.1) -> Share:
    """The share in time: 90 % at ``rate``, steeper with the rate; seeds shift it a little."""

    def share(offered: float, seed: int) -> float:
        x = math.log(offered / rate) + spread * math.sin(7 * seed + 1 + 5 * offered)
        return 1 / (1 + math.exp(8 * x - math.log(9)))

    return share


class Arm:
    """As ``target.arm.Arm``, as far as verbs look."""

    def __init__(self, name: str, devices: int = 2, kind: str = "cpu") -> None:
        self.name = name
        self.backend = Backend(name, "pdserve", Path(f"{name}.yaml"), {}, devices=devices)
        self.facts = SimpleNamespace(ignore_eos=True, max_model_len=4096, warnings=())
        self.kind = kind

    def fingerprint(self) -> dict[str, Any]:
        names = [f"{self.kind}:{i}" for i in range(self.backend.devices)]
        return {"engine": "pdserve", "devices": self.backend.devices, "device_names": names}


class FakeStage:
    """As ``pdbench.stage.Stage``. ``laws``: by arm's name, the share in time. ``invalid``: tells of (arm, rate, seed,
    how often it was tried) whether the client was late. ``stop_after``: runs after which the user interrupts."""

    def __init__(
        self,
        arms: Sequence[Arm],
        laws: dict[str, Share],
        load: Workload,
        *,
        invalid: Callable[[str, float, int, int], bool] = lambda *_: False,
        stop_after: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.arms, self.laws, self.workload, self.invalid, self.stop_after = arms, laws, load, invalid, stop_after
        self.settings = settings or Settings(drain_timeout_s=5.0)
        self.objectives = parse_objectives(load.slo)
        self.resident, self.nonce, self.run_dir = True, "nonce", Path("results/run")
        self.plans: dict[int, Plan] = {}
        self.draws: dict[int, tuple[float, int]] = {}
        self.results: list[RunResult] = []
        self.order: list[str] = []
        self.events: list[str] = []
        self.progress = SimpleNamespace(event=self.events.append, show=lambda view: None, close=lambda: None)
        self.now_s = 0.0
        self.stop = SimpleNamespace(requested=False)
        self.sealed: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.tried: dict[tuple[str, float, int], int] = {}

    def __enter__(self) -> FakeStage:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        self.now_s += 10

    def clock(self) -> float:
        return self.now_s

    def with_settings(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)

    def plan(self, pair: int, *, workload: Workload, number: int) -> Plan:
        assert number not in self.plans
        plan = replace(make_plan(workload, seed=self.settings.seed, pair=pair), pair=number)
        assert workload.arrivals.rate is not None
        self.plans[number], self.draws[number] = plan, (workload.arrivals.rate, pair)
        return plan

    def run(self, arm: Arm, plan: Plan, pair: int, *, workload: Workload) -> RunResult:
        if self.stop_after is not None and len(self.results) >= self.stop_after:
            self.stop.requested = True
            raise Interrupted("interrupted")
        rate, seed = self.draws[pair]
        assert (plan.pair, workload.arrivals.rate) == (pair, rate)
        key = (arm.name, rate, seed)
        self.tried[key] = self.tried.get(key, 0) + 1
        late = self.invalid(arm.name, rate, seed, self.tried[key])
        n = int((~plan.warmup).sum())
        good = round(n * self.laws[arm.name](rate, seed))
        first_ms = 100 if arm is self.arms[0] else 300
        records = [
            request(i, first_ms + 0.1 * i if i < good else 900, [10, 10], lag=300 if late else 0.1, user_lag_ns=[500])
            for i in range(n)
        ]
        self.now_s += float(plan.scheduled_ns[-1]) / 1e9 + 3
        requests, tokens = to_frames(records, arm.name, pair)
        result = RunResult(arm.name, pair, n, "complete", "kernel", requests, tokens, None, ServerSide(), False)
        self.results.append(result)
        self.order.append(arm.name)
        return result

    def of(self, arm: Arm) -> list[RunResult]:
        return [result for result in self.results if result.arm == arm.name]

    def fingerprint(self) -> dict[str, Any]:
        return {"machine": "x", "arms": {arm.name: {} for arm in self.arms}}

    def seal(self, manifest: dict[str, Any], document: dict[str, Any]) -> None:
        self.sealed = (manifest, document)
