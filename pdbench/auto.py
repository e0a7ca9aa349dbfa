"""``--pairs auto``: how many pairs a comparison needs, found by planned looks, and what it then may say.

Running pairs "until significant" finds a difference between an arm and itself in a quarter of tries of 16 pairs. The
looks (after 6, 10 and 16 pairs) and the error that each may spend are fixed before the first run
(``stats.sequential``); between looks nothing is tested, and no pair is run that cannot reach the next look within
the budget. With several heads the error of each look is shared among them (Bonferroni), so that the whole
comparison keeps it.

Pure: values in, decisions out. ``compare`` runs the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pdbench.errors import UsageError
from pdbench.settings import Budget
from pdbench.stats.paired import Runs, comparisons, pair_values, spread_floor
from pdbench.stats.sequential import AutoDecision, Looks, Rule, decide_auto

Document = dict[str, Any]
PerPair = Mapping[str, Runs]


@dataclass(frozen=True, slots=True)
class Look:
    """What was decided of one head, and at which look (from 1; 0: none was reached)."""

    number: int
    decision: AutoDecision

    @property
    def decided(self) -> bool:
        return self.decision.status != "go on"


def planned_looks(heads: int, budget: Budget) -> Looks:
    """The looks that a budget in pairs reaches, their errors shared among ``heads``. Raises ``UsageError`` when it
    does not reach the first."""
    house = Looks()
    shared = Looks(house.pairs, tuple(alpha / heads for alpha in house.alphas))
    if budget.pairs is None:
        return shared
    try:
        return shared.within(budget.pairs)
    except ValueError as error:
        raise UsageError(str(error), where="--budget", remedy=f"give {house.pairs[0]} pairs or more") from None


def look_at(y: npt.ArrayLike, rule: Rule) -> Look:
    """The first look that decides, else the last one that ``y`` (one value a pair) reaches."""
    values = np.asarray(y, dtype=np.float64).ravel()
    found = Look(0, decide_auto(values[: rule.looks.pairs[0] - 1], rule))
    for number, pairs in enumerate(rule.looks.pairs, start=1):
        if pairs > len(values) or (number > 1 and found.decided):
            break
        found = Look(number, decide_auto(values[:pairs], rule))
    return found


def look_at_heads(per_pair: PerPair, base: str, arms: Sequence[str], primary: str, looks: Looks) -> dict[str, Look]:
    """The state of the primary metric of every head, by name."""
    found = {}
    for head in (arm for arm in arms if arm != base):
        runs = per_pair[base], per_pair[head]
        rule = Rule.of(primary, floor=spread_floor(*runs, primary), looks=looks)
        found[head] = look_at(pair_values(*runs, primary), rule)
    return found


def more_pairs(found: Mapping[str, Look], looks: Looks, done: int) -> int:
    """How many pairs to run before the next look; 0 when every head is decided or no look is left."""
    if done >= looks.pairs[0] and all(look.decided for look in found.values()):
        return 0
    return looks.next_pairs(done)


def fits(elapsed_s: float, done: int, more: int, budget: Budget) -> bool:
    """Whether ``more`` pairs, each as long as the ``done`` ones on average, end within the budget."""
    if budget.seconds is None:
        return True
    return elapsed_s * (done + more) / done <= budget.seconds if done else True


def auto_comparisons(
    per_pair: PerPair, base: str, arms: Sequence[str], primary: str, looks: Looks
) -> tuple[list[Document], Document]:
    """The document's ``comparisons`` and ``looks``.

    A head's primary metric keeps what the look that decided it said; the other metrics are judged once, over the
    pairs of the last look reached, at that look's level. Before the first look all figures are descriptive.
    """
    found = look_at_heads(per_pair, base, arms, primary, looks)
    reached = max((look.number for look in found.values()), default=0)
    if not reached:
        items = [_descriptive(item) for item in comparisons(per_pair, base, arms, primary)]
    else:
        items = _at_look(per_pair, base, arms, primary, looks, reached)
        items = [_decided(item, per_pair, primary, looks, found[item["head"]]) for item in items]
    said = {
        "pairs": list(looks.pairs),
        "alphas": [round(alpha, 9) for alpha in looks.alphas],
        "decided": {head: {"look": look.number, "status": _status(look)} for head, look in found.items()},
    }
    return items, said


def _status(look: Look) -> str:
    """A budget that ended before a decision leaves it open: not resolved."""
    return look.decision.status if look.decided and look.number else "not resolved"


def _at_look(
    per_pair: PerPair, base: str, arms: Sequence[str], primary: str, looks: Looks, number: int
) -> list[Document]:
    pairs, alpha = looks.pairs[number - 1], looks.alphas[number - 1]
    cut = {arm: per_pair[arm][:pairs] for arm in arms}
    return comparisons(cut, base, arms, primary, level=1 - 2 * alpha)


def _decided(item: Document, per_pair: PerPair, primary: str, looks: Looks, look: Look) -> Document:
    """The primary metric's entry as its own look saw it."""
    if not item["primary"]:
        return item
    arms = (item["base"], item["head"])
    alone = next(c for c in _at_look(per_pair, item["base"], arms, primary, looks, look.number) if c["primary"])
    return {**alone, "verdict": _status(look), "look": look.number}


def _descriptive(item: Document) -> Document:
    return {**item, "interval": None, "mde": None, "verdict": "not resolved"}
