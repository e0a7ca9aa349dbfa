"""A whole comparison on a played stage: declared before it runs, fair or refused, decided at planned looks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pdbench import schema
from pdbench.compare import Outcome, compare
from pdbench.errors import BackendStartError, Interrupted, UsageError, WorkersMissingError
from pdbench.load.outcome import Edit
from pdbench.measure.validity import Reason, Validity, of_reasons
from pdbench.run import RunContext, RunResult
from pdbench.settings import Budget
from pdbench.stopping import StopFlag
from pdbench.target.arm import Arm
from pdbench.target.backend import url_backend
from pdbench.workload.plan import Plan
from tests.unit.theatre import Notes, Theatre, facts, load, open_theatre, settings


def play(
    monkeypatch: pytest.MonkeyPatch, folder: Path, theatre: Theatre, *, notes: Notes | None = None, **asked: Any
) -> Outcome:
    open_theatre(monkeypatch, theatre)
    base = asked.pop("base", None)
    outcome = compare(theatre.backends(), load(), settings(folder, **asked), notes or Notes(), base=base)
    document = json.loads((outcome.run_dir / "summary.json").read_text())
    assert document == json.loads(json.dumps(outcome.document))
    jsonschema.validate(document, schema.load("compare"))
    return outcome


def primary(outcome: Outcome) -> dict[str, Any]:
    found = next(item for item in outcome.document["comparisons"] if item["primary"])
    assert isinstance(found, dict)
    return found


def test_swapping_the_arms_negates_every_effect_exactly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = play(monkeypatch, tmp_path, Theatre({"a": 80.0, "b": 95.0}), base="a")
    two = play(monkeypatch, tmp_path, Theatre({"a": 80.0, "b": 95.0}), base="b")
    mirrored = {"better": "worse", "worse": "better"}
    pairs = list(zip(one.document["comparisons"], two.document["comparisons"], strict=True))
    assert len(pairs) >= 4
    for left, right in pairs:
        assert (left["base"], left["head"], left["metric"]) == (right["head"], right["base"], right["metric"])
        assert left["effect"] == -right["effect"]
        assert left["interval"] == [-bound for bound in reversed(right["interval"])]
        assert left["mde"] == right["mde"]
        assert left["verdict"] == mirrored.get(right["verdict"], right["verdict"])


def test_the_rule_is_declared_before_the_first_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre, notes = Theatre({"a": 80.0, "b": 95.0}), Notes()
    seen: list[Any] = []
    real = theatre.run_plan

    def run_plan(*args: Any) -> Any:
        seen.append((list(notes.lines), [p.read_text() for p in tmp_path.glob("*/declared.json")]))
        return real(*args)

    monkeypatch.setattr(theatre, "run_plan", run_plan)
    outcome = play(monkeypatch, tmp_path, theatre, notes=notes, primary="ttft_p90")
    lines, files = seen[0]
    assert any("declared: base a, against it b; primary metric ttft_p90; 3 pairs" in line for line in lines)
    assert any("margins joint_attainment 2 pt, ttft_p90 10 %" in line for line in lines)
    declared = json.loads(files[0])
    manifest = json.loads((outcome.run_dir / "manifest.json").read_text())
    assert declared == manifest["declared"] == outcome.document["declared"]
    assert declared["plan_hashes"] == manifest["plan_hashes"]
    assert primary(outcome)["metric"] == "ttft_p90"
    assert "a has a shorter P90 time to first token than b" in outcome.document["sentence"]


def test_invalid_gives_no_verdict_and_no_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad: Validity = of_reasons([Reason("late", "wait")])
    monkeypatch.setattr("pdbench.compare.judge_runs", lambda *args: bad)
    outcome = play(monkeypatch, tmp_path, Theatre({"a": 40.0, "b": 190.0}), budget=Budget(pairs=6), pairs=16)
    assert outcome.exit_code == 12
    assert {item["verdict"] for item in outcome.document["comparisons"]} == {"not resolved"}
    assert outcome.document["looks"]["decided"]["b"]["status"] == "not resolved"
    assert "turns" not in outcome.document
    assert outcome.document["sentence"].startswith("No verdict")


# ---- pairs auto


def auto(monkeypatch: pytest.MonkeyPatch, folder: Path, theatre: Theatre, budget: Budget, **asked: Any) -> Outcome:
    return play(monkeypatch, folder, theatre, budget=budget, pairs=16, primary="ttft_p90", **asked)


def test_a_clear_difference_stops_at_the_first_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre, notes = Theatre({"a": 60.0, "b": 90.0}), Notes()
    outcome = auto(monkeypatch, tmp_path, theatre, Budget(), notes=notes)
    assert len(theatre.played) == 2 * 6
    item = primary(outcome)
    assert (item["verdict"], item["look"], item["pairs"], item["level"]) == ("worse", 1, 6, 0.996)
    assert item["interval"][0] > 0
    assert outcome.document["looks"]["decided"] == {"b": {"look": 1, "status": "worse"}}
    assert "look 1 of 3, after 6 pairs: b worse" in notes.lines
    assert outcome.document["declared"]["pairs"] == "auto"


def test_the_last_look_of_the_budget_leaves_it_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre = Theatre({"a": 60.0, "b": 62.0}, noise=0.5)
    outcome = auto(monkeypatch, tmp_path, theatre, Budget(pairs=12))
    assert len(theatre.played) == 2 * 10, "12 pairs reach the look after 10; two more would say nothing"
    assert primary(outcome)["verdict"] == "not resolved"
    assert outcome.document["looks"]["pairs"] == [6, 10]


def test_one_head_is_decided_before_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre = Theatre({"a": 60.0, "b": 90.0, "c": 67.0}, noise=0.05)
    outcome = auto(monkeypatch, tmp_path, theatre, Budget())
    items = {item["head"]: item for item in outcome.document["comparisons"] if item["primary"]}
    assert items["b"]["look"] == 1
    assert items["b"]["pairs"] == 6
    assert items["b"]["level"] == pytest.approx(1 - 0.002), "two heads share each look's error"
    assert items["c"]["look"] > 1
    assert outcome.document["pairs"] == items["c"]["pairs"]


def test_a_time_budget_below_the_first_look_is_descriptive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre, notes = Theatre({"a": 60.0, "b": 90.0}), Notes()
    outcome = auto(monkeypatch, tmp_path, theatre, Budget(seconds=1e-9), notes=notes)
    assert len(theatre.played) == 2, "after one pair it is clear that six do not fit"
    assert any("does not reach the look after 6 pairs" in line for line in notes.lines)
    assert {item["verdict"] for item in outcome.document["comparisons"]} == {"not resolved"}
    assert all(item["interval"] is None for item in outcome.document["comparisons"])
    assert outcome.document["looks"]["decided"]["b"]["look"] == 0


def test_a_budget_of_too_few_pairs_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre = Theatre({"a": 60.0, "b": 90.0})
    with pytest.raises(UsageError, match="--budget: 5 pairs do not reach the first look"):
        auto(monkeypatch, tmp_path, theatre, Budget(pairs=5))
    assert not list(tmp_path.iterdir())


# ---- fairness


def test_unfair_arms_are_refused_before_any_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre = Theatre({"a": 60.0, "b": 90.0})
    theatre.facts = {"a": facts(max_model_len=2048), "b": facts(ignore_eos=False)}
    with pytest.raises(UsageError, match=r"maximum length.*forced output lengths") as caught:
        play(monkeypatch, tmp_path, theatre)
    assert caught.value.exit_code == 2
    assert "--unfair-ok" in caught.value.remedy
    assert not theatre.played


def test_unfair_ok_says_so_loudly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre, notes = Theatre({"a": 60.0, "b": 90.0}), Notes()
    theatre.facts = {"a": facts(max_model_len=2048)}
    outcome = play(monkeypatch, tmp_path, theatre, notes=notes, unfair_ok=True)
    text = "UNFAIR: the arms differ in their maximum length (a: 2048, b: 4096)"
    assert f"warning: {text}" in notes.lines
    assert text in outcome.document["warnings"]
    assert json.loads((outcome.run_dir / "manifest.json").read_text())["config"]["unfair_ok"] is True


# ---- saturation


def test_saturation_stays_out_of_every_latency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = play(monkeypatch, tmp_path, Theatre({"a": 60.0, "b": 90.0}))
    full = play(monkeypatch, tmp_path, Theatre({"a": 60.0, "b": 90.0}), saturate=True, saturate_concurrency=4)
    for name, arm in full.document["arms"].items():
        assert arm.pop("saturation")["concurrency"] == 4
        assert arm == plain.document["arms"][name]
    assert full.document["comparisons"] == plain.document["comparisons"]
    assert (full.run_dir / "saturation" / "requests.parquet").exists()


def test_a_death_under_saturation_is_no_death_in_a_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre = Theatre({"a": 60.0, "b": 90.0})
    real = theatre.run_plan

    def run_plan(arm: Arm, plan: Plan, pair: int, ctx: RunContext) -> RunResult:
        found = real(arm, plan, pair, ctx)
        if ctx.settings.max_concurrency is None or arm.name == "a":
            return found
        arm.died.append(pair)
        return replace(found, server_died=True)

    monkeypatch.setattr(theatre, "run_plan", run_plan)
    arms = play(monkeypatch, tmp_path, theatre, saturate=True).document["arms"]
    assert arms["b"]["saturation"]["warnings"] == ["the server died under it; it has no throughput"]
    assert "server_died" not in arms["b"]
    assert arms["a"]["saturation"]["concurrency"] == 32


def test_workers_that_stay_away_cost_only_the_saturation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_plan(arm: Arm, plan: Plan, pair: int, ctx: RunContext) -> RunResult:
        if len(theatre.played) >= 6:
            raise WorkersMissingError("1 of 2 workers are there")
        return Theatre.run_plan(theatre, arm, plan, pair, ctx)

    theatre = Theatre({"a": 60.0, "b": 90.0})
    monkeypatch.setattr(theatre, "run_plan", run_plan)
    document = play(monkeypatch, tmp_path, theatre, saturate=True).document
    assert document["validity"]["status"] == "VALID"
    assert document["arms"]["a"]["saturation"]["warnings"] == ["the load could not be run"]


def test_a_server_that_stays_away_costs_only_its_saturation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ensure(arm: Arm, should_stop: Any) -> bool:
        if arm.name == "b" and len(theatre.played) >= 6:
            raise BackendStartError("gone", where=arm.name)
        return False

    theatre = Theatre({"a": 60.0, "b": 90.0})
    open_theatre(monkeypatch, theatre)
    monkeypatch.setattr(Arm, "ensure", ensure)
    outcome = compare(theatre.backends(), load(), settings(tmp_path, saturate=True), Notes())
    assert outcome.document["validity"]["status"] == "VALID"
    assert outcome.document["arms"]["b"]["saturation"]["warnings"] == ["the server did not start again"]


def test_a_rate_that_was_edited_makes_it_invalid_and_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theatre = Theatre({"a": 80.0, "b": 320.0})
    real = theatre.run_plan

    def edited(arm: Arm, plan: Plan, pair: int, ctx: RunContext) -> RunResult:
        edits = (Edit(2_500_000_000, 2.0), Edit(3_000_000_000, 0.25)) if (arm.name, pair) == ("b", 1) else ()
        return replace(real(arm, plan, pair, ctx), edits=edits)

    monkeypatch.setattr(theatre, "run_plan", edited)
    outcome = play(monkeypatch, tmp_path, theatre)
    document, rate = outcome.document, load().arrivals.rate
    assert rate is not None
    assert document["edits"] == [
        {"arm": "b", "pair": 1, "at_s": 2.5, "factor": 2.0, "rate": 2 * rate},
        {"arm": "b", "pair": 1, "at_s": 3.0, "factor": 0.25, "rate": rate / 2},
    ]
    (reason,) = document["validity"]["reasons"]
    assert reason["message"] == "b: the rate was edited while it ran"
    assert reason["remedy"]
    assert {item["verdict"] for item in document["comparisons"]} == {"not resolved"}
    assert outcome.exit_code == 12
    assert any(text.startswith("b, pair 2: the rate was edited to ") for text in document["warnings"])
    manifest = json.loads((outcome.run_dir / "manifest.json").read_text())
    jsonschema.validate(manifest, schema.load("manifest"))
    assert manifest["edits"] == document["edits"]
    assert "edits" not in play(monkeypatch, tmp_path, Theatre({"a": 80.0, "b": 320.0})).document


def test_a_stop_during_the_start_leaves_no_folder(tmp_path: Path) -> None:
    stop = StopFlag(signals=False)
    stop.requested = True
    with pytest.raises(Interrupted):
        compare([url_backend("x", "http://127.0.0.1:9")], load(), settings(tmp_path), Notes(), kind="run", stop=stop)
    assert list(tmp_path.iterdir()) == []
