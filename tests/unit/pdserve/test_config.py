"""Backend files: what is refused, and where the finger points."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pdserve.config import ConfigError, WorkerConfig, parse
from pdserve.devices import Core, physical_cores, resolve
from pdserve.resolve import describe

MIXED: dict[str, Any] = {"name": "m", "workers": [{"role": "mixed", "device": "cpu:0"}]}


def with_worker(**keys: Any) -> dict[str, Any]:
    return {"name": "m", "workers": [{"role": "mixed", "device": "cpu:0", **keys}]}


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        (None, "", "mapping"),
        ({"name": "x"}, "", "workers"),
        ({**MIXED, "nmae": 1}, "nmae", "did you mean 'name'"),
        (with_worker(rol="x"), "workers[0].rol", "did you mean 'role'"),
        (with_worker(role="both"), "workers[0].role", "both"),
        (with_worker(max_batch=0), "workers[0].max_batch", "at least 1"),
        (with_worker(max_batch="many"), "workers[0].max_batch", "many"),
        (with_worker(policy="chunked", token_budget=32), "workers[0].token_budget", "not above max_batch"),
        (with_worker(policy="decode_only"), "workers[0].policy", "prefill_first or chunked"),
        (with_worker(device=-1), "workers[0].device", "0 or more"),
        ({"name": "x", "workers": []}, "workers", "at least one"),
        ({"name": "x", "workers": [{"role": "prefill", "device": 0}]}, "workers", "no decode worker"),
        ({**MIXED, "model": {"preset": "llama-30m", "path": "/x"}}, "model", "exactly one"),
        ({**MIXED, "model": {"preset": "llama-30m", "dtype": "int4"}}, "model.dtype", "int4"),
        ({**MIXED, "transfer": {"staging": 0}}, "transfer.staging", "at least 1"),
        ({**MIXED, "inject": {"decode": 0.5}}, "inject", "at least 1"),
        ({**MIXED, "inject": {"stall": "2% of 50ms"}}, "inject", "2%@50ms"),
        ({**MIXED, "port": 70000}, "port", "65535"),
        ({**MIXED, "cost_model": {"step_ms": -1.0}}, "cost_model.step_ms", "not negative"),
    ],
)
def test_bad_files_are_refused_with_their_key(data: Any, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    text = str(caught.value)
    assert text.startswith(where), text
    assert what in text, text


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ({"preset": "llama-31m"}, "llama-31m"),
        ({"path": "/nonexistent/model"}, "/nonexistent/model"),
        ({"preset": "llama-30m", "max_len": 5000}, "4096"),
    ],
)
def test_models_that_cannot_be_served_are_named(model: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        describe(parse({**MIXED, "model": model}))
    assert caught.value.problem.path[0] == "model"


def workers(*devices: int | str) -> list[WorkerConfig]:
    return [WorkerConfig(role="mixed", device=d) for d in devices]


@pytest.mark.parametrize(
    ("devices", "cores", "sets", "shared"),
    [
        ((0, 1), [(0,), (1,)], [(0,), (1,)], False),
        ((0, 1), [(0,), (1,), (2,), (3,)], [(0, 1), (2, 3)], False),
        ((0, 1, 2), [(0,), (1,), (2,), (3,)], [(0,), (1,), (2,)], False),
        ((0, 1), [(5,)], [(5,), (5,)], True),
        ((0, 0), [(0,), (1,)], [(0, 1), (0, 1)], True),
        (("cpu:1", "cpu:0"), [(0,), (1,)], [(1,), (0,)], False),
        ((0, 1), [(0, 4), (1, 5), (2, 6), (3, 7)], [(0, 1), (2, 3)], False),  # siblings i and i + n
        ((0, 1), [(0, 1), (2, 3)], [(0,), (2,)], False),  # siblings next to each other
        ((0, 1), [(0, 1)], [(0,), (1,)], True),  # two hardware threads of one core are not two devices
        ((0, 1, 2), [(0, 2), (1, 3)], [(0,), (1,), (2,)], True),
    ],
)
def test_core_sets_are_equal_and_share_no_physical_core_unless_they_say_so(
    devices: tuple[int | str, ...], cores: list[Core], sets: list[tuple[int, ...]], shared: bool
) -> None:
    found = resolve(workers(*devices), cores=cores, cuda=0)
    assert [d.cores for d in found] == sets
    assert all(d.shared == shared for d in found)


def test_cpus_are_grouped_by_physical_core(tmp_path: Path) -> None:
    for cpu in range(4):
        (tmp_path / f"cpu{cpu}").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    topology = str(tmp_path / "cpu{}")
    assert physical_cores([0, 1, 2, 3], topology) == [(0, 2), (1, 3)]
    assert physical_cores([1, 2, 9], topology) == [(1,), (2,), (9,)], "not ours, or the kernel does not say"
    assert sorted(cpu for core in physical_cores() for cpu in core) == sorted(os.sched_getaffinity(0))


def test_numbers_mean_gpus_where_there_are_some() -> None:
    assert [d.name for d in resolve(workers(0, 1), cores=[(0,), (1,)], cuda=2)] == ["cuda:0", "cuda:1"]
    with pytest.raises(ConfigError, match="no cuda:1"):
        resolve(workers(0, 1), cores=[(0,), (1,)], cuda=1)
    with pytest.raises(ConfigError, match="unknown device 'gpu0'"):
        resolve(workers("gpu0"), cores=[(0,)], cuda=0)


def test_a_tuning_note_is_taken_and_changes_nothing() -> None:
    note = {"workload": "chat", "sweep": [{"token_budget": 64, "joint": 0.9}]}
    noted = parse({**MIXED, "tuned": note})
    assert noted.tuned == note
    assert noted.workers == parse(MIXED).workers
    with pytest.raises(ConfigError, match="tuned"):
        parse({**MIXED, "tuned": "yes"})
