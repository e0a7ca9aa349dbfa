"""Requests drawn by hand, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pdbench.measure.records import RequestRecord, to_frames

MS = 1_000_000


def request(
    index: int,
    ttft: float | None,
    gaps: Sequence[float] = (),
    *,
    scheduled: float = 1000,
    lag: float = 0.1,
    tokens: Sequence[int] | None = None,
    output_tokens: int | None = None,
    **changes: Any,
) -> RequestRecord:
    """A request due at ``scheduled`` ms whose first token came ``ttft`` ms later (``None``: none came)."""
    due = round(scheduled * MS)
    times = [] if ttft is None else [due + round(ttft * MS)]
    for gap in gaps:
        times.append(times[-1] + round(gap * MS))
    counts = list(tokens) if tokens is not None else [1] * len(times)
    fields: dict[str, Any] = {
        "status": "ok",
        "sent_ns": due + round(lag * MS),
        "end_ns": times[-1] if times else due,
        "planned_prompt_tokens": 100,
        "planned_output_tokens": sum(counts),
        "prompt_tokens": 100,
        "output_tokens": output_tokens,
        "reads": len(times) + 1,
    }
    return RequestRecord(index=index, scheduled_ns=due, chunk_ns=times, chunk_tokens=counts, **{**fields, **changes})


def frames(*records: RequestRecord, arm: str = "a", pair: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    return to_frames(records, arm, pair)
