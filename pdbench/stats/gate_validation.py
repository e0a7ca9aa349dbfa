"""How often is the gate wrong? Thousands of whole comparisons on the simulated server.

Two questions with known answers: how often it fails a head that is the base (false alarms; the error spent is
1 %), and how often it fails a head that really is slower (detection). The runs are simulated; values,
rule and looks are the gate's own functions. ``mutants`` asks the third: does it notice faulty evidence?

    validate(seed=0)["false_alarm_rate"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdbench.stats.mutants import run_mutants
from pdbench.stats.paired import PRIMARY, Floats, pair_values, spread_floor
from pdbench.stats.proportions import clopper_pearson
from pdbench.stats.sequential import Decision, Looks, Rule, replay
from pdbench.stats.simulated import (
    EDGE,
    NO_SLOWDOWN,
    NOISY,
    Noise,
    Runs,
    Slowdown,
    draw_luck,
    make_plans,
    p90,
    pace,
    simulate,
)

REQUESTS, WARMUP = 600, 100
LADDER = (1.02, 1.03, 1.05, 1.10)
_CHUNK = 50  # comparisons simulated at once: about 10 MB an array
_PAIRS = Looks().last
# Where about nine requests in ten of an undisturbed run arrive in time at utilisation 0.7.
_TTFT_LIMIT_S = 0.65

Say = Callable[[str], None]
Pick = Callable[[Runs], dict[str, Floats]]


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts over comparisons of one kind. ``pair_sd``: mean SD of y over the pairs of one comparison;
    ``effect``: mean y; ``pairs``: mean number of pairs run before the verdict."""

    comparisons: int
    failed: int
    passed: int
    pairs: float
    pair_sd: float
    effect: float

    @property
    def fail_rate(self) -> float:
        return self.failed / self.comparisons

    def document(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.fail_rate, self.comparisons)
        return {
            "comparisons": self.comparisons, "fail_rate": self.fail_rate, "interval": [low, high],
            "pass_rate": self.passed / self.comparisons, "mean_pairs": round(self.pairs, 2),
            "pair_sd": round(self.pair_sd, 4), "effect": round(self.effect, 4),
        }  # fmt: skip


def validate(
    seed: int = 0, comparisons: int = 2000, *, rung: int | None = None, say: Say | None = None
) -> dict[str, Any]:
    """Everything the gate promises, measured. ``comparisons``: A/A comparisons a condition; ``rung``: those of
    each slowdown (half as many by default). Deterministic in ``seed``.

    ``false_alarm_rate`` is that of the worst condition and metric; ``detection`` is at utilisation 0.7 with the
    pair SD at the edge of what the rule was designed for (0.09), by size as text.
    """
    if comparisons < 1 or (rung is not None and rung < 1):
        raise ValueError("needs at least one comparison")
    say, rung = say or (lambda _: None), rung or max(comparisons // 2, 1)
    alarms: dict[str, Tally] = {}
    ladders: dict[str, dict[str, Tally]] = {}
    for i, (name, noise, utilisation) in enumerate(_CONDITIONS):
        found = tallies([seed, 1, i], comparisons, [NO_SLOWDOWN], noise, utilisation, _ttft_and_share)[0]
        alarms |= {f"{metric}, {name}": tally for metric, tally in found.items()}
        say(f"A/A at {name}: {', '.join(f'{m} {t.fail_rate:.2%}' for m, t in found.items())} failed")
        heads = [Slowdown(prefill=size) for size in LADDER]
        rungs = tallies([seed, 2, i], rung, heads, noise, utilisation, _ttft)
        ladders[name] = {f"{size:.2f}": row["ttft_p90"] for size, row in zip(LADDER, rungs, strict=True)}
        say(
            f"prefill slower at {name}: {', '.join(f'x{s} {t.fail_rate:.1%}' for s, t in ladders[name].items())} failed"
        )
    injected = _injected(seed, max(rung // 5, 1))
    say(f"injected: {', '.join(f'{name} {t.fail_rate:.1%}' for name, t in injected.items())} failed")
    mutants = run_mutants(seed)
    say(f"mutants caught: {sum(m.caught for m in mutants)} of {len(mutants)}")
    return {
        "seed": seed,
        "comparisons": sum(t.comparisons for t in alarms.values()),
        "false_alarm_rate": max(t.fail_rate for t in alarms.values()),
        "false_alarms": {name: tally.document() for name, tally in alarms.items()},
        "detection": {size: tally.fail_rate for size, tally in ladders[_HEADLINE].items()},
        "detection_by_condition": {n: {s: t.document() for s, t in rows.items()} for n, rows in ladders.items()},
        "injected": {name: tally.document() for name, tally in injected.items()},
        "mutants": len(mutants),
        "mutants_caught": sum(m.caught for m in mutants),
        "mutant_verdicts": {m.name: {"honest": m.honest, "mutated": m.mutated, "caught": m.caught} for m in mutants},
    }


def tallies(
    seed: Sequence[int], comparisons: int, heads: Sequence[Slowdown], noise: Noise, utilisation: float, pick: Pick,
    *, decode: bool = False,
) -> list[dict[str, Tally]]:  # fmt: skip
    """Whole comparisons of a base with each head; for each head one tally a metric that ``pick`` takes from
    the runs. Heads share plans and luck, so that they differ by their slowdown alone."""
    rows: list[dict[str, list[tuple[Floats, float]]]] = [{} for _ in heads]
    for start in range(0, comparisons, _CHUNK):
        rng = np.random.Generator(np.random.PCG64([*seed, start]))
        count = min(_CHUNK, comparisons - start)
        plans = make_plans((count, _PAIRS), REQUESTS, WARMUP, utilisation, rng)
        lucks = [draw_luck(plans, own, noise, rng, decode=decode) for own in pace(count, _PAIRS, noise, rng)]
        of_base = pick(simulate(plans, lucks[0]))
        for slow, values in zip(heads, rows, strict=True):
            of_head = pick(simulate(plans, lucks[1], slow))
            for metric, base in of_base.items():
                values.setdefault(metric, []).extend(_compared(metric, base, of_head[metric]))
    return [{metric: _tally(metric, y) for metric, y in values.items()} for values in rows]


def _compared(metric: str, base: Floats, head: Floats) -> Iterator[tuple[Floats, float]]:
    """(y, floor) of each comparison, through the functions that real summaries go through."""
    for one, other in zip(base, head, strict=True):
        runs = [_entry(metric, value) for value in one], [_entry(metric, value) for value in other]
        yield pair_values(*runs, metric), spread_floor(*runs, metric)


def _entry(metric: str, value: float) -> dict[str, Any]:
    counts = {"requests": {"scheduled": REQUESTS}}
    if metric == PRIMARY:
        return {**counts, "attainment": {"joint": float(value)}}
    return {**counts, f"{metric.removesuffix('_p90')}_ms": {"p90": 1e3 * float(value)}}


def _tally(metric: str, rows: Sequence[tuple[Floats, float]]) -> Tally:
    found: list[Decision] = [replay(y, Rule.of(metric, floor=floor)) for y, floor in rows]
    y_all = np.array([y for y, _ in rows])
    return Tally(
        comparisons=len(rows),
        failed=sum(d.status == "FAIL" for d in found),
        passed=sum(d.status == "PASS" for d in found),
        pairs=float(np.mean([d.pairs for d in found])),
        pair_sd=float(np.mean(np.std(y_all, axis=1, ddof=1))),
        effect=float(np.mean(y_all)),
    )


def _ttft(runs: Runs) -> dict[str, Floats]:
    return {"ttft_p90": p90(runs.ttft_s, WARMUP)}


def _ttft_and_share(runs: Runs) -> dict[str, Floats]:
    kept = runs.ttft_s[..., WARMUP:]
    return {**_ttft(runs), PRIMARY: np.asarray(np.mean(kept <= _TTFT_LIMIT_S, axis=-1))}


def _gaps(runs: Runs) -> dict[str, Floats]:
    return {"tpot_p90": p90(runs.tpot_s, WARMUP), "worst_gap_p90": p90(runs.worst_gap_s, WARMUP)}


def _injected(seed: int, comparisons: int) -> dict[str, Tally]:
    """Each phase slowed on purpose, judged by the metric that should show it."""
    rows = tallies([seed, 3], comparisons, [slow for _, slow, _ in _INJECTIONS], EDGE, 0.7, _gaps, decode=True)
    return {f"{name}, {metric}": row[metric] for (name, _, metric), row in zip(_INJECTIONS, rows, strict=True)}


_HEADLINE = "utilisation 0.7, pair SD up to 0.09"
_CONDITIONS: tuple[tuple[str, Noise, float], ...] = (
    (_HEADLINE, EDGE, 0.7),
    ("utilisation 0.5", EDGE, 0.5),
    ("utilisation 0.7, noisy machine", NOISY, 0.7),
)
_INJECTIONS: tuple[tuple[str, Slowdown, str], ...] = (
    *((f"decode x{size:.2f}", Slowdown(decode=size), "tpot_p90") for size in LADDER),
    ("transfer x2", Slowdown(transfer=2.0), "worst_gap_p90"),
    ("stall 2%@50ms", Slowdown(stall=0.02), "worst_gap_p90"),
)
