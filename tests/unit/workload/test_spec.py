from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pdbench.errors import UsageError
from pdbench.workload.overrides import with_overrides
from pdbench.workload.spec import Workload
from tests.unit.workload.helpers import workload

NAN, INF = float("nan"), float("inf")
FIXED = {"distribution": "fixed", "value": 4}


@pytest.mark.parametrize(
    "changes",
    [
        {"arrivals": {"process": "constant", "rate": 3}},
        {"arrivals": {"process": "gamma", "rate": 3, "burstiness": 0.5}},
        {"arrivals": {"process": "at", "times_ms": [0, 0, 5.5]}, "num_requests": 3},
        {"arrivals": {"process": "trace", "file": "x.csv"}, "prompt_tokens": None, "output_tokens": None},
        {"arrivals": {"process": "trace", "file": "x.csv", "rows": 5, "start_row": 2}},
        {"prompt_tokens": {"distribution": "uniform", "low": 4, "high": 4}},
        {"prompt_tokens": {"distribution": "lognormal", "median": 100, "sigma": 1, "high": 4000}},
        {"prompt_tokens": {"distribution": "list", "values": [1, 2]}, "num_requests": 2},
        {"warmup": 0},
        {"slo": []},
    ],
)
def test_good(changes: dict[str, Any]) -> None:
    assert workload(**changes).name == "chat"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrivals": {"process": "poisson", "rate": -1}}, "rate must be greater than 0, got -1"),
        ({"arrivals": {"process": "poisson", "rate": 0}}, "rate must be greater than 0, got 0"),
        ({"arrivals": {"process": "poisson", "rate": NAN}}, "rate must be greater than 0, got nan"),
        ({"arrivals": {"process": "poisson", "rate": INF}}, "rate must be greater than 0, got inf"),
        ({"arrivals": {"process": "poisson"}}, "rate is required for 'poisson'"),
        ({"arrivals": {"process": "poisson", "rate": 1, "burstiness": 2}}, "burstiness does not apply to 'poisson'"),
        ({"arrivals": {"process": "gamma", "rate": 1, "burstiness": 0}}, "burstiness must be greater than 0"),
        ({"arrivals": {"process": "constant", "rate": 1, "time_scale": 2}}, "time_scale does not apply"),
        ({"arrivals": {"process": "weibull", "rate": 1}}, "Invalid enum value 'weibull'"),
        ({"arrivals": {"process": "at", "times_ms": [5, 1]}, "num_requests": 2}, "times_ms must not go backwards"),
        ({"arrivals": {"process": "at", "times_ms": [-5]}, "num_requests": 1}, "times_ms must not be negative"),
        ({"arrivals": {"process": "at", "times_ms": []}}, "times_ms must not be empty"),
        ({"arrivals": {"process": "at", "times_ms": [1]}, "num_requests": 2}, "num_requests is 2 but arrivals"),
        ({"arrivals": {"process": "at", "times_ms": [1], "rate": 2}}, "rate does not apply to 'at'"),
        ({"arrivals": {"process": "trace"}}, "file is required for 'trace'"),
        ({"arrivals": {"process": "trace", "file": "x", "rows": 1, "start_s": 1}}, "slice one way"),
        ({"arrivals": {"process": "trace", "file": "x", "rate": 1, "time_scale": 2}}, "give one of them"),
        ({"arrivals": {"process": "trace", "file": "x", "rows": 0}}, "rows must be greater than 0"),
        ({"arrivals": {"process": "trace", "file": "x", "start_row": -1}}, "start_row must not be negative"),
        ({"arrivals": {"process": "trace", "file": "x", "length_scale": -1}}, "length_scale must be greater"),
        ({"prompt_tokens": {"distribution": "fixed", "value": 0}}, "value must be greater than 0, got 0"),
        ({"prompt_tokens": {"distribution": "fixed", "value": 10**9}}, "value must be at most"),
        ({"prompt_tokens": {"distribution": "fixed"}}, "value is required for 'fixed'"),
        ({"prompt_tokens": {**FIXED, "low": 1}}, "low does not apply to 'fixed'"),
        ({"prompt_tokens": {"distribution": "uniform", "low": 5, "high": 4}}, "low must not be greater than high"),
        ({"prompt_tokens": {"distribution": "lognormal", "median": 5, "sigma": 1}}, "high is required"),
        ({"prompt_tokens": {"distribution": "lognormal", "median": 5, "sigma": -1, "high": 9}}, "sigma must not"),
        ({"prompt_tokens": {"distribution": "list", "values": [1, 0]}, "num_requests": 2}, "values must be greater"),
        ({"prompt_tokens": {"distribution": "list", "values": [1]}, "num_requests": 2}, "prompt_tokens.values has 1"),
        ({"prompt_tokens": None}, "prompt_tokens is required unless"),
        ({"num_requests": 0}, "num_requests must be greater than 0, got 0"),
        ({"num_requests": True}, "Expected `int`"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
        ({"name": ""}, "name must not be empty"),
        ({"slo": [" "]}, "slo must not hold an empty objective"),
        ({"sampling": {"temperature": -0.1}}, "temperature must not be negative"),
        ({"numrequests": 3}, "unknown field `numrequests`"),
    ],
)
def test_bad(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        workload(**changes)
    assert message in str(caught.value)


def test_overrides_leave_the_rest() -> None:
    w = with_overrides(workload(), rate=4.0, num_requests=7, warmup=0, slo=["tpot p90 <= 40ms"])
    assert (w.arrivals.rate, w.num_requests, w.warmup, w.slo) == (4.0, 7, 0, ["tpot p90 <= 40ms"])
    assert w.prompt_tokens == workload().prompt_tokens
    assert with_overrides(workload()) == workload()


def test_burstiness_of_poisson_is_gamma() -> None:
    w = with_overrides(workload(), burstiness=0.5)
    assert (w.arrivals.process, w.arrivals.rate, w.arrivals.burstiness) == ("gamma", 2.0, 0.5)


def test_changing_the_process_keeps_the_rate() -> None:
    w = with_overrides(workload(), arrivals="constant")
    assert (w.arrivals.process, w.arrivals.rate) == ("constant", 2.0)
    assert with_overrides(workload(), arrivals="gamma", rate=3.0).arrivals.rate == 3.0


def test_duration_counts_requests_at_the_rate() -> None:
    assert with_overrides(workload(), rate=3.0, duration_s=20).num_requests == 60
    assert with_overrides(workload(), duration_s=0.01).num_requests == 1


def test_fixed_lengths_from_the_command_line() -> None:
    w = with_overrides(workload(), prompt_tokens=9, output_tokens=8)
    assert w.prompt_tokens is not None
    assert w.prompt_tokens.value == 9
    assert w.output_tokens is not None
    assert w.output_tokens.value == 8


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"rate": -1.0}, "--rate", "rate must be greater than 0, got -1"),
        ({"rate": NAN}, "--rate", "got nan"),
        ({"num_requests": 0}, "--num-requests", "num_requests must be greater than 0"),
        ({"warmup": -2}, "--warmup", "warmup must not be negative"),
        ({"time_scale": 2.0}, "--time-scale", "does not apply to 'poisson'"),
        ({"rows": 3}, "--slice", "does not apply to 'poisson'\n  add --arrivals trace:FILE"),
        ({"start_row": 1, "rows": 3}, "--slice", "add --arrivals trace:FILE"),
        ({"concurrency": 3}, "--concurrency", "does not apply to 'poisson'\n  add --arrivals closed"),
        ({"prompts": "p.jsonl", "arrivals": "trace:t.csv"}, "--arrivals", "prompts.file brings the lengths"),
        ({"arrivals": "poison"}, "--arrivals", "did you mean 'poisson'?"),
        ({"arrivals": "trace"}, "--arrivals", "a trace needs a file"),
        ({"arrivals": "constant", "burstiness": 2.0}, "--burstiness", "does not apply to 'constant'"),
        ({"duration_s": 0.0}, "--duration", "duration must be greater than 0"),
        ({"duration_s": 5.0, "num_requests": 5}, "", "give one"),
        ({"prompt_tokens": 0}, "--prompt-tokens", "must be greater than 0"),
    ],
)
def test_bad_overrides_name_the_option(options: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_overrides(workload(), **options)
    assert caught.value.where == where
    assert message in str(caught.value)


def test_a_trace_brings_its_own_lengths_and_duration_slices_it(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = "".join(f"2023-11-16 18:15:{s:02}.0,10,5\n" for s in range(30))
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    w = with_overrides(workload(), arrivals=f"trace:{file}", duration_s=10)
    assert w.prompt_tokens is None
    assert w.num_requests == 10
    assert with_overrides(workload(), arrivals=f"trace:{file}", rows=4).num_requests == 4
    own = with_overrides(workload(), arrivals=f"trace:{file}", prompt_tokens=9, output_tokens=8)
    assert own.prompt_tokens is not None
    assert own.output_tokens is not None
    assert (own.prompt_tokens.value, own.output_tokens.value) == (9, 8)
    few = {"distribution": "list", "values": [1, 2]}
    trace = workload(arrivals={"process": "trace", "file": str(file)}, prompt_tokens=few, num_requests=2)
    with pytest.raises(UsageError, match="num_requests is 10 but prompt_tokens"):
        with_overrides(trace, duration_s=10)
    with pytest.raises(UsageError, match="takes its lengths from a trace"):
        with_overrides(w, arrivals="poisson")


def test_instants_have_no_rate_and_no_duration() -> None:
    w = workload(arrivals={"process": "at", "times_ms": [0, 1]}, num_requests=2)
    with pytest.raises(UsageError, match="rate does not apply to 'at'"):
        with_overrides(w, rate=2)
    with pytest.raises(UsageError, match="names its instants"):
        with_overrides(w, duration_s=2)


def test_a_workload_survives_json() -> None:
    w = workload(arrivals={"process": "at", "times_ms": [0, 5.5]}, num_requests=2)
    assert msgspec.json.decode(msgspec.json.encode(w), type=Workload) == w
