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


def _primary_clauses(primary: list[Document], arms: Document, rate: float | None) -> list[str]:
    base = primary[0]["base"]
    groups: dict[str, list[str]] = {verdict: [] for verdict in (_LESS, _MORE, _SAME, _OPEN)}
    for item in primary:
        groups.setdefault(item["verdict"], []).append(item["head"])
    pairs = max(int(item["pairs"]) for item in primary)
    shares = {name: arms[name].get("attainment", {}).get("joint") for name in arms}

    def shown(heads: Iterable[str]) -> str:
        return _listed([f"{head} ({percent(shares[base])} against {percent(shares[head])})" for head in heads])

    clauses = []
    if heads := groups[_LESS]:
        clauses.append(f"{base} meets the SLO more often than {shown(heads)}")
    for head in groups[_MORE]:
        against = f"({percent(shares[head])} against {percent(shares[base])})"
        clauses.append(f"{head} meets the SLO more often than {base} {against}")
    if heads := groups[_SAME]:
        clauses.append(f"{base} meets the SLO as often as {shown(heads)}")
    if heads := groups[_OPEN]:
        after = "one pair" if pairs == 1 else f"{pairs} pairs"
        clauses.append(f"whether {base} meets the SLO more often than {shown(heads)} is not resolved by {after}")
    clauses[0] = f"{_at(rate)} {clauses[0]}"
    return clauses


def _win_clauses(comparisons: list[Document], primary: list[Document], arms: Document) -> list[str]:
    """What the arm that does not win the primary metric is resolved to do better, by the largest effect."""
    clauses = []
    for item in primary:
        base, head, verdict = item["base"], item["head"], item["verdict"]
        loser = head if verdict in (_LESS, _SAME, _OPEN) else base
        won = [c for c in comparisons if _won_by(c, loser, base, head)]
        if not won:
            continue
        best = max(won, key=lambda c: math.inf if c["effect"] is None else abs(c["effect"]))
        if clause := _win_clause(best, loser, head if loser == base else base, arms):
            clauses.append(clause)
    return clauses


def _won_by(item: Document, arm: str, base: str, head: str) -> bool:
    same = item["base"] == base and item["head"] == head and not item["primary"]
    return same and _LATENCY.match(item["metric"]) is not None and item["verdict"] == (_MORE if arm == head else _LESS)


def _win_clause(item: Document, winner: str, other: str, arms: Document) -> str:
    match = _LATENCY.match(item["metric"])
    if match is None:
        return ""
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
    if 99.5 <= value < 100 or 0 < value < 0.5:
        return f"{value:.1f} %"
    return f"{value:.0f} %"


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _at(rate: float | None) -> str:
    return f"At {rate:.3g} req/s" if rate is not None and math.isfinite(rate) else "Under this load"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
