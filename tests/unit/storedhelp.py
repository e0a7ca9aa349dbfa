"""Runs on disk, as the harness leaves them: made by hand, or on the virtual clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdbench.measure.metrics import summarise
from pdbench.measure.records import RequestRecord, to_frames
from pdbench.measure.slo import parse_objectives
from pdbench.measure.validity import Validity
from pdbench.simulate import call_pdserve, to_records
from pdbench.store import RunStore
from pdbench.target.backend import Backend
from pdbench.workload.plan import Plan
from tests.unit.documents import SLO, VALID
from tests.unit.measure.serverhelp import MIXED, SPLIT, plan

Row = Mapping[str, Any]
NAME = "20260102T030405Z-interference-1a2b3c4"


def document(kind: str, arms: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "schema_version": 1, "kind": kind, "run": NAME, "slo": SLO, "pairs": 1, "fingerprint": {}, "validity": VALID,
        "workload": {"name": "interference", "arrivals": {"process": "at"}}, "arms": dict(arms),
        "sentence": "A sentence.",
    }  # fmt: skip
    return {**found, **changes}


def write(
    folder: Path,
    runs: Sequence[tuple[str, int, Sequence[RequestRecord], Sequence[Row], Sequence[Row]]],
    *,
    seal: bool = True,
    **changes: Any,
) -> Path:
    """A run of ``(arm, pair, records, lifecycles, steps)``; ``changes`` of its document."""
    path = folder / NAME
    store = RunStore(path)
    arms: dict[str, Any] = {}
    for arm, pair, records, lifecycles, steps in runs:
        frames = to_frames(records, arm, pair)
        store.append_run(*frames)
        store.write_server(lifecycles, steps, arm=arm, pair=pair)
        arms[arm] = summarise(*frames, parse_objectives(SLO), 2, simulated=True, validity=Validity("VALID", ()))
    if seal:
        manifest = {"kind": "compare", "run": NAME, "config": {"base": runs[0][0]}} if runs else {"kind": "compare"}
        store.seal(manifest, document("compare", arms) | changes)
    return path


def simulated_rows(
    name: str, workers: list[dict[str, Any]], requests: Plan, cost: Mapping[str, float]
) -> tuple[str, int, list[RequestRecord], list[Row], list[Row]]:
    """One arm through the reference scheduler on the virtual clock."""
    data = {"name": name, "workers": workers, "cost_model": dict(cost)}
    result = call_pdserve(Backend(name, "pdserve", None, data, simulated=True), requests)
    return name, 0, to_records(result["requests"], requests), result["requests"], result["steps"]


def interference_run(folder: Path) -> Path:
    """Three streams; two long prompts arrive while they decode: colocated (prefill first) against disaggregated."""
    requests = plan((0, 32, 120), (20, 32, 120), (40, 32, 120), (400, 400, 8), (900, 400, 8))
    cost = {"prefill_ms_per_token": 0.5, "decode_ms_per_step": 10.0}
    return write(
        folder,
        [
            simulated_rows("colocated", MIXED, requests, cost),
            simulated_rows("disaggregated", SPLIT, requests, cost),
        ],
    )
