"""Shared memory that cannot leak: an anonymous memfd, found by its owner's process and descriptor number.

There is no name in the file system, so nothing is left behind whatever dies when: the pages go with the last
process that maps them.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from pdserve.transfer.base import Outbox, Places


class SharedMemory:
    """``size`` bytes, all pages made at once so that no hand-off pays for page faults."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.map = mmap.mmap(fd, size)

    @classmethod
    def create(cls, name: str, size: int) -> SharedMemory:
        """Raises ``OSError`` when the machine has no room for it."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.posix_fallocate(fd, 0, size)
        return cls(fd, size)

    @classmethod
    def open(cls, outbox: Outbox) -> SharedMemory:
        """Opens what another process of this user published with ``outbox``. Raises ``OSError`` if it is gone."""
        fd = os.open(f"/proc/{outbox.pid}/fd/{outbox.fd}", os.O_RDWR | os.O_CLOEXEC)
        return cls(fd, os.fstat(fd).st_size)

    def outbox(self, connector: str, handle: bytes = b"") -> Outbox:
        return Outbox(connector, os.getpid(), self.fd, handle)

    @property
    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def close(self) -> None:
        """Closes the descriptor; the mapping goes with the tensors that look at it."""
        os.close(self.fd)


class StagingOwner:
    """What every sender shares: its places, and the memory their generations lie in."""

    def __init__(self, places: Places, memory: SharedMemory) -> None:
        self._places = places
        self._memory = memory

    def release(self, place: int, generation: int) -> None:
        self._places.give_back(place, generation)

    @property
    def staged(self) -> int:
        return self._places.used

    def close(self) -> None:
        self._memory.close()
