"""What every section is given: the stored runs, which of them the page is about, and its arms in their colours."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdbench.report import charts
from pdbench.report.html.parts import Key

if TYPE_CHECKING:
    from pandas import DataFrame

    from pdbench.stored import StoredRun
    from pdbench.views.numbers import Numbers

Document = dict[str, Any]

_MANY_LOADS = ("search", "tune", "calibration")
"""Kinds whose runs had different loads or settings: their requests do not belong into one picture."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An arm as the page shows it; ``number`` gives it its colour and dash, the same in every chart."""

    number: int
    label: str
    name: str
    run: StoredRun
    entry: Document

    @property
    def numbers(self) -> Numbers:
        return self.run.numbers(self.name)

    @property
    def lifecycles(self) -> DataFrame:
        return self.run.lifecycles(self.name)

    @property
    def steps(self) -> DataFrame:
        return self.run.steps(self.name)

    @property
    def colour(self) -> str:
        return charts.colour_of(self.number)

    @property
    def dash(self) -> str:
        return charts.dash_of(self.number)

    @property
    def tag(self) -> str:
        """The name of this arm's parts in a chart, so that the legend can hide them."""
        return f"arm-{self.number}"

    @property
    def simulated(self) -> bool:
        return bool(self.entry.get("simulated"))

    def key(self, shape: str = "line") -> Key:
        return Key(self.label, self.colour, self.dash, shape, self.number)


@dataclass(frozen=True, slots=True)
class Page:
    """``main``: the run in full; ``search``: the run that says how attainment falls with the rate, if there is one."""

    runs: Sequence[StoredRun]
    main: StoredRun
    search: StoredRun | None
    arms: tuple[Shown, ...]
    price: float | None = None

    @property
    def document(self) -> Document:
        return self.main.document

    @property
    def kind(self) -> str:
        return self.main.kind or "run"

    @property
    def one_load(self) -> bool:
        """Whether all requests of an arm were made under one load, so that they may be drawn together."""
        return self.kind not in _MANY_LOADS

    @property
    def same_plans(self) -> bool:
        """Whether all arms were offered the same work, so that they may be held against each other."""
        runs = {id(arm.run): arm.run for arm in self.arms}.values()
        plans = [(run.manifest or {}).get("plan_hashes") for run in runs]
        return len(plans) < 2 or (bool(plans[0]) and all(one == plans[0] for one in plans))

    @property
    def simulated(self) -> bool:
        return bool(self.document.get("simulated")) or any(arm.simulated for arm in self.arms)

    @property
    def mark(self) -> str:
        """What headings end in where nothing of this ran in real time."""
        return " (simulated)" if self.simulated else ""

    @property
    def invalid(self) -> bool:
        return (self.document.get("validity") or {}).get("status") != "VALID"

    @property
    def base(self) -> str | None:
        """What the others are compared to; ``None`` where there is one arm."""
        return self.main.base if len(self.main.arms) > 1 else None

    def comparisons(self, head: str) -> dict[str, Document]:
        """metric -> comparison, of one arm; nothing of an INVALID run, which has no verdict."""
        if self.invalid:
            return {}
        if self.kind == "gate" and head == self.document.get("head"):
            metrics = self.document.get("metrics") or {}
            return {name: _of_gate(item) for name, item in metrics.items() if item.get("percent") is not None}
        found = self.document.get("comparisons") or []
        return {item["metric"]: item for item in found if item.get("head") == head}

    def command(self, verb: str) -> str:
        """The run's arms and workload under another verb, as a hint of what to type."""
        argv = [str(word) for word in (self.main.manifest or {}).get("argv") or []]
        names = {arm.name for arm in self.arms}
        kept = ["pdbench", verb, *(word for word in argv if word.partition("=")[0] in names)]
        if "--base-url" in argv[:-1] and verb != "run":
            kept.append(f"{self.arms[0].name}={argv[argv.index('--base-url') + 1]}")
        for option in ("--workload", "-w"):
            if option in argv[:-1]:
                kept += [option, argv[argv.index(option) + 1]]
        return shlex.join(kept)


def _of_gate(item: Document) -> Document:
    """A gate's metric as a comparison: its bounds are those that its decision rests on."""
    return {**item, "interval": [item.get("lower"), item.get("upper")], "verdict": item.get("status", "")}


def page_of(runs: Sequence[StoredRun], price: float | None = None) -> Page:
    """The newest comparison is shown in full, else the newest run; single runs are laid side by side.

    Raises ``ValueError`` without a run.
    """
    if not runs:
        raise ValueError("a report needs a run")
    ordered = sorted(runs, key=lambda run: run.name)
    searches = [run for run in ordered if run.kind == "search"]
    others = [run for run in ordered if run.kind != "search"]
    compared = [run for run in others if len(run.arms) > 1]
    main = (compared or others or searches)[-1]
    together = others if others and not compared else [main]
    names = [name for run in together for name in run.arms]
    arms: list[Shown] = []
    for run in together:
        for name in run.arms:
            label = name if names.count(name) == 1 else f"{name} @ {run.name}"
            entry = run.document["arms"].get(name) if isinstance(run.document.get("arms"), dict) else None
            arms.append(Shown(len(arms), label, name, run, entry if isinstance(entry, dict) else {}))
    return Page(ordered, main, searches[-1] if searches else None, tuple(arms), price)
