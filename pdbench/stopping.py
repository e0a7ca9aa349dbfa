"""Ctrl-C without loss: the first signal asks, the second insists.

The first SIGINT or SIGTERM sets a flag that every wait looks at, so that a run drains, what was measured is
written and every server is stopped. A second one raises ``KeyboardInterrupt`` at once; the servers still end,
since each of them watches the pipe it was started with.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from pdbench.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Set by a signal; use as a context manager around everything that starts processes."""

    def __init__(self, *, signals: bool = True) -> None:
        """``signals=False``: whoever owns the process has its own way to say stop, and sets ``requested``."""
        self.requested = False
        self._signals = _SIGNALS if signals else ()
        self._old: dict[signal.Signals, object] = {}

    def __call__(self) -> bool:
        return self.requested

    def check(self) -> None:
        """Raise ``Interrupted`` when a stop was asked for."""
        if self.requested:
            raise Interrupted("interrupted")

    def __enter__(self) -> StopFlag:
        for number in self._signals:
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._signals:
            old = self._old[number]
            signal.signal(number, old if callable(old) or isinstance(old, int) else signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
