"""An arm through a whole comparison: started once, kept between its runs, started again when it died.

It ties a backend to its server and to what the server said of itself. Everything that could be left running
is behind ``stop``, which the verb calls in every case.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdbench.errors import BackendStartError
from pdbench.target import fingerprint, inspect
from pdbench.target.backend import Backend
from pdbench.target.http import NoAnswer, Refused
from pdbench.target.inspect import Facts
from pdbench.target.server import Server
from pdbench.workload.prompts import PromptMaker

WORKER_MEMORY_BYTES = 900_000_000
"""Resident memory of one reference worker: the runtime's 400 MB, weights, KV slots, work space; measured
for the default preset and rounded up."""


class Arm:
    """One arm. ``died`` holds the pairs in which its server ended by itself."""

    def __init__(self, backend: Backend, log_dir: Path) -> None:
        self.backend = backend
        self.name = backend.name
        self.server = Server(backend, log_dir / f"server-{backend.name}.log")
        self.facts: Facts | None = None
        self.state: dict[str, Any] = {}
        self.died: list[int] = []
        self.last_lines: list[str] = []
        self._broken = False
        self._takes_ids = False

    @property
    def is_pdserve(self) -> bool:
        return self.backend.engine == "pdserve"

    @property
    def running(self) -> bool:
        return self.facts is not None and self.server.alive and not self._broken

    def begin_start(self) -> None:
        """Start the processes without waiting, so that several arms can load at once."""
        self.server.start()

    def finish_start(self, should_stop: Callable[[], bool]) -> None:
        """Wait until it is ready and learn what the run needs to know of it."""
        self.server.await_ready(should_stop)
        self.facts = inspect.inspect(self.backend, self.server.base_url)
        if self.is_pdserve:
            self.state = inspect.admin(self.server.base_url, "state")

    def ensure(self, should_stop: Callable[[], bool]) -> bool:
        """Start it if it does not run. Returns whether it had to. Raises ``BackendStartError``."""
        if self.running:
            return False
        if self.facts is not None and not self.backend.started_by_us:
            return False  # somebody else's server is away: offer the plan, its requests are misses
        self.stop()
        self._broken = False
        self.begin_start()
        self.finish_start(should_stop)
        return True

    def stop(self) -> None:
        self.server.stop()

    def probe(self) -> dict[str, float]:
        """The calibration probe, seconds by kernel; ``{}`` for a server that is not ours."""
        return inspect.probe(self.server.base_url) if self.is_pdserve else {}

    def clear(self) -> None:
        """Forget the counters of the last run (pdserve only)."""
        if not self.is_pdserve:
            return
        try:
            inspect.clear(self.server.base_url)
        except (NoAnswer, Refused) as error:
            raise BackendStartError(f"it does not clear its counters: {error}", where=self.name) from error

    def note_death(self, pair: int) -> None:
        """Remember that the server, or one of its workers, ended by itself during this pair, and its last
        lines. It is started afresh before its next run: half a server is another server."""
        self._broken = True
        self.died.append(pair)
        self.last_lines = self.server.last_lines()

    def prompts(self, salt: str) -> PromptMaker:
        """The prompts of one run: this arm's way of counting, the pair's salt."""
        if self.facts is None:
            raise BackendStartError("it was not started", where=self.name)
        return PromptMaker(
            salt=salt,
            words_per_token=self.facts.words_per_token,
            overhead_tokens=self.facts.overhead_tokens,
        )

    def check_takes_ids(self, ids: list[int]) -> None:
        """Ask once whether it takes a prompt as token ids. Raises ``UsageError`` if not."""
        if self._takes_ids or self.facts is None:
            return
        inspect.check_takes_ids(self.backend, self.server.base_url, self.facts.model, ids)
        self._takes_ids = True

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint.arm(self.backend, self.facts, self.state)

    @property
    def memory_estimate_bytes(self) -> int:
        """A rough need of what we start ourselves; 0 for what runs elsewhere."""
        if not self.is_pdserve:
            return 0
        return WORKER_MEMORY_BYTES * max(1, len(self.backend.data.get("workers") or []))
