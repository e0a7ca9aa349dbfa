"""Options, variables, YAML and defaults: who wins, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pdbench.cli.main import COMMANDS, run
from pdbench.cli.options import joined_goodput
from pdbench.errors import UsageError
from pdbench.settings import Overrides, load_workload


def config(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert run(["run", "x=http://127.0.0.1:1", *args, "--print-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_option_over_environment_over_yaml_over_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config(capsys)["workload"]["arrivals"]["rate"] == 2.0
    monkeypatch.setenv("PDBENCH_RATE", "3")
    monkeypatch.setenv("PDBENCH_SEED", "9")
    assert config(capsys)["workload"]["arrivals"]["rate"] == 3.0
    found = config(capsys, "--rate", "4")
    assert found["workload"]["arrivals"]["rate"] == 4.0
    assert found["seed"] == 9


def test_slo_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDBENCH_SLO", "ttft p90 <= 0.4s; tpot p99 <= 50ms")
    assert config(capsys)["workload"]["slo"] == ["ttft p90 <= 400ms", "tpot p99 <= 50ms"]


def test_slo_replaces_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    found = config(capsys, "--slo", "ttft p90 <= 0.4s", "--slo", "errors <= 1%")
    assert found["workload"]["slo"] == ["ttft p90 <= 400ms", "errors <= 1%"]


def test_goodput_takes_several_values(capsys: pytest.CaptureFixture[str]) -> None:
    found = config(capsys, "--goodput", "ttft:400", "tpot:40", "--seed", "1")
    assert found["workload"]["slo"] == ["ttft p90 <= 400ms", "tpot p90 <= 40ms"]
    assert found["seed"] == 1


@pytest.mark.parametrize(
    ("args", "joined"),
    [
        (["--goodput", "ttft:400", "tpot:40"], ["--goodput", "ttft:400 tpot:40"]),
        (["--goodput", "ttft:400", "--rate", "2"], ["--goodput", "ttft:400", "--rate", "2"]),
        (["--goodput", "ttft:400", "a=http://h:1"], ["--goodput", "ttft:400", "a=http://h:1"]),
        (["--goodput=ttft:400", "colocated"], ["--goodput=ttft:400", "colocated"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_joined_goodput(args: list[str], joined: list[str]) -> None:
    assert joined_goodput(args) == joined


def test_duration_sets_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert config(capsys, "--duration", "60s", "--rate", "3")["workload"]["num_requests"] == 180


def test_slice_of_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    rows = "\n".join(f"2023-11-16 18:15:{second:02d}.0000000,100,20" for second in range(20))
    trace.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n")
    found = load_workload("chat", Overrides(arrivals=f"trace:{trace}", slice="5:15"))
    assert (found.arrivals.start_row, found.arrivals.rows, found.num_requests) == (5, 10, 10)


@pytest.mark.parametrize("text", ["5", "a:b", "5:5", "9:3", ":4", "-1:4", "1:"])
def test_bad_slice(text: str) -> None:
    with pytest.raises(UsageError, match="is not a slice"):
        load_workload("chat", Overrides(slice=text))


def test_a_trace_beside_its_workload(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,10,5\n")
    path = tmp_path / "w.yaml"
    path.write_text("name: w\narrivals: {process: trace, file: t.csv}\nnum_requests: 1\n")
    assert load_workload(str(path)).arrivals.file == str(tmp_path / "t.csv")


def test_bad_slo_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\narrivals: {process: poisson, rate: 1}\nnum_requests: 1\n"
        "prompt_tokens: {distribution: fixed, value: 1}\noutput_tokens: {distribution: fixed, value: 1}\n"
        "slo:\n  - ttft p90 <= 400ms\n  - ttfb p90 <= 400ms\n"
    )
    with pytest.raises(UsageError) as caught:
        load_workload(str(path))
    assert caught.value.where == f"{path}:8: slo[1]"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert "Usage: pdbench" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert "pdbench" in capsys.readouterr().out
