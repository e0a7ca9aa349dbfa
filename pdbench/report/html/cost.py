"""What a good request costs: device-seconds, and money where the price of a device-hour is given."""

from __future__ import annotations

from pdbench.report import charts, words
from pdbench.report.html.context import Page, Shown
from pdbench.report.html.parts import Block, Cell, Chart, Missing, Section, Table, Text
from pdbench.views.cost import Cost, cost

_TITLE = "Cost of a good request"


def section(page: Page) -> Section | None:
    if not page.one_load:
        return None
    found = [(arm, cost(arm.entry, page.price)) for arm in page.arms]
    known = [(arm, one) for arm, one in found if one is not None]
    if not known:
        why = "No request kept the whole SLO, or the run has no summary: a good request has no price."
        return Section("cost", _TITLE, [Missing("No good request.", why)])
    blocks: list[Block] = []
    how = "all devices of an arm are paid for, idle ones too; only requests that kept the whole SLO count."
    rows = [_row(arm, one, page.price) for arm, one in found]
    columns = ["arm", "devices", "good requests/s", "device-seconds a good request"]
    if page.price is not None:
        columns.append(f"cost of 1,000 at {page.price:g} a device-hour")
    title = f"Device-seconds for each good request{page.mark}"
    blocks.append(Chart("cost-device-seconds", title, how, _bars(known), Table(title, columns, rows)))
    note = "At the rate of this run. An arm that could carry more is cheaper per request at a higher rate."
    blocks.append(Text(note, "note"))
    if page.price is None:
        hint = f"pdbench report {page.main.path} --format html --price-per-device-hour 2.50"
        blocks.append(Missing("No price given.", "With what a device costs an hour, this shows money.", hint))
    return Section("cost", _TITLE, blocks)


def _row(arm: Shown, one: Cost | None, price: float | None) -> list[Cell | str]:
    if one is None:
        row: list[Cell | str] = [arm.label, words.number(arm.entry.get("devices")), Cell("none", "bad"), words.INFINITE]
    else:
        row = [
            arm.label,
            str(one.devices),
            words.number(one.good_per_s),
            Cell(f"{words.number(one.device_seconds)} s", "strong"),
        ]
    if price is not None:
        row.append(words.INFINITE if one is None or one.per_thousand is None else words.number(one.per_thousand))
    return row


def _bars(known: list[tuple[Shown, Cost]]) -> charts.Figure:
    places = {arm.number: float(len(known) - 1 - i) for i, (arm, _) in enumerate(known)}
    top = max(one.device_seconds for _, one in known)
    plot = charts.figure(
        "", x_label="device-seconds a good request", y_label="", height=84 + 40 * len(known), x_range=(0.0, 1.08 * top),
        y_range=(-0.6, len(known) - 0.4), tools="reset",
    )  # fmt: skip
    charts.named_ticks(plot, {places[arm.number]: arm.label for arm, _ in known})
    charts.no_grid(plot, "y")
    for arm, one in known:
        data = charts.source(
            y=[places[arm.number]], right=[one.device_seconds], arm=[charts.plain(arm.label)], good=[one.good_per_s]
        )
        bar = plot.hbar(
            y="y",
            right="right",
            left=0,
            height=0.56,
            source=data,
            fill_color=arm.colour,
            line_color=None,
            name=arm.tag,
        )
        charts.hover(
            plot, [bar], ("arm", "@arm"), ("device-seconds", "@right{0.00} s"), ("good", "@good{0.00} requests/s")
        )
    return plot
