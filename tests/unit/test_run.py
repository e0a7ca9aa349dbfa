"""What a run is held to: every request that fell due must have left a record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pdbench.run import _scheduled


@pytest.mark.parametrize(
    ("closed", "status", "offered", "records", "scheduled"),
    [
        (False, "complete", 12, 12, 10),
        (True, "complete", 8, 8, 6),
        (True, "complete", 8, 7, 6),  # one left no record: 5 measured ones are accounted for, of 6
        (True, "interrupted", 8, 8, 10),
    ],
)
def test_a_closed_loop_is_held_to_what_the_engines_gave_out(
    closed: bool, status: str, offered: int, records: int, scheduled: int
) -> None:
    warmup = [True, True] + [False] * 10
    plan: Any = SimpleNamespace(warmup=np.array(warmup))
    job: Any = SimpleNamespace(concurrency=[(0, 2)] if closed else [])
    kept = [SimpleNamespace(warmup=flag) for flag in warmup[:records]]
    outcome: Any = SimpleNamespace(status=status, offered=offered, records=kept)
    assert _scheduled(plan, job, outcome) == scheduled
