"""How fast is this device right now? Three short, fixed pieces of work, timed: the run's calibration.

Shared machines drift. A comparison of two arms is fair only while the device under them is the same, so the harness
asks for this before every run and compares the answers inside a pair. It runs in the worker itself, on its cores, its
threads and its priority, between two steps.
"""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

_REPEATS = 7
_MATRIX = 512
_PRODUCTS = 24
_COPY_BYTES = 16 << 20


def probe(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Medians of seven: ``gemm_ms`` (24 products of 512 x 512 in ``dtype``), ``copy_ms`` (16 MiB within the device's
    memory), ``transfer_ms`` (16 MiB into shared host memory, the way KV leaves)."""
    with torch.inference_mode():
        a = torch.ones(_MATRIX, _MATRIX, dtype=dtype, device=device)
        source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        shared = torch.frombuffer(mmap.mmap(-1, _COPY_BYTES), dtype=torch.uint8)
        return {
            "gemm_ms": _median_ms(lambda: _multiply(a), device),
            "copy_ms": _median_ms(lambda: target.copy_(source), device),
            "transfer_ms": _median_ms(lambda: shared.copy_(source), device),
        }


def _multiply(a: Tensor) -> None:
    for _ in range(_PRODUCTS):
        torch.mm(a, a)


def _median_ms(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for turn in range(_REPEATS + 1):
        start = time.monotonic_ns()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:  # the first touches pages and generates kernels
            times.append((time.monotonic_ns() - start) / 1e6)
    return statistics.median(times)
