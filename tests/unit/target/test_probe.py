"""The calibration probe: what a pdserve says of its devices, in one number a kernel, and where it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pdbench.store import RunStore, read_run
from pdbench.target import inspect
from pdbench.target.arm import Arm
from pdbench.target.backend import url_backend
from pdbench.target.http import NoAnswer


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (
            {
                "probes": [
                    {"worker": 0, "device": "cpu:0", "gemm_ms": 10.0, "copy_ms": 2.0},
                    {"worker": 1, "gemm_ms": 30.0},
                ]
            },
            {"gemm": 0.02, "copy": 0.002},
        ),
        ({"probes": [{"worker": 0, "gemm_ms": 0, "copy_ms": "x", "transfer_ms": None}]}, {}),
        ({"probes": [{"worker": 0, "device": "cpu:0"}]}, {}),
        ({"probes": []}, {}),
        ({}, {}),
    ],
)
def test_mean_seconds_by_kernel(
    answer: dict[str, Any], seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "fetch_json", lambda url, **_: answer)
    assert inspect.probe("http://x") == pytest.approx(seconds)


def test_a_silent_server_and_a_foreign_one_have_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def silent(url: str, **_: Any) -> dict[str, Any]:
        raise NoAnswer(url)

    monkeypatch.setattr(inspect, "fetch_json", silent)
    assert inspect.probe("http://x") == {}
    assert Arm(url_backend("a", "http://127.0.0.1:1"), tmp_path).probe() == {}


def test_probes_are_stored_with_their_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write_probe("a", 0, {"gemm": 0.5, "copy": 0.25})
    store.write_probe("b", 0, {})
    store.write_probe("b", 1, {"gemm": 0.75})
    assert len(read_run(tmp_path).probes) == 3, "before it is sealed"
    store.seal({"kind": "gate"}, {"schema_version": 1})
    found = pd.read_parquet(tmp_path / "probes.parquet")
    assert found.to_dict("list") == {
        "arm": ["a", "a", "b"], "pair": [0, 0, 1], "kernel": ["gemm", "copy", "gemm"], "seconds": [0.5, 0.25, 0.75]
    }  # fmt: skip
    assert read_run(tmp_path).probes.equals(found)
