"""Where the time goes: every request's phases as bars, the parts of the hand-off, and what prompts cost the streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pdbench.report import charts, words
from pdbench.report.html.context import Page, Shown
from pdbench.report.html.parts import Block, Cell, Chart, Key, Missing, Section, Table, Text
from pdbench.views.devices import device_names, of_pair
from pdbench.views.gantt import PHASES, Bar, chosen, gantt
from pdbench.views.handoff import LABELS, PARTS, Handoff, handoff
from pdbench.views.interference import Interference, interference

_COLOURS = {"queue": "#8C8C8C", "prefill": "#D55E00", "wait": "#BFBFBF", "transfer": "#CC79A7", "decode": "#0072B2"}
_WORDS = {
    "queue": "waits for prefill", "prefill": "prefill", "wait": "waits to decode", "transfer": "KV transfer",
    "decode": "decode",
}  # fmt: skip
_ROW_PX = 12
_ROWS = 30
_PALER = 0.45
"""How much of its colour a bar on the second device has."""

_LEAST_MS = 0.01
_NO_STAMPS = "Only pdserve keeps a stamp of every phase; other servers tell nothing of what happens inside them."
_TRY = "pdbench compare colocated-chunked disaggregated --pairs 1"


def gantt_section(page: Page) -> Section | None:
    if not page.one_load:
        return None
    title = "Where the time goes"
    known = [(arm, arm.lifecycles) for arm in page.arms]
    known = [(arm, lifecycles) for arm, lifecycles in known if len(lifecycles)]
    if not known:
        return Section("phases", title, [Missing("No server stamps.", _NO_STAMPS, _TRY)])
    blocks: list[Block] = []
    x_range = None
    for arm, lifecycles in known:
        pair = int(lifecycles["pair"].min())
        names = device_names(of_pair(arm.steps, pair))
        bars = gantt(lifecycles, pair, _ROWS, devices=names)
        if not bars:
            blocks.append(Missing(f"{arm.label}: no phases.", "The server knows none of the requests of this run."))
            continue
        plot = _bars(bars, x_range)
        x_range = plot.x_range
        title_ = f"{arm.label}: phases of each request, pair {pair + 1}{page.mark}"
        says = f"Shown: {chosen(lifecycles, pair, _ROWS)[1]}."
        how = "a row is a request, first come lowest; grey is waiting, and on the second device bars are paler."
        chart = Chart(f"phases-{arm.number}", title_, how, plot, _bar_table(bars, title_), _bar_keys(bars), says)
        blocks.append(chart)
    return Section("phases", title, blocks)


def _bars(bars: Sequence[Bar], x_range: Any) -> Any:
    order = {name: row for row, name in enumerate(dict.fromkeys(bar.request for bar in bars))}
    height = 90 + max(14, len(order)) * _ROW_PX
    plot = charts.figure(
        "", x_label="seconds since the run began", y_label="requests, by arrival", height=height, x_range=x_range,
        y_range=(-1.0, float(len(order))), tools=charts.WIDE_TOOLS,
    )  # fmt: skip
    devices = sorted({bar.device for bar in bars} - {""})
    drawn = []
    for phase in PHASES:
        for paler in (False, True):
            mine = [bar for bar in bars if bar.phase == phase and _paler(bar, devices) == paler]
            if mine:
                drawn.append(_hbars(plot, mine, order, phase, paler=paler))
    lines = [("request", "@request"), ("phase", "@phase"), ("device", "@device"), ("took", "@ms{0,0.0} ms")]
    charts.hover(plot, drawn, *lines)
    charts.no_grid(plot, "y")
    plot.yaxis.major_label_text_font_size = "0px"
    plot.yaxis.major_tick_line_color = None
    return plot


def _paler(bar: Bar, devices: Sequence[str]) -> bool:
    return bar.device in devices and devices.index(bar.device) % 2 == 1


def _hbars(plot: Any, bars: Sequence[Bar], order: dict[str, int], phase: str, *, paler: bool) -> Any:
    data = charts.source(
        y=[order[bar.request] for bar in bars],
        left=[bar.start_s for bar in bars],
        right=[bar.end_s for bar in bars],
        request=[charts.plain(bar.request) for bar in bars],
        phase=[_WORDS[phase]] * len(bars),
        device=[charts.plain(bar.device) or words.NOTHING for bar in bars],
        ms=[1000 * (bar.end_s - bar.start_s) for bar in bars],
    )
    return plot.hbar(
        y="y", left="left", right="right", height=0.35 if phase in ("queue", "wait") else 0.78, source=data,
        fill_color=_COLOURS[phase], fill_alpha=_PALER if paler else 1.0, line_color=None,
    )  # fmt: skip


def _bar_keys(bars: Sequence[Bar]) -> list[Key]:
    devices = sorted({bar.device for bar in bars} - {""})
    seen = dict.fromkeys(sorted((PHASES.index(bar.phase), bar.device) for bar in bars))
    found = []
    for number, device in seen:
        phase = PHASES[number]
        paler = device in devices and devices.index(device) % 2 == 1
        label = f"{_WORDS[phase]} on {device}" if device else _WORDS[phase]
        found.append(Key(label, _COLOURS[phase], shape="pale" if paler else "box"))
    return found


def _bar_table(bars: Sequence[Bar], caption: str) -> Table:
    seen = [phase for phase in PHASES if any(bar.phase == phase for bar in bars)]
    by_request: dict[str, dict[str, float]] = {}
    where: dict[str, list[str]] = {}
    for bar in bars:
        row = by_request.setdefault(bar.request, {})
        row[bar.phase] = row.get(bar.phase, 0.0) + 1000 * (bar.end_s - bar.start_s)
        if bar.device and bar.device not in where.setdefault(bar.request, []):
            where[bar.request].append(bar.device)
    rows: list[list[Cell | str]] = [
        [name, " → ".join(where.get(name, [])) or words.NOTHING, *(words.number(took.get(phase)) for phase in seen)]
        for name, took in by_request.items()
    ]
    return Table(f"{caption}, in ms", ("request", "devices", *(_WORDS[phase] for phase in seen)), rows, "llr")


def parts_section(page: Page) -> Section | None:
    """P50 and P90 of each part of a hand-off, and gaps against the prompt tokens inside them."""
    if not page.one_load:
        return None
    title = "Hand-off and interference"
    found = [(arm, handoff(arm.lifecycles)) for arm in page.arms]
    known = [(arm, one) for arm, one in found if one.parts_ms]
    if not known:
        return Section("handoff", title, [Missing("No server stamps.", _NO_STAMPS, _TRY)])
    blocks: list[Block] = [_parts_chart(known, page)]
    blocks += [Text(f"{arm.label}: {one.note}.", "note") for arm, one in found if one.note]
    disturbed = [(arm, interference(arm.lifecycles, arm.steps)) for arm in page.arms]
    shown = [(arm, one) for arm, one in disturbed if one.gaps]
    if shown:
        blocks.append(_disturbed_chart(shown, page))
    else:
        blocks.append(Missing("No step log.", "Without it nobody knows which prompts ran inside a gap.", _TRY))
    blocks += [Text(f"{arm.label}: {one.note}.", "note") for arm, one in disturbed if one.note and one.gaps]
    return Section("handoff", title, blocks)


def _parts_chart(known: Sequence[tuple[Shown, Handoff]], page: Page) -> Chart:
    parts = [name for name in PARTS if any(name in one.table for _, one in known)]
    place = {name: float(len(parts) - 1 - i) for i, name in enumerate(parts)}
    low = max(_LEAST_MS, min(p50 for _, one in known for p50, _ in one.table.values()))
    high = max(_LEAST_MS, max(p90 for _, one in known for _, p90 in one.table.values()))
    plot = charts.figure(
        "", x_label="ms, P50 to P90", y_label="", height=110 + 46 * len(parts), x_log=True,
        x_range=(low / 1.6, high * 1.6),
        y_range=(-0.6, len(parts) - 0.4),
    )  # fmt: skip
    charts.named_ticks(plot, {place[name]: LABELS[name] for name in parts})
    charts.no_grid(plot, "y")
    for number, (arm, one) in enumerate(known):
        shift = 0.5 * ((len(known) - 1) / 2 - number) / max(1, len(known))
        names = [name for name in parts if name in one.table]
        data = charts.source(
            y=[place[name] + shift for name in names],
            p50=[max(_LEAST_MS, one.table[name][0]) for name in names],
            p90=[max(_LEAST_MS, one.table[name][1]) for name in names],
            part=[LABELS[name] for name in names],
            arm=[charts.plain(arm.label)] * len(names),
        )
        bar = plot.segment(
            x0="p50", x1="p90", y0="y", y1="y", source=data, line_color=arm.colour, line_width=3, name=arm.tag
        )
        dots = plot.scatter(
            x="p50",
            y="y",
            source=data,
            size=9,
            marker=charts.marker_of(arm.number),
            fill_color=arm.colour,
            line_color=None,
            name=arm.tag,
        )
        charts.hover(
            plot, [bar, dots], ("arm", "@arm"), ("part", "@part"), ("P50", "@p50{0.00} ms"), ("P90", "@p90{0.00} ms")
        )
    how = "a mark is the median of a part of the way to the second token, the bar reaches to its P90; left is quick."
    rows: list[list[Cell | str]] = [
        [LABELS[name], *(Cell(_median(one, name), below=_ninety(one, name)) for _, one in known)] for name in parts
    ]
    title = f"Parts of the way to the second token{page.mark}"
    table = Table(f"{title}: P50, and P90 below it", ["part", *(arm.label for arm, _ in known)], rows)
    return Chart("handoff-parts", title, how, plot, table, [arm.key() for arm, _ in known])


def _median(one: Handoff, name: str) -> str:
    return words.milliseconds(one.table[name][0]) if name in one.table else words.NOTHING


def _ninety(one: Handoff, name: str) -> str:
    return words.milliseconds(one.table[name][1]) if name in one.table else ""


def _disturbed_chart(known: Sequence[tuple[Shown, Interference]], page: Page) -> Chart:
    gaps = np.concatenate([one.gap_ms for _, one in known] or [np.array([1.0])])
    gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
    low, high = (float(gaps.min()), float(gaps.max())) if len(gaps) else (1.0, 10.0)
    plot = charts.figure(
        "", x_label="prompt tokens that ran on its device during the gap", y_label="gap, ms", y_log=True,
        y_range=(max(low, 0.05) / 1.4, high * 1.6), height=300,
    )  # fmt: skip
    for arm, one in known:
        marker = charts.marker_of(arm.number)
        points = charts.source(x=one.tokens.astype(np.float32), y=one.gap_ms.astype(np.float32))
        plot.scatter(
            x="x",
            y="y",
            source=points,
            size=4,
            marker=marker,
            fill_color=arm.colour,
            fill_alpha=0.3,
            line_color=None,
            name=arm.tag,
        )
        data = charts.source(
            x=[(each.low + each.high) / 2 for each in one.bins],
            y=[each.median_ms for each in one.bins],
            count=[each.count for each in one.bins],
            arm=[charts.plain(arm.label)] * len(one.bins),
        )
        plot.line(x="x", y="y", source=data, line_color=arm.colour, line_dash=arm.dash, line_width=2, name=arm.tag)
        dots = plot.scatter(
            x="x", y="y", source=data, size=8, marker=marker, fill_color=arm.colour, line_color=None, name=arm.tag
        )
        charts.hover(
            plot,
            [dots],
            ("arm", "@arm"),
            ("prompt tokens", "@x{0}"),
            ("median gap", "@y{0.0} ms"),
            ("gaps", "@count{0,0}"),
        )
    how = (
        "faint marks are gaps, the line is their median by the prompt tokens that the same device ran meanwhile; a line"
        " that rises is interference. An arm whose decode device runs no prompts has a single mark at 0."
    )
    rows: list[list[Cell | str]] = [
        [arm.label, _range(each.low, each.high), words.number(each.count), words.milliseconds(each.median_ms)]
        for arm, one in known
        for each in one.bins
    ]
    title = f"Gaps against the prompts inside them{page.mark}"
    table = Table(title, ("arm", "prompt tokens in the gap", "gaps", "median gap"), rows)
    return Chart("handoff-interference", title, how, plot, table, [arm.key() for arm, _ in known])


def _range(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
