"""What ``device: 0`` means on this machine: a GPU where there is CUDA, else one of the CPU core sets.

The physical cores this process may use are split evenly over the devices the file names, so two devices on two cores
are two pinned cores. Every device gets the same number, or a comparison would be of unequal devices; what is left over
stays with the router and the client. Of a core with several hardware threads one is used: they share its arithmetic
units, so a second adds little, and on another device it would slow the first one down. Where there are fewer cores than
devices they are shared, and the device says so. No torch here.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pdserve.config import ConfigError, Problem, WorkerConfig

Core = tuple[int, ...]  # the CPUs (hardware threads) of one physical core
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
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


def physical_cores(cpus: list[int] | None = None, topology: str = _TOPOLOGY) -> list[Core]:
    """The CPUs this process may use (or ``cpus``), by physical core. Where the kernel does not say, each is one."""
    groups: dict[str, list[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)) if cpus is None else cpus:
        try:
            core = Path(topology.format(cpu)).read_text("ascii").strip()
        except OSError:
            core = f"cpu {cpu}"
        groups.setdefault(core, []).append(cpu)
    return [tuple(group) for group in groups.values()]


def resolve(workers: list[WorkerConfig], *, cores: list[Core] | None = None, cuda: int | None = None) -> list[Device]:
    """One ``Device`` a worker. ``cores`` and ``cuda`` default to this machine's. Raises ``ConfigError``."""
    cuda = cuda_devices() if cuda is None else cuda
    cores = physical_cores() if cores is None else cores
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


def _core_set(index: int, sets: int, cores: list[Core]) -> tuple[int, ...]:
    each = len(cores) // sets
    if each == 0:  # shared: spread over cores first, then over their hardware threads
        core = cores[index % len(cores)]
        return (core[index // len(cores) % len(core)],)
    return tuple(core[0] for core in cores[index * each : (index + 1) * each])
