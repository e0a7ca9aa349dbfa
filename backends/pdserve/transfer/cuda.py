"""KV from GPU to GPU: the staging places live on the sender's device, the receiver opens them by CUDA IPC.

Not yet run on a machine with two GPUs. The order that makes it right: the sender copies slot -> place on a side
stream after the last KV write, waits for that copy's event, and only then says ``Pushed``; the receiver copies
place -> slot device to device on its own side stream and waits likewise before it acknowledges. The generation
counters stay in host shared memory. The sender's memory outlives its readers: a place is released only by message,
and the area lives as long as the worker. Where the devices cannot reach each other, ``connectors.choose`` falls back to
pinned shared memory.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from pdserve.model.kv import KVSlab
from pdserve.transfer.base import Outbox, Places, StaleTransfer, Ticket
from pdserve.transfer.memory import SharedMemory, StagingOwner
from pdserve.transfer.shm import copy_complete, place_bytes, side_stream


class CudaSender(StagingOwner):
    """Owns ``staging`` places on its own GPU."""

    def __init__(self, kv: KVSlab, staging: int) -> None:
        self._kv = kv
        super().__init__(Places(staging), SharedMemory.create("pdserve-kv-generations", 8 * staging))
        self._generations = torch.frombuffer(self._memory.map, dtype=torch.int64)
        self._area = torch.empty(staging, place_bytes(kv), dtype=torch.uint8, device=kv.device)
        self._stream = side_stream(kv.device)

    def outbox(self) -> Outbox:
        handle: tuple[Any, ...] = self._area.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
        return self._memory.outbox("cuda", msgspec.msgpack.encode(handle))

    def push(self, slot: int, positions: int) -> Ticket | None:
        place = self._places.take()
        if place is None:
            return None
        generation = self._places.generations[place]
        self._generations[place] = generation
        source = self._kv.view(slot, positions)
        nbytes = source.numel() * source.element_size()
        target = self._area[place, :nbytes].view(source.dtype).view(source.shape)
        copy_complete(target, source, self._kv.device, self._stream)
        return Ticket(place, generation, nbytes)


class CudaReceiver:
    def __init__(self, kv: KVSlab) -> None:
        self._kv = kv
        self._areas: dict[int, tuple[SharedMemory, torch.Tensor, torch.Tensor]] = {}
        self._stream = side_stream(kv.device)

    def connect(self, source: int, outbox: Outbox) -> None:
        handle = msgspec.msgpack.decode(outbox.handle)
        storage = torch.UntypedStorage._new_shared_cuda(*handle)
        area = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        memory = SharedMemory.open(outbox)
        generations = torch.frombuffer(memory.map, dtype=torch.int64)
        self._areas[source] = (memory, generations, area.view(-1, place_bytes(self._kv)))

    def pull(self, source: int, place: int, generation: int, slot: int, positions: int) -> None:
        _, generations, area = self._areas[source]
        target = self._kv.view(slot, positions)
        nbytes = target.numel() * target.element_size()
        origin = area[place, :nbytes].view(target.dtype).view(target.shape)
        for moment in ("before", "after"):
            if int(generations[place]) != generation:
                raise StaleTransfer(f"staging place {place} was given up {moment} the copy")
            if moment == "before":
                copy_complete(target, origin, self._kv.device, self._stream)

    def close(self) -> None:
        for memory, _, _ in self._areas.values():
            memory.close()
