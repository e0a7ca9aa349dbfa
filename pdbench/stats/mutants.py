"""Does the gate notice when it is lied to? Faults put into good comparisons, one at a time.

Three honest comparisons on the simulated server: the same system twice (PASS), a head whose prefill is slow
(FAIL), a head that fails requests (FAIL). Each mutant tampers with one stage of one of them: the stored
runs, the summaries made of them, or the values compared. It is *caught* when the verdict is no longer the
honest one; a gate that still says the same did not look at what was tampered with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pdbench.measure.records import RequestRecord, to_frames
from pdbench.measure.slo import parse_objectives
from pdbench.stats.gate import Entry, GateVerdict, RunEvidence, entries, faults, floors_of, values_of, weigh
from pdbench.stats.paired import Floats
from pdbench.stats.sequential import Looks
from pdbench.stats.simulated import (
    NO_SLOWDOWN,
    OUTPUT_TOKENS,
    QUIET,
    STALL_S,
    Plans,
    Runs,
    Slowdown,
    draw_luck,
    make_plans,
    pace,
    simulate,
)
from pdbench.units import NS_PER_MS, NS_PER_S

Arms = tuple[list[RunEvidence], list[RunEvidence]]
Summaries = tuple[list[Entry], list[Entry]]
Values = dict[str, Floats]

OBJECTIVES = parse_objectives(["ttft p90 <= 1s", "tpot p90 <= 40ms", "worst_gap p90 <= 200ms"])
# As far as the first look: the comparisons are clear enough to be decided there.
_PAIRS = Looks().pairs[0]
_REQUESTS, _WARMUP = 160, 30
_UTILISATION = 0.6
_DISPATCH_NS, _READ_LAG_NS = 100_000, 40_000
_DRIFT = 500e-6
"""500 ppm: the fastest that adjtime(3) slews a clock."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, the comparison it is put into, the metric judged there, and the stage that is tampered with."""

    name: str
    scenario: str
    runs: Callable[[Arms], Arms] | None = None
    summaries: Callable[[Summaries], Summaries] | None = None
    values: Callable[[Values], Values] | None = None
    primary: str = "ttft_p90"


@dataclass(frozen=True, slots=True)
class Caught:
    """The honest verdict, the one under the mutant, and whether they differ."""

    name: str
    scenario: str
    honest: str
    mutated: str

    @property
    def caught(self) -> bool:
        return self.honest != self.mutated


def scenarios(seed: int) -> dict[str, Arms]:
    """The honest comparisons, by name."""
    slow = Slowdown(prefill=1.15)
    return {
        "same": _comparison(seed, NO_SLOWDOWN, 0.0),
        "slow": _comparison(seed + 1, slow, 0.0),
        "failing": _comparison(seed + 2, NO_SLOWDOWN, 0.2),
    }


def verdict(arms: Arms, mutant: Mutant) -> GateVerdict:
    """``gate.gate_verdict`` stage by stage, with the mutant's fault put in at its stage."""
    base, head = mutant.runs(arms) if mutant.runs else arms
    reasons = faults(base, head, OBJECTIVES, {})
    made = entries(base, OBJECTIVES), entries(head, OBJECTIVES)
    of_base, of_head = mutant.summaries(made) if mutant.summaries else made
    values = values_of(of_base, of_head, [mutant.primary])
    values = mutant.values(values) if mutant.values else values
    return weigh(values, floors_of(of_base, of_head, values), mutant.primary, reasons)


def run_mutants(seed: int = 0, mutants: Sequence[Mutant] | None = None) -> list[Caught]:
    """Every mutant against the honest verdict of its scenario."""
    arms = scenarios(seed)
    honest: dict[tuple[str, str], str] = {}
    found = []
    for mutant in MUTANTS if mutants is None else mutants:
        key = mutant.scenario, mutant.primary
        if key not in honest:
            honest[key] = verdict(arms[mutant.scenario], Mutant("none", *key[:1], primary=mutant.primary)).status
        status = verdict(arms[mutant.scenario], mutant).status
        found.append(Caught(mutant.name, mutant.scenario, honest[key], status))
    return found


def _comparison(seed: int, slow: Slowdown, failing: float) -> Arms:
    rng = np.random.Generator(np.random.PCG64([seed, 7]))
    plans = make_plans((_PAIRS,), _REQUESTS, _WARMUP, _UTILISATION, rng)
    paces = pace(1, _PAIRS, QUIET, rng)[:, 0]
    base, head = (
        simulate(plans, draw_luck(plans, own, QUIET, rng, decode=True), what)
        for own, what in zip(paces, (NO_SLOWDOWN, slow), strict=True)
    )
    return _arm("base", plans, base, 0.0, rng), _arm("head", plans, head, failing, rng)


def _arm(name: str, plans: Plans, runs: Runs, failing: float, rng: np.random.Generator) -> list[RunEvidence]:
    return [evidence(name, plans, runs, pair, failing, rng) for pair in range(len(plans.arrival_s))]


def evidence(arm: str, plans: Plans, runs: Runs, pair: int, failing: float, rng: np.random.Generator) -> RunEvidence:
    """One simulated run in the tables that a real one leaves. ``failing``: share of requests that end in an
    error without a token."""
    draws: Floats = rng.random((plans.arrival_s.shape[-1],))
    records = [_record(plans, runs, pair, i, bool(draw < failing)) for i, draw in enumerate(draws)]
    requests, tokens = to_frames(records, arm, pair)
    scheduled = int((~requests["warmup"]).sum())
    return RunEvidence(arm, pair, requests, tokens, scheduled, plans.digest(pair))


def _record(plans: Plans, runs: Runs, pair: int, i: int, failed: bool) -> RequestRecord:
    due = NS_PER_S + round(plans.arrival_s[pair, i] * NS_PER_S)
    gaps = np.full(OUTPUT_TOKENS - 1, runs.step_s[pair, i])
    gaps[1 : 1 + int(runs.stalls[pair, i])] += STALL_S
    gaps[0] = runs.handoff_s[pair, i]
    offsets = runs.ttft_s[pair, i] + np.concatenate([[0.0], np.cumsum(gaps)])
    stamps: list[int] = [] if failed else (due + np.rint(offsets * NS_PER_S).astype(np.int64)).tolist()
    return RequestRecord(
        index=i,
        scheduled_ns=due,
        sent_ns=due + _DISPATCH_NS,
        end_ns=stamps[-1] if stamps else due + NS_PER_MS,
        status="error" if failed else "ok",
        warmup=i < plans.warmup,
        planned_prompt_tokens=max(round(plans.tokens[pair, i]), 1),
        planned_output_tokens=OUTPUT_TOKENS,
        output_tokens=len(stamps),
        chunk_ns=stamps,
        chunk_tokens=[1] * len(stamps),
        user_lag_ns=[_READ_LAG_NS] * len(stamps),
        reads=len(stamps),
        max_events_per_read=1,
    )


# The faults. Each takes the honest stage and gives the tampered one; nothing is changed in place.


def _head_runs(change: Callable[[RunEvidence], RunEvidence]) -> Callable[[Arms], Arms]:
    return lambda arms: (arms[0], [change(run) for run in arms[1]])


def _third_head_entry(change: Callable[[Entry], Entry]) -> Callable[[Summaries], Summaries]:
    return lambda made: (made[0], [change(e) if i == 2 else e for i, e in enumerate(made[1])])


def _in_seconds(made: Summaries) -> Summaries:
    shorter = [{**e, "ttft_ms": {k: v / 1000 for k, v in e["ttft_ms"].items()}} for e in made[1]]
    return made[0], shorter


def _stamps_in_microseconds(run: RunEvidence) -> RunEvidence:
    return replace(run, tokens=run.tokens.assign(t_ns=run.tokens["t_ns"] // 1000))


def _first_chunk_only(run: RunEvidence) -> RunEvidence:
    first = run.tokens.groupby("index").head(1)
    ones = pd.array([1] * len(run.requests), dtype="Int64")
    return replace(run, tokens=first, requests=run.requests.assign(output_tokens=ones, chunks=1))


def _without_failures(run: RunEvidence) -> RunEvidence:
    return replace(run, requests=run.requests[run.requests["status"] == "ok"])


def _without_a_trace(run: RunEvidence) -> RunEvidence:
    kept = _without_failures(run)
    return replace(kept, scheduled=int((~kept.requests["warmup"]).sum()))


def _warmup_counted(run: RunEvidence) -> RunEvidence:
    return replace(run, requests=run.requests.assign(warmup=False))


def _drifting(run: RunEvidence) -> RunEvidence:
    start = int(run.tokens["t_ns"].min())
    moved = (run.tokens["t_ns"] + (_DRIFT * (run.tokens["t_ns"] - start)).round()).astype(np.int64)
    shift = (moved - run.tokens["t_ns"]).groupby(run.tokens["index"]).apply(list)
    lags = [
        [lag - by for lag, by in zip(own, shift.get(index, []), strict=True)]
        for index, own in zip(run.requests["index"], run.requests["user_lag_ns"], strict=True)
    ]
    changed = run.requests.assign(user_lag_ns=pd.Series(lags, index=run.requests.index, dtype=object))
    return replace(run, requests=changed, tokens=run.tokens.assign(t_ns=moved))


def _late_client(run: RunEvidence) -> RunEvidence:
    """Every 20th request finds the client busy and leaves 300 ms late; its answer is as late."""
    late = (run.requests["index"] % 20 == 0) * 300 * NS_PER_MS
    by_index = dict(zip(run.requests["index"], late, strict=True))
    tokens = run.tokens.assign(t_ns=run.tokens["t_ns"] + run.tokens["index"].map(by_index).astype(np.int64))
    return replace(run, requests=run.requests.assign(sent_ns=run.requests["sent_ns"] + late), tokens=tokens)


def _other_plan(arms: Arms) -> Arms:
    """The head ran the plans of other pairs under these pairs' names."""
    base, head = arms
    turned = [*head[1:], head[0]]
    return base, [_renamed(run, to.pair) for run, to in zip(turned, head, strict=True)]


def _renamed(run: RunEvidence, pair: int) -> RunEvidence:
    return replace(run, pair=pair, requests=run.requests.assign(pair=pair), tokens=run.tokens.assign(pair=pair))


def _without(key: str) -> Callable[[Entry], Entry]:
    return lambda entry: {k: v for k, v in entry.items() if k != key}


def _nan(entry: Entry) -> Entry:
    changed: dict[str, Any] = {**entry["ttft_ms"], "p90": math.nan}
    return {**entry, "ttft_ms": changed}


MUTANTS: tuple[Mutant, ...] = (
    Mutant("arms swapped", "slow", summaries=lambda made: (made[1], made[0])),
    Mutant("sign flipped", "slow", values=lambda values: {k: -y for k, y in values.items()}),
    Mutant("metric missing from a summary", "same", summaries=_third_head_entry(_without("ttft_ms"))),
    Mutant("metric missing from the runs", "same", runs=_head_runs(_first_chunk_only), primary="tpot_p90"),
    Mutant("NaN", "same", summaries=_third_head_entry(_nan)),
    Mutant("ms and s mixed in a summary", "slow", summaries=_in_seconds),
    Mutant("ns and us mixed in the stamps", "same", runs=_head_runs(_stamps_in_microseconds)),
    Mutant("failed requests dropped", "failing", runs=_head_runs(_without_failures)),
    Mutant("failed requests dropped from plan and run", "failing", runs=_head_runs(_without_a_trace)),
    Mutant("warm-up included", "same", runs=_head_runs(_warmup_counted)),
    Mutant("one-arm clock drift", "same", runs=_head_runs(_drifting)),
    Mutant("saturated client", "same", runs=_head_runs(_late_client)),
    Mutant("different plan", "same", runs=_other_plan),
)
