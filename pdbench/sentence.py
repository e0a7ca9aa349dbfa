"""The one sentence a comparison ends in: who meets the SLO more often, is it resolved, who wins what.

It is put together from the numbers of the document alone and has no favourite: each clause can name either
arm, and says "not resolved" where the interval says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

_LATENCY = re.compile(r"^(?P<metric>service_ttft|ttft|tpot|tbt|worst_gap|e2e)_(?P<stat>p\d+)$")
_WORDS = {
    "ttft": "time to first token",
    "service_ttft": "service TTFT",
    "tpot": "time per output token",
    "tbt": "token gaps",
    "worst_gap": "worst gap",
    "e2e": "end-to-end time",
}
_LIMITED = {"ttft": "TTFT", "tpot": "TPOT", "worst_gap": "the worst gap"}
_MORE, _LESS, _SAME, _OPEN = "better", "worse", "equivalent", "not resolved"

Document = dict[str, Any]


def compare_sentence(document: Document, rate: float | None) -> str:
    """From a ``compare`` document (ARCHITECTURE keys). ``rate``: offered requests/s, None: there is none."""
    if document["validity"]["status"] != "VALID":
        return f"No verdict: the run is INVALID ({first_reason(document['validity'])})."
    arms = document["arms"]
    primary = [c for c in document["comparisons"] if c["primary"]]
    if not primary:
        return "No verdict: there is nothing to compare."
    clauses = _primary_clauses(primary, arms, rate)
    clauses += _win_clauses(document["comparisons"], primary, arms)
    clauses += _turn_clauses(document, primary)
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def run_sentence(document: Document, rate: float | None) -> str:
    """From a document with one arm: how often it meets the SLO, and which objectives it misses."""
    if document["validity"]["status"] != "VALID":
        return f"No verdict: the run is INVALID ({first_reason(document['validity'])})."
    name, arm = next(iter(document["arms"].items()))
    joint = arm.get("attainment", {}).get("joint")
    at = _at(rate)
    if joint is None:
        return f"{at} {name} was measured without an SLO."
    missed = [text for text, met in arm.get("slo_met", {}).items() if not met]
    tail = f"it misses {_listed(missed)}" if missed else "every objective is met"
    return f"{at} {name} meets all of the SLO in {percent(joint)} of its requests; {tail}."


def first_reason(validity: dict[str, Any]) -> str:
    """The first reason's message, whatever shape it was stored in."""
    reasons = validity.get("reasons") or []
    if not reasons:
        return "no reason given"
    first = reasons[0]
    text = str(first.get("message", first)) if isinstance(first, dict) else str(first)
    return text.rstrip(".")


class _Claim:
    """What the primary metric lets one arm claim over another, in words, and each arm's figure for it."""

    def __init__(self, metric: str, arms: Document) -> None:
        self._arms = arms
        self._match = _LATENCY.match(metric)
        name = f"P{self._match['stat'][1:]} {_WORDS[self._match['metric']]}" if self._match else ""
        self.more = f"has a shorter {name} than" if name else "meets the SLO more often than"
        self.same = f"has as short a {name} as" if name else "meets the SLO as often as"

    def figure(self, arm: str) -> str:
        entry = self._arms[arm]
        if self._match is None:
            return percent(entry.get("attainment", {}).get("joint"))
        spread = entry.get(f"{self._match['metric']}_ms", {})
        if self._match["stat"] not in spread:
            return "n/a"
        value = spread[self._match["stat"]]
        return "infinite" if value is None else _ms(value)

    def against(self, one: str, other: str) -> str:
        return f"({self.figure(one)} against {self.figure(other)})"


def _primary_clauses(primary: list[Document], arms: Document, rate: float | None) -> list[str]:
    base = primary[0]["base"]
    groups: dict[str, list[str]] = {verdict: [] for verdict in (_LESS, _MORE, _SAME, _OPEN)}
    for item in primary:
        groups.setdefault(item["verdict"], []).append(item["head"])
    pairs = max(int(item["pairs"]) for item in primary)
    claim = _Claim(primary[0]["metric"], arms)

    def shown(heads: Iterable[str]) -> str:
        return _listed([f"{head} {claim.against(base, head)}" for head in heads])

    clauses = []
    if heads := groups[_LESS]:
        clauses.append(f"{base} {claim.more} {shown(heads)}")
    clauses += [f"{head} {claim.more} {base} {claim.against(head, base)}" for head in groups[_MORE]]
    if heads := groups[_SAME]:
        clauses.append(f"{base} {claim.same} {shown(heads)}")
    if heads := groups[_OPEN]:
        after = "one pair" if pairs == 1 else f"{pairs} pairs"
        clauses.append(f"whether {base} {claim.more} {shown(heads)} is not resolved by {after}")
    clauses[0] = f"{_at(rate)} {clauses[0]}"
    return clauses


def _turn_clauses(document: Document, primary: list[Document]) -> list[str]:
    """Of two arms, the nearest limit under which the other would meet the SLO more often, in the requests seen.

    Silent where the pooled requests lead another way than the verdict: the turn would then name the winner.
    """
    if len(document["arms"]) != 2 or len(document.get("turns", [])) != 1:
        return []
    turn, item = document["turns"][0], primary[0]
    if item["metric"] != "joint_attainment":
        return []
    winner = {_MORE: item["head"], _LESS: item["base"]}.get(item["verdict"])
    if turn["metric"] is None:
        return [] if winner is None else ["no change of one limit would turn this over"]
    who = turn["would_lead"]
    if who == winner:
        return []
    other = item["base"] if who == item["head"] else item["head"]
    instead = f"instead of {_ms(turn['from_ms'])}" if turn["from_ms"] is not None else "where there was none"
    shares = f"{percent(turn['joint'][who])} against {percent(turn['joint'][other])} of the requests seen"
    return [
        f"with a limit of {_ms(turn['to_ms'])} on {_LIMITED[turn['metric']]} {instead}, {who} would lead ({shares})"
    ]


def _win_clauses(comparisons: list[Document], primary: list[Document], arms: Document) -> list[str]:
    """What the arm that does not win the primary metric is resolved to do better, by the largest effect."""
    clauses = []
    for item in primary:
        base, head, verdict = item["base"], item["head"], item["verdict"]
        loser = head if verdict in (_LESS, _SAME, _OPEN) else base
        won = [c for c in comparisons if _won_by(c, loser, base, head)]
        if not won:
            continue
        best = max(won, key=_weight)
        if clause := _win_clause(best, loser, head if loser == base else base, arms):
            clauses.append(clause)
    return clauses


def _weight(item: Document) -> tuple[bool, float]:
    """Attainment before any latency, then the largest effect."""
    return _LATENCY.match(item["metric"]) is None, math.inf if item["effect"] is None else abs(item["effect"])


def _won_by(item: Document, arm: str, base: str, head: str) -> bool:
    same = item["base"] == base and item["head"] == head and not item["primary"]
    return same and item["verdict"] == (_MORE if arm == head else _LESS)


def _win_clause(item: Document, winner: str, other: str, arms: Document) -> str:
    match = _LATENCY.match(item["metric"])
    if match is None:
        claim = _Claim(item["metric"], arms)
        return f"{winner} {claim.more} {other} {claim.against(winner, other)}"
    metric, stat = match.groups()
    low = arms[winner].get(f"{metric}_ms", {}).get(stat)
    high = arms[other].get(f"{metric}_ms", {}).get(stat)
    what = f"{stat.upper()} {_WORDS[metric]}"
    if low is None:
        return f"{winner} has the shorter {what} than {other}"
    if high is None:
        return f"{winner} has the shorter {what} ({_ms(low)}; {other} fails too many requests to have one)"
    if low >= high:  # the pairs say one thing, the pooled requests another: claim no limit
        return f"{winner} has the shorter {what} than {other} over the pairs"
    return (
        f"{winner} has the shorter {what} ({_ms(low)} against {_ms(high)} for {other})"
        f" and wins where that limit lies between the two"
    )


def percent(share: float | None) -> str:
    """``0.814`` -> ``"81 %"``; never rounds up to 100 or down to 0."""
    if share is None:
        return "n/a"
    value = 100 * share
    if 99.95 <= value < 100:
        return ">99.9 %"
    if 0 < value < 0.05:
        return "<0.1 %"
    if 99.5 <= value < 100 or 0 < value < 0.5:
        return f"{value:.1f} %"
    return f"{value:.0f} %"


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _at(rate: float | None) -> str:
    return f"At {rate:.3g} req/s" if rate is not None and math.isfinite(rate) else "Under this load"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
