"""A server's stamps drawn by hand, in milliseconds, and runs of the reference scheduler on the virtual clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pdbench.measure.lifecycles import server_frame
from pdbench.measure.records import to_frames
from pdbench.serverside import ServerSide
from pdbench.simulate import call_pdserve, to_records
from pdbench.target.backend import Backend
from pdbench.workload.plan import Plan

MS = 1_000_000
Row = dict[str, Any]


def ns(value: float | None) -> int | None:
    return None if value is None else round(value * MS)


def lifecycle(
    name: str,
    tokens: Sequence[float],
    *,
    arrive: float = 0,
    prefill: tuple[float, float] | None = None,
    transfer: tuple[float, float] | None = None,
    admit: float | None = None,
    workers: tuple[int, int] = (0, 0),
    prompt: int = 100,
    kv_bytes: int = 0,
    **changes: Any,
) -> Row:
    """One row as ``/admin/requests`` has it; ``tokens``: when each was emitted."""
    begun, done = prefill or (arrive, tokens[0] if tokens else arrive)
    row: Row = {
        "request_id": name,
        "status": "ok",
        "arrive_ns": ns(arrive),
        "prefill_start_ns": ns(begun),
        "prefill_end_ns": ns(done),
        "transfer_start_ns": ns(transfer[0]) if transfer else None,
        "transfer_end_ns": ns(transfer[1]) if transfer else None,
        "decode_admit_ns": ns(admit),
        "prompt_tokens": prompt,
        "output_tokens": len(tokens),
        "prefill_worker": workers[0],
        "decode_worker": workers[1],
        "kv_bytes": kv_bytes,
        "token_ns": [ns(t) for t in tokens],
    }
    return {**row, **changes}


def step(worker: int, start: float, end: float, prefill: int = 0, decode: int = 1) -> Row:
    return {
        "worker": worker,
        "start_ns": ns(start),
        "end_ns": ns(end),
        "prefill_tokens": prefill,
        "decode_tokens": decode,
    }


def server(*rows: Row, arm: str = "a", pair: int = 0) -> pd.DataFrame:
    return server_frame(rows, arm, pair)


@dataclass(frozen=True)
class Simulated:
    server: pd.DataFrame
    steps: pd.DataFrame
    requests: pd.DataFrame
    tokens: pd.DataFrame
    side: ServerSide


def plan(*rows: tuple[float, int, int]) -> Plan:
    """``(due ms, prompt tokens, output tokens)`` a request."""
    return Plan(
        scheduled_ns=np.array([round(due * MS) for due, _, _ in rows], dtype=np.int64),
        prompt_tokens=np.array([prompt for _, prompt, _ in rows], dtype=np.int32),
        output_tokens=np.array([output for _, _, output in rows], dtype=np.int32),
        warmup=np.zeros(len(rows), dtype=np.bool_),
        seed=0,
        pair=0,
    )


def simulated(workers: list[Row], cost: dict[str, float], requests: Plan) -> Simulated:
    """A plan through the reference scheduler, as the harness calls it."""
    data = {"name": "sim", "workers": workers, "cost_model": cost}
    result = call_pdserve(Backend("sim", "pdserve", None, data, simulated=True), requests)
    found, tokens = to_frames(to_records(result["requests"], requests), "sim", 0)
    last = max(int(row["end_ns"]) for row in result["requests"])
    state = dict(result["state"])
    state["workers"] = [{**row, "device": f"cpu:{row['index']}"} for row in state["workers"]]
    side = ServerSide(state, tuple(result["requests"]), tuple(result["steps"]), (0, last))
    return Simulated(server_frame(result["requests"], "sim"), server_frame(result["steps"], "sim"), found, tokens, side)


MIXED: list[Row] = [{"role": "mixed", "device": 0, "policy": "prefill_first"}]
CHUNKED: list[Row] = [{"role": "mixed", "device": 0, "policy": "chunked", "token_budget": 64}]
SPLIT: list[Row] = [{"role": "prefill", "device": 0}, {"role": "decode", "device": 1}]
