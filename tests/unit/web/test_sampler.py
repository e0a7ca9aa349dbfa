"""What is read from the states of a pdserve."""

from __future__ import annotations

from typing import Any

import pytest

from pdbench.web.sampler import reading

S = 1_000_000_000


def state(queues: tuple[int, int], **busy_ns: int) -> dict[str, Any]:
    """Every role's workers have two requests in all."""
    roles = {role: {"workers": 2 if role == "mixed" else 1, "busy_ns": ns} for role, ns in busy_ns.items()}
    workers = [{"role": role, "live": 2} for role in busy_ns] + [{"role": role, "live": 0} for role in busy_ns]
    return {"queues": {"prefill": queues[0], "handoff": queues[1]}, "roles": roles, "workers": workers}


@pytest.mark.parametrize(
    ("now", "before", "found"),
    [
        (state((3, 1), prefill=5, decode=5), None, {"queue_prefill": 5, "queue_decode": 3}),
        (state((0, 0), prefill=S // 2 + 5, decode=S), state((0, 0), prefill=5, decode=0),
         {"queue_prefill": 2, "queue_decode": 2, "busy_prefill": 0.5, "busy_decode": 1.0}),
        (state((1, 0), mixed=S), state((0, 0), mixed=0), {"queue_prefill": 3, "busy_prefill": 0.5}),
        (state((1, 0), mixed=5), state((0, 0), mixed=S), {"queue_prefill": 3}),  # counters were cleared
        (state((0, 0), prefill=3 * S, decode=0), state((0, 0), prefill=0, decode=0),
         {"queue_prefill": 2, "queue_decode": 2, "busy_prefill": 1.0, "busy_decode": 0.0}),
        ({}, {}, {}),
        ({"queues": {"prefill": "many"}, "roles": {"other": {"busy_ns": 1}}}, {"roles": {"other": {"busy_ns": 0}}}, {}),
    ],
)  # fmt: skip
def test_a_reading(now: dict[str, Any], before: dict[str, Any] | None, found: dict[str, float]) -> None:
    assert reading(now, before, S) == found
