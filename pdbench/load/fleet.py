"""The master's side of ``--expect-workers`` and ``--processes``: a fleet of workers that carries every run.

    with Fleet(spec, say) as fleet:
        fleet.gather()
        outcome = run_load(job, fleet=fleet)

Locust's MasterRunner lives in a thread of its own, with its own gevent hub: the verbs wait in their own ways
(subprocesses, statistics), and workers must have their heartbeats answered meanwhile.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import gevent
from gevent.event import Event

from pdbench.fleetspec import LOOPBACK, FleetSpec
from pdbench.load.away import Away
from pdbench.load.children import Children
from pdbench.load.core import Core
from pdbench.load.job import Job
from pdbench.load.outcome import LoadOutcome, OnDelta, ShouldStop

_CLOSE_S = 10.0
_LINGER_MS = 200  # for the farewell; a worker that hangs must not keep us


class Fleet:
    """``say`` is told who comes and goes, from this thread, whenever this thread waits for the fleet."""

    def __init__(self, spec: FleetSpec, say: Callable[[str], None]) -> None:
        """Listens, and starts workers of our own. Raises ``UsageError`` where the port is taken."""
        self._spec = spec
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._children: Children | None = None
        self._started: queue.SimpleQueue[tuple[Core, Any, Event] | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="pdbench-fleet", daemon=True)
        self._thread.start()
        started = self._started.get()
        if isinstance(started, BaseException):
            raise started
        self._core, self._hub, self._closing = started
        self._away = Away(self._hub, self._thread.is_alive, self._said, say)
        if spec.processes:
            self._children = Children(spec.processes, self._core.port)
            self._core.watch(self._children.how_gone)
        else:
            say(f"waiting for {spec.expect} workers on {spec.bind}:{self._core.port}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- for the verbs

    def gather(self, should_stop: ShouldStop = None) -> None:
        """See ``Away.gather``."""
        self._away.gather(self._core, self._spec, self._children, should_stop)

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """One job, shared out. See ``steer.run_load``."""
        self.gather(should_stop)
        stop = threading.Event()
        return self._away.call(
            lambda tell: self._core.run(job, tell, stop.is_set), on_delta, should_stop=should_stop, stop=stop
        )

    def close(self) -> None:
        """Tell the workers that it is over, and wait for our own."""
        if self._thread.is_alive():
            self._hub.loop.run_callback_threadsafe(self._closing.set)
            self._thread.join(_CLOSE_S)
        if self._children is not None:
            self._children.stop()
            self._children = None

    # ---- the thread

    def _live(self) -> None:
        """Gevent's home: everything of Locust happens here."""
        hub, closing = gevent.get_hub(), Event()
        try:
            host, port = (LOOPBACK, 0) if self._spec.processes else (self._spec.bind, self._spec.port)
            core = Core.listen(host, port, self._said.put)
        except BaseException as error:  # raised again in the caller's thread
            self._started.put(error)
            return
        self._started.put((core, hub, closing))
        try:
            closing.wait()
            core.quit(_LINGER_MS)
        finally:
            hub.destroy(destroy_loop=True)
