"""The SLO tab of Locust's page: a table, one row a figure, remade at every poll. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pdbench.report.words import NOTHING, milliseconds, shares
from pdbench.sentence import percent

KEY = "slo"
COLUMNS = (
    ("arm", "Arm"), ("figure", "So far"), ("p50", "P50"), ("p90", "P90"), ("p99", "P99"), ("share", "In the limit"),
    ("interval", "95 % interval"), ("verdict", "Verdict so far"),
)  # fmt: skip

TABS = [{"title": "SLO", "key": KEY}]
TABLES = [{"key": KEY, "structure": [{"key": key, "title": title} for key, title in COLUMNS]}]
Row = dict[str, str]


def stats(news: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """``extended_stats`` of Locust's statistics."""
    return [{"key": KEY, "data": rows(news) if news is not None else []}]


def rows(news: Mapping[str, Any]) -> list[Row]:
    """Of ``Screen.news``: each arm's latencies, its objectives, lag and validity."""
    found: list[Row] = []
    for arm in news["arms"]:
        found += _of_arm(arm, news["reasons"])
    return found


def _of_arm(arm: Mapping[str, Any], reasons: Sequence[str]) -> list[Row]:
    progress = f"{arm['state']}, pair {arm['pair']}/{arm['pairs']}, {arm['done']}/{arm['total']}"
    found = [_row(arm, "state", verdict=progress if arm["total"] else arm["state"])]
    for name, spread in arm["spreads"].items():
        if spread[0] is not None:
            found.append(_row(arm, name.upper(), **dict(zip(("p50", "p90", "p99"), map(_ms, spread), strict=True))))
    for one in (*arm["objectives"], arm["joint"]):
        interval = shares(one["interval"]) if one["interval"] else ""
        found.append(_row(arm, one["text"], share=percent(one["share"]), interval=interval, verdict=word_of(one)))
    for name, key in (("dispatch lag", "dispatch_p99_ms"), ("client lag", "client_p99_ms")):
        if arm[key] is not None:
            found.append(_row(arm, name, p99=milliseconds(arm[key])))
    why = "; ".join([*reasons, *([arm["late"]] if arm["late"] else [])])
    return [*found, _row(arm, "validity", verdict=f"INVALID: {why}" if why else "VALID so far")]


def word_of(one: Mapping[str, Any]) -> str:
    """``met``, ``undecided (12 requests)``; when the records must tell: ``after the run``."""
    if one["word"] == "later":
        return "after the run"
    return f"undecided ({one['requests']} requests)" if one["word"] == "undecided" else one["word"]


def _ms(value: float | str) -> str:
    """``"inf"`` is how infinity comes here; a document has ``None`` for it."""
    return milliseconds(None if value == "inf" else float(value))


def _row(arm: Mapping[str, Any], figure: str, **cells: str) -> Row:
    empty = dict.fromkeys((key for key, _ in COLUMNS), "")
    return {**empty, "arm": arm["name"], "figure": figure, **{k: "" if v == NOTHING else v for k, v in cells.items()}}
