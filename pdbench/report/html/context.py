"""What every section is given: the stored runs, which of them the page is about, and its arms in their colours."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pdbench.errors import UsageError
from pdbench.measure.slo import Objective, parse_objectives
from pdbench.report import charts, words
from pdbench.report.html.parts import Key

if TYPE_CHECKING:
    from pandas import DataFrame

    from pdbench.stored import StoredRun
    from pdbench.views.numbers import Numbers

Document = dict[str, Any]

SIMULATED = " (simulated)"
MANY_LOADS = ("search", "tune", "calibration")
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
        return simulated(self.run.document, self.entry)

    @property
    def valid(self) -> bool:
        """Whether its run carries verdicts; that of another run on the page says nothing of it."""
        return words.is_valid(self.run.document)

    def key(self, shape: str = "line") -> Key:
        return Key(self.label, self.colour, self.dash, shape, self.number)


@dataclass(frozen=True, slots=True)
class Page:
    """``main``: the run in full. ``searches``: those that say how attainment falls with the rate, oldest first.
    ``objectives``: the SLO of ``main``, empty where it cannot be read; ``notes`` then say so."""

    runs: Sequence[StoredRun]
    main: StoredRun
    searches: Sequence[StoredRun]
    arms: tuple[Shown, ...]
    objectives: tuple[Objective, ...] = ()
    notes: tuple[str, ...] = ()
    price: float | None = None

    @property
    def document(self) -> Document:
        return self.main.document

    @property
    def search(self) -> StoredRun | None:
        """The newest, whose curve is drawn."""
        return self.searches[-1] if self.searches else None

    @property
    def kind(self) -> str:
        return self.main.kind or "run"

    @property
    def one_load(self) -> bool:
        """Whether all requests of an arm were made under one load, so that they may be drawn together."""
        return self.kind not in MANY_LOADS

    @property
    def same_plans(self) -> bool:
        """Whether all arms were offered the same work, so that they may be held against each other."""
        runs = {id(arm.run): arm.run for arm in self.arms}.values()
        plans = [(run.manifest or {}).get("plan_hashes") for run in runs]
        return len(plans) < 2 or (bool(plans[0]) and all(one == plans[0] for one in plans))

    @property
    def simulated(self) -> bool:
        """Whether all of it is. Where only some arms are, their labels say so."""
        return all(arm.simulated for arm in self.arms) if self.arms else simulated(self.document)

    @property
    def mark(self) -> str:
        """What headings end in where nothing of this ran in real time."""
        return SIMULATED if self.simulated else ""

    @property
    def invalid(self) -> list[StoredRun]:
        """Of the runs whose figures stand side by side, those that carry no verdict, the main one first."""
        shown = {id(run): run for run in (self.main, *(arm.run for arm in self.arms))}
        return [run for run in shown.values() if not words.is_valid(run.document)]

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
    """The newest comparison is shown in full, else the newest run; single runs are laid side by side. A calibration, a
    sweep or a search is what the page is about only where there is nothing else.

    Raises ``ValueError`` without a run.
    """
    if not runs:
        raise ValueError("a report needs a run")
    ordered = sorted(runs, key=lambda run: run.name)
    searches = [run for run in ordered if run.kind == "search"]
    single = [run for run in ordered if run.kind not in MANY_LOADS]
    compared = [run for run in single if len(run.arms) > 1]
    main = (compared or single or searches or ordered)[-1]
    arms = _arms(single if single and not compared else [main])
    objectives, notes = _slo(main.document)
    return Page(ordered, main, searches, arms, objectives, notes, price)


def _arms(runs: Sequence[StoredRun]) -> tuple[Shown, ...]:
    """The arms of these runs, each under a name of its own; simulated ones beside real ones are called so."""
    names = [name for run in runs for name in run.arms]
    found: list[Shown] = []
    for run in runs:
        for name in run.arms:
            label = name if names.count(name) == 1 else f"{name} @ {run.name}"
            entry = run.document["arms"].get(name) if isinstance(run.document.get("arms"), dict) else None
            found.append(Shown(len(found), label, name, run, entry if isinstance(entry, dict) else {}))
    if len({arm.simulated for arm in found}) > 1:
        return tuple(replace(arm, label=f"{arm.label}{SIMULATED * arm.simulated}") for arm in found)
    return tuple(found)


def _slo(document: Document) -> tuple[tuple[Objective, ...], tuple[str, ...]]:
    """The objectives, and what to say where they cannot be read."""
    try:
        return tuple(parse_objectives([str(text) for text in document.get("slo") or []])), ()
    except (UsageError, TypeError) as error:
        return (), (f"the stored SLO cannot be read, so no limit is drawn: {error}",)


def simulated(document: Document, entry: Mapping[str, Any] | None = None) -> bool:
    """Whether a run, or one of its arms, ran in virtual time."""
    return bool(document.get("simulated") or (entry or {}).get("simulated"))


def reasons_of(document: Document) -> list[tuple[str, str]]:
    """Why a run is INVALID: each reason with its remedy."""
    validity = document.get("validity")
    found = (validity.get("reasons") or []) if isinstance(validity, Mapping) else []
    return [
        (str(one.get("message", "")), str(one.get("remedy", ""))) if isinstance(one, Mapping) else (str(one), "")
        for one in found
    ]


def workload_of(document: Document) -> str:
    """Its name."""
    return str((document.get("workload") or {}).get("name", "unknown"))
