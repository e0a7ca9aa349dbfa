"""How fast the reference engine is on one core, next to what the core can do at all.

Decode is bound by memory: every step reads all weights and every sequence's KV. Prefill is bound by matrix
arithmetic. So each measurement is printed with its share of the limit measured beside it: a large matrix
multiply for prefill, a read of memory for decode. Machines drift by a quarter within minutes; rounds are
therefore interleaved over all measurements and the best of each is kept.

    python benchmarks/engine.py [--preset llama-30m] [--rounds 5] [--core 0]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backends"))

import torch

from pdserve.executors.torch_executor import TorchExecutor, build_executor
from pdserve.model.config import PRESETS, ModelShape, dtype_bytes, kv_bytes_per_token
from pdserve.model.linear import Linear
from pdserve.model.weights import DTYPES
from pdserve.sequence import Chunk, Sequence

CONTEXT = 512
BATCHES = (1, 4, 8, 16, 32)
_GEMM = 1024
_READ_BYTES = 512 * 1024 * 1024  # far beyond any last-level cache


@dataclass(slots=True)
class Case:
    """One thing to time. ``work`` is what one call does, in ``unit`` (bytes or flops)."""

    name: str
    call: Callable[[], object]
    work: float
    unit: str
    best_s: float = field(default=float("inf"))

    def run(self) -> None:
        self.call()  # untimed: in service a step follows its like, with the caches that one left behind
        start = time.perf_counter()
        self.call()
        self.best_s = min(self.best_s, time.perf_counter() - start)

    @property
    def rate(self) -> float:
        return self.work / self.best_s


def limits(dtype: str) -> tuple[Case, Case]:
    """The core's matrix peak (flop/s) and its memory read rate (bytes/s)."""
    x = torch.ones(_GEMM, _GEMM, dtype=DTYPES[dtype])
    linear = Linear(torch.ones(_GEMM, _GEMM, dtype=DTYPES[dtype]))
    memory = torch.ones(_READ_BYTES // 8, dtype=torch.int64)
    return (
        Case(f"{dtype} matrix peak", lambda: linear(x), 2.0 * _GEMM**3, "flop"),
        Case("memory read", memory.sum, float(_READ_BYTES), "byte"),
    )


def decode_work(shape: ModelShape, dtype: str, batch: int) -> float:
    """Bytes a decode step must read: every weight but the embedding table, and the KV of each context."""
    weights = shape.parameters - (0 if shape.tied else shape.vocab * shape.d_model)
    return weights * dtype_bytes(dtype) + batch * CONTEXT * kv_bytes_per_token(shape, dtype)


def prefill_work(shape: ModelShape) -> float:
    """Flops of a prompt: two per weight and token (without embedding and head), and causal attention."""
    weights = shape.parameters - shape.vocab * shape.d_model * (1 if shape.tied else 2)
    attention = 2 * CONTEXT * CONTEXT * shape.heads * shape.head_dim * shape.layers
    return 2.0 * weights * CONTEXT + attention


def cases(executor: TorchExecutor, dtype: str) -> list[Case]:
    shape = executor.shape
    tokens = list(range(CONTEXT + 1))
    decodes = [
        Chunk(Sequence(str(slot), CONTEXT, 8, list(tokens), slot=slot, computed=CONTEXT, emitted=1), CONTEXT, 1)
        for slot in range(max(BATCHES))
    ]
    prompt = [Chunk(Sequence("prompt", CONTEXT, 8, tokens[:-1], slot=0), 0, CONTEXT)]

    def step(chunks: list[Chunk]) -> Callable[[], object]:
        return lambda: executor.run(chunks)

    found = [
        Case(f"decode B={batch}", step(decodes[:batch]), decode_work(shape, dtype, batch), "byte") for batch in BATCHES
    ]
    return [*found, Case("prefill", step(prompt), prefill_work(shape), "flop")]


def report(dtype: str, peak: Case, memory: Case, measured: list[Case]) -> None:
    print(f"\n{dtype}: matrix peak {peak.rate / 1e9:.0f} GFLOP/s, memory read {memory.rate / 1e9:.1f} GB/s")
    for case in measured:
        limit = peak if case.unit == "flop" else memory
        speed = f"{CONTEXT / case.best_s:,.0f} tok/s" if case.name == "prefill" else f"{case.best_s * 1e3:.2f} ms"
        print(f"  {case.name:12} {speed:>12}   {case.rate / limit.rate:6.1%} of the {limit.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="llama-30m", choices=sorted(PRESETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)

    table: dict[str, tuple[Case, Case, list[Case]]] = {}
    for dtype in DTYPES:
        executor = build_executor(
            preset=options.preset, path=None, seed=0, dtype=dtype, device="cpu", slots=max(BATCHES), max_len=1024
        )
        executor.warm_up()
        table[dtype] = (*limits(dtype), cases(executor, dtype))
    with torch.inference_mode():
        for _ in range(options.rounds):
            for peak, memory, measured in table.values():
                for case in (peak, memory, *measured):
                    case.run()
    print(f"{options.preset}, one core, context and prompt {CONTEXT}, best of {options.rounds} interleaved rounds")
    for dtype, (peak, memory, measured) in table.items():
        report(dtype, peak, memory, measured)


if __name__ == "__main__":
    main()
