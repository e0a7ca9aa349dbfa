"""Greenlets of another thread, asked from this one: what they are to do is begun there and waited for here.

Verbs wait in their own ways (subprocesses, statistics) and must not stop a gevent hub: that of a fleet's master, or the
one that serves the web page. So hub and verb live in threads of their own, and meet here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import gevent

from pdbench.errors import Interrupted, PdbenchError, WorkersMissingError
from pdbench.fleetspec import FleetSpec
from pdbench.load.children import Children
from pdbench.load.core import Core
from pdbench.load.delta import Delta
from pdbench.load.outcome import OnDelta, ShouldStop

_POLL_S = 0.1

T = TypeVar("T")


class Away:
    """``hub``: of the other thread; ``alive``: whether that still runs. ``say`` is told, in the thread that waits, what
    was put into ``said`` over there."""

    def __init__(
        self, hub: Any, alive: Callable[[], bool], said: queue.SimpleQueue[str], say: Callable[[str], None]
    ) -> None:
        self._hub = hub
        self._alive = alive
        self._said = said
        self._say = say

    def call(
        self,
        do: Callable[[Callable[[Delta], None]], T],
        on_delta: OnDelta = None,
        *,
        should_stop: ShouldStop = None,
        stop: threading.Event | None = None,
    ) -> T:
        """Run ``do`` in a greenlet over there, and wait for it here: Ctrl-C sets ``stop``, twice is raised. Raises what
        ``do`` raises."""
        news: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def work() -> None:
            try:
                news.put(("result", do(lambda delta: news.put(("delta", delta)))))
            except BaseException as error:
                news.put(("error", error))

        self._hub.loop.run_callback_threadsafe(lambda: gevent.Greenlet(work).start())
        while True:
            try:
                kind, value = self._next(news, should_stop, stop)
            except KeyboardInterrupt:
                if stop is None or stop.is_set():
                    raise
                stop.set()
                continue
            if kind == "result":
                return value  # type: ignore[no-any-return]
            if kind == "error":
                raise value
            if kind == "delta" and on_delta is not None:
                on_delta(value)

    def _next(self, news: queue.SimpleQueue[Any], should_stop: ShouldStop, stop: threading.Event | None) -> Any:
        while not self._said.empty():
            self._say(self._said.get())
        if stop is not None and should_stop is not None and should_stop():
            stop.set()
        if not self._alive():
            raise PdbenchError("the thread that carries the load has ended")
        try:
            return news.get(timeout=_POLL_S)
        except queue.Empty:
            return "nothing", None

    def gather(self, core: Core, spec: FleetSpec, children: Children | None, should_stop: ShouldStop = None) -> None:
        """Wait until all workers are there; local ones that died are started again.

        Raises ``WorkersMissingError`` with who is there, after the time-out.
        """
        if children is not None:
            children.revive()

        def given_up() -> str:
            if should_stop is not None and should_stop():
                return "when it was interrupted"
            why = children.failed() if children is not None else ""
            return f"and a local worker failed: {why}" if why else ""

        try:
            self.call(lambda _: core.gather(spec.workers, spec.timeout_s, given_up))
        except WorkersMissingError:
            if should_stop is not None and should_stop():
                raise Interrupted("interrupted") from None
            raise
