"""Locust's part of a run, as classes. Importing this module imports locust; only ``steer.py`` does, late.

Locust patches sockets, locks and threads of the whole process when imported, and recurses to death in ``ssl``
when ``requests`` was there first. Nothing here needs the patches: what waits, waits on gevent by name. So
they are switched off for our import; where someone has imported locust before us (``locust -f``, the web UI)
this works as well.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from collections.abc import Sequence
from unittest.mock import patch

with patch.dict(os.environ, {"LOCUST_SKIP_MONKEY_PATCH": "1"}):
    import gevent
    import locust
    from locust.env import Environment
    from locust.runners import LocalRunner

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
