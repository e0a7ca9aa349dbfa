"""A run that is played: a form that came to something, a load that brings what a test says, a verb that only waits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdbench.load.lag import LagSummary
from pdbench.load.outcome import Edit, LoadOutcome, LocustView
from pdbench.settings import Settings
from pdbench.target.backend import url_backend
from pdbench.web.fields import Asked
from tests.unit.load.test_fleet_parts import job
from tests.unit.test_livestate import delta, done
from tests.unit.workload.helpers import workload

SLO = ["ttft p90 <= 100ms", "tbt p90 <= 20ms"]
BAD = "<script>alert(1)</script>"


def asked(*names: str, rate: float = 10.0) -> Asked:
    load = workload(arrivals={"process": "constant", "rate": rate}, slo=SLO)
    arms = [url_backend(name, f"http://127.0.0.1:{9000 + n}") for n, name in enumerate(names or ("one",))]
    return Asked("run" if len(arms) == 1 else "compare", arms, load, Settings(out_dir=Path("nowhere")))


def outcome(*lost: str, losses: Sequence[str] = ()) -> LoadOutcome:
    view = LocustView("0", 0, 0, 0.0)
    return LoadOutcome(
        "complete",
        [],
        0,
        LagSummary(),
        LagSummary(),
        "kernel",
        None,
        view,
        workers_lost=list(lost),
        losses=list(losses),
    )


class Carrier:
    """Brings two deltas, then waits to be let go or stopped."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.brought = threading.Event()
        self.factors: list[float] = []
        self.gone: list[str] = []
        self.left = True

    def run(self, asked: Any, on_delta: Any, should_stop: Any) -> LoadOutcome:
        del asked
        on_delta(delta(done(), gaps=(5,)))
        on_delta(delta(done(300), gaps=(5, 30), in_flight=3))
        self.brought.set()
        while not self.go.wait(0.01):
            if should_stop():
                break
        return outcome(*(one.partition(":")[0] for one in self.gone))

    def retime(self, run_id: str, factor: float) -> Edit | None:
        assert run_id == a_job().run_id
        self.factors.append(factor)
        return Edit(5, factor) if self.left else None

    def lost(self) -> list[str]:
        return self.gone


def a_job(**changes: Any) -> Any:
    return job(11, **changes)
