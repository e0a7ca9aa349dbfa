"""The KV cache: one slab, one row of it (a slot) per sequence.

A slot holds ``max_len`` positions in one piece. Paging saves memory when lengths differ, but on a CPU the
gather it needs makes attention 2.6 to 4.4 times slower; a slab is read in place. Reserving is nearly free,
since the operating system hands out a page when it is first written.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pdserve.model.config import ModelShape

_SAME_SIZE_INT = {2: np.int16, 4: np.int32}


class KVSlab:
    """``data``: ``[layers, 2 (key, value), slots, kv_heads, max_len, head_dim]``, zero at first.

    Zeros matter: batched attention reads past a short sequence's end and multiplies what it finds by
    nothing, and nothing times NaN is NaN.
    """

    def __init__(
        self, shape: ModelShape, slots: int, max_len: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots: must be at least 1, got {slots}")
        if not 1 <= max_len <= shape.max_len:
            raise ValueError(f"max_len: must be in 1 .. {shape.max_len} (the model's maximum), got {max_len}")
        self.slots = slots
        self.max_len = max_len
        self.data = _lazy_zeros(
            (shape.layers, 2, slots, shape.kv_heads, max_len, shape.head_dim), dtype, torch.device(device)
        )
        self.bytes_per_token = shape.layers * 2 * shape.kv_heads * shape.head_dim * self.data.element_size()

    @property
    def device(self) -> torch.device:
        return self.data.device

    def layer(self, index: int) -> Tensor:
        """``[2, slots, kv_heads, max_len, head_dim]`` of one layer; a view."""
        return self.data[index]

    def view(self, slot: int, n: int) -> Tensor:
        """The first ``n`` positions of a slot, ``[layers, 2, kv_heads, n, head_dim]``; a strided view to copy
        from or into when KV moves between workers."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} is not in 0 .. {self.slots - 1}")
        if not 0 <= n <= self.max_len:
            raise IndexError(f"{n} positions do not fit a slot of {self.max_len}")
        return self.data[:, :, slot, :, :n]


def _lazy_zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    # numpy's zeros are calloc's: pages stay untouched until written. torch.zeros would write them all.
    raw = np.zeros(size, dtype=_SAME_SIZE_INT[dtype.itemsize])
    return torch.from_numpy(raw).view(dtype)
