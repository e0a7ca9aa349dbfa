"""Which connector a deployment uses: the one place where they are listed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pdserve.model.kv import KVSlab
from pdserve.transfer.base import Receiver, Sender
from pdserve.transfer.cuda import CudaReceiver, CudaSender
from pdserve.transfer.shm import ShmReceiver, ShmSender

SENDERS: dict[str, Callable[[KVSlab, int], Sender]] = {"shm": ShmSender, "cuda": CudaSender}
RECEIVERS: dict[str, Callable[[KVSlab], Receiver]] = {"shm": ShmReceiver, "cuda": CudaReceiver}


def choose(asked: str, devices: list[str]) -> str:
    """``auto`` and ``cuda`` become ``cuda`` only where every pair of the hand-off's GPUs can reach each other."""
    if asked == "shm" or not all(d.startswith("cuda:") for d in devices):
        return "shm"
    indices = [int(d.removeprefix("cuda:")) for d in devices]
    reachable = all(a == b or torch.cuda.can_device_access_peer(a, b) for a in indices for b in indices)
    return "cuda" if reachable else "shm"


def make_sender(connector: str, kv: KVSlab, staging: int) -> Sender:
    return SENDERS[connector](kv, staging)


def make_receiver(connector: str, kv: KVSlab) -> Receiver:
    return RECEIVERS[connector](kv)
