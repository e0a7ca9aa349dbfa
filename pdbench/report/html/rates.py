"""Attainment against the offered rate, from a search: points, bands, and where they cross the share asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pdbench.report import charts, words
from pdbench.report.html.context import SIMULATED, Page, reasons_of, workload_of
from pdbench.report.html.parts import Block, Cell, Chart, Key, Missing, Points, Section, Table, Text
from pdbench.views.rates import ArmRates, RatePoint, rates

if TYPE_CHECKING:
    from pdbench.stored import StoredRun

Document = dict[str, Any]

_TITLE = "Attainment against rate"
_HOW = (
    "a curve is the share of requests that keep the whole SLO as more are offered; the further right it crosses the"
    " line, the more the arm carries. Bands are 95 % intervals over runs; where there was one run there is none."
)


def section(page: Page) -> Section | None:
    if page.search is None:
        return _without(page)
    document = page.search.document or {}
    found, valid = rates(document), words.is_valid(document)
    blocks = _about(page, page.search)
    if not any(one.points for one in found):
        blocks.append(Missing("The search has no finished run.", "There is no rate to draw."))
        return Section("rates", _TITLE, [*blocks, *_older(page)])
    mark = SIMULATED if document.get("simulated") else ""
    blocks.append(_chart(found, page, mark))
    if valid:
        blocks.append(_goodput(found, mark))
    notes = [(f"{one.arm}: {one.note}", "") for one in found if one.note and valid]
    if page.search is not page.main:
        notes += [(str(text), "") for text in document.get("warnings") or []]
    if notes:
        blocks.append(Points(notes, "warn"))
    return Section("rates", _TITLE, [*blocks, *_older(page)])


def _without(page: Page) -> Section | None:
    """How to get what this section shows."""
    if not page.one_load:
        return None  # a calibration or a sweep: its workload is not what one searches with
    why = "One run offers one rate. A search finds the rate at which each arm leaves the SLO."
    if page.simulated:
        why += " It runs real servers, so there is none of a simulation."
        return Section("rates", _TITLE, [Missing("No search among these runs.", why)])
    both = f"{page.command('search')}\npdbench report {page.main.path} SEARCH_RUN --format html"
    return Section("rates", _TITLE, [Missing("No search among these runs.", why, both)])


def _about(page: Page, search: StoredRun) -> list[Block]:
    """Which search it is, whether it is to be believed, and where it differs from the run that the page is about."""
    document = search.document
    status = "VALID" if words.is_valid(document) else "INVALID"
    objectives = ", ".join(str(text).replace("<=", "≤") for text in document.get("slo") or []) or "none"
    said = f"Search {search.name}: workload {workload_of(document)}, SLO {objectives}; {status}."
    blocks: list[Block] = [Text(said, "note")]
    if status == "INVALID":
        why = "; ".join(message for message, _ in reasons_of(document)) or "it did not come to its end"
        blocks.append(Text(f"INVALID: {why}. The points are kept, but no goodput is read from them.", "bad"))
    elif search is not page.main:
        blocks.append(Text(str(document.get("sentence", "")), "lead"))
    if search is not page.main and (differs := _differing(page.document, document)):
        text = f"This search and {page.main.name} differ in {', '.join(differs)}: do not read one from the other."
        blocks.append(Text(text, "warn"))
    return blocks


def _differing(main: Document, search: Document) -> list[str]:
    """What two documents do not share: a search has its own rates and number of requests, and nothing else."""
    differs = [] if _load(main) == _load(search) else ["workload"]
    differs += [] if sorted(map(str, main.get("slo") or [])) == sorted(map(str, search.get("slo") or [])) else ["SLO"]
    mine, theirs = (one.get("fingerprint") or {} for one in (main, search))
    changed = sorted(key for key in {*mine} & {*theirs} - {"arms"} if mine[key] != theirs[key])
    served, searched = mine.get("arms") or {}, theirs.get("arms") or {}
    changed += [str(name) for name in served if name in searched and served[name] != searched[name]]
    return [*differs, f"fingerprint ({', '.join(key.replace('_', ' ') for key in changed)})"] if changed else differs


def _load(document: Document) -> Document:
    workload = dict(document.get("workload") or {})
    arrivals = {key: value for key, value in (workload.pop("arrivals", None) or {}).items() if key != "rate"}
    free = ("description", "num_requests", "warmup", "slo")
    return {"arrivals": arrivals, **{key: value for key, value in workload.items() if key not in free}}


def _older(page: Page) -> list[Block]:
    """Goodput over time, where there are several searches: one curve is drawn, and none is kept quiet about."""
    if len(page.searches) < 2:
        return []
    rows: list[list[Cell | str]] = []
    for run in page.searches:
        valid = words.is_valid(run.document)
        status = Cell("VALID", "good") if valid else Cell("INVALID", "bad")
        for one in rates(run.document):
            shown = _found(one) if valid else [Cell(words.NO_VERDICT, "soft"), words.NOTHING]
            rows.append([run.name, workload_of(run.document), one.arm, *shown, status])
    columns = ("search", "workload", "arm", "goodput, requests/s", "95 % interval", "status")
    text = "The curve is that of the newest search; this is what each of them found."
    return [Text(text, "note"), Table("Goodput of every search, oldest first", columns, rows, "lllrrl")]


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


def _found(one: ArmRates) -> list[Cell | str]:
    """Goodput and its interval."""
    low, high = one.interval
    ends = words.NOTHING
    if low is not None or high is not None:
        ends = f"{words.number(low, 'less')} to {words.number(high, 'more')}"
    rate = {"above": "above all tried", "below": "below all tried"}.get(one.where, words.number(one.goodput))
    return [Cell(rate, "strong"), ends]


def _goodput(found: Sequence[ArmRates], mark: str) -> Table:
    rows: list[list[Cell | str]] = []
    for one in found:
        per = words.NOTHING if one.goodput is None else words.number(one.goodput / one.devices)
        rows.append([one.arm, str(one.devices), *_found(one), per])
    caption = f"Goodput: the rate at which {100 * found[0].share:g} % of the requests keep the whole SLO{mark}"
    return Table(caption, ("arm", "devices", "requests/s", "95 % interval", "per device"), rows)
