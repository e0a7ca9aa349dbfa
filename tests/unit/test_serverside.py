"""What a server says of itself: busy shares over the measured window, hand-offs."""

from __future__ import annotations

from typing import Any

from pdbench.serverside import ServerSide, busy_shares, transfers

WORKERS = [{"index": 0, "device": "cpu:0"}, {"index": 1, "device": "cpu:1"}]


def state(prefill: dict[str, int] | None = None, decode: dict[str, int] | None = None, **books: int) -> dict[str, Any]:
    roles = {
        "prefill": {"prefill_tokens": 100, "decode_tokens": 0, "decode_steps": 0, **(prefill or {})},
        "decode": {"prefill_tokens": 0, "decode_tokens": 100, "decode_steps": 10, **(decode or {})},
    }
    return {"workers": WORKERS, "roles": roles, "transfers": {"count": 2, "bytes": 64, "failed": 0, **books}}


def step(worker: int, start: int, end: int) -> dict[str, int]:
    return {"worker": worker, "start_ns": start, "end_ns": end}


def test_busy_counts_only_the_window() -> None:
    steps = (step(0, 0, 60), step(0, 90, 150), step(1, 200, 300))
    run = ServerSide(state(), steps=steps, window_ns=(50, 150))
    assert busy_shares([run], ["cpu:0", "cpu:1"]) == [0.7, 0.0]


def test_busy_over_several_runs() -> None:
    one = ServerSide(state(), steps=(step(0, 0, 100),), window_ns=(0, 100))
    two = ServerSide(state(), steps=(step(1, 100, 200),), window_ns=(100, 400))
    assert busy_shares([one, two], ["cpu:0", "cpu:1"]) == [0.25, 0.25]


def test_busy_is_absent_where_the_server_does_not_say() -> None:
    assert busy_shares([ServerSide()], ["x"]) == []


def test_transfers_sum_over_runs_and_need_two_roles() -> None:
    assert transfers([ServerSide(state()), ServerSide(state())]) == (4, 128)
    assert transfers([ServerSide({"roles": {"mixed": {}}})]) is None
    assert transfers([ServerSide()]) is None
