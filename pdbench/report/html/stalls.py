"""The interference picture: every gap of one run over time, above the instants at which its device ran prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdbench.report import charts, words
from pdbench.report.html.context import Page, Shown, reasons_of
from pdbench.report.html.parts import Block, Cell, Chart, Key, Missing, Section, Table, Text
from pdbench.views.stalls import LiningUp, lining_up, slo_limit_ms, stall_limit_ms
from pdbench.views.timeline import Timeline, timeline

_TITLE = "Do prompts stall the streams?"
_LISTED = 12
_FLOOR_MS = 0.2  # shorter gaps are tokens of one read; they are there when one zooms out
_UNKNOWN = "unknown device"
_STAMPS = re.compile(r"\b(stamp(s|ed)?|receive (error|lag))\b")
"""What a reason is about where it makes gaps wrong."""

_HOW = (
    "each mark is a gap between two tokens of one stream, as high as it was long; strips are the times at which a"
    " device ran prompts, in that device's colour. A stall of the colour of the strip it stands on waited for a prompt."
)


def section(page: Page) -> Section | None:
    if not page.one_load:
        return None
    known = [(arm, arm.numbers) for arm in page.arms]
    known = [(arm, numbers) for arm, numbers in known if len(numbers.measured().gaps_ms)]
    if not known:
        return Section("stalls", _TITLE, [Missing("No gap between tokens.", "No answer had a second token.")])
    limit_ms = stall_limit_ms([numbers for _, numbers in known])
    slo_ms = slo_limit_ms(page.objectives)
    common = set.intersection(*(set(numbers.measured().pairs) for _, numbers in known))
    blocks: list[Block] = [_text(limit_ms, bool(common) and len(known) > 1 and page.same_plans)]
    rows: list[list[Cell | str]] = []
    views = []
    for arm, numbers in known:
        pair = min(common) if common else min(numbers.measured().pairs)
        views.append(timeline(numbers, arm.lifecycles, arm.steps, pair, limit_ms=limit_ms))
    x_range, y_range = _ranges(views, limit_ms)
    for (arm, numbers), view in zip(known, views, strict=True):
        whole = view.verdict
        if numbers.measured().pairs != [view.pair]:
            whole = lining_up(numbers, arm.lifecycles, arm.steps, limit_ms=limit_ms)
        says, named = f"{_late(arm)}{whole.sentence}", [(arm.label, whole)]
        if slo_ms is not None and slo_ms > limit_ms and whole.stalls:
            beyond = lining_up(numbers, arm.lifecycles, arm.steps, limit_ms=slo_ms)
            says += _beyond(beyond)
            named.append((f"{arm.label}, above {words.milliseconds(slo_ms)}", beyond))
        plot = _drawn(view, limit_ms, x_range, y_range)
        x_range, y_range = plot.x_range, plot.y_range
        pair = view.pair
        title = f"{arm.label}: gaps between tokens over time, pair {pair + 1}{page.mark}"
        chart = Chart(f"stalls-{arm.number}", title, _HOW, plot, _table(view, arm, page.mark), _keys(view), says)
        blocks += [chart, *(Text(f"{note[:1].upper()}{note[1:]}.", "note") for note in view.notes)]
        rows += [[label, *_row(one)] for label, one in named]
    blocks.append(
        Table(
            f"Stalls and prefill, over all pairs{page.mark}",
            (
                "arm",
                "stalls",
                "on known devices",
                "overlap a prefill",
                "would by chance",
                "time lost with a prefill",
                "would be by chance",
                "span the hand-off",
                "longest",
            ),
            rows,
        )
    )
    return Section("stalls", _TITLE, blocks)


def _text(limit_ms: float, common: bool) -> Text:
    text = f"A stall is a gap above {words.milliseconds(limit_ms)}: three times the median gap of all arms together."
    if common:
        text += " The pictures show one pair, in which all arms replayed the same plan; the sentences count all pairs."
    return Text(text, "note")


def _late(arm: Shown) -> str:
    """Before anything is said of gaps whose stamps were found wrong: that they are, and by how much."""
    if arm.valid:
        return ""
    reasons = reasons_of(arm.entry if "validity" in arm.entry else arm.run.document)
    found = [message.rstrip(".") for message, _ in reasons if _STAMPS.search(message)]
    said = f"INVALID: {'; '.join(found)}. Gaps may be off by that much, so a stall may be the load client's own. "
    return said if found else ""


def _beyond(found: LiningUp) -> str:
    """What is said of the stalls that the SLO would mind, after what was said of all."""
    limit = words.milliseconds(found.limit_ms)
    if not found.stalls:
        return f" None is longer than the SLO's limit of {limit}."
    return f" Of those beyond the SLO's limit of {limit}: {found.sentence[:1].lower()}{found.sentence[1:]}"


def _row(found: LiningUp) -> list[str]:
    known = (found.aligned_share, found.expected_share, found.lost_share, found.expected_lost_share)
    shares = [words.NOTHING if one is None else words.share(one) for one in known]
    longest = words.NOTHING if found.longest_ms is None else words.milliseconds(found.longest_ms)
    return [words.number(found.stalls), words.number(found.known), *shares, words.number(found.handoffs), longest]


def _devices(view: Timeline) -> list[str]:
    return view.devices + ([_UNKNOWN] if np.any(view.device == "") else [])


def _keys(view: Timeline) -> list[Key]:
    found = []
    for number, name in enumerate(_devices(view)):
        colour = charts.device_colour(number)
        found.append(Key(f"gaps on {name}", colour, shape="triangle" if number % 2 else "dot"))
        if name in view.prefill:
            found.append(Key(f"prefill on {name}", colour, shape="band"))
    return found


def _ranges(views: Sequence[Timeline], limit_ms: float) -> tuple[Any, Any]:
    """The same for all arms, so that their pictures may be held side by side: seconds, and milliseconds."""
    times = np.concatenate([view.time_s for view in views])
    gaps = np.concatenate([view.gap_ms for view in views])
    gaps = np.append(gaps[np.isfinite(gaps) & (gaps > 0)], limit_ms if np.isfinite(limit_ms) else 1.0)
    begin, end = float(times.min()), float(times.max())
    margin = 0.02 * (end - begin) + 0.05
    return (begin - margin, end + margin), (max(float(gaps.min()), _FLOOR_MS) / 1.4, float(gaps.max()) * 1.6)


def _drawn(view: Timeline, limit_ms: float, x_range: Any, y_range: Any) -> Any:
    plot = charts.figure(
        "", x_label="seconds since the run began", y_label="gap, ms", height=280, y_log=True,
        x_range=x_range, y_range=y_range, tools=charts.WIDE_TOOLS,
    )  # fmt: skip
    for number, name in enumerate(_devices(view)):
        colour = charts.device_colour(number)
        spans = view.prefill.get(name)
        if spans is not None and len(spans):
            charts.strips(plot, spans.start_s, spans.end_s, colour)
        mine = (view.device == ("" if name == _UNKNOWN else name)) & (view.gap_ms > 0)
        for stall in (False, True):
            rows = np.flatnonzero(mine & (view.stall == stall))
            if len(rows):
                _marks(plot, view, rows, colour, number, stall=stall)
    if np.isfinite(limit_ms):
        charts.limit_line(plot, limit_ms, f"stall: {words.milliseconds(limit_ms)}")
    return plot


def _marks(plot: Any, view: Timeline, rows: Any, colour: str, number: int, *, stall: bool) -> None:
    """Gaps as small faint marks, stalls as large ones that say whose they are."""
    columns: dict[str, Any] = {"x": view.time_s[rows].astype(np.float32), "y": view.gap_ms[rows].astype(np.float32)}
    if stall:
        columns["request"] = [charts.plain(name) for name in view.request[rows]]
    drawn = plot.scatter(
        "x", "y", source=charts.source(**columns), marker="triangle" if number % 2 else "circle",
        size=8 if stall else 3.5, fill_color=colour, fill_alpha=0.9 if stall else 0.35, line_color=None,
    )  # fmt: skip
    if stall:
        charts.hover(plot, [drawn], ("gap", "@y{0.0} ms"), ("ended at", "@x{0.00} s"), ("request", "@request"))


def _table(view: Timeline, arm: Shown, mark: str) -> Table:
    worst = np.argsort(-view.gap_ms, kind="stable")[:_LISTED]
    rows: list[list[Cell | str]] = [
        [
            str(view.request[at]), words.milliseconds(float(view.gap_ms[at])), f"{view.time_s[at]:.2f} s",
            str(view.device[at]) or words.NOTHING, "yes" if view.stall[at] else "no",
        ]
        for at in worst
    ]  # fmt: skip
    caption = f"{arm.label}: the longest of {view.gaps:,} gaps in pair {view.pair + 1}{mark}"
    return Table(caption, ("request", "gap", "ended at", "device", "a stall?"), rows, "lrrll")
