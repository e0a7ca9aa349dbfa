"""``pdbench compare``: every arm under the same frozen plans, pair by pair, and what may be concluded.

The order of things is the argument: all input is checked before anything starts, and an unfair comparison is
refused; base, primary metric and margins are declared before the first run; each pair replays one plan to every
arm in an order that cancels drift; every run is on disk before the next begins; and whatever happens, everything
that was started is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdbench.auto import fits, look_at_heads, more_pairs, planned_looks
from pdbench.document import assemble, declaration, declared_lines, exit_code, manifest, offered_rate
from pdbench.errors import BackendStartError, Interrupted
from pdbench.fairness import outcomes, together
from pdbench.live import Progress
from pdbench.measure.validity import combine
from pdbench.order import order_of
from pdbench.saturation import saturate
from pdbench.settings import Budget, Settings
from pdbench.stage import Stage
from pdbench.stats.sequential import Looks
from pdbench.stopping import StopFlag
from pdbench.store import write_json
from pdbench.summary import arm_entry, edit_entries, fairness, fairness_before, judge_runs, run_entry, turns
from pdbench.target.arms import base_of
from pdbench.target.backend import Backend
from pdbench.workload.spec import Workload

if TYPE_CHECKING:
    from pdbench.load.outcome import Crew

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The document, where it lies, and what the process should end with."""

    document: Document
    run_dir: Path
    exit_code: int


def compare(
    backends: Sequence[Backend],
    workload: Workload,
    settings: Settings,
    progress: Progress,
    *,
    base: str | None = None,
    kind: str = "compare",
    crew: Crew | None = None,
    stop: StopFlag | None = None,
) -> Outcome:
    """Run the comparison (with one backend and ``kind="run"``: a single run of a single arm).

    ``crew``, ``stop``: see ``Stage``.
    Raises ``UsageError`` and ``BackendStartError``; an interruption does not raise once something was
    measured: its partial result is written, INVALID, and the exit code says so.
    """
    base = base_of(backends, base)
    looks = planned_looks(len(backends) - 1, settings.budget) if settings.budget is not None else None
    fairness_before(backends).check(unfair_ok=settings.unfair_ok)
    with Stage(kind, backends, workload, settings, progress, crew, stop) as stage:
        stage.start()
        fair = fairness(stage.arms, workload)
        fair.check(unfair_ok=settings.unfair_ok)
        for text in fair.lines():
            progress.event(f"warning: {text}")
        declared = declare(stage, base, looks) if kind == "compare" else None
        saturated: dict[str, Document] = {}
        interrupted = False
        try:
            run_pairs(stage, base, looks)
            if settings.saturate:
                saturated = saturate(stage, stage.plans[0])
        except Interrupted:
            interrupted = True
        except BackendStartError:  # one that could not be started again: keep what was measured
            if stage.results:
                conclude(stage, base, interrupted=True, declared=declared, looks=looks)
            raise
        stopped = interrupted or stage.stop.requested
        return conclude(stage, base, interrupted=stopped, declared=declared, looks=looks, saturated=saturated)


def declare(stage: Stage, base: str, looks: Looks | None) -> Document:
    """Fix, say and write down what decides, before the first run: ``declared.json`` is older than any result."""
    count = stage.settings.pairs if looks is None else looks.pairs[0]
    plans = [stage.plan(pair) for pair in range(count)]
    heads = [arm.name for arm in stage.arms if arm.name != base]
    found = declaration(base, heads, stage.settings, looks, [plan.hash for plan in plans])
    write_json(stage.run_dir / "declared.json", found)
    for line in declared_lines(found):
        stage.progress.event(line)
    return found


# ---- pairs


def run_pairs(stage: Stage, base: str, looks: Looks | None) -> None:
    """All pairs that were asked for, or as many as the looks need within the budget."""
    if looks is None:
        for pair in range(stage.settings.pairs):
            run_pair(stage, pair, stage.settings.pairs)
        return
    start, done, more = time.monotonic(), 0, looks.pairs[0]
    budget = stage.settings.budget or Budget()
    while more:
        if not fits(time.monotonic() - start, done, more, budget):
            stage.progress.event(f"the budget of {budget.text} does not reach the look after {done + more} pairs")
            break
        run_pair(stage, done, looks.last)
        done, more = done + 1, more - 1
        if not more:
            more = _look(stage, base, looks, done)


def run_pair(stage: Stage, pair: int, pairs: int) -> None:
    """One plan to every arm."""
    plan = stage.plans.get(pair) or stage.plan(pair)
    for place in order_of(len(stage.arms), pair):
        stage.run(stage.arms[place], plan, pair)
    stage.progress.event(f"pair {pair + 1}/{pairs} done")


def _look(stage: Stage, base: str, looks: Looks, done: int) -> int:
    """Look, say what was seen, and how many pairs are to follow."""
    names = [arm.name for arm in stage.arms]
    found = look_at_heads(_per_pair(stage, names), base, names, stage.settings.primary, looks)
    said = ", ".join(f"{head} {look.decision.status}" for head, look in found.items())
    stage.progress.event(f"look {looks.pairs.index(done) + 1} of {len(looks.pairs)}, after {done} pairs: {said}")
    return more_pairs(found, looks, done)


def _per_pair(stage: Stage, names: Sequence[str]) -> dict[str, list[Document]]:
    """The entry of every run by arm, over the pairs that all arms completed."""
    arms = [stage.arm(name) for name in names]
    whole = min(len(stage.of(arm)) for arm in arms)
    return {
        arm.name: [run_entry(run, arm.backend.devices, stage.objectives) for run in stage.of(arm)[:whole]]
        for arm in arms
    }


# ---- the end


def conclude(
    stage: Stage,
    base: str,
    *,
    interrupted: bool,
    declared: Document | None = None,
    looks: Looks | None = None,
    saturated: dict[str, Document] | None = None,
) -> Outcome:
    """Judge, summarise, compare and seal what was measured."""
    arms = stage.ran()
    if not arms:
        raise Interrupted("interrupted before the first run began")
    objectives, settings, names = stage.objectives, stage.settings, [arm.name for arm in arms]
    plans = [plan for pair, plan in stage.plans.items() if any(run.pair == pair for run in stage.results)]
    validities = {arm.name: judge_runs(stage.of(arm), objectives, settings) for arm in arms}
    entries = {name: _entry(stage, name, validities[name], saturated or {}) for name in names}
    document = assemble(
        kind=stage.kind,
        run=stage.run_dir.name,
        workload=stage.workload,
        objectives=objectives,
        plans=plans,
        fingerprint=stage.fingerprint(),
        validity=combine(validities),
        interrupted=interrupted,
        arms=entries,
        per_pair=_per_pair(stage, names),
        base=base,
        warnings=together(fairness(arms, stage.workload), outcomes(entries)).lines(),
        primary=settings.primary,
        looks=looks,
        declared=declared,
        turns=turns(stage.results, names, base, objectives) if stage.kind == "compare" else (),
        edits=edit_entries(stage.results, offered_rate(stage.workload, plans)),
    )
    stage.seal(manifest(document, plans, settings, stage.nonce, base), document)
    return Outcome(document, stage.run_dir, exit_code(document, settings, interrupted))


def _entry(stage: Stage, name: str, validity: Any, saturated: dict[str, Document]) -> Document:
    arm = stage.arm(name)
    process = stage.workload.arrivals.process
    entry = arm_entry(arm, stage.of(arm), stage.objectives, validity, process=process)
    if name in saturated:
        entry["saturation"] = saturated[name]
    return entry
