"""``pdbench search``: the rate at which each arm's attainment falls through 90 %, found in few runs.

All arms stay started. The arms take turns, run by run, so that a machine that drifts does so under all of them.
Which rate and seed an arm runs next is for ``stats.rates`` to say: by 1.5 until the crossing is bracketed, then
the four grid rates around it, seed after seed. A plan is drawn from (seed, draw) and stretched to the rate: at one
rate all arms replay the same plan, and at another the same lengths in proportional gaps. A run that is INVALID
says nothing about the server: it is listed, offered once more, and used for nothing.

    pdbench search colocated-chunked disaggregated --workload chat --budget 60m
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pdbench.compare import Outcome
from pdbench.document import manifest
from pdbench.errors import BackendStartError, Interrupted, UsageError
from pdbench.fairness import Fairness
from pdbench.live import Progress
from pdbench.measure.slo import Objective, parse_objectives
from pdbench.order import order_of
from pdbench.run import RunResult
from pdbench.searched import assemble, exit_code, shared_rate
from pdbench.seeker import Seeker, Trial
from pdbench.sentence import percent
from pdbench.settings import Settings
from pdbench.stage import Stage
from pdbench.stats.goodput import SHARE
from pdbench.stats.rates import TARGET_CPU, TARGET_GPU
from pdbench.store import Run
from pdbench.summary import fairness, fairness_before, judge_runs, run_entry
from pdbench.surface import surface_document
from pdbench.target.arm import Arm
from pdbench.target.arms import base_of
from pdbench.target.backend import Backend
from pdbench.units import NS_PER_S, parse_duration_ns
from pdbench.workload.overrides import with_overrides
from pdbench.workload.plan import Plan, make_plan
from pdbench.workload.spec import Workload

Document = dict[str, Any]
Clock = Callable[[], float]

# Opening connections before a run and booking the last requests after it.
_OVERHEAD_S = 6.0
# Of a time budget, kept for stopping the servers and writing the results.
_RESERVE_S = 10.0
_LEAST_DRAIN_S = 5.0
_RUNS = re.compile(r"(\d+)(?:\s*runs?)?")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may cost in all, over all arms: ``seconds`` or ``runs``, as the user wrote it (``text``)."""

    text: str
    seconds: float | None = None
    runs: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``"60m"``, ``"24"``, ``"24 runs"``. Raises ``UsageError`` naming ``--budget``."""
        if match := _RUNS.fullmatch(text.strip()):
            return cls(text, runs=int(match[1]))
        return cls(text, seconds=parse_duration_ns(text, where="--budget") / NS_PER_S)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched for. ``start_rate``: default, the workload's; ``target``: relative half-width at which an
    arm is done, by default 10 %, on GPUs 3 %; ``certify``: claim the lower bound, not the crossing."""

    budget: Budget
    start_rate: float | None = None
    share: float = SHARE
    target: float | None = None
    certify: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UsageError(f"must lie between 0 and 100 %, got {self.share:.0%}", where="--share")
        if self.start_rate is not None and not 0 < self.start_rate < math.inf:
            raise UsageError(f"must be greater than 0, got {self.start_rate:g}", where="--start-rate")
        if self.target is not None and not 0 < self.target < 1:
            raise UsageError(f"must lie between 0 and 100 %, got {self.target:.0%}", where="--half-width")


def search(
    backends: Sequence[Backend],
    workload: Workload,
    asked: Asked,
    settings: Settings,
    progress: Progress,
    *,
    base: str | None = None,
    unfair_ok: bool = False,
    clock: Clock = time.monotonic,
) -> Outcome:
    """Run the search. Raises ``UsageError`` (all input is checked before anything starts) and
    ``BackendStartError``; an interruption writes what was measured, INVALID."""
    started_s = clock()
    base = base_of(backends, base)
    objectives = check_workload(workload)
    start_rate = asked.start_rate or own_rate(workload, settings)
    first = make_plan(at_rate(workload, start_rate), seed=settings.seed)
    settings = replace(settings, drain_timeout_s=drain_s(objectives, int(first.output_tokens.max()), settings))
    _check_budget(asked.budget, len(backends), _longest_s(first, settings), start_rate)
    fairness_before(backends).check(unfair_ok=unfair_ok)
    with Stage("search", backends, workload, settings, progress) as stage:
        stage.start()
        fair = fairness(stage.arms, workload)
        fair.check(unfair_ok=unfair_ok)
        for line in fair.lines():
            progress.event(f"warning: {line}")
        work = _Search(stage, asked, start_rate, started_s, clock)
        interrupted = False
        try:
            work.go()
        except Interrupted:
            interrupted = True
        except BackendStartError:  # one that could not be started again: keep what was measured
            if stage.results:
                work.conclude(base, fair, interrupted=True)
            raise
        return work.conclude(base, fair, interrupted=interrupted or stage.stop.requested)


class _Search:
    """The arms' turns, within the budget."""

    def __init__(self, stage: Stage, asked: Asked, start_rate: float, started_s: float, clock: Clock) -> None:
        self.stage, self.asked, self.start_rate = stage, asked, start_rate
        self.clock, self.started_s = clock, started_s
        self.target = asked.target or default_target(stage.arms)
        self.seekers = {arm.name: Seeker(arm.name, start_rate, asked.share, self.target) for arm in stage.arms}
        # An arm that does not stay resident starts anew for each run: as long as its share of the first start.
        start_s = 0.0 if stage.resident else (clock() - started_s) / len(stage.arms)
        self.overhead_s = _OVERHEAD_S + start_s
        self._plans: dict[tuple[float, int, int], Plan] = {}

    def go(self) -> None:
        """Turn after turn until every arm has stopped. Raises ``Interrupted``."""
        turn, busy = 0, True
        while busy:
            places = order_of(len(self.stage.arms), turn)
            moved = [self._advance(self.stage.arms[place]) for place in places]
            busy = any(moved)
            turn += 1

    def _advance(self, arm: Arm) -> bool:
        """One run of one arm; whether there was one."""
        seeker, budget = self.seekers[arm.name], self.asked.budget
        done = sum(len(one.trials) for one in self.seekers.values())
        wanted = seeker.next(10**6 if budget.runs is None else budget.runs - done)
        if wanted is None:
            return False
        rate, seed = wanted
        plan = self._plan(rate, seed, sum((t.rate, t.seed) == wanted for t in seeker.trials))
        if budget.seconds is not None:
            left_s = budget.seconds - _RESERVE_S - (self.clock() - self.started_s)
            if _longest_s(plan, self.stage.settings, self.overhead_s) > left_s:
                seeker.stop(f"budget of {budget.text} used")
                return False
        seeker.add(self._run(arm, plan, rate, seed))
        self._tell(seeker)
        return True

    def _plan(self, rate: float, seed: int, attempt: int) -> Plan:
        """The plan of draw ``seed`` at ``rate``, one for all arms, under a pair number of its own."""
        key = (rate, seed, attempt)
        if key not in self._plans:
            number = len(self._plans)
            self.stage.with_settings(pairs=number + 1)
            self._plans[key] = self.stage.plan(seed, workload=at_rate(self.stage.workload, rate), number=number)
        return self._plans[key]

    def _run(self, arm: Arm, plan: Plan, rate: float, seed: int) -> Trial:
        before_s = self.clock()
        result = self.stage.run(arm, plan, plan.pair, workload=at_rate(self.stage.workload, rate))
        took_s = self.clock() - before_s
        self.overhead_s = max(self.overhead_s, took_s - _span_s(plan) - self.stage.settings.drain_timeout_s)
        return trial_of(result, arm, self.stage, rate=rate, seed=seed, seconds=took_s)

    def _tell(self, seeker: Seeker) -> None:
        last, found = seeker.trials[-1], seeker.goodput()
        what = f"{percent(last.joint)} in time" if last.used else f"INVALID: {last.validity.reasons[0].message}"
        so_far = f"; goodput {found.text}" if found else ""
        self.stage.progress.event(f"{seeker.name} at {last.rate:.3g} req/s, seed {last.seed}: {what}{so_far}")

    def conclude(self, base: str, fair: Fairness, *, interrupted: bool) -> Outcome:
        """Fit, compare, and seal what was measured."""
        stage = self.stage
        if not stage.results:
            raise Interrupted("interrupted before the first run ended")
        for seeker in self.seekers.values():
            if seeker.stopped is None:
                seeker.stop("interrupted")
        seekers = [self.seekers[arm.name] for arm in stage.arms]
        document = assemble(
            run=stage.run_dir.name,
            workload=stage.workload,
            slo=[objective.text for objective in stage.objectives],
            asked={
                "share": self.asked.share, "start_rate": self.start_rate, "budget": self.asked.budget.text,
                "target_half_width": self.target, "certify": self.asked.certify, "seed": stage.settings.seed,
                "drain_s": round(stage.settings.drain_timeout_s, 3),
            },
            spent_s=self.clock() - self.started_s,
            fingerprint=stage.fingerprint(),
            devices={arm.name: arm.backend.devices for arm in stage.arms},
            trials={seeker.name: seeker.trials for seeker in seekers},
            stops={seeker.name: str(seeker.stopped) for seeker in seekers},
            base=base,
            interrupted=interrupted,
            warnings=fair.lines(),
        )  # fmt: skip
        if (found := self._surface(base)) is not None:
            document["surface"] = found
        stage.seal(manifest(document, list(stage.plans.values()), stage.settings, stage.nonce, base), document)
        return Outcome(document, stage.run_dir, exit_code(document, interrupted))

    def _surface(self, base: str) -> Document | None:
        """Which limit would turn the order over, at the rate nearest the crossings that all arms ran."""
        chosen = shared_rate([seeker.trials for seeker in self.seekers.values()], self.start_rate, self.asked.share)
        if len(self.stage.arms) < 2 or chosen is None:
            return None
        rate, pairs = chosen
        found = surface_document(stored(self.stage, pairs, base))
        command = f"pdbench surface {self.stage.run_dir}"
        kept = {key: found[key] for key in ("pairs", "comparisons", "sentence")}
        return {"rate": rate, **kept, "command": command}


# ---- what a search needs to know of its input


def check_workload(workload: Workload) -> list[Objective]:
    """Its objectives; raises ``UsageError`` where there is no share that could cross, or no rate to vary."""
    objectives = parse_objectives(workload.slo)
    if not workload.arrivals.can_rescale:
        why = "names its instants one by one" if workload.arrivals.process == "at" else "changes its load as it goes"
        if workload.closed:
            why = "is a closed loop"
        raise UsageError(
            f"workload '{workload.name}' {why}: it has no rate to search",
            where="--workload",
            remedy="use one with a rate, or --arrivals poisson --rate 2",
        )
    if not any(objective.per_request for objective in objectives):
        raise UsageError(
            "goodput needs an objective that one request can meet (ttft, tpot, worst_gap, e2e)",
            where="--slo",
            remedy='e.g. --slo "ttft p90 <= 400ms"',
        )
    return objectives


def at_rate(workload: Workload, rate: float) -> Workload:
    """The workload at another mean rate; its draws stay the same. Raises ``UsageError``."""
    return with_overrides(workload, rate=rate)


def drain_s(objectives: Sequence[Objective], output_tokens: int, settings: Settings) -> float:
    """How long after the last due instant a request may stay open: as long as it could still meet every limit,
    and not longer. An overloaded run then ends soon, and no attainment changes.

    TTFT limit + tokens x the tighter of the TPOT and worst-gap limits, or the E2E limit; where the SLO bounds no
    request's length in time, the settings' own.
    """
    limits_s: dict[str, float] = {}
    for objective in objectives:
        limit_s = (objective.limit_ns or 0) / NS_PER_S
        limits_s[objective.metric] = min(limits_s.get(objective.metric, math.inf), limit_s)
    gap_s = min(limits_s.get("tpot", math.inf), limits_s.get("worst_gap", math.inf))
    whole_s = min(limits_s.get("e2e", math.inf), limits_s.get("ttft", math.inf) + output_tokens * gap_s)
    return max(_LEAST_DRAIN_S, whole_s) if math.isfinite(whole_s) else settings.drain_timeout_s


def default_target(arms: Sequence[Arm]) -> float:
    """3 % where every arm runs on GPUs, else 10 %: pairs on shared CPU cores agree far worse."""
    names = [[str(name) for name in arm.fingerprint().get("device_names") or ()] for arm in arms]
    on_gpus = all(own and all(name.startswith("cuda") for name in own) for own in names)
    return TARGET_GPU if on_gpus else TARGET_CPU


def trial_of(result: RunResult, arm: Arm, stage: Stage, *, rate: float, seed: int, seconds: float) -> Trial:
    """What a search keeps of a run."""
    entry = run_entry(result, arm.backend.devices, stage.objectives)
    return Trial(
        pair=result.pair,
        rate=rate,
        seed=seed,
        joint=entry["attainment"].get("joint"),
        requests={key: int(entry["requests"][key]) for key in ("scheduled", "ok", "failed")},
        ttft_p90_ms=entry.get("ttft_ms", {}).get("p90"),
        validity=judge_runs([result], stage.objectives, stage.settings),
        seconds=seconds,
    )


def stored(stage: Stage, pairs: Sequence[int], base: str) -> Run:
    """The runs of some pairs as ``read_run`` would give them, for the surface."""
    results = [result for result in stage.results if result.pair in pairs]
    slo = [objective.text for objective in stage.objectives]
    summary = {"slo": slo, "arms": {arm.name: {} for arm in stage.arms}, "validity": {"status": "VALID", "reasons": []}}
    requests = pd.concat([result.requests for result in results], ignore_index=True)
    tokens = pd.concat([result.tokens for result in results], ignore_index=True)
    hashes = [stage.plans[pair].hash for pair in pairs]
    none = pd.DataFrame()
    return Run(
        stage.run_dir, {"plan_hashes": hashes, "config": {"base": base}}, summary, none, requests, tokens, none, none
    )


def own_rate(workload: Workload, settings: Settings) -> float:
    """The workload's rate; a trace's own mean where it is not rescaled."""
    if workload.arrivals.rate is not None:
        return workload.arrivals.rate
    rate = make_plan(workload, seed=settings.seed).rate
    if not math.isfinite(rate):
        raise UsageError("all requests are due at once: there is no rate to start from", where="--start-rate")
    return float(f"{rate:.3g}")


def _check_budget(budget: Budget, arms: int, longest_s: float, rate: float) -> None:
    if budget.runs is not None and budget.runs < arms:
        raise UsageError(
            f"{budget.runs} runs are not one for each of {arms} arms", where="--budget", remedy=f"give {8 * arms} or so"
        )
    least_s = _RESERVE_S + arms * longest_s
    if budget.seconds is not None and budget.seconds < least_s:
        each = "a single run" if arms == 1 else f"one run of each of {arms} arms"
        raise UsageError(
            f"{budget.text} is too short for {each}: {longest_s:.0f} s a run at {rate:.3g} req/s",
            where="--budget",
            remedy=f"give more than {math.ceil(least_s)}s, or lower --num-requests",
        )


def _span_s(plan: Plan) -> float:
    return float(plan.scheduled_ns[-1]) / NS_PER_S


def _longest_s(plan: Plan, settings: Settings, overhead_s: float = _OVERHEAD_S) -> float:
    """How long a run of the plan can last at worst: every request open until the drain ends."""
    return _span_s(plan) + settings.drain_timeout_s + overhead_s
