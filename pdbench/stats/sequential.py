"""When to stop comparing: a few looks planned beforehand, each with its share of the error.

Testing after every pair until something is significant finds a difference in most A/A comparisons. Here the
number of looks, when they happen and what each may spend are fixed before the first run: after 6, 10 and 16
pairs, with one-sided errors of 0.2, 0.3 and 0.5 %. By Bonferroni's inequality the whole comparison raises a
false alarm in at most their sum, 1 %, however the looks depend on each other. Planned looks with an error
of their own are those of Pocock (Biometrika 64, 1977) and Lan & DeMets (Biometrika 70, 1983); the sum needs
no joint distribution, only Student's t at each look.

    state = decide(y, Rule.of("ttft_p90"))     # FAIL | PASS | INCONCLUSIVE | INVALID | go on
    state.next_pairs                           # how many pairs to run before the next look
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pdbench.stats.laws import t_ppf, t_sf
from pdbench.stats.paired import MARGINS, Floats, Scale, holm, scale_of

Status = Literal["FAIL", "PASS", "INCONCLUSIVE", "INVALID", "go on"]
AutoStatus = Literal["better", "worse", "equivalent", "not resolved", "go on"]

PASS_LEVEL = 0.95
# Smaller changes than these never fail a gate, however certain: 3 % of a latency, one point of attainment.
LEAST_RATIO, LEAST_DIFFERENCE = 0.03, 0.01


@dataclass(frozen=True, slots=True)
class Looks:
    """After how many pairs the comparison is looked at, and the one-sided error each look may spend."""

    pairs: tuple[int, ...] = (6, 10, 16)
    alphas: tuple[float, ...] = (0.002, 0.003, 0.005)

    def __post_init__(self) -> None:
        if not self.pairs or len(self.pairs) != len(self.alphas):
            raise ValueError("every look needs its number of pairs and its error")
        if self.pairs[0] < 2 or any(b <= a for a, b in zip(self.pairs, self.pairs[1:], strict=False)):
            raise ValueError("looks must come after 2 pairs or more, each later than the one before")
        if not all(0 < alpha < 0.5 for alpha in self.alphas):
            raise ValueError("the error of a look must be in (0, 0.5)")

    @property
    def last(self) -> int:
        return self.pairs[-1]

    def next_pairs(self, done: int) -> int:
        """How many pairs to run before the next look; 0 after the last."""
        return next((look - done for look in self.pairs if look > done), 0)

    def alpha(self, done: int) -> float | None:
        """The error that may be spent after ``done`` pairs; ``None`` between looks."""
        return self.alphas[self.pairs.index(done)] if done in self.pairs else None

    def within(self, budget: int) -> Looks:
        """The looks that a budget of pairs reaches. Error that is not spent stays unspent. ``ValueError``
        when it does not reach the first: there is then nothing the comparison could ever say."""
        kept = sum(look <= budget for look in self.pairs)
        if not kept:
            raise ValueError(f"{budget} pairs do not reach the first look, which comes after {self.pairs[0]}")
        return Looks(self.pairs[:kept], self.alphas[:kept])


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of one metric. ``margin`` and ``least`` are ratios minus 1 on the scale ``log_ratio``,
    differences else; ``floor`` is the least standard deviation of y believed."""

    scale: Scale
    margin: float
    least: float
    floor: float = 0.0
    looks: Looks = Looks()

    def __post_init__(self) -> None:
        if self.margin <= 0 or self.least < 0 or self.floor < 0:
            raise ValueError("needs margin > 0, least >= 0 and floor >= 0")

    @classmethod
    def of(cls, metric: str, *, floor: float = 0.0, looks: Looks | None = None) -> Rule:
        """The house's rule for a metric that has a margin; ``ValueError`` for another."""
        if metric not in MARGINS:
            raise ValueError(f"'{metric}' has no margin; known: {', '.join(MARGINS)}")
        scale = scale_of(metric)
        least = LEAST_DIFFERENCE if scale == "difference" else LEAST_RATIO
        return cls(scale, MARGINS[metric], least, floor, looks or Looks())

    def on_scale(self, amount: float) -> float:
        """A ratio minus 1, or a difference, as y measures it."""
        return math.log1p(amount) if self.scale == "log_ratio" else amount


@dataclass(frozen=True, slots=True)
class Decision:
    """What one look says of one metric. ``lower``: one-sided bound at the look's error, above which nothing
    speaks for "no change"; ``upper``: one-sided 95 % bound. ``None`` between looks and where a value is
    infinite. ``p_worse``: one-sided p-value of "the head is not worse", Holm-corrected where several metrics
    were decided."""

    status: Status
    effect: float
    lower: float | None
    upper: float | None
    p_worse: float
    pairs: int
    next_pairs: int
    alpha: float | None
    scale: Scale
    reason: str

    def document(self) -> dict[str, Any]:
        """JSON-ready; infinite effects are ``None``."""
        finite = math.isfinite(self.effect)
        percent = 100 * (_ratio(self.effect) if self.scale == "log_ratio" else self.effect) if finite else None
        return {
            "status": self.status, "effect": self.effect if finite else None, "percent": percent,
            "lower": self.lower, "upper": self.upper, "p_worse": self.p_worse, "pairs": self.pairs,
            "next_pairs": self.next_pairs, "alpha": self.alpha, "scale": self.scale, "reason": self.reason,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class AutoDecision:
    """What one look says of a comparison without a suspect. ``interval`` has the look's own level, so that it
    excludes 0 exactly where the verdict is better or worse."""

    status: AutoStatus
    effect: float
    interval: tuple[float, float] | None
    level: float | None
    tost_p: float
    pairs: int
    next_pairs: int


@dataclass(frozen=True, slots=True)
class _Facts:
    mean: float
    error: float
    freedom: int

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "the true mean is at most ``bound``"."""
        distance = self.mean - bound
        if self.error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return t_sf(distance / self.error, self.freedom)


def decide(y: npt.ArrayLike, rule: Rule) -> Decision:
    """The gate's decision on one metric from one ``y`` a pair; positive: the head is worse.

    Tests happen only at the planned looks; between them the answer is "go on". A NaN (a metric absent, or
    infinite in both arms) is INVALID: a missing metric never passes. ``ValueError`` beyond the last look.
    """
    values = np.asarray(y, dtype=np.float64).ravel()
    return _judge(values, rule, None)


def decide_family(values: Mapping[str, npt.ArrayLike], rules: Mapping[str, Rule], primary: str) -> dict[str, Decision]:
    """Every metric's decision at one look. The primary's error is its own; the others share theirs by Holm.

    The primary alone decides the gate. ``ValueError`` if it is absent or a metric has no rule.
    """
    if primary not in values or set(values) - set(rules):
        raise ValueError("the primary metric needs values, and every metric a rule")
    arrays = {name: np.asarray(y, dtype=np.float64).ravel() for name, y in values.items()}
    alone = {name: _judge(y, rules[name], None) for name, y in arrays.items()}
    others = [name for name in arrays if name != primary and alone[name].status != "INVALID"]
    adjusted = holm([alone[name].p_worse for name in others])
    corrected = {name: _judge(arrays[name], rules[name], p) for name, p in zip(others, adjusted, strict=True)}
    return {name: corrected.get(name, found) for name, found in alone.items()}


def replay(y: npt.ArrayLike, rule: Rule) -> Decision:
    """The decision a gate would have come to that ran these pairs in this order: the first look that
    decides, else what the last one reached says."""
    values = np.asarray(y, dtype=np.float64).ravel()
    found = decide(values[: min(rule.looks.pairs[0], len(values))], rule)
    for look in rule.looks.pairs[1:]:
        if found.status != "go on" or look > len(values):
            break
        found = decide(values[:look], rule)
    return found


def decide_auto(y: npt.ArrayLike, rule: Rule) -> AutoDecision:
    """The two-sided rule of ``compare --pairs auto``: the same looks, each look's error spent on either side.

    Better or worse when the interval at the look's level excludes 0, equivalent when both one-sided 95 %
    bounds are within the margin, else go on; "not resolved" when the looks are used up. NaN pairs carry no
    information but were run.
    """
    values = np.asarray(y, dtype=np.float64).ravel()
    pairs = len(values)
    alpha, following = _place(rule.looks, pairs)
    known = values[~np.isnan(values)]
    waiting: AutoStatus = "go on" if following else "not resolved"
    effect = _mean(known)
    if alpha is None or (len(known) < 2 and not np.isinf(known).any()):
        return AutoDecision(waiting, effect, None, None, 1.0, pairs, following)
    if np.isinf(known).any():
        status: AutoStatus = waiting if math.isnan(effect) else "worse" if effect > 0 else "better"
        return AutoDecision(status, effect, None, None, 1.0, pairs, following if status == "go on" else 0)
    facts, bound = _facts(known, rule.floor), rule.on_scale(rule.margin)
    half = _t(1 - alpha, facts.freedom) * facts.error
    tost_p = max(1 - facts.p_above(bound), facts.p_above(-bound))
    status = waiting
    if abs(effect) > half:
        status = "worse" if effect > 0 else "better"
    elif tost_p < 1 - PASS_LEVEL:
        status = "equivalent"
    interval = (effect - half, effect + half)
    return AutoDecision(status, effect, interval, 1 - 2 * alpha, tost_p, pairs, following if status == "go on" else 0)


def _judge(values: Floats, rule: Rule, p_corrected: float | None) -> Decision:
    pairs = len(values)
    alpha, following = _place(rule.looks, pairs)
    effect = _mean(values)

    def decision(status: Status, reason: str, *bounds: float, p: float = 1.0) -> Decision:
        lower, upper = bounds or (None, None)
        left = following if status == "go on" else 0
        return Decision(status, effect, lower, upper, p, pairs, left, alpha, rule.scale, reason)

    if np.isnan(values).any():
        where = ", ".join(str(i + 1) for i in np.flatnonzero(np.isnan(values)))
        return decision("INVALID", f"no value in pair {where}: absent, or infinite in both arms")
    if alpha is None:
        return decision("go on", f"the next look comes after {pairs + following} pairs")
    if np.isinf(values).any():
        return _infinite(effect, following, decision)
    facts = _facts(values, rule.floor)
    lower = effect - _t(1 - alpha, facts.freedom) * facts.error
    upper = effect + _t(PASS_LEVEL, facts.freedom) * facts.error
    p_worse = facts.p_above(0.0) if p_corrected is None else p_corrected
    # In this order: a change that is certain and large enough fails even where it is within the margin.
    if p_worse < alpha and effect >= rule.on_scale(rule.least):
        return decision("FAIL", "worse beyond doubt, and by enough to matter", lower, upper, p=p_worse)
    if upper < rule.on_scale(rule.margin):
        return decision("PASS", "at most worse by less than the margin", lower, upper, p=p_worse)
    if following:
        return decision("go on", "neither is certain yet", lower, upper, p=p_worse)
    return decision("INCONCLUSIVE", "neither is certain, and no look is left", lower, upper, p=p_worse)


def _infinite(effect: float, following: int, decision: Callable[..., Decision]) -> Decision:
    """A percentile that only one arm lost is a verdict; where each arm lost it once, nothing follows."""
    if effect == math.inf:
        return decision("FAIL", "infinite in the head only: it fails requests that the base serves", p=0.0)
    if effect == -math.inf:
        return decision("PASS", "infinite in the base only")
    if following:
        return decision("go on", "infinite in either arm in some pair")
    return decision("INCONCLUSIVE", "infinite in either arm in some pair")


def _place(looks: Looks, pairs: int) -> tuple[float | None, int]:
    if pairs > looks.last:
        raise ValueError(f"{pairs} pairs, but the last look comes after {looks.last}")
    return looks.alpha(pairs), looks.next_pairs(pairs)


def _facts(values: Floats, floor: float) -> _Facts:
    spread = max(float(np.std(values, ddof=1)), floor)
    return _Facts(float(np.mean(values)), spread / math.sqrt(len(values)), len(values) - 1)


def _mean(values: Floats) -> float:
    """NaN where there is nothing, a NaN, or an infinity of either sign."""
    if not len(values) or (np.isposinf(values).any() and np.isneginf(values).any()):
        return math.nan
    return float(np.mean(values))


@lru_cache(maxsize=256)
def _t(level: float, freedom: int) -> float:
    return t_ppf(level, freedom)


def _ratio(effect: float) -> float:
    return math.expm1(min(effect, 700.0))
