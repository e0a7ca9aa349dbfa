"""One step's work as the model sees it: the tokens of all chunks, end to end.

Nothing is padded. A step that carries a 200-token prefill chunk and three decodes is 203 rows; the linears
do not care which row belongs to whom, and attention gets the spans. Decodes (one token each) come first,
ordered by slot, so that neighbours in the KV slab are neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Positions ``start .. start + len(tokens)`` of the sequence in ``slot``. ``samples``: its last position
    yields a next token."""

    slot: int
    start: int
    tokens: tuple[int, ...]
    samples: bool

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """``spans`` in row order; ``order[i]`` is the place of row-ordered span i in the caller's list.

    ``tokens``, ``positions``, ``slots``: int64 ``[rows]`` on the device. The first ``decodes`` rows are
    single-token spans. ``sample_rows``: int64, the rows whose logits are wanted, in row order.
    """

    spans: tuple[Span, ...]
    order: tuple[int, ...]
    decodes: int
    tokens: Tensor
    positions: Tensor
    slots: Tensor
    sample_rows: Tensor

    @property
    def rows(self) -> int:
        return len(self.tokens)


def make_batch(spans: Sequence[Span], device: torch.device) -> Batch:
    """Order the spans and flatten them. Raises ``ValueError`` on an empty span or a slot named twice."""
    if any(not span.tokens for span in spans):
        raise ValueError("a span needs at least one token")
    if len({span.slot for span in spans}) != len(spans):
        raise ValueError("two spans of one step share a slot")
    order = sorted(range(len(spans)), key=lambda i: (len(spans[i].tokens) > 1, spans[i].slot))
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    sample_rows: list[int] = []
    for i in order:
        span = spans[i]
        tokens.extend(span.tokens)
        positions.extend(range(span.start, span.end))
        slots.extend([span.slot] * len(span.tokens))
        if span.samples:
            sample_rows.append(len(tokens) - 1)
    # One tensor, hence one copy to the device, for all four lists.
    n = len(tokens)
    packed = torch.tensor(tokens + positions + slots + sample_rows, dtype=torch.int64)
    packed = packed.to(device, non_blocking=True)
    return Batch(
        spans=tuple(spans[i] for i in order),
        order=tuple(order),
        decodes=sum(len(span.tokens) == 1 for span in spans),
        tokens=packed[:n],
        positions=packed[n : 2 * n],
        slots=packed[2 * n : 3 * n],
        sample_rows=packed[3 * n :],
    )
