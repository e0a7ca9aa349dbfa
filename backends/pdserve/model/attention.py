"""Attention over the KV slab: each row looks at its own sequence's positions up to its own.

Decodes and prefill chunks want opposite things. A decode reads a long cache for one query: memory traffic,
and the fewer calls the better, so neighbouring slots of similar length share one masked call. A prefill chunk
is matrix work, causal within itself and open towards everything before it.

Grouped-query attention (several query heads per key/value head) is done by treating the queries of a group
as rows of one small matrix. SDPA's ``enable_gqa`` is several times slower in bfloat16 decode on CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from pdserve.model.batch import Batch, Span
from pdserve.model.config import ModelShape

# What one more attention call costs, counted in cache positions read. On a GPU a launch outweighs much reading;
# not measured there yet.
_CALL_COST = 4096


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decode rows ``row .. row + count`` that sit in slots ``slot .. slot + count`` and share one call over
    the first ``length`` positions. ``mask`` (``[count, 1, 1, length]``, 0 or -inf) hides what lies beyond
    each one's own length; None when all are equally long."""

    row: int
    slot: int
    count: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Prefill:
    """A chunk of more than one token: rows ``row .. row + count``, positions ``start .. start + count``."""

    row: int
    slot: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How one step attends; made once a step, used in every layer."""

    batch: Batch
    groups: tuple[DecodeGroup, ...]
    prefills: tuple[Prefill, ...]


class AttentionBackend(Protocol):
    """Stores a step's keys and values in the cache, then attends."""

    def plan(self, batch: Batch) -> Plan: ...

    def attend(self, plan: Plan, cache: Tensor, qkv: Tensor) -> Tensor:
        """``cache``: ``[2, slots, kv_heads, max_len, head_dim]`` of one layer, written in place.
        ``qkv``: ``[rows, heads + 2 * kv_heads, head_dim]``, already rotated. Returns
        ``[rows, heads * head_dim]``."""
        ...


class SdpaSlab:
    """torch's fused attention on any device. Subclasses may replace how a group or a chunk attends."""

    call_cost = _CALL_COST

    def __init__(self, shape: ModelShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.scale = shape.head_dim**-0.5

    def plan(self, batch: Batch) -> Plan:
        decodes = batch.spans[: batch.decodes]
        groups = [self._group(batch, row, members) for row, members in group_decodes(decodes, self.call_cost)]
        prefills = []
        row = batch.decodes
        for span in batch.spans[batch.decodes :]:
            prefills.append(Prefill(row, span.slot, span.start, len(span.tokens)))
            row += len(span.tokens)
        return Plan(batch, tuple(groups), tuple(prefills))

    def attend(self, plan: Plan, cache: Tensor, qkv: Tensor) -> Tensor:
        shape = self.shape
        queries, new = qkv[:, : shape.heads], qkv[:, shape.heads :]
        self._store(plan, cache, new.view(-1, 2, shape.kv_heads, shape.head_dim))
        out = torch.empty((len(qkv), shape.heads, shape.head_dim), dtype=qkv.dtype, device=qkv.device)
        for group in plan.groups:
            rows = slice(group.row, group.row + group.count)
            self.decode(group, cache, queries[rows], out[rows])
        for chunk in plan.prefills:
            rows = slice(chunk.row, chunk.row + chunk.count)
            keys, values = cache[:, chunk.slot, :, : chunk.start + chunk.count]
            self.prefill(queries[rows], keys, values, chunk.start, out[rows])
        return out.flatten(1)

    def _group(self, batch: Batch, row: int, members: Sequence[Span]) -> DecodeGroup:
        longest = max(span.end for span in members)
        mask = None
        if any(span.end != longest for span in members):
            own = batch.positions[row : row + len(members), None]
            beyond = torch.arange(longest, device=self.device)[None] > own
            mask = torch.zeros(beyond.shape, dtype=self.dtype, device=self.device)
            mask = mask.masked_fill_(beyond, float("-inf"))[:, None, None]
        return DecodeGroup(row, members[0].slot, len(members), longest, mask)

    def _store(self, plan: Plan, cache: Tensor, new: Tensor) -> None:
        """Write the step's keys and values where they belong; new: ``[rows, 2, kv_heads, head_dim]``."""
        decodes, batch = plan.batch.decodes, plan.batch
        if decodes:
            cache[:, batch.slots[:decodes], :, batch.positions[:decodes]] = new[:decodes]
        for chunk in plan.prefills:
            target = cache[:, chunk.slot, :, chunk.start : chunk.start + chunk.count]
            target.copy_(new[chunk.row : chunk.row + chunk.count].permute(1, 2, 0, 3))

    def decode(self, group: DecodeGroup, cache: Tensor, queries: Tensor, out: Tensor) -> None:
        """One token of each member. queries, out: ``[count, heads, head_dim]``; cache as in ``attend``."""
        shape = self.shape
        keys, values = cache[:, group.slot : group.slot + group.count, :, : group.length]
        grouped = queries.view(-1, shape.kv_heads, shape.group, shape.head_dim)
        result = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask, scale=self.scale)
        out.copy_(result.flatten(1, 2))

    def prefill(self, queries: Tensor, keys: Tensor, values: Tensor, start: int, out: Tensor) -> None:
        """A chunk. queries, out: ``[count, heads, head_dim]``; keys, values: ``[kv_heads, start + count,
        head_dim]``. A group's heads share their keys by a stride of 0."""
        shape, count = self.shape, len(queries)
        heads = queries.view(count, shape.kv_heads, shape.group, shape.head_dim).permute(1, 2, 0, 3)
        size = (shape.kv_heads, shape.group, start + count, shape.head_dim)
        mask = None
        if start:  # is_causal aligns the triangle to the first key; a chunk's own begins at its start
            mask = hidden((count, start + count), self.dtype, self.device).triu_(start + 1)
        result = F.scaled_dot_product_attention(
            heads,
            keys[:, None].expand(size),
            values[:, None].expand(size),
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
        )
        out.copy_(result.flatten(0, 1).transpose(0, 1))


def group_decodes(spans: Sequence[Span], call_cost: int) -> list[tuple[int, Sequence[Span]]]:
    """Cut decodes (ordered by slot) into runs that share one call: ``(first row, members)``.

    Members must sit in consecutive slots. Joining pads everyone to the longest; it is done while that padding
    (in positions) costs less than another call would.
    """
    groups: list[tuple[int, Sequence[Span]]] = []
    first = 0
    while first < len(spans):
        last, longest = first + 1, spans[first].end
        while last < len(spans) and spans[last].slot == spans[last - 1].slot + 1:
            end = spans[last].end
            padding = longest - end if end <= longest else (end - longest) * (last - first)
            if padding > call_cost:
                break
            longest = max(longest, end)
            last += 1
        groups.append((first, spans[first:last]))
        first = last
    return groups


def hidden(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """All -inf: a mask to cut from."""
    return torch.full(size, float("-inf"), dtype=dtype, device=device)
