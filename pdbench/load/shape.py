"""Locust's part of a run, as classes. Importing this module imports locust; steering modules do so, late.

Locust patches sockets, locks and threads of the whole process when imported, and recurses to death in ``ssl``
when ``requests`` was there first. Nothing here needs the patches: what waits, waits on gevent by name. So
they are switched off for our import; where someone has imported locust before us (``locust -f``, the web UI)
this works as well. Master and workers need no patches either: their sockets are zmq.green's, which wait on gevent.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from collections.abc import Sequence
from unittest.mock import patch

from pdbench.errors import UsageError
from pdbench.load.delta import Delta
from pdbench.load.outcome import LocustView

with patch.dict(os.environ, {"LOCUST_SKIP_MONKEY_PATCH": "1"}):
    import gevent
    import locust
    from locust.env import Environment
    from locust.runners import LocalRunner, MasterRunner, WorkerRunner

# Its runner logs every step of the ramp at INFO and warns that a spawn rate above 100 is high, which here is
# a request rate.
logging.getLogger("locust").setLevel(logging.ERROR)

VERSION: str = locust.__version__
_WINDOW_NS = 1_000_000_000


def offered_rate(scheduled_ns: Sequence[int], at_ns: int) -> int:
    """Arrivals of the plan in the second from ``at_ns`` (requests per second)."""
    return bisect_left(scheduled_ns, at_ns + _WINDOW_NS) - bisect_left(scheduled_ns, at_ns)


class ArrivalShape(locust.LoadTestShape):
    """The plan as a Locust shape: the "user count" of a tick is the offered rate in requests per second.

    The instants themselves were fixed before the run; Locust shows the rate and never issues a request.
    """

    def __init__(self, scheduled_ns: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scheduled_ns = scheduled_ns
        self.over = False

    def tick(self) -> tuple[int, float] | None:
        """(offered rate, the same), at least 1; ``None`` once the run is over."""
        if self.over:
            return None
        run_time_s = float(self.get_run_time())  # type: ignore[no-untyped-call]
        rate = max(1, offered_rate(self._scheduled_ns, int(run_time_s * 1e9)))
        return rate, float(rate)


class EngineKeeper(locust.User):
    """The one user that Locust wants to have. The engine was started by ``test_start``, not by it."""

    fixed_count = 1

    @locust.task
    def rest(self) -> None:
        gevent.sleep(3600)


def environment(scheduled_ns: Sequence[int]) -> tuple[Environment, LocalRunner, ArrivalShape]:
    """A fresh environment with a local runner, not yet started."""
    shape = ArrivalShape(scheduled_ns)
    env = Environment(user_classes=[EngineKeeper], shape_class=shape)
    return env, env.create_local_runner(), shape


def plain() -> tuple[Environment, LocalRunner]:
    """An environment with a local runner that is never started: for a page whose runs come from elsewhere."""
    env = Environment(user_classes=[EngineKeeper])
    return env, env.create_local_runner()


def master(host: str, port: int) -> tuple[Environment, MasterRunner]:
    """An environment with a master runner that listens. Raises ``UsageError`` where it cannot."""
    env = Environment(user_classes=[EngineKeeper])
    where = f"{host}:{port}" if port else host
    try:
        return env, env.create_master_runner(host, port)
    except SystemExit:  # Locust's answer to a port that is taken
        remedy = "choose another with --port, or end what listens there"
        raise UsageError("the port is taken", where=where, remedy=remedy) from None
    except Exception as error:
        raise UsageError(
            f"cannot listen: {error}", where=where, remedy="--bind wants an address of this host"
        ) from None


def worker(host: str, port: int, tries: int) -> tuple[Environment, WorkerRunner]:
    """An environment with a worker runner that is connected. Raises ``UsageError`` after ``tries`` of 5 s."""
    env = Environment(user_classes=[EngineKeeper])
    try:
        with patch("locust.runners.CONNECT_RETRY_COUNT", tries):
            return env, env.create_worker_runner(host, port)
    except ConnectionError:
        remedy = "start pdbench run --expect-workers N there first, with --bind, and see that the port is open"
        raise UsageError("no master answers", where=f"{host}:{port}", remedy=remedy) from None
    except Exception as error:
        raise UsageError(f"cannot connect: {error}", where=f"{host}:{port}") from None


def fire(env: Environment, name: str, delta: Delta) -> None:
    """Every ended request once into Locust's own statistics."""
    for done in delta.done:
        env.events.request.fire(  # type: ignore[no-untyped-call]
            request_type="POST",
            name=name,
            response_time=done.e2e_ms or 0.0,
            response_length=done.tokens,
            exception=None if done.status == "ok" else f"{done.status}: {done.error}",
            context={},
        )


def view(env: Environment) -> LocustView:
    """What Locust's own statistics say now."""
    total = env.stats.total
    return LocustView(VERSION, total.num_requests, total.num_failures, total.total_rps)
