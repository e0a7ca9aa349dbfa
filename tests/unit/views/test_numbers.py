"""The arrays are the metrics: the same figures to the last digit, whatever the order of the tokens on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdbench.measure.latency import floats, gaps_ns, measured, request_metrics
from pdbench.measure.records import RequestRecord
from pdbench.views.numbers import Numbers, Tokens, numbers_of
from tests.unit.measure.helpers import frames, request

METRICS = ("ttft", "service_ttft", "tpot", "worst_gap", "e2e", "ttst", "handoff_gap")


def numbers(requests: pd.DataFrame, tokens: pd.DataFrame) -> Numbers:
    columns: dict[str, Any] = {name: floats(requests[name]) for name in ("sent_ns", "end_ns", "output_tokens")}
    columns |= {name: requests[name].to_numpy(dtype=np.int64) for name in ("pair", "index", "scheduled_ns")}
    columns |= {name: requests[name].to_numpy(dtype=object) for name in ("status", "request_id")}
    columns["warmup"] = requests["warmup"].to_numpy(dtype=bool)
    return numbers_of(
        columns, Tokens(*(tokens[name].to_numpy(dtype=np.int64) for name in ("pair", "index", "t_ns", "n_tokens")))
    )


GAPS = st.lists(st.floats(0, 500), max_size=6)
RECORDS = st.lists(
    st.tuples(
        st.none() | st.floats(0.1, 900), GAPS, st.booleans(), st.sampled_from(["ok", "ok", "ok", "error", "timeout"]),
        st.none() | st.integers(1, 9),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_they_are_the_metrics(pairs: list[Any], random: Any) -> None:
    parts = []
    for pair, rows in enumerate(pairs):
        records: list[RequestRecord] = []
        for index, (ttft, gaps, warmup, status, output) in enumerate(rows):
            shown = gaps if ttft is not None else []
            made = {"warmup": warmup, "status": status, "output_tokens": output, "request_id": f"r{index}"}
            records.append(request(index, ttft, shown, **made))
        parts.append(frames(*records, pair=pair))
    requests, tokens = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    # On disk the tokens of a request lie together; if they ever do not, the figures must not change.
    order = list(range(len(tokens)))
    if random.random() < 0.5:
        random.shuffle(order)
        order.sort(key=lambda row: tokens["t_ns"].iloc[row])
    tokens = tokens.iloc[order].reset_index(drop=True)
    found, derived = numbers(requests, tokens), request_metrics(requests, tokens)
    for metric in METRICS:
        np.testing.assert_array_equal(getattr(found, f"{metric}_ms"), floats(derived[f"{metric}_ns"]) / 1e6, metric)
    np.testing.assert_array_equal(found.completed, derived["completed"].to_numpy(dtype=bool))
    np.testing.assert_array_equal(np.sort(found.gaps_ms), np.sort(gaps_ns(tokens)) / 1e6)
    kept = found.measured()
    np.testing.assert_array_equal(np.sort(kept.gaps_ms), np.sort(gaps_ns(measured(requests, tokens)[1])) / 1e6)
    assert len(kept) == int((~requests["warmup"]).sum())


def test_gaps_know_their_request_and_their_end() -> None:
    found = numbers(
        *frames(request(3, 10, [5, 7]), request(4, 10), request(5, None, status="error"), request(6, 1, [2]))
    )
    assert found.gaps_ms.tolist() == [5, 7, 2]
    assert found.index[found.gap_request].tolist() == [3, 3, 6]
    assert ((found.gap_end_ns - found.scheduled_ns[found.gap_request]) / 1e6).tolist() == [15, 22, 3]
    only = found.only(np.array([False, True, False, True]))
    assert only.gaps_ms.tolist() == [2]
    assert only.gap_request.tolist() == [1]
    assert found.t0_ns(0) == 10**9
    assert found.t0_ns(1) is None


def test_tokens_of_nobody_are_left_out_and_twins_refused() -> None:
    requests, tokens = frames(request(0, 10, [5]), request(1, 10, [9]))
    assert numbers(requests.iloc[1:], tokens).gaps_ms.tolist() == [9]
    assert numbers(requests.iloc[:0], tokens).gaps_ms.tolist() == []
    with pytest.raises(ValueError, match="twice"):
        numbers(pd.concat([requests, requests]), tokens)
