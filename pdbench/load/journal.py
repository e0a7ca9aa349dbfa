"""The journal: one record an ended request, appended at once, readable after a kill.

Format: a magic line, then entries of a little-endian uint32 length and that many bytes of msgpack (one
``RequestRecord``). An engine that is killed tears at most the last entry; the reader stops there.
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from pdbench.errors import PdbenchError
from pdbench.measure.records import RequestRecord

MAGIC = b"pdbench journal 1\n"
_LENGTH = struct.Struct("<I")
_BUFFER = 1 << 18


class Journal:
    """Appends records to a new file. ``flush`` is called at least once a second by the engine."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=_BUFFER)
        self._encode = msgspec.msgpack.Encoder().encode
        self._file.write(MAGIC)
        self._file.flush()

    def append(self, record: RequestRecord) -> None:
        data = self._encode(record)
        self._file.write(_LENGTH.pack(len(data)) + data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path | str) -> list[RequestRecord]:
    """The complete entries in the order in which requests ended; a torn last entry is left out.

    Raises PdbenchError when the file is no journal, or when a complete entry does not decode.
    """
    data = Path(path).read_bytes()
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):
            return []  # killed before the first write was complete
        raise PdbenchError("this file is not a pdbench journal", where=str(path))
    decode = msgspec.msgpack.Decoder(RequestRecord).decode
    records: list[RequestRecord] = []
    at = len(MAGIC)
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        start, at = at + _LENGTH.size, at + _LENGTH.size + length
        if at > len(data):
            break
        try:
            records.append(decode(data[start:at]))
        except msgspec.MsgspecError as error:
            raise PdbenchError(f"entry {len(records)} is damaged: {error}", where=str(path)) from None
    return records
