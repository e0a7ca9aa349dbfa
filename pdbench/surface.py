"""``pdbench surface RUN ...``: joint attainment under every limit, and the limit at which the order turns over.

Nothing is run: the latencies of stored runs are judged anew. Several runs are laid side by side when they
replayed the same plans; an INVALID run is shown, but says nothing about who leads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench.errors import EXIT_INVALID, EXIT_OK, UsageError, did_you_mean
from pdbench.measure.latency import Floats, measured, request_metrics
from pdbench.measure.slo import Objective, parse_objectives
from pdbench.measure.surface import AXES, MARGIN, Flip, Outcomes, cube, default_grid, flips, joint, leader, outcomes_of
from pdbench.measure.surface import slo_limits as limits_of
from pdbench.sentence import first_reason, percent
from pdbench.store import Run
from pdbench.units import NS_PER_MS, parse_duration_ns

Document = dict[str, Any]
Cube = npt.NDArray[np.float64]
_WORDS = {"ttft": "TTFT", "tpot": "TPOT", "worst_gap": "worst gap"}


def surface_document(
    runs: Run | Sequence[Run],
    *,
    slo: Sequence[str] = (),
    base: str | None = None,
    grid: Mapping[str, Sequence[int]] | None = None,
) -> Document:
    """The surface of one stored run, or of several that replayed the same plans.

    ``slo`` replaces the objectives of the run; ``grid`` gives limits in ns for some axes. Raises ``UsageError``
    for runs that are unfinished, hold no measured request, or were made under different plans.
    """
    runs = [runs] if isinstance(runs, Run) else list(runs)
    summaries = [_summary(run) for run in runs]
    _same_plans(runs)
    objectives = parse_objectives(list(slo) or summaries[0]["slo"], where="--slo" if slo else "")
    arms, pairs = _arms(runs, summaries, objectives)
    limits = limits_of(objectives)
    grid_ns = _grid(list(arms.values()), limits, grid or {})
    cubes = {name: cube(arm, grid_ns) for name, arm in arms.items()}
    base = _base(base, list(arms), runs)
    validity = _validity(summaries)
    document: Document = {
        "schema_version": 1,
        "kind": "surface",
        "run": [run.path.name for run in runs],
        "slo": [objective.text for objective in objectives],
        "limits_ms": {axis: _ms(limits[axis]) for axis in AXES},
        "margin": MARGIN,
        "pairs": pairs,
        "validity": validity,
        "base": base,
        "grid_ms": {axis: [_ms(value) for value in grid_ns[axis]] for axis in AXES},
        "arms": {
            name: {"requests": len(arm), "joint_at_slo": _share(joint(arm, limits)), "joint": _nested(cubes[name])}
            for name, arm in arms.items()
        },
        "slices": _slices(cubes, grid_ns, limits, base),
    }
    if any(summary.get("simulated") for summary in summaries):
        document["simulated"] = True
    valid = validity["status"] == "VALID"
    heads = [name for name in arms if name != base] if valid else []
    document["comparisons"] = [_comparison(base, head, arms, limits) for head in heads]
    document["sentence"] = _sentence(document)
    return document


def exit_code(document: Document) -> int:
    """0, or 12 when a run was INVALID."""
    return EXIT_OK if document["validity"]["status"] == "VALID" else EXIT_INVALID


def parse_grid(texts: Sequence[str]) -> dict[str, list[int]]:
    """``["ttft:100ms,200ms,1s"]`` -> ``{"ttft": [ns, ...]}``. Raises ``UsageError`` naming ``--limits``."""
    found: dict[str, list[int]] = {}
    for text in texts:
        axis, colon, values = text.partition(":")
        if not colon or axis not in AXES:
            remedy = did_you_mean(axis, AXES) if colon else "write ttft:100ms,200ms,400ms"
            raise UsageError(f"'{text}' is not METRIC:LIMIT,LIMIT", where="--limits", remedy=remedy)
        found[axis] = [parse_duration_ns(value.strip(), where="--limits") for value in values.split(",")]
    return found


def _summary(run: Run) -> Document:
    if run.manifest is None or run.summary is None:
        raise UsageError("the run is unfinished", where=str(run.path), remedy="run it again to its end")
    return run.summary


def _same_plans(runs: Sequence[Run]) -> None:
    """Latencies under different arrivals say nothing about each other."""
    hashes = [(run.manifest or {}).get("plan_hashes") for run in runs]
    for run, found in zip(runs, hashes, strict=True):
        if found != hashes[0]:
            raise UsageError(
                f"its plans differ from those of {runs[0].path.name}",
                where=str(run.path),
                remedy="compare runs of one workload, seed and number of pairs",
            )


def _arms(
    runs: Sequence[Run], summaries: Sequence[Document], objectives: Sequence[Objective]
) -> tuple[dict[str, Outcomes], int]:
    """Every arm's measured requests, over the pairs that all arms completed, and how many pairs those are."""
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    names = [name for summary in summaries for name in summary["arms"]]
    for run, summary in zip(runs, summaries, strict=True):
        for name in summary["arms"]:
            label = name if names.count(name) == 1 else f"{name}@{run.path.name}"
            parts = [frame.loc[(frame["arm"] == name).to_numpy(dtype=bool)] for frame in (run.requests, run.tokens)]
            tables[label] = (parts[0], parts[1])
    whole = set.intersection(*[set(requests["pair"]) for requests, _ in tables.values()]) if tables else set()
    found = {}
    for label, frames in tables.items():
        requests, tokens = (frame.loc[frame["pair"].isin(whole).to_numpy(dtype=bool)] for frame in frames)
        found[label] = outcomes_of(request_metrics(*measured(requests, tokens)), objectives)
        if not len(found[label]):
            raise UsageError(f"no measured request of {label}", where=str(runs[0].path), remedy="run it again")
    return found, len(whole)


def _grid(
    arms: Sequence[Outcomes], limits: Mapping[str, float], asked: Mapping[str, Sequence[int]]
) -> dict[str, Floats]:
    """The default grid with what was asked for in its place; the SLO's own limit is always on it."""
    grid = default_grid(arms, limits)
    for axis, values in asked.items():
        if min(values) <= 0:
            raise UsageError(f"a limit of {axis} must be above 0", where="--limits")
        grid[axis] = np.unique(np.array([*values, limits[axis]], dtype=np.float64))
    return grid


def _base(base: str | None, names: list[str], runs: Sequence[Run]) -> str:
    if base is not None and base not in names:
        raise UsageError(f"'{base}' is not an arm", where="--base", remedy=f"arms: {', '.join(names)}")
    declared = ((runs[0].manifest or {}).get("config") or {}).get("base")
    return base or (declared if declared in names else names[0])


def _validity(summaries: Sequence[Document]) -> Document:
    bad = [summary["validity"] for summary in summaries if summary["validity"]["status"] != "VALID"]
    if not bad:
        return {"status": "VALID", "reasons": []}
    return {"status": "INVALID", "reasons": [reason for one in bad for reason in one["reasons"]]}


def _slices(
    cubes: Mapping[str, Cube], grid: Mapping[str, Floats], limits: Mapping[str, float], base: str
) -> list[Document]:
    """The surface over two limits at a time, the third at the SLO; differences positive where the head is worse."""
    found = []
    for first, second in combinations(range(len(AXES)), 2):
        fixed = next(number for number in range(len(AXES)) if number not in (first, second))
        at = int(np.searchsorted(grid[AXES[fixed]], limits[AXES[fixed]]))
        flat = {name: np.take(one, at, axis=fixed) for name, one in cubes.items()}
        found.append(
            {
                "rows": AXES[first],
                "columns": AXES[second],
                "fixed": {"metric": AXES[fixed], "limit_ms": _ms(limits[AXES[fixed]])},
                "joint": {name: _nested(one) for name, one in flat.items()},
                "difference": {name: _nested(flat[base] - one) for name, one in flat.items() if name != base},
            }
        )
    return found


def _comparison(base: str, head: str, arms: Mapping[str, Outcomes], limits: Mapping[str, float]) -> Document:
    shares = joint(arms[base], limits), joint(arms[head], limits)
    return {
        "base": base,
        "head": head,
        "difference_at_slo": _share(shares[0] - shares[1]),
        "leads": {"base": base, "head": head, "tie": None}[leader(*shares)],
        "flips": [_flip(flip, base, head, limits) for flip in flips(arms[base], arms[head], limits)],
    }


def _flip(flip: Flip, base: str, head: str, limits: Mapping[str, float]) -> Document:
    return {
        "metric": flip.axis,
        "from_ms": _ms(limits[flip.axis]),
        "to_ms": _ms(flip.limit_ns),
        "ratio": round(flip.ratio, 6) if flip.ratio else None,
        "joint": {base: _share(flip.base), head: _share(flip.head)},
        "leads": head if flip.leads == "head" else base,
    }


def _sentence(document: Document) -> str:
    if document["validity"]["status"] != "VALID":
        return f"No verdict: a run is INVALID ({first_reason(document['validity'])})."
    base, arms = document["base"], document["arms"]
    if not document["comparisons"]:
        return f"At the SLO {base} meets all limits in {percent(arms[base]['joint_at_slo'])} of its requests."
    return " ".join(_said(item, arms) for item in document["comparisons"])


def _said(item: Document, arms: Document) -> str:
    base, head, leads = item["base"], item["head"], item["leads"]
    shares = {name: percent(arms[name]["joint_at_slo"]) for name in (base, head)}
    if leads is None:
        text = f"At the SLO {base} and {head} are within {100 * MARGIN:g} points ({shares[base]}, {shares[head]})"
    else:
        other = head if leads == base else base
        text = f"At the SLO {leads} leads {other} ({shares[leads]} against {shares[other]})"
    if not item["flips"]:
        return f"{text}; no change of one limit {'parts them' if leads is None else 'turns this over'}."
    flip = item["flips"][0]
    loser = head if flip["leads"] == base else base
    there = f"{percent(flip['joint'][flip['leads']])} against {percent(flip['joint'][loser])}"
    was = "no limit" if flip["from_ms"] is None else f"{flip['from_ms']:g} ms"
    return (
        f"{text}; with a {_WORDS[flip['metric']]} limit of {flip['to_ms']:.4g} ms instead of {was}"
        f" {flip['leads']} would lead ({there})."
    )


def _ms(ns: float) -> float | None:
    """``None`` is +inf: no limit."""
    return round(ns / NS_PER_MS, 6) if math.isfinite(ns) else None


def _share(value: float) -> float:
    return round(value, 6)


def _nested(values: Cube) -> Any:
    return np.round(values, 6).tolist()
