"""Whether the kernel's receive stamps really come, and how long after a write: a few bytes to oneself."""

from __future__ import annotations

import socket
from time import monotonic_ns

from pdbench.load.clock import ClockOffset
from pdbench.load.wire import SO_TIMESTAMPNS, unpack_stamp

_TIMES = 20
_TIMEOUT_S = 1.0


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
