"""Attainment against the offered rate, from a search: points, bands, and where they cross the share asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pdbench.report import charts, words
from pdbench.report.html.context import Page
from pdbench.report.html.parts import Block, Cell, Chart, Key, Missing, Points, Section, Table, Text
from pdbench.views.rates import ArmRates, RatePoint, rates

_TITLE = "Attainment against rate"
_HOW = (
    "a curve is the share of requests that keep the whole SLO as more are offered; the further right it crosses the"
    " line, the more the arm carries. Bands are 95 % intervals over runs; where there was one run there is none."
)


def section(page: Page) -> Section:
    if page.search is None:
        why = "One run offers one rate. A search finds the rate at which each arm leaves the SLO."
        if page.simulated:
            why += " It runs real servers, so there is none of a simulation."
            return Section("rates", _TITLE, [Missing("No search among these runs.", why)])
        both = f"{page.command('search')}\npdbench report {page.main.path} SEARCH_RUN --format html"
        return Section("rates", _TITLE, [Missing("No search among these runs.", why, both)])
    document = page.search.document or {}
    found = rates(document)
    blocks: list[Block] = []
    if page.search is not page.main:
        blocks.append(Text(str(document.get("sentence", "")), "lead"))
    if not any(one.points for one in found):
        blocks.append(Missing("The search has no finished run.", "There is no rate to draw."))
        return Section("rates", _TITLE, blocks)
    simulated = bool(document.get("simulated"))
    blocks.append(_chart(found, page, " (simulated)" if simulated else ""))
    blocks.append(_goodput(found, " (simulated)" if simulated else ""))
    notes = [(f"{one.arm}: {one.note}", "") for one in found if one.note]
    if page.search is not page.main:
        notes += [(str(text), "") for text in document.get("warnings") or []]
    if notes:
        blocks.append(Points(notes, "warn"))
    return Section("rates", _TITLE, blocks)


def _numbers(found: Sequence[ArmRates], page: Page) -> dict[str, int]:
    """Arms keep the colour that they have elsewhere on the page."""
    known = {arm.name: arm.number for arm in page.arms}
    free = iter(range(len(page.arms), len(page.arms) + len(found)))
    return {one.arm: known[one.arm] if one.arm in known else next(free) for one in found}


def _chart(found: Sequence[ArmRates], page: Page, mark: str) -> Chart:
    all_rates = [float(point.rate) for one in found for point in one.points]
    low, high = min(all_rates), max(all_rates)
    log = high / low > 8
    margin = (high - low) * 0.05 or 0.1 * high
    x_range = (low / 1.15, high * 1.15) if log else (max(0.0, low - margin), high + margin)
    plot = charts.figure(
        "",
        x_label="offered rate, requests/s",
        y_label="joint attainment",
        height=340,
        x_log=log,
        x_range=x_range,
        y_range=(0.0, 1.04),
    )
    charts.percent_axis(plot)
    numbers = _numbers(found, page)
    keys = []
    for one in found:
        number = numbers[one.arm]
        _curve(plot, one, number)
        keys.append(Key(one.arm, charts.colour_of(number), charts.dash_of(number), arm=number))
    charts.limit_line(plot, found[0].share, f"{100 * found[0].share:g} % asked for", end=x_range[1])
    rows = [_row(one, point) for one in found for point in one.points]
    title = f"Joint attainment by offered rate{mark}"
    table = Table(title, ("arm", "requests/s", "attainment", "95 % interval", "runs", "left out"), rows)
    return Chart("rates-attainment", title, _HOW, plot, table, keys)


def _curve(plot: Any, one: ArmRates, number: int) -> None:
    colour, tag = charts.colour_of(number), f"arm-{number}"
    points = [point for point in one.points if point.joint is not None]
    if not points:
        return
    banded = [point for point in points if point.interval is not None]
    if len(banded) > 1:
        bands = [point.interval or (0.0, 0.0) for point in banded]
        plot.varea(
            x=[point.rate for point in banded],
            y1=[low for low, _ in bands],
            y2=[high for _, high in bands],
            fill_color=colour,
            fill_alpha=0.10,
            name=tag,
        )
    data = charts.source(
        x=[point.rate for point in points],
        y=[point.joint for point in points],
        runs=[point.runs for point in points],
        said=[words.shares(point.interval) for point in points],
        arm=[charts.plain(one.arm)] * len(points),
    )
    plot.line(x="x", y="y", source=data, line_color=colour, line_dash=charts.dash_of(number), line_width=2.2, name=tag)
    dots = plot.scatter(
        x="x",
        y="y",
        source=data,
        size=8,
        marker=charts.marker_of(number),
        fill_color=colour,
        line_color=None,
        name=tag,
    )
    charts.hover(
        plot,
        [dots],
        ("arm", "@arm"),
        ("rate", "@x{0.00} req/s"),
        ("attainment", "@y{0.0 %}"),
        ("95 %", "@said"),
        ("runs", "@runs"),
    )


def _row(one: ArmRates, point: RatePoint) -> list[Cell | str]:
    joint = "INVALID" if point.joint is None else words.share(point.joint)
    interval = words.shares(point.interval)
    return [one.arm, words.number(point.rate), joint, interval, words.number(point.runs), words.number(point.left_out)]


def _goodput(found: Sequence[ArmRates], mark: str) -> Table:
    rows: list[list[Cell | str]] = []
    for one in found:
        low, high = one.interval
        ends = words.NOTHING
        if low is not None or high is not None:
            ends = f"{words.number(low, 'less')} to {words.number(high, 'more')}"
        rate = {"above": "above all tried", "below": "below all tried"}.get(one.where, words.number(one.goodput))
        per = words.NOTHING if one.goodput is None else words.number(one.goodput / one.devices)
        rows.append([one.arm, str(one.devices), Cell(rate, "strong"), ends, per])
    caption = f"Goodput: the rate at which {100 * found[0].share:g} % of the requests keep the whole SLO{mark}"
    return Table(caption, ("arm", "devices", "requests/s", "95 % interval", "per device"), rows)
