from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from pdbench.errors import UsageError
from pdbench.measure.metrics import request_metrics
from pdbench.store import SCHEMAS, RunStore, new_run_dir, read_run, write_json
from pdbench.workload.plan import make_plan
from tests.unit.measure.helpers import frames, request
from tests.unit.workload.helpers import workload

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MANIFEST: dict[str, Any] = {"kind": "compare", "plan_hashes": []}


def filled(path: Path) -> RunStore:
    store = RunStore(path)
    store.write_plan([make_plan(workload(num_requests=3), seed=1, pair=p, max_model_len=None) for p in (0, 1)])
    for pair in (0, 1):
        for arm in ("a", "b"):
            records = [
                request(0, 100, [10, 20], user_lag_ns=[1, 2]),
                request(1, None, status="timeout", sent_ns=None, end_ns=None, error="slow"),
                request(2, 50, warmup=True),
            ]
            store.append_run(*frames(*records, arm=arm, pair=pair))
    return store


def test_a_plan_keeps_what_its_prompts_share(tmp_path: Path) -> None:
    plan = make_plan(workload(num_requests=3, warmup=0, prefix={"tokens": 8}), seed=1)
    store = RunStore(tmp_path)
    store.write_plan([plan, replace(make_plan(workload(num_requests=1, warmup=0), seed=1), pair=1)])
    store.seal(MANIFEST, {})
    found = read_run(tmp_path).plan["segments"]
    assert [[piece.tolist() for piece in pieces] for pieces in found[:3]] == [[[0, 8]]] * 3
    assert found[3] is None


def test_the_folder_is_named_by_time_workload_and_commit(tmp_path: Path) -> None:
    first = new_run_dir(tmp_path / "results", "chat", "1a2b3c4", NOW)
    assert first == tmp_path / "results" / "20260102T030405Z-chat-1a2b3c4"
    assert first.is_dir()
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert new_run_dir(tmp_path / "results", "chat", "1a2b3c4", elsewhere).name == f"{first.name}-2"
    assert new_run_dir(tmp_path, "../up and away", "x", NOW).parent == tmp_path


def test_a_parent_that_is_a_file_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for parent in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError) as caught:
            new_run_dir(parent, "chat", "x", NOW)
        assert caught.value.where == "-o"


def test_a_sealed_run_reads_back(tmp_path: Path) -> None:
    filled(tmp_path).seal(MANIFEST, {"schema_version": 1, "x": math.inf})
    run = read_run(tmp_path)
    assert run.sealed
    assert run.manifest == {"schema_version": 1, **MANIFEST}
    assert run.summary == {"schema_version": 1, "x": None}
    assert len(run.requests) == 12
    assert len(run.tokens) == 16
    assert run.plan["pair"].tolist() == [0] * 13 + [1] * 13
    assert not (tmp_path / "segments").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latency.hlog",
        "manifest.json",
        "plan.parquet",
        "requests.parquet",
        "summary.json",
        "tokens.parquet",
    ]


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    given = frames(request(0, 100, [10], user_lag_ns=[5]), request(1, None, status="error", sent_ns=None))
    store = RunStore(tmp_path)
    store.append_run(*given)
    store.seal(MANIFEST, {})
    run = read_run(tmp_path)
    lists = run.requests.pop("user_lag_ns"), given[0].pop("user_lag_ns")
    assert [list(x) for x in lists[0]] == list(lists[1])
    pd.testing.assert_frame_equal(run.requests[given[0].columns], given[0])
    pd.testing.assert_frame_equal(run.tokens, given[1])
    assert run.requests["sent_ns"].isna().tolist() == [False, True]


def test_the_schema_holds_every_column_of_the_frames() -> None:
    for name, frame in zip(("requests", "tokens"), frames(request(0, 1)), strict=True):
        assert set(SCHEMAS[name].names) == set(frame.columns)


def test_metrics_are_the_same_from_disk(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = read_run(tmp_path)
    store.seal(MANIFEST, {})
    after = read_run(tmp_path)
    one, two = (request_metrics(run.requests, run.tokens) for run in (before, after))
    pd.testing.assert_frame_equal(one, two)
    assert two["ttft_ns"].tolist()[:3] == [1e8, math.inf, 5e7]


def test_a_killed_run_is_readable_and_says_that_it_is_unfinished(tmp_path: Path) -> None:
    filled(tmp_path)
    run = read_run(tmp_path)
    assert not run.sealed
    assert run.summary is None
    assert len(run.requests) == 12
    assert run.torn == ()


def test_a_torn_segment_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    filled(tmp_path)
    segment = tmp_path / "segments" / "requests-0003.parquet"
    segment.write_bytes(segment.read_bytes()[:-20])
    (tmp_path / "segments" / ".tokens-0009.parquet.part").write_bytes(b"PAR1")
    run = read_run(tmp_path)
    assert run.torn == ("requests-0003.parquet",)
    assert len(run.requests) == 9


def test_a_kill_between_merging_and_sealing_loses_nothing(tmp_path: Path) -> None:
    filled(tmp_path).seal(MANIFEST, {})
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UsageError, match="not a run"):
        read_run(tmp_path)
    filled(tmp_path)
    assert len(read_run(tmp_path).requests) == 12


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        store = filled(tmp_path / name)
        store.write_server([{"request_id": "x", "end_ns": None}], [{"worker": 0, "start_ns": 5}], arm="a", pair=0)
        store.seal(MANIFEST, {"b": 1, "a": [1.5, None]})
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [p.name for p in one] == [p.name for p in two]
    for left, right in zip(one, two, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name


def test_the_servers_own_stamps(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write_server([{"request_id": "x", "end_ns": None, "token_ns": [1, 2]}], [], arm="a", pair=0)
    store.write_server([{"request_id": "y", "end_ns": 2**60 + 1, "token_ns": []}], [{"worker": 1}], arm="a", pair=1)
    store.write_server([{"arm": "b", "pair": 7, "request_id": "z"}], [])
    store.seal(MANIFEST, {})
    run = read_run(tmp_path)
    assert run.server["request_id"].tolist() == ["x", "y", "z"]
    assert run.server["arm"].tolist() == ["a", "a", "b"]
    assert run.server["pair"].tolist() == [0, 1, 7]
    assert run.server["end_ns"].isna().tolist() == [True, False, True]
    assert run.server["end_ns"][1] == 2**60 + 1
    assert run.steps["worker"].tolist() == [1]


def test_a_run_without_rows(tmp_path: Path) -> None:
    RunStore(tmp_path).seal(MANIFEST, {})
    run = read_run(tmp_path)
    assert len(run.requests) == len(run.tokens) == len(run.plan) == len(run.server) == 0


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"schema_version": 0}, "an older version of pdbench: schema_version is 0, expected 1"),
        ({"schema_version": 2}, "another version of pdbench: schema_version is 2"),
        ({}, "schema_version is None"),
    ],
)
def test_another_schema_is_refused(tmp_path: Path, manifest: dict[str, int], message: str) -> None:
    filled(tmp_path).seal(MANIFEST, {})
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("manifest.json", b"{"), ("manifest.json", b"[]"), ("summary.json", b"\xff"), ("tokens.parquet", b"PAR1")],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    filled(tmp_path).seal(MANIFEST, {})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_run(tmp_path)
    assert caught.value.where == str(tmp_path / name)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    filled(tmp_path).seal(MANIFEST, {})
    (tmp_path / "requests.parquet").unlink()
    with pytest.raises(UsageError, match=r"requests\.parquet"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_not_a_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"not a run: no manifest\.json"):
        read_run(tmp_path / name)


def test_the_histogram_log_is_read_by_the_library(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.append_run(*frames(*[request(i, 10 * (i + 1), [7]) for i in range(10)], request(10, None, status="error")))
    store.seal(MANIFEST, {})
    text = (tmp_path / "latency.hlog").read_text()
    assert "a: 1 requests did not complete" in text
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("Tag=")] == [
        "Tag=a.ttft",
        "Tag=a.e2e",
        "Tag=a.worst_gap",
        "Tag=a.tbt",
    ]
    reader = HistogramLogReader(str(tmp_path / "latency.hlog"), HdrHistogram(1, 3_600_000_000, 3))
    try:
        ttft = reader.get_next_interval_histogram()
    finally:
        reader.input_file.close()
    assert ttft.get_total_count() == 10
    assert ttft.get_value_at_percentile(90) == pytest.approx(90_000, rel=1e-3)


def test_documents_take_numpy_and_paths(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"n": np.int64(3), "a": np.array([1.5]), "p": Path("x"), "nan": math.nan})
    assert json.loads((tmp_path / "x.json").read_text()) == {"n": 3, "a": [1.5], "p": "x", "nan": None}
    with pytest.raises(TypeError, match="does not belong"):
        write_json(tmp_path / "x.json", {"n": object()})
