"""Weights: seeded random ones for the presets, safetensors for real models. Both by Hugging Face names.

Speed does not depend on the values, so random weights are enough to measure a deployment. They must however
be the *same* weights in every worker, or a hand-off from prefill to decode would hand over nonsense. Each
tensor is therefore drawn from a generator seeded by (seed, its name): the order of drawing, the number of
threads and the machine do not matter. Uniform numbers are used because they are exact everywhere; normal
ones go through log and cos, which differ between maths libraries.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pdserve.model.config import ModelError, ModelShape, weight_files

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
# Stored by some exporters though it is a function of the configuration.
_DERIVED_SUFFIX = "rotary_emb.inv_freq"


def layer_name(index: int, part: str) -> str:
    """``layer_name(0, "self_attn.q_proj")`` is the Hugging Face name of that weight."""
    return f"model.layers.{index}.{part}.weight"


def expected_tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Every weight the model needs: name to size ``[out, in]`` or ``[d_model]``."""
    d, q, kv = shape.d_model, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    per_layer = {
        "input_layernorm": (d,),
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "post_attention_layernorm": (d,),
        "mlp.gate_proj": (shape.d_ff, d),
        "mlp.up_proj": (shape.d_ff, d),
        "mlp.down_proj": (d, shape.d_ff),
    }
    names: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocab, d)}
    for index in range(shape.layers):
        names |= {layer_name(index, part): size for part, size in per_layer.items()}
    names[FINAL_NORM] = (d,)
    if not shape.tied:
        names[HEAD] = (shape.vocab, d)
    return names


def random_weights(shape: ModelShape, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that are a pure function of (shape, seed), rounded to ``dtype``.

    Standard deviation 1/sqrt(inputs) keeps activations near unit size, and the two projections that write
    into the residual stream are divided by sqrt(2 * layers) as in GPT-2, so that depth does not amplify:
    logits come out with a standard deviation near 1.
    """
    residual_scale = 1.0 / math.sqrt(2 * shape.layers)
    weights = {}
    for name, size in expected_tensors(shape).items():
        if len(size) == 1:
            weights[name] = torch.ones(size, dtype=dtype)
            continue
        std = 1.0 / math.sqrt(size[1])
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std *= residual_scale
        weights[name] = _uniform(f"{seed}:{name}", size, std).to(dtype)
    return weights


def _uniform(key: str, size: tuple[int, ...], std: float) -> Tensor:
    """Uniform numbers of mean 0 and the given standard deviation, a pure function of ``key``."""
    entropy = int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")
    stream = np.random.Generator(np.random.PCG64(entropy))
    values = stream.random(size, dtype=np.float32)
    values -= np.float32(0.5)
    values *= np.float32(std * math.sqrt(12.0))  # a uniform of width w has standard deviation w / sqrt(12)
    return torch.from_numpy(values)


def load_weights(directory: Path, shape: ModelShape, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of a Hugging Face directory (one safetensors file or an indexed set), as ``dtype``.

    Raises ``ModelError`` that names every missing, unexpected or mis-shaped tensor.
    """
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Tensor] = {}
    expected = expected_tensors(shape)
    unexpected = []
    for file in weight_files(directory):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a mapping
                    if name in expected:
                        weights[name] = _checked(name, tensors.get_tensor(name), expected[name], dtype)
                    elif not _may_ignore(name, shape):
                        unexpected.append(name)
        except SafetensorError as error:
            raise ModelError(f"cannot be read: {error}", file.name) from None
    if unexpected:
        raise ModelError(f"unexpected tensors: {_some(unexpected)}", "safetensors")
    missing = [name for name in expected if name not in weights]
    if missing:
        raise ModelError(f"missing tensors: {_some(missing)}", "safetensors")
    return weights


def _checked(name: str, tensor: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if tuple(tensor.shape) != size:
        raise ModelError(f"has shape {list(tensor.shape)}, config.json implies {list(size)}", name)
    if not tensor.is_floating_point():
        raise ModelError(f"holds {tensor.dtype}, expected floating point (quantised weights?)", name)
    return tensor.to(dtype)


def _may_ignore(name: str, shape: ModelShape) -> bool:
    return name.endswith(_DERIVED_SUFFIX) or (shape.tied and name == HEAD)


def _some(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
