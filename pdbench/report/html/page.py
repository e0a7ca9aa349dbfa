"""``report.html``: one file that opens from disk and fetches nothing, put together from sections.

A section is a function of the page's runs and gives text, charts and tables. They are listed once, in the order they
are read in. One that fails says so in its place; the others, and the numbers, are not lost for it. All text is escaped
by the template; the only markup that is passed through is Bokeh's and our own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from pdbench import __version__
from pdbench.report import charts
from pdbench.report.html import (
    anatomy,
    cost,
    head,
    latency,
    origin,
    rates,
    slo,
    stalls,
    surface,
    sweeps,
    trend,
    validity,
)  # fmt: skip
from pdbench.report.html.context import Page, page_of
from pdbench.report.html.parts import Missing, Section

if TYPE_CHECKING:
    from pdbench.stored import StoredRun

Builder = Callable[[Page], Section | None]

SECTIONS: Mapping[str, Builder] = {
    "Is it valid?": validity.section,
    "Calibrations and sweeps": sweeps.section,
    "The SLO, arm by arm": slo.section,
    "Attainment against rate": rates.section,
    "First tokens and gaps": latency.section,
    "Do prompts stall the streams?": stalls.section,
    "Where the time goes": anatomy.gantt_section,
    "Under other limits": surface.section,
    "Hand-off and interference": anatomy.parts_section,
    "Cost of a good request": cost.section,
    "Over time": trend.section,
    "How to reproduce it": origin.section,
}
"""Heading -> what fills it. A section that has nothing to say for these runs is left out."""

FILE_NAME = "report.html"
_DASH_CSS = {"solid": "", "dashed": "7 4", "dotdash": "2 3 7 3", "dotted": "2 3", "dashdot": "7 3 2 3"}


def write_report(run_dir: Path, *, price: float | None = None) -> Path:
    """Write ``report.html`` into a run's folder, whole or not at all, and return its path."""
    from pdbench.stored import open_run

    path = run_dir / FILE_NAME
    text = render([open_run(str(run_dir))], price=price)
    # A name of its own for each: two may be asked for the same report at once.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        beside.write_bytes(text.encode("utf-8", "replace"))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def render(runs: Sequence[StoredRun], *, price: float | None = None) -> str:
    """The whole page. ``price``: money for one device for one hour. Raises ``ValueError`` without a run."""
    page = page_of(runs, price)
    sections = [section for title, build in SECTIONS.items() if (section := _built(title, build, page)) is not None]
    sections, script, divs = _embedded(sections)
    return _template().render(
        **_head(page),
        sections=sections,
        script=script,
        divs=divs,
        library=charts.inline_js() if script else "",
        theme_js=charts.THEME_JS,
        page_js=_file("page.js"),
        css=_file("page.css"),
        dash_css=_DASH_CSS,
        version=__version__,
        made_of=", ".join(run.name for run in page.runs),
    )


def _head(page: Page) -> head.Document:
    try:
        return head.facts(page)
    except Exception as error:  # a document that somebody edited still has charts to show
        return head.bare(page, f"{type(error).__name__}: {error}")


def _built(title: str, build: Builder, page: Page) -> Section | None:
    try:
        return build(page)
    except Exception as error:  # a picture that cannot be drawn must not cost the others
        return _failed(build.__module__.rpartition(".")[2] + "-" + build.__name__, title, error)


def _failed(id_: str, title: str, error: Exception) -> Section:
    why = f"{type(error).__name__}: {error}"
    what = "This section could not be made."
    return Section(id_, title, [Missing(what, f"The rest of the page is not touched by it. {why}")])


def _embedded(sections: Sequence[Section]) -> tuple[list[Section], str, dict[str, str]]:
    """The script and divs of all charts. Charts that cannot be written out are left to their tables."""
    figures = {chart.id: chart.figure for section in sections for chart in section.charts}
    try:
        return list(sections), *charts.embed(figures)
    except Exception:
        kept, good = [], dict[str, charts.Figure]()
        for section in sections:
            try:
                charts.embed({chart.id: chart.figure for chart in section.charts})
            except Exception as error:
                section = _failed(section.id, section.title, error)
            kept.append(section)
            good |= {chart.id: chart.figure for chart in section.charts}
        return kept, *charts.embed(good)


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FunctionLoader(_file)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja")


@cache
def _file(name: str) -> str:
    return (resources.files("pdbench.report.html") / "templates" / name).read_text(encoding="utf-8")
