"""A matrix multiply whose weight may be laid out in advance for the CPU's matrix kernels.

oneDNN can reorder a weight once into the blocked layout its kernels want ("prepacking"). At one token a step
the linears then run about twice as fast, and in fp32 also at 512 tokens, where the plain path falls back to
a slower library. The operators are private to torch, so they are probed, not trusted: unless a small product
comes out right, or with ``PDSERVE_PREPACK=0``, the plain ``F.linear`` is used.
"""

from __future__ import annotations

import os
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor


class Linear:
    """``y = x @ weight.T``: x ``[tokens, in]``, weight ``[out, in]``, y ``[tokens, out]``; no bias.

    ``prepack`` None means: when it works here. Only one copy of the weight is kept.
    """

    __slots__ = ("packed", "weight")

    def __init__(self, weight: Tensor, *, prepack: bool | None = None) -> None:
        if prepack is None:
            prepack = prepack_works(weight.device.type, weight.dtype)
        self.packed = prepack
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None) if prepack else weight

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packed:
            return F.linear(x, self.weight)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return y


def prepack_works(device: str, dtype: torch.dtype) -> bool:
    """Whether prepacked products are wanted (``PDSERVE_PREPACK``) and right on this machine."""
    return device == "cpu" and os.environ.get("PDSERVE_PREPACK", "1") != "0" and _probe(dtype)


@cache
def _probe(dtype: torch.dtype) -> bool:
    """One small product both ways. Small whole numbers are exact in bfloat16, so any
    difference is a fault."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = (torch.arange(5 * 32).view(5, 32) % 7 - 3).to(dtype)
    weight = (torch.arange(48 * 32).view(48, 32) % 5 - 2).to(dtype)
    try:
        with torch.inference_mode():
            return bool(torch.equal(Linear(weight, prepack=True)(x), F.linear(x, weight)))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
