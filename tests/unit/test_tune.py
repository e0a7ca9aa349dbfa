"""``pdbench tune`` on simulated candidates: what is tried, what is chosen, and what is written."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from rich.console import Console

from pdbench import resources, schema, tune
from pdbench.cli.main import run as pdbench
from pdbench.cli.tune import counts, rates_of, role_counts
from pdbench.compare import Outcome
from pdbench.errors import UsageError
from pdbench.report.tune import print_tune
from pdbench.settings import Settings
from pdbench.target.backend import resolve_backend
from pdbench.tune import Score, Sweep, axes_of, candidates_of, choose
from pdbench.tuned import rewritten
from tests.unit.simulated import Arm, FakeStage, Share, chat

NOTE = {"workload": "chat", "sweep": [{"token_budget": 64, "joint": 0.9}]}


def always(share: float) -> Share:
    return lambda rate, seed: share


def tuned(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    shares: dict[int, float],
    *,
    sweep: Sweep | None = None,
    **changes: Any,
) -> tuple[Outcome, FakeStage, Path]:
    """A sweep of colocated-chunked whose budgets reach ``shares``; nothing is started."""
    found: list[FakeStage] = []

    def stand_in(kind: str, backends: Any, load: Any, settings: Settings, progress: Any) -> FakeStage:
        assert kind == "tune"
        arms = [Arm(backend.name) for backend in backends]
        laws = {
            backend.name: always(shares[backend.data["workers"][0]["token_budget"]])
            for backend in backends
        }  # fmt: skip
        found.append(FakeStage(arms, laws, load, settings=settings, **changes))
        return found[0]

    monkeypatch.setattr(tune, "Stage", stand_in)
    output = folder / "tuned.yaml"
    sweep = sweep or Sweep(budgets=tuple(shares))
    backend = resolve_backend("colocated-chunked")
    outcome = tune.tune(backend, chat(), sweep, Settings(seed=1000), _Quiet(), output=output)
    jsonschema.Draft202012Validator(schema.load("tune")).validate(json.loads(json.dumps(outcome.document)))
    return outcome, found[0], output


class _Quiet:
    def event(self, text: str) -> None: ...
    def show(self, view: Any) -> None: ...
    def close(self) -> None: ...


def test_the_best_budget_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome, stage, output = tuned(monkeypatch, tmp_path, {48: 0.6, 64: 0.7, 128: 0.95, 256: 0.8})
    document = outcome.document
    assert document["chosen"] == {"token_budget": 128}
    assert document["current"] == {"token_budget": 64}
    assert (document["seed"], stage.settings.seed) == (1000, 1000)
    assert len(stage.results) == 4 * 2
    for pair in (0, 1):
        assert len({result.arm for result in stage.results if result.pair == pair}) == 4, "one plan for all"
    written = yaml.safe_load(output.read_text())
    assert [worker["token_budget"] for worker in written["workers"]] == [128, 128]
    assert written["name"] == "colocated-chunked"
    note = written["tuned"]
    assert (note["workload"], note["seed"], note["rates"]) == (document["workload"]["name"], 1000, document["rates"])
    assert [row["token_budget"] for row in note["sweep"]] == [48, 64, 128, 256]
    assert [row["joint"] for row in note["sweep"]] == [0.6, 0.7, 0.95, 0.8]
    assert output.read_text().startswith("# Two replicas that both prefill and decode, with chunked prefill")
    assert document["comments_kept"] is True
    assert "best with token_budget 128: 95 % in time, P90 TTFT 304 ms, against 70 % and 900 ms" in document["sentence"]


def test_the_written_file_is_a_tuned_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, _, output = tuned(monkeypatch, tmp_path, {64: 0.7, 128: 0.95})
    backend = resolve_backend(str(output))  # the engine's own check takes the note
    assert backend.data["tuned"]["seed"] == 1000
    from pdbench.summary import fairness_before

    untuned = [
        one.key
        for one in fairness_before([resolve_backend("colocated-chunked"), resolve_backend("colocated")]).findings
    ]
    again = [one.key for one in fairness_before([backend, resolve_backend("colocated")]).findings]
    assert "tuned" not in again
    assert again == [key for key in untuned if key != "tuned"]


def test_an_invalid_run_is_offered_once_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome, stage, _ = tuned(
        monkeypatch, tmp_path, {64: 0.7, 128: 0.95}, invalid=lambda arm, rate, seed, tried: seed == 0 and tried == 1
    )
    assert len(stage.results) == 2 * 2 + 2
    assert [arm["left_out"] for arm in outcome.document["arms"].values()] == [1, 1]
    assert outcome.document["chosen"] == {"token_budget": 128}


def test_a_candidate_with_fewer_valid_runs_is_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome, _, _ = tuned(
        monkeypatch,
        tmp_path,
        {64: 0.7, 128: 0.95},
        invalid=lambda arm, rate, seed, _: arm.endswith("128") and seed == 0,
    )
    assert outcome.document["chosen"] == {"token_budget": 64}
    assert "best as it is" in outcome.document["sentence"]


def test_nothing_valid_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome, _, output = tuned(monkeypatch, tmp_path, {64: 0.7, 128: 0.95}, invalid=lambda *_: True)
    assert outcome.exit_code == 12
    assert not output.exists()
    assert outcome.document["file"] is None


def test_an_interrupted_sweep_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome, _, output = tuned(monkeypatch, tmp_path, {64: 0.7, 128: 0.95}, stop_after=3)
    assert outcome.exit_code == 130
    assert not output.exists()


def test_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome, _, output = tuned(monkeypatch, tmp_path, {64: 0.7, 128: 0.95})
    stream = io.StringIO()
    print_tune(outcome.document, Console(file=stream, width=100, no_color=True, highlight=False))
    lines = stream.getvalue().splitlines()
    assert any(line.split()[1:3] == ["*", "128"] and "95 %" in line for line in lines)
    assert f"written: {output}" in stream.getvalue()


# ---- what is chosen


def score(budget: int, joint: float | None, ttft: float | None, *, used: int = 2) -> Score:
    return Score({"token_budget": budget}, 100, joint, ttft, used)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([score(32, 0.80, 100), score(64, 0.90, 300)], 64),  # attainment first
        ([score(32, 0.895, 100), score(64, 0.90, 300)], 32),  # within one request of 100: the shorter TTFT
        ([score(32, 0.885, 100), score(64, 0.90, 300)], 64),  # one request more is more
        ([score(32, 0.90, None), score(64, 0.90, 300)], 64),  # no P90 at all is the longest
        ([score(32, 0.90, 300), score(64, 0.90, 300)], 64),  # alike: what the file had
        ([score(32, 0.99, 100, used=1), score(64, 0.90, 300)], 64),  # fewer VALID runs
        ([score(32, None, None, used=0), score(64, None, None, used=0)], None),
    ],
)
def test_the_rule(scores: list[Score], chosen: int | None) -> None:
    found = choose({str(one.values["token_budget"]): one for one in scores}, {"token_budget": 64})
    assert found == (None if chosen is None else str(chosen))


# ---- what is tried


def test_the_usual_values() -> None:
    (axis,) = axes_of(resolve_backend("colocated-chunked"), Sweep())
    assert (axis.label, axis.places, axis.values) == ("token_budget", (0, 1), (64, 128, 256))  # 32 = max_batch: refused
    (axis,) = axes_of(resolve_backend("disaggregated"), Sweep())
    assert (axis.label, axis.places, axis.values) == ("max_batch_tokens", (0,), (512, 1024, 2048, 4096))


def test_batch_caps_by_role(tmp_path: Path) -> None:
    backend = resolve_backend("disaggregated")
    axes = axes_of(backend, Sweep(prefills=(1024,), max_batch={"decode": (8, 16)}))
    assert [(axis.label, axis.places, axis.values) for axis in axes] == [
        ("max_batch_tokens", (0,), (1024, 2048)),
        ("decode.max_batch", (1,), (8, 16, 32)),
    ]
    found = candidates_of(backend, axes, tmp_path)
    assert len(found) == 6
    assert len({one.name for one, _ in found}) == 6
    one, values = found[0]
    assert values == {"max_batch_tokens": 1024, "decode.max_batch": 8}
    assert (one.data["workers"][0]["max_batch_tokens"], one.data["workers"][1]["max_batch"]) == (1024, 8)


@pytest.mark.parametrize(
    ("name", "sweep", "words"),
    [
        ("example-url", Sweep(), "not a pdserve backend"),
        ("disaggregated", Sweep(budgets=(64, 128)), "has no worker that uses it"),
        ("colocated", Sweep(max_batch={"decode": (8,)}), "has no decode worker"),
        ("colocated-chunked", Sweep(budgets=(64,)), "one candidate is no sweep"),
        ("colocated-chunked", Sweep(budgets=tuple(range(64, 96))), "candidates are more than"),
    ],
)
def test_what_cannot_be_swept(name: str, sweep: Sweep, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        axes_of(resolve_backend(name), sweep)


def test_the_engine_refuses_in_its_own_words(tmp_path: Path) -> None:
    backend = resolve_backend("colocated-chunked")
    axes = axes_of(backend, Sweep(budgets=(16, 64)))
    with pytest.raises(UsageError, match=r"(?s)--budgets: token_budget 16: 16 is not above max_batch.*lower max_batch"):
        candidates_of(backend, axes, tmp_path)


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-backend"],
        ["example-url"],
        ["two-queues"],
        ["colocated-chunked", "--budgets", "16,64"],
        ["colocated-chunked", "--budgets", "64;128"],
        ["colocated-chunked", "--budgets", "0"],
        ["colocated-chunked", "--rates", "0"],
        ["colocated-chunked", "--rate", "0"],
        ["colocated-chunked", "--max-batch", "decoder:8"],
        ["colocated-chunked", "--slo", "errors <= 1%"],
    ],
)
def test_bad_input_ends_in_2(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["-o", str(tmp_path / "out.yaml"), "--results", str(tmp_path / "results")]
    assert pdbench(["tune", *args, "-q", *output]) == 2
    assert "Error" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["there.yaml", "no/such/folder.yaml", "tuned.txt"])
def test_an_output_that_cannot_be(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.yaml").write_text("name: mine\n")
    assert pdbench(["tune", "colocated-chunked", "-q", "-o", str(tmp_path / name)]) == 2
    assert "-o" in capsys.readouterr().err
    assert (tmp_path / "there.yaml").read_text() == "name: mine\n"


def test_the_seed_is_the_sweeps_own() -> None:
    from pdbench.cli.search import command as searching
    from pdbench.cli.tune import command

    (seed,) = (param for param in command.params if param.name == "seed")
    assert (seed.default, seed.envvar) == (1000, None)
    (other,) = (param for param in searching.params if param.name == "seed")
    assert (other.default, other.envvar) == (0, "PDBENCH_SEED")


def test_lists() -> None:
    assert counts("64, 128,64", "--budgets") == (64, 128)
    assert role_counts("decode:8,16") == ("decode", (8, 16))
    assert role_counts("8") == ("", (8,))
    assert rates_of("1.5,2") == (1.5, 2.0)


# ---- what is written


BLOCK = """\
# mine
name: mine   # my own
workers:
  - role: mixed          # left
    policy: chunked
    device: 0
    token_budget: 64     # to be tuned
  - {role: mixed, policy: chunked, device: 1}
# the end
"""


def test_comments_and_layout_survive() -> None:
    text, kept = rewritten(BLOCK, {(0, "token_budget"): 128, (1, "token_budget"): 128, (0, "max_batch"): 16}, NOTE)
    assert kept
    for line in ("# mine", "name: mine   # my own", "token_budget: 128     # to be tuned", "# the end"):
        assert line in text
    data = yaml.safe_load(text)
    assert data["workers"][0] == {
        "role": "mixed",
        "policy": "chunked",
        "device": 0,
        "token_budget": 128,
        "max_batch": 16,
    }
    assert data["workers"][1] == {"role": "mixed", "policy": "chunked", "device": 1, "token_budget": 128}
    assert data["tuned"] == NOTE


def test_an_earlier_note_is_replaced() -> None:
    once, _ = rewritten(BLOCK, {(0, "token_budget"): 128}, {"workload": "old"})
    twice, kept = rewritten(once, {(0, "token_budget"): 256}, NOTE)
    assert kept
    assert twice.count("tuned:") == 1
    assert twice.count("# Written by pdbench tune") == 1
    assert yaml.safe_load(twice)["tuned"] == NOTE
    assert "# mine" in twice


def test_what_cannot_be_edited_is_written_afresh() -> None:
    shared = "name: mine\nworkers:\n  - &one {role: mixed, device: 0, token_budget: 64}\n  - *one\n"
    text, kept = rewritten(shared, {(0, "token_budget"): 128}, NOTE)
    data = yaml.safe_load(text)
    assert [worker["token_budget"] for worker in data["workers"]] == [128, 64]
    assert data["tuned"] == NOTE
    assert not kept


@pytest.mark.parametrize("name", ["colocated-chunked", "colocated", "disaggregated"])
def test_shipped_backends_keep_their_comments(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    shutil.copy(resources.find("backend", name), path)
    text, kept = rewritten(path.read_text(), {(0, "max_batch_tokens"): 1024}, NOTE)
    assert kept
    assert text.splitlines()[0] == path.read_text().splitlines()[0]
