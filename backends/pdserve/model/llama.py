"""The Llama forward pass over the flattened tokens of one step.

A layer is: normalise, project to queries, keys and values, rotate queries and keys by their position, store
keys and values, attend, project back; then normalise, and a gated feed-forward. Both halves add to a residual
stream ``x``. Rows are independent everywhere but in attention, which is why prefill chunks and decodes of
different sequences can share the linears of one step: that sharing is all that "continuous batching" means
to a model.

Follows the reference implementation of Hugging Face transformers (``LlamaForCausalLM``), to 1e-4 in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from pdserve.model.attention import AttentionBackend
from pdserve.model.attention_cpu import attention_for
from pdserve.model.batch import Batch
from pdserve.model.config import ModelShape
from pdserve.model.kv import KVSlab
from pdserve.model.linear import Linear
from pdserve.model.weights import EMBEDDING, FINAL_NORM, HEAD, layer_name


class Layer:
    """One layer's weights. Projections that read the same input are stacked: one large multiply is faster
    than three small ones."""

    def __init__(self, weights: Mapping[str, Tensor], index: int, prepack: bool | None) -> None:
        def stack(*parts: str) -> Linear:
            return Linear(torch.cat([weights[layer_name(index, part)] for part in parts]), prepack=prepack)

        self.attention_norm = weights[layer_name(index, "input_layernorm")]
        self.qkv = stack("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.attention_out = stack("self_attn.o_proj")
        self.mlp_norm = weights[layer_name(index, "post_attention_layernorm")]
        self.gate_up = stack("mlp.gate_proj", "mlp.up_proj")
        self.down = stack("mlp.down_proj")


class Llama:
    """A model on one device. ``weights`` by Hugging Face names, in the dtype to compute in."""

    def __init__(
        self,
        shape: ModelShape,
        weights: Mapping[str, Tensor],
        *,
        device: torch.device,
        attention: AttentionBackend | None = None,
        prepack: bool | None = None,
    ) -> None:
        weights = {name: tensor.to(device) for name, tensor in weights.items()}
        self.shape = shape
        self.embedding = weights[EMBEDDING]
        self.dtype = self.embedding.dtype
        self.layers = [Layer(weights, index, prepack) for index in range(shape.layers)]
        self.final_norm = weights[FINAL_NORM]
        self.head = Linear(self.embedding if shape.tied else weights[HEAD], prepack=prepack)
        self.attention = attention or attention_for(shape, self.dtype, device)
        self.cos, self.sin = rotation(shape, self.dtype, device)

    def forward(self, batch: Batch, kv: KVSlab, *, all_rows: bool = False) -> Tensor:
        """Run one step and write its keys and values into ``kv``.

        Returns logits ``[samples, vocab]`` for ``batch.sample_rows``, or ``[rows, vocab]`` for every row.
        The last layer works only on the rows whose logits are wanted once their neighbours' keys and values
        are stored: nothing reads the others.
        """
        rows = None if all_rows else batch.sample_rows
        plan = self.attention.plan(batch)
        cos, sin = self.cos[batch.positions], self.sin[batch.positions]
        x = self.embedding[batch.tokens]
        for index, layer in enumerate(self.layers):
            attended = self.attention.attend(plan, kv.layer(index), self._qkv(layer, x, cos, sin))
            if rows is not None and index == len(self.layers) - 1:
                if not len(rows):
                    return x.new_empty((0, self.shape.vocab))
                attended, x = attended[rows], x[rows]
            x = x + layer.attention_out(attended)
            x = x + self._mlp(layer, x)
        return self.head(self._norm(x, self.final_norm))

    def _qkv(self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """``[rows, heads + 2 * kv_heads, head_dim]``: queries, keys (both rotated in place), values."""
        shape = self.shape
        qkv = layer.qkv(self._norm(x, layer.attention_norm))
        qkv = qkv.view(len(x), shape.heads + 2 * shape.kv_heads, shape.head_dim)
        turned = qkv[:, : shape.heads + shape.kv_heads]
        # Hugging Face's convention pairs number i with i + head_dim / 2: rolling by half swaps the partners,
        # and ``sin`` carries the minus sign of the rotation matrix in its first half.
        torch.addcmul(turned * cos, turned.roll(shape.head_dim // 2, -1), sin, out=turned)
        return qkv

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(self._norm(x, layer.mlp_norm)).chunk(2, -1)
        return layer.down(F.silu(gate).mul_(up))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self.shape.norm_eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` by row, in fp32 inside (Zhang and Sennrich 2019, arXiv 1910.07467).

    torch fuses it on GPUs only; its CPU version takes up to eight times as long as these few calls.
    """
    if x.device.type != "cpu":
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    wide = x.float()
    length: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = (length * length / x.shape[-1]).add_(eps).rsqrt_()
    normal: Tensor = (wide * inverse).to(x.dtype)
    return normal.mul_(weight)


def rotation(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines ``[max_len, 1, head_dim]`` of RoPE (Su et al. 2021, arXiv 2104.09864)."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    frequencies = _scaled(1.0 / shape.rope_theta**exponents, shape)
    angles = torch.outer(torch.arange(shape.max_len, dtype=torch.float32), frequencies)
    cos = torch.cat([angles.cos(), angles.cos()], -1)
    sin = torch.cat([-angles.sin(), angles.sin()], -1)
    return cos[:, None].to(device, dtype), sin[:, None].to(device, dtype)


def _scaled(frequencies: Tensor, shape: ModelShape) -> Tensor:
    """Llama 3.1's stretch: slow waves are slowed by ``factor``, fast ones kept, those between blended."""
    scaling = shape.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_len * frequencies / (2 * math.pi)  # full turns within the original context
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0.0, 1.0)
    return frequencies * keep + frequencies / scaling.factor * (1.0 - keep)
