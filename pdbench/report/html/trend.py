"""Several stored runs over time: attainment and P90s of every arm, and the verdicts that were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pdbench.report import charts, words
from pdbench.report.html.context import MANY_LOADS, SIMULATED, Page
from pdbench.report.html.parts import Block, Cell, Chart, Key, Points, Section, Table
from pdbench.views.trend import FIGURES, Trend, TrendPoint, TrendVerdict, trend

_TITLE = "Over time"
_HOW = (
    "a mark is a run, oldest on the left; whiskers are the 95 % interval that the run itself gave. Hollow marks are"
    " INVALID runs, which carry no verdict."
)
_CROSSED = " A cross marks what was simulated: nothing of it ran in real time."


def section(page: Page) -> Section | None:
    if len(page.runs) < 2:
        return None
    found = trend([run.document for run in page.runs if run.kind not in MANY_LOADS])
    names = list(dict.fromkeys(point.run for point in found.points))
    if len(names) < 2:
        return None
    known = {arm.name: arm.number for arm in page.arms}
    free = iter(range(len(page.arms), len(page.arms) + len(found.arms)))
    numbers = {arm: known[arm] if arm in known else next(free) for arm in found.arms}
    mark = SIMULATED if all(point.simulated for point in found.points) else ""
    blocks: list[Block] = []
    if found.notes:
        blocks.append(Points([(note, "") for note in found.notes], "warn"))
    if any(point.joint is not None for point in found.points):
        blocks.append(_chart(found, names, numbers, "joint_attainment", mark))
    blocks += [
        _chart(found, names, numbers, figure, mark)
        for figure in FIGURES[:4]
        if any(point.figures.get(figure) is not None for point in found.points)
    ]
    if found.verdicts:
        blocks.append(_verdicts(found.verdicts, mark))
    return Section("trend", _TITLE, blocks)


def _chart(found: Trend, names: Sequence[str], numbers: dict[str, int], figure: str, mark: str) -> Chart:
    joint = figure == "joint_attainment"
    label = words.metric_label(figure)
    shown = {arm: [(point, _value(point, figure)) for point in found.of(arm)] for arm in found.arms}
    tops = [value for points in shown.values() for _, value in points if value is not None]
    plot = charts.figure(
        "", x_label="run", y_label=label if joint else f"{label}, ms", height=270, tools="reset",
        x_range=(-0.5, len(names) - 0.5), y_range=(0.0, 1.04 if joint else 1.15 * max(tops)),
    )  # fmt: skip
    if joint:
        charts.percent_axis(plot)
    every = max(1, -(-len(names) // 8))
    labels = {point.run: _short(point) for point in found.points}
    charts.named_ticks(plot, {i: labels[name] for i, name in enumerate(names) if i % every == 0}, axis="x")
    for arm, points in shown.items():
        _arm(
            plot,
            [(names.index(point.run), point, value) for point, value in points if value is not None],
            numbers[arm],
            joint,
        )
    keys = [
        Key(arm, charts.colour_of(numbers[arm]), charts.dash_of(numbers[arm]), arm=numbers[arm]) for arm in found.arms
    ]
    title = f"{label[:1].upper()}{label[1:]} over time{mark}"
    rows = [_row(point, value, joint) for points in shown.values() for point, value in points]
    table = Table(title, ("run", "arm", label, "95 % interval", "status"), rows, "llrrl")
    how = _HOW + _CROSSED * any(point.simulated for point in found.points)
    return Chart(f"trend-{figure}", title, how, plot, table, keys)


def _arm(plot: Any, points: Sequence[tuple[int, TrendPoint, float]], number: int, joint: bool) -> None:
    if not points:
        return
    colour, tag = charts.colour_of(number), f"arm-{number}"
    data = charts.source(
        x=[place for place, _, _ in points],
        y=[value for _, _, value in points],
        run=[charts.plain(f"{point.run}{SIMULATED * point.simulated}") for _, point, _ in points],
        arm=[charts.plain(point.arm) for _, point, _ in points],
        alpha=[1.0 if point.valid else 0.0 for _, point, _ in points],
    )
    plot.line(x="x", y="y", source=data, line_color=colour, line_dash=charts.dash_of(number), line_width=1.6, name=tag)
    spans = [(place, *point.joint_interval) for place, point, _ in points if joint and point.joint_interval]
    if spans:
        places, lows, highs = zip(*spans, strict=True)
        plot.segment(
            x0=list(places),
            x1=list(places),
            y0=list(lows),
            y1=list(highs),
            line_color=colour,
            line_width=1.6,
            name=tag,
        )
    dots = plot.scatter(
        x="x", y="y", source=data, size=9, marker=charts.marker_of(number), fill_color=colour, fill_alpha="alpha",
        line_color=colour, line_width=1.6, name=tag,
    )  # fmt: skip
    crossed = [(place, value) for place, point, value in points if point.simulated]
    if crossed:
        places, values = zip(*crossed, strict=True)
        plot.scatter(
            x=list(places), y=list(values), size=17, marker="x", line_color=charts.INK, name=tag
        ).glyph.tags = ["ink"]
    said = "@y{0.0 %}" if joint else "@y{0.0} ms"
    charts.hover(plot, [dots], ("run", "@run"), ("arm", "@arm"), ("value", said))


def _value(point: TrendPoint, figure: str) -> float | None:
    return point.joint if figure == "joint_attainment" else point.figures.get(figure)


def _row(point: TrendPoint, value: float | None, joint: bool) -> list[Cell | str]:
    status = "VALID" if point.valid else "INVALID"
    shown = words.milliseconds(value)
    if joint:
        shown = words.NOTHING if value is None else words.share(value)
    interval = words.shares(point.joint_interval) if joint else words.NOTHING
    run = Cell(point.run, below="simulated" if point.simulated else "")
    return [run, point.arm, shown, interval, Cell(status, words.tone(status))]


def _short(point: TrendPoint) -> str:
    said = point.run[:12] if point.date is None else f"{point.date.day} {point.date:%b %H:%M}"
    return f"{said}{SIMULATED * point.simulated}"


def _verdicts(found: Sequence[TrendVerdict], mark: str) -> Table:
    rows: list[list[Cell | str]] = [
        [
            one.run, f"{one.head} against {one.base}", words.metric_label(one.metric), words.change(_item(one)),
            words.change_interval(_item(one)),
            Cell(f"{words.sign(one.verdict)} {one.verdict}".strip(), words.tone(one.verdict)),
        ]
        for one in found
        if one.primary
    ]  # fmt: skip
    columns = ("run", "who", "metric", "change", "interval", "verdict")
    return Table(f"Verdicts on the primary metric{mark}", columns, rows, "lllrrl")


def _item(one: TrendVerdict) -> dict[str, Any]:
    percent = None if one.effect is None else 100 * one.effect
    if one.effect is not None and one.scale == "log_ratio":
        percent = 100 * words.expm1(one.effect)
    return {"effect": one.effect, "percent": percent, "scale": one.scale, "interval": one.interval}
