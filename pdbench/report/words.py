"""Figures of a document as a reader sees them: always with their unit, never more digits than they carry. Pure.

``None`` in a document stands for plus infinity (a percentile that fell on a request that did not complete); a key that
is absent means that the metric does not apply. Attainment changes are shown in points with up as good, latencies in
per cent with up as slower.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pdbench.sentence import percent

INFINITE = "∞"
NOTHING = "–"
NO_VERDICT = "no verdict"
_NARROW = 0.02  # an interval narrower than this shows a decimal

_COMPARED = re.compile(r"^(?P<metric>\w+)_(?P<stat>p\d+)$")
_SHORT = {"ttft": "TTFT", "tpot": "TPOT", "tbt": "TBT", "ttst": "TTST", "e2e": "E2E"}
_TONES = {
    "better": "good", "worse": "bad", "PASS": "good", "FAIL": "bad", "INVALID": "bad", "VALID": "good", "met": "good",
    "missed": "bad", "INCONCLUSIVE": "warn",
}  # fmt: skip
_SIGNS = {"better": "▲", "worse": "▼", "equivalent": "="}


def tone(word: str) -> str:
    """``good``, ``bad``, ``warn`` or nothing; the word itself always stands beside it."""
    return _TONES.get(word, "")


def is_valid(document: Mapping[str, Any]) -> bool:
    """Whether a document's figures carry verdicts: only where it says VALID of itself."""
    validity = document.get("validity")
    return isinstance(validity, Mapping) and validity.get("status") == "VALID"


def outcome(entry: Mapping[str, Any], objective: str, *, valid: bool) -> str:
    """``met``, ``missed``, or ``no verdict`` of a run that is not VALID; ``""`` where the objective does not apply.

    ``entry`` is an arm of a document. Every report asks here, so that no two say different things of one run."""
    met = (entry.get("slo_met") or {}).get(objective)
    if met is None:
        return ""
    if not valid:
        return NO_VERDICT
    return "met" if met else "missed"


def sign(verdict: str) -> str:
    return _SIGNS.get(verdict, "")


def number(value: float | None, missing: str = NOTHING) -> str:
    """Three digits: ``0.34``, ``25.3``, ``1,234``."""
    if value is None:
        return missing
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return INFINITE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def milliseconds(value: float | None, *, unit: bool = True) -> str:
    """``None`` is infinity, as everywhere in a document."""
    text = number(value, INFINITE)
    return f"{text} ms" if unit and text not in (NOTHING, INFINITE) else text


def spread(entry: Mapping[str, Any], key: str, stat: str, *, unit: bool = False) -> str:
    """A percentile of one arm; a dash where the metric does not apply."""
    found = entry.get(key) or {}
    return milliseconds(found[stat], unit=unit) if stat in found else NOTHING


def shares(bounds: Sequence[float] | None) -> str:
    """``[0.88, 0.97]`` -> ``88 to 97 %``. A bound is 0 or 100 only where it is one: beside ``99.7 %`` it would lie."""
    if not bounds:
        return NOTHING
    low, high = (_bound(one, bounds[1] - bounds[0] < _NARROW) for one in bounds)
    return f"{low} to {high} %"


def _bound(one: float, narrow: bool) -> str:
    if narrow and one not in (0.0, 1.0):
        return f"{min(max(100 * one, 0.1), 99.9):.1f}"
    return "99" if 0.995 <= one < 1 else "1" if 0 < one < 0.005 else f"{100 * one:.0f}"


def metric_label(metric: str) -> str:
    """``ttft_p90`` -> ``TTFT P90``; ``joint_attainment`` -> ``joint attainment``."""
    match = _COMPARED.match(metric)
    if match is None:
        return metric.replace("_", " ")
    name = match["metric"]
    return f"{_SHORT.get(name, name.replace('_', ' '))} {match['stat'].upper()}"


def change(item: Mapping[str, Any]) -> str:
    """``+42 %`` or ``−43 pt``; attainment in points, where up is better."""
    if item.get("effect") is None or item.get("percent") is None:
        return "infinite"
    if item["scale"] == "log_ratio":
        return f"{signed(item['percent'])} %"
    return f"{signed(-100 * item['effect'])} pt"


def change_interval(item: Mapping[str, Any]) -> str:
    """``[+34, +51]``, in what ``change`` is in; a dash where there is none."""
    bounds = change_bounds(item)
    return f"{signed(bounds[0])} to {signed(bounds[1])}" if bounds else NOTHING


def change_bounds(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval in per cent, or in points with the sign turned."""
    low, high = item.get("interval") or (None, None)
    if low is None or high is None:
        return None
    if item["scale"] == "log_ratio":
        return 100 * expm1(low), 100 * expm1(high)
    return -100 * high, -100 * low


def signed(value: float) -> str:
    """Two digits and a true minus sign; beyond a thousand nobody reads on."""
    if abs(value) >= 1000:
        return "> +999" if value > 0 else "< −999"
    text = f"{value:+.0f}" if abs(value) >= 10 else f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def expm1(effect: float) -> float:
    """A log ratio as the share it changes by; capped where nobody reads on."""
    return math.expm1(min(effect, 700.0))


def share(value: float | None) -> str:
    return percent(value)
