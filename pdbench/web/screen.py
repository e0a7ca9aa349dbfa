"""What the pages show of one call: verbs tell it how far they are, the load tells it what came, the pages ask.

It is told from the verb's thread and from the sampler's, and asked from the page's; nothing here waits for long.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pdbench.live import ArmView
from pdbench.livestate import ArmState, Judged
from pdbench.measure.slo import parse_objectives
from pdbench.web.course import Course, columns
from pdbench.web.fields import Asked

if TYPE_CHECKING:
    from pdbench.load.delta import Delta
    from pdbench.load.job import Job
    from pdbench.load.outcome import LoadOutcome

_EVENTS = 200
_STALE_S = 3.0  # a server's word older than this is none
_CUT_SHORT = {"waiting": "not run", "starting": "not started", "ready": "not run", "running": "cut short"}
"""What an arm that was in such a state when its call ended has come to."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended: a document in a folder, or why there is none."""

    document: dict[str, Any] | None = None
    run_dir: Path | None = None
    error: str = ""


class Going(NamedTuple):
    """The run that is going, as it is edited: its id, its rate now (requests/s), how much faster than planned."""

    run_id: str
    rate: float
    factor: float


@dataclass(slots=True)
class _Run:
    """The run that is going."""

    id: str
    arm: int
    rate: float | None
    open_loop: bool
    begun: bool = False  # the load tells of itself, so the instant it starts from is known
    factor: float = 1.0
    server: dict[str, float] = field(default_factory=dict)
    server_at_s: float = 0.0


class Screen:
    """One call. A ``pdbench.live.Progress`` for the verb; ``now`` gives seconds."""

    def __init__(self, number: int, asked: Asked, now: Callable[[], float] = time.monotonic) -> None:
        self.number = number
        self.asked = asked
        objectives = parse_objectives(asked.workload.slo)
        self.arms = [ArmState(backend.name, objectives) for backend in asked.arms]
        self.tells = [backend.engine == "pdserve" for backend in asked.arms]
        self.ending: Ending | None = None
        self.lost: list[str] = []
        self.edited = False
        self.stopping = False
        self._now = now
        self._began_s = now()
        self._lock = threading.Lock()
        self._events: deque[tuple[float, str]] = deque(maxlen=_EVENTS)
        self._course = Course(len(self.arms))
        self._current = ""
        self._run: _Run | None = None
        self._figures: dict[int, tuple[int, dict[str, Any]]] = {}

    @property
    def at_s(self) -> float:
        return self._now() - self._began_s

    # ---- told by the verb

    def event(self, text: str) -> None:
        with self._lock:
            self._events.append((round(self.at_s, 1), text))

    def show(self, view: ArmView) -> None:
        with self._lock:
            state = self._arm(view.name)
            if state is None:
                return
            state.state, state.pairs = view.state, view.pairs
            if view.total:
                state.pair, state.done, state.total, state.failed = view.pair, view.done, view.total, view.failed
                self._current = view.name

    def close(self) -> None:
        """Nothing to close."""

    def end(self, ending: Ending) -> None:
        with self._lock:
            self.ending, self._run = ending, None
            for arm in self.arms:
                arm.state = _CUT_SHORT.get(arm.state, arm.state)

    # ---- told by the load

    def begin(self, job: Job) -> None:
        """A run of the arm that was shown last begins."""
        with self._lock:
            place = next(i for i, arm in enumerate(self.arms) if arm.name == self._current)
            process = self.asked.workload.arrivals
            rate = process.mean_rate if not job.concurrency else None
            self._run = _Run(
                job.run_id, place, rate or (None if job.concurrency else _measured_rate(job)), not job.concurrency
            )
            arm = self.arms[place]
            self._course.add(place, arm.begin(arm.pair, job.scheduled_ns if not job.concurrency else (), self.at_s))

    def take(self, delta: Delta) -> None:
        with self._lock:
            run = self._run
            if run is None:
                return
            run.begun = True
            fresh = self.at_s - run.server_at_s < _STALE_S
            self._course.add(run.arm, self.arms[run.arm].take(delta, self.at_s, run.server if fresh else None))

    def sample(self, found: dict[str, float]) -> None:
        """What the server of the run that is going says of itself."""
        with self._lock:
            if self._run is not None:
                self._run.server, self._run.server_at_s = found, self.at_s

    def over(self, outcome: LoadOutcome | None) -> None:
        """The run has ended; None: it failed."""
        with self._lock:
            if self._run is not None:
                self.arms[self._run.arm].in_flight = 0
            self._run = None
            if outcome is not None:
                self._note_lost(outcome.losses or [f"{name}: lost" for name in outcome.workers_lost])

    def note_lost(self, lost: Sequence[str]) -> None:
        """Workers that are lost by now, with why: ``name: why``."""
        with self._lock:
            self._note_lost(lost)

    def _note_lost(self, lost: Sequence[str]) -> None:
        for one in lost:
            name = one.partition(": ")[0]
            if not any(known.partition(": ")[0] == name for known in self.lost):
                self.lost.append(one)

    def faster(self, run_id: str, factor: float) -> None:
        """The rate of a run was changed; it may have ended meanwhile."""
        with self._lock:
            self.edited = True
            if self._run is not None and self._run.id == run_id:
                self._run.factor *= factor
                rate = f" to {self._run.rate * self._run.factor:.3g} req/s" if self._run.rate else ""
                self._events.append(
                    (round(self.at_s, 1), f"{self.arms[self._run.arm].name}: the rate was edited{rate}")
                )

    def _arm(self, name: str) -> ArmState | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    # ---- asked by the pages

    @property
    def going(self) -> Going | None:
        """The run that is going, edits included; None: none goes, or it has no rate."""
        run = self._run
        return Going(run.id, run.rate * run.factor, run.factor) if run is not None and run.rate else None

    @property
    def rate(self) -> float | None:
        """Requests/s of the run that is going, edits included; None: none goes, or it has no rate."""
        going = self.going
        return going.rate if going is not None else None

    @property
    def tells_now(self) -> bool:
        """Whether the server of the run that is going tells of its queues and devices."""
        return self._run is not None and self.tells[self._run.arm]

    @property
    def begun(self) -> bool:
        """Whether a run goes whose load has told of itself."""
        return self._run is not None and self._run.begun

    @property
    def factor(self) -> float:
        """How much faster than planned the run goes by now."""
        return self._run.factor if self._run is not None else 1.0

    def reasons(self) -> list[str]:
        """Why the result will be INVALID, as far as is known by now."""
        found = [f"worker lost: {one}" for one in self.lost]
        if self.edited:
            found.append("the rate was edited while it ran")
        if self.stopping:
            found.append("it is being stopped")
        return found

    def news(self, since: int) -> dict[str, Any]:
        """Everything that changes, for the page: points after number ``since``, as columns by the number of their arm;
        the rest as it is now."""
        with self._lock:
            course = self._course.after(since)
            news: dict[str, Any] = {
                "arms": [self._card(number) for number in range(len(self.arms))],
                "next": self._course.last,
                "events": [{"at_s": at_s, "text": text} for at_s, text in list(self._events)[-40:]],
                "rate": {"now": self.rate, "editable": self.begun and self._run is not None and self._run.open_loop},
                "reasons": self.reasons(),
                "elapsed_s": round(self.at_s, 1),
            }
        points = {str(arm): columns(rows) for arm, rows in enumerate(course) if rows}
        return {**news, "points": points}

    @property
    def last(self) -> int:
        """The number of the last point."""
        return self._course.last

    def lines(self) -> list[str]:
        """The events, for Locust's log tab."""
        with self._lock:
            return [f"[{at_s:7.1f}s] {text}" for at_s, text in self._events]

    def _card(self, number: int) -> dict[str, Any]:
        arm = self.arms[number]
        return {
            "name": arm.name,
            "state": arm.state,
            "pair": arm.pair + 1,
            "pairs": arm.pairs,
            "done": arm.done,
            "total": arm.total,
            "failed": arm.failed,
            "in_flight": arm.in_flight,
            "tells": self.tells[number],
            **self._told(number),
        }

    def _told(self, number: int) -> dict[str, Any]:
        """The figures of an arm, made once for each delta: percentiles cost milliseconds, and every page asks."""
        arm = self.arms[number]
        known = self._figures.get(number)
        if known is not None and known[0] == arm.deltas:
            return known[1]
        found = {
            "ended": arm.ended,
            "spreads": {name: [_finite(one) for one in spread] for name, spread in arm.spreads_ms().items()},
            "joint": _shown(arm.joint()),
            "objectives": [_shown(one) for one in arm.judged()],
            "dispatch_p99_ms": arm.dispatch_p99_ms,
            "client_p99_ms": arm.client_p99_ms,
            "late": arm.late(),
        }
        self._figures[number] = arm.deltas, found
        return found


def _finite(value: float | None) -> float | str | None:
    """``"inf"`` for infinity, which JSON has no number for."""
    return "inf" if value is not None and math.isinf(value) else value


def _shown(one: Judged) -> dict[str, Any]:
    return {"text": one.text, "share": one.share, "interval": one.interval, "requests": one.requests, "word": one.word}


def _measured_rate(job: Job) -> float | None:
    """Of the plan without its warm-up."""
    due = [at for at, warmup in zip(job.scheduled_ns, job.warmup, strict=True) if not warmup]
    span_ns = due[-1] - due[0] if due else 0
    gaps = sum(1 for _ in pairwise(due))
    return gaps * 1e9 / span_ns if span_ns > 0 else None
