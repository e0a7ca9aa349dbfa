"""KV through preallocated shared memory: the default connector, and the pinned bounce for GPUs without a direct path.

Sender's slab -> staging place -> receiver's slab: two copies and two messages. Each staging place starts with its
generation counter (see ``transfer.base``). On a GPU the staging pages are registered with CUDA and the
copies run on a stream of their own, ordered after the last KV write by an event; ``push`` and ``pull`` return only
when their copy is complete, so a slot or place is never reused under a running copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pdserve.model.kv import KVSlab
from pdserve.transfer.base import Outbox, Places, StaleTransfer, Ticket
from pdserve.transfer.memory import SharedMemory, StagingOwner

_LINE_BYTES = 64  # a cache line: places are aligned to it, and the counter has one of its own


def place_bytes(kv: KVSlab) -> int:
    """A place holds the longest sequence."""
    return kv.bytes_per_token * kv.max_len


@torch.inference_mode()
def copy_complete(target: Tensor, source: Tensor, device: torch.device, stream: torch.cuda.Stream | None) -> None:
    """``target.copy_(source)``, complete on return. On CUDA it runs on ``stream``, after all compute so far."""
    if stream is None:
        target.copy_(source)
        return
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(stream)
    done.synchronize()


def side_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Area:
    """Staging memory as tensors: the generation counters and the places."""

    def __init__(self, memory: SharedMemory, kv: KVSlab) -> None:
        self.memory = memory
        self._places = torch.frombuffer(memory.map, dtype=torch.uint8).view(-1, _stride(kv))
        self.generations = self._places[:, :8].view(torch.int64)[:, 0]
        if kv.device.type == "cuda":
            register = torch.cuda.cudart().cudaHostRegister  # type: ignore[no-untyped-call]
            torch.cuda.check_error(register(memory.address, memory.size, 0))

    def place(self, index: int, like: Tensor) -> Tensor:
        """Place ``index`` shaped as ``like`` (``[layers, 2, kv_heads, positions, head_dim]``), contiguous."""
        nbytes = like.numel() * like.element_size()
        return self._places[index, _LINE_BYTES : _LINE_BYTES + nbytes].view(like.dtype).view(like.shape)


def _stride(kv: KVSlab) -> int:
    return _LINE_BYTES + -(-place_bytes(kv) // _LINE_BYTES) * _LINE_BYTES


class ShmSender(StagingOwner):
    """Owns ``staging`` places of the size of one slot."""

    def __init__(self, kv: KVSlab, staging: int) -> None:
        self._kv = kv
        super().__init__(Places(staging), SharedMemory.create("pdserve-kv", staging * _stride(kv)))
        self._area = _Area(self._memory, kv)
        self._stream = side_stream(kv.device)

    def outbox(self) -> Outbox:
        return self._memory.outbox("shm")

    def push(self, slot: int, positions: int) -> Ticket | None:
        place = self._places.take()
        if place is None:
            return None
        generation = self._places.generations[place]
        self._area.generations[place] = generation
        source = self._kv.view(slot, positions)
        target = self._area.place(place, source)
        copy_complete(target, source, self._kv.device, self._stream)
        return Ticket(place, generation, target.numel() * target.element_size())


class ShmReceiver:
    def __init__(self, kv: KVSlab) -> None:
        self._kv = kv
        self._areas: dict[int, _Area] = {}
        self._stream = side_stream(kv.device)

    def connect(self, source: int, outbox: Outbox) -> None:
        self._areas[source] = _Area(SharedMemory.open(outbox), self._kv)

    def pull(self, source: int, place: int, generation: int, slot: int, positions: int) -> None:
        area = self._areas[source]
        target = self._kv.view(slot, positions)
        self._check(area, place, generation)
        copy_complete(target, area.place(place, target), self._kv.device, self._stream)
        self._check(area, place, generation)

    def _check(self, area: _Area, place: int, generation: int) -> None:
        present = int(area.generations[place])
        if present != generation:
            raise StaleTransfer(f"staging place {place} is at generation {present}, not {generation}")

    def close(self) -> None:
        for area in self._areas.values():
            area.memory.close()
