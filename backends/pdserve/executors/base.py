"""What the engine asks of whatever computes: run the chunks of a step, give back the sampled tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pdserve.sequence import Chunk


class Executor(Protocol):
    """Torch, an emulated device that waits, or a virtual one that only counts: one method."""

    def run(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """Run one step. For each chunk, in order: its sampled token, or None where it samples none.

        The sequences are not changed; whoever calls appends the token and moves ``computed`` on.
        """
        ...
