"""The charts of the live page: empty, fed by the page itself from ``/pdbench/live.json``.

One source an arm (``arm-0``, ``arm-1``, ...) with the columns of ``livestate.COLUMNS``; the figures share it, and their
time axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pdbench.livestate import COLUMNS, WINDOW_S
from pdbench.measure.slo import Objective
from pdbench.report import charts
from pdbench.units import NS_PER_MS

_BACK = f"over the last {WINDOW_S:g} s"
_HEIGHT = 240


@dataclass(frozen=True, slots=True)
class Plot:
    """``lines``: (column, dash, how it is told)."""

    id: str
    title: str
    unit: str
    lines: Sequence[tuple[str, str, str]]
    how: str
    share: bool = False
    metric: str = ""
    server: bool = False


PLOTS = (
    Plot("attainment", "Requests within all limits", "share", [("joint", "solid", "")],
         f"Of the requests that ended {_BACK}, the share that kept every limit on a single request.", share=True),
    Plot("ttft", "Time to first token", "ms", [("ttft90", "solid", "P90"), ("ttft50", "dotted", "P50")],
         f"From the instant a request fell due to its first token, {_BACK}. A request that failed has an infinite one: "
         "a line breaks off while more fail than its percentile leaves out.", metric="ttft"),
    Plot("tbt", "Time between tokens", "ms", [("tbt90", "solid", "P90"), ("tbt50", "dotted", "P50")],
         f"Gaps between the tokens of all streams, {_BACK}.", metric="tbt"),
    Plot("arrivals", "Arrivals against the plan", "requests",
         [("planned", "dotted", "planned"), ("due", "dashed", "fell due"), ("done", "solid", "ended")],
         "Since the start of a run: what the plan had due by then, what fell due, and what has ended."),
    Plot("queues", "Queue depths at the server", "requests",
         [("queue_prefill", "solid", "prefill"), ("queue_decode", "dashed", "decode")],
         "Requests that wait for a phase or are in it. A device that does both is shown with prefill.", server=True),
    Plot("busy", "Busy share of the devices", "share",
         [("busy_prefill", "solid", "prefill"), ("busy_decode", "dashed", "decode")],
         "Of the last second, how long devices were in a step. A device that does both is shown with prefill.",
         share=True, server=True),
)  # fmt: skip


def figures(arms: Sequence[str], objectives: Sequence[Objective], *, server: bool) -> dict[str, Any]:
    """A figure for each of ``PLOTS``, by id; ``server``: also of those that a server must tell."""
    sources = [charts.source(f"arm-{number}", **{name: [] for name in COLUMNS}) for number in range(len(arms))]
    made: dict[str, Any] = {}
    for plot in PLOTS:
        if plot.server and not server:
            continue
        one: Any
        first = next(iter(made.values()), None)
        one = charts.figure(
            "",
            x_label="s since the call began",
            y_label=plot.unit,
            height=_HEIGHT,
            x_range=first.x_range if first is not None else None,
            y_range=(0.0, 1.04) if plot.share else None,
            tools=charts.WIDE_TOOLS,
        )
        for number, source in enumerate(sources):
            for column, dash, _ in plot.lines:
                one.line("t", column, source=source, line_color=charts.colour_of(number), line_dash=dash, line_width=2)
        if plot.share:
            charts.percent_axis(one)
        else:
            one.y_range.start = 0
            one.line([0, 1], [0, 1], line_alpha=0)  # axes that know where to be before the first figure comes
        for objective in objectives:
            if plot.metric and objective.metric == plot.metric and objective.limit_ns:
                charts.limit_line(one, objective.limit_ns / NS_PER_MS, objective.text)
        made[plot.id] = one
    return made
