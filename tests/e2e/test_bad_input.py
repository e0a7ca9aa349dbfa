"""Bad input: exit code 2, a message that names the file, key or option, and nothing left running.

Most commands are typed within this process, which is quick; some as processes, with all that a user has.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.transcript import FAKE, Desk, Type, tiny

pytestmark = pytest.mark.e2e

WORKLOAD = """\
name: w
arrivals: {process: poisson, rate: 2}
prompt_tokens: {distribution: fixed, value: 64}
output_tokens: {distribution: fixed, value: 8}
num_requests: 4
slo: ["ttft p90 <= 400ms"]
"""
BACKEND = """\
name: b
engine: pdserve
model: {preset: llama-10m}
workers:
  - {role: mixed, device: 0}
"""

COMMANDS = [
    (["comprae"], "No such command 'comprae'; did you mean 'compare'?"),
    (["compare", "--rte", "2"], "--rate"),
    (["compare", "colocted", "disaggregated"], "did you mean 'colocated'?"),
    (["compare", "colocated"], "two arms or more"),
    (["compare", "colocated", "./colocated.yaml"], "no such file: ./colocated.yaml"),
    (["compare", "colocated", "colocated"], "two arms are named 'colocated'"),
    (["compare", "--workload", "chatt"], "did you mean 'chat'?"),
    (["compare", "--rate", "-1"], "--rate: "),
    (["compare", "--rate", "0"], "--rate: "),
    (["compare", "--rate", "nan"], "--rate: "),
    (["compare", "--num-requests", "0"], "--num-requests: "),
    (["compare", "--warmup", "-1"], "--warmup: "),
    (["compare", "--pairs", "0"], "--pairs"),
    (["compare", "--pairs", "many"], "--pairs"),
    (["compare", "--budget", "10m"], "--budget: needs --pairs auto"),
    (["compare", "--pairs", "auto", "--budget", "5"], "--budget: 5 pairs do not reach the first look"),
    (["compare", "--primary", "ttft_p9"], "did you mean 'ttft_p90'?"),
    (["compare", "--saturate-concurrency", "4"], "needs --saturate"),
    (["compare", "--duration", "5"], "--duration: "),
    (["compare", "--slo", "ttft p90 < 400"], "--slo: "),
    (["compare", "--goodput", "ttft"], "--goodput: "),
    (["compare", "--arrivals", "trace:/no/such.csv", "--slice", "0:10"], "/no/such.csv"),
    (["compare", "--arrivals", "poison"], "did you mean 'poisson'?"),
    (["compare", "--base", "vllm"], "--base: "),
    (["compare", "-o", "/proc/nowhere"], "-o: "),
    (["compare", "--workload", "long-prompt", "--arrivals", "burst"], "--arrivals: "),
    (["run"], "--base-url"),
    (["run", "--base-url", "localhost:8000"], "bad URL"),
    (["run", "two-queues"], "virtual clock"),
    (["simulate", "colocated"], "cost_model"),
    (["report", "no-such-run"], "no stored run"),
    (["serve", "example-url"], "nothing to start"),
]


@pytest.mark.parametrize(("args", "names"), COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_commands(type_here: Type, tmp_path: Path, args: list[str], names: str) -> None:
    output = ["-o", str(tmp_path)] if args[0] in ("compare", "run", "simulate") and "-o" not in args else []
    typed = type_here(*args, *output)
    assert typed.code == 2, typed
    assert names in typed.err, typed
    assert typed.out == ""


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["comprae"], "No such command 'comprae'; did you mean 'compare'?"),
        (["compare", "colocated", "colocated", "--base", "x"], "two arms are named 'colocated'"),
        (["run", "two-queues"], "virtual clock"),
    ],
)
def test_commands_as_processes(tmp_path: Path, args: list[str], names: str) -> None:
    desk = Desk()
    typed = desk.type(*args, *(["-o", str(tmp_path)] if len(args) > 1 else []))
    assert typed.code == 2, typed
    assert names in typed.err, typed
    assert "Traceback" not in typed.err
    assert typed.out == ""
    assert not desk.leftovers()


FILES = [
    (WORKLOAD.replace("rate: 2", "rate: -2"), BACKEND, "w.yaml:2: arrivals.rate"),
    (WORKLOAD.replace("rate: 2", "rte: 2"), BACKEND, "w.yaml:2: arrivals.rte: unknown key\n  did you mean 'rate'?"),
    (WORKLOAD.replace("value: 64", "value: 0"), BACKEND, "w.yaml:3: prompt_tokens.value"),
    (WORKLOAD.replace("num_requests: 4", "num_requests: 0"), BACKEND, "w.yaml:5: num_requests"),
    (WORKLOAD.replace("ttft p90", "ttft q90"), BACKEND, "w.yaml:6: slo[0]"),
    (WORKLOAD + "slo: [", BACKEND, "w.yaml:"),
    (WORKLOAD.replace("value: 64", "value: 5000"), BACKEND, "longer than the model's maximum 4096"),
    (WORKLOAD, BACKEND.replace("role: mixed", "role: mixd"), "b.yaml:5: workers[0].role"),
    (WORKLOAD, BACKEND + "modl: {}\n", "b.yaml:6: modl"),
    (WORKLOAD, BACKEND.replace("preset: llama-10m", "path: /no/such/model"), "b.yaml:3: model.path"),
    (WORKLOAD, BACKEND.replace("preset: llama-10m", "path: ."), "b.yaml:3: model.path"),
    (WORKLOAD, BACKEND + "workers: []\n", "b.yaml:6: malformed YAML: the key 'workers' is given twice"),
]


@pytest.mark.parametrize(("workload", "backend", "names"), FILES, ids=[names for *_, names in FILES])
def test_files(type_here: Type, tmp_path: Path, workload: str, backend: str, names: str) -> None:
    (tmp_path / "w.yaml").write_text(workload)
    (tmp_path / "b.yaml").write_text(backend)
    typed = type_here(
        *("run", str(tmp_path / "b.yaml"), "--workload", str(tmp_path / "w.yaml"), "-o", str(tmp_path / "out"))
    )
    assert typed.code == 2, typed
    assert names in typed.err, typed


def test_wrong_architecture(type_here: Type, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}')
    (tmp_path / "b.yaml").write_text(BACKEND.replace("preset: llama-10m", f"path: {model}"))
    typed = type_here("backends", "check", str(tmp_path / "b.yaml"))
    assert typed.code == 2, typed
    assert "b.yaml:3: model.path" in typed.err
    assert "GPT2LMHeadModel" in typed.err or "gpt2" in typed.err


def test_a_url_where_nothing_answers(type_here: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.target.server._RUNNING_TIMEOUT_S", 0.3)
    typed = type_here("run", "x=http://127.0.0.1:9", "-o", str(tmp_path))
    assert typed.code == 2, typed
    assert "nothing that serves OpenAI's API answers" in typed.err
    assert typed.out == ""
    assert list(tmp_path.iterdir()) == [], "no folder without a file in it"


def test_unwritable_results(type_here: Type, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    typed = type_here("run", "x=http://127.0.0.1:9", "-o", str(tmp_path / "file"))
    assert typed.code == 2, typed
    assert "-o: cannot write results" in typed.err


@pytest.mark.parametrize("port_taken_by", ["serve", "launch"])
def test_port_in_use(tmp_path: Path, port_taken_by: str) -> None:
    desk = Desk()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port_taken_by == "serve":
            typed = desk.type("serve", "colocated", "--port", str(port))
        else:
            (tmp_path / "b.yaml").write_text(
                f"name: b\nengine: openai\nbase_url: http://127.0.0.1:{port}\nlaunch: ['sleep 60']\n"
            )
            typed = desk.type("run", str(tmp_path / "b.yaml"), "--workload", tiny(tmp_path), "-o", str(tmp_path))
    assert typed.code == 2, typed
    assert str(port) in typed.err
    assert not desk.leftovers()


def test_a_server_that_dies_while_starting_shows_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "name: b\nengine: openai\nbase_url: http://127.0.0.1:{port}\n"
        f"launch: ['{sys.executable} {FAKE} --port {{port}} --die-at-start', 'sleep 60']\n"
    )
    desk = Desk()
    typed = desk.type("run", str(tmp_path / "b.yaml"), "--workload", tiny(tmp_path), "-o", str(tmp_path))
    assert typed.code == 2, typed
    assert "b: the server ended while starting" in typed.err
    assert "fake server: CUDA error: invalid device ordinal" in typed.err
    assert not desk.leftovers()


def test_a_server_that_is_never_ready(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "name: b\nengine: openai\nbase_url: http://127.0.0.1:{port}\nlaunch: ['sleep 60']\nready_timeout_s: 0.5\n"
    )
    desk = Desk()
    typed = desk.type("run", str(tmp_path / "b.yaml"), "--workload", tiny(tmp_path), "-o", str(tmp_path))
    assert typed.code == 2, typed
    assert "was not ready within 0.5 s" in typed.err
    assert not desk.leftovers()
