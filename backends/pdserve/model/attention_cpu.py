"""Attention on CPUs: plain matrix multiplies where they beat the fused kernel.

SDPA's CPU kernel does not put its inner products on the bfloat16 matrix units, and reads a cold cache at a
fraction of memory speed. Two batched multiplies and a softmax do both. Measured on one Zen 5 core, bfloat16,
8 query and 2 key heads of 64, per layer:

    prefill of 512 tokens     SDPA 6.9 ms     blocked multiplies 1.9 ms
    decode, 8 x 512 (cold)    SDPA 0.42 ms    multiplies 0.19 ms, keys as the *left* factor (0.55 ms as the right)

The price: scores are rounded to the model's dtype before the softmax (which works in fp32 inside), as in
Hugging Face's eager attention. In fp32 nothing changes but the speed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pdserve.model.attention import AttentionBackend, DecodeGroup, SdpaSlab, hidden
from pdserve.model.config import ModelShape

# Query rows of a prefill block: small enough that its scores stay in the second-level cache and that little
# of the causal triangle's empty half is computed, large enough to feed the matrix kernels.
_BLOCK = 128
# Cache positions from which the multiplies win a decode; below, SDPA's single call does (38 us against 47 at
# 1 x 512, 218 against 148 at 4 x 512).
_MATMUL_FROM = 1024


class CpuSlab(SdpaSlab):
    """``SdpaSlab`` with multiplies for prefill and for large decode groups."""

    # Three small calls more take 15 us, the time in which about 300 positions are read.
    call_cost = 256

    def __init__(self, shape: ModelShape, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(shape, dtype, device)
        self._triangle = hidden((_BLOCK, _BLOCK), dtype, device).triu_(1)

    def decode(self, group: DecodeGroup, cache: Tensor, queries: Tensor, out: Tensor) -> None:
        if group.count * group.length < _MATMUL_FROM:
            super().decode(group, cache, queries, out)
            return
        shape = self.shape
        # Slots and heads fold into one batch dimension without a copy: they are neighbours in the slab.
        keys, values = cache[:, group.slot : group.slot + group.count].flatten(1, 2)[:, :, : group.length]
        heads = (queries * self.scale).view(-1, shape.group, shape.head_dim)
        # Keys on the left keep their layout; on the right they would be transposed first.
        scores = torch.bmm(keys, heads.transpose(1, 2))  # [count * kv_heads, length, group]
        if group.mask is not None:
            scores.view(group.count, shape.kv_heads, group.length, shape.group).add_(group.mask.mT)
        result = torch.bmm(torch.softmax(scores.mT, -1), values)
        out.copy_(result.view(out.shape))

    def prefill(self, queries: Tensor, keys: Tensor, values: Tensor, start: int, out: Tensor) -> None:
        """Block by block of query rows, over just the keys each block may see."""
        shape, count = self.shape, len(queries)
        heads = (queries * self.scale).view(count, shape.kv_heads, shape.group, shape.head_dim)
        heads = heads.permute(1, 2, 0, 3)
        for first in range(0, count, _BLOCK):
            last = min(first + _BLOCK, count)
            size, seen = last - first, start + last
            block = heads[:, :, first:last].reshape(shape.kv_heads, -1, shape.head_dim)
            scores = torch.bmm(block, keys[:, :seen].mT)
            diagonal = scores.view(shape.heads, size, seen)[:, :, seen - size :]
            diagonal += self._triangle[:size, :size]
            result = torch.bmm(torch.softmax(scores, -1), values[:, :seen])
            out[first:last] = result.view(shape.heads, size, shape.head_dim).transpose(0, 1)


def attention_for(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> AttentionBackend:
    """The backend measured to be fastest on this kind of device."""
    return CpuSlab(shape, dtype, device) if device.type == "cpu" else SdpaSlab(shape, dtype, device)
