"""A fleet inside Locust's own greenlets: what the thread of ``fleet.py`` and ``locust --master`` both run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from pdbench.load import shape
from pdbench.load.job import Job
from pdbench.load.muster import Member, Muster
from pdbench.load.outcome import Edit, LoadOutcome, OnDelta, ShouldStop
from pdbench.load.round import Round


class Core:
    """A muster of workers and one round at a time. ``run`` makes it a ``Crew`` for ``locust --master``."""

    def __init__(self, runner: Any, say: Callable[[str], None]) -> None:
        self._runner = runner
        self._muster = Muster(runner, say)
        self._members: Sequence[Member] = ()
        self._round: Round | None = None

    @classmethod
    def listen(cls, host: str, port: int, say: Callable[[str], None]) -> Self:
        """A core of its own. Raises ``UsageError`` where it cannot listen."""
        _, runner = shape.master(host, port)
        return cls(runner, say)

    @property
    def port(self) -> int:
        return int(self._runner.server.port)

    def gather(self, count: int, limit_s: float, given_up: Callable[[], str] = lambda: "") -> None:
        """Fix who takes part. Raises ``WorkersMissingError``."""
        self._members = self._muster.gather(count, limit_s, given_up)

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """One round with those who were gathered."""
        self._round = one = Round(self._muster, self._members, job)
        try:
            return one.play(on_delta, should_stop)
        finally:
            self._round = None

    def retime(self, run_id: str, factor: float) -> Edit | None:
        """What is left of the run of this id comes ``factor`` times as fast from a moment ahead on; None: nothing is
        left, or another run goes."""
        one = self._round
        return one.retime(factor) if one is not None and one.id == run_id else None

    def lost(self) -> list[str]:
        """Who was lost in the round that is being played, and why. Of one that is over its outcome tells."""
        return self._round.lost if self._round is not None else []

    def watch(self, how_gone: Callable[[int], str]) -> None:
        """``how_gone`` says how the process of a pid on this host ended; ``""`` while it lives or is not known."""
        self._muster.gone = lambda member: how_gone(member.hello.pid) if member.on_this_host else ""

    def quit(self, linger_ms: int) -> None:
        """Tell all workers that it is over."""
        self._runner.quit()
        self._runner.server.close(linger=linger_ms)
