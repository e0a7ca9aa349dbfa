"""How KV gets from a prefill worker's slab into a decode worker's: the two halves of a connector.

A connector is one file with two classes. The sender owns a bounded staging area, made ahead of time. A place in
it carries a *generation* that counts its uses; whoever pulls checks the generation before and after the copy, so
that a place that was given up and used again can never be taken for the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec


class Outbox(msgspec.Struct, frozen=True, array_like=True):
    """Where a staging area is found: its connector, the owner's process and file descriptor, and for a GPU the
    CUDA IPC handle."""

    connector: str
    pid: int
    fd: int
    handle: bytes = b""


class StaleTransfer(Exception):  # noqa: N818 - an outcome the protocol expects
    """The staging place holds something else by now: the hand-off was given up meanwhile."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A filled staging place: which, its generation, and how many bytes lie there."""

    place: int
    generation: int
    nbytes: int


class Sender(Protocol):
    def outbox(self) -> Outbox:
        """What a receiver needs to find the staging area; sent once, by message."""
        ...

    def push(self, slot: int, positions: int) -> Ticket | None:
        """Copies the first ``positions`` of ``slot`` into a free place; ``None`` while none is free.
        When it returns, the slot may be reused."""
        ...

    def release(self, place: int, generation: int) -> None:
        """Frees a place. A release for another generation is ignored: it was freed before."""
        ...

    @property
    def staged(self) -> int:
        """Places in use."""
        ...

    def close(self) -> None: ...


class Receiver(Protocol):
    def connect(self, source: int, outbox: Outbox) -> None:
        """Opens the staging area of worker ``source``."""
        ...

    def pull(self, source: int, place: int, generation: int, slot: int, positions: int) -> None:
        """Copies a place into ``slot``. Raises ``StaleTransfer``."""
        ...

    def close(self) -> None: ...


class Places:
    """Which staging places are free, and the generation of each: the pure half of every sender."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self.generations = [0] * count

    @property
    def used(self) -> int:
        return len(self.generations) - len(self._free)

    def take(self) -> int | None:
        """A free place, its generation counted up; ``None`` while all are in use."""
        if not self._free:
            return None
        place = self._free.pop(0)
        self.generations[place] += 1
        return place

    def give_back(self, place: int, generation: int) -> bool:
        """Frees the place if ``generation`` is its present one and it is in use; else does nothing."""
        if place in self._free or self.generations[place] != generation:
            return False
        self._free.append(place)
        return True
