"""Distributions: how many requests have had their first token, and how many gaps are over, by what time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdbench.measure.slo import Objective
from pdbench.report import charts, words
from pdbench.report.html.context import Page, Shown
from pdbench.report.html.parts import Cell, Chart, Missing, Section, Table
from pdbench.views.cdf import Series, cdf

_WIDE = 20.0
"""A distribution whose ends lie further apart than this is drawn over a logarithmic axis."""

_GROUND = 0.005
_LEAST_MS = 0.01
"""Two tokens of one read can carry one stamp; a logarithmic axis begins here."""

_PICTURES = (
    ("ttft", "ttft_ms", "Time to first token", "TTFT, ms", "share of requests"),
    ("tbt", "gaps_ms", "Time between tokens", "gap between two tokens, ms", "share of gaps"),
)
_HOW = (
    "the higher and further left a curve, the better; where it crosses the dashed limit it shows the share that keeps"
    " it. A curve that ends below 100 % belongs to an arm in which requests failed."
)


def section(page: Page) -> Section | None:
    if not page.one_load:
        return None
    title = "First tokens and gaps"
    known = [(arm, arm.numbers.measured()) for arm in page.arms]
    known = [(arm, numbers) for arm, numbers in known if len(numbers)]
    if not known:
        return Section("latency", title, [Missing("No request was recorded.", "There is nothing to draw.")])
    blocks: list[Chart | Missing] = []
    for metric, column, name, x_label, y_label in _PICTURES:
        curves = [(arm, cdf(getattr(numbers, column))) for arm, numbers in known]
        curves = [(arm, series) for arm, series in curves if series.count]
        limits = [one for one in page.objectives if one.metric == metric and one.limit_ns]
        if not any(len(series) for _, series in curves):
            blocks.append(Missing(f"No {name.lower()}.", "No answer had a token (or a second one)."))
            continue
        plot = _drawn(curves, limits, x_label, y_label)
        table = _table(curves, limits, metric, f"{name}{page.mark}")
        keys = [arm.key() for arm, _ in curves]
        blocks.append(Chart(f"latency-{metric}", f"{name}{page.mark}", _HOW, plot, table, keys))
    return Section("latency", title, blocks)


def _drawn(curves: Sequence[tuple[Shown, Series]], limits: Sequence[Objective], x_label: str, y_label: str) -> Any:
    limits_ms = [(one.limit_ns or 0) / 1e6 for one in limits]
    low = max(_LEAST_MS, min(_begins(series) for _, series in curves if len(series)))
    high = max([_LEAST_MS, *limits_ms, *(float(series.x[-1]) for _, series in curves if len(series))])
    log = high / low > _WIDE
    left, right = (low / 1.2, high * 1.15) if log else (0.0, high * 1.04)
    plot = charts.figure(
        "", x_label=x_label, y_label=y_label, height=300, x_log=log, x_range=(left, right), y_range=(0.0, 1.03)
    )
    charts.percent_axis(plot)
    for arm, series in curves:
        if not len(series):
            continue
        x = np.concatenate([[series.x[0]], series.x, [right]])
        y = np.concatenate([[0.0], series.y, [series.y[-1]]])
        data = charts.source(
            x=np.maximum(x, _LEAST_MS).astype(np.float32),
            y=y.astype(np.float32),
            arm=[charts.plain(arm.label)] * len(x),
        )
        drawn = plot.step(
            "x",
            "y",
            source=data,
            mode="after",
            line_color=arm.colour,
            line_dash=arm.dash,
            line_width=2.2,
            name=arm.tag,
        )
        charts.hover(plot, [drawn], ("arm", "@arm"), ("up to", "@x{0.0} ms"), ("share", "@y{0.0 %}"))
    for one in limits:
        value = (one.limit_ns or 0) / 1e6
        far = value > (math.sqrt(left * right) if log else (left + right) / 2)
        charts.limit_line(plot, value, f"limit {value:g} ms", vertical=True, left=far)
        charts.limit_line(plot, one.share, f"{100 * one.share:g} % asked for")
    return plot


def _begins(series: Series) -> float:
    """Where a curve leaves the ground: a few tokens that came in one read would stretch the axis by decades."""
    return float(series.x[int(np.searchsorted(series.y, _GROUND))])


def _table(curves: Sequence[tuple[Shown, Series]], limits: Sequence[Objective], metric: str, caption: str) -> Table:
    rows: list[list[Cell | str]] = []
    for arm, series in curves:
        row: list[Cell | str] = [arm.label, words.number(float(series.count))]
        row += [words.spread(arm.entry, f"{metric}_ms", stat, unit=True) for stat in ("p50", "p90", "p99")]
        row += [words.NOTHING if math.isnan(series.at(0)) else words.share(_within(arm, one, series)) for one in limits]
        row.append(words.share(series.share_infinite))
        rows.append(row)
    columns = [
        "arm",
        "values",
        "P50",
        "P90",
        "P99",
        *(f"within {one.text.partition('<= ')[2]}" for one in limits),
        "never came",
    ]
    return Table(caption, columns, rows)


def _within(arm: Shown, objective: Objective, series: Series) -> float:
    """The document's own share; for a run without a summary what the curve says."""
    found = (arm.entry.get("attainment") or {}).get(objective.text)
    return float(found) if found is not None else series.at((objective.limit_ns or 0) / 1e6)
