"""Pairs for the gate without a server: evidence of simulated runs, replayed under fresh numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from pdbench.pairs import Both
from pdbench.stats.gate import RunEvidence
from pdbench.stats.mutants import Arms, scenarios


@cache
def honest() -> dict[str, Arms]:
    """``same``, ``slow`` (its prefill) and ``failing`` (a fifth of its requests): six pairs each."""
    return scenarios(0)


class Replay:
    """Stands for ``pairs.run_pair``: pair after pair of the runs given, over and over. ``calls``: what was asked."""

    def __init__(self, base: Sequence[RunEvidence], head: Sequence[RunEvidence]) -> None:
        self.runs = list(zip(base, head, strict=True))
        self.calls: list[tuple[int, int]] = []

    def __call__(self, number: int, turn: int) -> Both:
        self.calls.append((number, turn))
        base, head = self.runs[turn % len(self.runs)]
        return replace(base, pair=number), replace(head, pair=number)


def alternating() -> Replay:
    """A head that is slow in every other pair: nobody can say."""
    base, slow = honest()["slow"]
    twin = [replace(run, arm="head") for run in base]
    return Replay(base, [slow[i] if i % 2 else twin[i] for i in range(len(base))])
