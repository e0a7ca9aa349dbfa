"""``pdbench surface`` from stored runs: the document, its schema, its table, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from rich.console import Console

from pdbench import schema
from pdbench.cli.main import run as pdbench
from pdbench.errors import UsageError
from pdbench.report.surface import print_surface
from pdbench.store import Run
from pdbench.surface import exit_code, parse_grid, surface_document
from tests.unit.documents import INVALID, VALID
from tests.unit.measure.helpers import frames, request

SLO = ["ttft p90 <= 400ms", "worst_gap p90 <= 100ms"]


def requests_of(arm: str, pair: int, ttft: float, gap: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    records = [request(i, ttft, [10, gap if i < 6 else 10]) for i in range(10)]
    return frames(*records, request(10, 9999, warmup=True), arm=arm, pair=pair)


def stored(arms: dict[str, tuple[float, float]], *, pairs: int = 2, name: str = "run", **changes: Any) -> Run:
    """A run whose arms have one TTFT, and one long gap in six of ten requests (ms)."""
    parts = [requests_of(arm, pair, *shape) for arm, shape in arms.items() for pair in range(pairs)]
    summary = {"kind": "compare", "slo": SLO, "arms": {name: {} for name in arms}, "validity": VALID} | changes
    manifest = {"schema_version": 1, "plan_hashes": ["h"], "config": {"base": next(iter(arms))}}
    requests, tokens = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    empty = pd.DataFrame()
    return Run(Path(name), manifest, summary, empty, requests, tokens, empty, empty)


ARMS = {"mixed": (200.0, 80.0), "split": (300.0, 20.0)}


def test_the_document_validates_and_says_where_it_turns() -> None:
    document = surface_document(stored(ARMS))
    jsonschema.Draft202012Validator(schema.load("surface")).validate(json.loads(json.dumps(document)))
    assert document["arms"]["mixed"]["requests"] == 20  # two pairs, without warm-up
    assert document["limits_ms"] == {"ttft": 400, "tpot": None, "worst_gap": 100}
    (item,) = document["comparisons"]
    assert (item["base"], item["head"], item["difference_at_slo"], item["leads"]) == ("mixed", "split", 0.0, None)
    assert [(f["metric"], f["to_ms"], f["leads"]) for f in item["flips"][:2]] == [
        ("worst_gap", 79.999999, "split"),
        ("ttft", 299.999999, "mixed"),
    ]
    assert "within 2 points" in document["sentence"]
    assert "worst gap limit of 80 ms instead of 100 ms split would lead (100 % against 40 %)" in document["sentence"]
    assert exit_code(document) == 0


def test_differences_are_positive_where_the_head_is_worse() -> None:
    document = surface_document(stored(ARMS), grid={"ttft": [250_000_000], "worst_gap": [50_000_000]})
    piece = next(p for p in document["slices"] if (p["rows"], p["columns"]) == ("ttft", "worst_gap"))
    assert document["grid_ms"]["ttft"] == [250, 400]
    assert document["grid_ms"]["worst_gap"] == [50, 100]
    assert piece["joint"] == {"mixed": [[0.4, 1], [0.4, 1]], "split": [[0, 0], [1, 1]]}
    assert piece["difference"] == {"split": [[0.4, 1], [-0.6, 0]]}
    assert piece["fixed"] == {"metric": "tpot", "limit_ms": None}
    swapped = surface_document(stored(ARMS), base="split", grid={"ttft": [250_000_000], "worst_gap": [50_000_000]})
    other = next(p for p in swapped["slices"] if (p["rows"], p["columns"]) == ("ttft", "worst_gap"))
    assert other["difference"] == {"mixed": [[-0.4, -1], [0.6, 0]]}


def test_another_slo_without_a_new_run() -> None:
    document = surface_document(stored(ARMS), slo=["ttft p90 <= 250ms"])
    (item,) = document["comparisons"]
    assert (item["leads"], item["difference_at_slo"]) == ("mixed", 1.0)
    assert document["sentence"].startswith("At the SLO mixed leads split (100 % against 0 %)")


def test_an_invalid_run_names_no_leader() -> None:
    document = surface_document(stored(ARMS, validity=INVALID))
    assert document["comparisons"] == []
    assert document["sentence"].startswith("No verdict")
    assert exit_code(document) == 12


def test_one_arm() -> None:
    document = surface_document(stored({"mixed": (200.0, 120.0)}))
    assert document["comparisons"] == []
    assert document["sentence"] == "At the SLO mixed meets all limits in 40 % of its requests."


def test_only_pairs_that_every_arm_completed_count() -> None:
    run = stored(ARMS)
    cut = run.requests[~((run.requests["arm"] == "split") & (run.requests["pair"] == 1))]
    document = surface_document(Run(run.path, run.manifest, run.summary, run.plan, cut, run.tokens, cut, cut))
    assert document["pairs"] == 1
    assert document["arms"]["mixed"]["requests"] == 10


def test_runs_of_one_plan_stand_side_by_side() -> None:
    one, two = stored({"mixed": (200.0, 80.0)}, name="one"), stored({"mixed": (300.0, 20.0)}, name="two")
    document = surface_document([one, two])
    assert list(document["arms"]) == ["mixed@one", "mixed@two"]
    assert document["run"] == ["one", "two"]
    assert len(document["comparisons"]) == 1


def test_runs_of_different_plans_do_not() -> None:
    other = stored(ARMS, name="two")
    assert other.manifest is not None
    other.manifest["plan_hashes"] = ["other"]
    with pytest.raises(UsageError, match="its plans differ from those of run"):
        surface_document([stored(ARMS), other])


def test_what_cannot_be_judged() -> None:
    run = stored(ARMS)
    unfinished = Run(run.path, None, None, run.plan, run.requests, run.tokens, run.server, run.steps)
    with pytest.raises(UsageError, match="unfinished"):
        surface_document(unfinished)
    only_warmup = run.requests[run.requests["warmup"]]
    with pytest.raises(UsageError, match="no measured request"):
        surface_document(
            Run(run.path, run.manifest, run.summary, run.plan, only_warmup, run.tokens, run.server, run.steps)
        )
    with pytest.raises(UsageError, match="'x' is not an arm"):
        surface_document(run, base="x")
    with pytest.raises(UsageError, match="above 0"):
        surface_document(run, grid={"ttft": [0]})


@pytest.mark.parametrize(
    ("text", "found"),
    [("ttft:100ms,0.2s", {"ttft": [100_000_000, 200_000_000]}), ("worst_gap: 1ms", {"worst_gap": [1_000_000]})],
)
def test_limits(text: str, found: dict[str, list[int]]) -> None:
    assert parse_grid([text]) == found


@pytest.mark.parametrize("text", ["ttft", "tfft:1ms", "ttft:100", "ttft:", "tbt:1ms"])
def test_bad_limits(text: str) -> None:
    with pytest.raises(UsageError, match="--limits"):
        parse_grid([text])


def drawn(document: dict[str, Any], *, every: bool = False) -> str:
    stream = io.StringIO()
    print_surface(document, Console(file=stream, width=80, no_color=True, highlight=False), every=every)
    return stream.getvalue()


def test_the_table_fits_80_columns_and_reads_without_colour() -> None:
    text = drawn(surface_document(stored({"colocated-chunked": (200.0, 80.0), "disaggregated": (300.0, 20.0)})))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    assert "TTFT down, worst gap across, TPOT unlimited" in text
    row = next(line for line in text.splitlines() if line.startswith("400*"))
    assert row.split()[1:] == ["40/100", "40/100", "40/100", "100/100", "100/100", "100/100", "100/100"]
    assert "where another would lead" in text


def test_every_slice_on_demand() -> None:
    document = surface_document(stored(ARMS))
    assert drawn(document).count(" down, ") == 1
    assert drawn(document, every=True).count(" down, ") == 3


def test_the_command_refuses_what_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pdbench(["surface", str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err
