"""Stored baselines: accepted with a reason, refused when edited, absent, or of something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from pdbench import baseline, schema
from pdbench.cli.main import run as typed
from pdbench.errors import UsageError
from pdbench.store import Run
from pdbench.target import fingerprint
from tests.unit.test_schema import document

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def stored_run(kind: str = "run") -> Run:
    found = document(kind)
    machine = {"machine": "x86_64", "cpu_model": "c", "cores": 2, "python": "3.11.1"}
    arms = {name: {"engine": "pdserve", "devices": 2, "model_hash": "m"} for name in found["arms"]}
    found["fingerprint"] = {**machine, "arms": arms}
    empty = pd.DataFrame()
    return Run(Path("results/r1"), {"plan_hashes": ["a" * 64]}, found, empty, empty, empty, empty, empty)


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    return baseline.accept(stored_run(), reason=" first one ", now=NOW, folder=tmp_path / "baselines")


def test_accepted(accepted: Path, tmp_path: Path) -> None:
    found = baseline.load(accepted)
    jsonschema.Draft202012Validator(schema.load("baseline")).validate(found.document)
    assert accepted.relative_to(tmp_path) == Path("baselines", found.document["workload"]["name"], f"{found.key}.json")
    assert found.document["reason"] == "first one"
    assert found.document["figures"]["ttft_ms"] == stored_run().summary["arms"]["a"]["ttft_ms"]  # type: ignore[index]
    assert baseline.stored(tmp_path / "baselines") == [accepted]
    assert baseline.stored(tmp_path / "baselines", "other") == []


def test_what_names_a_machine_and_a_model() -> None:
    def key(**changes: Any) -> str:
        run = stored_run()
        assert run.summary is not None
        run.summary["fingerprint"].update(changes.pop("machine", {}))
        run.summary["fingerprint"]["arms"]["a"].update(changes)
        return fingerprint.key(run.summary["fingerprint"], run.summary["fingerprint"]["arms"]["a"], "model_hash")

    assert key() == key(machine={"python": "3.13.0"})
    assert len({key(), key(machine={"cores": 4}), key(model_hash="n"), key(dtype="float32"), key(devices=1)}) == 5


def test_arms_are_chosen(tmp_path: Path) -> None:
    run = stored_run("compare")
    assert baseline.load(baseline.accept(run, reason="r", now=NOW, arm="b", folder=tmp_path)).document["arm"] == "b"
    for arm, what in ((None, "several arms"), ("c", "no arm 'c'")):
        with pytest.raises(UsageError, match=what):
            baseline.accept(run, reason="r", now=NOW, arm=arm, folder=tmp_path)


def invalid(run: Run) -> Run:
    assert run.summary is not None
    return replace(run, summary={**run.summary, "validity": {"status": "INVALID", "reasons": []}})


@pytest.mark.parametrize(
    ("change", "reason", "what"),
    [
        (lambda run: run, "  ", "needs a reason"),
        (lambda run: replace(run, manifest=None), "r", "unfinished"),
        (invalid, "r", "INVALID"),
    ],
)
def test_what_is_not_accepted(change: Callable[[Run], Run], reason: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        baseline.accept(change(stored_run()), reason=reason, now=NOW, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_refused_files(accepted: Path) -> None:
    reformatted = json.loads(accepted.read_text())
    accepted.write_text(json.dumps(reformatted))
    baseline.load(accepted)  # white space is no content
    edit(accepted, reason="another")
    with pytest.raises(UsageError, match="edited by hand"):
        baseline.load(accepted)
    edit(accepted, schema_version=99)
    with pytest.raises(UsageError, match="schema_version is 99, expected 1"):
        baseline.load(accepted)
    edit(accepted, kind="run")
    with pytest.raises(UsageError, match="not a baseline"):
        baseline.load(accepted)
    accepted.write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        baseline.load(accepted)
    accepted.unlink()
    with pytest.raises(UsageError, match="no baseline"):
        baseline.load(accepted)


def test_only_the_same_is_compared(accepted: Path) -> None:
    base = baseline.load(accepted)
    assert baseline.comparable(base, plan_hashes=["a" * 64], key=base.key) == []
    for hashes, key, what in [
        (["b" * 64], base.key, "other plans"),
        ([], base.key, "other plans"),
        (["a" * 64], "0" * 16, "another machine"),
    ]:
        (reason,) = baseline.comparable(base, plan_hashes=hashes, key=key)
        assert what in reason.message
        assert reason.remedy


def test_typed(accepted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(accepted.parents[2])
    (Path.cwd() / "results").mkdir()
    (Path.cwd() / "baselines").rename(Path.cwd() / "results" / "baselines")
    assert typed(["baseline", "show"]) == 0
    assert "first one" in capsys.readouterr().out
    path = str(next(Path("results/baselines").glob("*/*.json")))
    assert typed(["gate", "--base", path, "--head", "colocated"]) == 2
    assert "stored baseline" in capsys.readouterr().err
    edit(Path(path), reason="x")
    for args in (["baseline", "show"], ["gate", "--base", path, "--head", "colocated"]):
        assert typed(args) == 2
        assert "edited by hand" in capsys.readouterr().err
    assert typed(["gate", "--base", "absent.json", "--head", "colocated"]) == 2
    assert "no baseline" in capsys.readouterr().err
    assert typed(["baseline", "accept", "nothing", "--reason", "x"]) == 2
