"""Who carries the load of the page's runs: an engine beside this process, or workers, in the greenlets of the page.

The page's own Locust environment is the one with the master, so that Locust's tables and its list of workers are alive.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import gevent

from pdbench.fleetspec import LOOPBACK, FleetSpec
from pdbench.load import shape
from pdbench.load.away import Away
from pdbench.load.children import Children
from pdbench.load.core import Core
from pdbench.load.delta import Delta
from pdbench.load.job import Job
from pdbench.load.outcome import Crew, Edit, LoadOutcome, OnDelta, ShouldStop
from pdbench.load.steer import Local

_LINGER_MS = 200
_TEND_S = 1.0


class PageCrew:
    """A carrier for ``web.runs``. Make it, and close it, in the page's thread; ``run`` is called from the verb's.

    ``say`` is told who comes and goes. Raises ``UsageError`` where the workers' port is taken.
    """

    def __init__(self, spec: FleetSpec | None, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._children: Children | None = None
        self._core: Core | None = None
        self.runner: Any
        if spec is None:
            self.environment, self.runner = shape.plain()
            self._local = Local(self.environment)
        else:
            host, port = (LOOPBACK, 0) if spec.processes else (spec.bind, spec.port)
            self.environment, self.runner = shape.master(host, port)
            self._core = Core(self.runner, say)
        self._open = self._idle = True
        self._say = say
        self._away = Away(gevent.get_hub(), lambda: self._open, queue.SimpleQueue(), say)

    @property
    def workers_port(self) -> int | None:
        return self._core.port if self._core is not None else None

    def hire(self) -> None:
        """Start workers of our own, if they were asked for."""
        if self._spec is not None and self._spec.processes and self._core is not None:
            self._children = Children(self._spec.processes, self._core.port)
            self._core.watch(self._children.how_gone)
            gevent.spawn(self._tend)

    def _tend(self) -> None:
        """Between runs, start local workers again that have died: without any, Locust's form would stay shut."""
        while self._open:
            gevent.sleep(_TEND_S)
            if self._children is not None and self._idle:
                self._children.revive(self._say)

    # ---- the verb's thread

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """One job. See ``steer.run_load``."""
        self._idle = False
        try:
            return self._carry(job, on_delta, should_stop)
        finally:
            self._idle = True

    def _carry(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        if self._core is not None and self._spec is not None:
            self._away.gather(self._core, self._spec, self._children, should_stop)
        carrier: Crew = self._core or self._local
        stop = threading.Event()

        def carry(tell: Callable[[Delta], None]) -> LoadOutcome:
            self.runner.stats.clear_all()  # the tables are those of the run that is going
            return carrier.run(job, tell, stop.is_set)

        return self._away.call(carry, on_delta, should_stop=should_stop, stop=stop)

    # ---- the page's thread

    def retime(self, run_id: str, factor: float) -> Edit | None:
        """Change the rate of a run; None where that is not the one that is going, or nothing is left of it."""
        return (self._core or self._local).retime(run_id, factor)

    def lost(self) -> list[str]:
        """Workers lost in the run that is going, with why."""
        return self._core.lost() if self._core is not None else []

    def close(self) -> None:
        """Tell the workers that it is over, and wait for our own."""
        self._open = False
        if self._core is not None:
            self._core.quit(_LINGER_MS)
        else:
            self.runner.quit()
        if self._children is not None:
            self._children.stop()
            self._children = None
