"""``pdbench search`` typed at a desk, against two servers that are not ours: it ends in its budget, and is stored."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from pdbench import schema
from pdbench.store import read_run
from tests.e2e.transcript import Desk, brief

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]


def test_two_servers_within_a_budget_of_runs(tmp_path: Path) -> None:
    desk = Desk()
    with desk.fake(tmp_path) as one, desk.fake(tmp_path) as two:
        typed = desk.type(
            *("search", f"one={one}", f"two={two}", "--workload", brief(tmp_path), "--budget", "4 runs"),
            *("-o", str(tmp_path / "out"), "--json"),
        )
    # A noisy machine may spoil a run; what is INVALID is said, and is no crash.
    document = typed.document
    assert typed.code == (0 if document["validity"]["status"] == "VALID" else 12), typed
    jsonschema.validate(document, schema.load("search"))
    assert document["spent"]["runs"] == 4
    assert [len(arm["runs"]) for arm in document["arms"].values()] == [2, 2]
    assert all(arm["stop"].startswith("budget of runs used") for arm in document["arms"].values())
    run = read_run(tmp_path / "out" / document["run"])
    assert run.sealed
    assert run.summary == document
    for name, arm in document["arms"].items():
        stored = run.requests.loc[(run.requests["arm"] == name).to_numpy(dtype=bool)]
        assert set(stored["pair"]) == {one["pair"] for one in arm["runs"]}
    assert not desk.leftovers()
