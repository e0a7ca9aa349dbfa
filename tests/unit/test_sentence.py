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


def turn(metric: str | None, who: str | None = "split", was: float | None = 100.0) -> dict[str, Any]:
    found: dict[str, Any] = {"base": "base", "head": "split", "leads": "base", "metric": metric}
    if metric is None:
        return found
    return found | {"from_ms": was, "to_ms": 30.0, "would_lead": who, "joint": {"base": 0.61, "split": 0.87}}


def turned(found: dict[str, Any], verdict: str = "worse", metric: str = JOINT) -> str:
    items = [change("split", metric, verdict) | {"primary": True}]
    document = compare_document({"base": arm(0.81), "split": arm(0.61)}, items)
    return compare_sentence(document | {"turns": [found]}, 2.0)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (turn("worst_gap"), "worse", "with a limit of 30 ms on the worst gap instead of 100 ms, split would lead"),
        (turn("worst_gap"), "worse", "(87 % against 61 % of the requests seen)"),
        (turn("ttft", was=None), "worse", "with a limit of 30 ms on TTFT where there was none, split would lead"),
        (turn("ttft"), "not resolved", "split would lead"),
        (turn(None), "worse", "no change of one limit would turn this over"),
    ],
)
def test_where_the_other_arm_would_win(found: dict[str, Any], verdict: str, words: str) -> None:
    assert words in turned(found, verdict)


@pytest.mark.parametrize(
    ("found", "verdict", "metric"),
    [
        (turn("ttft", who="base"), "worse", JOINT),  # the pooled requests lead another way than the verdict
        (turn(None), "not resolved", JOINT),
        (turn("ttft"), "worse", "ttft_p90"),  # the turn is about attainment
    ],
)
def test_no_turn_is_claimed(found: dict[str, Any], verdict: str, metric: str) -> None:
    text = turned(found, verdict, metric)
    assert "would" not in text


def test_a_latency_as_primary_metric() -> None:
    items = [change("split", "ttft_p90", "better", -0.3) | {"primary": True}, change("split", JOINT, "worse", 0.2)]
    items[1]["primary"] = False
    document = compare_document({"base": arm(0.81, ttft=400.0), "split": arm(0.61, ttft=300.0)}, items)
    assert compare_sentence(document, 2.0) == (
        "At 2 req/s split has a shorter P90 time to first token than base (300 ms against 400 ms); base meets the SLO "
        "more often than split (81 % against 61 %)."
    )


def test_an_infinite_primary_latency() -> None:
    items = [change("split", "ttft_p90", "worse", None) | {"primary": True}]
    document = compare_document({"base": arm(0.81), "split": arm(0.2, ttft=None)}, items)
    assert "than split (300 ms against infinite)" in compare_sentence(document, 2.0)


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
