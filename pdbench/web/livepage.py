"""``/pdbench``: the page of live charts, as HTML. Every text of a run is escaped by the template."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import jinja2

from pdbench import __version__
from pdbench.measure.slo import parse_objectives
from pdbench.report import charts
from pdbench.web import table
from pdbench.web.figures import PLOTS, figures
from pdbench.web.screen import Screen

FORMATS = {
    "parquet": "Raw records (Parquet, zip)",
    "json": "Summary (JSON)",
    "html": "Report (HTML)",
}


def render(screen: Screen | None, state: str) -> str:
    """The whole page, for the call on ``screen``; without one, where to start."""
    plots: dict[str, Any] = {}
    if screen is not None:
        objectives = parse_objectives(screen.asked.workload.slo)
        plots = figures([arm.name for arm in screen.arms], objectives, server=any(screen.tells))
    script, divs = charts.embed(plots)
    ending = screen.ending if screen is not None else None
    document = ending.document if ending is not None else None
    return _template().render(
        screen=screen,
        state=state,
        ending=ending,
        document=document,
        rows=table.rows(document) if document else [],
        reasons=table.reasons(document) if document else [],
        warnings=table.warnings(document) if document else [],
        colours=[charts.colour_of(number) for number in range(len(screen.arms))] if screen is not None else [],
        silent=[arm.name for arm, tells in zip(screen.arms, screen.tells, strict=True) if not tells] if screen else [],
        plots=PLOTS if screen is not None else (),
        divs=divs,
        script=script,
        theme_js=charts.THEME_JS,
        css=_shared("page.css") + _file("live.css"),
        live_js=_file("live.js"),
        formats=FORMATS,
        version=__version__,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("live.html.jinja")


@cache
def _file(name: str) -> str:
    return (resources.files("pdbench.web") / "templates" / name).read_text(encoding="utf-8")


@cache
def _shared(name: str) -> str:
    return (resources.files("pdbench.report.html") / "templates" / name).read_text(encoding="utf-8")
