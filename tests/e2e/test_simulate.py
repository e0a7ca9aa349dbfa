"""The virtual clock from the command line: the teaching example, exactly, and the same bytes again."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from pdbench import schema
from tests.e2e.transcript import Desk, Type, Typed

pytestmark = pytest.mark.e2e


def simulate(type_: Type, folder: Path, *args: str) -> Typed:
    typed = type_("simulate", "two-queues", *args, "-o", str(folder), "--json")
    assert typed.code == 0, typed
    return typed


def test_two_queues(type_here: Type, tmp_path: Path) -> None:
    document = simulate(type_here, tmp_path, "--workload", "two-queues").document
    jsonschema.validate(document, schema.load("simulate"))
    times = [(row["prefill_end_ms"], row["last_token_ms"]) for row in document["requests"]]
    assert times == [(1000.0, 1200.0), (3500.0, 3700.0), (5000.0, 5200.0)]
    arm = document["arms"]["two-queues"]
    assert arm["simulated"] is True
    assert document["simulated"] is True
    assert arm["handoff"]["transfers"] == 3
    assert arm["device_busy"] == [0.9615, 0.1154]


def test_same_seed_same_bytes(type_here: Type, tmp_path: Path) -> None:
    """In another process too."""
    args = ("--workload", "chat", "--num-requests", "50", "--rate", "0.2", "--seed", "7")
    typed = {"a": simulate(Desk().type, tmp_path / "a", *args), "b": simulate(type_here, tmp_path / "b", *args)}
    folders = [tmp_path / name / str(one.document["run"]) for name, one in typed.items()]
    for name in ("plan", "requests", "tokens", "server", "steps"):
        first, second = ((folder / f"{name}.parquet").read_bytes() for folder in folders)
        assert first == second, name
    other = simulate(type_here, tmp_path / "c", *args[:-1], "8").document["run"]
    assert (tmp_path / "c" / str(other) / "requests.parquet").read_bytes() != (
        folders[0] / "requests.parquet"
    ).read_bytes()


def test_it_says_simulated_in_the_table(type_here: Type, tmp_path: Path) -> None:
    typed = type_here("simulate", "two-queues", "--workload", "two-queues", "-o", str(tmp_path), "-q")
    assert typed.code == 0, typed
    assert "two-queues (simulated)" in typed.out
