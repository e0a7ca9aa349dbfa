"""The result as rows for the page: one column an arm, every figure with its word. Pure; the template escapes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdbench.report import words
from pdbench.report.html.parts import Cell
from pdbench.sentence import percent

_SPREADS = (
    ("TTFT", "ttft_ms", ("p50", "p90", "p99")),
    ("TPOT", "tpot_ms", ("p50", "p90", "p99")),
    ("TBT", "tbt_ms", ("p50", "p90", "p99")),
    ("worst gap", "worst_gap_ms", ("p90",)),
)
_SIGNED = {"met": "✓ met", "missed": "✗ missed"}
_TONES = {"met": "good", "missed": "bad"}


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    cells: Sequence[Cell]


def rows(document: Mapping[str, Any]) -> list[Row]:
    """The rows of a run's or a comparison's document."""
    arms: Mapping[str, Any] = document["arms"]
    found = [Row("requests ok / failed", [Cell(_counts(arm)) for arm in arms.values()])]
    if any("joint" in arm.get("attainment", {}) for arm in arms.values()):
        found.append(Row("all limits at once", [_share(arm, "joint") for arm in arms.values()]))
    valid = words.is_valid(document)
    found += [Row(text, [_judged(arm, text, valid) for arm in arms.values()]) for text in document.get("slo", [])]
    for label, key, stats in _SPREADS:
        for stat in stats:
            if any(stat in (arm.get(key) or {}) for arm in arms.values()):
                cells = [Cell(words.spread(arm, key, stat, unit=True)) for arm in arms.values()]
                found.append(Row(f"{label} {stat.upper()}", cells))
    if valid:
        found += _changes(document, list(arms))
    found.append(Row("validity", [_validity(arm) for arm in arms.values()]))
    return found


def reasons(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, remedy) of an INVALID result."""
    given = document.get("validity", {}).get("reasons", [])
    return [(str(one.get("message", "")), str(one.get("remedy") or "")) for one in given]


def warnings(document: Mapping[str, Any]) -> list[str]:
    found = [str(text) for text in document.get("warnings", [])]
    return found + [f"{name}: {text}" for name, arm in document["arms"].items() for text in arm.get("warnings", [])]


def _counts(arm: Mapping[str, Any]) -> str:
    requests = arm.get("requests") or {}
    return f"{requests.get('ok', 0)} / {requests.get('failed', 0)}"


def _share(arm: Mapping[str, Any], key: str) -> Cell:
    bounds = arm.get("attainment_interval", {}).get(key)
    return Cell(percent(arm.get("attainment", {}).get(key)), below=words.shares(bounds) if bounds else "")


def _judged(arm: Mapping[str, Any], text: str, valid: bool) -> Cell:
    word = words.outcome(arm, text, valid=valid)
    if not word:
        return Cell(words.NOTHING)
    share = _share(arm, text)
    return Cell(_SIGNED.get(word, word), _TONES.get(word, ""), ", ".join(p for p in (share.text, share.below) if p))


def _changes(document: Mapping[str, Any], names: Sequence[str]) -> list[Row]:
    """Against the base, a row a metric, with interval and verdict."""
    comparisons = document.get("comparisons") or []
    found = []
    for metric in dict.fromkeys(item["metric"] for item in comparisons):
        items = {item["head"]: item for item in comparisons if item["metric"] == metric}
        mark = " (primary)" if any(item["primary"] for item in items.values()) else ""
        found.append(Row(f"change of {words.metric_label(metric)}{mark}", [_change(items.get(name)) for name in names]))
    return found


def _change(item: Mapping[str, Any] | None) -> Cell:
    if item is None:
        return Cell("base")
    verdict = item["verdict"]
    said = f"{words.change(item)}, {words.change_interval(item)}"
    return Cell(f"{words.sign(verdict)} {verdict}".strip(), words.tone(verdict), said)


def _validity(arm: Mapping[str, Any]) -> Cell:
    status = str(arm.get("validity", {}).get("status", words.NOTHING))
    return Cell(status, words.tone(status))
