"""``pdbench gate`` as it is typed, every exit code: most with pairs replayed, two with servers that run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
import xmlschema
import yaml

from pdbench import calibrate, schema
from pdbench.cli.main import run as typed
from pdbench.errors import Interrupted
from pdbench.pairs import Both, RunPair
from pdbench.stage import Stage
from pdbench.target.backend import load_backend
from tests.e2e.transcript import ROOT, Desk, brief, tiny, until
from tests.unit.gatehelp import Replay, alternating, honest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

XSD = ROOT / "tests" / "unit" / "report" / "junit.xsd"
FAST = {"arrivals": "{process: constant, rate: 100}", "num_requests": "60"}


def check(document: dict[str, Any], kind: str = "verdict") -> None:
    jsonschema.Draft202012Validator(schema.load(kind)).validate(document)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder, desk = tmp_path_factory.mktemp("fakes"), Desk()
    with desk.fake(folder) as base, desk.fake(folder) as head:
        yield f"old={base}", f"new={head}"


def broken(number: int, turn: int) -> Both:
    """Interrupted before the first run of the stage."""
    raise Interrupted("interrupted")


def replay(name: str) -> RunPair:
    match name:
        case "alternating":
            return alternating()
        case "broken":
            return broken
        case "another plan":
            return Replay(honest()["same"][0], honest()["slow"][1])
    return Replay(*honest()[name])


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("same", 0, "PASS"),
        ("slow", 10, "FAIL"),
        ("alternating", 11, "INCONCLUSIVE"),
        ("another plan", 12, "INVALID"),
        ("broken", 130, "INVALID"),
    ],
)
def test_every_exit_code(
    name: str, code: int, status: str, urls: tuple[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Real servers that are started and asked; pairs that were simulated; real verdicts, files and exit codes."""
    replayed = replay(name)
    asked: list[tuple[int, int]] = []

    def run_pair(stage: Stage, number: int, turn: int) -> Both:
        asked.append((number, turn))
        return replayed(number, turn)

    monkeypatch.setattr("pdbench.gate.run_pair", run_pair)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    slo = [
        part for text in ("ttft p90 <= 1s", "tpot p90 <= 40ms", "worst_gap p90 <= 200ms") for part in ("--slo", text)
    ]
    args = ["gate", "--base", urls[0], "--head", urls[1], "--workload", brief(tmp_path), *slo, "--max-pairs", "6"]
    out = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md"), "-o", str(tmp_path / "out")]
    assert typed([*args, *out, "--primary", "ttft_p90", "--json"]) == code
    if name == "broken":
        assert not (tmp_path / "step.md").exists()
        return
    document = json.loads(capsys.readouterr().out)
    check(document)
    assert (document["status"], document["exit_code"]) == (status, code)
    assert asked[0] == (0, 0)
    folder = tmp_path / "out" / document["run"]
    assert json.loads((folder / "verdict.json").read_text()) == document
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), schema.load("manifest"))
    xmlschema.XMLSchema10(str(XSD)).validate(str(tmp_path / "j.xml"))
    assert f"pdbench gate: {status}" in (tmp_path / "m.md").read_text()
    assert (tmp_path / "step.md").read_text() == (tmp_path / "m.md").read_text()
    assert typed(["report", str(folder)]) == 0
    assert f"{status}: " in capsys.readouterr().out, "the verdict again, in words"


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ((), "--base is missing"),
        (("--base", "colocated"), "--head is missing"),
        (("--base", "colocated", "--head", "nothing"), "'nothing' is not a backend"),
        (("--base", "old", "--head", "new", "--max-pairs", "5"), "do not reach the first look"),
        (("--base", "old", "--head", "new", "--primary", "mood"), "not a metric of the gate"),
        (("--base", "old", "--head", "new", "--inject-head", "decode:2"), "is not a pdserve"),
        (("--base", "old", "--calibrate", "--max-pairs", "2"), "do not show a spread"),
        (("--base", "old", "--head", "new", "--calibrate"), "against itself"),
        (("--base", "absent.json", "--head", "new"), "no baseline"),
        (("--base", "old", "--head", "new", "--junit", "/nowhere/j.xml", "--max-pairs", "6"), "cannot write"),
    ],
)
def test_usage(
    args: tuple[str, ...], what: str, urls: tuple[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("pdbench.gate.run_pair", lambda stage, number, turn: Replay(*honest()["same"])(number, turn))
    named = [{"old": urls[0], "new": urls[1]}.get(arg, arg) for arg in args]
    assert typed(["gate", *named, "--workload", brief(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert what in capsys.readouterr().err


def test_arms_with_other_devices_are_invalid_before_any_run(desk: Desk, tmp_path: Path) -> None:
    with desk.fake(tmp_path) as url:
        for name, devices in (("one", 1), ("two", 2)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "base_url": url, "devices": devices}))
        sides = ("--base", str(tmp_path / "one.yaml"), "--head", str(tmp_path / "two.yaml"))
        out = ("--workload", brief(tmp_path), "-o", str(tmp_path / "out"), "--json")
        typed_ = desk.type("gate", *sides, *out)
    assert typed_.code == 12, typed_
    check(typed_.document)
    assert typed_.document["pairs"] == 0
    assert "number of devices: base 1, head 2" in typed_.document["sentence"]


def test_calibrate(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it learns is stored for this machine, and the next gate reads it."""
    fit = replay("same")
    moved = {"gemm": 1.0}, {"gemm": 1.05}

    def run_pair(stage: Stage, number: int, turn: int) -> Both:
        base, head = fit(number, turn)
        return dataclasses.replace(base, probe=moved[0]), dataclasses.replace(head, probe=moved[1])

    monkeypatch.setattr("pdbench.calibrate.run_pair", run_pair)
    monkeypatch.setattr("pdbench.gate.run_pair", run_pair)
    common = ["--base", urls[0], "--workload", brief(tmp_path), "-o", str(tmp_path / "out"), "--json"]
    common += ["--slo", "ttft p90 <= 1s", "--max-pairs", "6"]
    versus = ["gate", *common, "--head", urls[1], "--primary", "ttft_p90"]
    assert typed(versus) == 12, "5 % are too much for an unknown machine"
    assert "gate --calibrate" in json.loads(capsys.readouterr().out)["validity"]["reasons"][0]["remedy"]

    assert typed(["gate", "--calibrate", *common]) == 0
    document = json.loads(capsys.readouterr().out)
    check(document, "calibration")
    assert document["probe_sd"] == {"gemm": pytest.approx(0.0488, abs=1e-3)}
    assert document["metrics"]["ttft_p90"]["mde"]["6"] > 0
    (path,) = (tmp_path / "out" / "calibration").glob("*.json")
    assert (path.stem, json.loads(path.read_text())) == (document["key"], document)
    assert typed(["report", str(tmp_path / "out" / document["run"])]) == 0
    assert "pair SD" in capsys.readouterr().out

    assert typed(versus) == 0
    assert json.loads(capsys.readouterr().out)["probe_sd"] == document["probe_sd"]
    path.write_text("{}")
    assert typed(versus) == 2
    assert "calibrate again" in capsys.readouterr().err


def test_a_calibration_without_good_pairs_stores_nothing(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pdbench.calibrate.run_pair", lambda stage, number, turn: replay("another plan")(number, turn))
    common = ["--base", urls[0], "--workload", brief(tmp_path), "-o", str(tmp_path / "out"), "--max-pairs", "5"]
    assert typed(["gate", "--calibrate", *common]) == 12
    assert "only 0 pairs were measured well" in capsys.readouterr().out
    assert not (tmp_path / "out" / "calibration").exists()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_server_against_its_like_passes(desk: Desk, tmp_path: Path) -> None:
    workload = tiny(tmp_path, **FAST)
    with desk.fake(tmp_path) as base, desk.fake(tmp_path) as head:
        typed_ = desk.type(
            *("gate", "--base", f"old={base}", "--head", f"new={head}", "--workload", workload),
            *("--primary-only", "--slo-check", "--max-pairs", "6", "--redo", "5"),
            *("-o", str(tmp_path / "out"), "--json"),
        )
    assert typed_.code == 0, typed_
    document = typed_.document
    check(document)
    assert (document["status"], document["pairs"], document["looked"]) == ("PASS", 6, [{"pairs": 6, "status": "PASS"}])
    assert {check["outcome"] for check in document["slo_check"].values()} == {"met"}
    assert all(arm["requests"]["scheduled"] == 360 for arm in document["arms"].values())
    assert not desk.leftovers()


def test_interrupted(desk: Desk, tmp_path: Path) -> None:
    with desk.fake(tmp_path) as base, desk.fake(tmp_path) as head:
        process = desk.start(
            *("gate", "--base", f"old={base}", "--head", f"new={head}", "--workload", brief(tmp_path)),
            *("-o", str(tmp_path / "out"), "--json"),
        )
        until(lambda: list((tmp_path / "out").glob("*/segments/requests-*.parquet")), "the first run")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    document = json.loads(out)
    check(document)
    assert (document["status"], document["exit_code"]) == ("INVALID", 130)
    assert any("interrupted" in reason["message"] for reason in document["validity"]["reasons"])


SMALL = """\
name: small
arrivals: {process: constant, rate: 10}
prompt_tokens: {distribution: fixed, value: 32}
output_tokens: {distribution: fixed, value: 4}
num_requests: 10
warmup: 0
slo: ["ttft p90 <= 5s", "tpot p90 <= 1s"]
"""


def test_the_reference_engine_that_drops_requests_fails(desk: Desk, tmp_path: Path) -> None:
    """The whole of it: two deployments, probes, a head made worse on purpose."""
    backend = tmp_path / "small.yaml"
    workers = [{"role": "mixed", "device": 0, "max_batch": 4}]
    model = {"preset": "llama-10m", "dtype": "float32"}
    backend.write_text(yaml.safe_dump({"name": "small", "engine": "pdserve", "model": model, "workers": workers}))
    (tmp_path / "load.yaml").write_text(SMALL)
    out = tmp_path / "out"
    # What this machine's probe does is not what is tested: let it do anything.
    known = calibrate.path_of(out, calibrate.key_of(load_backend(backend)))
    known.parent.mkdir(parents=True)
    known.write_text(json.dumps({"schema_version": 1, "probe_sd": dict.fromkeys(("gemm", "copy", "transfer"), 9.0)}))
    typed_ = desk.type(
        *("gate", "--base", str(backend), "--head", str(backend), "--inject-head", "drop:60%"),
        *("--max-pairs", "6", "--redo", "5"),  # a busy machine may spoil a pair
        *("--workload", str(tmp_path / "load.yaml"), "-o", str(out), "--json", "--junit", str(tmp_path / "j.xml")),
        deadline_s=240,
    )
    document = typed_.document
    check(document)
    assert (typed_.code, document["status"]) == (10, "FAIL"), typed_
    assert document["sides"]["head"]["inject"] == {"drop": "60%"}
    assert document["metrics"]["joint_attainment"]["status"] == "FAIL"
    arms = document["arms"]
    assert arms["small-base"]["requests"]["failed"] == 0, "calibration and abilities are asked for without drops"
    assert arms["small-head"]["requests"]["failed"] > 10
    failed = ET.parse(tmp_path / "j.xml").findall(".//failure")
    assert failed
    probes = pd.read_parquet(out / document["run"] / "probes.parquet")
    runs = 2 * (document["pairs"] + len(document["set_aside"]))  # a busy machine may have a pair run again
    assert len(probes) == 3 * runs >= 36, "three kernels before each run"
    assert set(probes["kernel"]) == {"gemm", "copy", "transfer"}
    assert (probes["seconds"] > 0).all()
    assert not desk.leftovers()
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("pdbench-inject-*/small.yaml"))
