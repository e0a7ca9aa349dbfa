"""Whatever state a stored run is in, every export says something, and nothing crashes."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from pdbench import schema
from pdbench.report.csvfile import arms_csv, requests_csv
from pdbench.report.markdown import document_markdown
from pdbench.report.perfetto import trace
from pdbench.stored import StoredRun, open_run
from pdbench.views.gantt import gantt
from pdbench.views.grid import grid
from pdbench.views.handoff import handoff
from pdbench.views.interference import interference
from pdbench.views.stalls import lining_up
from pdbench.views.timeline import timeline
from pdbench.views.trend import trend
from tests.unit.storedhelp import write
from tests.unit.test_stored import rows

STATES = (
    "sealed", "unfinished", "empty", "empty and unfinished", "no tokens", "no requests", "no server", "torn steps",
    "alone", "one request",
)  # fmt: skip


def broken(folder: Path, state: str) -> StoredRun:
    if state.startswith("empty"):
        return open_run(str(write(folder, [], seal="unfinished" not in state)))
    runs = [rows("<script>", 0, server=state != "no server"), rows("b", 0)]
    if state == "one request":
        arm, pair, records, *_ = runs[0]
        runs = [(arm, pair, records[1:2], [], [])]
    path = write(folder, runs, seal=state != "unfinished")
    if state == "no tokens":
        (path / "tokens.parquet").unlink()
    elif state == "no requests":
        (path / "requests.parquet").unlink()
    elif state == "torn steps":
        (path / "steps.parquet").write_bytes(b"PAR1 and no more")
    elif state == "alone":
        (folder / "alone.json").write_bytes((path / "summary.json").read_bytes())
        return open_run(str(folder / "alone.json"))
    return open_run(str(path))


@pytest.mark.parametrize("state", STATES)
def test_exports_and_views(tmp_path: Path, state: str) -> None:
    run = broken(tmp_path, state)
    jsonschema.Draft202012Validator(schema.load("perfetto")).validate(trace(run))
    assert requests_csv(run).startswith("arm,pair,index")
    assert "arm" in arms_csv(run).splitlines()[0]
    text = document_markdown(run.document)
    assert text.startswith("### pdbench ")
    assert "<script" not in text
    for arm in run.arms:
        numbers, lifecycles, steps = run.numbers(arm), run.lifecycles(arm), run.steps(arm)
        assert lining_up(numbers, lifecycles, steps).sentence
        assert timeline(numbers, lifecycles, steps, 0).sentence
        assert len(gantt(lifecycles, 0)) >= 0
        assert handoff(lifecycles).requests >= 0
        assert interference(lifecycles, steps).gaps >= 0
    grid({arm: run.numbers(arm) for arm in run.arms}, run.objectives)
    trend([run.document])
    assert run.notes or state == "sealed"
