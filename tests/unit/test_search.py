"""``pdbench search`` on simulated arms: it finds the crossing, keeps its budget, and leaves out what is INVALID."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from pdbench import schema, search
from pdbench.cli.main import run as pdbench
from pdbench.compare import Outcome
from pdbench.errors import UsageError
from pdbench.measure.slo import parse_objectives
from pdbench.report.search import print_search
from pdbench.search import Asked, Budget, check_workload, drain_s
from pdbench.searched import shared_rate
from pdbench.settings import Settings
from pdbench.workload.plan import make_plan
from tests.unit.simulated import Arm, FakeStage, Share, chat, falls_at


def searched(
    monkeypatch: pytest.MonkeyPatch, laws: dict[str, Share], asked: Asked, *, devices: int = 2, **changes: Any
) -> tuple[Outcome, FakeStage]:
    """A search over simulated arms; the outcome, and the stage it played on."""
    arms = [Arm(name, devices) for name in laws]
    stage = FakeStage(arms, laws, chat(), **changes)

    def stand_in(kind: str, backends: Any, load: Any, settings: Settings, progress: Any) -> FakeStage:
        stage.settings = settings
        return stage

    monkeypatch.setattr(search, "Stage", stand_in)
    backends = [arm.backend for arm in arms]
    outcome = search.search(backends, chat(), asked, Settings(), stage.progress, clock=stage.clock)
    jsonschema.Draft202012Validator(schema.load("search")).validate(json.loads(json.dumps(outcome.document)))
    assert stage.sealed is not None
    assert stage.sealed[1] is outcome.document
    return outcome, stage


TWO = {"mixed": falls_at(2.0), "split": falls_at(3.0)}


def test_it_finds_both_crossings_and_their_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = searched(monkeypatch, TWO, Asked(Budget.parse("80 runs")))
    arms = outcome.document["arms"]
    for name, crossing in (("mixed", 2.0), ("split", 3.0)):
        goodput = arms[name]["goodput"]
        assert goodput["where"] == "resolved"
        assert goodput["rate"] == pytest.approx(crossing, rel=0.1)
        assert goodput["interval"][0] < goodput["rate"] < goodput["interval"][1]
        assert goodput["half_width"] <= 0.1
        assert goodput["per_device"]["rate"] == pytest.approx(goodput["rate"] / 2, abs=1e-5)
        assert "half-width" in arms[name]["stop"]
    (ratio,) = outcome.document["ratios"]
    assert (ratio["base"], ratio["head"], ratio["verdict"], ratio["level"]) == ("mixed", "split", "better", 0.95)
    assert ratio["ratio"] == pytest.approx(1.5, rel=0.1)
    assert ratio["effect"] == pytest.approx(-math.log(ratio["ratio"]), abs=1e-5)  # positive: the head is worse
    assert "split carries more than mixed" in outcome.document["sentence"]
    assert outcome.exit_code == 0


def test_arms_take_turns_on_the_same_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    _, stage = searched(monkeypatch, TWO, Asked(Budget.parse("20")))
    counts = {name: stage.order.count(name) for name in TWO}
    assert sum(counts.values()) == 20
    assert abs(counts["mixed"] - counts["split"]) <= 1
    assert set(stage.order[:2]) == set(TWO), "both arms run once before one runs twice"
    at_start = [result.pair for result in stage.results if stage.draws[result.pair] == (2.0, 0)]
    assert len(at_start) == 2
    assert len(set(at_start)) == 1, "one plan, one pair number"
    per_arm = [(result.arm, result.pair) for result in stage.results]
    assert len(per_arm) == len(set(per_arm)), "no arm runs one pair number twice"


def test_a_draw_at_another_rate_is_the_same_plan_stretched() -> None:
    slow, fast = (make_plan(search.at_rate(chat(), rate), seed=5, pair=3) for rate in (1.0, 2.0))
    assert list(slow.prompt_tokens) == list(fast.prompt_tokens)
    gaps = [(plan.scheduled_ns[~plan.warmup] - plan.scheduled_ns[~plan.warmup][0]) for plan in (slow, fast)]
    assert gaps[0] == pytest.approx(2 * gaps[1], abs=1_000_000)


@pytest.mark.parametrize("minutes", [4, 8, 30])
def test_a_time_budget_is_kept(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    wide = {"mixed": falls_at(2.0, spread=0.5), "split": falls_at(3.0, spread=0.5)}
    outcome, stage = searched(monkeypatch, wide, Asked(Budget.parse(f"{minutes}m"), target=0.001))
    assert stage.now_s <= 60 * minutes
    assert stage.now_s >= 60 * minutes * 0.5, "it used what it was given"
    for arm in outcome.document["arms"].values():
        assert arm["stop"].startswith(f"budget of {minutes}m used; ")
    assert outcome.document["spent"]["runs"] == len(stage.results)


def test_invalid_runs_are_listed_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, stage = searched(
        monkeypatch, TWO, Asked(Budget.parse("60")), invalid=lambda arm, rate, seed, tried: tried == 1 and rate > 2.1
    )
    for name, crossing in (("mixed", 2.0), ("split", 3.0)):
        arm = outcome.document["arms"][name]
        bad = [run for run in arm["runs"] if not run["used"]]
        assert bad
        assert len(bad) == arm["left_out"]
        assert all(run["validity"]["status"] == "INVALID" for run in bad)
        assert arm["goodput"]["runs"] == arm["used"] == len(arm["runs"]) - len(bad)
        assert arm["goodput"]["rate"] == pytest.approx(crossing, rel=0.1)
    assert any("INVALID and left out" in text for text in outcome.document["warnings"])
    assert outcome.exit_code == 0
    per_arm = [(result.arm, result.pair) for result in stage.results]
    assert len(per_arm) == len(set(per_arm)), "a second try has a pair number of its own"


def test_a_rate_that_is_never_valid_ends_the_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, stage = searched(
        monkeypatch, {"mixed": falls_at(9.0)}, Asked(Budget.parse("60m")), invalid=lambda _, rate, *__: rate > 4
    )
    arm = outcome.document["arms"]["mixed"]
    assert arm["stop"].startswith("no VALID run at 4.5 req/s")
    assert (arm["goodput"]["where"], arm["goodput"]["rate"]) == ("above", 3)
    assert len(stage.results) == 2 + 8, "four seeds, twice each"
    assert "mixed more than 1.5" in outcome.document["sentence"]


def test_a_rate_that_is_never_valid_does_not_hinder_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    never = 2 * 1.5 ** (1 / 3)  # on the grid, just above the crossing
    outcome, stage = searched(
        monkeypatch,
        {"mixed": falls_at(2.1)},
        Asked(Budget.parse("60")),
        invalid=lambda _, rate, *__: math.isclose(rate, never, rel_tol=1e-4),
    )
    arm = outcome.document["arms"]["mixed"]
    assert 2 <= arm["left_out"] <= 8
    assert len(stage.results) - arm["left_out"] == arm["used"] >= 8
    assert arm["goodput"]["rate"] == pytest.approx(2.1, rel=0.1)


def test_half_of_the_runs_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    tossed = iter(range(10_000))
    outcome, _ = searched(
        monkeypatch, TWO, Asked(Budget.parse("80")), invalid=lambda *_: math.sin(12.9898 * next(tossed)) > 0
    )
    for name, crossing in (("mixed", 2.0), ("split", 3.0)):
        assert outcome.document["arms"][name]["goodput"]["rate"] == pytest.approx(crossing, rel=0.12)
        assert outcome.document["arms"][name]["left_out"] >= 2


def test_no_valid_run_at_all_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = searched(monkeypatch, TWO, Asked(Budget.parse("60m")), invalid=lambda arm, *_: arm == "split")
    assert outcome.exit_code == 12
    assert outcome.document["arms"]["split"]["goodput"] is None
    assert outcome.document["ratios"][0]["ratio"] is None
    assert "split has no VALID run: requests left late" in outcome.document["sentence"]


def test_an_interruption_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = searched(monkeypatch, TWO, Asked(Budget.parse("60m")), stop_after=5)
    assert outcome.exit_code == 130
    assert outcome.document["validity"]["status"] == "INVALID"
    assert outcome.document["spent"]["runs"] == 5


def test_which_limit_turns_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, stage = searched(monkeypatch, TWO, Asked(Budget.parse("40")))
    found = outcome.document["surface"]
    assert 2.0 <= found["rate"] <= 3.0
    assert found["command"] == f"pdbench surface {stage.run_dir}"
    (item,) = found["comparisons"]
    assert item["leads"] == "split"
    assert any(flip["metric"] == "ttft" for flip in item["flips"])


def test_certified_is_the_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = searched(monkeypatch, {"mixed": falls_at(2.0)}, Asked(Budget.parse("40"), certify=True))
    goodput = outcome.document["arms"]["mixed"]["goodput"]
    assert goodput["claimed"] == goodput["lower_bound"] < goodput["rate"]
    assert "mixed at least" in outcome.document["sentence"]


def test_a_burst_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, _ = searched(monkeypatch, {"mixed": falls_at(20.0)}, Asked(Budget.parse("40")))
    assert any("less than 10 TTFT limits" in text for text in fast.document["warnings"])  # 40 requests in 2 s
    slow, _ = searched(monkeypatch, {"mixed": falls_at(2.0)}, Asked(Budget.parse("40")))
    assert "warnings" not in slow.document


def test_goodput_is_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = searched(monkeypatch, {"mixed": falls_at(2.0)}, Asked(Budget.parse("30")), devices=4)
    goodput = outcome.document["arms"]["mixed"]["goodput"]
    assert goodput["per_device"]["rate"] == pytest.approx(goodput["rate"] / 4, abs=1e-5)


def test_gpus_are_asked_for_more() -> None:
    assert search.default_target([Arm("a", kind="cuda"), Arm("b", kind="cuda")]) == 0.03  # type: ignore[list-item]
    assert search.default_target([Arm("a", kind="cuda"), Arm("b")]) == 0.1  # type: ignore[list-item]


def test_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome, _ = searched(
        monkeypatch, TWO, Asked(Budget.parse("40")), invalid=lambda arm, rate, seed, tried: rate > 4 and tried == 1
    )
    stream = io.StringIO()
    print_search(outcome.document, Console(file=stream, width=100, no_color=True, highlight=False))
    drawn = stream.getvalue()
    for text in ("goodput", "per device", "95 % interval", "INVALID, left out", "mixed: stopped:", "pdbench surface"):
        assert text in drawn
    assert outcome.document["sentence"][:60] in drawn.replace("\n", " ")
    (tmp_path / "summary.json").write_text(json.dumps(outcome.document))
    assert pdbench(["report", str(tmp_path), "--no-color"]) == 0
    assert outcome.document["sentence"][:60] in capsys.readouterr().out.replace("\n", " ")


# ---- bad input


@pytest.mark.parametrize(
    ("text", "seconds", "runs"),
    [("60m", 3600.0, None), ("90s", 90.0, None), ("24", None, 24), ("24 runs", None, 24), ("1 run", None, 1)],
)
def test_budgets(text: str, seconds: float | None, runs: int | None) -> None:
    budget = Budget.parse(text)
    assert (budget.seconds, budget.runs) == (seconds, runs)


@pytest.mark.parametrize("text", ["", "soon", "-3", "60x", "1.5"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"start_rate": 0}, "--start-rate"),
        ({"start_rate": -1}, "--start-rate"),
        ({"start_rate": math.nan}, "--start-rate"),
        ({"share": 0}, "--share"),
        ({"share": 1}, "--share"),
        ({"target": 0}, "--half-width"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError, match=where):
        Asked(Budget.parse("60m"), **changes)


@pytest.mark.parametrize(("budget", "words"), [("20s", "too short"), ("1", "not one for each of 2 arms")])
def test_a_budget_that_holds_no_run(monkeypatch: pytest.MonkeyPatch, budget: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        searched(monkeypatch, TWO, Asked(Budget.parse(budget)))


def test_a_workload_without_a_share_that_could_cross() -> None:
    with pytest.raises(UsageError, match="one request can meet"):
        check_workload(chat(slo=["tbt p90 <= 40ms", "errors <= 1%"]))
    with pytest.raises(UsageError, match="one request can meet"):
        check_workload(chat(slo=[]))


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-backend", "colocated"],
        ["colocated", "colocated"],
        ["colocated", "--start-rate", "0"],
        ["colocated", "--budget", "10s"],
        ["colocated", "--share", "150%"],
        ["colocated", "--slo", "errors <= 1%"],
        ["colocated", "--workload", "two-queues"],
        ["two-queues"],
    ],
)
def test_bad_input_ends_in_2(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pdbench(["search", *args, "-q", "-o", str(tmp_path)]) == 2
    assert "Error" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was started or written"


@pytest.mark.parametrize(
    ("slo", "tokens", "drain"),
    [
        (["ttft p90 <= 400ms", "tpot p90 <= 40ms"], 200, 8.4),
        (["ttft p90 <= 400ms", "tpot p90 <= 40ms", "worst_gap p90 <= 20ms"], 400, 8.4),
        (["e2e p99 <= 10s"], 200, 10.0),
        (["ttft p90 <= 400ms", "tpot p90 <= 40ms"], 10, 5.0),
        (["ttft p90 <= 400ms"], 200, 60.0),
    ],
)
def test_a_request_is_waited_for_as_long_as_it_could_meet_the_slo(slo: list[str], tokens: int, drain: float) -> None:
    assert drain_s(parse_objectives(slo), tokens, Settings()) == pytest.approx(drain)


def test_no_rate_in_common() -> None:
    assert shared_rate([[], []], 2.0, 0.9) is None
