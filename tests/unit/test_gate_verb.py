"""The gate's course: when it stops, what it tries again, and which exit code follows. No server, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pdbench.errors import UsageError
from pdbench.gate import Ask, Course, change, decide_pairs, exit_code, failed_metrics, self_test, sentence, slo_checks
from pdbench.measure.audit import Audit
from pdbench.measure.slo import parse_objectives
from pdbench.pairs import Both, evidence, hard_faults, pair_faults
from pdbench.run import RunResult
from pdbench.serverside import ServerSide
from pdbench.stats.gate import RunEvidence
from pdbench.stats.mutants import OBJECTIVES
from pdbench.workload.plan import make_plan
from tests.unit.gatehelp import Replay, alternating, honest
from tests.unit.measure.helpers import frames, request
from tests.unit.workload.helpers import workload


def course_of(run: Callable[[int, int], Both], **ask: Any) -> Course:
    course = Course()
    decide_pairs(run, OBJECTIVES, Ask(**{"primary": "ttft_p90", **ask}), course, lambda _: None)
    return course


def replay(name: str) -> Replay:
    return alternating() if name == "alternating" else Replay(*honest()[name])


@pytest.mark.parametrize(
    ("name", "status", "code", "pairs"),
    [
        ("same", "PASS", 0, 6),
        ("slow", "FAIL", 10, 6),
        ("failing", "FAIL", 10, 6),
        ("alternating", "INCONCLUSIVE", 11, 6),
    ],
)
def test_every_verdict_and_its_exit_code(name: str, status: str, code: int, pairs: int) -> None:
    run = replay(name)
    course = course_of(run, max_pairs=6)
    assert course.verdict is not None
    assert (course.verdict.status, exit_code(course.verdict.status, {})) == (status, code)
    assert (len(course.base), course.pairs, course.set_aside) == (pairs, list(range(pairs)), [])
    assert course.looks == [(6, status)]
    assert run.calls == [(i, i) for i in range(pairs)], "base first in even turns, one fresh number a pair"


def test_the_evidence_holds_what_the_run_says_of_itself() -> None:
    plan = make_plan(workload(), seed=1)
    rows = frames(request(0, 10, [10]))
    audit = Audit(clock_drift_us=5.0)
    run = RunResult("a", 0, 1, "complete", "kernel", *rows, None, ServerSide(), False, audit=audit)
    found = evidence(run, plan, 1, 8)
    # Of a closed loop fewer requests fall due than its plan holds.
    assert (found.scheduled, found.audit, found.max_concurrency) == (1, audit, 8)


def test_it_goes_on_while_nothing_is_certain() -> None:
    course = course_of(alternating(), max_pairs=16)
    assert course.looks[0] == (6, "go on")
    assert len(course.base) in (10, 16)


def test_a_secondary_metric_fails_the_gate_unless_the_primary_alone_may() -> None:
    run = replay("failing")
    ask: dict[str, Any] = {"primary": "tbt_p90", "max_pairs": 6}  # its gaps are those of requests that were served
    both = course_of(run, **ask).verdict
    alone = course_of(run, **ask, primary_only=True).verdict
    assert both is not None
    assert alone is not None
    assert alone.decisions["tbt_p90"].status != "FAIL"
    assert (both.status, alone.status) == ("FAIL", alone.decisions["tbt_p90"].status)
    assert {"ttft_p90", "joint_attainment"} <= set(failed_metrics(both))


def probed(run: Replay, moves: dict[int, float]) -> Callable[[int, int], Both]:
    """The head's probe moves in the tries of these numbers."""

    def pair(number: int, turn: int) -> Both:
        base, head = run(number, turn)
        return replace(base, probe={"gemm": 1.0}), replace(head, probe={"gemm": moves.get(number, 1.0)})

    return pair


def test_a_pair_in_which_the_machine_moved_is_run_again_once() -> None:
    course = course_of(probed(replay("same"), {2: 1.2}), max_pairs=6)
    assert course.verdict is not None
    assert course.verdict.status == "PASS"
    assert course.pairs == [0, 1, 3, 4, 5, 6], "under a number of its own"
    assert [number for number, _ in course.set_aside] == [2]
    assert "gemm probe moved" in course.set_aside[0][1][0].message


def test_a_machine_that_keeps_moving_is_invalid_at_once() -> None:
    run = replay("same")
    course = course_of(probed(run, {2: 1.2, 3: 0.8}), max_pairs=6)
    assert course.verdict is not None
    assert (course.verdict.status, exit_code("INVALID", {})) == ("INVALID", 12)
    assert run.calls[-1] == (3, 2)
    assert "--calibrate" in course.verdict.reasons[0].remedy
    calm = course_of(probed(replay("same"), {2: 1.2, 3: 0.8}), max_pairs=6, probe_sd={"gemm": 0.1})
    assert calm.verdict is not None
    assert calm.verdict.status == "PASS", "on a machine known to move by 10 % this is no fault"


@pytest.mark.parametrize(
    ("redo", "status", "tried"), [(0, "INVALID", [0]), (1, "INVALID", [0, 1]), (2, "PASS", [0, 1, 2])]
)
def test_how_often_it_is_run_again(redo: int, status: str, tried: list[int]) -> None:
    run = replay("same")
    course = course_of(probed(run, {0: 1.2, 1: 0.8}), max_pairs=6, redo=redo)
    assert course.verdict is not None
    assert course.verdict.status == status
    assert [number for number, turn in run.calls if turn == 0] == tried
    assert [number for number, _ in course.set_aside] == tried[:-1]
    assert course.pairs[0] == tried[-1]


def spoiled(change: Callable[[RunEvidence], RunEvidence], side: int = 1) -> Callable[[int, int], Both]:
    def pair(number: int, turn: int) -> Both:
        both = list(replay("same")(number, turn))
        both[side] = change(both[side])
        return both[0], both[1]

    return pair


def nothing_ok(run: RunEvidence) -> RunEvidence:
    return replace(run, requests=run.requests.assign(status="error"), tokens=run.tokens.iloc[:0])


def clock_jumps(run: RunEvidence) -> RunEvidence:
    late = run.requests["user_lag_ns"].copy()
    for i in range(len(late)):
        late.iloc[i] = [50_000 if i < len(late) // 2 else -5_000_000]
    return replace(run, requests=run.requests.assign(user_lag_ns=late))


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (spoiled(nothing_ok, side=0), "the base completed no request"),
        (spoiled(lambda one: replace(one, plan_hash="0" * 64)), "different plans"),
        (spoiled(clock_jumps), "its clock ran ahead or jumped"),
        (spoiled(lambda one: replace(one, scheduled=one.scheduled + 1)), "accounted for"),
        (spoiled(lambda one: replace(one, workers_lost=1)), "load worker"),
        (spoiled(lambda one: replace(one, interrupted=True)), "interrupted"),
    ],
)
def test_faulty_measurements_are_invalid(run: Callable[[int, int], Both], what: str) -> None:
    course = course_of(run, max_pairs=6)
    assert course.verdict is not None
    assert course.verdict.status == "INVALID"
    assert any(what in reason.message and reason.remedy for reason in course.verdict.reasons)
    assert len(course.base) == 1, "it does not go on"
    assert len(course.set_aside) == (what != "interrupted"), "an interruption is not tried again"


def test_a_head_that_serves_nothing_fails() -> None:
    """A regression of the head is a result, never a fault of the measurement."""
    course = course_of(spoiled(nothing_ok), max_pairs=6, primary="joint_attainment")
    assert course.verdict is not None
    assert course.verdict.status == "FAIL"


def test_a_primary_metric_that_does_not_apply_is_known_after_one_pair() -> None:
    def one_token(run: RunEvidence) -> RunEvidence:
        tokens = run.tokens.groupby("index", as_index=False).first().assign(arm=run.arm, pair=run.pair)
        return replace(run, tokens=tokens[run.tokens.columns])

    def pair(number: int, turn: int) -> Both:
        base, head = replay("same")(number, turn)
        return one_token(base), one_token(head)

    course = Course()
    ttft = parse_objectives(["ttft p90 <= 1s"])
    decide_pairs(pair, ttft, Ask(primary="tpot_p90", max_pairs=6), course, lambda _: None)
    assert course.verdict is not None
    assert (course.verdict.status, len(course.base)) == ("INVALID", 1)
    assert "tpot_p90" in course.verdict.reasons[0].message


@pytest.mark.parametrize(
    ("ask", "where"),
    [(Ask(max_pairs=5), "--max-pairs"), (Ask(max_pairs=0), "--max-pairs"), (Ask(primary="ttft"), "--primary")],
)
def test_questions_that_no_run_can_answer(ask: Ask, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask.check()
    assert (caught.value.where, caught.value.exit_code) == (where, 2)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        ("PASS", "met", 0), ("PASS", "missed", 10), ("PASS", "not certain", 11),
        ("INCONCLUSIVE", "missed", 10), ("INCONCLUSIVE", "met", 11),
        ("FAIL", "met", 10), ("INVALID", "missed", 12),
    ],
)  # fmt: skip
def test_the_slo_check_can_only_make_it_worse(status: str, outcome: str, code: int) -> None:
    assert exit_code(status, {"ttft p90 <= 1s": {"outcome": outcome}}) == code


def test_slo_checks_count_runs() -> None:
    _, head = honest()["failing"]
    found = slo_checks(head, OBJECTIVES)
    assert set(found) == {objective.text for objective in OBJECTIVES}
    missed = found["ttft p90 <= 1s"]
    assert (missed["outcome"], missed["runs"]) == ("missed", 6)
    assert missed["bounds"][0] < missed["share"] < missed["bounds"][1] < 0.9
    assert slo_checks([], OBJECTIVES) == {}


@pytest.mark.parametrize(
    ("base", "head", "what"),
    [
        ({"devices": 2}, {"devices": 2}, ""),
        ({"devices": 2}, {"devices": 1}, "number of devices: base 2, head 1"),
        ({"device_names": ["cpu:0", "cpu:1"]}, {"device_names": ["cpu:1", "cpu:0"]}, ""),
        ({"device_names": ["cpu:0"]}, {"device_names": ["cuda:0"]}, "devices: base cpu:0, head cuda:0"),
        ({"model_hash": "a"}, {"model_hash": "b"}, "model: base a, head b"),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, "number format"),
        ({"dtype": "float32"}, {}, ""),
    ],
)
def test_hard_keys(base: dict[str, Any], head: dict[str, Any], what: str) -> None:
    found = hard_faults(base, head)
    assert bool(found) == bool(what)
    assert not found or what in found[0].message


def test_a_good_pair_has_no_fault() -> None:
    base, head = honest()["same"]
    assert pair_faults((base[0], head[0]), OBJECTIVES, {}) == []


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        ({"percent": 12.34, "scale": "log_ratio"}, "+12.3 %"),
        ({"percent": 20.0, "scale": "difference"}, "-20.0 pt"),
        ({"percent": 0.0, "scale": "difference"}, "+0.0 pt"),
        ({"percent": None, "scale": "log_ratio"}, "infinite in one arm"),
    ],
)
def test_change(metric: dict[str, Any], shown: str) -> None:
    assert change(metric) == shown


def test_the_sentence_names_what_is_worse() -> None:
    verdict = course_of(replay("slow"), max_pairs=6).verdict
    assert verdict is not None
    document = {
        "status": verdict.status, "base": "old", "head": "new", "pairs": 6, "primary": "ttft_p90",
        "metrics": {name: one.document() for name, one in verdict.decisions.items()},
    }  # fmt: skip
    assert sentence(document).startswith("FAIL: new is worse than old after 6 pairs: ttft_p90 +")


def test_self_test_keeps_its_promises_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    good: dict[str, Any] = {
        "false_alarm_rate": 0.008, "detection": {"1.02": 0.4, "1.05": 0.97, "1.10": 1.0},
        "mutants": 13, "mutants_caught": 13,
    }  # fmt: skip
    bad = [
        {"false_alarm_rate": 0.02}, {"detection": {"1.02": 0.4, "1.05": 0.9, "1.10": 1.0}},
        {"detection": {"1.02": 0.99, "1.05": 0.97, "1.10": 1.0}}, {"mutants_caught": 12}, {"false_alarm_rate": np.nan},
    ]  # fmt: skip
    for differs, code in [({}, 0), *((one, 10) for one in bad)]:
        monkeypatch.setattr("pdbench.stats.gate_validation.validate", lambda *_, c=differs, **__: {**good, **c})
        document, found = self_test()
        assert (found, document["kept"]) == (code, code == 0), differs
