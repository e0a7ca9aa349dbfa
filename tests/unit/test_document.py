"""The document's outcome: the exit code, the offered rate, and no verdict when INVALID."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from pdbench import schema
from pdbench.document import assemble, declaration, declared_lines, exit_code, offered_rate
from pdbench.measure.validity import Reason, Validity
from pdbench.settings import Budget, FailOn, Settings, load_workload
from pdbench.stats.sequential import Looks
from pdbench.workload.plan import make_plan
from tests.unit.documents import INVALID, VALID, arm, change, compare_document

WORSE = [change("split", "joint_attainment", "worse")]
SECOND = [change("split", "joint_attainment", "better"), change("split", "ttft_p90", "worse")]


@pytest.mark.parametrize(
    ("joint", "comparisons", "validity", "fail_on", "interrupted", "code"),
    [
        (0.95, WORSE, VALID, (), False, 0),
        (0.1, WORSE, VALID, (), False, 0),
        (0.1, [], VALID, ("slo",), False, 10),
        (0.95, WORSE, VALID, ("slo",), False, 0),
        (0.95, WORSE, VALID, ("worse",), False, 10),
        (0.95, SECOND, VALID, ("worse",), False, 0),
        (0.95, WORSE, INVALID, ("worse",), False, 12),
        (0.95, WORSE, INVALID, (), True, 130),
    ],
)
def test_exit_code(
    joint: float,
    comparisons: list[dict[str, Any]],
    validity: dict[str, Any],
    fail_on: tuple[FailOn, ...],
    interrupted: bool,
    code: int,
) -> None:
    document = compare_document({"base": arm(0.95), "split": arm(joint)}, comparisons, validity)
    assert exit_code(document, Settings(fail_on=frozenset(fail_on)), interrupted) == code


def assembled(validity: Validity, *, interrupted: bool = False) -> dict[str, Any]:
    arms = {"base": arm(0.95), "split": arm(0.2)}
    return assemble(
        kind="compare",
        run="r",
        workload=load_workload("chat"),
        objectives=[],
        plans=[],
        fingerprint={},
        validity=validity,
        interrupted=interrupted,
        arms=arms,
        per_pair={name: [entry, entry, entry] for name, entry in arms.items()},
        base="base",
        warnings=[],
    )


def test_valid_has_a_verdict() -> None:
    document = assembled(Validity())
    assert document["comparisons"][0]["verdict"] == "worse"
    assert document["sentence"].startswith("At 2 req/s base meets the SLO more often")


@pytest.mark.parametrize("interrupted", [False, True])
def test_invalid_has_none(interrupted: bool) -> None:
    validity = Validity() if interrupted else Validity("INVALID", (Reason("late", "wait"),))
    document = assembled(validity, interrupted=interrupted)
    assert document["validity"]["status"] == "INVALID"
    assert {item["verdict"] for item in document["comparisons"]} == {"not resolved"}
    assert document["sentence"].startswith("No verdict")


@pytest.mark.parametrize(
    ("looks", "settings", "words"),
    [
        (None, Settings(pairs=6), "base base, against it split; primary metric joint_attainment; 6 pairs"),
        (Looks(), Settings(budget=Budget(seconds=600)), "looks after 6, 10, 16 pairs, budget 600 s"),
        (Looks(), Settings(budget=Budget(), primary="tbt_p90"), "primary metric tbt_p90; looks after"),
    ],
)
def test_the_declaration(looks: Looks | None, settings: Settings, words: str) -> None:
    found = declaration("base", ["split"], settings, looks, ["0" * 64])
    lines = declared_lines(found)
    assert words in lines[0]
    assert "joint_attainment 2 pt, ttft_p90 10 %, tpot_p90 5 %" in lines[1]
    defs = schema.load("compare")["$defs"]
    jsonschema.Draft202012Validator({**defs["declared"], "$defs": defs}).validate(json.loads(json.dumps(found)))


def test_offered_rate() -> None:
    assert offered_rate(load_workload("chat"), []) == 2.0
    teaching = load_workload("two-queues")
    assert offered_rate(teaching, [make_plan(teaching, seed=0)]) is None
