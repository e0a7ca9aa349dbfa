"""Under other limits: for every pair of limits, which arm keeps more requests, and where that turns over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pdbench.report import charts, words
from pdbench.report.html.context import Page, Shown
from pdbench.report.html.parts import Block, Cell, Chart, Key, Missing, Section, Table, Text
from pdbench.views.grid import LABELS, Grid, Lead, grid

_TITLE = "Under other limits"
_TICKS = 6
_STRONG = 40.0
"""A lead of so many points, and any larger one, has the full colour."""

_GREY = "#8C8C8C"


def section(page: Page) -> Section | None:
    if not page.one_load:
        return None
    if not page.same_plans:
        why = "These runs offered different work, so their requests cannot be held against each other."
        hint = "pdbench compare ONE OTHER"
        return Section("surface", _TITLE, [Missing("No comparison.", why, hint)])
    arms = {arm.label: arm for arm in page.arms}
    found = grid(
        {label: arm.numbers for label, arm in arms.items()},
        page.objectives,
        base=page.base,
    )
    if found is None:
        return Section("surface", _TITLE, [Missing("No surface.", "An arm has no measured request.")])
    if page.invalid and found.leads:
        why = "Of an INVALID run nothing is said about who keeps more requests. Run it again."
        return Section("surface", _TITLE, [Missing("No comparison.", why, page.command(page.kind))])
    blocks: list[Block] = [Text(_intro(found, page.simulated), "note")]
    blocks += [_lead_chart(found, lead, arms, page) for lead in found.leads]
    if not found.leads:
        name, shares = next(iter(found.joint.items()))
        blocks.append(_alone_chart(found, arms[name], np.asarray(shares), page))
        why = "With two arms that replayed one plan this shows who is better under which limits."
        blocks.append(Missing("One arm only.", why, f"pdbench compare {page.arms[0].name} ANOTHER"))
    return Section("surface", _TITLE, blocks)


def _intro(found: Grid, simulated: bool) -> str:
    metric, limit = found.fixed
    third = "without a limit" if math.isinf(limit) else f"at {words.milliseconds(limit)}"
    text = (
        f"The same requests, judged anew under {LABELS[found.rows]} and {LABELS[found.columns]} limits that the SLO"
        f" does not have; {LABELS[metric]} stays {third}. This describes the requests seen and is no verdict."
    )
    return f"{text} They are simulated." if simulated else text


def _lead_chart(found: Grid, lead: Lead, arms: Mapping[str, Shown], page: Page) -> Chart:
    base, head = arms[found.base], arms[lead.head]
    points, leads = np.asarray(lead.points), np.asarray(lead.leads)
    theirs = base.colour if base.colour != head.colour else charts.SPARE
    colours = np.where(leads > 0, head.colour, np.where(leads < 0, theirs, _GREY))
    alphas = np.where(leads == 0, 0.10, 0.16 + 0.66 * np.minimum(np.abs(points), _STRONG) / _STRONG)
    plot = _plot(found)
    tiles = _tiles(
        plot, found, colours, alphas, points=points, base=found.joint[found.base], head=found.joint[lead.head]
    )
    charts.hover(
        plot, [tiles], (f"{LABELS[found.rows]} limit", "@row"), (f"{LABELS[found.columns]} limit", "@column"),
        (charts.plain(head.label), "@head{0 %}"), (charts.plain(base.label), "@base{0 %}"),
        ("lead", "@points{+0.0} points"),
    )  # fmt: skip
    flips = np.argwhere(np.asarray(lead.flip))
    if len(flips):
        plot.quad(
            left=flips[:, 1], right=flips[:, 1] + 1, bottom=flips[:, 0], top=flips[:, 0] + 1, fill_color=None,
            line_color=None, hatch_pattern="right_diagonal_line", hatch_color=charts.INK, hatch_scale=7,
            hatch_weight=1, hatch_alpha=0.75,
        )  # fmt: skip
    _mark_slo(plot, found)
    how = (
        "a cell is a pair of limits; its colour names the arm that keeps more requests within both, and is stronger the"
        f" further it leads (full colour: {_STRONG:g} points). Grey: within {100 * found.margin:g} points."
        " Hatched: here the lead turns over."
    )
    keys = [Key(f"{head.label} leads", head.colour, shape="box"), Key(f"{base.label} leads", theirs, shape="box")]
    return Chart(
        f"surface-{head.number}", f"{head.label} against {base.label}{page.mark}", how, plot,
        _lead_table(found, lead, head, base, page.mark), [*keys, Key("level", _GREY, shape="box")],
        _flip_sentence(found, lead, head, base),
    )  # fmt: skip


def _flip_sentence(found: Grid, lead: Lead, head: Shown, base: Shown) -> str:
    leads = np.asarray(lead.leads)
    won, lost = bool((leads > 0).any()), bool((leads < 0).any())
    who = {(True, True): "", (True, False): head.label, (False, True): base.label}.get((won, lost))
    if who is None:
        return "Nowhere on this grid does either arm lead."
    if who:
        return f"Wherever one of the two leads on this grid, it is {who}."
    if found.slo is None:
        return "Which of the two leads depends on the limits."
    now = int(leads[found.slo])
    if now == 0:
        return "At the SLO (marked) the two are level; under other limits either of them leads."
    here, there = (head.label, base.label) if now > 0 else (base.label, head.label)
    return f"At the SLO (marked) {here} leads; under other limits {there} would."


def _alone_chart(found: Grid, arm: Shown, shares: Any, page: Page) -> Chart:
    plot = _plot(found)
    tiles = _tiles(plot, found, np.full(shares.shape, arm.colour), 0.05 + 0.8 * shares, head=shares)
    charts.hover(
        plot, [tiles], (f"{LABELS[found.rows]} limit", "@row"), (f"{LABELS[found.columns]} limit", "@column"),
        ("within both", "@head{0 %}"),
    )  # fmt: skip
    _mark_slo(plot, found)
    how = "a cell is a pair of limits; the stronger its colour, the more requests keep both (full colour: all of them)."
    rows, columns = _chosen(found)
    body: list[list[Cell | str]] = [
        [_limit(found.rows_ms[r]), *(words.share(float(shares[r, c])) for c in columns)] for r in rows
    ]
    table = _table_of(found, f"Share of {arm.label}'s requests within both limits{page.mark}", columns, body)
    return Chart(f"surface-{arm.number}", f"{arm.label}: attainment under other limits{page.mark}", how, plot, table)


def _plot(found: Grid) -> Any:
    n_rows, n_columns = len(found.rows_ms), len(found.columns_ms)
    plot = charts.figure(
        "", x_label=f"limit on {LABELS[found.columns]}, ms", y_label=f"limit on {LABELS[found.rows]}, ms", height=380,
        x_range=(0.0, float(n_columns)), y_range=(0.0, float(n_rows)), tools="reset",
    )  # fmt: skip
    rows, columns = _chosen(found)
    charts.named_ticks(plot, {r + 0.5: _limit(found.rows_ms[r], unit=False) for r in rows})
    charts.named_ticks(plot, {c + 0.5: _limit(found.columns_ms[c], unit=False) for c in columns}, axis="x")
    charts.no_grid(plot, "x")
    charts.no_grid(plot, "y")
    return plot


def _tiles(plot: Any, found: Grid, colours: Any, alphas: Any, **values: Any) -> Any:
    r, c = np.indices(colours.shape)
    data = charts.source(
        left=c.ravel(), right=c.ravel() + 1, bottom=r.ravel(), top=r.ravel() + 1, colour=list(colours.ravel()),
        alpha=np.asarray(alphas, dtype=np.float32).ravel(),
        row=[_limit(found.rows_ms[i]) for i in r.ravel()], column=[_limit(found.columns_ms[i]) for i in c.ravel()],
        **{name: np.asarray(value, dtype=np.float32).ravel() for name, value in values.items()},
    )  # fmt: skip
    return plot.quad(
        left="left",
        right="right",
        bottom="bottom",
        top="top",
        source=data,
        fill_color="colour",
        fill_alpha="alpha",
        line_color=None,
    )


def _mark_slo(plot: Any, found: Grid) -> None:
    if found.slo is None:
        return
    row, column = found.slo
    plot.quad(
        left=[column],
        right=[column + 1],
        bottom=[row],
        top=[row + 1],
        fill_color=None,
        line_color=charts.INK,
        line_width=2.5,
    ).glyph.tags = ["ink"]
    plot.text(
        x=[column + 1.25], y=[row + 0.5], text=["the SLO"], text_font={"value": charts.FONT}, text_font_size="12px",
        text_font_style="bold", text_baseline="middle", text_color=charts.INK,
    ).glyph.tags = ["ink"]  # fmt: skip


def _chosen(found: Grid) -> tuple[list[int], list[int]]:
    """About six limits an axis, the SLO's own among them."""
    slo = found.slo or (None, None)
    return _spread(len(found.rows_ms), slo[0]), _spread(len(found.columns_ms), slo[1])


def _spread(count: int, wanted: int | None) -> list[int]:
    step = max(1, math.ceil(count / _TICKS))
    start = (wanted or 0) % step
    return list(range(start, count, step))


def _lead_table(found: Grid, lead: Lead, head: Shown, base: Shown, mark: str) -> Table:
    rows, columns = _chosen(found)
    body = [[_limit(found.rows_ms[r]), *(_lead_cell(found, lead, head, base, r, c) for c in columns)] for r in rows]
    shares = f"both shares ({head.label} / {base.label})"
    caption = f"Who keeps more requests, by how many points, and below it {shares}{mark}"
    return _table_of(found, caption, columns, body)


def _lead_cell(found: Grid, lead: Lead, head: Shown, base: Shown, r: int, c: int) -> Cell:
    points, who = float(lead.points[r, c]), int(lead.leads[r, c])
    name = head.label if who > 0 else base.label if who < 0 else "level"
    shown = f"{name} +{abs(points):.0f}" if who else name
    mine, theirs = (100 * float(found.joint[one.label][r, c]) for one in (head, base))
    return Cell(shown, "strong" if found.slo == (r, c) else "", f"{mine:.0f} / {theirs:.0f} %")


def _table_of(found: Grid, caption: str, columns: list[int], rows: Any) -> Table:
    corner = f"{LABELS[found.rows]} ≤, {LABELS[found.columns]} ≤"
    return Table(caption, [corner, *(_limit(found.columns_ms[c]) for c in columns)], rows)


def _limit(value: float, *, unit: bool = True) -> str:
    if math.isinf(value):
        return "no limit" if unit else "none"
    return words.milliseconds(float(value), unit=unit)
