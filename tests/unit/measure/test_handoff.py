"""Where the time to the second token goes: drawn by hand, on the virtual clock, and adding up in every case."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.measure.handoff import HANDOFF_PARTS, MIB, PARTS, against_bytes, handoff_parts, handoff_summary
from tests.unit.measure.helpers import frames, request
from tests.unit.measure.serverhelp import MIXED, SPLIT, lifecycle, plan, server, simulated

DUE = 1000.0
SPLIT_ROW = lifecycle(
    "r0", [1060, 1085, 1095], arrive=1002, prefill=(1010, 1060), transfer=(1063, 1070), admit=1075,
    workers=(0, 1), kv_bytes=2 * MIB,
)  # fmt: skip
EXPECTED = {
    "to_server": 2, "prefill_queue": 8, "prefill": 50, "staging_wait": 3, "transfer": 7, "decode_queue": 5,
    "first_decode_step": 10, "to_client": 1,
}  # fmt: skip


def one(row: dict[str, object], **changes: object) -> pd.DataFrame:
    requests, tokens = frames(request(0, 61, [25, 10], scheduled=DUE, request_id="r0", **changes))  # type: ignore[arg-type]
    return handoff_parts(server(row), requests, tokens)


def test_a_handed_off_request_by_hand() -> None:
    (row,) = one(SPLIT_ROW).to_dict("records")
    assert {name: row[f"{name}_ns"] / 1e6 for name in PARTS} == EXPECTED
    assert row["ttst_ns"] == 86e6
    assert row["server_gap_ns"] == 25e6
    assert row["handed_off"]
    assert row["request_id"] == "r0"


def test_a_colocated_request_has_no_handoff_parts() -> None:
    row = one(lifecycle("r0", [1060, 1085, 1095], arrive=1002, prefill=(1010, 1060)))
    assert row[[f"{name}_ns" for name in HANDOFF_PARTS]].isna().all(axis=None)
    assert row["first_decode_step_ns"].item() == 25e6
    summary = handoff_summary(row)
    assert set(summary["parts_ms"]) == set(PARTS) - set(HANDOFF_PARTS)
    assert summary["transfers"] == 0
    assert "kv_mib" not in summary


@pytest.mark.parametrize("changes", [{"warmup": True}, {"status": "error"}, {"request_id": "another"}])
def test_what_is_left_out(changes: dict[str, object]) -> None:
    record = {"request_id": "r0", **changes}
    requests, tokens = frames(request(0, 61, [25, 10], scheduled=DUE, **record))  # type: ignore[arg-type]
    found = handoff_parts(server(SPLIT_ROW), requests, tokens)
    assert not len(found)
    assert handoff_summary(found) == {}


def test_runs_are_told_apart() -> None:
    """The same request id in another pair is another request."""
    requests, tokens = frames(request(0, 61, [25, 10], scheduled=DUE, request_id="r0"), pair=1)
    assert not len(handoff_parts(server(SPLIT_ROW, pair=0), requests, tokens))
    assert len(handoff_parts(server(SPLIT_ROW, pair=1), requests, tokens)) == 1


def test_one_token_has_a_prefill_and_no_more() -> None:
    requests, tokens = frames(request(0, 61, scheduled=DUE, request_id="r0"))
    row = handoff_parts(server(lifecycle("r0", [1060], arrive=1002, prefill=(1010, 1060))), requests, tokens)
    assert row["prefill_ns"].item() == 50e6
    assert set(handoff_summary(row)["parts_ms"]) == {"to_server", "prefill_queue", "prefill"}


def test_no_server_rows() -> None:
    requests, tokens = frames(request(0, 61, [25]))
    assert handoff_summary(handoff_parts(server(), requests, tokens)) == {}


def test_two_queues_by_hand() -> None:
    """5 ms a prompt token, 20 ms a decode step, one at a time: prompts of 200, 500 and 300 wait in turn."""
    workers = [{**worker, "max_batch": 1} for worker in SPLIT]
    cost = {"prefill_ms_per_token": 5.0, "decode_ms_per_step": 20.0}
    run = simulated(workers, cost, plan((0, 200, 11), (0, 500, 11), (0, 300, 11)))
    parts = handoff_parts(run.server, run.requests, run.tokens)
    assert (parts["prefill_queue_ns"] / 1e6).tolist() == [0, 1000, 3500]
    assert (parts["prefill_ns"] / 1e6).tolist() == [1000, 2500, 1500]
    assert (parts["ttst_ns"] / 1e6).tolist() == [1020, 3520, 5020]
    assert (parts["first_decode_step_ns"] / 1e6).tolist() == [20, 20, 20]
    summary = handoff_summary(parts)
    assert summary["transfers"] == 3
    assert summary["ttst_ms"] == {"p50": 3520, "p90": 5020}


def test_the_link_is_found_on_the_virtual_clock() -> None:
    """1 GB/s and 2 ms a transfer: 1.048576 ms a MiB, 2 ms for an empty one."""
    cost = {"prefill_ms_per_token": 0.1, "decode_ms_per_step": 5, "transfer_gb_per_s": 1, "transfer_ms": 2}
    requests = plan(*[(1000 * i, 128 * (i + 1), 4) for i in range(8)])
    run = simulated(SPLIT, cost, requests)
    summary = handoff_summary(handoff_parts(run.server, run.requests, run.tokens))
    fit = summary["per_mib"]["transfer"]
    assert fit["ms_per_mib"] == pytest.approx(1.048576, rel=1e-4)
    assert fit["intercept_ms"] == pytest.approx(2.0, abs=1e-3)
    assert summary["per_mib"]["server_gap"]["intercept_ms"] == pytest.approx(7.0, abs=1e-3)
    assert summary["bytes"] == run.side.state["transfers"]["bytes"]


def test_colocated_on_the_virtual_clock() -> None:
    run = simulated(MIXED, {"prefill_ms_per_token": 1, "decode_ms_per_step": 5}, plan((0, 100, 4)))
    summary = handoff_summary(handoff_parts(run.server, run.requests, run.tokens))
    assert summary["ttst_ms"] == {"p50": 105, "p90": 105}
    assert "transfer" not in summary["parts_ms"]


times = st.lists(st.integers(0, 10_000_000), min_size=8, max_size=8).map(lambda gaps: np.cumsum(gaps) / 1e6)


@given(times)
@settings(max_examples=50, deadline=None)
def test_the_parts_add_up(at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Whatever the stamps, nothing is lost between the schedule and the second token."""
    arrive, begun, done, pushed, pulled, admitted, second, received = (float(t) for t in at)
    row = lifecycle(
        "r0", [done, second], arrive=arrive, prefill=(begun, done), transfer=(pushed, pulled), admit=admitted
    )
    record = request(0, done, [received - done], scheduled=0, request_id="r0")
    (found,) = handoff_parts(server(row), *frames(record)).to_dict("records")
    assert sum(found[f"{name}_ns"] for name in PARTS) == found["ttst_ns"]
    middle = (*HANDOFF_PARTS, "first_decode_step")
    assert sum(found[f"{name}_ns"] for name in middle) == found["server_gap_ns"]


@pytest.mark.parametrize(
    ("sizes", "took"),
    [([], []), ([1, 2], [1, 2]), ([3, 3, 3], [1, 2, 9]), ([1, 2, np.nan], [1, 2, 3]), ([1, 2, 3], [1, 2, np.inf])],
)
def test_no_line_through_too_little(sizes: list[float], took: list[float]) -> None:
    assert against_bytes(np.array(sizes, dtype=float) * MIB, np.array(took, dtype=float) * 1e6) == {}


def test_the_line_shrugs_at_outliers() -> None:
    size = np.arange(1.0, 21.0)
    took = 3.0 + 0.5 * size
    took[[4, 9]] += 500.0
    fit = against_bytes(size * MIB, took * 1e6)
    assert fit["ms_per_mib"] == pytest.approx(0.5)
    assert fit["intercept_ms"] == pytest.approx(3.0)
    assert fit["low"] <= 0.5 <= fit["high"]


def test_many_points_are_thinned() -> None:
    size = np.linspace(1, 100, 5000)
    fit = against_bytes(size * MIB, (2 * size + 1) * 1e6)
    assert fit["points"] == 1000
    assert fit["ms_per_mib"] == pytest.approx(2.0)
