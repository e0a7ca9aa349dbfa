"""Several stored runs over time: each arm's figures by the date in the run's name, and the verdicts that were given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Document = Mapping[str, Any]
FIGURES = ("ttft_p90", "tpot_p90", "tbt_p90", "worst_gap_p90", "e2e_p90")

_STAMP = re.compile(r"(?P<stamp>\d{8}T\d{6}Z)")
_DATED = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """One arm of one run. ``figures``: P90s in ms by metric, ``None`` is +inf, absent what does not apply. ``date`` is
    ``None`` where the run's name has none. ``joint`` with its 95 % interval where the run gave one."""

    run: str
    date: datetime | None
    kind: str
    workload: str
    arm: str
    valid: bool
    simulated: bool
    joint: float | None
    joint_interval: tuple[float, float] | None
    figures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrendVerdict:
    """One judged change of one run. ``effect`` is a log ratio or a difference (``scale``), positive: the head is worse;
    ``interval`` likewise; of a gate the bounds that its decision rests on."""

    run: str
    date: datetime | None
    kind: str
    base: str
    head: str
    metric: str
    primary: bool
    scale: str
    effect: float | None
    interval: tuple[float | None, float | None] | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Trend:
    """By date, the undated last, in the order given. ``notes`` name documents without anything to show."""

    points: tuple[TrendPoint, ...]
    verdicts: tuple[TrendVerdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(point.arm for point in self.points))

    def of(self, arm: str) -> list[TrendPoint]:
        return [point for point in self.points if point.arm == arm]


def trend(documents: Iterable[Document]) -> Trend:
    """Documents of ``compare``, ``gate``, ``run`` or ``simulate``, in any order. Others are named in the notes."""
    dated = [(date_of(str(document.get("run", ""))), place, document) for place, document in enumerate(documents)]
    dated.sort(key=lambda one: (one[0] is None, one[0] or datetime.min.replace(tzinfo=UTC), one[1]))
    points: list[TrendPoint] = []
    verdicts: list[TrendVerdict] = []
    notes: list[str] = []
    for date, _, document in dated:
        arms = {name: arm for name, arm in document.get("arms", {}).items() if "requests" in arm}
        if document.get("kind") not in ("compare", "gate", "run", "simulate") or not arms:
            notes.append(f"{document.get('run', 'a document')}: a {document.get('kind', 'document')} without latencies")
            continue
        points += [_point(document, date, str(name), arm) for name, arm in arms.items()]
        verdicts += _verdicts(document, date)
    workloads = sorted({point.workload for point in points})
    if len(workloads) > 1:
        notes.append(f"the runs are of several workloads ({', '.join(workloads)}): their figures are not comparable")
    return Trend(tuple(points), tuple(verdicts), tuple(notes))


def date_of(run: str) -> datetime | None:
    """``20260102T030405Z-chat-1a2b3c4`` -> its instant (UTC); ``None`` where there is none."""
    match = _STAMP.search(run)
    if match is None:
        return None
    try:
        return datetime.strptime(match["stamp"], _DATED).replace(tzinfo=UTC)
    except ValueError:
        return None


def _point(document: Document, date: datetime | None, name: str, arm: Document) -> TrendPoint:
    figures: dict[str, float | None] = {}
    for figure in FIGURES:
        metric, _, stat = figure.rpartition("_")
        spread = arm.get(f"{metric}_ms", {})
        if stat in spread:
            figures[figure] = spread[stat]
    bounds = arm.get("attainment_interval", {}).get("joint")
    return TrendPoint(
        run=str(document.get("run", "")),
        date=date,
        kind=str(document["kind"]),
        workload=str(document.get("workload", {}).get("name", "")),
        arm=name,
        valid=document.get("validity", {}).get("status") == "VALID",
        simulated=bool(arm.get("simulated")),
        joint=arm.get("attainment", {}).get("joint"),
        joint_interval=(float(bounds[0]), float(bounds[1])) if bounds else None,
        figures=figures,
    )


def _verdicts(document: Document, date: datetime | None) -> list[TrendVerdict]:
    """None of a run that is not VALID, whatever words were stored."""
    if (document.get("validity") or {}).get("status") != "VALID":
        return []
    run, kind = str(document.get("run", "")), str(document["kind"])
    found = [
        TrendVerdict(
            run, date, kind, item["base"], item["head"], item["metric"], bool(item["primary"]), item["scale"],
            item["effect"], tuple(item["interval"]) if item.get("interval") else None, item["verdict"],
        )
        for item in document.get("comparisons", ())
    ]  # fmt: skip
    for metric, item in document.get("metrics", {}).items() if kind == "gate" else ():
        found.append(
            TrendVerdict(
                run, date, kind, document["base"], document["head"], metric, bool(item["primary"]), item["scale"],
                item["effect"], (item["lower"], item["upper"]), item["status"],
            )
        )  # fmt: skip
    return found
