"""Attainment against offered rate, from the document of a search: points, bands, and the crossing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from pdbench.measure.latency import Floats

Document = Mapping[str, Any]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One rate: mean joint attainment over its VALID runs and an interval of that mean, a run being the unit (Student's
    t, no spread below one request believed, as ``stats.runlevel``); ``None`` with fewer than two runs. ``joint`` is
    ``None`` where no run was VALID."""

    rate: float
    joint: float | None
    interval: tuple[float, float] | None
    runs: int
    left_out: int

    @property
    def valid(self) -> bool:
        return self.runs > 0


@dataclass(frozen=True, slots=True)
class ArmRates:
    """One arm, by rising rate, and every single run (rate, attainment, seed, whether it counts). ``goodput``: the rate
    at which attainment crosses ``share``, ``None`` where it is beyond the rates tried (``where`` says which way:
    "above", "below", "resolved", "" without a VALID run); its interval may be open at an end. In all, not by device."""

    arm: str
    devices: int
    points: tuple[RatePoint, ...]
    runs: tuple[tuple[float, float, int, bool], ...]
    share: float
    goodput: float | None
    interval: tuple[float | None, float | None]
    where: str
    note: str

    @property
    def rate(self) -> Floats:
        """Rates with a VALID run."""
        return np.array([point.rate for point in self.points if point.joint is not None])

    @property
    def joint(self) -> Floats:
        return np.array([point.joint for point in self.points if point.joint is not None])


def rates(document: Document) -> list[ArmRates]:
    """One entry an arm, in the document's order; ``[]`` for a document that is not of a search."""
    if document.get("kind") != "search":
        return []
    share = float(document.get("share", 0.9))
    return [_arm(str(name), arm, share) for name, arm in document.get("arms", {}).items()]


def _arm(name: str, arm: Document, share: float) -> ArmRates:
    runs = [run for run in arm.get("runs", ()) if run.get("rate")]
    by_rate: dict[float, list[Document]] = {}
    for run in runs:
        by_rate.setdefault(float(run["rate"]), []).append(run)
    found = arm.get("goodput") or {}
    where = str(found.get("where", ""))
    rate = float(found["rate"]) if where == "resolved" else None
    ends = found.get("interval") or [None, None]
    note = {
        "": "no run was VALID",
        "above": f"more than {found.get('rate', math.nan):.3g} req/s: no rate tried was too high",
        "below": f"less than {found.get('rate', math.nan):.3g} req/s: no rate tried was low enough",
    }.get(where, "" if ends != [None, None] else "too few seeds for an interval")
    return ArmRates(
        arm=name,
        devices=int(arm.get("devices", 1)),
        points=tuple(_point(rate, by_rate[rate]) for rate in sorted(by_rate)),
        runs=tuple(
            (float(run["rate"]), float(run["joint"]), int(run.get("seed", 0)), bool(run.get("used")))
            for run in runs
            if run.get("joint") is not None
        ),
        share=share,
        goodput=rate,
        interval=(ends[0], ends[1]),
        where=where,
        note=note,
    )


def _point(rate: float, runs: list[Document]) -> RatePoint:
    used = [run for run in runs if run.get("used") and run.get("joint") is not None]
    if not used:
        return RatePoint(rate, None, None, 0, len(runs))
    shares = np.array([float(run["joint"]) for run in used])
    offered = min(max(1, int(run.get("scheduled", 1))) for run in used)
    return RatePoint(rate, float(shares.mean()), _interval(shares, offered), len(used), len(runs) - len(used))


def _interval(shares: npt.NDArray[np.float64], offered: int) -> tuple[float, float] | None:
    if len(shares) < 2:
        return None
    spread = max(float(np.std(shares, ddof=1)), 1.0 / offered)
    half = float(stdtrit(len(shares) - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(len(shares))
    middle = float(shares.mean())
    return max(0.0, middle - half), min(1.0, middle + half)
