"""Tiny models and sequences for the model tests."""

from __future__ import annotations

import torch

from pdserve.executors.torch_executor import TorchExecutor
from pdserve.model.attention import AttentionBackend
from pdserve.model.config import ModelShape
from pdserve.model.weights import DTYPES, random_weights
from pdserve.sequence import GREEDY, Sampling, Sequence

TINY = ModelShape(vocab=97, d_model=32, layers=3, heads=4, kv_heads=2, head_dim=8, d_ff=48, max_len=512, tied=False)


def tiny_executor(
    shape: ModelShape = TINY,
    *,
    dtype: str = "float32",
    slots: int = 6,
    max_len: int = 320,
    prepack: bool | None = None,
    attention: AttentionBackend | None = None,
) -> TorchExecutor:
    return TorchExecutor(
        shape,
        random_weights(shape, 7, DTYPES[dtype]),
        device="cpu",
        dtype=DTYPES[dtype],
        slots=slots,
        max_len=max_len,
        prepack=prepack,
        attention=attention,
    )


def some_tokens(n: int, seed: int = 0, vocab: int = TINY.vocab) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(vocab, (n,), generator=generator).tolist())


def sequence(tokens: tuple[int, ...], slot: int, sampling: Sampling = GREEDY, max_new: int = 64) -> Sequence:
    return Sequence(f"s{slot}", len(tokens), max_new, tokens=list(tokens), sampling=sampling, slot=slot)
