"""Stored runs, whole and broken: what is there is read, what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pdbench.errors import UsageError
from pdbench.measure.latency import floats, request_metrics
from pdbench.report.formats import FORMATS, Asked
from pdbench.store import read_run
from pdbench.stored import UNFINISHED, open_run
from tests.unit.documents import INVALID
from tests.unit.measure.helpers import request
from tests.unit.measure.serverhelp import lifecycle, step
from tests.unit.storedhelp import NAME, document, write

WARM = request(9, 5, [3], warmup=True, request_id="w9")


def rows(arm: str, pair: int, *, server: bool = True) -> tuple[str, int, Any, Any, Any]:
    records = [request(0, 10 + pair, [5, 7], request_id="r0"), request(1, None, status="error", request_id="r1"), WARM]
    books = [lifecycle("r0", [1010, 1015, 1022], arrive=1001), lifecycle("w9", [1005, 1008], arrive=1000)]
    log = [step(0, 1001, 1010, 50, 0), step(0, 1010, 1015)]
    return arm, pair, records, books if server else [], log if server else []


def test_a_sealed_run(tmp_path: Path) -> None:
    path = write(tmp_path, [rows("a", 0), rows("b", 0), rows("a", 1), rows("b", 1)])
    run = open_run(str(path))
    assert (run.name, run.kind, run.arms, run.base, run.notes) == (NAME, "compare", ("a", "b"), "a", [
        "a: the server's books hold 4 of 6 requests", "b: the server's books hold 4 of 6 requests",
    ])  # fmt: skip
    assert run.manifest is not None
    strict = read_run(path)
    for arm in run.arms:
        mine, chunks = (one.loc[(one["arm"] == arm).to_numpy(bool)] for one in (strict.requests, strict.tokens))
        derived = request_metrics(mine, chunks)
        found = run.numbers(arm)
        np.testing.assert_array_equal(found.ttft_ms, floats(derived["ttft_ns"]) / 1e6)
        assert found.pairs == [0, 1]
        assert found.measured().gaps_ms.tolist() == [5, 7, 5, 7]
        assert run.numbers(arm) is found
    assert [objective.text for objective in run.objectives] == ["ttft p90 <= 400ms", "worst_gap p90 <= 100ms"]
    lifecycles = run.lifecycles("a")
    assert lifecycles["warmup"].tolist() == [False, True, False, True]
    assert lifecycles["index"].tolist() == [0, 9, 0, 9]
    assert run.steps("a")["device"].tolist() == ["worker 0"] * 4
    assert run.requests("b")["status"].tolist() == ["ok", "error", "ok"] * 2
    with pytest.raises(UsageError, match="no arm 'A'"):
        run.numbers("A")


def test_by_name_and_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "results", [rows("a", 0)])
    monkeypatch.chdir(tmp_path)
    assert open_run(NAME).arms == ("a",)
    assert len(open_run(str(path / "summary.json")).numbers("a")) == 3
    alone = tmp_path / "alone.json"
    alone.write_bytes((path / "summary.json").read_bytes())
    run = open_run(str(alone))
    assert run.arms == ("a",)
    assert "give the run's directory" in run.notes[0]
    assert len(run.numbers("a")) == len(run.lifecycles("a")) == len(run.steps("a")) == len(run.requests("a")) == 0
    assert run.numbers("a").measured().pairs == []


def test_an_unfinished_run(tmp_path: Path) -> None:
    path = write(tmp_path, [rows("a", 0), rows("b", 0), rows("a", 1)], seal=False)
    torn = path / "segments" / "requests-0001.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    run = open_run(str(path))
    assert run.kind == UNFINISHED
    assert run.manifest is None
    assert run.arms == ("a",)
    assert run.document["validity"]["status"] == "INVALID"
    assert run.document["arms"]["a"]["requests"] == {"scheduled": 4, "ok": 2, "failed": 2, "warmup": 2}
    assert run.document["pairs"] == 2
    assert run.document["workload"]["name"] == "interference"
    assert "the run is unfinished" in run.notes[0]
    assert "requests-0001.parquet is torn" in run.notes[1]
    assert len(run.numbers("a")) == 6
    assert len(run.steps("a")) == 4


@pytest.mark.parametrize("seal", [True, False])
def test_a_run_without_requests(tmp_path: Path, seal: bool) -> None:
    run = open_run(str(write(tmp_path, [], seal=seal)))
    assert run.arms == ()
    assert run.base is None
    assert "no request was recorded" in run.notes[-1] or "no records are stored" in run.notes[-1]


def test_arms_without_requests_or_server(tmp_path: Path) -> None:
    path = write(tmp_path, [rows("a", 0, server=False), ("b", 0, [], [], [])], validity=INVALID)
    run = open_run(str(path))
    assert run.document["validity"]["status"] == "INVALID"
    assert len(run.numbers("b")) == 0
    assert run.notes == [
        "no server data of a: prefill shading, Gantt, hand-off and interference need a pdserve that lived to the end of"
        " the run (other servers do not tell)"
    ]
    assert len(run.lifecycles("a")) == len(run.steps("b")) == 0


def test_what_a_gate_set_aside_is_not_drawn(tmp_path: Path) -> None:
    aside = [{"pair": 0, "reasons": ["the probe moved"]}]
    run = open_run(str(write(tmp_path, [rows("a", 0), rows("a", 1)], kind="gate", set_aside=aside)))
    assert run.numbers("a").pairs == [1]
    assert set(run.lifecycles("a")["pair"]) == set(run.steps("a")["pair"]) == {1}
    assert run.notes[-1].startswith("pair 1 was run again")


def test_documents_without_arms(tmp_path: Path) -> None:
    path = write(tmp_path, [rows("a", 0)])
    found = json.loads((path / "summary.json").read_text())
    del found["arms"]
    found["kind"] = "calibration"
    (path / "summary.json").write_text(json.dumps(found))
    assert open_run(str(path)).arms == ("a",)
    (path / "summary.json").write_text(json.dumps({"arms": {}}))  # as a run's saturation/ has it
    part = open_run(str(path))
    assert (part.kind, part.name) == ("compare", NAME)
    assert part.document["validity"]["status"] == "INVALID"


@pytest.mark.parametrize("name", ["tokens.parquet", "server.parquet", "requests.parquet"])
@pytest.mark.parametrize("harm", ["torn", "gone"])
def test_broken_tables_are_told(tmp_path: Path, name: str, harm: str) -> None:
    path = write(tmp_path, [rows("a", 0)])
    if harm == "torn":
        (path / name).write_bytes(b"PAR1")
    else:
        (path / name).unlink()
    run = open_run(str(path))
    assert run.notes
    if harm == "torn":
        assert f"{name} is torn" in run.notes[0]
    assert run.arms == ("a",)
    assert len(run.numbers("a").gaps_ms) == (3 if name == "server.parquet" else 0)
    assert len(run.lifecycles("a")) == (0 if name == "server.parquet" else 2)
    # Without its tokens a request that ended well is unknown, not failed; the one that failed is still there.
    assert run.numbers("a").status.tolist() == {"tokens.parquet": ["error"], "requests.parquet": []}.get(
        name, ["ok", "error", "ok"]
    )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", b'{"schema_version": 0}', "an older version of pdbench"),
        ("manifest.json", b'{"schema_version": 2}', "another version of pdbench"),
        ("summary.json", b"[]", "is not a JSON object"),
        ("summary.json", b"{", "cannot be read"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    path = write(tmp_path, [rows("a", 0)])
    (path / file).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        open_run(str(path))


@pytest.mark.parametrize("content", [b'{"schema_ver', b"[]", b""])
def test_a_run_whose_manifest_is_torn_is_still_a_run(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, [rows("a", 0)])
    (path / "manifest.json").write_bytes(content)
    for given in (path, path / "summary.json"):
        run = open_run(str(given))
        assert (run.kind, run.arms, run.manifest) == ("compare", ("a",), None)
        assert run.notes[0].startswith("manifest.json is torn")
        assert "was not sealed" not in " ".join(run.notes)
        assert len(run.numbers("a")) == 3


@pytest.mark.parametrize(
    ("table", "column"), [("requests", "arm"), ("requests", "scheduled_ns"), ("tokens", "t_ns"), ("steps", "pair")]
)
def test_a_table_without_a_column_it_needs_is_left_out(tmp_path: Path, table: str, column: str) -> None:
    path = write(tmp_path, [rows("a", 0)])
    file = path / f"{table}.parquet"
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    run = open_run(str(path))
    assert f"{table}.parquet lacks {column} and is left out; run it again" in run.notes
    assert len(run.numbers("a")) == {"requests": 0, "tokens": 1}.get(table, 3)
    assert len(run.steps("a")) == (0 if table == "steps" else 2)


def test_a_table_with_broken_pages_is_named(tmp_path: Path) -> None:
    """Its end is whole, so it seems well until it is read."""
    path = write(tmp_path, [rows("a", 0)])
    file = path / "tokens.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:4] + b"\xff" * 60 + content[64:])
    run = open_run(str(path))
    with pytest.raises(UsageError, match="cannot be read") as told:
        run.numbers("a")
    assert str(told.value.where).endswith("tokens.parquet")


@pytest.mark.parametrize("arms", [["a", "b"], "a", None, {"a": 3}])
def test_arms_that_are_none(tmp_path: Path, arms: Any) -> None:
    path = write(tmp_path, [rows("a", 0)], arms=arms)
    alone = tmp_path / "alone.json"
    alone.write_bytes((path / "summary.json").read_bytes())
    for given in (path, path / "summary.json", alone):
        run = open_run(str(given))
        assert run.document["arms"] == {}
        assert "the summary's figures by arm cannot be read and are left out; run it again" in run.notes
        assert FORMATS["text"].export([run], Asked())


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema_version": 7}')
    (tmp_path / "empty").mkdir()
    for text, message in (
        ("no-such-run", "no stored run"),
        ("empty", "no stored run"),
        ("other.json", "another version"),
    ):
        with pytest.raises(UsageError, match=message):
            open_run(text if text == "no-such-run" else str(tmp_path / text))


def test_a_request_in_the_books_twice(tmp_path: Path) -> None:
    path = write(tmp_path, [rows("a", 0), rows("a", 0)], seal=False)
    with pytest.raises(UsageError, match="a request appears twice"):
        open_run(str(path))
    (path / "summary.json").write_text(json.dumps(document("compare", {"a": {}})))
    with pytest.raises(UsageError, match="a request appears twice"):
        open_run(str(path)).numbers("a")
