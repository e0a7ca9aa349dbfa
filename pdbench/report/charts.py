"""Charts: the one module that knows the library that draws them (Bokeh), for the report and for the live page alike.

A figure made here is quiet (no logo, no frame, a toolbar that shows when it is needed), as wide as what holds it, and
readable on light and on dark: its inks are neutral, and ``THEME_JS`` recolours them by ``prefers-color-scheme``. Arms
differ by colour *and* by dash; the colours are those of Okabe and Ito (2008, "Color Universal Design"), which people
with every kind of colour blindness tell apart. Two of them are darkened, so that each has a contrast of 3 to 1 with a
white page and with a black one.

Bokeh's own JavaScript is taken from the installed package: nothing is fetched, nothing is vendored. Names of arms
and requests are untrusted; they go through ``plain`` before they are drawn, since Bokeh would typeset ``$$...$$``.

Importing this takes a second: do it where a chart is about to be drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import bokeh
import numpy.typing as npt
from bokeh.document import Document
from bokeh.embed import components
from bokeh.model import Model
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, LogTicker, NumeralTickFormatter, Range1d
from bokeh.models.annotations import Label, Span
from bokeh.models.ranges import Range
from bokeh.plotting import figure as _figure

Figure = _figure

PALETTE: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#3F9BD1", "#BC8200", "#8C8C8C")
"""Okabe-Ito without its yellow, which no white page shows, sky blue and orange darkened; one an arm, in order."""

SPARE = "#8B5A2B"
"""Of none of the palette: for one of two arms that have the same colour, where they are held against each other."""

DASHES: tuple[str, ...] = ("solid", "dashed", "dotdash", "dotted", "dashdot")
MARKERS: tuple[str, ...] = ("circle", "triangle", "square", "diamond", "inverted_triangle", "plus", "x")

INK = "#7a828e"
"""Readable on white and on black; what is drawn with it carries the tag ``ink`` and is recoloured by the page."""

GRID = "#8a929e40"
TOOLS = "pan,box_zoom,xwheel_zoom,reset"
WIDE_TOOLS = "xpan,xbox_zoom,xwheel_zoom,reset"
"""Of charts over time: they are looked into along the time only."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
_LONGEST = 60
_DIV_ID = re.compile(r'<div id="([^"]+)"')
_DOCUMENT_ID = re.compile(r'"docid":"([^"]+)"')


def colour_of(i: int) -> str:
    """The colour of arm number ``i``; beyond seven they come again, with other dashes and marks."""
    return PALETTE[i % len(PALETTE)]


def dash_of(i: int) -> str:
    return DASHES[(i % len(PALETTE) + i // len(PALETTE)) % len(DASHES)]


def marker_of(i: int) -> str:
    return MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]


def device_colour(i: int) -> str:
    """The colour of device number ``i``: the palette from its other end, so that it is not an arm's."""
    colours = PALETTE[-2::-1]
    return colours[i % len(colours)]


def plain(text: object, longest: int = _LONGEST) -> str:
    """Text as it is to be drawn: no formula, no line break, not endless."""
    shown = re.sub(r"\$(?=\$)|\\(?=[(\[])", r"\g<0> ", " ".join(str(text).split()))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def figure(
    title: str,
    *,
    x_label: str,
    y_label: str,
    height: int = 320,
    x_log: bool = False,
    y_log: bool = False,
    x_range: Range | Sequence[float] | Sequence[str] | None = None,
    y_range: Range | Sequence[float] | Sequence[str] | None = None,
    tools: str = TOOLS,
) -> Figure:
    """An empty figure as wide as its container. ``title`` may be empty: a page that has a heading draws none.

    A range is another figure's (then both move together), two numbers, or a list of names (categories).
    """
    ranges = {"x_range": _range(x_range), "y_range": _range(y_range)}
    plot = _figure(
        title=plain(title) or None,
        height=height,
        sizing_mode="stretch_width",
        x_axis_label=plain(x_label),
        y_axis_label=plain(y_label),
        x_axis_type="log" if x_log else "auto",
        y_axis_type="log" if y_log else "auto",
        tools=tools,
        active_scroll=None,
        active_drag=next((tool for tool in tools.split(",") if tool.endswith("box_zoom")), None),
        toolbar_location="below",
        output_backend="canvas",
        **{name: value for name, value in ranges.items() if value is not None},
    )
    _calm(plot)
    for logarithmic, axes in ((x_log, plot.xaxis), (y_log, plot.yaxis)):
        for axis in axes if logarithmic else ():
            axis.ticker = LogTicker(mantissas=[1, 2, 5], desired_num_ticks=7)
            axis.formatter = NumeralTickFormatter(format="0,0.[000]")
    return plot


def _range(given: Range | Sequence[float] | Sequence[str] | None) -> Any:
    if given is None or isinstance(given, Range):
        return given
    values = list(given)
    if values and isinstance(values[0], str):
        return [plain(value) for value in values]
    return Range1d(*(float(value) for value in values))  # type: ignore[arg-type]


def _calm(plot: Any) -> None:
    """Little chrome: no logo, no frame, light lines, the page's own font."""
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.background_fill_color = None
    plot.border_fill_color = None
    plot.outline_line_color = None
    plot.min_border_right = 12
    if plot.title is not None:
        plot.title.text_font, plot.title.text_font_size, plot.title.text_color = FONT, "13px", INK
    for axis in plot.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size, axis.major_label_text_font_size = "12px", "11px"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = INK
        axis.minor_tick_line_color = None
        axis.major_tick_in, axis.major_tick_out = 0, 4
    for grid in plot.grid:
        grid.grid_line_color = GRID


def source(name: str = "", /, **columns: Any) -> ColumnDataSource:
    """Columns of equal length, by name; ``name`` lets a live page find and stream to it."""
    return ColumnDataSource(data=columns, name=name or None)


def hover(plot: Figure, renderers: Sequence[Any], *lines: tuple[str, str]) -> None:
    """What is said of a point under the pointer: (label, ``"@column{format} unit"``)."""
    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=list(lines), attachment="horizontal"))


def limit_line(
    plot: Figure, value: float, text: str = "", *, vertical: bool = False, left: bool = False, end: float | None = None
) -> None:
    """A limit across the whole figure, dashed in the page's ink, with its words beside it.

    ``left``: the words of a vertical line stand on its left. ``end``: where the axis ends, for those of a horizontal
    line to stand there instead of at its beginning.
    """
    across: Literal["height", "width"] = "height" if vertical else "width"
    plot.add_layout(Span(location=value, dimension=across, line_color=INK, line_dash="4 3", tags=["ink"]))
    if not text:
        return
    place: dict[str, Any] = {"x": value, "y": 4, "y_units": "screen", "x_offset": -5 if left else 5}
    if not vertical:
        place = {"x": 4, "x_units": "screen", "y": value, "y_offset": 3}
    if not vertical and end is not None:
        place |= {"x": end, "x_units": "data", "x_offset": -4}
    place["text_align"] = "right" if left or end is not None else "left"
    words = Label(text=plain(text), text_font=FONT, text_font_size="11px", text_color=INK, tags=["ink"], **place)
    plot.add_layout(words)


def percent_axis(plot: Figure, *, axis: str = "y") -> None:
    """Shares as per cent: 0.9 is ``90 %``."""
    for one in plot.yaxis if axis == "y" else plot.xaxis:
        one.formatter = NumeralTickFormatter(format="0 %")


def named_ticks(plot: Figure, labels: Mapping[float, str], *, axis: str = "y") -> None:
    """Words at given places of a linear axis, and nothing anywhere else."""
    for one in plot.yaxis if axis == "y" else plot.xaxis:
        one.ticker = FixedTicker(ticks=list(labels), minor_ticks=[])
        one.major_label_overrides = {place: plain(text, 28) for place, text in labels.items()}


def no_grid(plot: Figure, axis: str) -> None:
    """No grid lines across ``axis``, which has words and no scale."""
    for grid in plot.ygrid if axis == "y" else plot.xgrid:
        grid.grid_line_color = None


def strips(plot: Figure, starts: npt.ArrayLike, ends: npt.ArrayLike, colour: str, alpha: float = 0.22) -> None:
    """Stretches of x shaded over the whole height, behind everything else."""
    plot.vstrip(
        x0="x0", x1="x1", source=source(x0=starts, x1=ends), fill_color=colour, fill_alpha=alpha, line_color=None,
        level="underlay",
    )  # fmt: skip


def static_dir() -> Path:
    """Bokeh's own JavaScript, as installed."""
    return Path(str(resources.files(bokeh))) / "server" / "static" / "js"


@cache
def inline_js() -> str:
    """What these charts need of BokehJS (about 1 MB), fit to stand between script tags."""
    text = (static_dir() / "bokeh.min.js").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("//# sourceMappingURL")]
    return "\n".join(lines).replace("</script", "<\\/script")


def embed(figures: Mapping[str, Figure]) -> tuple[str, dict[str, str]]:
    """One script (without its tags) that draws all figures, and for each id the div that holds it.

    The figures become one document, so that ranges may be shared among them. ``("", {})`` without figures. The same
    figures give the same bytes: Bokeh's ids, which are counted by the process or drawn by lot, are given anew.
    """
    if not figures:
        return "", {}
    document = Document()
    _number([*figures.values(), document.config])
    with document.models.freeze():  # else every figure would have all models counted again
        for plot in figures.values():
            document.add_root(plot)
    try:
        script, divs = components(dict(figures), wrap_script=False)
    finally:
        document.clear()
    return _counted(str(script), {str(key): str(div) for key, div in divs.items()})


def _number(roots: Iterable[Model]) -> None:
    """Number models, those of each root in the order in which they were made."""
    found: dict[int, Any] = {}
    for root in roots:
        for model in sorted(root.references(), key=lambda one: int(one.id[1:])):
            found.setdefault(id(model), model)
    for number, model in enumerate(found.values(), start=1001):
        model._id = f"p{number}"


def _counted(script: str, divs: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Ids drawn by lot (of the document, and of the elements that hold figures) become counted ones."""
    ids = [match[1] for div in divs.values() for match in _DIV_ID.finditer(div)]
    names = {old: f"plot-{number}" for number, old in enumerate(ids)}
    names |= dict.fromkeys(_DOCUMENT_ID.findall(script), "charts")
    for old, new in names.items():
        script = script.replace(old, new)
        divs = {key: div.replace(old, new) for key, div in divs.items()}
    return script, divs


THEME_JS = """\
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var touch = window.matchMedia("(pointer: coarse)").matches;
  var themes = {
    light: {ink: "#24292f", soft: "#57606a", grid: "rgba(87, 96, 106, 0.16)", line: "#8c959f"},
    dark: {ink: "#e6e9ed", soft: "#a5adb8", grid: "rgba(165, 173, 184, 0.16)", line: "#6e7681"}
  };
  function models(doc) {
    var found = doc.all_models || doc._all_models;
    return Array.from(typeof found.values === "function" ? found.values() : found);
  }
  function set(model, values) {
    Object.keys(values).forEach(function (key) {  // what is not drawn at all stays so
      if (!(key in model.properties) || model[key] === null) { delete values[key]; }
    });
    model.setv(values);
  }
  function paint_one(model, t) {
    var type = model.type || "";
    if (/Axis$/.test(type)) {
      set(model, {axis_label_text_color: t.soft, major_label_text_color: t.soft, group_text_color: t.soft,
                  axis_line_color: t.line, major_tick_line_color: t.line});
    } else if (/Grid$/.test(type)) {
      set(model, {grid_line_color: t.grid});
    } else if (type === "Title") {
      set(model, {text_color: t.ink});
    } else if (type === "Legend") {
      set(model, {label_text_color: t.soft, background_fill_alpha: 0, border_line_alpha: 0});
    }
    if ((model.tags || []).indexOf("ink") >= 0) {
      set(model, {line_color: t.ink, text_color: t.ink});
    }
  }
  function paint() {
    var t = dark.matches ? themes.dark : themes.light;
    ((window.Bokeh || {}).documents || []).forEach(function (doc) {
      models(doc).forEach(function (model) { paint_one(model, t); });
    });
  }
  function calm_touch() {
    if (!touch) { return; }
    window.Bokeh.documents.forEach(function (doc) {
      models(doc).forEach(function (model) {
        if (model.type === "BoxZoomTool" || model.type === "PanTool") { model.active = false; }
      });
    });
  }
  window.pdbenchPaint = paint;
  dark.addEventListener("change", paint);
  var tries = 0;
  (function first() {
    if (((window.Bokeh || {}).documents || []).length) { paint(); calm_touch(); }
    else if (tries++ < 400) { setTimeout(first, 25); }
  })();
})();
"""
"""Colours axes, grids, titles and whatever is tagged ``ink`` by ``prefers-color-scheme``, now and when it changes. On
touch screens a finger scrolls the page instead of zooming a chart. Put it after the script of ``embed``."""
