"""The SLO, arm by arm: value, share within the limit and its interval, met or missed, change against the base."""

from __future__ import annotations

from typing import Any

from pdbench.report import words
from pdbench.report.html.context import Page, Shown
from pdbench.report.html.parts import Block, Cell, Heading, Missing, Section, Table, Text

Document = dict[str, Any]

_LATENCIES = (
    ("TTFT", "ttft_ms"), ("service TTFT", "service_ttft_ms"), ("TPOT", "tpot_ms"), ("TBT", "tbt_ms"),
    ("worst gap", "worst_gap_ms"), ("E2E", "e2e_ms"),
)  # fmt: skip
_WORDS = {
    "met": Cell("✓ met", "good"), "missed": Cell("✗ missed", "bad"), words.NO_VERDICT: Cell(words.NO_VERDICT, "soft"),
}  # fmt: skip
_STATS = ("p50", "p90", "p99")


def section(page: Page) -> Section | None:
    if not page.one_load:
        return None  # no arm of these was run at one rate: the next section says what they found
    title = "The SLO, arm by arm"
    judged = [arm for arm in page.arms if arm.entry]
    if not judged:
        why = "The run has no summary: it was killed, or is still going."
        return Section("slo", title, [Missing("No figures.", why, page.command(page.kind))])
    blocks: list[Block] = []
    objectives = [str(text) for text in page.document.get("slo") or []]
    if objectives:
        blocks.append(Text(_how(page), "note"))
    else:
        hint = "pdbench run ... --slo 'ttft p90 <= 400ms' --slo 'tpot p90 <= 40ms'"
        blocks.append(Missing("No SLO.", "The workload has none, so nothing is met or missed.", hint))
    for arm in judged:
        base = " (base)" if arm.name == page.base and len(judged) > 1 else ""
        blocks.append(Heading(f"{arm.label}{base}{'' if arm.valid else ': INVALID'}", arm.colour))
        blocks.append(_objectives(page, arm, objectives))
    blocks.append(_latencies(page, judged))
    return Section("slo", title, blocks)


def _how(page: Page) -> str:
    text = (
        "“Within” is the share of requests offered (of gaps, for TBT) that keep the limit, below it its 95 % interval"
    )
    if any(page.comparisons(arm.name) for arm in page.arms):
        text += f"; changes are against {page.base}: attainment in points, up is good; latency in %, up is slower"
    return f"{text}. A request that failed keeps no limit."


def _objectives(page: Page, arm: Shown, objectives: list[str]) -> Table:
    found = page.comparisons(arm.name)
    compared = bool(found)
    columns = ["objective", "value", "within", "met?"]
    if compared:
        columns += [f"change against {page.base}", "verdict"]
    rows = [_joint(arm)] if "joint" in (arm.entry.get("attainment") or {}) else []
    rows += [_objective(arm, text) for text in objectives]
    if compared:
        keys = ["joint_attainment"] * (len(rows) - len(objectives)) + [_metric(text) for text in objectives]
        rows = [[*row, *_compared(found.get(key))] for row, key in zip(rows, keys, strict=True)]
        listed = set(keys)
        rows += [_only_compared(arm, key, item) for key, item in found.items() if key not in listed]
    return Table(f"{arm.label}: objectives{page.mark}", columns, rows, "lr")


def _joint(arm: Shown) -> list[Cell | str]:
    bounds = (arm.entry.get("attainment_interval") or {}).get("joint")
    share = Cell(words.share(arm.entry["attainment"]["joint"]), "strong", _below(words.shares(bounds)))
    return ["all at once (joint)", "", share, ""]


def _below(interval: str) -> str:
    return "" if interval == words.NOTHING else interval


def _objective(arm: Shown, text: str) -> list[Cell | str]:
    """An INVALID run's figures are shown, but nothing is said to be met by them."""
    entry = arm.entry
    metric, _, stat = text.partition(" <= ")[0].partition(" ")
    word = _WORDS.get(words.outcome(entry, text, valid=arm.valid), words.NOTHING)
    share = (entry.get("attainment") or {}).get(text)
    interval = words.shares((entry.get("attainment_interval") or {}).get(text))
    return [
        text.replace("<=", "≤"),
        words.spread(entry, f"{metric}_ms", stat, unit=True) if stat else words.NOTHING,
        words.NOTHING if share is None else Cell(words.share(share), below=_below(interval)),
        word,
    ]


def _metric(text: str) -> str:
    """``ttft p90 <= 400ms`` -> ``ttft_p90``, the name that comparisons go by."""
    return text.partition(" <= ")[0].replace(" ", "_")


def _compared(item: Document | None) -> list[Cell | str]:
    if item is None:
        return ["", ""]
    verdict = str(item["verdict"])
    sign = words.sign(verdict)
    return [
        Cell(words.change(item), below=_below(words.change_interval(item))),
        Cell(f"{sign} {verdict}".strip(), words.tone(verdict), "primary" if item.get("primary") else ""),
    ]


def _only_compared(arm: Shown, metric: str, item: Document) -> list[Cell | str]:
    """A metric that is compared but has no limit of its own."""
    name, _, stat = metric.rpartition("_")
    value = words.spread(arm.entry, f"{name}_ms", stat, unit=True) if name else words.NOTHING
    return [words.metric_label(metric), value, "", Cell("no limit", "soft"), *_compared(item)]


def _latencies(page: Page, arms: list[Shown]) -> Table:
    """Percentiles of everything measured, an arm a column."""
    rows: list[list[Cell | str]] = []
    for label, key in _LATENCIES:
        for stat in _STATS:
            values = [words.spread(arm.entry, key, stat) for arm in arms]
            if any(value != words.NOTHING for value in values):
                rows.append([f"{label} {stat.upper()}", *values])
    rate = [(arm.entry.get("throughput") or {}) for arm in arms]
    for label, key in (("requests/s", "requests_per_s"), ("output tokens/s", "output_tokens_per_s")):
        rows.append([label, *(words.number(one.get(key)) for one in rate)])
    rows.append(["device busy", *(_busy(arm) for arm in arms)])
    columns = ["latencies in ms", *(arm.label for arm in arms)]
    return Table(f"All latencies, pooled over the runs of each arm{page.mark}", columns, rows, "lr", folded=True)


def _busy(arm: Shown) -> str:
    shares = arm.entry.get("device_busy") or []
    return ", ".join(words.NOTHING if one is None else words.share(one) for one in shares) or words.NOTHING
