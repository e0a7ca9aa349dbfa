"""``pdbench compare``: every arm under the same frozen plans, pair by pair, and what may be concluded.

The order of things is the argument: all input is checked before anything starts; all arms are started before
anything is measured; each pair replays one plan to every arm in an order that cancels drift; every run is on
disk before the next begins; and whatever happens, everything that was started is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdbench.document import assemble, exit_code, manifest
from pdbench.errors import BackendStartError, Interrupted
from pdbench.live import Progress
from pdbench.measure.validity import combine
from pdbench.order import order_of
from pdbench.settings import Settings
from pdbench.stage import Stage
from pdbench.summary import arm_entry, fairness, judge_runs, run_entry
from pdbench.target.arms import base_of
from pdbench.target.backend import Backend
from pdbench.workload.spec import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """The document, where it lies, and what the process should end with."""

    document: dict[str, Any]
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
) -> Outcome:
    """Run the comparison (with one backend and ``kind="run"``: a single run of a single arm).

    Raises ``UsageError`` and ``BackendStartError``; an interruption does not raise once something was
    measured: its partial result is written, INVALID, and the exit code says so.
    """
    base = base_of(backends, base)
    with Stage(kind, backends, workload, settings, progress) as stage:
        stage.start()
        for text in fairness(stage.arms):
            progress.event(f"warning: {text}")
        plans = [stage.plan(pair) for pair in range(settings.pairs)]
        interrupted = False
        try:
            for pair, plan in enumerate(plans):
                for place in order_of(len(stage.arms), pair):
                    stage.run(stage.arms[place], plan, pair)
                progress.event(f"pair {pair + 1}/{len(plans)} done")
        except Interrupted:
            interrupted = True
        except BackendStartError:  # one that could not be started again: keep what was measured
            if stage.results:
                conclude(stage, base, interrupted=True)
            raise
        return conclude(stage, base, interrupted=interrupted or stage.stop.requested)


def conclude(stage: Stage, base: str, *, interrupted: bool) -> Outcome:
    """Judge, summarise, compare and seal what was measured."""
    arms = stage.ran()
    if not arms:
        raise Interrupted("interrupted before the first run began")
    objectives, settings, plans = stage.objectives, stage.settings, list(stage.plans.values())
    validities = {arm.name: judge_runs(stage.of(arm), objectives, settings) for arm in arms}
    whole = min(len(stage.of(arm)) for arm in arms)
    document = assemble(
        kind=stage.kind,
        run=stage.run_dir.name,
        workload=stage.workload,
        objectives=objectives,
        plans=plans,
        fingerprint=stage.fingerprint(),
        validity=combine(validities),
        interrupted=interrupted,
        arms={arm.name: arm_entry(arm, stage.of(arm), objectives, validities[arm.name]) for arm in arms},
        per_pair={
            arm.name: [run_entry(run, arm.backend.devices, objectives) for run in stage.of(arm)[:whole]] for arm in arms
        },
        base=base,
        warnings=fairness(arms),
    )
    stage.seal(manifest(document, plans, settings, stage.nonce, base), document)
    return Outcome(document, stage.run_dir, exit_code(document, settings, interrupted))
