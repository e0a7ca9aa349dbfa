"""A run, a comparison or a search as markdown: short enough for a pull request's conversation.

Everything that is not ours (names of arms, reasons, a server's words) is escaped: in a comment on a pull request it
could else draw an image from elsewhere, call for somebody by name, or break the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pdbench.report import words
from pdbench.sentence import percent

Document = Mapping[str, Any]

_LATENCIES = (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"), ("TBT", "tbt_ms"), ("worst gap", "worst_gap_ms"))
_OBJECTIVE = re.compile(r"^(?P<metric>\w+) (?P<stat>p\d+) <= .+$")
_SPECIAL = re.compile(r"([\\`*_\[\]|#~!>])")
_WWW = re.compile(r"\bwww(?=\.)", re.IGNORECASE)
_SIGNS = {"met": "✅ ", "missed": "❌ "}
_MOST = 20
"""Reasons or warnings beyond this many are counted, not listed."""


def summary(document: Document, table: Sequence[str] | None = None) -> str:
    """The text of a document of any kind that has a sentence; ``table``: in place of what it would show."""
    kind, validity = str(document.get("kind", "run")), document.get("validity") or {}
    status = str(validity.get("status", ""))
    title = f"### pdbench {safe(kind)}: {safe(_workload(document))}"
    lines = [title, "", f"**{safe(document.get('sentence') or 'No sentence was stored.')}**", ""]
    if status == "VALID":
        lines += ["✅ VALID", ""]
    elif status:
        lines += [f"⚠️ {safe(status)}", ""]
    lines += listed([f"{safe(one['message'])}: {safe(one['remedy'])}" for one in validity.get("reasons", ())])
    arms = document.get("arms")
    arms = arms if isinstance(arms, Mapping) else {}
    if table is not None:
        lines += table
    elif kind == "search":
        lines += goodput_table(document)
    elif any(isinstance(arm.get("requests"), Mapping) for arm in arms.values()):
        lines += slo_table(document, arms)
        lines += changes_table(document)
    lines += listed([f"warning: {safe(text)}" for text in document.get("warnings", ())])
    devices = ", ".join(f"{safe(name)} {arm['devices']}" for name, arm in arms.items() if "devices" in arm)
    tail = [f"run {code(document.get('run', ''))}"]
    pairs = document.get("pairs")
    tail += [f"{pairs} pair{'s' * (pairs != 1)}"] if isinstance(pairs, int) else []
    tail += [f"devices: {devices}"] if devices else []
    return "\n".join([*lines, f"<sub>{', '.join(tail)}</sub>", ""])


def slo_table(document: Document, arms: Mapping[str, Document]) -> list[str]:
    """A row an objective (limit, figure, whether it is met, share), then the other latencies; a column an arm."""
    rows = [row("", [f"{name}{' (simulated)' if arm.get('simulated') else ''}" for name, arm in arms.items()])]
    rows.append("|---|" + "---:|" * len(arms))
    rows.append(row("requests ok / failed", [_counts(arm) for arm in arms.values()]))
    if any("joint" in (arm.get("attainment") or {}) for arm in arms.values()):
        rows.append(row("all of the SLO", [_share(arm, "joint") for arm in arms.values()]))
    judged, valid = set(), words.is_valid(document)
    for text in document.get("slo", ()):
        match = _OBJECTIVE.match(str(text))
        judged.add((f"{match['metric']}_ms", match["stat"]) if match else None)
        rows.append(row(str(text), [_judged(arm, str(text), valid=valid) for arm in arms.values()]))
    for label, key in _LATENCIES:
        if (key, "p90") not in judged and any(key in arm for arm in arms.values()):
            rows.append(row(f"{label} P90", [_latency(arm, key, "p90") for arm in arms.values()]))
    return [*rows, ""]


def changes_table(document: Document) -> list[str]:
    """Every change with its interval and its verdict; positive is slower, but for attainment, where up is good. Nothing
    of what is not VALID: no verdict is given, whatever was stored."""
    items = document.get("comparisons") or ()
    if not items or not words.is_valid(document):
        return []
    rows = ["| change | metric | effect | interval | verdict |", "|---|---|---:|---:|---|"]
    for item in items:
        name = f"{item['metric']}{' (primary)' if item['primary'] else ''}"
        who = f"{safe(item['head'])} against {safe(item['base'])}"
        shown = f"{change(item, item['effect'])} | {bounds(item)} | {safe(item['verdict'])}"
        rows.append(f"| {who} | {safe(name)} | {shown} |")
    return [*rows, ""]


def goodput_table(document: Document) -> list[str]:
    """Goodput an arm, with its interval, and the ratios; no goodput of a search that is not VALID."""
    valid = words.is_valid(document)
    rows = ["| arm | devices | goodput, req/s | interval | per device | runs used |", "|---|---:|---:|---:|---:|---:|"]
    for name, arm in document["arms"].items():
        found = arm["goodput"] if valid else None
        figures = ["n/a", "n/a", "n/a"]
        if found:
            sign = {"above": "> ", "below": "< "}.get(found["where"], "")
            per_device = f"{sign}{found['per_device']['rate']:.3g}"
            figures = [f"{sign}{found['rate']:.3g}", _ends(found["interval"]), per_device]
        rows.append(row(str(name), [str(arm["devices"]), *figures, str(arm["used"])]))
    ratios = [
        f"{safe(one['head'])} over {safe(one['base'])}, per device: {one['ratio']:.3g} times"
        f" ({_ends(one['interval'])}), {safe(one['verdict'])}"
        for one in document.get("ratios", ())
        if valid and one["ratio"] is not None
    ]
    return [*rows, "", *listed(ratios)]


def change(item: Document, value: float | None) -> str:
    """``+42 %``, ``-3.1 pt``, or "infinite"."""
    if value is None or not math.isfinite(value):
        return "infinite"
    if item["scale"] == "log_ratio":
        return f"{100 * math.expm1(min(value, 700.0)):+.1f} %"
    return f"{0.0 - 100 * value:+.1f} pt"


def bounds(item: Document) -> str:
    """The interval in the unit of the change; "none" where there is none."""
    ends = item.get("interval")
    if ends is None or None in ends:
        return "none"
    shown = [change(item, end) for end in (ends if item["scale"] == "log_ratio" else reversed(ends))]
    return " to ".join(shown)


def safe(text: Any) -> str:
    """As plain words in markdown: no markup, no HTML, no mention, one line."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(r"\\\1", line).replace("@", "@\u200b").replace("://", ":\u200b//")
    return _WWW.sub("\\g<0>\u200b", line)


def code(text: Any) -> str:
    """As a code span, which nothing in it can end; an empty one would open another."""
    return f"`{' '.join(str(text).replace('`', '').split()) or '-'}`"


def _workload(document: Document) -> str:
    workload = document.get("workload") or {}
    rate = (workload.get("arrivals") or {}).get("rate")
    # A search tries many rates: the workload's own says nothing of it.
    shown = f", {rate:g} req/s" if rate is not None and document.get("kind") != "search" else ""
    return str(workload.get("name", document.get("run", ""))) + shown


def listed(texts: Sequence[str]) -> list[str]:
    """Safe texts as a list, no longer than somebody reads."""
    if not texts:
        return []
    more = [f"- and {len(texts) - _MOST} more"] if len(texts) > _MOST else []
    return [*(f"- {text}" for text in texts[:_MOST]), *more, ""]


def row(label: str, cells: Sequence[str]) -> str:
    """A row of a table; the cells are made safe."""
    return f"| {safe(label)} | {' | '.join(safe(one) for one in cells)} |"


def _counts(arm: Document) -> str:
    requests = arm.get("requests") or {}
    return f"{requests.get('ok', 0)} / {requests.get('failed', 0)}"


def _judged(arm: Document, objective: str, *, valid: bool) -> str:
    word = words.outcome(arm, objective, valid=valid)
    if not word:
        return "n/a"
    match = _OBJECTIVE.match(objective)
    figure = _latency(arm, f"{match['metric']}_ms", match["stat"]) if match else "n/a"
    figures = [_share(arm, objective)] if figure == "n/a" else [figure, _share(arm, objective)]
    return f"{_SIGNS.get(word, '')}{word} ({', '.join(figures)})"


def _share(arm: Document, objective: str) -> str:
    share = percent((arm.get("attainment") or {}).get(objective))
    ends = (arm.get("attainment_interval") or {}).get(objective)
    return f"{share}, {100 * ends[0]:.0f} to {100 * ends[1]:.0f}" if ends else share


def _latency(arm: Document, key: str, stat: str) -> str:
    spread = arm.get(key) or {}
    if stat not in spread:
        return "n/a"
    value = spread[stat]
    return "infinite" if value is None else f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _ends(ends: Sequence[float | None] | None) -> str:
    if not ends or (ends[0] is None and ends[1] is None):
        return "not resolved"
    low, high = ("..." if end is None else f"{end:.3g}" for end in ends)
    return f"{low} to {high}"
