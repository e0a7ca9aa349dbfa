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
from typing import Any, Self, TypeVar

import gevent
from gevent.event import Event

from pdbench.errors import Interrupted, PdbenchError, WorkersMissingError
from pdbench.fleetspec import LOOPBACK, FleetSpec
from pdbench.load.children import Children
from pdbench.load.core import Core
from pdbench.load.delta import Delta
from pdbench.load.job import Job
from pdbench.load.outcome import LoadOutcome, OnDelta, ShouldStop

_POLL_S = 0.1
_CLOSE_S = 10.0
_LINGER_MS = 200  # for the farewell; a worker that hangs must not keep us

T = TypeVar("T")


class Fleet:
    """``say`` is told who comes and goes, from this thread, whenever this thread waits for the fleet."""

    def __init__(self, spec: FleetSpec, say: Callable[[str], None]) -> None:
        """Listens, and starts workers of our own. Raises ``UsageError`` where the port is taken."""
        self._spec = spec
        self._say = say
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._children: Children | None = None
        self._started: queue.SimpleQueue[tuple[Core, Any, Event] | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="pdbench-fleet", daemon=True)
        self._thread.start()
        started = self._started.get()
        if isinstance(started, BaseException):
            raise started
        self._core, self._hub, self._closing = started
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
        """Wait until all workers are there; local ones that died are started again.

        Raises ``WorkersMissingError`` with who is there, after the time-out.
        """
        children = self._children
        if children is not None:
            children.revive()

        def given_up() -> str:
            if should_stop is not None and should_stop():
                return "when it was interrupted"
            why = children.failed() if children is not None else ""
            return f"and a local worker failed: {why}" if why else ""

        try:
            self._call(lambda _: self._core.gather(self._spec.workers, self._spec.timeout_s, given_up))
        except WorkersMissingError:
            if should_stop is not None and should_stop():
                raise Interrupted("interrupted") from None
            raise

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """One job, shared out. See ``steer.run_load``."""
        self.gather(should_stop)
        stop = threading.Event()
        outcome: LoadOutcome = self._call(
            lambda tell: self._core.run(job, tell, stop.is_set), on_delta, should_stop=should_stop, stop=stop
        )
        return outcome

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

    def _call(
        self,
        do: Callable[[Callable[[Delta], None]], T],
        on_delta: OnDelta = None,
        *,
        should_stop: ShouldStop = None,
        stop: threading.Event | None = None,
    ) -> T:
        """Run ``do`` in a greenlet of the fleet's thread, and wait for it here: Ctrl-C stops it, twice is raised."""
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
        if not self._thread.is_alive():
            raise PdbenchError("the fleet's thread has ended")
        try:
            return news.get(timeout=_POLL_S)
        except queue.Empty:
            return "nothing", None
