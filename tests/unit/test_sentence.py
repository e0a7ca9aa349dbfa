"""The sentence says what the numbers say, in either direction, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from pdbench.sentence import compare_sentence, percent, run_sentence
from tests.unit.documents import INVALID, arm, change, compare_document

JOINT = "joint_attainment"


def sentence(head: dict[str, Any], comparisons: list[dict[str, Any]], base: dict[str, Any] | None = None) -> str:
    arms = {"base": base or arm(0.81, gap=55.0), "split": head}
    return compare_sentence(compare_document(arms, comparisons), 2.0)


def test_separation_loses_but_wins_the_gap() -> None:
    text = sentence(
        arm(0.61, gap=25.0),
        [change("split", JOINT, "worse", 0.2), change("split", "worst_gap_p90", "better", -0.8)],
    )
    assert text == (
        "At 2 req/s base meets the SLO more often than split (81 % against 61 %); split has the shorter P90 worst gap "
        "(25 ms against 55 ms for base) and wins where that limit lies between the two."
    )


def test_separation_wins_but_loses_ttft() -> None:
    text = sentence(
        arm(0.95, ttft=390.0),
        [change("split", JOINT, "better", -0.14), change("split", "ttft_p90", "worse", 0.3)],
    )
    assert text.startswith("At 2 req/s split meets the SLO more often than base (95 % against 81 %)")
    assert "base has the shorter P90 time to first token (300 ms against 390 ms for split)" in text


def test_not_resolved() -> None:
    text = sentence(arm(0.78), [change("split", JOINT, "not resolved", 0.03)])
    assert text == (
        "At 2 req/s whether base meets the SLO more often than split (81 % against 78 %) is not resolved by 6 pairs."
    )


def test_one_pair() -> None:
    assert "not resolved by one pair" in sentence(arm(0.1), [change("split", JOINT, "not resolved", 0.7, pairs=1)])


def test_equivalent() -> None:
    text = sentence(arm(0.81), [change("split", JOINT, "equivalent", 0.0)])
    assert text == "At 2 req/s base meets the SLO as often as split (81 % against 81 %)."


def test_unresolved_secondary_metrics_are_not_claimed() -> None:
    text = sentence(
        arm(0.61, gap=25.0),
        [change("split", JOINT, "worse"), change("split", "worst_gap_p90", "not resolved", -0.8)],
    )
    assert "shorter" not in text


def test_the_winner_of_the_primary_gets_no_second_clause() -> None:
    text = sentence(arm(0.95), [change("split", JOINT, "better"), change("split", "worst_gap_p90", "better", -0.8)])
    assert "shorter" not in text


def test_infinite_percentile_of_the_other_arm() -> None:
    text = sentence(
        arm(0.61, gap=25.0),
        [change("split", JOINT, "worse"), change("split", "worst_gap_p90", "better", None)],
        base=arm(0.81, gap=None),
    )
    assert "split has the shorter P90 worst gap (25 ms; base fails too many requests to have one)" in text


def test_pooled_value_against_pairs_claims_no_limit() -> None:
    text = sentence(
        arm(0.61, gap=60.0), [change("split", JOINT, "worse"), change("split", "worst_gap_p90", "better", -0.1)]
    )
    assert "over the pairs" in text
    assert "limit" not in text


def test_three_arms_in_one_sentence() -> None:
    document = compare_document(
        {"base": arm(0.81), "whole": arm(0.39), "split": arm(0.95)},
        [change("whole", JOINT, "worse"), change("split", JOINT, "better")],
    )
    text = compare_sentence(document, None)
    assert text == (
        "Under this load base meets the SLO more often than whole (81 % against 39 %); split meets the SLO more often "
        "than base (95 % against 81 %)."
    )


def test_invalid_has_no_verdict() -> None:
    document = compare_document({"base": arm(0.8), "split": arm(0.9)}, [change("split", JOINT, "better")], INVALID)
    assert compare_sentence(document, 2.0) == "No verdict: the run is INVALID (requests left late)."
    assert run_sentence(document, 2.0) == "No verdict: the run is INVALID (requests left late)."


@pytest.mark.parametrize(("joint", "end"), [(0.95, "every objective is met."), (0.5, "it misses ttft p90 <= 400ms.")])
def test_run(joint: float, end: str) -> None:
    text = run_sentence(compare_document({"mine": arm(joint)}, []), 2.0)
    assert text.startswith(f"At 2 req/s mine meets all of the SLO in {percent(joint)} of its requests; ")
    assert text.endswith(end)


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "n/a"), (1.0, "100 %"), (0.998, "99.8 %"), (0.0, "0 %"), (0.002, "0.2 %"), (0.814, "81 %")],
)
def test_percent_never_rounds_to_certainty(share: float | None, text: str) -> None:
    assert percent(share) == text
