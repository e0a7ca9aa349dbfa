"""``pdbench gate``: is the head worse than the base? Pairs until it is known, then one verdict and an exit code.

Pairs are run until a planned look decides (``stats.sequential``); between looks nothing is tested. A pair whose
measurement went wrong is run again once; if it goes wrong again there is no verdict but INVALID, and at once. What
was run is on disk whatever happens.

    PASS 0    FAIL 10    INCONCLUSIVE 11    INVALID 12    usage 2    interrupted 130
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pdbench.document import SCHEMA_VERSION, manifest
from pdbench.errors import (
    EXIT_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_OK,
    BackendStartError,
    Interrupted,
    UsageError,
)
from pdbench.live import Progress
from pdbench.measure.slo import Objective
from pdbench.measure.validity import Reason
from pdbench.pairs import RunPair, hard_faults, run_pair, take_pair
from pdbench.settings import Settings, workload_data
from pdbench.stage import Stage
from pdbench.stats.gate import GateVerdict, RunEvidence, entries, gate_verdict
from pdbench.stats.paired import MARGINS, PRIMARY
from pdbench.stats.runlevel import judge_share
from pdbench.stats.sequential import Looks
from pdbench.store import write_json
from pdbench.summary import arm_entry, judge_runs
from pdbench.target.backend import Backend
from pdbench.workload.spec import Workload

Say = Callable[[str], None]
Document = dict[str, Any]

EXIT_OF = {"PASS": EXIT_OK, "FAIL": EXIT_FAILED, "INCONCLUSIVE": EXIT_INCONCLUSIVE, "INVALID": EXIT_INVALID}
VERDICT_FILE = "verdict.json"


@dataclass(frozen=True, slots=True)
class Ask:
    """What the gate is asked. ``primary_only``: only the primary metric may fail it. ``redo``: how often a pair whose
    measurement went wrong is run again. ``probe_sd``: this machine's, as ``--calibrate`` stored it. ``sides``: what was
    typed for base and head, for the document."""

    primary: str = PRIMARY
    max_pairs: int = Looks().last
    primary_only: bool = False
    slo_check: bool = False
    redo: int = 1
    probe_sd: Mapping[str, float] = field(default_factory=dict)
    sides: Mapping[str, Document] = field(default_factory=dict)

    @property
    def looks(self) -> Looks:
        """Raises ``UsageError`` for a budget that reaches no look."""
        try:
            return Looks().within(self.max_pairs)
        except ValueError as error:
            remedy = f"give --max-pairs {Looks().pairs[0]} or more; fewer pairs cannot tell noise from a change"
            raise UsageError(str(error), where="--max-pairs", remedy=remedy) from error

    def check(self) -> None:
        """Raises ``UsageError`` for what no run could answer."""
        if self.primary not in MARGINS:
            raise UsageError(
                f"'{self.primary}' is not a metric of the gate",
                where="--primary",
                remedy=f"known: {', '.join(MARGINS)}",
            )
        _ = self.looks


@dataclass(slots=True)
class Course:
    """How far a gate has come: the pairs that count, those set aside with their reasons, and what is known."""

    base: list[RunEvidence] = field(default_factory=list)
    head: list[RunEvidence] = field(default_factory=list)
    set_aside: list[tuple[int, tuple[Reason, ...]]] = field(default_factory=list)
    looks: list[tuple[int, str]] = field(default_factory=list)
    verdict: GateVerdict | None = None

    @property
    def pairs(self) -> list[int]:
        return [run.pair for run in self.base]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The document, where it lies, and what the process should end with."""

    document: Document
    run_dir: Path
    exit_code: int


def gate(backends: Sequence[Backend], workload: Workload, settings: Settings, progress: Progress, ask: Ask) -> Outcome:
    """Run base and head (in this order) until a look decides.

    Raises ``UsageError`` and ``BackendStartError``; once something was measured an interruption does not raise.
    """
    ask.check()
    course, interrupted = Course(), False
    with Stage("gate", backends, workload, settings, progress) as stage:
        stage.start()
        base, head = stage.arms
        if reasons := hard_faults(base.fingerprint(), head.fingerprint()):
            course.verdict = GateVerdict("INVALID", ask.primary, {}, tuple(reasons))
            return conclude(stage, course, ask, interrupted=False)
        try:
            decide_pairs(
                lambda number, turn: run_pair(stage, number, turn), stage.objectives, ask, course, progress.event
            )
        except Interrupted:
            interrupted = True
        except BackendStartError:  # one that could not be started again: keep what was measured
            if stage.results:
                conclude(stage, course, ask, interrupted=True)
            raise
        return conclude(stage, course, ask, interrupted=interrupted or stage.stop.requested)


def decide_pairs(run: RunPair, objectives: Sequence[Objective], ask: Ask, course: Course, say: Say) -> None:
    """Run pairs into ``course`` until there is a verdict. What runs them is an argument: tests need no server."""
    looks, number = ask.looks, 0
    while course.verdict is None:
        taken = take_pair(run, number, len(course.base), objectives, ask.probe_sd, redo=ask.redo)
        number = taken.next_number
        for tried in taken.set_aside:
            course.set_aside.append(tried)
            say(f"pair run again: {tried[1][0].message}")
        course.base.append(taken.both[0])
        course.head.append(taken.both[1])
        done = len(course.base)
        if taken.reasons:
            course.verdict = GateVerdict("INVALID", ask.primary, {}, _with_calibration(taken.reasons, ask))
            return
        if done > 1 and done not in looks.pairs:
            say(f"pair {done} done; the next look comes after {done + looks.next_pairs(done)}")
            continue
        # The first pair is looked at too: a primary metric that does not apply is known at once.
        found = judged(course, objectives, ask)
        if done in looks.pairs:
            course.looks.append((done, found.status))
            say(f"look after {done} pairs: {found.status}")
        if found.status != "go on":
            course.verdict = found


def judged(course: Course, objectives: Sequence[Objective], ask: Ask) -> GateVerdict:
    """The verdict on the pairs so far: the primary's, made a FAIL by any other metric that is worse for certain.

    The others share an error of their own (Holm), so that all of them together raise a false alarm as rarely as the
    primary does. ``primary_only`` leaves them out.
    """
    found = gate_verdict(
        course.base, course.head, objectives, primary=ask.primary, looks=ask.looks, probe_sd=ask.probe_sd
    )
    worse = failed_metrics(found)
    if found.status in ("PASS", "INCONCLUSIVE") and worse and not ask.primary_only:
        return replace(found, status="FAIL")
    return found


def failed_metrics(verdict: GateVerdict) -> list[str]:
    """Metrics that are worse beyond doubt, the primary first."""
    return [name for name, decision in verdict.decisions.items() if decision.status == "FAIL"]


def _with_calibration(reasons: Sequence[Reason], ask: Ask) -> tuple[Reason, ...]:
    """Whoever has never calibrated is told to: 3 % is little on a shared machine."""
    if ask.probe_sd:
        return tuple(reasons)
    more = "; or let the gate learn this machine's noise: pdbench gate --calibrate"
    return tuple(Reason(r.message, r.remedy + more) if " probe moved " in r.message else r for r in reasons)


# ---- the document


def conclude(stage: Stage, course: Course, ask: Ask, *, interrupted: bool) -> Outcome:
    """Document, files and exit code of a gate that ended, in whatever way."""
    if not stage.results and course.verdict is None:
        raise Interrupted("interrupted before the first run began")
    verdict = course.verdict
    if verdict is None:
        reason = Reason("the gate was interrupted", "run it to its end, or ask for fewer pairs")
        verdict = GateVerdict("INVALID", ask.primary, {}, (reason,))
    checks = slo_checks(course.head, stage.objectives) if ask.slo_check and verdict.status != "INVALID" else {}
    code = EXIT_INTERRUPTED if interrupted else exit_code(verdict.status, checks)
    document = _document(stage, course, ask, verdict, checks, code)
    stage.seal(manifest(document, list(stage.plans.values()), stage.settings, stage.nonce, document["base"]), document)
    write_json(stage.run_dir / VERDICT_FILE, document)
    return Outcome(document, stage.run_dir, code)


def exit_code(status: str, checks: Mapping[str, Document]) -> int:
    """Of the verdict, made worse by an SLO that is missed (10) or not certain to be met (11)."""
    code = EXIT_OF[status]
    outcomes = {check["outcome"] for check in checks.values()}
    if code in (EXIT_OK, EXIT_INCONCLUSIVE) and "missed" in outcomes:
        return EXIT_FAILED
    return EXIT_INCONCLUSIVE if code == EXIT_OK and "not certain" in outcomes else code


def slo_checks(head: Sequence[RunEvidence], objectives: Sequence[Objective]) -> dict[str, Document]:
    """Whether the head keeps each objective, with an interval over its runs. Not a part of the comparison."""
    if not head:
        return {}
    found = entries(head, objectives)
    offered = min(int(entry["requests"]["scheduled"]) for entry in found)
    return {
        objective.text: judge_share(
            [float(entry["attainment"][objective.text]) for entry in found], target=objective.share, offered=offered
        ).document()
        for objective in objectives
    }


def _document(stage: Stage, course: Course, ask: Ask, verdict: GateVerdict, checks: Document, code: int) -> Document:
    base, head = (arm.name for arm in stage.arms)
    metrics = {
        name: {"primary": name == ask.primary, "margin": MARGINS[name], **decision.document()}
        for name, decision in verdict.decisions.items()
    }
    reasons = [{"message": r.message, "remedy": r.remedy} for r in verdict.reasons]
    document: Document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "gate",
        "run": stage.run_dir.name,
        "status": verdict.status,
        "exit_code": code,
        "base": base,
        "head": head,
        "sides": dict(ask.sides),
        "primary": ask.primary,
        "primary_only": ask.primary_only,
        "workload": workload_data(stage.workload),
        "slo": [objective.text for objective in stage.objectives],
        "pairs": len(course.base),
        "max_pairs": ask.max_pairs,
        "looked": [{"pairs": pairs, "status": status} for pairs, status in course.looks],
        "set_aside": [{"pair": n, "reasons": [r.message for r in why]} for n, why in course.set_aside],
        "metrics": metrics,
        "probe_sd": dict(ask.probe_sd),
        "validity": {"status": "INVALID" if reasons else "VALID", "reasons": reasons},
        "fingerprint": stage.fingerprint(),
        "arms": _arms(stage, course),
    }
    if checks:
        document["slo_check"] = checks
    document["sentence"] = sentence(document)
    return document


def _arms(stage: Stage, course: Course) -> Document:
    """The pooled figures of the pairs that count, an arm each."""
    kept, found = set(course.pairs), {}
    for arm in stage.ran():
        runs = [run for run in stage.of(arm) if run.pair in kept]
        if runs:
            found[arm.name] = arm_entry(arm, runs, stage.objectives, judge_runs(runs, stage.objectives, stage.settings))
    return found


def sentence(document: Mapping[str, Any]) -> str:
    """The verdict in words, with what decided it."""
    status, base, head, pairs = (document[key] for key in ("status", "base", "head", "pairs"))
    metrics: Mapping[str, Document] = document["metrics"]
    after = f"after {pairs} pair{'s' * (pairs != 1)}"
    if status == "INVALID":
        reasons = document["validity"]["reasons"]
        return f"INVALID: no verdict on {head}. {reasons[0]['message'] if reasons else ''}".rstrip()
    primary = f"{document['primary']} {change(metrics[document['primary']])}"
    if status == "FAIL":
        worse = [f"{name} {change(found)}" for name, found in metrics.items() if found["status"] == "FAIL"]
        return f"FAIL: {head} is worse than {base} {after}: {', '.join(worse)}."
    text = (
        f"PASS: {head} is at most worse than {base} by less than the margin {after}: {primary}."
        if status == "PASS"
        else f"INCONCLUSIVE: whether {head} is worse than {base} is not certain {after}: {primary}."
    )
    missed = [name for name, check in document.get("slo_check", {}).items() if check["outcome"] != "met"]
    return f"{text} SLO not certified: {', '.join(missed)}." if missed else text


def change(metric: Mapping[str, Any]) -> str:
    """``+12.3 %``, ``-4.0 pt`` (attainment: up is good), or what an infinite effect means."""
    if metric["percent"] is None:
        return "infinite in one arm"
    if metric["scale"] == "difference":
        return f"{0.0 - metric['percent']:+.1f} pt"
    return f"{metric['percent']:+.1f} %"


# ---- self-test

LEAST_DETECTION, MOST_ALARMS = 0.95, 0.012


def self_test(*, seed: int = 0, comparisons: int = 2000, say: Say = lambda _: None) -> tuple[Document, int]:
    """What the gate promises, measured on simulated runs (``stats.gate_validation``), and the exit code."""
    from pdbench.stats.gate_validation import validate

    found = validate(seed, comparisons, say=say)
    alarms, caught = found["false_alarm_rate"], found["mutants_caught"]
    seen, rates = found["detection"]["1.05"], list(found["detection"].values())
    promises = [
        _promise("false alarms", alarms, f"<= {MOST_ALARMS}", alarms <= MOST_ALARMS),
        _promise("a slowdown of 5 % is detected", seen, f">= {LEAST_DETECTION}", seen >= LEAST_DETECTION),
        _promise("larger slowdowns are detected more often", rates, "monotone", rates == sorted(rates)),
        _promise("mutants caught", caught, f"{found['mutants']}", caught == found["mutants"]),
    ]
    kept = all(promise["kept"] for promise in promises)
    document = {"schema_version": SCHEMA_VERSION, "kind": "gate-self-test", **found, "promises": promises, "kept": kept}
    return document, EXIT_OK if kept else EXIT_FAILED


def _promise(what: str, found: Any, promised: str, kept: bool) -> Document:
    return {"what": what, "found": found, "promised": promised, "kept": bool(kept)}
