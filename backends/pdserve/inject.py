"""Faults on purpose: how the gate is shown to see what it says it sees.

``inject: {prefill: 1.05, decode: 1.5, transfer: 2, stall: "2%@50ms"}`` in a backend YAML makes a phase slower by a
factor, or lets a share of all steps take longer by a fixed time. In a step that mixes both phases each factor applies
to its share of the tokens. Pure and seeded: step ``n`` of worker ``w`` stalls in every run or in none.
``drop: "20%"`` answers a share of the requests with an error 500, as a server that has regressed would.
"""

from __future__ import annotations

import random

from pdserve.config import Inject
from pdserve.sequence import Step


class Slowdown:
    """What ``inject`` adds to the steps and copies of one worker."""

    def __init__(self, inject: Inject | None, worker: int) -> None:
        self.inject = inject or Inject()
        self.active = inject is not None
        self._draw = random.Random(worker)

    def step_ns(self, step: Step, took_ns: int) -> int:
        """Extra ns for a step that took ``took_ns``."""
        if not self.active:
            return 0
        prefill, decode = step.prefill_tokens, step.decode_tokens
        share = prefill / (prefill + decode)
        factor = share * (self.inject.prefill - 1) + (1 - share) * (self.inject.decode - 1)
        stalled = self._draw.random() < self.inject.stall_share
        return round(took_ns * factor) + (self.inject.stall_ns if stalled else 0)

    def transfer_ns(self, took_ns: int) -> int:
        """Extra ns for a copy that took ``took_ns``."""
        return round(took_ns * (self.inject.transfer - 1))


class Dropper:
    """Which requests ``inject.drop`` fails: drawn with a fixed seed, one draw a request."""

    def __init__(self, inject: Inject | None) -> None:
        self.share = inject.drop_share if inject else 0.0
        self._draw = random.Random("drop")

    def __call__(self) -> bool:
        return self.share > 0 and self._draw.random() < self.share
