"""Shipping a job to a worker and its journal back, in bounded messages.

A journal is shipped *while* it grows, once a second, so that of a worker that is killed everything is kept that it
had flushed; and never more than a window ahead of what the master has acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pdbench.load.messages import PART_BYTES, WINDOW_BYTES


def pieces(data: bytes, size: int = PART_BYTES) -> Iterator[bytes]:
    """``data`` in order, each piece at most ``size`` bytes."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Parcel:
    """Takes pieces until ``size`` bytes are there."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._data = bytearray()

    def add(self, data: bytes) -> bytes | None:
        """The whole, once it is complete. Raises ``ValueError`` when more comes than was announced."""
        self._data += data
        if len(self._data) > self._size:
            raise ValueError(f"{len(self._data)} bytes came, {self._size} were announced")
        return bytes(self._data) if len(self._data) == self._size else None


class JournalTail:
    """The growing journal on the worker's side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sent = 0
        self._acknowledged = 0

    def acknowledge(self, upto: int) -> None:
        self._acknowledged = max(self._acknowledged, min(upto, self._sent))

    def next(self) -> bytes:
        """What may be sent now; ``b""`` when the window is full or nothing is new."""
        room = min(PART_BYTES, WINDOW_BYTES - (self._sent - self._acknowledged))
        if room <= 0 or not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._sent)
            data = file.read(room)
        self._sent += len(data)
        return data

    @property
    def complete(self) -> bool:
        """All that is in the file now has been sent."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return self._sent >= size


class JournalSink:
    """The same file on the master's side. Its end may be torn, as that of any journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self.size = 0

    def add(self, data: bytes) -> int:
        """Append; how many bytes there are now."""
        self._file.write(data)
        self.size += len(data)
        return self.size

    def close(self) -> None:
        self._file.close()
