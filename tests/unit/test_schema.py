"""The documents' schemas are themselves valid, accept what the rooms make, and refuse what they must not
hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pandas as pd
import pytest

from pdbench import schema
from pdbench.measure.metrics import handoff_gap_ms, summarise
from pdbench.measure.slo import parse_objectives
from pdbench.measure.validity import Reason, judge, of_reasons
from pdbench.settings import workload_data
from pdbench.stats.paired import comparisons
from pdbench.workload.plan import make_plan
from tests.unit.measure.helpers import frames, request
from tests.unit.workload.helpers import workload

SLO = ["ttft p90 <= 400ms", "tbt p90 <= 40ms", "errors <= 1%"]


def arm_runs(arm: str, pairs: int = 2) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    return [
        frames(
            *[request(i, 50 + 10 * i + pair, [10, 20, 9 + pair], user_lag_ns=[500]) for i in range(12)],
            request(12, None, status="error"),
            request(13, 10, warmup=True),
            arm=arm,
            pair=pair,
        )
        for pair in range(pairs)
    ]


def document(kind: str = "compare", *, simulated: bool = False) -> dict[str, Any]:
    objectives = parse_objectives(SLO)
    runs = {name: arm_runs(name) for name in (["a", "b"] if kind == "compare" else ["a"])}
    arms: dict[str, Any] = {}
    for name, frames_of in runs.items():
        requests, tokens = (pd.concat(column) for column in zip(*frames_of, strict=True))
        validity = judge(requests, objectives, "kernel", tokens=tokens, scheduled=26)
        arms[name] = summarise(requests, tokens, objectives, 2, validity=validity, simulated=simulated)
        arms[name]["handoff"] = {"transfers": 16, "bytes": 99, "gap_ms": handoff_gap_ms(requests, tokens)}
        arms[name]["device_busy"] = [0.4, 0.6]
    found: dict[str, Any] = {
        "schema_version": 1,
        "kind": kind,
        "run": "20260102T030405Z-chat-1a2b3c4",
        "workload": {k: v for k, v in msgspec.to_builtins(workload(slo=SLO)).items() if v is not None},
        "slo": [o.text for o in objectives],
        "pairs": 2,
        "fingerprint": {"machine": "x"},
        "validity": {"status": "VALID", "reasons": []},
        "arms": arms,
        "sentence": "a and b are alike.",
    }
    found["workload"] = json.loads(json.dumps(_without_none(found["workload"])))
    if kind == "compare":
        per_pair = {n: [summarise(*frame, objectives, 2) for frame in frames_of] for n, frames_of in runs.items()}
        found["comparisons"] = comparisons(per_pair, "a", ["a", "b"])
    plain: dict[str, Any] = json.loads(msgspec.json.encode(found))
    return plain


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def check(kind: str, found: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema.load(kind)).validate(found)


@pytest.mark.parametrize("name", schema.NAMES)
def test_schemas_are_valid_and_stand_alone(name: str) -> None:
    loaded = schema.load(name)
    jsonschema.Draft202012Validator.check_schema(loaded)
    assert "common.schema.json" not in json.dumps(loaded)


def test_an_unknown_schema() -> None:
    with pytest.raises(ValueError, match="no schema 'x'"):
        schema.load("x")


def test_a_comparison_validates() -> None:
    found = document()
    check("compare", found)
    assert len(found["comparisons"]) > 3


def test_a_run_and_a_simulation_validate() -> None:
    check("run", document("run"))
    check("simulate", document("simulate", simulated=True))


def test_infinite_and_invalid_documents_validate() -> None:
    found = document()
    assert found["arms"]["a"]["ttft_ms"]["p99"] is None
    found["validity"] = of_reasons([Reason("late", "hurry")]).document()
    check("compare", found)


def at(found: dict[str, Any], path: str) -> tuple[Any, Any]:
    *front, last = path.split("/")
    for key in front:
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found, last


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("kind", "run"),
        ("pairs", 0),
        ("surprise", 1),
        ("arms", {}),
        ("arms/a/ttft_ms", {"p50": 1.0}),
        ("arms/a/ttft_s", {"p50": 1.0, "p90": 1.0, "p99": 1.0}),
        ("arms/a/attainment/joint", 1.5),
        ("arms/a/attainment/joint", 97),
        ("arms/a/devices", 0),
        ("arms/a/requests/ok", -1),
        ("validity", {"status": "INVALID", "reasons": []}),
        ("validity", {"status": "VALID", "reasons": [{"message": "x", "remedy": "y"}]}),
        ("validity", {"status": "MAYBE", "reasons": []}),
        ("comparisons/0/verdict", "probably better"),
        ("comparisons/0/interval", [0.1]),
        ("comparisons/0/scale", "percent"),
        ("workload/arrivals/process", "weibull"),
        ("workload/surprise", 1),
    ],
)
def test_what_a_document_must_not_hold(path: str, value: Any) -> None:
    found = copy.deepcopy(document())
    parent, key = at(found, path)
    parent[key] = value
    with pytest.raises(jsonschema.ValidationError):
        check("compare", found)


@pytest.mark.parametrize("key", ["schema_version", "validity", "arms", "comparisons", "sentence", "slo"])
def test_what_a_document_must_hold(key: str) -> None:
    found = document()
    del found[key]
    with pytest.raises(jsonschema.ValidationError, match=key):
        check("compare", found)


def test_a_simulation_says_so() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("simulate", document("simulate", simulated=False))


def test_the_manifest() -> None:
    found: dict[str, Any] = {
        "schema_version": 1,
        "kind": "run",
        "run": "x",
        "argv": ["pdbench", "run"],
        "config": {"workload": document("run")["workload"], "seed": 0},
        "fingerprint": {},
        "plan_hashes": [make_plan(workload(), seed=0, max_model_len=None).hash],
        "validity": {"status": "VALID", "reasons": []},
    }
    check("manifest", found)
    found["plan_hashes"] = ["abc"]
    with pytest.raises(jsonschema.ValidationError):
        check("manifest", found)


@pytest.mark.parametrize(
    "changes",
    [
        {"arrivals": {"process": "step", "from": 2, "to": 8, "at": "3s", "gaps": "gamma", "burstiness": 0.5}},
        {"arrivals": {"process": "curve", "points": [[0, 1], [3, 0.5]], "interpolate": "step"}},
        {"arrivals": {"process": "closed", "points": [[0, 1], [3, 5]]}, "duration": "9s"},
        {"arrivals": {"process": "trace", "file": "x", "format": "bailian", "jitter": "3s"}, "prompt_tokens": None},
        {"prompt_tokens": {"distribution": "empirical", "values": [3, 4], "weights": [1, 2.5]}},
        {"output_tokens": {"distribution": "empirical", "file": "x.csv", "column": "a"}},
        {"prompts": {"file": "x", "tokenizer": "y", "ids": True}, "prompt_tokens": None},
        {"prefix": {"tokens": 5, "share": 0.5}, "sessions": {"turns": 2, "think": "5s"}},
    ],
)
def test_what_a_workload_may_say_the_schema_takes(changes: dict[str, Any]) -> None:
    found = json.loads(msgspec.json.encode(workload_data(workload(**changes))))
    jsonschema.validate(found, {"$ref": "#/$defs/workload", "$defs": schema.load("run")["$defs"]})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "workloads").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_workload_is_a_workload_with_a_plan(path: Path) -> None:
    from pdbench.settings import load_workload

    loaded = load_workload(str(path))
    assert loaded.name == path.stem
    assert loaded.description
    parse_objectives(loaded.slo)
    plan = make_plan(loaded, seed=0, max_model_len=4096)
    assert len(plan) == loaded.num_requests + loaded.warmup
