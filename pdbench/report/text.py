"""The table at the end of a comparison, drawn from the summary document alone.

One column an arm. Whether an objective is met stands as a word beside the sign, so that it reads without
colour, in a log and aloud. ``pdbench report RUN`` draws the same from a stored document.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdbench.sentence import percent

Document = dict[str, Any]
_OBJECTIVE = re.compile(r"^(?P<metric>\w+) (?P<stat>p[\d.]+) <= (?P<limit>.+)$")
_COMPARED = re.compile(r"^(?P<metric>\w+)_(?P<stat>p\d+)$")
_LATENCIES = (
    ("TTFT", "ttft_ms", ("p50", "p90", "p99")),
    ("TPOT", "tpot_ms", ("p90",)),
    ("TBT", "tbt_ms", ("p90", "p99")),
    ("worst gap", "worst_gap_ms", ("p90",)),
)
_VERDICT_STYLE = {"better": "green", "worse": "red"}


def print_document(document: Document, console: Console) -> None:
    """The table, the reasons if it is invalid, warnings, and the sentence."""
    console.print(table_of(document))
    for line in notes_of(document):
        console.print(Text(line, style="yellow"))
    if document.get("sentence"):
        console.print()
        console.print(Text(str(document["sentence"]), style="bold"))


def table_of(document: Document) -> Table:
    """The whole table."""
    arms: dict[str, Document] = document["arms"]
    table = Table(title=_title(document), title_justify="left", title_style="bold", pad_edge=False, box=None)
    table.add_column("latencies in ms", no_wrap=True)
    for name, arm in arms.items():
        table.add_column(f"{name}{' (simulated)' if arm.get('simulated') else ''}", justify="right")
    _add(table, "devices", [str(arm["devices"]) for arm in arms.values()])
    _add(table, "requests ok / failed", [_counts(arm["requests"]) for arm in arms.values()])
    if any("joint" in arm.get("attainment", {}) for arm in arms.values()):
        joint = [percent(arm.get("attainment", {}).get("joint")) for arm in arms.values()]
        _add(table, "joint attainment", joint, style="bold")
    for label, key, stats in _LATENCIES:
        for stat in stats:
            values = [_of(arm, key, stat) for arm in arms.values()]
            if any(value != "n/a" for value in values):
                _add(table, f"{label} {stat.upper()}", values)
    _objective_rows(table, document)
    _comparison_rows(table, document)
    _tail_rows(table, arms)
    return table


def notes_of(document: Document) -> list[str]:
    """Reasons of invalidity with their remedies, then warnings."""
    lines = []
    for reason in document["validity"]["reasons"]:
        lines.append(f"INVALID: {reason['message']}")
        if reason.get("remedy"):
            lines.append(f"  {reason['remedy']}")
    lines += [f"warning: {text}" for text in document.get("warnings", [])]
    for name, arm in document["arms"].items():
        lines += [f"warning: {name}: {text}" for text in arm.get("warnings", [])]
        if died := arm.get("server_died"):
            pairs = ", ".join(str(pair + 1) for pair in died["pairs"])
            lines.append(f"warning: {name}: the server died in pair {pairs}; its last lines:")
            lines += [f"  {line}" for line in died["last_lines"]]
    return lines


def _title(document: Document) -> str:
    workload = document["workload"]
    rate = workload["arrivals"].get("rate")
    parts = [f"{document['kind']}: workload {workload['name']}"]
    if rate is not None:
        parts.append(f"{rate:g} req/s")
    if document.get("comparisons"):
        parts.append(f"{document['pairs']} pair{'s' * (document['pairs'] != 1)}")
    return ", ".join(parts)


def _objective_rows(table: Table, document: Document) -> None:
    """``ttft p90 <= 400ms | 310 ✓ met | 460 ✗ missed``."""
    arms = document["arms"]
    if not document.get("slo"):
        return
    table.add_row(Text("SLO", style="italic"))
    for text in document["slo"]:
        _add(table, text, [_judged(arm, text) for arm in arms.values()])


def _judged(arm: Document, text: str) -> Text:
    met = arm.get("slo_met", {}).get(text)
    if met is None:
        return Text("n/a")
    match = _OBJECTIVE.match(text)
    value = _of(arm, f"{match['metric']}_ms", match["stat"]) if match else "n/a"
    share = percent(arm.get("attainment", {}).get(text))
    shown = value if value != "n/a" else share
    return Text(f"{shown} {'✓ met' if met else '✗ missed'}", style="green" if met else "red")


def _comparison_rows(table: Table, document: Document) -> None:
    """Change against the base, with interval and verdict, a row a metric."""
    comparisons = document.get("comparisons") or []
    if not comparisons:
        return
    base = comparisons[0]["base"]
    heading = Text("change (* primary)", style="italic")
    table.add_row(heading, *("base" if name == base else "" for name in document["arms"]))
    for metric in dict.fromkeys(item["metric"] for item in comparisons):
        row: list[Text | str] = []
        primary = False
        for name in document["arms"]:
            item = next((c for c in comparisons if c["head"] == name and c["metric"] == metric), None)
            row.append(_change(item) if item else "")
            primary |= bool(item and item["primary"])
        _add(table, _label(metric) + (" *" if primary else ""), row)


def _label(metric: str) -> str:
    match = _COMPARED.match(metric)
    if match is None:
        return metric.replace("_", " ")
    name = match["metric"].replace("_", " ")
    return f"{name.upper() if len(name) <= 4 else name} {match['stat'].upper()}"


def _change(item: Document) -> Text:
    """``+42 % [+34, +51]`` and, below it, the verdict. Attainment in points, where up is better."""
    low, high = _bounds(item)
    if item["effect"] is None or item.get("percent") is None:
        shown = "infinite"
    elif item["scale"] == "log_ratio":
        shown = f"{_signed(item['percent'])} %"
    else:
        shown = f"{_signed(-100 * item['effect'])} pt"
    interval = f" [{_signed(low)}, {_signed(high)}]" if low is not None and high is not None else ""
    return Text(f"{shown}{interval}\n{item['verdict']}", style=_VERDICT_STYLE.get(item["verdict"], ""))


def _signed(value: float) -> str:
    """Two digits and a sign; an interval of two pairs can reach to the thousands, which nobody reads."""
    if abs(value) >= 1000:
        return ">+999" if value > 0 else "<-999"
    text = f"{value:+.0f}" if abs(value) >= 10 else f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _bounds(item: Document) -> tuple[float | None, float | None]:
    """The interval in what is displayed: per cent, or points with the sign turned (up is good)."""
    from math import exp

    if item.get("interval") is None:
        return None, None
    low, high = item["interval"]
    if low is None or high is None:
        return None, None
    if item["scale"] == "log_ratio":
        return 100 * (exp(low) - 1), 100 * (exp(high) - 1)
    return -100 * high, -100 * low


def _tail_rows(table: Table, arms: dict[str, Document]) -> None:
    table.add_row(Text("load and client", style="italic"))
    figures = [arm.get("throughput", {}) for arm in arms.values()]
    _add(table, "requests/s", [_number(one.get("requests_per_s")) for one in figures])
    _add(table, "output tokens/s", [_number(one.get("output_tokens_per_s")) for one in figures])
    if any(arm.get("device_busy") for arm in arms.values()):
        busy = [" ".join(percent(share) for share in arm.get("device_busy", [])) for arm in arms.values()]
        _add(table, "device busy", busy)
    if any(arm.get("handoff") for arm in arms.values()):
        gaps = [_number(arm.get("handoff", {}).get("gap_ms", {}).get("p90"), "") for arm in arms.values()]
        _add(table, "hand-off gap P90", gaps)
    for label, key in (("dispatch lag P99", "dispatch_lag_ms"), ("client lag P99", "client_lag_ms")):
        if any(key in arm for arm in arms.values()):
            _add(table, label, [_number(arm.get(key, {}).get("p99")) for arm in arms.values()])
    _add(table, "validity", [_validity(arm) for arm in arms.values()])


def _validity(arm: Document) -> Text:
    status = arm.get("validity", {}).get("status", "n/a")
    return Text(status, style="red" if status == "INVALID" else "")


def _add(table: Table, label: str, values: list[Any], style: str = "") -> None:
    table.add_row(label, *values, style=style or None)


def _counts(requests: Document) -> str:
    return f"{requests['ok']} / {requests['failed']}"


def _of(arm: Document, key: str, stat: str) -> str:
    """A percentile in ms; ``inf`` where the document has null, ``n/a`` where it has nothing."""
    spread = arm.get(key)
    if spread is None or stat not in spread:
        return "n/a"
    return _number(spread[stat], "inf")


def _number(value: float | None, missing: str = "n/a") -> str:
    if value is None:
        return missing
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
