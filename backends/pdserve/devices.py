"""What ``device: 0`` means on this machine: a GPU where there is CUDA, else one of the CPU core sets.

The cores this process may use are split evenly over the devices the file names, so two devices on two cores are
two pinned cores. Where there are fewer cores than devices they are shared, and the device says so. No torch here.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass

from pdserve.config import ConfigError, Problem, WorkerConfig

_EXPLICIT = re.compile(r"^(cpu|cuda):(\d+)$")


@dataclass(frozen=True, slots=True)
class Device:
    """``kind`` cpu or cuda, ``index`` within the kind, ``cores`` to run on (empty: any), ``shared`` if several
    workers compute on it."""

    kind: str
    index: int
    cores: tuple[int, ...]
    shared: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.index}"


def cuda_devices() -> int:
    """How many CUDA devices the driver sees; 0 without a driver. Asks libcuda directly: no torch import."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def resolve(workers: list[WorkerConfig], *, cores: list[int] | None = None, cuda: int | None = None) -> list[Device]:
    """One ``Device`` a worker. ``cores`` and ``cuda`` default to this machine's. Raises ``ConfigError``."""
    cuda = cuda_devices() if cuda is None else cuda
    cores = sorted(os.sched_getaffinity(0)) if cores is None else cores
    named = [_parse(i, w.device, cuda) for i, w in enumerate(workers)]
    cpu_sets = max((index + 1 for kind, index in named if kind == "cpu"), default=0)
    return [
        Device(
            kind,
            index,
            _core_set(index, cpu_sets, cores) if kind == "cpu" else (),
            named.count((kind, index)) > 1 or (kind == "cpu" and cpu_sets > len(cores)),
        )
        for kind, index in named
    ]


def _parse(worker: int, device: int | str, cuda: int) -> tuple[str, int]:
    path = ("workers", worker, "device")
    if isinstance(device, int):
        kind, index = ("cuda", device) if cuda else ("cpu", device)
    else:
        match = _EXPLICIT.match(device)
        if match is None:
            raise ConfigError(Problem(path, f"unknown device {device!r}", "use a number, cpu:N or cuda:N"))
        kind, index = match[1], int(match[2])
    if kind == "cuda" and index >= cuda:
        raise ConfigError(Problem(path, f"there is no cuda:{index}: {cuda} CUDA device(s) found", "use cpu:N or fewer"))
    return kind, index


def _core_set(index: int, sets: int, cores: list[int]) -> tuple[int, ...]:
    if sets > len(cores):
        return (cores[index % len(cores)],)
    first, last = index * len(cores) // sets, (index + 1) * len(cores) // sets
    return tuple(cores[first:last])
