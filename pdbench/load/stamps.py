"""Whether the kernel's receive stamps really come, and how long after a write: a few bytes to oneself."""

from __future__ import annotations

import socket
import struct
import time
from time import monotonic_ns

from pdbench.load.clock import ClockOffset
from pdbench.load.wire import SO_TIMESTAMPNS, unpack_stamp

_TIMES = 20
_TIMEOUT_S = 1.0
_TRY_NS = 15_000_000  # the kernel switches stamping on with a delay; elsewhere it is on after the first byte
_TRY_PAUSE_S = 0.0005


def loopback_stamps(clock: ClockOffset, times: int = _TIMES) -> list[int]:
    """Stamp minus the instant before the write (ns), sorted; empty where no stamp comes. Raises OSError."""
    found = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        reader.settimeout(_TIMEOUT_S)
        reader.connect(server.getsockname())
        writer, _ = server.accept()
        with writer:
            for _ in range(times):
                before = monotonic_ns()
                writer.send(b"x")
                _, ancillary, _, _ = reader.recvmsg(16, 64)
                if ancillary:
                    found.append(clock.monotonic_ns(unpack_stamp(ancillary[0][2]), monotonic_ns()) - before)
    return sorted(found)


def stamps_come(limit_ns: int = _TRY_NS) -> bool:
    """Whether a kernel that takes the option gives stamps: some do not (sandboxes). At most about ``limit_ns``."""
    clock = ClockOffset()
    end = monotonic_ns() + limit_ns
    while True:
        try:
            if loopback_stamps(clock, 3):
                return True
        except (OSError, struct.error):
            return False
        if monotonic_ns() >= end:
            return False
        time.sleep(_TRY_PAUSE_S)
