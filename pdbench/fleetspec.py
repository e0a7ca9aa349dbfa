"""How many load workers a call wants, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pdbench.errors import UsageError

DEFAULT_PORT = 5557
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """``expect`` workers that come to us, or ``processes`` of our own (then on a free port of the loopback)."""

    expect: int = 0
    processes: int = 0
    bind: str = LOOPBACK
    port: int = DEFAULT_PORT
    timeout_s: float = 60.0

    @property
    def workers(self) -> int:
        return self.processes or self.expect

    def document(self) -> dict[str, Any]:
        """As a manifest's ``config`` holds it."""
        if self.processes:
            return {"processes": self.processes}
        return {"expect": self.expect, "bind": self.bind, "port": self.port}


def fleet_spec(
    expect: int | None, processes: int | None, bind: str | None, port: int | None, timeout_s: float
) -> FleetSpec | None:
    """What the options ask for; None for no workers. Raises ``UsageError`` where they contradict each other."""
    if expect and processes:
        raise UsageError("--processes starts its own workers", where="--expect-workers", remedy="give one of them")
    if not expect and not processes:
        for name, value in {"--bind": bind, "--port": port}.items():
            if value is not None:
                raise UsageError("needs --expect-workers", where=name)
        return None
    if processes and (bind is not None or port is not None):
        where = "--bind" if bind is not None else "--port"
        raise UsageError("local workers need no address", where=where, remedy="use --expect-workers for other hosts")
    return FleetSpec(expect or 0, processes or 0, bind or LOOPBACK, DEFAULT_PORT if port is None else port, timeout_s)
